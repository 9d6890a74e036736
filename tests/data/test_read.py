import bz2
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow
import pytest
from pyarrow import parquet
from versions import since

from stfit.data.mapping.load_examples import load_examples
from stfit.data.reading import text_lines
from stfit.data.reading.load_table import count_rows, find_splits, load_table
from stfit.data.reading.local_files import local_files
from stfit.data.source import ReadOptions, Source, TrainingData
from stfit.errors import DataError, RecipeError
from stfit.evaluation.evaluators.classification import Classification

ROWS = [{"text": f"number {i}", "label": i % 2} for i in range(6)]
TEXTS = [row["text"] for row in ROWS]


def texts(dataset, **keys):
    return load_table(Source(dataset=str(dataset), **keys)).columns["text"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines_are_read_plain_and_gzipped(write, name):
    table = load_table(Source(dataset=write(ROWS, name)))
    assert table.columns == {"text": TEXTS, "label": [0, 1] * 3}
    assert table.row.tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("name", "comma"), [("a.csv", ","), ("a.csv.gz", ","), ("a.tsv", "\t"), ("a.tsv.gz", "\t")])
def test_delimited_text_is_read_plain_and_gzipped(write, name, comma):
    lines = [f"text{comma}label", f'"one{comma} ""two""\nthree"{comma}1', "", f"four{comma}0"]
    table = load_table(Source(dataset=write("\n".join(lines), name)))
    assert table.columns == {"text": [f'one{comma} "two"\nthree', "four"], "label": ["1", "0"]}
    assert table.row.tolist() == [1, 2]


def test_a_byte_order_mark_is_no_part_of_the_first_column(write):
    assert texts(write("\ufefftext\nhello\n", "a.csv")) == ["hello"]
    assert texts(write('\ufeff{"text": "hello"}\n', "b.jsonl")) == ["hello"]


def test_read_options_are_followed(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes('1;"caf\u00e9;more;even more\n'.encode("latin-1"))
    read = ReadOptions(delimiter=";", quoting=False, encoding="latin-1", header=["id", "text", "rest"])
    assert load_table(Source(dataset=str(path), read=read)).columns == {
        "id": ["1"],
        "text": ['"caf\u00e9'],
        "rest": ["more"],
    }
    unnamed = ReadOptions(delimiter=";", quoting=False, encoding="latin-1", header=False)
    assert list(load_table(Source(dataset=str(path), read=unnamed)).columns) == [f"column_{i}" for i in (1, 2, 3, 4)]


def test_parquet_keeps_the_class_names_of_datasets(tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    datasets.Dataset.from_list(ROWS, features=features).to_parquet(tmp_path / "a.parquet")
    table = load_table(Source(dataset=str(tmp_path / "a.parquet")))
    assert table.columns["text"] == TEXTS
    assert table.label_names == {"label": ["no", "yes"]}


@pytest.mark.parametrize("names", [["no", "yes"], {"no": 0, "yes": 1}, {"0": "no", "1": "yes"}])
def test_labels_json_beside_the_file_names_the_classes(write, names):
    write(json.dumps({"label": names}), "labels.json")
    assert load_table(Source(dataset=write(ROWS))).label_names == {"label": ["no", "yes"]}


LABELED = {"format": "labeled_text", "columns": {"label": "label"}}
NAMES = ["no", "yes"]
FLAT = [NAMES, {"no": 0, "yes": 1}, {"0": "no", "1": "yes"}]
FURTHER = [{"label": NAMES, "index": 5}, {"comment": "by hand", "label": NAMES, "licence": {"name": "CC0"}}]


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["", "byte order mark"])
@pytest.mark.parametrize("content", [*FLAT, *FURTHER], ids=str)
def test_labels_json_may_hold_the_names_alone_or_other_keys_too(write, caplog, content, mark):
    write(mark + json.dumps(content), "labels.json")
    examples, _ = load_examples(TrainingData(dataset=write(ROWS), **LABELED), "labeled_text", seed=0)
    assert (examples.label_names, examples.label.tolist()) == (NAMES, [0, 1] * 3)
    assert not caplog.text


OF_OTHER_TOOLS = [
    {"images": [{"id": 1}]},
    "text",
    3,
    None,
    [{"name": "no"}],
    {"a": "b"},
    {"9" * 5000: "no"},
]
WITH_GAPS = [
    f'{{"label": {{"no": 0, "yes": {second}}}}}' for second in ("1.5", "1e999", "NaN", "2", "0", '"1"', "null")
]


@pytest.mark.parametrize("content", [*map(json.dumps, OF_OTHER_TOOLS), *WITH_GAPS, "{", "\ud800"], ids=range(16))
def test_a_labels_json_that_does_not_name_the_classes_is_ignored_and_said(tmp_path, write, caplog, content):
    (tmp_path / "labels.json").write_bytes(content.encode(errors="surrogatepass"))
    texts_only = load_table(TrainingData(dataset=write(ROWS), format="text"))
    assert (len(texts_only), caplog.text) == (6, "")  # no labels, nothing to say
    examples, _ = load_examples(TrainingData(dataset=write(ROWS), **LABELED), "labeled_text", seed=0)
    assert (examples.label_names, examples.label.tolist()) == (None, [0, 1] * 3)
    assert caplog.text.count("labels.json is ignored") == 1


def test_a_folder_holds_splits_in_shards_and_subfolders(write, tmp_path):
    write(ROWS[:2], "set/test.jsonl.gz")
    arrow = pyarrow.Table.from_pylist(ROWS[2:])
    (tmp_path / "set/data").mkdir()
    parquet.write_table(arrow.slice(0, 3), tmp_path / "set/data/train-00000-of-00002.parquet")
    parquet.write_table(arrow.slice(3), tmp_path / "set/data/train-00001-of-00002.parquet")
    folder = tmp_path / "set"
    assert texts(folder) == TEXTS[2:]
    assert texts(folder, split="test") == TEXTS[:2]
    assert texts(folder, split="test+train[-1:]") == [*TEXTS[:2], TEXTS[5]]
    assert load_table(Source(dataset=str(folder), split="train[1:]")).row.tolist() == [2, 3, 4]


def test_a_glob_is_one_split_in_the_order_of_names(write, tmp_path):
    write(ROWS[3:], "part-b.jsonl")
    write(ROWS[:3], "part-a.jsonl")
    assert texts(tmp_path / "part-*.jsonl") == TEXTS


def test_datasets_saved_to_disk_are_read(tmp_path):
    one = datasets.Dataset.from_list(ROWS)
    one.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": one.select(range(4)), "dev": one.select([5, 4])}).save_to_disk(tmp_path / "both")
    assert texts(tmp_path / "one") == TEXTS
    assert texts(tmp_path / "both", split="dev") == [TEXTS[5], TEXTS[4]]
    with pytest.raises(DataError, match=r"no split `test`.*dev, train"):
        texts(tmp_path / "both", split="test")


@since("datasets", "4.1", "reads a split without its description before")
def test_an_empty_split_does_not_keep_others_from_being_read(tmp_path):
    rows = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": rows, "dev": rows.select([])}).save_to_disk(tmp_path / "saved")
    assert texts(tmp_path / "saved") == TEXTS
    assert load_table(Source(dataset=str(tmp_path / "saved"), split="dev")).columns == {"text": [], "label": []}
    (tmp_path / "saved/dev/dataset_info.json").write_text("{}")
    assert texts(tmp_path / "saved") == TEXTS
    with pytest.raises(DataError, match="can't be read"):
        texts(tmp_path / "saved", split="dev")


def test_a_folder_that_only_contains_a_saved_dataset_is_told_from_it(tmp_path):
    datasets.Dataset.from_list([{"text": text} for text in TEXTS]).save_to_disk(tmp_path / "outer" / "inner")
    with pytest.raises(DataError, match=f"outer has no data files .*: set `dataset` to {tmp_path}/outer/inner"):
        texts(tmp_path / "outer")


@pytest.fixture(params=["file", "glob", "folder", "folder test", "saved", "saved test", "dict", "dict test"])
def one_split(request, tmp_path, write):
    """A dataset without splits, or with one."""
    if request.param.startswith("folder"):
        write(ROWS, f"set/{'test' if request.param.endswith('test') else 'train'}.jsonl")
        return str(tmp_path / "set")
    if request.param.startswith("dict"):
        name = "test" if request.param.endswith("test") else "train"
        datasets.DatasetDict({name: datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "dict")
        return str(tmp_path / "dict")
    if not request.param.startswith("saved"):
        write(ROWS, "dev.jsonl")
        return str(tmp_path / ("dev.jsonl" if request.param == "file" else "*.jsonl"))
    rows = datasets.Dataset.from_list(ROWS)
    split = datasets.NamedSplit("test") if request.param == "saved test" else None
    datasets.Dataset(rows.data, split=split).save_to_disk(tmp_path / "saved")
    return str(tmp_path / "saved")


def test_a_dataset_with_one_split_needs_no_name_of_it(one_split):
    evaluator = Classification(dataset=one_split)
    assert load_table(evaluator).columns["text"] == TEXTS
    assert load_table(Classification.model_validate(evaluator.model_dump(by_alias=True))).columns["text"] == TEXTS
    assert texts(one_split) == texts(one_split, split="train") == TEXTS
    for split in ("train[:2]", "train[:1]+train[1:2]"):
        assert texts(one_split, split=split) == TEXTS[:2]
        assert local_files(Source(dataset=one_split, split=split)) == local_files(Source(dataset=one_split))
        assert count_rows(Source(dataset=one_split, split=split)) is None
    with pytest.raises(DataError, match=r"no split `validation`: its only split is .*remove `split`"):
        load_table(Classification(dataset=one_split, split="validation"))
    with pytest.raises(DataError, match="would classify the texts that it learns from"):
        evaluator.load(0, None)


def test_a_folder_of_splits_still_needs_the_split_that_is_meant(write, tmp_path):
    write(ROWS, "set/train.jsonl")
    write(ROWS, "set/dev.jsonl")
    with pytest.raises(DataError, match="no split `test`: its splits are dev, train"):
        load_table(Classification(dataset=str(tmp_path / "set")))


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"text": "x"', "not valid JSON"),
        ("[1, 2]", "not a JSON object"),
        (f'{{"label": {"9" * 5000}}}', "value has 5000 digits$"),
        ('{"text": "x", "set": {"pos": "a", "pos": "b"}}', "`pos` occurs twice"),
        ("[" * 100_000, "JSON"),
        ('{"text": \udcff}', "utf-8"),
    ],
)
def test_a_bad_line_of_json_is_named(tmp_path, line, what):
    path = tmp_path / "a.jsonl"
    good = '{"text": "fine"}\n\n'
    path.write_bytes((good + line + "\n" + good).encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=f"line 3 .*{what}") as caught:
        texts(path)
    assert (caught.value.problems[0].file, caught.value.problems[0].line) == (str(path), 3)


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        (["a,b", "1,2", "3"], "line 3 has 1 fields, expected 2: a, b"),
        (["a,b", "1,2", "3,4,5"], "line 3 has 3 fields, expected 2: a, b"),
        (["a;b", "1;2", "3;4,5"], "line 3 has 2 fields, expected 1: if ';' is the delimiter, set `read: {delimiter"),
        (["a,b", '1,"x"y'], "line 2 is not valid.*quoting: false"),
        (["a,a", "1,2"], "names a column twice"),
    ],
)
def test_a_bad_line_of_csv_is_named(write, lines, what):
    with pytest.raises(DataError, match=what):
        load_table(Source(dataset=write("\n".join(lines) + "\n", "a.csv")))


def test_bytes_that_are_not_the_encoding_are_a_data_error(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text\n\xff\xfe\n")
    with pytest.raises(DataError, match="not utf-8"):
        texts(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz"])
def test_an_endless_line_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch, name):
    monkeypatch.setattr(text_lines, "MAX_LINE", 2**20)
    with gzip.open(tmp_path / name, "wb") as file:
        file.write(b"text\n" if "csv" in name else b'{"text": "short"}\n')
        file.write(b"0" * 2**21)
    with pytest.raises(DataError, match="line 2 is longer than 1 MiB"):
        texts(tmp_path / name)


def test_a_truncated_gzip_is_a_data_error(write):
    path = Path(write(ROWS, "a.jsonl.gz"))
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(DataError, match="can't be read"):
        texts(path)


def test_what_is_missing_is_said_with_what_there_is(write, tmp_path):
    path = write(ROWS, "some/train.jsonl")
    with pytest.raises(DataError, match=r"tran\.jsonl does not exist.*`train\.jsonl`"):
        texts(tmp_path / "some/tran.jsonl")
    with pytest.raises(DataError, match=r"no split `test`.*train"):
        texts(path, split="test")
    write(ROWS, "some/test.jsonl")
    with pytest.raises(DataError, match="no split `trian`: did you mean `train`"):
        texts(tmp_path / "some", split="trian")
    with pytest.raises(DataError, match="no file matches"):
        texts(tmp_path / "some/*.csv")
    with pytest.raises(DataError, match=r"use one of \.jsonl"):
        texts(write("x", "a.xml"))
    write(ROWS, "some/train.csv")
    with pytest.raises(DataError, match="several files could be the split `train`"):
        texts(tmp_path / "some")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (os.mkfifo, "neither a file nor a folder"),
        (lambda path: path.symlink_to(path), "a link to a file that does not"),
    ],
)
def test_a_path_that_can_hold_no_rows_is_said_to_be_so(tmp_path, make, what):
    make(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=rf"a\.jsonl is {what}"):
        texts(tmp_path / "a.jsonl")


def test_hub_keys_are_refused_for_a_path(write):
    with pytest.raises(RecipeError, match="`revision` is for datasets on the Hub"):
        texts(write(ROWS), revision="main")


def test_standard_input_is_no_dataset_with_splits():
    with pytest.raises(RecipeError, match="`-` is standard input, which only `encode` and `similar` read"):
        find_splits(Source(dataset="-"))


def test_a_folder_that_hides_a_hub_id_is_refused(tmp_path, monkeypatch):
    (tmp_path / "me" / "set").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"write `\./me/set`"):
        load_table(Source(dataset="me/set"))


def test_the_hub_out_of_reach_is_a_hub_error():
    code = (
        "from stfit.data.reading.load_table import load_table; from stfit.data.source import Source\n"
        "from stfit.errors import HubError\n"
        "try: load_table(Source(dataset='nobody/nothing-here'))\n"
        "except HubError as error: raise SystemExit(error.exit_code)"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": os.devnull}
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True).returncode == 5


def test_reading_local_text_needs_neither_torch_nor_datasets(write):
    code = (
        "import sys; from stfit.data.reading.load_table import load_table; from stfit.data.source import Source\n"
        f"load_table(Source(dataset={write(ROWS)!r}))\n"
        "assert not {'torch', 'datasets', 'pyarrow', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "content", "advice"),
    [
        ("a.csv", gzip.compress(b"text\na\n", mtime=0), "it is compressed: add .gz to its name"),
        ("a.jsonl", bz2.compress(b'{"text": "a"}\n' * 50), "it is compressed: add .bz2 to its name"),
        ("a.tsv", b"PK\x03\x04\x14\x00\xe9\xff", "it is a zip archive or an Excel file: unpack it, or save"),
        ("a.txt", b"PAR1\x15\x04\xff\xfe", "it is a Parquet file: name it .parquet"),
        ("a.jsonl", b'[{"text": "a"}]', "if the whole file is one array, name it .json"),
        ("a.jsonl", b'{\n  "text": "a"\n}\n', r"write each object on one line \(jq -c\)"),
        ("a.tsv", b"7\t7\t1\n8\t9\t1\n", "if it is a row and no header, set `read: {header: false}`"),
    ],
)
def test_a_file_of_another_kind_than_its_name_says_is_told_apart(tmp_path, name, content, advice):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=advice):
        load_table(Source(dataset=str(tmp_path / name)))

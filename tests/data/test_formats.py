"""Every kind of data file gives the same rows, plain and compressed, block by block."""

import bz2
import gzip
import json
import lzma
from itertools import islice

import datasets
import pyarrow as pa
import pytest
from pyarrow import ipc, parquet
from versions import since

from stfit.data.mapping.filters import filter_rows
from stfit.data.mapping.texts import stream_texts
from stfit.data.reading.load_table import count_rows, load_table
from stfit.data.reading.local_files import read_file
from stfit.data.reading.parquet import count_text_bytes
from stfit.data.source import Condition, ReadOptions, Source, TrainingData
from stfit.data.table import build_table
from stfit.errors import DataError
from stfit.paths import COMPRESSIONS, READERS, looks_like_path, without_data_suffix

ROWS = [{"text": f"number {i}, “ü”", "label": i % 2} for i in range(3000)]
COLUMNS = {"text": [row["text"] for row in ROWS], "label": [row["label"] for row in ROWS]}


def arrow_bytes(new=ipc.new_file, rows=ROWS):
    table, sink = pa.Table.from_pylist(rows), pa.BufferOutputStream()
    with new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2000)
    return sink.getvalue().to_pybytes()


def zstd(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(content)
    return sink.getvalue().to_pybytes()


def lines(separator, rows):
    return "".join(separator.join(row) + "\n" for row in rows).encode()


PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}
JSON_LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
CONTENT = {
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".json": json.dumps(ROWS, ensure_ascii=False).encode(),
    ".csv": lines(",", [["text", "label"], *([f'"{row["text"]}"', str(row["label"])] for row in ROWS)]),
    ".tsv": lines("\t", [["text", "label"], *([row["text"], str(row["label"])] for row in ROWS)]),
    ".txt": lines("", [[row["text"]] for row in ROWS]),
    ".arrow": arrow_bytes(),
    ".feather": arrow_bytes(),
}
READ = {
    ".csv": COLUMNS | {"label": list(map(str, COLUMNS["label"]))},
    ".tsv": COLUMNS | {"label": list(map(str, COLUMNS["label"]))},
    ".txt": {"text": COLUMNS["text"]},
}


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("suffix", CONTENT)
def test_every_kind_of_file_gives_its_rows_plain_and_compressed(tmp_path, suffix, packed):
    path = tmp_path / f"Rows{suffix}{packed}".upper()
    path.write_bytes(PACK[packed](CONTENT[suffix]))
    table = load_table(Source(dataset=str(path)))
    assert table.columns == READ.get(suffix, COLUMNS)
    assert table.row.tolist() == list(range(1, len(ROWS) + 1))
    first = next(block for block in read_file(path, ReadOptions()) if len(block))
    assert len(first) == 1024
    assert (looks_like_path(path.name), without_data_suffix(path.name)) == (True, "ROWS")


def test_the_kinds_tried_here_are_all_kinds():
    assert {*CONTENT, ".parquet"} == set(READERS)
    assert {*PACK} == {"", *COMPRESSIONS}


def test_parquet_is_compressed_inside():
    assert not looks_like_path("rows.parquet.gz")


def test_an_arrow_file_is_read_by_its_footer(tmp_path):
    """Nothing at its start says where the rows are: polars writes no stream there."""
    content = arrow_bytes()
    for name in ("a.arrow", "a.arrow.gz"):
        without_schema = content[:8] + bytes(8) + content[16:]
        (tmp_path / name).write_bytes(gzip.compress(without_schema) if name.endswith("gz") else without_schema)
        assert load_table(Source(dataset=str(tmp_path / name))).columns == COLUMNS


@pytest.mark.parametrize("new", [ipc.new_file, ipc.new_stream])
def test_arrow_files_of_both_formats_are_read(tmp_path, new):
    (tmp_path / "a.arrow").write_bytes(arrow_bytes(new))
    assert load_table(Source(dataset=str(tmp_path / "a.arrow"))).columns == COLUMNS


def test_a_stream_that_ends_without_its_mark_may_be_cut_off(tmp_path, caplog):
    whole = arrow_bytes(ipc.new_stream)
    for name, content in (("whole", whole), ("cut", whole[:-8])):
        (tmp_path / f"{name}.arrow").write_bytes(content)
        assert load_table(Source(dataset=str(tmp_path / f"{name}.arrow"))).columns == COLUMNS
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith(f"{tmp_path}/cut.arrow: has no end-of-stream mark")


def test_a_file_that_datasets_saved_keeps_the_names_of_its_classes(tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    datasets.Dataset.from_list(ROWS[:5], features=features).save_to_disk(tmp_path / "saved")
    table = load_table(Source(dataset=str(next((tmp_path / "saved").glob("*.arrow")))))
    assert (table.columns["text"], table.label_names) == (COLUMNS["text"][:5], {"label": ["no", "yes"]})


SHAPES = {
    "objects": ROWS[:4],
    "columns": {name: cells[:4] for name, cells in COLUMNS.items()},
    "nested": {"data": ROWS[:4]},
    "nested beside facts": {"version": "1.1", "data": ROWS[:4]},
}


@pytest.mark.parametrize("content", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("indent", [None, 2])
def test_json_files_are_rows_or_columns(write, content, indent):
    table = load_table(Source(dataset=write(json.dumps(content, indent=indent), "a.json")))
    assert table.columns == {name: cells[:4] for name, cells in COLUMNS.items()}


def test_json_files_may_be_texts_lines_or_one_row(write):
    assert load_table(Source(dataset=write('["a", "b"]', "a.json"))).columns == {"text": ["a", "b"]}
    assert load_table(Source(dataset=write('{"a": "b"}\n\n{"a": "c"}\n', "b.json"))).columns == {"a": ["b", "c"]}
    assert load_table(Source(dataset=write('{"a": "b", "c": ["d"]}', "c.json"))).columns == {"a": ["b"], "c": [["d"]]}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ('[{"text": "a"},\n{"text": }]', "line 2 is not valid JSON"),
        ('{"text": "a"}\n{"text": }\n', "line 2 is not valid JSON"),
        ('[{"text": "a"}, 3]', "element 2 of its array is not an object: write"),
        ('{"a": ["b"], "c": ["d", "e"]}', "differ in length: a has 1, c has 2"),
        ('{"text": {"0": "a"}}', r"orient=\"records\""),
        ("{}", "neither rows nor columns"),
        ("3", "neither rows nor columns"),
        ("", "not valid JSON"),
        ('[{"text": "a", "text": "b"}]', "`text` occurs twice"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_json_file_of_another_shape_is_explained(write, content, what):
    with pytest.raises(DataError, match=what):
        load_table(Source(dataset=write(content, "a.json")))


def test_folders_have_splits_of_every_kind_but_no_readme(write, tmp_path):
    write(json.dumps(ROWS[:2]), "set/train.json")
    write("one\ntwo\n", "set/test.txt")
    for other in ("README.txt", "labels.json", "dataset_infos.json"):
        write("{}", f"set/{other}")
    assert load_table(Source(dataset=str(tmp_path / "set"))).columns["text"] == COLUMNS["text"][:2]
    assert load_table(Source(dataset=str(tmp_path / "set"), split="test")).columns["text"] == ["one", "two"]
    with pytest.raises(DataError, match="its splits are test, train"):
        load_table(Source(dataset=str(tmp_path / "set"), split="labels"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".txt"])
def test_the_first_bytes_tell_the_encoding(tmp_path, suffix, encoding):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(CONTENT[suffix].decode().encode(encoding))
    assert load_table(Source(dataset=str(path))).columns == READ.get(suffix, COLUMNS)


@pytest.mark.parametrize(("suffix", "line"), [(".jsonl", 2000), (".json", 2000), (".csv", 2001), (".txt", 2000)])
def test_text_is_read_in_the_encoding_that_is_set_and_else_its_first_line_is_named(tmp_path, suffix, line):
    text = (JSON_LINES if suffix == ".json" else CONTENT[suffix]).decode()
    for character in "“”ü":
        text = text.replace(character, "", 1999)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(text.encode("cp1252"))
    table = load_table(Source(dataset=str(path), read=ReadOptions(encoding="cp1252")))
    assert table.columns["text"][2000:] == COLUMNS["text"][2000:]
    with pytest.raises(DataError, match=r"read: \{encoding: cp1252\}.*--read encoding=cp1252") as caught:
        load_table(Source(dataset=str(path)))
    assert (caught.value.problems[0].file, caught.value.problems[0].line) == (str(path), line)


def test_a_text_file_with_a_delimiter_has_columns(write):
    path = write("a\tb\nc\td\n", "pairs.txt")
    read = ReadOptions(delimiter="\t", header=["anchor", "positive"])
    assert load_table(Source(dataset=path, read=read)).columns == {"anchor": ["a", "c"], "positive": ["b", "d"]}


@pytest.mark.parametrize("options", [{}, {"delimiter": ";"}])
def test_a_line_for_excel_tells_the_delimiter_and_is_no_row(write, options):
    path = write("sep=;\r\ntext;label\r\na,b;1\r\nc;0;0\r\n", "a.csv")
    with pytest.raises(DataError, match="line 4 has 3 fields"):
        load_table(Source(dataset=path, read=ReadOptions(**options)))
    write("sep=;\r\ntext;label\r\na,b;1\r\n", "a.csv")
    assert load_table(Source(dataset=path, read=ReadOptions(**options))).columns == {"text": ["a,b"], "label": ["1"]}


@pytest.mark.parametrize("name", ["a.json", "a.ndjson.xz", "a.txt", "a.arrow.zst"])
def test_texts_of_every_kind_are_streamed(tmp_path, name):
    kind = "." + name.split(".")[1]
    (tmp_path / name).write_bytes(PACK[name.removeprefix(f"a{kind}")](CONTENT[kind]))
    source = Source(dataset=str(tmp_path / name))
    first = [text for texts in islice(stream_texts(source, None, None), 2) for text in texts.texts]
    assert first == COLUMNS["text"][: len(first)]
    assert len(first) > 1024
    assert count_rows(source) in (None, len(ROWS))


def test_a_format_of_texts_reads_a_text_file(write):
    assert len(load_table(TrainingData(dataset=write("a\nb\n", "a.txt"), format="text"))) == 2


OUT_OF_RANGE = {"timestamp": pa.timestamp("ms"), "duration": pa.duration("s"), "date64": pa.date64()}
"""Types of which Arrow holds more values than Python."""


@pytest.mark.parametrize("type", OUT_OF_RANGE)
@pytest.mark.parametrize("kind", ["a.parquet", "a.arrow", "saved"])
def test_a_value_that_python_cannot_hold_is_an_error_of_the_file(tmp_path, kind, type):
    whole = pa.array([2**62 // 86_400_000 * 86_400_000]).cast(OUT_OF_RANGE[type])
    table, path = pa.table({"text": ["a"], "unused": whole}), tmp_path / kind
    if kind == "saved":
        datasets.Dataset(table).save_to_disk(path)
    elif kind == "a.parquet":
        parquet.write_table(table, path)
    else:
        with ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(DataError, match=f"{path}.*can't be read"):
        load_table(Source(dataset=str(path)))


def test_an_arrow_file_may_have_a_column_of_any_type_that_nests(tmp_path):
    texts = pa.array(["long " * 9, "short"]).dictionary_encode()
    columns = {
        "map": pa.MapArray.from_arrays([0, 1, 2], ["a", "b"], texts),
        "list": pa.ListArray.from_arrays([0, 1, 2], texts),
        "struct": pa.StructArray.from_arrays([texts], ["a"]),
    }
    assert {name: count_text_bytes(column) for name, column in columns.items()} == dict.fromkeys(columns, 50)
    with ipc.new_file(tmp_path / "a.arrow", pa.table(columns).schema) as writer:
        writer.write_table(pa.table(columns))
    assert load_table(Source(dataset=str(tmp_path / "a.arrow"))).columns["map"] == [
        [("a", "long " * 9)],
        [("b", "short")],
    ]


@since("pyarrow", "22", "reads such a column before")
def test_an_arrow_type_whose_texts_cannot_be_counted_is_refused(tmp_path):
    repeated = pa.table({"text": pa.RunEndEncodedArray.from_arrays([3], ["a"])})
    with ipc.new_file(tmp_path / "a.arrow", repeated.schema) as writer:
        writer.write_table(repeated)
    with pytest.raises(DataError, match=r"a\.arrow can't be read: .*run_end_encoded"):
        load_table(Source(dataset=str(tmp_path / "a.arrow")))


FEATURES_OF_OTHERS = [
    "",
    "{",
    "null",
    "[]",
    '{"info": null}',
    '{"info": {"features": []}}',
    '{"info": {"features": {"label": {"_type": "ClassLabel", "names": 5}}}}',
    "[" * 100_000,
]


@pytest.mark.parametrize("metadata", FEATURES_OF_OTHERS, ids=range(len(FEATURES_OF_OTHERS)))
def test_metadata_that_datasets_did_not_write_names_no_classes(tmp_path, metadata):
    table = pa.table({"text": ["a"], "label": [0]}).replace_schema_metadata({"huggingface": metadata})
    parquet.write_table(table, tmp_path / "a.parquet")
    read = load_table(Source(dataset=str(tmp_path / "a.parquet")))
    assert (read.columns, read.label_names) == ({"text": ["a"], "label": [0]}, {})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".txt"])
def test_a_damaged_file_with_a_byte_order_mark_is_not_said_to_be_of_another_encoding(tmp_path, suffix, encoding):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(CONTENT[suffix].decode().encode(encoding) + b"\xff\xff\xff")
    with pytest.raises(
        DataError, match=f"is not {encoding}.*byte order mark of this encoding.*write it again"
    ) as caught:
        load_table(Source(dataset=str(path)))
    assert "cp1252" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_a_column_that_is_named_twice_is_refused(tmp_path, suffix):
    table = pa.Table.from_arrays([pa.array(["right"]), pa.array(["wrong"])], names=["positive", "positive"])
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        parquet.write_table(table, path)
    else:
        with ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(DataError, match="names the column `positive` twice"):
        load_table(Source(dataset=str(path)))


def test_an_arrow_file_that_lost_its_end_is_refused_wherever_it_was_cut(tmp_path):
    schema = pa.schema([("text", pa.string())])
    places = []
    with (tmp_path / "whole.arrow").open("wb") as file, ipc.new_file(file, schema) as writer:
        for _ in range(2):
            writer.write_batch(pa.record_batch([["rain"] * 3], schema=schema))
            places.append(file.tell())
    content = (tmp_path / "whole.arrow").read_bytes()
    assert len(load_table(Source(dataset=str(tmp_path / "whole.arrow")))) == 6
    for place in (*places, len(content) - 20, len(content) - 1):
        (tmp_path / "cut.arrow").write_bytes(content[:place])
        with pytest.raises(DataError, match=r"cut\.arrow: is cut off"):
            load_table(Source(dataset=str(tmp_path / "cut.arrow")))


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_a_text_ends_at_any_line_end_and_at_no_other_character(tmp_path, end):
    texts = ["rain\u0085rain", "bread\u2028bread", "tea\x0btea"]
    (tmp_path / "t.txt").write_bytes(end.join([*texts, ""]).encode())
    assert load_table(Source(dataset=str(tmp_path / "t.txt"))).columns["text"] == texts


@pytest.mark.parametrize("names", [[], ["text", "text"]])
def test_a_header_names_columns_and_none_twice(names):
    with pytest.raises(ValueError, match="at least one column, and none twice"):
        ReadOptions(header=names)


@pytest.mark.parametrize(
    ("cells", "kept"),
    [(["true", "false", "True"], ["false"]), ([True, False], [False]), ([1, 0, "1", None], [1, 0, "1", None])],
)
def test_a_boolean_is_its_text_and_never_a_number(cells, kept):
    table = build_table("rows", {"keep": cells}, {})
    assert filter_rows(table, {"keep": Condition.model_validate({"not": True})}).columns["keep"] == kept

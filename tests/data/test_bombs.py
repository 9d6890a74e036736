"""Files that say much more than they hold end in an error, and take no more memory than an honest file would."""

import gzip
import json
import resource
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from processes import run_in_child
from pyarrow import parquet

from stfit.data.reading import delimited, packed_file, text_lines
from stfit.data.reading.labels_json import read_label_names
from stfit.data.reading.load_table import load_split, load_table
from stfit.data.reading.local_files import read_file
from stfit.data.source import ReadOptions, TrainingData
from stfit.encoder.bases.word_vectors import read_vectors
from stfit.errors import DataError, ModelError

MIB = 2**20
SCALE = 16
"""The limits are divided by this, and so are the bombs: the real ones would take minutes to read."""
ALLOWED = 800 // SCALE * MIB
"""Address space for a reader, beyond what the process had before."""


def zipped(path, piece, times, before=b""):
    with gzip.open(path, "wb") as file:
        file.write(before)
        for _ in range(times // SCALE):
            file.write(piece)


def constant(path, text, rows, pieces=1):
    """A parquet file with the same text in every row, as numbers that compress to nothing."""
    column = pa.DictionaryArray.from_arrays(pa.array([0]).take(pa.array([0] * rows, pa.int32())), pa.array([text]))
    table = pa.table({"text": column})
    with parquet.ParquetWriter(path, table.schema) as writer:
        for _ in range(pieces):
            writer.write_table(table)


ROW = b'{"text": "%s"}\n' % (b"a" * 10_000)
BOMBS = {
    "one endless line": ("a.jsonl.gz", lambda path: zipped(path, b"0" * MIB, 1024), "longer than 4 MiB"),
    "nothing but line ends": ("a.jsonl.gz", lambda path: zipped(path, b"\n" * MIB, 600), "unpack to more than"),
    "one row over and over": ("a.jsonl.gz", lambda path: zipped(path, ROW * 100, 600), "unpack to more than"),
    "endless cell": ("a.csv.gz", lambda path: zipped(path, b"0\n" * (MIB // 2), 200, b'text\n"'), "field larger"),
    "endless line of a table": ("a.tsv.gz", lambda path: zipped(path, b"0" * MIB, 1024), "longer than 4 MiB"),
    "a row of 100 MB": ("a.jsonl", lambda path: path.write_bytes(ROW[:10] + b"a" * (100 // SCALE) * MIB), "4 MiB"),
    "deep nesting": ("a.jsonl", lambda path: path.write_text("[" * 200_000), "is not valid JSON"),
    "rows that are none": ("a.parquet", lambda path: constant(path, "a", 500_000, 10), "unpack to more than"),
    "one number in a hundred columns": (
        "a.parquet",
        lambda path: parquet.write_table(pa.table(dict.fromkeys(map(str, range(100)), np.zeros(100_000))), path),
        "unpack to more than",
    ),
    "one text over and over in lists": (
        "a.parquet",
        lambda path: parquet.write_table(pa.table({"set": [{"pos": ["a" * 5_000] * 10}] * 1_000}), path),
        "unpack to more than",
    ),
    "one text in every row": (
        "a.parquet",
        lambda path: constant(path, "a" * 10_000, 400_000 // SCALE),
        "unpack to more than",
    ),
    "a parquet that ends early": ("a.parquet", lambda path: path.write_bytes(b"PAR1" + b"\xff" * 100 + b"PAR1"), ""),
}


def in_little_memory(action, output):
    """Run `action`, which has to refuse what it is given, in a child of limited memory; what it said."""
    said = output.with_name("said")

    def limited():
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + ALLOWED, resource.RLIM_INFINITY))
        try:
            action()
        except (DataError, ModelError) as error:
            said.write_text(str(error))

    assert run_in_child(limited, output) == 0, output.read_text()
    return said.read_text()


LONG = "nothing but line ends"  # millions of rows, each of which is read


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [pytest.param(*bomb, id=kind, marks=[pytest.mark.slow] * (kind == LONG)) for kind, bomb in BOMBS.items()],
)
def test_bomb_is_refused_in_bounded_memory(tmp_path, name, make, message):
    path = tmp_path / name
    make(path)

    def read():
        packed_file.MIN_ALLOWANCE //= SCALE
        text_lines.MAX_LINE = delimited.MAX_LINE = text_lines.MAX_LINE // SCALE
        load_split(read_file(path, ReadOptions()))

    said = in_little_memory(read, tmp_path / "output")
    assert str(path) in said
    assert message in said


def test_word_vectors_in_one_endless_line_are_refused_in_bounded_memory(tmp_path):
    zipped(tmp_path / "vectors.txt.gz", b"0" * MIB, 2048)
    said = in_little_memory(lambda: read_vectors(tmp_path / "vectors.txt.gz"), tmp_path / "output")
    assert "line 1" in said or ":1" in said
    assert "is not a word" in said


@pytest.mark.parametrize("text", ["[" * 200_000, '{"label": ["' + "a" * 17 * MIB + '"]}'], ids=["deep", "large"])
def test_names_of_classes_that_are_none_are_ignored_in_bounded_memory(tmp_path, text):
    (tmp_path / "labels.json").write_text(text)

    def read():
        names = read_label_names(tmp_path / "labels.json", "label")
        raise DataError(f"{len(names)} names")

    assert in_little_memory(read, tmp_path / "output") == "0 names"


def test_repetitive_but_honest_columns_are_read_as_ever(tmp_path):
    rows = [{"text": f"text {i} of many", "kind": "a kind that many rows share"} for i in range(5_000)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    table = load_split(read_file(tmp_path / "rows.parquet", ReadOptions()))
    assert table.columns == {name: [row[name] for row in rows] for name in ("text", "kind")}


LEADING_OUT = {
    "split above": ("dataset_dict.json", {"splits": ["../outside"]}),
    "absolute split": ("dataset_dict.json", {"splits": ["/etc"]}),
    "file above": ("train/state.json", {"_data_files": [{"filename": "../../outside/data.arrow"}]}),
    "absolute file": ("train/state.json", {"_data_files": [{"filename": "/etc/passwd"}]}),
    "link": ("train/state.json", {"_data_files": [{"filename": "link.arrow"}]}),
}


@pytest.mark.parametrize(("listed", "change"), LEADING_OUT.values(), ids=LEADING_OUT)
def test_saved_dataset_names_nothing_outside_its_folder(tmp_path, listed, change):
    import datasets

    rows = datasets.Dataset.from_list([{"anchor": "a", "positive": "b"}] * 3)
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "saved")
    rows.save_to_disk(tmp_path / "outside")
    source = TrainingData(dataset=str(tmp_path / "saved"), format="positive_pair")
    assert len(load_table(source)) == 3
    (tmp_path / "saved" / "train" / "link.arrow").symlink_to(tmp_path / "outside" / "data-00000-of-00001.arrow")
    path = tmp_path / "saved" / listed
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match="is outside"):
        load_table(source)

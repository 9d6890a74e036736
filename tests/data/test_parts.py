"""All parts of a dataset, one after another, are the dataset; and a part reads no more of it than it needs."""

import csv
import gzip
import json
import logging

import datasets
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as parquet
import pytest

from stfit.data.part import Part
from stfit.data.reading.load_table import count_rows, open_blocks
from stfit.data.reading.sample import fingerprint_sample
from stfit.data.source import ReadOptions, Source
from stfit.errors import DataError, RecipeError

ROWS = [{"number": i, "text": f"text {i} über {'long ' * (i * 7 % 23)}"} for i in range(300)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def write_text_lines(folder):
    (folder / "rows.txt").write_text("\n".join(row["text"] for row in ROWS), encoding="utf-8")


def write_mixed_line_ends(folder):
    ends = ["\n", "\r\n", "\r"]
    text = "".join(row["text"] + ends[i * i % 3] for i, row in enumerate(ROWS))
    (folder / "rows.txt").write_bytes(text.encode())


def write_utf_16(folder):
    (folder / "rows.txt").write_text("\n".join(row["text"] for row in ROWS), encoding="utf-16")


def write_json_lines(folder):
    (folder / "rows.jsonl").write_text(LINES, encoding="utf-8")


def write_gzip(folder):
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))


def write_csv(folder):
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "text"])
        writer.writerows([row["number"], row["text"] + "\nand a second line"] for row in ROWS)


def write_row_groups(folder):
    parquet.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet", row_group_size=41)


def write_one_row_group(folder):
    parquet.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet")


def write_feather(folder):
    feather.write_feather(pa.Table.from_pylist(ROWS), folder / "rows.feather")


def write_many_files(folder):
    for number in range(5):
        rows = ROWS[number * 60 : (number + 1) * 60]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        path = folder / f"rows-{number}.jsonl{'.gz' if number == 2 else ''}"
        path.write_bytes(gzip.compress(lines.encode()) if number == 2 else lines.encode())
    (folder / "rows-5.jsonl").write_text("")


def write_saved_dataset(folder):
    datasets.Dataset.from_list(ROWS).save_to_disk(folder / "rows", num_shards=4)


FORMS = {
    "text lines": (write_text_lines, "rows.txt", {}),
    "line ends of all systems": (write_mixed_line_ends, "rows.txt", {}),
    "UTF-16": (write_utf_16, "rows.txt", {}),
    "JSON Lines": (write_json_lines, "rows.jsonl", {}),
    "packed": (write_gzip, "rows.jsonl.gz", {}),
    "cells of several lines": (write_csv, "rows.csv", {}),
    "row groups": (write_row_groups, "rows.parquet", {}),
    "one row group": (write_one_row_group, "rows.parquet", {}),
    "feather": (write_feather, "rows.feather", {}),
    "files of a glob": (write_many_files, "rows-*", {}),
    "saved to disk": (write_saved_dataset, "rows", {}),
    "a slice": (write_json_lines, "rows.jsonl", {"split": "train[10:-7]"}),
}


def read(source, part=None):
    return [row for table in open_blocks(source, part=part)() for row in zip(*table.columns.values(), strict=True)]


@pytest.mark.parametrize("form", FORMS)
def test_all_parts_in_order_are_the_whole(tmp_path, form):
    write, name, options = FORMS[form]
    write(tmp_path)
    source = Source(dataset=str(tmp_path / name), **options)
    whole = read(source)
    assert len(whole) == (283 if options else 300)
    for count in (1, 2, 3, 7, 311):
        parts = [read(source, Part(number, count)) for number in range(1, count + 1)]
        assert [row for part in parts for row in part] == whole
        if count < 7 and form not in ("files of a glob", "packed"):
            assert max(map(len, parts)) < 2 * len(whole) / count  # about equally many


@pytest.mark.parametrize("form", ["text lines", "JSON Lines", "row groups"])
def test_rest_of_the_file_is_not_read(tmp_path, form):
    """Bytes far from those of the part, which nothing could read, make no difference."""
    write, name, _ = FORMS[form]
    write(tmp_path)
    path = tmp_path / name
    source, part = Source(dataset=str(path)), Part(5, 10)
    expected = read(source, part)
    content = bytearray(path.read_bytes())
    footer = int.from_bytes(content[-8:-4], "little") + 8 if name.endswith(".parquet") else 0
    rows = len(content) - footer
    content[4 : rows // 4] = b"\xff" * (rows // 4 - 4)
    content[rows * 3 // 4 : rows] = b"\xff" * (rows - rows * 3 // 4)
    path.write_bytes(content)
    assert read(source, part) == expected
    with pytest.raises(DataError):
        read(source)


def test_file_that_can_not_be_opened_in_the_middle_is_told(tmp_path, caplog):
    write_gzip(tmp_path)
    with caplog.at_level(logging.WARNING, "stfit"):
        read(Source(dataset=str(tmp_path / "rows.jsonl.gz")), Part(1, 2))
    assert "can't be opened in the middle, so several parts read it whole: write it as several files" in caplog.text


@pytest.mark.parametrize("form", ["text lines", "JSON Lines", "row groups", "one row group"])
def test_rows_of_a_part_are_counted_without_reading_others(tmp_path, form):
    write, name, _ = FORMS[form]
    write(tmp_path)
    source = Source(dataset=str(tmp_path / name))
    for number in range(1, 5):
        assert abs(count_rows(source, Part(number, 4)) - len(read(source, Part(number, 4)))) <= 1


def test_mistake_in_a_part_is_told_with_its_own_rows(tmp_path):
    (tmp_path / "rows.jsonl").write_text(LINES.replace('"number": 200,', '"number" 200,'))
    source = Source(dataset=str(tmp_path / "rows.jsonl"))
    assert len(read(source, Part(1, 2))) > 100
    with pytest.raises(DataError, match=r"line \d+ is not valid JSON"):
        read(source, Part(2, 2))


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "-1/3", "1/3/5", ""])
def test_part_is_one_of_its_number(text):
    with pytest.raises(RecipeError, match="write i/N, such as 2/8, with i from 1 to N"):
        Part.parse(text)
    assert Part.parse("2/3") == Part(2, 3)


def test_standard_input_has_no_parts():
    with pytest.raises(RecipeError, match="standard input can't be read in parts"):
        open_blocks(Source(dataset="-"), part=Part(1, 2))


def test_sample_tells_inputs_apart(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_json_lines(tmp_path)
    source = Source(dataset=str(path))
    first = fingerprint_sample(source)
    assert fingerprint_sample(Source(dataset=str(path))) == first
    assert fingerprint_sample(Source(dataset=str(path), read=ReadOptions(encoding="cp1252"))) != first
    path.write_text(LINES.replace("text 7 ", "text 8 "), encoding="utf-8")
    assert fingerprint_sample(source) != first
    (tmp_path / "elsewhere").mkdir()
    write_json_lines(tmp_path / "elsewhere")
    assert fingerprint_sample(Source(dataset=str(tmp_path / "elsewhere" / "rows.jsonl"))) == first

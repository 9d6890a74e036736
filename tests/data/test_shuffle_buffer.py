"""A stream gives every row of its source once an epoch, from wherever it is gone on, and says what is wrong where."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from stfit.data.batching.batches import MISSING, number_texts, tokenize_examples
from stfit.data.batching.sampling import sample_batches
from stfit.data.batching.shuffle_buffer import StreamingBatches, read_first_examples
from stfit.data.checks.compatibility import LabelNeeds, check_kind
from stfit.data.mapping.examples import Examples, join
from stfit.data.mapping.load_examples import load_examples
from stfit.data.reading.local_files import fingerprint_files
from stfit.data.reading.text_lines import BLOCK_ROWS
from stfit.data.source import TrainingData
from stfit.errors import DataError

ROWS = 3 * BLOCK_ROWS + 100


def texts(number):
    return [np.array([number, len(text)], dtype=np.int32) for number, text in enumerate(number)]


def rows_of(count, labels=7):
    return [
        {"anchor": f"question {i}", "positive": f"answer {i}", "text": f"text {i}", "label": i % labels}
        for i in range(1, count + 1)
    ]


def stream(dataset, sampler="shuffle", batch_size=32, seed=1, check=lambda examples: None, tokenized=None, **keys):
    source = TrainingData(dataset=dataset, streaming=True, **{"format": "positive_pair", "shuffle_buffer": 500} | keys)
    log = [] if tokenized is None else tokenized

    def tokenize(examples):
        log.append(len(examples))
        return tokenize_examples(examples, dict.fromkeys(examples.texts, ""), texts, None, lambda prompt: 0)

    return StreamingBatches(source, sampler, batch_size, 2, seed, check, tokenize)


def take(stream, batches, start=0):
    """The row numbers of some batches."""
    return [
        batch.examples.row[batch.rows].tolist() for batch in (d.batch(False) for d in islice(stream, start, batches))
    ]


def epoch_of(stream, rows):
    """The batches up to the one in which so many rows have been seen."""
    seen, made = 0, []
    for drawn in stream:
        batch = drawn.batch(False)
        made.append(batch.examples.row[batch.rows].tolist())
        seen += len(batch.rows)
        if seen >= rows:
            return made
    raise AssertionError


def flat(made):
    return [row for batch in made for row in batch]


@pytest.mark.parametrize("sampler", ["shuffle", "no_duplicates"])
@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv", "parquet", "two files", "saved"])
def test_every_row_stands_in_one_batch_of_an_epoch(tmp_path, write, sampler, kind):
    rows = rows_of(ROWS)
    path = str(tmp_path / f"rows.{kind}")
    if kind.startswith("jsonl"):
        write(rows, f"rows.{kind}")
    elif kind == "csv":
        write("anchor,positive\n" + "".join(f"{row['anchor']},{row['positive']}\n" for row in rows), "rows.csv")
    elif kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "two files":
        write(rows[:2000], "rows-1.jsonl"), write(rows[2000:], "rows-2.jsonl")
        path = str(tmp_path / "rows-*.jsonl")
    else:
        datasets.DatasetDict(train=datasets.Dataset.from_list(rows)).save_to_disk(path)
    made = epoch_of(stream(path, sampler), ROWS)
    assert sorted(flat(made)) == list(range(1, ROWS + 1))
    assert [len(batch) for batch in made] == [32] * (ROWS // 32) + [ROWS % 32] * (ROWS % 32 > 0)
    assert max(abs(np.diff(sorted(batch))).max() for batch in made) > 1  # shuffled
    assert max(np.ptp(batch) for batch in made) <= 500 + 32  # within the buffer


def test_rows_that_find_no_batch_in_their_chunk_stand_in_a_later_one(write):
    rows = [row | {"anchor": f"question {i // 12}"} for i, row in enumerate(rows_of(3000))]
    made = epoch_of(stream(write(rows), "no_duplicates", shuffle_buffer=640), 2980)  # the last ones may be alone
    assert len(set(flat(made))) == len(flat(made))
    assert all(len({row // 12 for row in np.array(batch) - 1}) == len(batch) for batch in made)
    assert sum(len(batch) == 32 for batch in made) > 80  # of 94


def test_rows_of_a_text_that_most_rows_have_do_not_fill_the_memory(write):
    rows = rows_of(4000)
    for row in rows[::3] + rows[1::3]:
        row["anchor"] = "the same question"
    made = take(stream(write(rows), "no_duplicates", shuffle_buffer=320), 300)
    frequent = {row for row in range(1, 4001) if row % 3}
    assert all(len(frequent & set(batch)) <= 1 for batch in made)


def test_an_epoch_has_every_row_of_every_label_that_comes_twice_in_a_chunk(write):
    made = epoch_of(stream(write(rows_of(ROWS)), "group_by_label", format="labeled_text"), ROWS - 5)
    found = flat(made)
    assert len(set(found)) == len(found) >= ROWS - 5


@pytest.mark.parametrize(
    ("sampler", "format"),
    [("shuffle", "positive_pair"), ("no_duplicates", "positive_pair"), ("group_by_label", "labeled_text")],
)
def test_a_buffer_that_holds_all_rows_gives_the_batches_of_the_whole_source(write, sampler, format):
    path = write(rows_of(1500))
    whole, _ = load_examples(TrainingData(dataset=path, format=format), format, 1)
    expected = [
        whole.row[rows].tolist()
        for epoch in (0, 1)
        for rows in sample_batches(sampler, number_texts(whole), whole.label, 32, 1, whole.fingerprint, 2, epoch)
    ]
    assert take(stream(path, sampler, format=format, shuffle_buffer=5000), len(expected)) == expected


def test_epochs_and_seeds_have_orders_of_their_own(write):
    path = write(rows_of(320))
    first, second = take(stream(path), 10), take(stream(path), 20, start=10)
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(1, 321))
    assert first != second
    assert take(stream(path, seed=2), 10) != first


@pytest.mark.parametrize("sampler", ["shuffle", "no_duplicates"])
def test_a_stream_goes_on_anywhere_and_tokenises_nothing_before(write, sampler):
    path = write(rows_of(2000))
    whole = take(stream(path, sampler), 130)
    for start in (1, 15, 16, 62, 63, 100):
        tokenized = []
        assert take(stream(path, sampler, tokenized=tokenized), start + 3, start) == whole[start : start + 3]
        assert len(tokenized) <= 2


def test_what_is_dropped_is_dropped_as_without_streaming_and_said(write, caplog):
    rows = rows_of(ROWS)
    for i in (5, 2000, 3000):
        rows[i]["positive"] = " "
    rows[BLOCK_ROWS + 6]["positive"] = None
    keys = {"where": {"anchor": {"not": "question 9"}}}
    path = write(rows)
    whole, _ = load_examples(TrainingData(dataset=path, format="positive_pair", **keys), "positive_pair", 1)
    made = epoch_of(stream(path, **keys), ROWS - 5)
    assert sorted(flat(made)) == whole.row.tolist()
    assert len(whole) == ROWS - 5
    assert "dropped: 1 empty text (row 6); 1 so far" in caplog.text
    assert f"dropped: 2 empty text (rows {BLOCK_ROWS + 7}, 2001); 3 so far" in caplog.text


def test_selectors_make_the_examples_that_they_make_without_streaming(write):
    rows = [
        {"q": f"q{i}", "list": [f"a{i}", f"b{i}"][: i % 3], "negs": ["n", "m", "o"][: 1 + i // 1500]}
        for i in range(ROWS)
    ]
    columns = {"anchor": "q", "positive": "list[*]", "negative": "negs[:5]"}
    path = write(rows)
    whole, _ = load_examples(TrainingData(dataset=path, format="triplet", columns=columns), "triplet", 1)
    found, _ = read_first_examples(
        TrainingData(dataset=path, format="triplet", columns=columns, streaming=True, shuffle_buffer=10**6)
    )
    assert found.texts == whole.texts
    assert found.fingerprint == whole.fingerprint
    assert found.dropped == whole.dropped
    assert list(found.texts) == ["anchor", "positive", "negative_1", "negative_2", "negative_3"]


def test_a_label_of_any_kind_is_the_label_without_streaming(write):
    for labels in ([0, 1], [0, 1, 2], [0, 1, 0.5], [True, False], ["0", "1"]):
        rows = [row | {"label": 0} for row in rows_of(ROWS)]
        for row, label in zip(rows[2000:], labels, strict=False):
            row["label"] = label
        if "1" in labels:
            rows = [row | {"label": str(row["label"])} for row in rows]
        path = write(rows)
        whole, _ = load_examples(TrainingData(dataset=path, format="labeled_text"), "labeled_text", 1)
        found, _ = read_first_examples(
            TrainingData(dataset=path, format="labeled_text", streaming=True, shuffle_buffer=10**6)
        )
        assert (found.label_kind, found.label.dtype) == (whole.label_kind, whole.label.dtype)
        assert found.fingerprint == whole.fingerprint


def error_at(stream, batches):
    """How a stream ends after so many batches."""
    drawn = iter(stream)
    for _ in range(batches):
        next(drawn).batch(False)
    with pytest.raises(DataError) as caught:
        list(islice(drawn, 10**4))
    return caught.value.problems[0]


DEEP = 2 * BLOCK_ROWS + 10
MAP = {str(label): label for label in range(7)}


@pytest.mark.parametrize(
    ("change", "keys", "row", "says"),
    [
        ({"positive": 5}, {}, DEEP + 1, "is not text in row 2059, but a number"),
        ({"positive": "\ud800"}, {}, DEEP + 1, "in row 2059"),
        ({"label": "three"}, {"format": "labeled_text"}, DEEP + 1, "found 'three' (row 2059)"),
        ({"label": float("nan")}, {"format": "labeled_text"}, DEEP + 1, "(row 2059)"),
        ({"label": 9}, {"format": "labeled_text", "label_map": MAP}, DEEP + 1, "`9` of row 2059"),
        ({"label": 9}, {"format": "labeled_text", "label_range": [0, 7]}, DEEP + 1, "(row 2059)"),
        ({"label": -1}, {"format": "labeled_text"}, DEEP + 1, "some are negative"),
    ],
)  # fmt: skip
def test_a_wrong_row_deep_in_a_stream_is_named_as_soon_as_it_is_read(write, change, keys, row, says):
    rows = rows_of(ROWS)
    rows[DEEP] |= change

    def check(examples):
        kinds = {"labeled_text": ("class",), "positive_pair": ("none",)}[examples.format]
        check_kind([LabelNeeds("some", kinds)], examples)

    if "label_range" in keys:
        check = stream("").check
    path = write(rows)
    problem = error_at(stream(path, check=check, **keys), 30)
    assert (problem.file, problem.row) == (path, row)
    assert says in problem.message


def test_a_column_that_ends_is_named_with_the_rows_that_lack_it(write):
    rows = rows_of(ROWS)
    for row in rows[BLOCK_ROWS : 2 * BLOCK_ROWS]:
        del row["positive"]
    problem = error_at(stream(write(rows)), 10)
    assert problem.row == BLOCK_ROWS + 1
    assert "positive_pair needs positive" in problem.message
    assert f"(in rows {BLOCK_ROWS + 1} to {2 * BLOCK_ROWS})" in problem.message


def test_a_line_that_is_no_json_is_named(write):
    lines = "".join(json.dumps(row) + "\n" for row in rows_of(ROWS)).replace('{"anchor": "question 2500"', '{"anchor')
    problem = error_at(stream(write(lines)), 20)
    assert problem.line == 2500


def test_names_of_classes_are_numbered_by_the_recipe_or_the_dataset_and_by_nothing_else(tmp_path, write):
    rows = [row | {"label": ["no", "yes"][row["label"] % 2]} for row in rows_of(40)]
    path = write(rows)
    keys = {"format": "labeled_text", "shuffle_buffer": 64}
    problem = error_at(stream(path, **keys), 0)
    assert "label_map: {no: 0, yes: 1}" in problem.message
    mapped, _ = read_first_examples(stream(path, **keys, label_map={"yes": 0, "no": 1}).source)
    assert mapped.label.tolist() == [row["label"] == "no" for row in rows]
    (tmp_path / "labels.json").write_text('{"label": ["maybe", "no", "yes"]}')
    named, _ = read_first_examples(stream(path, **keys).source)
    assert named.label.tolist() == [1 + (row["label"] == "yes") for row in rows]
    assert named.label_names == ["maybe", "no", "yes"]


@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_class_labels_of_datasets_keep_their_names(tmp_path, kind):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["b", "a"])})
    rows = datasets.Dataset.from_dict({"text": ["one", "two"] * 20, "label": [0, 1] * 20}, features)
    path = tmp_path / f"rows.{kind}"
    rows.to_parquet(str(path)) if kind == "parquet" else rows.save_to_disk(str(path))
    found, _ = read_first_examples(stream(str(path), format="labeled_text").source)
    assert found.label_names == ["b", "a"]


def test_a_sorted_source_that_makes_no_batch_is_refused_with_its_rows(write):
    rows = [row | {"label": i // 1000} for i, row in enumerate(rows_of(3000))]
    problem = error_at(stream(write(rows), "group_by_label", format="labeled_text"), 0)
    assert "do not form a batch of at least 2 rows" in problem.message
    assert "raise `shuffle_buffer` (in rows 1 to 480)" in problem.message


def test_a_rest_that_makes_no_batch_ends_the_epoch_and_is_said(write, caplog):
    made = take(stream(write(rows_of(65)), shuffle_buffer=32), 4)
    assert [len(batch) for batch in made] == [32, 32, 32, 32]
    assert max(flat(made[:2])) <= 65
    assert "1 of 1 examples fit into no batch and are not used for training; 1 so far" in caplog.text


@pytest.mark.parametrize("rows", [0, 1, 20])
def test_a_source_without_examples_or_batches_is_refused(write, rows):
    path = write([row | {"positive": ""} for row in rows_of(rows - rows % 2)] + rows_of(rows % 2))
    problem = error_at(stream(path), 0)
    assert (
        "do not form a batch of at least 2 rows" if rows == 1 else f"no example can be made from {rows} rows"
    ) in problem.message


def test_first_rows_are_those_of_the_first_examples(write):
    source = stream(write(rows_of(ROWS)), shuffle_buffer=1000).source
    examples, table = read_first_examples(source)
    assert len(examples) == BLOCK_ROWS
    assert table.row.tolist() == examples.row.tolist()


def test_texts_have_the_numbers_of_the_texts_that_are_tokenised(write):
    rows = [{"anchor": f"{i % 7}", "positive": f"{i % 5}", "negs": ["x", "2"][: 1 + i % 2]} for i in range(30)]
    whole, _ = load_examples(
        TrainingData(dataset=write(rows), format="triplet", columns={"negative": "negs[:2]"}), "triplet", 1
    )
    found = number_texts(whole)
    table = tokenize_examples(whole, dict.fromkeys(whole.texts, ""), texts, None, lambda prompt: 0)
    np.testing.assert_array_equal(found, np.stack(list(table.text_ids.values()), axis=1))
    assert (found == MISSING).sum() == 15
    prompted = tokenize_examples(whole, dict.fromkeys(whole.texts, "") | {"anchor": "? "}, texts, None, lambda _: 0)
    assert max(map(np.max, prompted.text_ids.values())) > found.max()  # "2" is two texts there


def test_rows_that_are_asked_for_are_tokenized_alone_and_as_with_all_others(write):
    rows = [{"anchor": f"{i % 7}", "positive": f"{i}", "negs": ["x", "2"][: 1 + i % 2]} for i in range(30)]
    whole, _ = load_examples(
        TrainingData(dataset=write(rows), format="triplet", columns={"negative": "negs[:2]"}), "triplet", 1
    )
    prompts, used = dict.fromkeys(whole.texts, ""), np.array([3, 4, 11])

    def letters(strings):
        return [np.array(list(map(ord, string))) for string in strings]

    every, some = (tokenize_examples(whole, prompts, letters, None, lambda _: 0, rows) for rows in (None, used))
    batch, same = (table.batch(used, distinct=False) for table in (every, some))
    assert list(map(list, batch.sequences)) == list(map(list, same.sequences))
    assert {role: index.tolist() for role, index in batch.columns.items()} == {
        role: index.tolist() for role, index in same.columns.items()
    }
    assert len(some.lengths()) == 5 < len(every.lengths())


def test_files_are_told_apart_by_their_bytes_and_not_by_their_names(tmp_path, write):
    rows = rows_of(50)

    def of(name, content):
        return fingerprint_files(TrainingData(dataset=write(content, name), format="text"))

    assert of("a.jsonl", rows) == (before := of("b.jsonl", rows)) != of("c.jsonl", rows[:-1])
    (tmp_path / "labels.json").write_text('{"label": ["no", "yes"]}')
    assert of("b.jsonl", rows) != before
    assert fingerprint_files(TrainingData(dataset="me/set", format="text")) is None
    for name, more in (("one", rows), ("other", rows_of(51))):
        datasets.DatasetDict(train=datasets.Dataset.from_list(more)).save_to_disk(str(tmp_path / name))
    one, other = (
        fingerprint_files(TrainingData(dataset=str(tmp_path / name), format="text")) for name in ("one", "other")
    )
    assert one != other


def test_parts_join_to_the_whole():
    whole = Examples("text", {"text": list("abcdef")}, np.arange(6), "class", None, np.arange(6), {"empty": 1})
    parts = [whole.take(np.arange(3)), whole.take(np.arange(3, 6))]
    found = join(parts)
    assert (found.texts, found.label.tolist(), found.row.tolist()) == (whole.texts, list(range(6)), list(range(6)))
    assert found.dropped == {"empty": 2}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_memory_does_not_grow_with_the_rows_of_a_stream(kind, promise):
    script = Path(__file__).parent.parent / "benchmarks" / "streaming.py"
    done = subprocess.run([sys.executable, script, "--rows", "500000", "--kind", kind], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows, mib = zip(
        *[(int(line.split()[0]), float(line.split()[2])) for line in done.stdout.splitlines()[1:]], strict=True
    )
    promise(f"memory over a stream of {kind}", f"{mib[0]:.0f} MiB at {rows[0]:,} rows, {mib[-1]:.0f} at {rows[-1]:,}")
    assert rows[-1] >= 500_000 > rows[0]
    assert mib[-1] - mib[0] < 10  # in memory, 45,000 rows take that

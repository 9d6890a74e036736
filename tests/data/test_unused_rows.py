"""What of a table becomes no part of an example is said, and nothing else."""

import json

import numpy as np
import pytest

from stfit.data.checks.unused_rows import dropped_rows, missing_classes, unseen_classes, unused_flags
from stfit.data.mapping.load_examples import load_examples
from stfit.data.reading.load_table import load_table
from stfit.data.source import TrainingData
from stfit.data.table import build_table


def source_of(**keys):
    return TrainingData.model_validate({"dataset": "/rows.jsonl", "format": "positive_pair", **keys})


def pairs(**columns):
    texts = {"anchor": ["a", "b", "c", "d"], "positive": ["e", "f", "g", "h"]}
    return build_table("rows.jsonl", texts | columns, {})


@pytest.mark.parametrize("cells", [[0, 1, 1, 0], ["0", "1", "0", "0"], [True, False, True, True]])
def test_an_unread_flag_beside_positives_is_told_with_what_to_write(cells):
    (problem,) = unused_flags(pairs(match=cells), source_of())
    assert "where: {match: 1}" in problem.message


@pytest.mark.parametrize(
    "cells", [[0, 1, 2, 0], [1, 1, 1, 1], [0.0, 1.0, 0.5, 0.0], [[0], [1], [0], [1]], [None, 1, 0, 1]]
)
def test_another_column_is_no_flag(cells):
    assert unused_flags(pairs(match=cells), source_of()) == []


def test_a_flag_that_is_read_is_left_alone():
    table = pairs(match=[0, 1, 1, 0])
    assert unused_flags(table, source_of(where={"match": 1})) == []
    assert unused_flags(table, source_of(format="labeled_text", columns={"text": "anchor", "label": "match"})) == []


def test_rows_that_where_drops_are_not_missed(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("anchor,positive,lang\na,,en\nb,f,en\nc,,de\nd,h,en\n")
    source = source_of(dataset=str(path), where={"lang": "en"})
    examples, _ = load_examples(source, source.format, 1)
    table = load_table(source)
    (problem,) = dropped_rows(table, source, examples)
    assert problem.message == "dropped: 1 empty text (row 1)"
    assert np.array_equal(examples.row, [2, 4])


def test_rows_that_lack_only_a_negative_can_train_as_pairs(write):
    rows = [{"anchor": f"a{i}", "positive": f"p{i}", "negative": ["n"] if i % 2 else []} for i in range(6)]
    source = TrainingData(dataset=write(rows), format="triplet", columns={"negative": "negative[:]"})
    table, (examples, _) = load_table(source), load_examples(source, source.format, 0)
    (problem,) = dropped_rows(table, source, examples)
    assert problem.message == (
        "dropped: 3 empty text; 3 of them lack only a negative, and can train as pairs (format positive_pair)"
    )


@pytest.fixture
def sorted_by_class(tmp_path):
    """A split of 40 rows, sorted by class, with the names of its four classes."""
    rows = [{"text": f"text {i}", "label": i // 10} for i in range(40)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "labels.json").write_text(json.dumps({"label": ["a", "b", "c", "d"]}))

    def load(**keys):
        source = source_of(dataset=str(tmp_path / "train.jsonl"), format="labeled_text", **keys)
        return source, load_examples(source, "labeled_text", 0)[0]

    return load


@pytest.mark.parametrize("keys", [{"split": "train[:20]"}, {"limit": 20}])
def test_a_cut_that_loses_classes_is_told_with_the_way_out(sorted_by_class, keys):
    (problem,) = missing_classes(*sorted_by_class(**keys))
    assert "have 2 of 4 classes" in problem.message
    assert "`shuffle: true` with `limit`" in problem.message


@pytest.mark.parametrize("keys", [{}, {"split": "train[:35]"}, {"limit": 3, "shuffle": True}])
def test_what_has_every_class_or_is_shuffled_is_right(sorted_by_class, keys):
    assert missing_classes(*sorted_by_class(**keys)) == []


def test_classes_that_are_measured_and_not_trained_are_named(sorted_by_class):
    (_, trained), (_, measured) = sorted_by_class(split="train[:20]"), sorted_by_class(split="train[10:40]")
    (problem,) = unseen_classes(trained, measured, "intents")
    assert "no row of 2 of 3 classes: c, d" in problem.message
    assert unseen_classes(measured, measured, "intents") == []
    assert unseen_classes(sorted_by_class(split="train[:10]")[1], sorted_by_class(split="train[10:]")[1], "other") == []

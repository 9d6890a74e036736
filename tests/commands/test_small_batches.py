"""Batches that can't be filled are told before a training, whatever keeps them small."""

import numpy as np
import pytest

from stfit.data.batching.sampling import sample_batches
from stfit.workflows.check.estimate import _lint_batches

ROWS = 60


def problems(sampler, text_ids, label=None, batch_size=16):
    epoch = sample_batches(sampler, np.asarray(text_ids), label, batch_size, 0, "rows", 2, 0)
    return [
        found.message
        for found in _lint_batches(epoch, len(text_ids), batch_size, sampler)
        if found.code == "batch-size"
    ]


def test_two_anchors_make_batches_of_two():
    (message,) = problems("no_duplicates", [[i % 2, 100 + i] for i in range(ROWS)])
    assert "2.0 rows on average, and at most 2, not the 16 of train.batch_size" in message


def test_two_anchors_of_most_rows_make_most_batches_small():
    texts = [[i % 2 if i < 50 else i, 100 + i] for i in range(ROWS)]
    (message,) = problems("no_duplicates", texts)
    assert "at most 12, not the 16" in message


def test_ten_anchors_never_fill_a_batch_of_sixteen():
    (message,) = problems("no_duplicates", [[i % 10, 100 + i] for i in range(ROWS)])
    assert "at most 10, not the 16" in message


def test_one_label_of_most_rows_fills_the_batches():
    label = np.array([1] * 3 + [0] * (ROWS - 3))
    assert problems("group_by_label", [[i] for i in range(ROWS)], label) == []


@pytest.mark.parametrize("sampler", ["shuffle", "no_duplicates"])
@pytest.mark.parametrize("rows", [33, 48, ROWS])
def test_full_batches_and_a_rest_are_right(sampler, rows):
    assert problems(sampler, [[i, 100 + i] for i in range(rows)]) == []

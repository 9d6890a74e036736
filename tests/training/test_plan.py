"""Which rows a step trains on is known before the run, and from any step on."""

import numpy as np
import pytest

from stfit.training.plan import build_plan

SIZES = [5, 4, 5, 3, 5]
"""Batches of each epoch: samplers may make a batch more or less than in the first one."""


def epoch_batches(epoch):
    return [np.array([100 * epoch + batch]) for batch in range(SIZES[epoch])]


def flat(steps):
    return [[int(batch[0]) for batch in step] for step in steps]


@pytest.mark.parametrize("accumulate", [1, 2, 3, 7])
def test_accumulated_batches_never_cross_an_epoch_and_none_is_lost(accumulate):
    steps = flat(build_plan(epoch_batches, accumulate, 1, sum(-(-size // accumulate) for size in SIZES)).steps(0))
    assert [batch for step in steps for batch in step] == [
        100 * epoch + batch for epoch, size in enumerate(SIZES) for batch in range(size)
    ]
    for step in steps:
        assert len({batch // 100 for batch in step}) == 1
        assert len(step) <= accumulate


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_steps_from_any_step_are_the_tail_of_all_steps(accumulate):
    plan = build_plan(epoch_batches, accumulate, 3, None)
    steps = flat(plan.steps(0))
    assert len(steps) == plan.total_steps
    for first in range(plan.total_steps + 1):
        assert flat(plan.steps(first)) == steps[first:]


def test_no_epoch_is_made_that_the_run_does_not_need():
    made = []
    plan = build_plan(lambda epoch: made.append(epoch) or epoch_batches(epoch), 1, 2, 9)
    made.clear()
    assert len(list(plan.steps(0))) == 9
    assert made == [0, 1]


def test_max_steps_ends_the_run_inside_an_epoch_or_after_several():
    assert build_plan(epoch_batches, 1, 1, 3).total_steps == 3
    assert flat(build_plan(epoch_batches, 1, 1, 3).steps(0)) == [[0], [1], [2]]
    assert flat(build_plan(epoch_batches, 1, 1, 6).steps(0))[-1] == [100]


def test_epochs_count_the_steps_of_the_first_epoch_and_may_be_a_fraction():
    assert build_plan(epoch_batches, 2, 1, None).total_steps == 3
    assert build_plan(epoch_batches, 1, 0.5, None).total_steps == 2
    assert build_plan(epoch_batches, 1, 0.01, None).total_steps == 1

"""Which rows a step trains on is known before the run, and from any step on."""

import numpy as np
import pytest

from stfit.training.batch_schedule import build_batch_schedule

SIZES = [5, 4, 5, 3, 5]
"""Batches of each epoch: samplers may make a batch more or less than in the first one."""


def epoch_batches(epoch):
    return [np.array([100 * epoch + batch]) for batch in range(SIZES[epoch % 5])]


def plan_of_one(epoch_batches, accumulate, epochs, max_steps):
    return build_batch_schedule([epoch_batches], None, 0, accumulate, epochs, max_steps)


def flat(steps):
    return [[int(turn.rows[0]) for turn in step] for step in steps]


@pytest.mark.parametrize("accumulate", [1, 2, 3, 7])
def test_accumulated_batches_never_cross_an_epoch_and_none_is_lost(accumulate):
    steps = flat(plan_of_one(epoch_batches, accumulate, 1, sum(-(-size // accumulate) for size in SIZES)).steps(0))
    assert [batch for step in steps for batch in step] == [
        100 * epoch + batch for epoch, size in enumerate(SIZES) for batch in range(size)
    ]
    for step in steps:
        assert len({batch // 100 for batch in step}) == 1
        assert len(step) <= accumulate


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_steps_from_any_step_are_the_tail_of_all_steps(accumulate):
    plan = plan_of_one(epoch_batches, accumulate, 3, None)
    steps = flat(plan.steps(0))
    assert len(steps) == plan.total_steps
    for first in range(plan.total_steps + 1):
        assert flat(plan.steps(first)) == steps[first:]


def test_no_epoch_is_made_that_the_run_does_not_need():
    sampled = []
    plan = plan_of_one(lambda epoch: sampled.append(epoch) or epoch_batches(epoch), 1, 2, 9)
    sampled.clear()
    assert len(list(plan.steps(0))) == 9
    assert sampled == [0, 1]


def test_max_steps_ends_the_run_inside_an_epoch_or_after_several():
    assert plan_of_one(epoch_batches, 1, 1, 3).total_steps == 3
    assert flat(plan_of_one(epoch_batches, 1, 1, 3).steps(0)) == [[0], [1], [2]]
    assert flat(plan_of_one(epoch_batches, 1, 1, 6).steps(0))[-1] == [100]


def test_epochs_count_the_steps_of_the_first_epoch_and_may_be_a_fraction():
    assert plan_of_one(epoch_batches, 2, 1, None).total_steps == 3
    assert plan_of_one(epoch_batches, 1, 0.5, None).total_steps == 2
    assert plan_of_one(epoch_batches, 1, 0.01, None).total_steps == 1


def numbered(objective, sizes):
    """The batches of an objective, one row each: 1000 objective + 100 epoch + batch."""
    return lambda epoch: [
        np.array([1000 * objective + 100 * epoch + batch]) for batch in range(sizes[epoch % len(sizes)])
    ]


def plan_of_several(sizes, weights=None, seed=0, accumulate=1, epochs=3, max_steps=None):
    objectives = [numbered(objective, of_epochs) for objective, of_epochs in enumerate(sizes)]
    return build_batch_schedule(objectives, weights, seed, accumulate, epochs, max_steps)


def test_without_weights_an_epoch_has_every_batch_of_every_objective_once():
    plan = plan_of_several([[5], [1], [12]])
    assert plan.steps_per_epoch == 18
    order = [batch for step in flat(plan.steps(0)) for batch in step]
    for epoch in range(3):
        expected = [1000 * i + 100 * epoch + batch for i, size in enumerate([5, 1, 12]) for batch in range(size)]
        assert sorted(order[18 * epoch : 18 * (epoch + 1)]) == expected


@pytest.mark.parametrize("weights", [None, [1.0, 1.0], [5.0, 2.0]])
def test_batches_of_an_objective_keep_their_order_and_none_is_skipped(weights):
    plan = plan_of_several([[5, 4], [7]], weights, max_steps=60)
    for objective in (0, 1):
        seen = [int(turn.rows[0]) for (turn,) in plan.steps(0) if turn.objective == objective]
        every = [int(rows[0]) for epoch in range(40) for rows in plan.objectives[objective](epoch)]
        assert seen == every[: len(seen)]
        assert len(seen) > 10


def test_equal_weights_take_turns():
    order = [turn.objective for (turn,) in plan_of_several([[5], [70], [9]], [2.0, 2.0, 2.0]).steps(0)]
    assert all(set(order[i : i + 3]) == {0, 1, 2} for i in range(len(order) - 2))


def test_weights_are_shares_at_any_time_of_the_run():
    plan = plan_of_several([[50], [10], [20]], [1.0, 2.0, 5.0])
    order = np.array([turn.objective for (turn,) in plan.steps(0)])
    assert len(order) == 240
    for objective, share in enumerate([1 / 8, 2 / 8, 5 / 8]):
        count_so_far = np.cumsum(order == objective)
        assert np.abs(count_so_far - share * np.arange(1, 241)).max() < 1.5


@pytest.mark.parametrize("weights", [None, [1.0, 3.0]])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_steps_of_several_objectives_from_any_step_are_the_tail_of_all_steps(weights, accumulate):
    plan = plan_of_several([[4, 5], [7]], weights, accumulate=accumulate)
    steps = flat(plan.steps(0))
    assert len(steps) == plan.total_steps
    for first in range(plan.total_steps + 1):
        assert flat(plan.steps(first)) == steps[first:]


def test_which_objective_begins_follows_from_the_seed():
    begin = {seed: next(plan_of_several([[3], [3]], seed=seed).steps(0))[0].objective for seed in range(8)}
    assert set(begin.values()) == {0, 1}
    assert all(next(plan_of_several([[3], [3]], seed=seed).steps(0))[0].objective == begin[seed] for seed in begin)


def test_a_run_shorter_than_an_epoch_knows_the_rows_that_it_trains_on():
    def two_rows(epoch):
        return [np.array([2 * batch + 1, 2 * batch]) for batch in range(4)]

    plan = build_batch_schedule([two_rows, two_rows], None, 0, 1, 1, 5)
    seen = [set(), set()]
    for step in plan.steps(0):
        for batch in step:
            seen[batch.objective].update(batch.rows.tolist())
    assert [set(plan.rows_of(number).tolist()) for number in (0, 1)] == seen
    assert sum(map(len, seen)) == 10
    assert build_batch_schedule([two_rows], None, 0, 1, 1, 4).rows_of(0) is None

"""The learning rate is a pure function of the step."""

import itertools
import math

import pytest

from stfit.training.hyperparameters import Train
from stfit.training.lr_schedule import duration_in_steps, learning_rate_at
from stfit.training.state import WORTH_SAVING, build_intervals

TOTAL, WARMUP, HIGHEST = 20, 5, 0.1
SCHEDULES = ["linear", "cosine", "constant"]


def rates(schedule, warmup=WARMUP, total=TOTAL):
    return [learning_rate_at(step, total, warmup, schedule, HIGHEST) for step in range(total)]


@pytest.mark.parametrize("warmup", [0, 1, 5, 20, 30])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_step_is_wasted_on_a_rate_of_zero(schedule, warmup):
    assert all(0 < rate <= HIGHEST for rate in rates(schedule, warmup))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_rises_by_equal_amounts_to_the_highest_rate(schedule):
    assert rates(schedule)[:WARMUP] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_first_step_after_warm_up_has_the_highest_rate_and_none_rises_again(schedule):
    after = rates(schedule)[WARMUP:]
    assert after[0] == HIGHEST
    assert after == sorted(after, reverse=True)


def test_linear_falls_by_equal_amounts_to_zero_one_step_after_the_end():
    after = [*rates("linear")[WARMUP:], 0.0]
    assert [earlier - later for earlier, later in itertools.pairwise(after)] == pytest.approx([HIGHEST / 15] * 15)


def test_cosine_is_half_of_the_highest_rate_in_the_middle():
    assert learning_rate_at(10, 20, 0, "cosine", HIGHEST) == pytest.approx(HIGHEST / 2)
    assert learning_rate_at(5, 20, 0, "cosine", HIGHEST) == pytest.approx(HIGHEST * (2 + 2**0.5) / 4)


def test_constant_stays():
    assert set(rates("constant")[WARMUP:]) == {HIGHEST}


def test_durations_are_shares_of_the_run_or_steps_and_at_least_one_step():
    assert duration_in_steps(0.5, None, 8, 0.25) == 4
    assert duration_in_steps(None, 7, 9, 0.25) == 7
    assert duration_in_steps(None, None, 8, 0.25) == 2
    assert duration_in_steps(0.01, None, 9, 0.25) == 1
    assert duration_in_steps(0.07, None, 100, 0.25) == 7  # the product is a little more


@pytest.mark.parametrize("parts", [2, 3, 4, 7, 10])
def test_a_run_has_no_more_parts_than_asked_for(parts):
    for total in range(1, 500):
        every = duration_in_steps(1 / parts, None, total, 0.25)
        assert math.ceil(total / every) <= parts


def test_calendar_takes_the_defaults_of_the_recipe_language():
    calendar = build_intervals(Train(), 40)
    assert (calendar.warmup_steps, calendar.evaluate_every, calendar.save_every) == (4, 10, 10)
    assert [calendar.is_save_due(10, seconds) for seconds in (0, WORTH_SAVING - 1, WORTH_SAVING)] == [
        False,
        False,
        True,
    ]
    assert not calendar.is_save_due(9, WORTH_SAVING)
    assert not calendar.is_save_due(40, WORTH_SAVING)  # of the last step, the weights become the model
    assert build_intervals(Train(warmup_steps=0), 40).warmup_steps == 0
    assert build_intervals(Train(warmup_ratio=0.5), 40).warmup_steps == 20


def test_last_step_is_evaluated_and_logged_but_not_saved_as_a_checkpoint():
    calendar = build_intervals(Train(eval_every_steps=3, save_every_steps=5), 10)
    assert calendar.is_save_due(5, 0)
    assert build_intervals(Train(save_every=0.5), 10).is_save_due(5, 0)
    assert [step for step in range(1, 11) if calendar.is_due(step, calendar.evaluate_every)] == [3, 6, 9, 10]
    assert [step for step in range(1, 11) if calendar.is_save_due(step, 0)] == [5]


@pytest.mark.parametrize("total", [1, 9, 10, 12])
@pytest.mark.parametrize("every", [1, 3, 4, 20])
def test_what_is_counted_as_due_is_what_will_be_due(total, every):
    calendar = build_intervals(Train(), total)
    for step in range(total + 1):
        due = [later for later in range(step + 1, total + 1) if calendar.is_due(later, every)]
        assert calendar.count_due(step, every) == len(due)

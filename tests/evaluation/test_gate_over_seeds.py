"""A gate over seeds lets a lucky seed pass no more often than it states; a gate on one model does."""

import numpy as np
import pytest

from stfit.evaluation.gate import Gate, decide, decide_over_seeds
from stfit.evaluation.statistic import Statistic, mean_of

ROWS, LUCK = 1000, 0.03
"""Rows of the evaluator, and the standard deviation of a model's accuracy from seed to seed."""


def models(random, count, gain=0.0):
    """Models of one recipe: right at about 70 % of the rows, mostly the same ones, and more or less by their seed."""
    difficulty = random.normal(size=ROWS)
    limits = 0.5244 + 3 * LUCK * random.normal(size=count + 1)
    limits[:count] += 3 * gain
    return [mean_of(0.8 * difficulty + 0.6 * random.normal(size=ROWS) < limit) for limit in limits]


def gate(**settings):
    return Gate.model_validate({"metric": "a/b", "against": "published", "over": "seeds", **settings})


@pytest.mark.slow
def test_of_two_equal_recipes_one_passes_at_most_as_often_as_stated_and_a_single_seed_far_more_often() -> None:
    passed = {"one seed": 0, "three": 0, "five": 0}
    for draw in range(500):
        *own, published = models(np.random.default_rng(draw), 5)
        passed["one seed"] += bool(decide(gate(over=None), own[0], published).passed)
        passed["three"] += bool(decide_over_seeds(gate(), own[:3], published).passed)
        passed["five"] += bool(decide_over_seeds(gate(), own, published).passed)
    assert passed["one seed"] > 125
    assert max(passed["three"], passed["five"]) < 25 + 3.3 * np.sqrt(25 * 0.95)


@pytest.mark.slow
def test_a_recipe_that_is_better_passes() -> None:
    passed = {"three": 0, "five": 0}
    for draw in range(200):
        *own, published = models(np.random.default_rng(draw), 5, gain=4 * LUCK)
        passed["three"] += bool(decide_over_seeds(gate(), own[:3], published).passed)
        passed["five"] += bool(decide_over_seeds(gate(), own, published).passed)
    assert passed["five"] > passed["three"] > 100


def test_the_luck_of_the_published_model_counts_and_that_of_the_base_does_not() -> None:
    *own, other = models(np.random.default_rng(0), 3, gain=0.03)
    published, base = (decide_over_seeds(gate(against=name), own, other) for name in ("published", "base"))
    assert (published.value, published.gain, published.seeds) == (base.value, base.gain, 3)
    assert published.low < base.low < base.gain


def test_seeds_that_agree_leave_the_luck_of_the_rows() -> None:
    *own, other = models(np.random.default_rng(1), 1)
    found = decide_over_seeds(gate(), [own[0]] * 4, other)
    alone = decide(gate(over=None), own[0], other)
    assert found.gain == pytest.approx(alone.gain)
    assert found.low == pytest.approx(alone.low, abs=0.002)
    assert decide_over_seeds(gate(), [other] * 4, other).low == 0


def test_a_metric_that_is_no_mean_is_averaged_over_seeds_too() -> None:
    *own, other = models(np.random.default_rng(2), 3)
    whole = [Statistic(each.rows, each.at) for each in [*own, other]]
    assert decide_over_seeds(gate(), whole[:3], whole[3]).low == pytest.approx(
        decide_over_seeds(gate(), own, other).low
    )


def test_one_seed_does_not_pass_and_says_how_to_train_more() -> None:
    found = decide_over_seeds(gate(), [mean_of(np.ones(100))], mean_of(np.zeros(100)))
    assert found.passed is False
    assert "1 seed is no mean: train more with `stfit sweep RECIPE seed=1,2,3`" in found.note


def test_a_few_rows_are_no_evidence_whatever_the_seeds_say() -> None:
    for rows in range(1, 7):
        found = decide_over_seeds(gate(), [mean_of(np.ones(rows))] * 3, mean_of(np.zeros(rows)))
        assert found.passed is (rows >= 5)
        assert ("it takes at least 5" in found.note) is (rows < 5)


def test_without_a_confidence_the_plain_means_decide() -> None:
    own, other = [mean_of(np.array([1, 1, 0, 0])), mean_of(np.array([1, 1, 1, 1]))], mean_of(np.array([1, 1, 0, 0]))
    assert decide_over_seeds(gate(confidence=None, min_gain=0.25), own, other).passed
    assert not decide_over_seeds(gate(confidence=None, min_gain=0.26), own, other).passed
    assert decide_over_seeds(gate(against=None, min=0.75), own, None).passed
    assert not decide_over_seeds(gate(against=None, min=0.76), own, None).passed
    assert decide_over_seeds(gate(), own, None, "nothing is published").passed is None


def test_a_model_passes_where_its_value_reaches_the_limit() -> None:
    for draw in range(6):
        *own, other = models(np.random.default_rng(draw), 3, gain=0.1)
        line = decide_over_seeds(gate(), own, other)
        assert line.passed == (line.value >= line.limit)


def test_a_guard_is_of_one_model() -> None:
    with pytest.raises(ValueError, match="set it in a gate without `over`"):
        gate(guard=True)

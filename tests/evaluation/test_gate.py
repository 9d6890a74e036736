"""A gate lets a model pass at the rate that it states; a comparison says better or worse where there is evidence."""

import numpy as np
import pytest

from stfit.evaluation.bootstrap import compare
from stfit.evaluation.evaluators.similarity import spearman
from stfit.evaluation.gate import Gate, decide
from stfit.evaluation.statistic import Statistic, mean_of

ROWS = 200


def accuracies(seed, gain=0.0):
    """Two models that are right at 70 % of the rows, mostly the same ones; the second is better by `gain`."""
    random = np.random.default_rng(seed)
    shared = random.normal(size=ROWS)
    limit = 0.5244  # of a standard normal, 70 % lie below
    own, other = (0.8 * shared + 0.6 * random.normal(size=ROWS) for _ in range(2))
    return mean_of(own < limit + 3 * gain), mean_of(other < limit)


def near_accuracies(seed):
    """Two models that differ in a twelfth of the rows, each row in favour of either."""
    random = np.random.default_rng(seed)
    own, flipped = random.integers(0, 2, (2, ROWS))
    differs = random.uniform(size=ROWS) < 1 / 12
    return mean_of(np.where(differs, flipped, own)), mean_of(np.where(differs, 1 - flipped, own))


def correlations(seed, gain=0.0):
    """Two models whose similarities correlate alike with a gold score; the second has less noise by `gain`."""
    random = np.random.default_rng(seed)
    gold = random.uniform(size=ROWS)
    own, other = (gold + noise * random.normal(size=ROWS) for noise in (0.3 - gain, 0.3))
    return spearman(gold, own), spearman(gold, other)


def gate(**settings):
    return Gate.model_validate({"metric": "a/b", "against": "base", **settings})


@pytest.mark.slow
@pytest.mark.parametrize("pair", [accuracies, near_accuracies, correlations])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_a_model_that_is_no_better_passes_at_the_stated_rate(pair, confidence):
    passed = sum(bool(decide(gate(confidence=confidence), *pair(seed)).passed) for seed in range(200))
    expected = 200 * (1 - confidence)
    assert abs(passed - expected) < 3.3 * np.sqrt(expected * confidence)  # one in a thousand by chance


@pytest.mark.slow
@pytest.mark.parametrize("pair", [accuracies, correlations])
def test_a_model_that_is_better_passes_and_one_that_is_worse_never_does(pair):
    assert sum(bool(decide(gate(), *pair(seed, 0.12)).passed) for seed in range(60)) > 50
    assert sum(bool(decide(gate(), *pair(seed, -0.12)).passed) for seed in range(60)) == 0


def test_a_few_lucky_rows_are_no_evidence():
    other = np.zeros(1000)
    for lucky, passed in ((0, True), (1, False), (2, False), (5, True)):  # an identical model is as good for certain
        own = other.copy()
        own[:lucky] = 1
        assert decide(gate(), mean_of(own), mean_of(other)).passed is passed


@pytest.mark.parametrize("rows", range(1, 7))
def test_a_verdict_needs_more_rows_than_luck_alone_could_turn(rows):
    """If no model is better, all of four rows favor the same one in one of sixteen cases."""
    own, other = mean_of(np.ones(rows)), mean_of(np.zeros(rows))
    decided = decide(gate(), own, other)
    assert decided.passed is (rows >= 5)
    assert ("at least 5" in decided.note) is (rows < 5)
    assert (compare(own, other).verdict == "better") is (rows >= 6)


def test_without_a_confidence_plain_numbers_decide():
    own, other = mean_of(np.array([1, 1, 0, 0])), mean_of(np.array([1, 0, 0, 0]))
    assert not decide(gate(), own, other).passed  # four rows are no evidence
    assert decide(gate(confidence=None), own, other).passed
    assert decide(gate(confidence=None, min_gain=0.25), own, other).passed
    assert not decide(gate(confidence=None, min_gain=0.26), own, other).passed


@pytest.mark.parametrize("settings", [{}, {"min_gain": 0.05}, {"confidence": 0.6}, {"confidence": None}])
@pytest.mark.parametrize("seed", range(4))
def test_a_model_passes_where_its_value_reaches_the_limit(settings, seed):
    line = decide(gate(**settings), *accuracies(seed, 0.02))
    assert line.passed == (line.value >= line.limit)
    assert line.gain == pytest.approx(line.value - line.other)


def test_least_value():
    model = mean_of(np.array([1, 0, 1, 1]))
    for least, passed in ((0.75, True), (0.76, False)):
        assert decide(Gate(metric="a/b", min=least), model, None).passed is passed


def test_where_there_is_nothing_to_compare_with_nothing_is_said():
    line = decide(gate(), mean_of(np.ones(3)), None, "nothing is published")
    assert line.passed is None
    assert line.note == "nothing is published"


@pytest.mark.parametrize(
    "settings",
    [{"against": None}, {"min": 0.5}, {"min": 0.5, "against": None, "min_gain": 0.1}, {"confidence": 0.3}],
)
def test_a_line_says_one_thing(settings):
    with pytest.raises(ValueError, match=r"set either `min`|set `against`|greater than"):
        gate(**settings)


def test_verdicts_name_the_better_model_and_admit_ignorance():
    one, other = accuracies(0, 0.1)
    assert compare(one, other).verdict == "better"
    assert compare(other, one).verdict == "worse"
    assert compare(one, one).verdict == "no evidence"
    assert compare(one, other) == compare(one, other)
    found = compare(one, other)
    assert found.low < found.gain < found.high


def test_a_metric_without_rows_has_no_interval():
    found = compare(Statistic(0, lambda weight: 0.5), Statistic(0, lambda weight: 0.4))
    assert (found.low, found.high, found.verdict) == (None, None, None)
    assert found.gain == pytest.approx(0.1)

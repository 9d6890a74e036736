"""A metric of resampled rows is the metric of those rows, written out as often as they were drawn."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from stfit.evaluation.bootstrap import resample
from stfit.evaluation.evaluators.binary_classification import statistic_of
from stfit.evaluation.evaluators.classification import macro_f1, v_measure
from stfit.evaluation.evaluators.similarity import pearson, spearman
from stfit.evaluation.statistic import Ranking, Statistic, mean_of, mean_over_parts

RANDOM = np.random.default_rng(0)
SCORE, GOLD = RANDOM.integers(0, 9, 40) / 8, RANDOM.integers(0, 6, 40) / 5
LABEL, OTHER = RANDOM.integers(0, 2, 40), RANDOM.integers(0, 3, 40)
DEFINITIONS = {
    "mean": (mean_of(SCORE), lambda at: SCORE[at].mean()),
    "pearson": (pearson(GOLD, SCORE), lambda at: stats.pearsonr(GOLD[at], SCORE[at]).statistic),
    "spearman": (spearman(GOLD, SCORE), lambda at: stats.spearmanr(GOLD[at], SCORE[at]).statistic),
    "ap": (statistic_of("ap", Ranking(SCORE, LABEL)),
           lambda at: metrics.average_precision_score(LABEL[at], SCORE[at])),
    "f1": (statistic_of("f1", Ranking(SCORE, LABEL)),
           lambda at: max(metrics.f1_score(LABEL[at], SCORE[at] >= edge) for edge in set(SCORE[at]))),
    "accuracy": (statistic_of("accuracy", Ranking(SCORE, LABEL)),
                 lambda at: max((LABEL[at] == (SCORE[at] >= edge)).mean() for edge in [*set(SCORE[at]), 9])),
    "macro f1": (macro_f1(OTHER, LABEL), lambda at: metrics.f1_score(OTHER[at], LABEL[at], average="macro")),
    "v-measure": (v_measure(OTHER, LABEL), lambda at: metrics.v_measure_score(OTHER[at], LABEL[at])),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFINITIONS)
def test_weights_are_repetitions(name):
    statistic, define = DEFINITIONS[name]
    assert statistic.value == pytest.approx(define(np.arange(40)), abs=1e-9)
    for seed in range(5):
        drawn = np.random.default_rng(seed).integers(0, 40, 40)
        weight = np.bincount(drawn, minlength=40).astype(float)
        assert statistic.at(weight) == pytest.approx(define(drawn), abs=1e-9)


def test_a_draw_of_equal_rows_has_no_correlation():
    weight = np.zeros(40)
    weight[3] = 40
    assert spearman(GOLD, SCORE).at(weight) == pearson(GOLD, SCORE).at(weight) == 0


@pytest.mark.parametrize("rows", [1, 7, 200])
@pytest.mark.parametrize("draws", [3, 1000])
def test_a_mean_is_resampled_by_the_same_draws_as_any_metric(rows, draws, monkeypatch):
    monkeypatch.setattr("stfit.evaluation.bootstrap.DRAWN_TOGETHER", 20 * rows + 1)
    mean = mean_of(np.random.default_rng(rows).random(rows))
    by_weights = resample(Statistic(mean.rows, mean.at), draws)
    np.testing.assert_allclose(resample(mean, draws), by_weights, rtol=0, atol=1e-12)


def test_the_mean_over_parts_counts_each_as_much_and_a_part_alone_is_itself() -> None:
    small, large = mean_of(np.array([1.0, 0.0])), mean_of(np.array([1.0] * 3 + [0.0]))
    both = mean_over_parts([small, large])
    assert (both.rows, both.value) == (6, (0.5 + 0.75) / 2)
    assert both.at(np.array([0, 0, 1, 1, 0, 2])) == 0.5
    assert mean_over_parts([small, Statistic(0, lambda weight: 0.1)]).rows == 0
    assert mean_over_parts([small, Statistic(0, lambda weight: 0.1)]).value == 0.3

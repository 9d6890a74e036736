"""Are the most similar pairs of a set of sentences the paraphrases among them?"""

from itertools import combinations
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from stfit.data.mapping.examples import Examples
from stfit.evaluation.base import Embed, EvaluatorBase
from stfit.evaluation.statistic import Ranking, Statistic, average_precision, best_f1
from stfit.neighbors.exact import nearest


class ParaphraseMining(EvaluatorBase):
    """Ranks pairs of similar sentences with the model's similarity function: the paraphrases should come first.

    The sentences are all texts of the rows, and each row is a pair of paraphrases. To take them from labeled pairs,
    select the positive rows: `where: {is_duplicate: 1}`.
    """

    aliases = ("ParaphraseMiningEvaluator",)
    type: Literal["paraphrase_mining"] = "paraphrase_mining"
    format = "positive_pair"
    can_slice = False
    symmetric = True
    per_similarity = False
    main_metric = "average_precision"
    metrics: ClassVar[list[str]] = ["average_precision", "f1", "precision", "recall"]
    top_k: int = Field(100, gt=0)
    """Number of most similar sentences to consider for each sentence."""
    transitive: bool = False
    """true treats paraphrases of paraphrases as paraphrases, even if the data does not list those pairs."""

    def texts_of_rows(self, rows: Any) -> dict[str, list[Any]]:
        return {"text": paraphrases(rows, self.transitive)[0]}

    def measure(self, rows: Examples, embed: Embed, similarity: str) -> dict[str, Statistic]:
        """Average precision, and F1, precision and recall at the best threshold; sentences are resampled."""
        sentences, gold = paraphrases(rows, self.transitive)
        vectors = embed("anchor", sentences)
        score_sk, index_sk = nearest(vectors, [vectors], self.top_k + 1, similarity)
        left, right = np.repeat(np.arange(len(sentences)), index_sk.shape[1]), index_sk.ravel()
        distinct = left != right
        low_high = np.sort(np.stack([left, right], axis=1)[distinct], axis=1)
        pairs, first = np.unique(low_high, axis=0, return_index=True)
        correct = np.array([tuple(pair) in gold for pair in pairs.tolist()])
        ranking = Ranking(score_sk.ravel()[distinct][first], correct)
        gold_pairs = np.array(sorted(gold))
        return {kind: _build_statistic(kind, ranking, pairs, gold_pairs, len(sentences)) for kind in self.metrics}


def _build_statistic(kind: str, ranking: Ranking, pairs: np.ndarray, gold: np.ndarray, sentences: int) -> Statistic:
    def at(weight_s: np.ndarray) -> float:
        right = float(weight_s[gold].prod(axis=1).sum())
        right_g, all_g = ranking.counts(weight_s[pairs].prod(axis=1))
        if kind == "average_precision":
            return average_precision(right_g, all_g, right)
        return float(best_f1(right_g, all_g, right)[("f1", "precision", "recall").index(kind)])

    return Statistic(sentences, at)


def paraphrases(rows: Examples, transitive: bool) -> tuple[list[str], set[tuple[int, int]]]:
    anchors, positives = rows.column("anchor"), rows.column("positive")
    position = {text: number for number, text in enumerate(dict.fromkeys([*anchors, *positives]))}
    pairs = {(position[anchor], position[positive]) for anchor, positive in zip(anchors, positives, strict=True)}
    if transitive:
        pairs = _close_transitively(pairs, len(position))
    return list(position), {(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]}


def _close_transitively(pairs: set[tuple[int, int]], sentences: int) -> set[tuple[int, int]]:
    from scipy.sparse import coo_array, csgraph

    first, second = np.array(sorted(pairs)).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(sentences, sentences))
    _, component_s = csgraph.connected_components(graph, directed=False)
    order_s = np.argsort(component_s, kind="stable")
    groups = np.split(order_s, np.flatnonzero(np.diff(component_s[order_s])) + 1)
    return {pair for group in groups for pair in combinations(group.tolist(), 2)}

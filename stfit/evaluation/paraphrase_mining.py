"""Are the nearest pairs of a heap of sentences the paraphrases among them?"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from stfit.data.mapping.examples import Examples
from stfit.evaluation.base import Embed, EvaluatorBase
from stfit.evaluation.knn import nearest
from stfit.evaluation.statistic import Ranking, Statistic, average_precision, best_f1, rank


class ParaphraseMining(EvaluatorBase):
    """Pairs of near sentences in the order of their similarity (the model's own): the paraphrases should come first.

    The sentences are all texts of the rows, and each row is a pair of paraphrases: `where: {is_duplicate: 1}` takes
    them from labelled pairs.
    """

    aliases: ClassVar[tuple[str, ...]] = ("ParaphraseMiningEvaluator",)
    type: Literal["paraphrase_mining"] = "paraphrase_mining"
    format: ClassVar[str] = "positive_pair"
    symmetric: ClassVar[bool] = True
    per_similarity: ClassVar[bool] = False
    main_metric: ClassVar[str] = "average_precision"
    metrics: ClassVar[list[str]] = ["average_precision", "f1", "precision", "recall"]
    top_k: int = Field(100, gt=0)
    """Nearest sentences of each sentence that are looked at."""
    transitive: bool = False
    """Whether paraphrases of paraphrases are paraphrases too, where the data does not list those pairs."""

    def measure(self, rows: Examples, embed: Embed, similarity: str) -> dict[str, Statistic]:
        """Average precision, and F1, precision and recall at the best threshold; rows to resample are sentences."""
        sentences, gold = paraphrases(rows, self.transitive)
        vectors = embed("anchor", sentences)
        score_sk, index_sk = nearest(vectors, [vectors], self.top_k + 1, similarity)
        one, other = np.repeat(np.arange(len(sentences)), index_sk.shape[1]), index_sk.ravel()
        low_high = np.stack([np.minimum(one, other), np.maximum(one, other)], axis=1)
        apart = one != other
        pairs, first = np.unique(low_high[apart], axis=0, return_index=True)
        right = np.array([tuple(pair) in gold for pair in pairs.tolist()])
        ranking = rank(score_sk.ravel()[apart][first], right)
        listed = np.array(sorted(gold))
        return {kind: _statistic_of(kind, ranking, pairs, listed, len(sentences)) for kind in self.metrics}


def _statistic_of(kind: str, ranking: Ranking, pairs: np.ndarray, gold: np.ndarray, sentences: int) -> Statistic:
    """One metric of the found pairs; a pair counts as often as its two sentences' weights multiplied."""

    def at(weight_s: np.ndarray) -> float:
        right = float(weight_s[gold].prod(axis=1).sum())
        right_g, all_g = ranking.counts(weight_s[pairs].prod(axis=1))
        if kind == "average_precision":
            return average_precision(right_g, all_g, right)
        return float(best_f1(right_g, all_g, right)[("f1", "precision", "recall").index(kind)])

    return Statistic(sentences, at)


def paraphrases(rows: Examples, transitive: bool) -> tuple[list[str], set[tuple[int, int]]]:
    """The distinct sentences, and the pairs (i < j) that are paraphrases."""
    anchors, positives = rows.column("anchor"), rows.column("positive")
    at = {text: position for position, text in enumerate(dict.fromkeys([*anchors, *positives]))}
    listed = [sorted((at[one], at[other])) for one, other in zip(anchors, positives, strict=True) if one != other]
    if transitive:
        listed = _closure(listed, len(at))
    return list(at), {(low, high) for low, high in listed}


def _closure(pairs: list[list[int]], sentences: int) -> list[list[int]]:
    """All pairs within each connected group."""
    group = list(range(sentences))
    members = {position: [position] for position in group}
    for low, high in pairs:
        if (kept := group[low]) != (gone := group[high]):
            for position in members[gone]:
                group[position] = kept
            members[kept] += members.pop(gone)
    return [
        sorted((one, other)) for listed in members.values() for i, one in enumerate(listed) for other in listed[i + 1 :]
    ]

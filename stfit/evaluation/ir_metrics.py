"""Metrics of ranked lists of documents.

Relevance is binary, as in sentence-transformers: grades above 0 count as relevant. Only `ndcg_graded` uses the grades.

Tensor names: q = queries, n = ranks, from the first.
"""

from collections.abc import Sequence

import numpy as np

from stfit.evaluation.statistic import Statistic, mean_of

KINDS = ("accuracy", "precision", "recall", "ndcg", "mrr", "map")


def graded_ndcg_at(k: int, grade_qn: np.ndarray, grades: Sequence[Sequence[float]]) -> Statistic:
    """NDCG whose gain is the grade of a document, as of trec_eval (`ndcg_cut`) and BEIR; the mean over queries.

    `grade_qn`: grade of the document at a rank, 0 if it is not relevant; `grades`: those of all relevant documents of
    each query (at least one), from the highest.
    """
    discount_n = 1 / np.log2(np.arange(2, k + 2))
    ideal_q = np.array([np.dot(best[:k], discount_n[: len(best)]) for best in grades])
    found_qn = grade_qn[:, :k]
    return mean_of(found_qn @ discount_n[: found_qn.shape[1]] / ideal_q)


def metrics_at(k: int, hit_qn: np.ndarray, relevant_q: np.ndarray) -> dict[str, Statistic]:
    """Every metric of the first k ranks, as means over queries.

    `hit_qn`: whether the document at a rank is relevant; `relevant_q`: number of relevant documents (at least one).
    Accuracy: whether there is a hit; MRR: one over the rank of the first hit; NDCG: gain 1, discounted by
    log2(rank + 1); MAP: sum of the precisions at the hits over the number of possible hits.
    """
    hit_qn = hit_qn[:, :k].astype(np.float64)
    ranks_n = np.arange(1, hit_qn.shape[1] + 1)
    discount_n = 1 / np.log2(ranks_n + 1)
    possible_q = np.minimum(relevant_q, k)
    ideal_n = (1 / np.log2(np.arange(2, k + 2))).cumsum()
    hits_qn = hit_qn.cumsum(axis=1)
    found_q = hit_qn.sum(axis=1)
    values = {
        "accuracy": found_q > 0,
        "precision": found_q / k,
        "recall": found_q / relevant_q,
        "ndcg": hit_qn @ discount_n / ideal_n[possible_q - 1],
        "mrr": (hit_qn * (hits_qn == 1) / ranks_n).sum(axis=1),
        "map": (hit_qn * hits_qn / ranks_n).sum(axis=1) / possible_q,
    }
    return {f"{kind}@{k}": mean_of(value_q) for kind, value_q in values.items()}

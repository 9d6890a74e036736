"""Are the relevant candidates of a query ranked first?"""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from stfit.data.checks.leakage import Column
from stfit.data.mapping.examples import Examples
from stfit.evaluation.base import Embed, EvaluatorBase
from stfit.evaluation.ir_metrics import metrics_at
from stfit.evaluation.statistic import Statistic
from stfit.similarity import pairwise_similarity


class Reranking(EvaluatorBase):
    """Ranks the candidates of each query with the model's similarity function: the positives should come first.

    Rows with the same anchor are one query. Lists: `columns: {positive: "set.pos[*]", negative: "set.neg[:100]"}`.
    """

    aliases = ("RerankingEvaluator",)
    type: Literal["reranking"] = "reranking"
    format = "triplet"
    per_similarity = False
    k: int = Field(10, gt=0)
    """Rank cutoff of NDCG and MRR."""

    @property
    def metrics(self) -> list[str]:
        return [f"ndcg@{self.k}", f"mrr@{self.k}", "map"]

    @property
    def main_metric(self) -> str:  # type: ignore[override]
        return f"ndcg@{self.k}"

    @property
    def prompt_roles(self) -> tuple[str, ...]:
        return ("anchor", "positive")  # negatives use the prompt of the positives

    def columns_of(self, rows: Any) -> dict[str, Column]:
        """The queries: new queries rank documents that training knows, too."""
        return {"anchor": super().columns_of(rows)["anchor"]}

    def slices_of(self, rows: Any) -> list[str] | None:
        """That of each query: of its first row."""
        names = super().slices_of(rows)
        if names is None:
            return None
        first = dict(reversed(list(zip(rows.column("anchor"), names, strict=True))))
        return [first[query] for query in _candidates_of(rows)]

    def texts_of_rows(self, rows: Any) -> dict[str, list[Any]]:
        return {"anchor": list(_candidates_of(rows))}

    def measure(self, rows: Examples, embed: Embed, similarity: str) -> dict[str, Statistic]:
        """The metrics as means over queries; among equally similar candidates, irrelevant ones rank first."""
        import torch

        candidates = _candidates_of(rows)
        queries = torch.from_numpy(embed("anchor", list(candidates)))
        documents = list(dict.fromkeys(text for listed in candidates.values() for text in listed))
        vectors = torch.from_numpy(embed("positive", documents))
        index_of = {text: index for index, text in enumerate(documents)}
        hits = []
        for query, listed in zip(queries, candidates.values(), strict=True):
            listed_nd = vectors[[index_of[text] for text in listed]]
            score_n = pairwise_similarity(similarity, query, listed_nd).numpy()
            right_n = np.array(list(listed.values()))
            hits.append(right_n[np.lexsort((right_n, -score_n))])
        most = max(map(len, hits))
        hit_qn = np.array([np.pad(right_n, (0, most - len(right_n))) for right_n in hits])
        relevant_q = hit_qn.sum(axis=1)
        top_ranks, all_ranks = metrics_at(self.k, hit_qn, relevant_q), metrics_at(most, hit_qn, relevant_q)
        return {name: top_ranks[name] for name in self.metrics[:2]} | {"map": all_ranks[f"map@{most}"]}


def _candidates_of(rows: Examples) -> dict[str, dict[str, bool]]:
    """Query -> candidate -> whether it is relevant; a candidate listed as both is relevant."""
    candidates: dict[str, dict[str, bool]] = {}
    for anchor, positive in zip(rows.column("anchor"), rows.column("positive"), strict=True):
        candidates.setdefault(anchor, {})[positive] = True
    for role in rows.negatives:
        for anchor, negative in zip(rows.column("anchor"), rows.texts[role], strict=True):
            if negative is not None:
                candidates[anchor].setdefault(negative, False)
    return candidates

"""Losses whose negatives are the other rows of the batch: anchor, positive, and perhaps negatives of their own.

Tensor names: r = rows, c = candidates (the positives, then each column of negatives: rows times columns), d = dim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from stfit.lazy import lazy
from stfit.losses.base import (
    Accepts,
    Columns,
    Dims,
    DimWeights,
    Sampler,
    TeacherRevision,
    presence_mask,
    require_columns,
    require_columns_with_teacher,
)
from stfit.paths import Location
from stfit.similarity import normalize
from stfit.spec import Spec

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor
else:
    torch = lazy("torch")
    F = lazy("torch.nn.functional")

Direction = Literal["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]
Partition = Literal["joint", "per_direction"]
Hardness = Literal["in_batch_negatives", "hard_negatives", "all_negatives"]


class MultipleNegativesRanking(Spec):
    """Each anchor should pick its own positive among all positives and negatives of the batch (InfoNCE).

    Mean over the rows of -log softmax(scale similarity) at the positive (van den Oord et al., 2018,
    https://arxiv.org/abs/1807.03748; Henderson et al., 2017, https://arxiv.org/abs/1705.00652). A larger batch is a
    harder task: raise `train.batch_size`, and keep `train.mini_batch_size` small where memory is short. In the format
    `text`, a text under another dropout is its own positive (SimCSE, https://arxiv.org/abs/2104.08821).
    """

    aliases: ClassVar[tuple[str, ...]] = ("MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss")
    fits: ClassVar[tuple[Accepts, ...]] = (
        Accepts("text", "none"),
        Accepts("positive_pair", "none"),
        Accepts("triplet", "none"),
    )
    sampler: ClassVar[Sampler] = "no_duplicates"
    min_batch_size: ClassVar[int] = 2
    views: ClassVar[tuple[str, ...]] = ("anchor", "positive")
    """What a text of the format `text` is, once under each dropout (SimCSE, https://arxiv.org/abs/2104.08821)."""

    type: Literal["multiple_negatives_ranking"] = "multiple_negatives_ranking"
    scale: float = Field(20.0, gt=0)
    """Multiplies the similarity (1 / temperature). With `similarity: dot`, 1 is usual."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """What is compared: cosine or dot product."""
    directions: list[Direction] = ["query_to_doc"]
    """Who chooses among whom, query_to_doc always among them: query_to_doc (anchors among positives and negatives),
    query_to_query (anchors push other anchors away), doc_to_query (positives among anchors), doc_to_doc (positives push
    away the documents of other rows)."""
    partition: Partition = "joint"
    """joint = one softmax over all directions (GTE, https://arxiv.org/abs/2308.03281); per_direction = one each,
    averaged (symmetric InfoNCE with `directions: [query_to_doc, doc_to_query]`)."""
    hardness_mode: Hardness | None = None
    """Which candidates weigh more the nearer they are (https://arxiv.org/abs/2503.04812): in_batch_negatives (documents
    of other rows), hard_negatives (the row's own negatives) or all_negatives; null = none."""
    hardness_strength: float = Field(0.0, ge=0)
    """How much more: this times the similarity is added to the candidate's score; papers use 5 to 9."""
    matryoshka_dims: Dims = None
    matryoshka_weights: DimWeights = None

    @model_validator(mode="after")
    def options_agree(self) -> Self:
        """A softmax needs the positive in it, and a hardness needs both of its halves."""
        same_side = {"query_to_query", "doc_to_doc"} & set(self.directions)
        if "query_to_doc" not in self.directions or len(set(self.directions)) < len(self.directions):
            raise ValueError("`directions` names query_to_doc, which holds the positives, and each direction once")
        if self.partition == "per_direction" and same_side:
            raise ValueError(
                f"`partition: per_direction` can't go with {', '.join(sorted(same_side))}: they hold no positive"
            )
        if (self.hardness_mode is None) != (self.hardness_strength == 0):
            raise ValueError("`hardness_mode` and a `hardness_strength` above 0 go together: one has no effect alone")
        return self

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of `anchor`, `positive`, `negative...` [rows, dim]; a negative of zeros is missing."""
        names = [name for name in columns if name.startswith("negative")]
        anchor_rd, positive_rd, *negatives = require_columns(self.tag(), columns, label, "anchor", "positive", *names)
        document_cd = torch.cat([positive_rd, *negatives])
        row_r = torch.arange(len(anchor_rd), device=anchor_rd.device)
        own_rc = row_r[:, None] == row_r.repeat(1 + len(negatives))
        # Only a negative can be missing: a positive of exact zeros is a text without a direction, and stays.
        missing_c = (document_cd == 0).all(dim=1).index_fill(0, row_r, False)
        if self.similarity == "cosine":
            anchor_rd, document_cd = normalize(anchor_rd), normalize(document_cd)
        positive_rd = document_cd[: len(anchor_rd)]

        pools = {  # direction -> who chooses, among whom, except
            "query_to_doc": (anchor_rd, document_cd, missing_c),
            "query_to_query": (anchor_rd, anchor_rd, own_rc[:, : len(anchor_rd)]),
            "doc_to_query": (positive_rd, anchor_rd, torch.zeros_like(row_r, dtype=torch.bool)),
            "doc_to_doc": (positive_rd, document_cd, own_rc | missing_c),
        }
        scores = {}
        for direction in self.directions:
            chooser_rd, pool_cd, except_rc = pools[direction]
            similarity_rc = chooser_rd @ pool_cd.T
            scores[direction] = (self.scale * similarity_rc).masked_fill(except_rc, -torch.inf)
            if direction == "query_to_doc" and self.hardness_mode is not None:
                scores[direction] += self.penalty(similarity_rc.detach(), own_rc)
        positive_r = scores["query_to_doc"].diagonal()
        if self.partition == "joint":
            return (torch.cat(list(scores.values()), dim=1).logsumexp(dim=1) - positive_r).mean()
        return (torch.stack([score.logsumexp(dim=1) for score in scores.values()]).mean(dim=0) - positive_r).mean()

    def penalty(self, similarity_rc: Tensor, own_rc: Tensor) -> Tensor:
        """What `hardness_mode` adds to the scores of candidates, [r, c]; `own_rc` marks those of the anchor's row."""
        positive_rc = torch.eye(*own_rc.shape, dtype=torch.bool, device=own_rc.device)
        hardened_rc = {
            "in_batch_negatives": ~own_rc,
            "hard_negatives": own_rc & ~positive_rc,
            "all_negatives": ~positive_rc,
        }[str(self.hardness_mode)]
        return torch.where(hardened_rc, self.hardness_strength * similarity_rc, 0)


class MultipleNegativesSymmetricRanking(MultipleNegativesRanking):
    """multiple_negatives_ranking in both directions: each positive should pick its own anchor, too."""

    aliases: ClassVar[tuple[str, ...]] = (
        "MultipleNegativesSymmetricRankingLoss",
        "CachedMultipleNegativesSymmetricRankingLoss",
    )

    type: Literal["multiple_negatives_symmetric_ranking"] = "multiple_negatives_symmetric_ranking"  # type: ignore[assignment]
    directions: list[Direction] = ["query_to_doc", "doc_to_query"]
    """Who chooses among whom: anchors among positives and negatives, and positives among anchors."""
    partition: Partition = "per_direction"
    """per_direction = a softmax for each direction, averaged; joint = one over both."""


class GISTEmbed(Spec):
    """multiple_negatives_ranking without the negatives that a guide finds nearer to the anchor than its positive.

    Anchors choose among all positives, other anchors and negatives, and positives push other positives away; of these
    counts what the guide's own embeddings show to be farther apart than the row's pair (Solatorio, 2024,
    https://arxiv.org/abs/2402.16829).
    """

    aliases: ClassVar[tuple[str, ...]] = ("GISTEmbedLoss", "CachedGISTEmbedLoss")
    fits: ClassVar[tuple[Accepts, ...]] = (Accepts("positive_pair", "teacher"), Accepts("triplet", "teacher"))
    sampler: ClassVar[Sampler] = "no_duplicates"
    min_batch_size: ClassVar[int] = 2

    type: Literal["gist"] = "gist"
    teacher: Location
    """The guide: Hub id or folder of a model; its embeddings are kept on disk for other runs."""
    revision: TeacherRevision = None
    scale: float = Field(100.0, gt=0)
    """Multiplies the cosine (1 / temperature)."""
    margin_strategy: Literal["absolute", "relative"] = "absolute"
    """Whether `margin` is a cosine, or a share of the positive's."""
    margin: float = 0.0
    """A negative counts if the guide finds it farther than the positive by at least this."""
    contrast_anchors: bool = True
    """Push anchors away from one another."""
    contrast_positives: bool = True
    """Push positives away from one another."""
    matryoshka_dims: Dims = None
    matryoshka_weights: DimWeights = None

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of `anchor`, `positive`, `negative...` [rows, dim]; a negative of zeros is missing."""
        names = ["anchor", "positive", *(name for name in columns if name.startswith("negative"))]
        texts, guide_rcd = require_columns_with_teacher(self, columns, label, names)
        there_rc = presence_mask(names, texts)
        own = [normalize(text_rd) for text_rd in texts]
        guide = [normalize(guide_rd) for guide_rd in guide_rcd.unbind(1)]
        limit_r1 = (guide[0] * guide[1]).sum(dim=1, keepdim=True)
        limit_r1 = limit_r1 - self.margin * (limit_r1.abs() if self.margin_strategy == "relative" else 1)
        itself_rr = torch.eye(len(limit_r1), dtype=torch.bool, device=limit_r1.device)

        pairs = [(0, 1), *([(0, 0)] if self.contrast_anchors else []), *([(1, 1)] if self.contrast_positives else [])]
        scores = []
        for chooser, pool in [*pairs, *((0, place) for place in range(2, len(names)))]:
            left_out_rr = (guide[chooser] @ guide[pool].T > limit_r1) | ~there_rc[:, pool]
            if chooser == pool:
                left_out_rr |= itself_rr
            elif pool == 1:  # the row's own positive
                left_out_rr &= ~itself_rr
            scores.append((self.scale * own[chooser] @ own[pool].T).masked_fill(left_out_rr, -torch.inf))
        target_r = torch.arange(len(limit_r1), device=limit_r1.device)
        return F.cross_entropy(torch.cat(scores, dim=1), target_r)


class MegaBatchMargin(Spec):
    """A pair should have a cosine of `positive_margin`, and the hardest other positive at most `negative_margin`.

    Mean over the rows of max(0, positive_margin - cos(anchor, positive)) + max(0, hardest - negative_margin), hardest =
    the highest cosine of the anchor with another row's positive (Wieting and Gimpel, 2018,
    https://arxiv.org/abs/1711.05732). Wants a large `train.batch_size`.
    """

    aliases: ClassVar[tuple[str, ...]] = ("MegaBatchMarginLoss",)
    fits: ClassVar[tuple[Accepts, ...]] = (Accepts("positive_pair", "none"),)
    sampler: ClassVar[Sampler] = "no_duplicates"
    min_batch_size: ClassVar[int] = 2

    type: Literal["mega_batch_margin"] = "mega_batch_margin"
    positive_margin: float = Field(0.8, ge=-1, le=1)
    """Pairs with a higher cosine than this cost nothing."""
    negative_margin: float = Field(0.3, ge=-1, le=1)
    """Hardest negatives with a lower cosine than this cost nothing."""
    matryoshka_dims: Dims = None
    matryoshka_weights: DimWeights = None

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss of `anchor` and `positive` [rows, dim]."""
        anchor_rd, positive_rd = require_columns(self.tag(), columns, label, "anchor", "positive")
        cosine_rr = normalize(anchor_rd) @ normalize(positive_rd).T
        itself_rr = torch.eye(len(cosine_rr), dtype=torch.bool, device=cosine_rr.device)
        hardest_r = cosine_rr.masked_fill(itself_rr, -torch.inf).max(dim=1).values
        pull_r = F.relu(self.positive_margin - cosine_rr.diagonal())
        return (pull_r + F.relu(hardest_r - self.negative_margin)).mean()

"""Losses whose negatives are the other rows of the batch: anchor, positive, and optional negatives of the row.

Tensor names: r = rows, c = candidates (the positives, then each column of negatives: rows times columns), d = dim.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from stfit.lazy import F, Tensor, torch
from stfit.losses.base import Accepts, Columns, LossBase, TeacherLoss, require_columns
from stfit.paths import Location
from stfit.similarity import normalize

Direction = Literal["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]
Partition = Literal["joint", "per_direction"]
Hardness = Literal["in_batch_negatives", "hard_negatives", "all_negatives"]
Negatives = Literal["all", "own", "in_batch"]


class MultipleNegativesRanking(LossBase):
    """Each anchor has to select its own positive among all positives and negatives of the batch (InfoNCE).

    Mean over the rows of -log softmax(scale similarity) at the positive (van den Oord et al., 2018,
    https://arxiv.org/abs/1807.03748; Henderson et al., 2017, https://arxiv.org/abs/1705.00652). A larger batch is a
    harder task: raise `train.batch_size`, and lower `train.mini_batch_size` if memory is short. In the format `text`,
    the positive of a text is the text itself under another dropout mask (SimCSE, https://arxiv.org/abs/2104.08821).
    """

    aliases = ("MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss")
    fits = (Accepts("text", "none"), Accepts("positive_pair", "none"), Accepts("triplet", "none"))
    sampler = "no_duplicates"
    min_batch_size = 2
    views = ("anchor", "positive")

    type: Literal["multiple_negatives_ranking"] = "multiple_negatives_ranking"
    scale: float = Field(20.0, gt=0)
    """Multiplies the similarity (1 / temperature). With `similarity: dot`, 1 is usual."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """cosine or dot (dot product)."""
    directions: list[Direction] = ["query_to_doc"]
    """Pairs that are compared. Required: query_to_doc (anchors with positives and negatives). Optional: query_to_query
    (anchors with other anchors), doc_to_query (positives with anchors), doc_to_doc (positives with the positives and
    negatives of other rows)."""
    partition: Partition = "joint"
    """joint: one softmax over all directions (GTE, https://arxiv.org/abs/2308.03281). per_direction: one softmax for
    each, averaged (with `directions: [query_to_doc, doc_to_query]`, symmetric InfoNCE)."""
    negatives: Negatives = "all"
    """What an anchor is compared with beside its positive: all, own (the negatives of its row alone) or in_batch (the
    positives and negatives of other rows alone)."""
    false_negative_margin: float | None = Field(None, ge=0)
    """Candidates that are more similar than the positive by this margin do not count, as they are likely to be relevant
    (Qwen3-Embedding, https://arxiv.org/abs/2506.05176, uses 0.1); null = all count."""
    hardness_mode: Hardness | None = None
    """Negatives whose weight grows with their similarity (https://arxiv.org/abs/2503.04812): in_batch_negatives
    (positives and negatives of other rows), hard_negatives (the row's own) or all_negatives; null = none."""
    hardness_strength: float = Field(0.0, ge=0)
    """Factor of the similarity that is added to the score of these negatives. Papers use 5 to 9."""

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        same_side = {"query_to_query", "doc_to_doc"} & set(self.directions)
        if "query_to_doc" not in self.directions or len(set(self.directions)) < len(self.directions):
            raise ValueError("`directions` must contain query_to_doc, which has the positives, and no direction twice")
        if self.partition == "per_direction" and same_side:
            raise ValueError(
                f"`partition: per_direction` excludes {', '.join(sorted(same_side))}: they contain no positive"
            )
        if self.negatives == "own" and self.directions != ["query_to_doc"]:
            raise ValueError("`negatives: own` excludes other directions than query_to_doc: they compare other rows")
        _require_both(self.hardness_mode, self.hardness_strength)
        return self

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        names = [name for name in columns if name.startswith("negative")]
        anchor_rd, positive_rd, *negatives = require_columns(self.tag(), columns, label, "anchor", "positive", *names)
        document_cd = torch.cat([positive_rd, *negatives])
        row_r = torch.arange(len(anchor_rd), device=anchor_rd.device)
        own_row_rc = row_r[:, None] == row_r.repeat(1 + len(negatives))
        # Only a negative can be missing: a positive of exact zeros is a text whose embedding is zero, and counts.
        missing_c = (document_cd == 0).all(dim=1).index_fill(0, row_r, False)
        if self.similarity == "cosine":
            anchor_rd, document_cd = normalize(anchor_rd), normalize(document_cd)
        positive_rd = document_cd[: len(anchor_rd)]

        candidates = {  # direction -> anchors of the comparison, candidates, excluded candidates
            "query_to_doc": (anchor_rd, document_cd, missing_c | self._left_out(own_row_rc)),
            "query_to_query": (anchor_rd, anchor_rd, own_row_rc[:, : len(anchor_rd)]),
            "doc_to_query": (positive_rd, anchor_rd, torch.zeros_like(row_r, dtype=torch.bool)),
            "doc_to_doc": (positive_rd, document_cd, own_row_rc | missing_c),
        }
        scores = {}
        for direction in self.directions:
            source_rd, candidate_cd, excluded_rc = candidates[direction]
            similarity_rc = source_rd @ candidate_cd.T
            if self.false_negative_margin is not None:
                limit_r1 = (anchor_rd * positive_rd).sum(dim=1, keepdim=True) + self.false_negative_margin
                likely_rc = similarity_rc.detach() > limit_r1.detach()
                excluded_rc = excluded_rc | (likely_rc & ~_diagonal(similarity_rc))
            scores[direction] = (self.scale * similarity_rc).masked_fill(excluded_rc, -torch.inf)
            if direction == "query_to_doc" and self.hardness_mode is not None:
                scores[direction] += self._hardness(similarity_rc.detach(), own_row_rc)
        positive_r = scores["query_to_doc"].diagonal()
        if self.partition == "joint":
            return (torch.cat(list(scores.values()), dim=1).logsumexp(dim=1) - positive_r).mean()
        return (torch.stack([score.logsumexp(dim=1) for score in scores.values()]).mean(dim=0) - positive_r).mean()

    def _left_out(self, own_row_rc: Tensor) -> Tensor:
        """The candidates that `negatives` leaves out, [r, c]; the positive is none of them."""
        if self.negatives == "all":
            return torch.zeros_like(own_row_rc)
        if self.negatives == "own":
            return ~own_row_rc
        return own_row_rc & ~_diagonal(own_row_rc)

    def _hardness(self, similarity_rc: Tensor, own_row_rc: Tensor) -> Tensor:
        """What `hardness_mode` adds to the scores, [r, c]; `own_row_rc` marks candidates of the anchor's row."""
        hardened_rc = _is_hardened(str(self.hardness_mode), own_row_rc, _diagonal(own_row_rc))
        return torch.where(hardened_rc, self.hardness_strength * similarity_rc, 0)


def _require_both(mode: Hardness | None, strength: float) -> None:
    if (mode is None) != (strength == 0):
        raise ValueError("set `hardness_mode` and a `hardness_strength` above 0 together: one alone has no effect")


def _is_hardened(mode: str, own_row_rc: Tensor, positive_rc: Tensor) -> Tensor:
    """The candidates that a mode is about, [r, c], of which some are in the anchor's row and one is its positive."""
    return {
        "in_batch_negatives": ~own_row_rc,
        "hard_negatives": own_row_rc & ~positive_rc,
        "all_negatives": ~positive_rc,
    }[mode]


def _diagonal(matrix_rc: Tensor) -> Tensor:
    """True where a row meets its own positive or anchor, [r, c]."""
    return torch.eye(*matrix_rc.shape, dtype=torch.bool, device=matrix_rc.device)


class MultipleNegativesSymmetricRanking(MultipleNegativesRanking):
    """multiple_negatives_ranking in both directions: each positive also has to select its own anchor."""

    aliases = ("MultipleNegativesSymmetricRankingLoss", "CachedMultipleNegativesSymmetricRankingLoss")

    type: Literal["multiple_negatives_symmetric_ranking"] = "multiple_negatives_symmetric_ranking"  # type: ignore[assignment]
    directions: list[Direction] = ["query_to_doc", "doc_to_query"]
    """Pairs that are compared: anchors with positives and negatives, and positives with anchors."""
    partition: Partition = "per_direction"
    """per_direction: a softmax for each direction, averaged. joint: one softmax over both."""


class GISTEmbed(TeacherLoss):
    """multiple_negatives_ranking that ignores likely false negatives, as judged by a second model, the guide.

    Anchors are compared with all positives, other anchors and negatives, and positives with other positives. A negative
    is ignored if the guide's embeddings place it closer than the row's own pair (Solatorio, 2024,
    https://arxiv.org/abs/2402.16829).
    """

    aliases = ("GISTEmbedLoss", "CachedGISTEmbedLoss")
    fits = (Accepts("positive_pair", "teacher"), Accepts("triplet", "teacher"))
    sampler = "no_duplicates"
    min_batch_size = 2

    type: Literal["gist"] = "gist"
    teacher: Location
    """The guide: Hub id or folder of a model. Its embeddings are cached on disk and reused by other runs."""
    scale: float = Field(100.0, gt=0)
    """Multiplies the cosine (1 / temperature)."""
    margin_strategy: Literal["absolute", "relative"] = "absolute"
    """Unit of `margin`: absolute (a cosine) or relative (a fraction of the positive's cosine)."""
    margin: float = 0.0
    """A negative counts only if the guide's cosine for it is lower than for the positive by at least this much."""
    contrast_anchors: bool = True
    """Compare anchors with other anchors."""
    contrast_positives: bool = True
    """Compare positives with other positives."""
    hardness_mode: Hardness | None = None
    """Negatives of anchors whose weight grows with their similarity, as in multiple_negatives_ranking; null = none."""
    hardness_strength: float = Field(0.0, ge=0)
    """Factor of the cosine that is added to the score of these negatives. Papers use 5 to 9."""

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        _require_both(self.hardness_mode, self.hardness_strength)
        return self

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        texts, guide_rcd, present_rc = self.require_columns_with_teacher(columns, label)
        student = [normalize(text_rd) for text_rd in texts]
        guide = [normalize(guide_rd) for guide_rd in guide_rcd.unbind(1)]
        limit_r1 = (guide[0] * guide[1]).sum(dim=1, keepdim=True)
        limit_r1 = limit_r1 - self.margin * (limit_r1.abs() if self.margin_strategy == "relative" else 1)
        diagonal_rr = torch.eye(len(limit_r1), dtype=torch.bool, device=limit_r1.device)

        pairs = [(0, 1), *([(0, 0)] if self.contrast_anchors else []), *([(1, 1)] if self.contrast_positives else [])]
        scores = []
        for source, candidate in [*pairs, *((0, column) for column in range(2, len(texts)))]:
            excluded_rr = (guide[source] @ guide[candidate].T > limit_r1) | ~present_rc[:, candidate]
            if source == candidate:
                excluded_rr |= diagonal_rr
            elif candidate == 1:  # the row's own positive
                excluded_rr &= ~diagonal_rr
            cosine_rr = student[source] @ student[candidate].T
            score_rr = self.scale * cosine_rr
            if self.hardness_mode is not None and source == 0 and candidate > 0:
                own_rr, positive_rr = diagonal_rr, diagonal_rr & (candidate == 1)
                is_hard_rr = _is_hardened(self.hardness_mode, own_rr, positive_rr)
                score_rr = score_rr + torch.where(is_hard_rr, self.hardness_strength * cosine_rr.detach(), 0)
            scores.append(score_rr.masked_fill(excluded_rr, -torch.inf))
        target_r = torch.arange(len(limit_r1), device=limit_r1.device)
        return F.cross_entropy(torch.cat(scores, dim=1), target_r)


class MegaBatchMargin(LossBase):
    """Trains pairs to a cosine of `positive_margin`, and the hardest other positive to at most `negative_margin`.

    Mean over the rows of max(0, positive_margin - cos(anchor, positive)) + max(0, hardest - negative_margin), hardest =
    the highest cosine of the anchor with another row's positive (Wieting and Gimpel, 2018,
    https://arxiv.org/abs/1711.05732). Use a large `train.batch_size`.
    """

    aliases = ("MegaBatchMarginLoss",)
    fits = (Accepts("positive_pair", "none"),)
    sampler = "no_duplicates"
    min_batch_size = 2

    type: Literal["mega_batch_margin"] = "mega_batch_margin"
    positive_margin: float = Field(0.8, ge=-1, le=1)
    """Cosine above which a pair adds nothing to the loss."""
    negative_margin: float = Field(0.3, ge=-1, le=1)
    """Cosine below which the hardest negative adds nothing to the loss."""

    def __call__(self, columns: Columns, label: Tensor | None) -> Tensor:
        anchor_rd, positive_rd = require_columns(self.tag(), columns, label, "anchor", "positive")
        cosine_rr = normalize(anchor_rd) @ normalize(positive_rd).T
        diagonal_rr = torch.eye(len(cosine_rr), dtype=torch.bool, device=cosine_rr.device)
        hardest_r = cosine_rr.masked_fill(diagonal_rr, -torch.inf).max(dim=1).values
        pull_r = F.relu(self.positive_margin - cosine_rr.diagonal())
        return (pull_r + F.relu(hardest_r - self.negative_margin)).mean()

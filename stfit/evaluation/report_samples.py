"""A few rows of a dataset and a model's similarities on them, for the report of a run.

Tensor names: l = left texts (anchors, texts), r = right texts, which they are compared with, d = embedding dim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stfit.data.mapping.examples import Examples
from stfit.evaluation.evaluators.similarity import compute_ranks
from stfit.io.display import single_line
from stfit.similarity import similarity_matrix

if TYPE_CHECKING:
    from stfit.encoder.encoder import Encoder

MIN_ROWS, MAX_ROWS = 16, 128
SHARE = 8
"""Rows that are trained for each row of a sample: of a small training, the samples cost no more than a small part."""
MAX_CHARACTERS = 40_000
"""Of all texts of a sample together: some seconds of a large encoder on a CPU."""
MAX_SIMILARITIES = 400
QUERIES, NEAREST = 5, 3

SIDES = {
    "labeled_pair": ["sentence1", "sentence2"],
    "positive_pair": ["anchor", "positive"],
    "labeled_text": ["text", "text"],
    "text": ["text", "text"],
}
"""Format -> left and right role. The right side of a triplet holds the positive and all negatives."""


@dataclass(frozen=True)
class Sample:
    """Rows of a dataset, as distinct left and right texts and their relations."""

    name: str
    left: list[tuple[str, str]]
    right: list[tuple[str, str]]
    row_partner_l: np.ndarray
    """Index of the right text in the row of each left text."""
    relation_lr: np.ndarray
    """1 if two texts belong together, -1 if they do not, 0 if unknown."""
    gold_l: np.ndarray | None
    """Gold score of each left text with its row's right text; None if rows have no scores."""
    prompt_of: Callable[[Encoder, str], str]

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "left": [single_line(text) for _, text in self.left],
            "right": [single_line(text) for _, text in self.right],
            "beside": self.row_partner_l.tolist(),
            "gold": None if self.gold_l is None else self.gold_l.tolist(),
        }

    def snapshot(self, encoder: Encoder) -> dict[str, Any]:
        """The model's similarities of the texts, as JSON values.

        `positive`, `negative`: distribution of similarities of each relation. `score`: see `score`. `positives`,
        `negatives`: for each left text, its most similar right text of the relation. `nearest`: for the first left
        texts, the most similar right texts with similarity and relation.
        """
        import torch

        left_ld, right_rd = (torch.from_numpy(self._embed(encoder, side)) for side in (self.left, self.right))
        similarity = encoder.config.similarity
        similarity_lr = similarity_matrix(similarity, left_ld, right_rd).numpy()
        left, right = (np.array([text for _, text in side]) for side in (self.left, self.right))
        other_text_lr = np.where(left[:, None] == right[None, :], -np.inf, similarity_lr)
        nearest_lr = np.argsort(-other_text_lr, axis=1, kind="stable")[:QUERIES, :NEAREST]
        positive, negative = self.relation_lr == 1, self.relation_lr == -1
        return {
            "similarity": similarity,
            "positive": _summarize_distribution(similarity_lr[positive]),
            "negative": _summarize_distribution(similarity_lr[negative]),
            "score": _to_json(self.score(similarity_lr)),
            "positives": _most_similar(similarity_lr, positive),
            "negatives": _most_similar(similarity_lr, negative),
            "nearest": [
                [[i, round(float(similarity_lr[row, i]), 4), int(self.relation_lr[row, i])] for i in indices]
                for row, indices in enumerate(nearest_lr.tolist())
            ],
        }

    def score(self, similarity_lr: np.ndarray) -> np.ndarray:
        """Quality of each left text [l], higher is better; NaN if unknown.

        With gold scores: 1 - the distance between its ranks by similarity and by gold, in [0, 1]. Otherwise: its
        highest similarity to a positive - its highest to a negative.
        """
        if self.gold_l is not None:
            partner_similarity_l = similarity_lr[np.arange(len(self.left)), self.row_partner_l]
            distance_l: np.ndarray = np.abs(_compute_ranks(partner_similarity_l) - _compute_ranks(self.gold_l))
            return 1 - distance_l / max(len(distance_l) - 1, 1)
        best = [np.where(self.relation_lr == sign, similarity_lr, -np.inf).max(axis=1) for sign in (1, -1)]
        known_l = np.isfinite(best[0]) & np.isfinite(best[1])
        return np.where(known_l, best[0] - np.where(known_l, best[1], 0), np.nan)

    def _embed(self, encoder: Encoder, side: list[tuple[str, str]]) -> np.ndarray:
        embeddings = np.empty((len(side), encoder.output_dim), dtype=np.float32)
        for role in dict.fromkeys(role for role, _ in side):
            rows = [row for row, (text_role, _) in enumerate(side) if text_role == role]
            embeddings[rows] = encoder.encode([side[row][1] for row in rows], prompt=self.prompt_of(encoder, role))
        return embeddings


def build_sample(
    name: str, examples: Examples, prompt_of: Callable[[Encoder, str], str], trained_rows: int | None = None
) -> Sample:
    """A sample of `examples`, the same on every call; smaller if only `trained_rows` are trained."""
    max_rows = MAX_ROWS if trained_rows is None else min(MAX_ROWS, max(MIN_ROWS, trained_rows // SHARE))
    left_role, *right_roles = SIDES.get(examples.format) or ["anchor", "positive", *examples.negatives]
    rows = examples.take(_choose_rows(examples, examples.column(left_role), max_rows))
    right: dict[str, str] = {}  # text -> its first role
    for role in right_roles:
        for text in rows.texts[role]:
            if text is not None:  # rows may have different numbers of negatives
                right.setdefault(text, role)
    index_of = {text: index for index, text in enumerate(right)}
    return Sample(
        name,
        [(left_role, text) for text in rows.column(left_role)],
        [(role, text) for text, role in right.items()],
        np.array([index_of[text] for text in rows.column(right_roles[0])]),
        _find_relations(examples, rows, left_role, right_roles, index_of),
        rows.label.astype(np.float64) if rows.label is not None and _has_gold(rows) else None,
        prompt_of,
    )


def _choose_rows(examples: Examples, left: list[str], max_rows: int) -> np.ndarray:
    """Ascending indices of rows with distinct left texts; a generator of its own leaves those of the training alone."""
    first_of_text = {text: row for row, text in reversed(list(enumerate(left)))}
    shuffled = np.random.default_rng(0).permutation(sorted(first_of_text.values()))[:max_rows]
    sizes = [sum(len(column[row] or "") for column in examples.texts.values()) for row in shuffled.tolist()]
    count = max(2, int((np.cumsum(sizes) <= MAX_CHARACTERS).sum()))
    return np.sort(shuffled[:count])


def _find_relations(
    examples: Examples, rows: Examples, left_role: str, right_roles: list[str], right_index: dict[str, int]
) -> np.ndarray:
    left = rows.column(left_role)
    if rows.format == "labeled_text":
        assert rows.label is not None
        same_lr = rows.label[:, None] == rows.label[None, :]
        return np.where(np.eye(len(left), dtype=bool), 0, np.where(same_lr, 1, -1))
    relation_lr = np.full((len(left), len(right_index)), -1 if rows.format == "positive_pair" else 0)
    if rows.format == "text":
        return relation_lr
    left_index = {text: index for index, text in enumerate(left)}
    for role in reversed(right_roles):  # positives last: a positive of one row is never a negative
        relations = _row_relations(examples, role)
        for text, partner, relation in zip(examples.column(left_role), examples.column(role), relations, strict=True):
            if text in left_index and partner in right_index:
                relation_lr[left_index[text], right_index[partner]] = relation
    return relation_lr


def _row_relations(examples: Examples, role: str) -> list[int]:
    if examples.format != "labeled_pair":
        return [-1 if role.startswith("negative") else 1] * len(examples)
    if not _has_gold(examples) or examples.label is None:
        return [0] * len(examples)
    middle = (examples.label.min() + examples.label.max()) / 2
    return np.where(examples.label >= middle, 1, -1).tolist()


def _has_gold(examples: Examples) -> bool:
    """Whether labels express similarity (scores, or 1 and 0), unlike classes."""
    if examples.format != "labeled_pair" or examples.label is None:
        return False
    return not (examples.label_kind == "class" and examples.label_names) and len(np.unique(examples.label)) > 1


def _compute_ranks(values: np.ndarray) -> np.ndarray:
    return compute_ranks(np.unique(values, return_inverse=True)[1], np.ones(len(values)))


def _summarize_distribution(values: np.ndarray) -> list[float]:
    indices = np.linspace(0, len(values) - 1, min(len(values), MAX_SIMILARITIES)).round().astype(np.int64)
    return _to_json(np.sort(values)[indices])


def _to_json(values: Iterable[float]) -> list[Any]:
    """Values rounded to four digits; None for NaN and infinity, which JSON lacks."""
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]


def _most_similar(similarity_lr: np.ndarray, relation_lr: np.ndarray) -> list[int | None]:
    if not similarity_lr.size:
        return []
    best_l = np.where(relation_lr, similarity_lr, -np.inf).argmax(axis=1).tolist()
    return [best if marked_r.any() else None for best, marked_r in zip(best_l, relation_lr, strict=True)]

"""A few rows, and what a model makes of them: what a report shows of a training besides its metrics.

Tensor names: l = left texts (anchors, texts), r = right texts, which they are compared with, d = embedding dim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stfit.data.mapping.examples import Examples
from stfit.evaluation.similarity import compute_ranks
from stfit.similarity import similarity_matrix

if TYPE_CHECKING:
    import torch

    from stfit.encoder.encoder import Encoder
else:
    from stfit.lazy import lazy

    torch = lazy("torch")

MOST_ROWS = 128
MOST_CHARACTERS = 40_000
"""Of all texts of a sample together: some seconds of a large encoder on a CPU."""
LONGEST_SHOWN = 300
"""Characters of a text that are kept for the report."""
MOST_VALUES = 400
"""Similarities that stand for a distribution."""
QUERIES, NEAREST = 5, 3

ROLES_OF_SIDES = {
    "labeled_pair": ["sentence1", "sentence2"],
    "positive_pair": ["anchor", "positive"],
    "labeled_text": ["text", "text"],
    "text": ["text", "text"],
}
"""Format -> the role on the left, and that on the right: of a triplet, the positive and all negatives."""


@dataclass(frozen=True)
class Sample:
    """Rows of a dataset, as two lists of texts and what is known of them."""

    name: str
    """Of the evaluator, or of the training data."""
    left: list[tuple[str, str]]
    """Role and text."""
    right: list[tuple[str, str]]
    beside_l: np.ndarray
    """Which right text stands in one row with each left one."""
    relation_lr: np.ndarray
    """1 where two texts belong together, -1 where they do not, 0 where nobody says."""
    gold_l: np.ndarray | None
    """Score of each left text with the right text beside it, where rows have scores."""
    labels: list[str] | None
    """Class of each left text, of labelled texts."""
    prompt_of: Callable[[Encoder, str], str]
    """What a model puts before the texts of a role."""

    def described(self) -> dict[str, Any]:
        """What is the same before and after a training."""
        return {
            "name": self.name,
            "left": [_shortened(text) for _, text in self.left],
            "right": [_shortened(text) for _, text in self.right],
            "beside": self.beside_l.tolist(),
            "gold": None if self.gold_l is None else self.gold_l.tolist(),
            "labels": self.labels,
        }

    def seen_by(self, encoder: Encoder) -> dict[str, Any]:
        """What a model makes of the rows, as plain data.

        `positive` and `negative`: similarities; `score`: how right each left text is, higher is better; `positives` and
        `negatives`: the right text of each kind that is nearest to each left one; `nearest`: for the first left texts
        the nearest right ones, with their similarity and whether they belong together; `map`: two coordinates of each
        labelled text.
        """
        embed = {role: self.prompt_of(encoder, role) for role, _ in [*self.left, *self.right]}
        left_ld, right_rd = (_embed_side(encoder, side, embed) for side in (self.left, self.right))
        kind = encoder.config.similarity
        similarity_lr = similarity_matrix(kind, torch.from_numpy(left_ld), torch.from_numpy(right_rd)).numpy()
        positive, negative = self.relation_lr == 1, self.relation_lr == -1
        nearest_lr = np.argsort(-np.where(self.same_text(), -np.inf, similarity_lr), axis=1, kind="stable")[:QUERIES]
        return {
            "similarity": kind,
            "positive": _spread(similarity_lr[positive]),
            "negative": _spread(similarity_lr[negative]),
            "score": _rounded(self.score(similarity_lr)),
            "positives": _nearest_of(similarity_lr, positive),
            "negatives": _nearest_of(similarity_lr, negative),
            "nearest": [
                [[at, round(float(similarity_lr[row, at]), 4), int(self.relation_lr[row, at])] for at in found.tolist()]
                for row, found in enumerate(nearest_lr[:, :NEAREST])
            ],
            "map": None if self.labels is None else [_rounded(point) for point in _pca_2d(left_ld)],
        }

    def same_text(self) -> np.ndarray:
        """Where [l, r] both sides are one text, which is near to itself and says nothing."""
        left, right = (np.array([text for _, text in side]) for side in (self.left, self.right))
        same: np.ndarray = left[:, None] == right[None, :]
        return same

    def score(self, similarity_lr: np.ndarray) -> np.ndarray:
        """How right each left text [l] is: higher is better; NaN where nothing is known of it.

        With gold scores: 1 less the distance of its rank by similarity from its rank by gold, in [0, 1]. Else the
        similarity of the nearest text that belongs to it, less that of the nearest one that does not.
        """
        if self.gold_l is not None:
            apart: np.ndarray = np.abs(
                _ranks(similarity_lr[np.arange(len(self.left)), self.beside_l]) - _ranks(self.gold_l)
            )
            return 1 - apart / max(len(apart) - 1, 1)
        best = [np.where(self.relation_lr == sign, similarity_lr, -np.inf).max(axis=1) for sign in (1, -1)]
        known = np.isfinite(best[0]) & np.isfinite(best[1])
        return np.where(known, best[0] - np.where(known, best[1], 0), np.nan)


def build_sample(name: str, examples: Examples, prompt_of: Callable[[Encoder, str], str]) -> Sample:
    """A few rows of `examples`, always the same ones; each left and each right text stands there once."""
    left_role, *right_roles = ROLES_OF_SIDES.get(examples.format) or ["anchor", "positive", *examples.negatives]
    rows = examples.take(_choose_rows(examples, examples.column(left_role)))
    left = rows.column(left_role)
    right: dict[str, str] = {}
    """Text -> its role; of several, the first."""
    for role in right_roles:
        for text in rows.column(role):
            if text:  # rows may have fewer negatives than others
                right.setdefault(text, role)
    at = {text: position for position, text in enumerate(right)}
    return Sample(
        name,
        [(left_role, text) for text in left],
        [(role, text) for text, role in right.items()],
        np.array([at[text] for text in rows.column(right_roles[0])]),
        _relations(examples, rows, left_role, right_roles, at),
        rows.label.astype(np.float64) if rows.label is not None and _has_gold(rows) else None,
        _class_names(rows) if rows.format == "labeled_text" else None,
        prompt_of,
    )


def _choose_rows(examples: Examples, left: list[str]) -> np.ndarray:
    """Positions of at most MOST_ROWS examples with different left texts, in their order.

    Drawn by a generator of its own: what training draws stays the same.
    """
    firsts = np.array(list({text: position for position, text in reversed(list(enumerate(left)))}.values()))
    drawn = np.random.default_rng(0).permutation(np.sort(firsts))[:MOST_ROWS]
    size = [sum(len(column[i] or "") for column in examples.texts.values()) for i in drawn.tolist()]
    fitting = max(2, int((np.cumsum(size) <= MOST_CHARACTERS).sum()))
    return np.sort(drawn[:fitting])


def _relations(
    examples: Examples, rows: Examples, left_role: str, right_roles: list[str], at: dict[str, int]
) -> np.ndarray:
    """Which texts [l, r] belong together, by all `examples`; see Sample. `at`: right text -> its position."""
    left = rows.column(left_role)
    if rows.format == "labeled_text":
        assert rows.label is not None
        same_lr = rows.label[:, None] == rows.label[None, :]
        return np.where(np.eye(len(left), dtype=bool), 0, np.where(same_lr, 1, -1))
    relation_lr = np.full((len(left), len(at)), -1 if rows.format == "positive_pair" else 0)
    if rows.format == "text":
        return relation_lr
    place = {text: position for position, text in enumerate(left)}
    for role in reversed(right_roles):  # what is a positive somewhere is no negative
        sign_r = _signs(examples, role)
        for text, other, sign in zip(examples.column(left_role), examples.column(role), sign_r, strict=True):
            if text in place and other in at:
                relation_lr[place[text], at[other]] = sign
    return relation_lr


def _signs(examples: Examples, role: str) -> list[int]:
    """For each row, whether the text of a right role belongs to the left text."""
    if examples.format != "labeled_pair":
        return [-1 if role.startswith("negative") else 1] * len(examples)
    if not _has_gold(examples):
        return [0] * len(examples)
    assert examples.label is not None
    middle = (examples.label.min() + examples.label.max()) / 2
    signed: list[int] = np.where(examples.label >= middle, 1, -1).tolist()
    return signed


def _has_gold(examples: Examples) -> bool:
    """Whether rows have a label that says how similar their texts are: scores, or 1 and 0; of classes, nobody says."""
    if examples.format != "labeled_pair" or examples.label is None:
        return False
    return not (examples.label_kind == "class" and examples.label_names) and len(np.unique(examples.label)) > 1


def _class_names(rows: Examples) -> list[str]:
    """The class of each row, by name where it has one."""
    assert rows.label is not None
    names = rows.label_names
    return [names[label] if names and label < len(names) else str(label) for label in rows.label.tolist()]


def _embed_side(encoder: Encoder, side: list[tuple[str, str]], prompts: dict[str, str]) -> np.ndarray:
    """Embeddings [texts, d]; the texts of each role have the prompt of that role."""
    found = np.empty((len(side), encoder.output_dim), dtype=np.float32)
    for role in dict.fromkeys(role for role, _ in side):
        at = [position for position, (other, _) in enumerate(side) if other == role]
        found[at] = encoder.encode([side[position][1] for position in at], prompt=prompts[role])
    return found


def _ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value, from the lowest; equal values share their mean rank."""
    return compute_ranks(np.unique(values, return_inverse=True)[1], np.ones(len(values)))


def _spread(values: np.ndarray) -> list[float]:
    """At most MOST_VALUES that are spread as all of them are."""
    at = np.linspace(0, len(values) - 1, min(len(values), MOST_VALUES)).round().astype(np.int64)
    return _rounded(np.sort(values)[at])


def _rounded(values: Iterable[float]) -> list[Any]:
    """Four digits; None for what is not a number."""
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]


def _nearest_of(similarity_lr: np.ndarray, kind_lr: np.ndarray) -> list[int | None]:
    """For each left text the nearest right text of a kind; None where it has none."""
    if not similarity_lr.size:
        return []
    best_l = np.where(kind_lr, similarity_lr, -np.inf).argmax(axis=1).tolist()
    return [best if row.any() else None for best, row in zip(best_l, kind_lr, strict=True)]


def _pca_2d(vectors_ld: np.ndarray) -> np.ndarray:
    """The two principal components [l, 2] of vectors of length 1; each points to where its largest value is."""
    length_l = np.linalg.norm(vectors_ld, axis=1, keepdims=True)
    centred_ld = vectors_ld / np.where(length_l == 0, 1, length_l)
    centred_ld = centred_ld - centred_ld.mean(axis=0)
    _, _, axes = np.linalg.svd(centred_ld, full_matrices=False)
    point_l2 = centred_ld @ axes[:2].T
    largest = np.take_along_axis(point_l2, np.abs(point_l2).argmax(axis=0)[None, :], axis=0)
    turned: np.ndarray = point_l2 * np.where(largest < 0, -1, 1)
    return turned


def _shortened(text: str) -> str:
    """A text, cut where it is long."""
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"

"""Examples: texts by role, and what a loss or an evaluator learns from each of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np

from stfit.data.mapping.labels import LabelKind
from stfit.data.mapping.scores import pad_scores
from stfit.data.table import name_rows
from stfit.io.display import shorten

GENERATED_BY = "generated_by"
"""Column in which `stfit generate` says what wrote a row."""
HASHED_TEXTS = 1_000


@dataclass(frozen=True)
class Examples:
    """Texts by role, one per example; several negatives are the roles negative_1, negative_2, ..."""

    format: str
    texts: dict[str, list[str | None]]
    """None only for a negative of an example that has fewer negatives than others."""
    label: np.ndarray | None
    """int64 classes or float64 scores."""
    label_kind: LabelKind
    label_names: list[str] | None
    row: np.ndarray
    """Row of the split of each example, from 1."""
    dropped: dict[str, int]
    """Reason -> number of examples (of rows, for `empty list`) that were dropped."""
    without_negative: int = 0
    """Number of those that were dropped only because they have no negative."""
    generated_by: list[str] | None = None
    """What wrote each example, if `stfit generate` did: a column of the rows."""
    scores: np.ndarray | None = None
    """A teacher's scores of the positive and the negatives, [rows, candidates] float64, NaN for absent ones."""
    embedding: np.ndarray | None = None
    """What the embeddings of each example's texts should equal, [rows, dim] float32."""
    kept: dict[str, list[Any]] = field(default_factory=dict)
    """Other columns of the rows that evaluators ask for."""

    def __len__(self) -> int:
        return len(self.row)

    @property
    def num_classes(self) -> int | None:
        """Number of classes; None if labels are scores, or there are none."""
        if self.label is None or self.label_kind == "score":
            return None
        return max(int(self.label.max()) + 1, len(self.label_names or ()))

    @property
    def negatives(self) -> list[str]:
        return [role for role in self.texts if role.startswith("negative")]

    def column(self, role: str) -> list[str]:
        """The texts of a role; empty if an example has none."""
        return [text or "" for text in self.texts[role]]

    def all_texts(self) -> list[str]:
        return [text for column in self.texts.values() for text in column if text is not None]

    def take(self, index: np.ndarray) -> Examples:
        chosen = index.tolist()
        texts = {role: [column[i] for i in chosen] for role, column in self.texts.items()}
        label = None if self.label is None else self.label[index]
        generated_by = self.generated_by and [self.generated_by[i] for i in chosen]
        scores = None if self.scores is None else self.scores[index]
        embedding = None if self.embedding is None else self.embedding[index]
        return replace(
            self,
            texts=texts,
            label=label,
            row=self.row[index],
            generated_by=generated_by,
            scores=scores,
            embedding=embedding,
            kept={name: [column[i] for i in chosen] for name, column in self.kept.items()},
        )

    def describe(self, index: np.ndarray) -> str:
        texts = [
            " | ".join(repr(shorten(column[i] or "", 60)) for column in self.texts.values()) for i in index[:2].tolist()
        ]
        return f"{name_rows(self.row[index])} ({'; '.join(texts)}{'; ...' if len(index) > 2 else ''})"

    @cached_property
    def fingerprint(self) -> str:
        digest = sha256(json.dumps([self.format, self.label_kind]).encode())
        for role, texts in self.texts.items():
            digest.update(f"[{json.dumps(role)}, [".encode())  # as JSON, and never all of it in memory
            for start in range(0, len(texts), HASHED_TEXTS):
                digest.update((", " if start else "").encode())
                digest.update(json.dumps(texts[start : start + HASHED_TEXTS])[1:-1].encode())
            digest.update(b"]]")
        for numbers in (self.label, self.scores, self.embedding):
            if numbers is not None:
                digest.update(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()


def negative_roles(count: int) -> list[str]:
    return ["negative"] if count == 1 else [f"negative_{i}" for i in range(1, count + 1)]


def join(parts: Sequence[Examples]) -> Examples:
    """The examples of all parts in order, with None if a part has fewer negatives than another."""
    first, *others = parts
    if not others:
        return first
    roles = [role for role in first.texts if role not in first.negatives]
    negatives = negative_roles(max(len(part.negatives) for part in parts)) if first.negatives else []
    texts: dict[str, list[str | None]] = {role: [] for role in [*roles, *negatives]}
    for part in parts:
        columns = [part.texts[role] for role in [*roles, *part.negatives]]
        columns += [[None] * len(part)] * (len(texts) - len(columns))
        for column, more in zip(texts.values(), columns, strict=True):
            column += more
    kinds = ("score", "class", "binary", "none")
    return replace(
        first,
        texts=texts,
        label=None if first.label is None else np.concatenate([part.label for part in parts if part.label is not None]),
        label_kind=min((part.label_kind for part in parts), key=kinds.index),
        row=np.concatenate([part.row for part in parts]),
        scores=_join_scores(parts),
        embedding=_join_embeddings(parts),
        generated_by=first.generated_by and [writer for part in parts for writer in part.generated_by or []],
        dropped=count_dropped(parts),
        without_negative=sum(part.without_negative for part in parts),
    )


def _join_scores(parts: Sequence[Examples]) -> np.ndarray | None:
    given = [part.scores for part in parts if part.scores is not None]
    return pad_scores([row[~np.isnan(row)].tolist() for scores in given for row in scores]) if given else None


def _join_embeddings(parts: Sequence[Examples]) -> np.ndarray | None:
    given = [part.embedding for part in parts if part.embedding is not None]
    return np.concatenate([embedding for embedding in given if len(embedding)] or given) if given else None


def count_dropped(parts: Iterable[Examples]) -> dict[str, int]:
    return dict(sum((Counter(part.dropped) for part in parts), Counter()))

"""The scores of a cross-encoder for pairs of texts, each computed once for all runs that need it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stfit.data.cache.teacher import load_embeddings
from stfit.encoder.cross_encoder import CrossEncoder, load_cross_encoder
from stfit.losses.base import CrossEncoderTeacher

PAIRS = 512
"""Pairs per file of the cache: an interruption loses no more."""


@dataclass(frozen=True)
class CachedScores:
    """A cross-encoder that takes scores from the cache where they are known."""

    model: CrossEncoder

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """(query, document) pairs -> their scores, float64 [pairs]."""
        if not pairs:
            return np.empty(0)
        places: dict[str, int] = {}
        index = np.array([places.setdefault(json.dumps(pair), len(places)) for pair in pairs])
        doing = f"scoring {len(places):,} pairs with the cross-encoder"
        scores = load_embeddings(list(places), self._score, f"cross-encoder {self.model.fingerprint}", PAIRS, doing)
        return scores[index][:, 0].astype(np.float64)

    def _score(self, window: list[str]) -> np.ndarray:
        return self.model.score([tuple(json.loads(pair)) for pair in window])[:, None]


def open_cross_encoder(teacher: CrossEncoderTeacher, device: str) -> CachedScores:
    model = load_cross_encoder(
        teacher.cross_encoder,
        teacher.revision,
        templates=(teacher.query_template, teacher.document_template),
        max_seq_length=teacher.max_seq_length,
        device=device,
    )
    return CachedScores(model)

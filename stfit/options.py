"""Settings of `encode`, `mine` and `generate`. A value that can't be used is a RecipeError at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from stfit.errors import RecipeError

Precision = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
"""Of stored embeddings."""


@dataclass(frozen=True)
class EncodeOptions:
    """Which embeddings are written."""

    prompt_name: str | None = None
    """Prompt of the model to prepend to each text."""
    normalize: bool = False
    """Scale embeddings to unit length."""
    truncate_dim: int | None = None
    """Keep the first dimensions; None keeps all."""
    precision: Precision = "float32"
    """In which they are stored."""
    batch_tokens: int | None = None
    """Maximum number of tokens of a batch; None chooses it."""
    fast: bool = False
    """Compute in bfloat16, and report the similarity to float32."""

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise RecipeError(f"precision {self.precision}: must be one of {', '.join(get_args(Precision))}")
        for name, value in (("truncate_dim", self.truncate_dim), ("batch_tokens", self.batch_tokens)):
            if value is not None and value < 1:
                raise RecipeError(f"{name} {value}: must be at least 1")


@dataclass(frozen=True)
class MiningOptions:
    """Which texts become negatives. Similarities are cosines."""

    ranks: tuple[int, int] = (1, 100)
    """The first and the last of the nearest neighbors to choose from, counted from 1, known positives excluded."""
    margin: float = 0.0
    """To the least similar of all known positives of an anchor; with a reranker, to the one with the lowest score."""
    relative_margin: float = 0.05
    """The same, as a share of that positive's similarity (0.05: "95% of the positive", https://arxiv.org/abs/2407.15831)."""
    duplicate: float = 0.95
    """Texts at least this similar to the anchor or the positive are no negatives."""
    per_row: int = 1
    """Maximum number of negatives of a row."""
    reranker: str | None = None
    """Hub id or folder of a cross-encoder, whose scores the margins apply to then."""

    def __post_init__(self) -> None:
        first, last = self.ranks
        if not 1 <= first <= last:
            raise RecipeError(f"ranks {first}:{last}: the first must be at least 1, and at most the last")
        if not 1 <= self.per_row <= last - first + 1:
            raise RecipeError(f"per_row {self.per_row}: ranks {first}:{last} allow 1 to {last - first + 1}")


@dataclass(frozen=True)
class GenerationOptions:
    """Which generated pairs are kept."""

    seed: int = 42
    words: tuple[int, int] = (2, 128)
    """Words of an anchor, at least and at most; a positive has at least as many."""
    language: str | None = None
    """The only one, as a code (en, de, zh)."""
    round_trip: int | None = None
    """Ranks within which the retriever has to find the passage for the anchor."""
    retriever: str | None = None
    """Model of the round trip."""

    def __post_init__(self) -> None:
        fewest, most = self.words
        if not 1 <= fewest <= most:
            raise RecipeError(f"words {fewest}:{most}: the first must be at least 1, and at most the last")
        if (self.round_trip is None) != (self.retriever is None):
            raise RecipeError("--round-trip K and --retriever MODEL go together")
        if self.round_trip is not None and self.round_trip < 1:
            raise RecipeError(f"--round-trip {self.round_trip}: must be at least 1")

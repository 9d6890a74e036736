"""The first module of a model: a transformer or a table of vectors, with its tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stfit.encoder.tokenizer import Tokenizer

if TYPE_CHECKING:
    from stfit.encoder.kernels.packing import Layout


@dataclass(frozen=True)
class BackboneOptions:
    max_seq_length: int | None = None
    pooling: tuple[str, ...] | None = None
    dropout: float | None = None
    append_eos: bool | Literal["auto", "saved"] = "auto"
    """`saved`: only if the tokenizer was saved so, or sets `add_eos_token`."""
    precision: str = "float32"
    read_weights: bool = True
    """False: the names and shapes of a transformer's weights are checked, and their values are not read."""


@dataclass
class Backbone:
    st_name: str
    module: Any
    tokenizer: Tokenizer
    dim: int
    """Size of a token embedding, or of the embedding of a text if nothing is pooled."""
    choose_layout: Callable[[str], Layout]
    write: Callable[[Path], None]
    pooling: str | None = "mean"
    """Default mode; None if nothing is pooled."""
    num_layers: int = 0
    subfolder: str = ""

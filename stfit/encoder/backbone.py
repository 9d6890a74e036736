"""Where token embeddings come from: a transformer, or a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stfit.encoder.kernels.packing import Layout
from stfit.encoder.tokenizer import Tokenizer


@dataclass
class Backbone:
    """The first module of a model: its weights, its tokenizer, and how both are used and kept."""

    st_name: str
    """What sentence-transformers calls it."""
    module: Any
    """A module with weights."""
    tokenizer: Tokenizer
    dim: int
    """Size of what comes out for each token, or for each sequence where there is no pooling."""
    choose_layout: Callable[[str], Layout]
    """`attention` of a recipe -> how sequences go through the backbone."""
    write: Callable[[Path], None]
    """Writes the backbone into a folder."""
    pooling: str | None = "mean"
    """The mode where neither the recipe nor the base says one; None where nothing is pooled."""
    num_layers: int = 0
    """Layers of a transformer."""
    subfolder: str = ""
    """Where it lies in a model folder."""

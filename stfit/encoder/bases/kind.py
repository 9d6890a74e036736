"""A kind of backbone, as model folders name it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stfit.encoder.backbone import Backbone, BackboneOptions
from stfit.encoder.folder.model_config import ModelInfo


@dataclass(frozen=True)
class BaseKind:
    """How stfit reads one kind of first module of a sentence-transformers model."""

    st_name: str
    load: Callable[[Path, BackboneOptions], Backbone]
    inspect: Callable[[Path], ModelInfo]
    """Reads only its small files, without importing torch."""
    is_pooled: bool = True
    """Whether it gives token embeddings, rather than one embedding per text."""
    unsupported_keys: tuple[str, ...] = ()

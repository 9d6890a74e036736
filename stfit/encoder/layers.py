"""Layers between pooling and the final embedding: what a recipe writes, and how each is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from stfit.lazy import lazy
from stfit.spec import CHOICE, Spec

if TYPE_CHECKING:
    from torch import nn
else:
    nn = lazy("torch.nn")

ACTIVATIONS = {
    "tanh": "Tanh",
    "gelu": "GELU",
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "silu": "SiLU",
    "identity": "Identity",
}
"""Activation name -> class of torch.nn; sentence-transformers only takes the path of a module class."""


class Dense(Spec):
    """A linear map followed by an activation."""

    type: Literal["dense"] = "dense"
    out_features: int = Field(gt=0)
    """Size of the embedding that comes out."""
    bias: bool = True
    """Add a bias."""
    activation: Literal["tanh", "gelu", "relu", "sigmoid", "silu", "identity"] = "tanh"
    """Applied after the linear map."""

    def build(self, dim: int) -> nn.Module:
        """From `dim` to `out_features`."""
        activation: nn.Module = getattr(nn, ACTIVATIONS[self.activation])()
        return nn.Sequential(nn.Linear(dim, self.out_features, bias=self.bias), activation)

    def dim_after(self, dim: int) -> int:
        """Size of the embeddings that come out."""
        return self.out_features


class Normalize(Spec):
    """Scales every embedding to length 1."""

    type: Literal["normalize"] = "normalize"

    def build(self, dim: int) -> nn.Module:
        """Has no weights."""
        from stfit.encoder.modules import UnitLength

        return UnitLength()

    def dim_after(self, dim: int) -> int:
        """Size of the embeddings that come out."""
        return dim


class LayerNorm(Spec):
    """Layer normalisation of the embedding."""

    type: Literal["layer_norm"] = "layer_norm"

    def build(self, dim: int) -> nn.Module:
        """Scale and shift are learnt."""
        return nn.LayerNorm(dim)

    def dim_after(self, dim: int) -> int:
        """Size of the embeddings that come out."""
        return dim


class Dropout(Spec):
    """Zeroes a random share of the embedding while training."""

    type: Literal["dropout"] = "dropout"
    rate: float = Field(0.2, ge=0, lt=1)
    """Share that is zeroed."""

    def build(self, dim: int) -> nn.Module:
        """Has no weights."""
        return nn.Dropout(self.rate)

    def dim_after(self, dim: int) -> int:
        """Size of the embeddings that come out."""
        return dim


Layer = Annotated[Dense | Normalize | LayerNorm | Dropout, CHOICE]

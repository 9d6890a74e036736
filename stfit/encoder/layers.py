"""Layers between pooling and the final embedding: what a recipe and a model folder write, and how each is built.

The first of the other names is the class of sentence-transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from stfit.lazy import lazy
from stfit.spec import CHOICE, Spec

if TYPE_CHECKING:
    from torch import nn

    from stfit.encoder import modules
else:
    nn, modules = lazy("torch.nn"), lazy("stfit.encoder.modules")

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

    aliases: ClassVar[tuple[str, ...]] = ("Dense",)
    config_file: ClassVar[str] = "config.json"
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
        return modules.Projection(dim, self.out_features, self.bias, activation)

    def dim_after(self, dim: int) -> int:
        """Size of the embeddings that come out."""
        return self.out_features

    def to_peer(self, dim: int, module: nn.Module) -> dict[str, Any]:
        """Its config in a model folder."""
        activation = ACTIVATIONS[self.activation]
        file = "linear" if activation == "Identity" else "activation"
        return {
            "in_features": dim,
            "out_features": self.out_features,
            "bias": self.bias,
            "activation_function": f"torch.nn.modules.{file}.{activation}",
        }

    @classmethod
    def from_peer(cls, config: dict[str, Any]) -> Dense:
        """From its config in a model folder. Raises ValueError where it does not work on the embedding alone."""
        names = {config.get(key) or "sentence_embedding" for key in ("module_input_name", "module_output_name")}
        if names != {"sentence_embedding"} or config.get("use_residual"):
            raise ValueError(f"a dense layer on {', '.join(sorted(names))}, or with a residual, is not supported")
        path = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
        names_of_classes = {name: activation for activation, name in ACTIVATIONS.items()}
        activation = names_of_classes.get(path.rpartition(".")[2])
        if activation is None:
            raise ValueError(f"unknown activation {path}")
        return cls.model_validate(
            {"out_features": config["out_features"], "bias": config.get("bias", True), "activation": activation}
        )


class Normalize(Spec):
    """Scales every embedding to length 1."""

    aliases: ClassVar[tuple[str, ...]] = ("Normalize",)
    config_file: ClassVar[str] = "config.json"
    type: Literal["normalize"] = "normalize"

    def build(self, dim: int) -> nn.Module:
        """Has no weights."""
        return modules.UnitLength()

    def dim_after(self, dim: int) -> int:
        """Size of the embeddings that come out."""
        return dim

    def to_peer(self, dim: int, module: nn.Module) -> dict[str, Any]:
        """Nothing to say."""
        return {}

    @classmethod
    def from_peer(cls, config: dict[str, Any]) -> Normalize:
        """There is nothing to read; git does not even keep its empty folder."""
        return cls()


class LayerNorm(Spec):
    """Layer normalisation of the embedding."""

    aliases: ClassVar[tuple[str, ...]] = ("LayerNorm",)
    config_file: ClassVar[str] = "config.json"
    type: Literal["layer_norm"] = "layer_norm"

    def build(self, dim: int) -> nn.Module:
        """Scale and shift are learnt."""
        return modules.Norm(dim)

    def dim_after(self, dim: int) -> int:
        """Size of the embeddings that come out."""
        return dim

    def to_peer(self, dim: int, module: nn.Module) -> dict[str, Any]:
        """Its config in a model folder."""
        return {"dimension": dim}

    @classmethod
    def from_peer(cls, config: dict[str, Any]) -> LayerNorm:
        """From its config in a model folder."""
        return cls()


class Dropout(Spec):
    """Zeroes a random share of the embedding while training."""

    aliases: ClassVar[tuple[str, ...]] = ("Dropout",)
    config_file: ClassVar[str] = "config.json"
    type: Literal["dropout"] = "dropout"
    rate: float = Field(0.2, ge=0, lt=1)
    """Share that is zeroed."""

    def build(self, dim: int) -> nn.Module:
        """Has no weights."""
        return nn.Dropout(self.rate)

    def dim_after(self, dim: int) -> int:
        """Size of the embeddings that come out."""
        return dim

    def to_peer(self, dim: int, module: nn.Module) -> dict[str, Any]:
        """Its config in a model folder."""
        return {"dropout": self.rate}

    @classmethod
    def from_peer(cls, config: dict[str, Any]) -> Dropout:
        """From its config in a model folder."""
        return cls(rate=float(config.get("dropout", 0.2)))


Layer = Annotated[Dense | Normalize | LayerNorm | Dropout, CHOICE]

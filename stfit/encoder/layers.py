"""Layers between pooling and the final embedding: their recipe keys, their config in a model folder, their modules.

The first alias is the class name in sentence-transformers.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from stfit.lazy import lazy, nn
from stfit.spec import CHOICE, Spec

if TYPE_CHECKING:
    from stfit.encoder import modules
else:
    modules = lazy("stfit.encoder.modules")

ACTIVATIONS = {
    "tanh": "Tanh",
    "gelu": "GELU",
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "elu": "ELU",
    "selu": "SELU",
    "sigmoid": "Sigmoid",
    "silu": "SiLU",
    "softplus": "Softplus",
    "mish": "Mish",
    "identity": "Identity",
}
"""Activation name -> class of torch.nn; sentence-transformers only takes the path of a module class."""

Activation = Literal[
    "tanh", "gelu", "relu", "leaky_relu", "elu", "selu", "sigmoid", "silu", "softplus", "mish", "identity"
]


class LayerSpec(Spec):
    """What layers before and after pooling share; the defaults are those of a layer that keeps the size."""

    config_file: ClassVar[str] = "config.json"

    def dim_after(self, dim: int) -> int:
        return dim

    def to_st(self, dim: int, module: nn.Module) -> dict[str, Any]:
        return {}

    @classmethod
    def from_st(cls, config: dict[str, Any]) -> Self:
        """From its config in a model folder. Raises ValueError or KeyError for a config that stfit can't follow."""
        return cls()


class Dense(LayerSpec):
    """A linear layer followed by an activation."""

    aliases: ClassVar[tuple[str, ...]] = ("Dense",)
    type: Literal["dense"] = "dense"
    out_features: int = Field(gt=0)
    """Size of the output embedding."""
    bias: bool = True
    """Add a bias."""
    activation: Activation = "tanh"
    """Activation after the linear layer."""

    def build(self, dim: int) -> nn.Module:
        linear = nn.Linear(dim, self.out_features, bias=self.bias)
        return nn.Sequential(OrderedDict(linear=linear, activation=getattr(nn, ACTIVATIONS[self.activation])()))

    def dim_after(self, dim: int) -> int:
        return self.out_features

    def to_st(self, dim: int, module: nn.Module) -> dict[str, Any]:
        activation = ACTIVATIONS[self.activation]
        file = "linear" if activation == "Identity" else "activation"
        config = {"in_features": dim, "out_features": self.out_features, "bias": self.bias}
        return config | {"activation_function": f"torch.nn.modules.{file}.{activation}"}

    @classmethod
    def from_st(cls, config: dict[str, Any]) -> Self:
        if config.get("use_residual"):
            raise ValueError("a dense layer with a residual is not supported")
        path = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
        activation = next((key for key, name in ACTIVATIONS.items() if name == path.rpartition(".")[2]), None)
        if activation is None:
            raise ValueError(f"unknown activation {path}; known are {', '.join(ACTIVATIONS.values())}")
        return cls.model_validate(
            {"out_features": config["out_features"], "bias": config.get("bias", True), "activation": activation}
        )


class Normalize(LayerSpec):
    """Scales every embedding to length 1."""

    aliases: ClassVar[tuple[str, ...]] = ("Normalize",)
    type: Literal["normalize"] = "normalize"

    def build(self, dim: int) -> nn.Module:
        return modules.UnitLength()


class LayerNorm(LayerSpec):
    """Layer normalization of the embedding, with a learned scale and shift."""

    aliases: ClassVar[tuple[str, ...]] = ("LayerNorm",)
    type: Literal["layer_norm"] = "layer_norm"

    def build(self, dim: int) -> nn.Module:
        return nn.Sequential(OrderedDict(norm=nn.LayerNorm(dim)))

    def to_st(self, dim: int, module: nn.Module) -> dict[str, Any]:
        return {"dimension": dim}


class Dropout(LayerSpec):
    """Sets a random fraction of each embedding to zero during training."""

    aliases: ClassVar[tuple[str, ...]] = ("Dropout",)
    type: Literal["dropout"] = "dropout"
    rate: float = Field(0.2, ge=0, lt=1)
    """Fraction that is set to zero."""

    def build(self, dim: int) -> nn.Module:
        return nn.Dropout(self.rate)

    def to_st(self, dim: int, module: nn.Module) -> dict[str, Any]:
        return {"dropout": self.rate}

    @classmethod
    def from_st(cls, config: dict[str, Any]) -> Self:
        return cls(rate=float(config.get("dropout", 0.2)))


Layer = Annotated[Dense | Normalize | LayerNorm | Dropout, CHOICE]

"""Layers between token embeddings and pooling: their recipe keys, their config in a model folder, their modules.

The first alias is the class name in sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field

from stfit.encoder.bases.word_vectors import inverse_frequencies, read_word_weights, weights_of_vocabulary
from stfit.encoder.layers import LayerSpec
from stfit.errors import ModelError
from stfit.lazy import lazy, nn, torch
from stfit.paths import Location
from stfit.spec import CHOICE

if TYPE_CHECKING:
    from stfit.encoder import modules
    from stfit.encoder.backbone import Backbone
else:
    modules = lazy("stfit.encoder.modules")


def _is_odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError("must be odd, so that a kernel has a middle token")
    return size


@dataclass(frozen=True)
class LayerContext:
    backbone: Backbone
    dim: int
    texts: Callable[[], Iterable[str]] | None
    """The training texts, for weights that are counted; None if weights are loaded afterwards."""


class CNN(LayerSpec):
    """Convolutions of several widths over the token embeddings, side by side (Kim, 2014, https://arxiv.org/abs/1408.5882)."""

    aliases: ClassVar[tuple[str, ...]] = ("CNN",)
    config_file: ClassVar[str] = "cnn_config.json"
    type: Literal["cnn"] = "cnn"
    out_channels: int = Field(256, gt=0)
    """Number of output dimensions per width."""
    kernel_sizes: list[Annotated[int, Field(gt=0), AfterValidator(_is_odd)]] = Field([1, 3, 5], min_length=1)
    """Widths in tokens; must be odd."""

    def build(self, context: LayerContext) -> nn.Module:
        return modules.Convolutions(context.dim, self.out_channels, self.kernel_sizes)

    def dim_after(self, dim: int) -> int:
        return self.out_channels * len(self.kernel_sizes)

    def to_st(self, dim: int, module: nn.Module) -> dict[str, Any]:
        widths = {"kernel_sizes": self.kernel_sizes, "stride_sizes": [1] * len(self.kernel_sizes)}
        return {"in_word_embedding_dimension": dim, "out_channels": self.out_channels} | widths

    @classmethod
    def from_st(cls, config: dict[str, Any]) -> Self:
        if any(stride != 1 for stride in config.get("stride_sizes") or []):
            raise ValueError("strides other than 1 are not supported")
        return cls.model_validate({key: config[key] for key in ("out_channels", "kernel_sizes") if key in config})


class LSTM(LayerSpec):
    """A recurrent network over the token embeddings (Hochreiter and Schmidhuber, 1997)."""

    aliases: ClassVar[tuple[str, ...]] = ("LSTM",)
    config_file: ClassVar[str] = "lstm_config.json"
    type: Literal["lstm"] = "lstm"
    hidden_dim: int = Field(gt=0)
    """Size of the hidden state per direction."""
    num_layers: int = Field(1, gt=0)
    """Number of stacked recurrent layers."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout rate between stacked layers during training."""
    bidirectional: bool = True
    """Run in both directions and concatenate the results."""

    def build(self, context: LayerContext) -> nn.Module:
        return modules.Recurrence(context.dim, self.hidden_dim, self.num_layers, self.dropout, self.bidirectional)

    def dim_after(self, dim: int) -> int:
        return self.hidden_dim * (2 if self.bidirectional else 1)

    def to_st(self, dim: int, module: nn.Module) -> dict[str, Any]:
        return {"word_embedding_dimension": dim, **self.model_dump(exclude={"type"})}

    @classmethod
    def from_st(cls, config: dict[str, Any]) -> Self:
        read = {name: config[name] for name in cls.model_fields if name in config}
        return cls.model_validate(read | {"dropout": float(read.get("dropout", 0))})


class WordWeights(LayerSpec):
    """Multiplies the embedding of each word by a trainable weight."""

    aliases: ClassVar[tuple[str, ...]] = ("WordWeights",)
    type: Literal["word_weights"] = "word_weights"
    weights: Location | None = None
    """File with one word and its weight per line. Default: the inverse document frequency in the training texts,
    1 + ln((1 + texts) / (1 + texts with the word))."""
    unknown_word_weight: float = 1.0
    """Weight of a word that is not in `weights`."""

    @property
    def learns_from_texts(self) -> bool:
        return self.weights is None

    def build(self, context: LayerContext) -> nn.Module:
        tokenizer, known = context.backbone.tokenizer, {}
        vocabulary = tokenizer.vocabulary()
        if self.weights is not None:
            known = read_word_weights(Path(self.weights))
        elif context.texts is not None:
            known = inverse_frequencies(tokenizer, context.texts())
        weights = weights_of_vocabulary(vocabulary, known, self.unknown_word_weight)
        return modules.TokenWeights(vocabulary, torch.tensor(weights))

    def to_st(self, dim: int, module: nn.Module) -> dict[str, Any]:
        """sentence-transformers reads the weights from the config, and not from the file in which it saves them."""
        assert isinstance(module, modules.TokenWeights)
        word_weights = dict(zip(module.vocabulary, module.emb_layer.weight[:, 0].tolist(), strict=True))
        settings = {"word_weights": word_weights, "unknown_word_weight": self.unknown_word_weight}
        return {"vocab": module.vocabulary, **settings}

    @classmethod
    def from_st(cls, config: dict[str, Any]) -> Self:
        return cls(unknown_word_weight=float(config.get("unknown_word_weight", 1)))


class WeightedLayerPooling(LayerSpec):
    """Uses a learned weighted average of the transformer's layers instead of the last one; must come first."""

    aliases: ClassVar[tuple[str, ...]] = ("WeightedLayerPooling",)
    type: Literal["weighted_layer_pooling"] = "weighted_layer_pooling"
    layer_start: int = Field(4, ge=0)
    """First layer of the average; layer 0 is the embedding layer."""

    def build(self, context: LayerContext) -> nn.Module:
        num_layers = context.backbone.num_layers
        if self.layer_start > num_layers:
            message = f"weighted_layer_pooling starts at layer {self.layer_start}, but the base has only {num_layers}"
            raise ModelError(f"{message}: lower `layer_start`")
        mix = modules.LayerMix(self.layer_start, num_layers)
        mix.attach_hook(context.backbone.module)
        return mix

    def to_st(self, dim: int, module: nn.Module) -> dict[str, Any]:
        assert isinstance(module, modules.LayerMix)
        num_layers = len(module.layer_weights) - 1 + self.layer_start
        return {"word_embedding_dimension": dim, "layer_start": self.layer_start, "num_hidden_layers": num_layers}

    @classmethod
    def from_st(cls, config: dict[str, Any]) -> Self:
        return cls(layer_start=config.get("layer_start", 4))


TokenLayer = Annotated[CNN | LSTM | WordWeights | WeightedLayerPooling, CHOICE]

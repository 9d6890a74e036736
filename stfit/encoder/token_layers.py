"""Layers between token embeddings and pooling: what a recipe and a model folder write, and how each is built.

The first of the other names is the class of sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from stfit.encoder.bases.word_vectors import inverse_frequencies, read_weights_of_words, weigh
from stfit.errors import ModelError
from stfit.lazy import lazy
from stfit.paths import Location
from stfit.spec import CHOICE, Spec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from stfit.encoder import modules
    from stfit.encoder.backbone import Backbone
else:
    torch, nn, modules = lazy("torch"), lazy("torch.nn"), lazy("stfit.encoder.modules")


def _is_odd(size: int) -> int:
    """A width that has a middle."""
    if size % 2 == 0:
        raise ValueError("must be odd, so that every token keeps its place")
    return size


@dataclass(frozen=True)
class LayerContext:
    """What a token layer is built upon."""

    source: Backbone
    dim: int
    """Size of the token embeddings that come in."""
    texts: Callable[[], Iterable[str]] | None
    """The training texts, for what is learnt by counting; None where weights are read afterwards."""


class CNN(Spec):
    """Convolutions of several widths over the token embeddings, side by side (Kim, 2014, https://arxiv.org/abs/1408.5882)."""

    aliases: ClassVar[tuple[str, ...]] = ("CNN",)
    config_file: ClassVar[str] = "cnn_config.json"
    type: Literal["cnn"] = "cnn"
    out_channels: int = Field(256, gt=0)
    """Size of the token embedding that comes out of each width."""
    kernel_sizes: list[Annotated[int, Field(gt=0), AfterValidator(_is_odd)]] = Field([1, 3, 5], min_length=1)
    """Widths in tokens, odd ones."""

    def build(self, beneath: LayerContext) -> nn.Module:
        """From `dim` to `out_channels` for each width."""
        return modules.Convolutions(beneath.dim, self.out_channels, self.kernel_sizes)

    def dim_after(self, dim: int) -> int:
        """Size of the token embeddings that come out."""
        return self.out_channels * len(self.kernel_sizes)

    def to_peer(self, dim: int, module: nn.Module) -> dict[str, Any]:
        """Its config in a model folder."""
        widths = {"kernel_sizes": self.kernel_sizes, "stride_sizes": [1] * len(self.kernel_sizes)}
        return {"in_word_embedding_dimension": dim, "out_channels": self.out_channels} | widths

    @classmethod
    def from_peer(cls, config: dict[str, Any]) -> CNN:
        """From its config in a model folder. Raises ValueError where not every token keeps its place."""
        if any(stride != 1 for stride in config.get("stride_sizes") or []):
            raise ValueError("strides other than 1 are not supported")
        return cls.model_validate({key: config[key] for key in ("out_channels", "kernel_sizes") if key in config})


class LSTM(Spec):
    """A recurrent network over the token embeddings (Hochreiter and Schmidhuber, 1997)."""

    aliases: ClassVar[tuple[str, ...]] = ("LSTM",)
    config_file: ClassVar[str] = "lstm_config.json"
    type: Literal["lstm"] = "lstm"
    hidden_dim: int = Field(gt=0)
    """Size of the token embedding that comes out of each direction."""
    num_layers: int = Field(1, gt=0)
    """Recurrent layers on top of one another."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of what goes from one of several layers to the next that is zeroed while training."""
    bidirectional: bool = True
    """Read from both ends, and put both results side by side."""

    def build(self, beneath: LayerContext) -> nn.Module:
        """From `dim` to `hidden_dim`, twice that in both directions."""
        return modules.Recurrence(beneath.dim, self.hidden_dim, self.num_layers, self.dropout, self.bidirectional)

    def dim_after(self, dim: int) -> int:
        """Size of the token embeddings that come out."""
        return self.hidden_dim * (2 if self.bidirectional else 1)

    def to_peer(self, dim: int, module: nn.Module) -> dict[str, Any]:
        """Its config in a model folder."""
        return {"word_embedding_dimension": dim, **self.model_dump(exclude={"type"})}

    @classmethod
    def from_peer(cls, config: dict[str, Any]) -> LSTM:
        """From its config in a model folder."""
        read = {name: config[name] for name in cls.model_fields if name in config}
        return cls.model_validate(read | {"dropout": float(read.get("dropout", 0))})


class WordWeights(Spec):
    """Multiplies the embedding of each word by a weight of its own, which is then trained."""

    aliases: ClassVar[tuple[str, ...]] = ("WordWeights",)
    config_file: ClassVar[str] = "config.json"
    type: Literal["word_weights"] = "word_weights"
    weights: Location | None = None
    """File with a word and its weight on each line. Default: the inverse document frequency in the training texts,
    1 + ln((1 + texts) / (1 + texts with the word))."""
    unknown_word_weight: float = 1.0
    """Weight of a word that has none."""

    @property
    def learns_from_texts(self) -> bool:
        """Whether the weights are counted in the training texts."""
        return self.weights is None

    def build(self, beneath: LayerContext) -> nn.Module:
        """A weight for each entry of the vocabulary."""
        tokens, known = beneath.source.tokenizer, {}
        vocabulary = tokens.vocabulary()
        if self.weights is not None:
            known = read_weights_of_words(Path(self.weights))
        elif beneath.texts is not None:
            known = inverse_frequencies(vocabulary, tokens, beneath.texts())
        return modules.TokenWeights(vocabulary, torch.tensor(weigh(vocabulary, known, self.unknown_word_weight)))

    def dim_after(self, dim: int) -> int:
        """Size of the token embeddings that come out."""
        return dim

    def to_peer(self, dim: int, module: nn.Module) -> dict[str, Any]:
        """Its config in a model folder. sentence-transformers reads the weights here, and not where it saves them."""
        assert isinstance(module, modules.TokenWeights)
        weights = module.emb_layer.weight[:, 0].tolist()
        word_weights = dict(zip(module.vocabulary, weights, strict=True))
        return {
            "vocab": module.vocabulary,
            "word_weights": word_weights,
            "unknown_word_weight": self.unknown_word_weight,
        }

    @classmethod
    def from_peer(cls, config: dict[str, Any]) -> WordWeights:
        """From its config in a model folder; the weights are read as those of other layers."""
        return cls(unknown_word_weight=float(config.get("unknown_word_weight", 1)))


class WeightedLayerPooling(Spec):
    """Takes a learnt average of the transformer's layers for its last one; must come first."""

    aliases: ClassVar[tuple[str, ...]] = ("WeightedLayerPooling",)
    config_file: ClassVar[str] = "config.json"
    type: Literal["weighted_layer_pooling"] = "weighted_layer_pooling"
    layer_start: int = Field(4, ge=0)
    """First layer of the average; 0 is the word embeddings."""

    def build(self, beneath: LayerContext) -> nn.Module:
        """A weight for each layer. Raises ModelError where there are too few."""
        num_layers = beneath.source.num_layers
        if self.layer_start > num_layers:
            message = f"starts at layer {self.layer_start}, but the base has only {num_layers} layers of a transformer"
            raise ModelError(f"weighted_layer_pooling {message}")
        mix = modules.LayerMix(self.layer_start, num_layers)
        mix.listen(beneath.source.module)
        return mix

    def dim_after(self, dim: int) -> int:
        """Size of the token embeddings that come out."""
        return dim

    def to_peer(self, dim: int, module: nn.Module) -> dict[str, Any]:
        """Its config in a model folder."""
        assert isinstance(module, modules.LayerMix)
        num_layers = len(module.layer_weights) - 1 + self.layer_start
        return {"word_embedding_dimension": dim, "layer_start": self.layer_start, "num_hidden_layers": num_layers}

    @classmethod
    def from_peer(cls, config: dict[str, Any]) -> WeightedLayerPooling:
        """From its config in a model folder."""
        return cls(layer_start=config.get("layer_start", 4))


TokenLayer = Annotated[CNN | LSTM | WordWeights | WeightedLayerPooling, CHOICE]

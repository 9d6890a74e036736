"""What a recipe says about the model: where its weights come from and how tokens become one embedding."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stfit.encoder.bases.registry import Base
from stfit.encoder.layers import Layer
from stfit.encoder.pooling import PoolingName
from stfit.encoder.token_layers import TokenLayer
from stfit.paths import Location
from stfit.similarity import Similarity
from stfit.spec import Spec


class Lora(Spec):
    """Trains thin matrices beside the linear maps of a pretrained transformer, which stays as it is.

    A model folder has them merged into its weights, a checkpoint holds them alone. They want a higher
    `train.learning_rate` than whole weights do: 1e-4 to 1e-3. Needs `pip install 'stfit[lora]'` (Hu et al., 2021,
    https://arxiv.org/abs/2106.09685).
    """

    rank: int = Field(8, gt=0)
    """Width of the thin matrices."""
    alpha: int = Field(16, gt=0)
    """What they add is multiplied by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of their inputs that is zeroed while training."""
    target: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of linear maps that get one, or their ends: `[query, value]`. Default: all in the transformer's layers."""


class Model(Spec):
    """The encoder: a pretrained (or new) transformer, a pooling, and the layers after it."""

    base: Location | Base
    """Hub id, local folder (plain Hugging Face checkpoint or sentence-transformers model), or what starts from nothing:
    `{type: scratch, ...}`."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model; forgotten where an override, or a file that extends this one, names another
    `base`."""
    max_seq_length: int | None = Field(None, gt=2)
    """Longest text in tokens, special tokens included; the rest is cut. Default: the base's own limit."""
    pooling: PoolingName | Annotated[list[PoolingName], Field(min_length=1)] | None = None
    """How token embeddings become one: mean, cls, max, mean_sqrt_len, weighted_mean, last_token, or a list of them
    (concatenated). Default: the base's own; last_token for a plain causal decoder, mean for any other plain encoder."""
    token_layers: list[TokenLayer] | None = None
    """Layers between token embeddings and pooling: cnn, lstm, word_weights, weighted_layer_pooling. Default: the base's
    own; `[]` drops them."""
    layers: list[Layer] | None = None
    """Layers after pooling: dense, normalize, layer_norm, dropout. Default: the base's own; `[]` drops them."""
    prompts: dict[str, str] = {}
    """Name -> text put before a text: `{query: "query: ", document: "passage: "}`. Saved with the model."""
    default_prompt: str | None = None
    """Name of the prompt that `encode` uses when none is asked for."""
    similarity: Similarity | None = None
    """What the embeddings are made for: cosine, dot, euclidean or manhattan. Default: the base's own, else cosine."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Dropout inside the transformer while training. Default: as the base's config says; 0.0 switches it off."""
    lora: Lora | None = None
    """Low-rank adapters, in place of training whole weights; `{}` = with their defaults."""
    truncate_dim: int | None = Field(None, gt=0)
    """Keep only the first N numbers of each embedding when encoding. Default: the base's own, else all."""
    append_eos: bool | Literal["auto"] = "auto"
    """End every text with the end-of-sequence token; auto = yes for decoders with last_token pooling."""
    attention: Literal["auto", "fused", "packed", "padded"] = "auto"
    """How a batch is laid out: packed spends nothing on padding; fused is packed with each layer as one function, for
    models built like BERT; padded works everywhere; auto = the first of these that a probe shows to give the padded
    forward's embeddings."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Data type the weights are kept and trained in."""

    @property
    def modes(self) -> tuple[str, ...] | None:
        """The modes of pooling, also where it is one."""
        if self.pooling is None:
            return None
        return (self.pooling,) if isinstance(self.pooling, str) else tuple(self.pooling)

    @model_validator(mode="after")
    def revision_is_of_the_hub(self) -> Self:
        """A folder of this machine, and a base from nothing, have no revisions to choose from."""
        if self.revision is not None and (not isinstance(self.base, str) or Path(self.base).is_absolute()):
            raise ValueError("`revision` names a version on the Hub, and `base` is not there")
        return self

    @model_validator(mode="after")
    def keys_have_an_effect(self) -> Self:
        """A table has no attention, and one that gives the embedding itself nothing to pool."""
        if not isinstance(self.base, str) and (found := unsupported_keys(self, self.base.st_name)):
            raise ValueError("; ".join(f"`{key}` {message}" for key, message in found.items()))
        return self

    @model_validator(mode="after")
    def adapters_adapt_something(self) -> Self:
        """Beside random weights that stay as they are, thin matrices can't learn a language."""
        if self.lora is not None and not isinstance(self.base, str):
            raise ValueError("`lora` adapts a pretrained base, and this one starts from nothing")
        return self

    @model_validator(mode="after")
    def averages_the_layers_first(self) -> Self:
        """Only what comes next to the transformer sees its layers."""
        if any(layer.type == "weighted_layer_pooling" for layer in (self.token_layers or [])[1:]):
            raise ValueError("weighted_layer_pooling must be the first of token_layers")
        return self

    @model_validator(mode="after")
    def default_prompt_exists(self) -> Self:
        """A default prompt that isn't among the prompts can't be applied (the base may bring prompts of its own)."""
        if self.default_prompt is not None and self.prompts and self.default_prompt not in self.prompts:
            raise ValueError(f"default_prompt `{self.default_prompt}` is not one of prompts: {', '.join(self.prompts)}")
        return self


UNSUPPORTED_KEYS = {
    "StaticEmbedding": ("pooling", "token_layers", "append_eos", "attention", "dropout", "lora"),
    "BoW": ("pooling", "token_layers", "append_eos", "attention", "dropout", "lora", "max_seq_length"),
    "WordEmbeddings": ("append_eos", "attention", "dropout", "lora"),
}
"""What comes first in a model -> keys of `model` that mean nothing there."""


def unsupported_keys(model: Model, source: str) -> dict[str, str]:
    """Keys that are given, but mean nothing for this kind of base -> why."""
    given = [key for key in UNSUPPORTED_KEYS.get(source, ()) if getattr(model, key) not in (None, [])]
    found = {
        key: f"has no effect on a {source}" for key in given if getattr(model, key) != Model.model_fields[key].default
    }
    if source == "WordEmbeddings" and "cls" in (model.modes or ()):
        found["pooling"] = "can't be cls: no first token stands for the text, and sentence-transformers fails on it"
    if source == "Transformer" and any(layer.type == "lstm" for layer in model.token_layers or []):
        found["token_layers"] = "can't hold an lstm: sentence-transformers fails on one after a transformer"
    return found

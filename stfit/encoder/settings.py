"""What a recipe says about the model: where its weights come from and how tokens become one embedding."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from stfit.encoder.layers import Layer
from stfit.installed import installed
from stfit.location import Location
from stfit.spec import Spec

PEER_POOLINGS = {"lasttoken": "last_token", "weightedmean": "weighted_mean", "mean_sqrt_len_tokens": "mean_sqrt_len"}
"""sentence-transformers' spellings -> ours."""

if TYPE_CHECKING:
    PoolingMode = str
else:
    PoolingMode = Literal[("mean", "cls", "max", "mean_sqrt_len", "weighted_mean", "last_token", *installed("pooling"))]
Pooling = Annotated[
    PoolingMode,
    BeforeValidator(lambda name: PEER_POOLINGS.get(name, name) if isinstance(name, str) else name),
]
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]


class Scratch(Spec):
    """A small BERT with random weights and a WordPiece vocabulary learnt from the training texts: needs no network."""

    type: Literal["scratch"] = "scratch"
    hidden_size: int = Field(128, gt=0)
    """Width of the token embeddings; a multiple of `num_heads`."""
    num_layers: int = Field(2, gt=0)
    """Transformer layers."""
    num_heads: int = Field(4, gt=0)
    """Attention heads of each layer."""
    vocab_size: int = Field(8000, ge=100)
    """Most entries of the WordPiece vocabulary; a small corpus fills fewer."""

    @model_validator(mode="after")
    def heads_divide_hidden_size(self) -> Self:
        """Each head takes an equal slice of the hidden size."""
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        return self


class Model(Spec):
    """The encoder: a pretrained (or new) transformer, a pooling, and the layers after it."""

    base: Location | Scratch
    """Hub id, local folder (plain Hugging Face checkpoint or sentence-transformers model) or `{type: scratch, ...}`."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model."""
    max_seq_length: int | None = Field(None, gt=2)
    """Longest text in tokens, special tokens included; the rest is cut. Default: the base's own limit."""
    pooling: Pooling | Annotated[list[Pooling], Field(min_length=1)] | None = None
    """How token embeddings become one: mean, cls, max, mean_sqrt_len, weighted_mean, last_token, or a list of them
    (concatenated). Default: the base's own; last_token for a plain causal decoder, mean for any other plain encoder."""
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

    @model_validator(mode="after")
    def revision_is_of_the_hub(self) -> Self:
        """A folder of this machine, and a base from nothing, have no revisions to choose from."""
        if self.revision is not None and (isinstance(self.base, Scratch) or Path(self.base).is_absolute()):
            raise ValueError("`revision` names a version on the Hub, and `base` is not there")
        return self

    @model_validator(mode="after")
    def default_prompt_exists(self) -> Self:
        """A default prompt that isn't among the prompts can't be applied (the base may bring prompts of its own)."""
        if self.default_prompt is not None and self.prompts and self.default_prompt not in self.prompts:
            raise ValueError(f"default_prompt `{self.default_prompt}` is not one of prompts: {', '.join(self.prompts)}")
        return self

"""The `model` section of a recipe."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stfit.encoder.backbone import BackboneOptions
from stfit.encoder.bases.registry import KINDS, Base
from stfit.encoder.layers import Layer
from stfit.encoder.lora import Lora
from stfit.encoder.pooling import PoolingName
from stfit.encoder.token_layers import TokenLayer
from stfit.paths import Location
from stfit.similarity import Similarity
from stfit.spec import Spec


class Model(Spec):
    """The encoder: a pretrained or new backbone, pooling, and the layers around it."""

    base: Location | Base
    """Hub id or local folder of a Hugging Face checkpoint or a sentence-transformers model, or `{type: ...}` for a base
    without pretrained weights."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model. Dropped if an override, or a file that extends this one, sets another
    `base`."""
    max_seq_length: int | None = Field(None, gt=2)
    """Maximum text length in tokens, including special tokens; longer texts are truncated. Default: the base's own."""
    pooling: PoolingName | Annotated[list[PoolingName], Field(min_length=1)] | None = None
    """How token embeddings are combined: mean, cls, max, mean_sqrt_len, weighted_mean, last_token, or a list of them,
    which are concatenated. Default: the base's own; for a plain checkpoint, last_token if it is a causal decoder,
    else mean."""
    token_layers: list[TokenLayer] | None = None
    """Layers between token embeddings and pooling: cnn, lstm, word_weights, weighted_layer_pooling. Default: the base's
    own; `[]` removes them."""
    layers: list[Layer] | None = None
    """Layers after pooling: dense, normalize, layer_norm, dropout. Default: the base's own; `[]` removes them."""
    prompts: dict[str, str] = {}
    """Name -> prefix of the texts: `{query: "query: ", document: "passage: "}`. Saved with the model."""
    default_prompt: str | None = None
    """Name of the prompt that `encode` uses if none is given."""
    similarity: Similarity | None = None
    """Similarity function of the embeddings: cosine, dot, euclidean or manhattan. Default: the base's own, else
    cosine."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Dropout rate in the transformer during training; 0.0 disables it. Default: that of the base's config."""
    lora: Lora | None = None
    """Train low-rank adapters instead of all weights; `{}` uses the defaults."""
    truncate_dim: int | None = Field(None, gt=0)
    """Keep only the first N dimensions of each embedding when encoding. Default: the base's own, else all."""
    append_eos: bool | Literal["auto"] = "auto"
    """End every text with the end-of-sequence token; auto = yes for plain decoders with last_token pooling."""
    attention: Literal["auto", "fused", "packed", "padded"] = "auto"
    """Layout of a batch: packed uses no padding; fused is packed with each layer computed by one function, for models
    built like BERT; padded works with every model; auto = the fastest of these whose embeddings match those of padded
    in a probe."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Data type of the weights."""

    @property
    def modes(self) -> tuple[str, ...] | None:
        if self.pooling is None:
            return None
        return (self.pooling,) if isinstance(self.pooling, str) else tuple(self.pooling)

    @property
    def backbone_options(self) -> BackboneOptions:
        return BackboneOptions(self.max_seq_length, self.modes, self.dropout, self.append_eos, self.precision)

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        if self.revision is not None and (not isinstance(self.base, str) or Path(self.base).is_absolute()):
            raise ValueError("`revision` selects a version on the Hub, but `base` is not on the Hub: remove it")
        if not isinstance(self.base, str) and (unsupported := unsupported_keys(self, self.base.st_name)):
            raise ValueError("; ".join(f"`{key}` {reason}" for key, reason in unsupported.items()))
        if self.lora is not None and not isinstance(self.base, str):
            raise ValueError("`lora` adapts pretrained weights, but this base has none: remove it")
        if any(layer.type == "weighted_layer_pooling" for layer in (self.token_layers or [])[1:]):
            raise ValueError("weighted_layer_pooling must be the first of token_layers")
        return self


def unsupported_keys(model: Model, st_name: str) -> dict[str, str]:
    """Keys of `model` that are set, but have no effect on this kind of base -> why."""
    reasons = {
        key: f"has no effect on a {st_name}"
        for key in KINDS[st_name].unsupported_keys
        if getattr(model, key) not in (None, [], Model.model_fields[key].default)
    }
    if st_name == "WordEmbeddings" and "cls" in (model.modes or ()):
        reasons["pooling"] = "can't be cls: word embeddings have no such token, and sentence-transformers fails on it"
    if st_name == "Transformer" and any(layer.type == "lstm" for layer in model.token_layers or []):
        reasons["token_layers"] = "can't hold an lstm: sentence-transformers fails on one after a transformer"
    return reasons

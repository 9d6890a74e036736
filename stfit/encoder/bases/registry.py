"""Every kind of base: what a recipe may write under `model.base`, and what a model folder may start with."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from stfit.encoder.backbone import Backbone, BackboneOptions
from stfit.encoder.bases import bag_of_words, static, transformer, words
from stfit.encoder.bases.bag_of_words import BagOfWords
from stfit.encoder.bases.bert_scratch import Scratch
from stfit.encoder.bases.static import Static
from stfit.encoder.bases.words import WordEmbeddings
from stfit.encoder.folder.model_config import ModelInfo

Base = Annotated[Scratch | Static | WordEmbeddings | BagOfWords, Field(discriminator="type")]


class BaseKind(NamedTuple):
    load: Callable[[Path, BackboneOptions], Backbone]
    inspect: Callable[[Path], ModelInfo]
    """Reads only the small files, without importing torch."""
    unsupported_keys: tuple[str, ...] = ()
    """Keys of `model` without effect; with `pooling` among them, the kind gives one embedding per text."""


TABLE = ("append_eos", "attention", "dropout", "lora")
BAG = ("pooling", "token_layers", *TABLE)
KINDS = {
    transformer.ST_NAME: BaseKind(transformer.load_transformer, transformer.inspect_transformer),
    words.ST_NAME: BaseKind(words.load, words.inspect, TABLE),
    static.ST_NAME: BaseKind(static.load, static.inspect, BAG),
    bag_of_words.ST_NAME: BaseKind(bag_of_words.load, bag_of_words.inspect, (*BAG, "max_seq_length")),
}

"""BoW: one dimension per word, without trainable weights."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from stfit.encoder.backbone import Backbone, BackboneOptions
from stfit.encoder.bases.table import forward_bags, single_layout
from stfit.encoder.bases.word_vectors import (
    frequent_words,
    inverse_frequencies,
    read_word_weights,
    weights_of_vocabulary,
)
from stfit.encoder.folder.files import read_json
from stfit.encoder.folder.model_config import ModelInfo
from stfit.encoder.tokenizer import WhitespaceTokenizer
from stfit.errors import ModelError
from stfit.io.json_files import write_json
from stfit.lazy import lazy, torch
from stfit.paths import Location
from stfit.spec import Spec

if TYPE_CHECKING:
    from stfit.encoder import modules
else:
    modules = lazy("stfit.encoder.modules")

ST_NAME = "BoW"


class BagOfWords(Spec):
    """One dimension per frequent word of the training texts: its count times its weight.

    It has no weights to train, so a dense layer must follow.
    """

    st_name: ClassVar[str] = ST_NAME
    learns_from_texts: ClassVar[bool] = True
    type: Literal["bag_of_words"] = "bag_of_words"
    vocab_size: int = Field(10_000, gt=0)
    """Maximum number of words, which is the number of dimensions."""
    weights: Location | None = None
    """File with one word and its weight per line. Default: the inverse document frequency in the training texts,
    1 + ln((1 + texts) / (1 + texts with the word))."""
    unknown_word_weight: float = 1.0
    """Weight of a word that is not in `weights`."""
    cumulative_term_frequency: bool = True
    """Count every occurrence of a word, rather than each word once per text."""

    def build(self, options: BackboneOptions, texts: Iterable[str]) -> Backbone:
        all_texts = list(texts)
        words = frequent_words(all_texts, self.vocab_size)
        if self.weights is None:
            known = inverse_frequencies(WhitespaceTokenizer(words), all_texts)
        else:
            known = read_word_weights(Path(self.weights))
        weights = weights_of_vocabulary(words, known, self.unknown_word_weight)
        return _build(words, weights, self.cumulative_term_frequency)

    def inspect(self) -> ModelInfo:
        return ModelInfo(ST_NAME, is_random=True, hidden_size=self.vocab_size, num_layers=0, parameters=0)


def _build(words: list[str], weights: list[float], is_cumulative: bool) -> Backbone:
    counts = modules.WordCounts(torch.tensor(weights), is_cumulative)
    tokenizer = WhitespaceTokenizer(words)
    return Backbone(
        st_name=ST_NAME,
        module=counts,
        tokenizer=tokenizer,
        dim=len(words),
        choose_layout=single_layout(forward_bags),
        write=partial(_write, counts, words),
        pooling=None,
        subfolder="0_BoW",
    )


def _write(counts: modules.WordCounts, words: list[str], folder: Path) -> None:
    config = {
        "vocab": words,
        "word_weights": dict(zip(words, counts.weight.tolist(), strict=True)),
        "unknown_word_weight": 1.0,
        "cumulative_term_frequency": counts.cumulative,
    }
    write_json(folder / "config.json", config)


def load(folder: Path, options: BackboneOptions) -> Backbone:
    config = read_json(folder / "config.json")
    if not isinstance(config.get("vocab"), list):
        raise ModelError(f"{folder / 'config.json'}: `vocab` is missing or not a list")
    words = list(dict.fromkeys(config["vocab"]))
    known, unknown = config.get("word_weights") or {}, float(config.get("unknown_word_weight", 1))
    weights = weights_of_vocabulary(words, known, unknown)
    return _build(words, weights, bool(config.get("cumulative_term_frequency", True)))


def inspect(folder: Path) -> ModelInfo:
    words = read_json(folder / "config.json").get("vocab") or []
    load_tokenizer = partial(WhitespaceTokenizer, words)
    return ModelInfo(ST_NAME, load_tokenizer=load_tokenizer, hidden_size=len(set(words)), num_layers=0, parameters=0)

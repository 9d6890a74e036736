"""What the bases without a transformer share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from stfit.encoder.bases.word_vectors import read_vectors
from stfit.encoder.folder.files import count_parameters, read_shapes
from stfit.encoder.folder.model_config import ModelInfo
from stfit.encoder.tokenizer import Tokenizer
from stfit.lazy import Tensor, lazy, nn, torch
from stfit.paths import Location
from stfit.spec import Spec

if TYPE_CHECKING:
    from stfit.encoder.kernels import packing
    from stfit.encoder.modules import WordCounts
else:
    packing = lazy("stfit.encoder.kernels.packing")

DEFAULT_VOCAB_SIZE = 30_000


class VectorTable(Spec):
    st_name: ClassVar[str]
    default_dim: ClassVar[int]
    type: str
    vectors: Location | None = None
    """Text file of word vectors in the format of GloVe, word2vec and fastText (.txt or .vec, also .gz). Default: random
    vectors for a vocabulary learned from the training texts."""
    embedding_dim: int | None = Field(None, gt=0)
    """Size of the vectors. Default: that of `vectors`, else 256 for static and 300 for word_embeddings."""
    vocab_size: int | None = Field(None, gt=0)
    """Maximum vocabulary size. Default: all words of `vectors`, even those that are in no training text, else 30000. A
    smaller number keeps the first words of the file, which are the most frequent ones in files of this kind."""

    @model_validator(mode="after")
    def _vectors_decide_the_size(self) -> Self:
        if self.vectors is not None and self.embedding_dim is not None:
            raise ValueError("`embedding_dim` is determined by the file of `vectors`: remove it")
        return self

    @property
    def learns_from_texts(self) -> bool:
        return self.vectors is None

    @property
    def dim(self) -> int:
        if self.vectors is None:
            return self.embedding_dim or self.default_dim
        return int(read_vectors(Path(self.vectors), max_words=1)[1].shape[1])

    def inspect(self) -> ModelInfo:
        dim = self.dim  # opens the file of `vectors`
        parameters = dim * (self.vocab_size or DEFAULT_VOCAB_SIZE)
        return ModelInfo(self.st_name, is_random=True, hidden_size=dim, num_layers=0, parameters=parameters)


def inspect_table(
    st_name: str, folder: Path, load_tokenizer: Callable[[], Tokenizer], max_seq_length: int | None
) -> ModelInfo:
    dim = next((shape[1] for shape in read_shapes(folder).values() if len(shape) == 2), None)
    sizes: dict[str, Any] = {"hidden_size": dim, "num_layers": 0, "parameters": count_parameters(folder)}
    return ModelInfo(st_name, load_tokenizer=load_tokenizer, max_seq_length=max_seq_length, **sizes)


def single_layout(forward: packing.Forward) -> Callable[[str], packing.Layout]:
    """The `choose_layout` of a backbone without attention, for which all layouts are the same."""
    return lambda _: packing.Layout("auto", forward, "a table has no attention")


def forward_bags(bags: nn.EmbeddingBag | WordCounts, sequences: list[np.ndarray]) -> tuple[Tensor, np.ndarray]:
    ids = np.concatenate(sequences).astype(np.int64)
    lengths = np.array([len(sequence) for sequence in sequences])
    starts_r = torch.from_numpy(np.cumsum(lengths) - lengths).to(bags.weight.device)
    embedding_rd: Tensor = bags(torch.from_numpy(ids).to(bags.weight.device), starts_r)
    return embedding_rd, np.arange(len(sequences))

"""The memory that a training needs: the sum of its parts, each a range of bytes, counted or measured on a CPU.

The low end leaves out what may take the place of something freed; the high end has all parts in memory at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from math import prod
from typing import NamedTuple

import numpy as np

from stfit.data.batching.batches import TokenTable
from stfit.encoder.folder.model_config import ModelInfo
from stfit.errors import Problem
from stfit.evaluation.measure import Evaluators
from stfit.neighbors.exact import CHUNK, MAX_SCORES
from stfit.recipe.recipe import Recipe
from stfit.runtime.system import usable_memory
from stfit.workflows.check.findings import embedding_dim, layers_of

MIB = 2**20
FLOAT = 4

LIBRARIES = {"table": (290 * MIB, 410 * MIB), "transformer": (360 * MIB, 560 * MIB)}
"""Kind of base -> torch, datasets, scikit-learn, and for a transformer transformers and oneDNN's kernels (measured)."""
BYTES_PER_TEXT = (200, 430)
"""What Python keeps beside the characters of a distinct text: its place in two dictionaries, and an array of tokens
unless those are cached."""
KEPT_PER_TOKEN = {"fused": (15, 24), "packed": (17, 30), "padded": (13, 22), "adapted": (26, 36)}
"""Layout -> numbers of size `hidden` that a transformer layer takes per token; `adapted`: packed, with LoRA. 13 (fused)
and 17 (Korthikanti et al., 2022, https://arxiv.org/abs/2205.05198) are kept for the backward pass, by counting. The
rest is measured: gradients of a layer, and gaps between blocks, as no two batches have the same sizes."""
SLACK_OF_MINI_BATCHES = 1.6
"""The same gaps with gradient caching, which embeds many mini-batches of different sizes in a step."""
FUSED_TYPES = [
    *("bert", "camembert", "deberta-v2", "distilbert", "electra"),
    *("modernbert", "mpnet", "roberta", "xlm-roberta"),
]
"""Architectures whose layers are fused."""

Range = tuple[float, float]


@dataclass(frozen=True)
class Footprint:
    """What the memory of a training is computed from."""

    recipe: Recipe
    base: ModelInfo
    tables: list[TokenTable]
    max_seq_length: int | None
    tokens_at_once: int
    """Tokens of the largest batch, or of its largest mini-batch."""
    evaluators: Evaluators = field(default_factory=list)

    @property
    def layout(self) -> str:
        if self.recipe.model.lora is not None:
            return "adapted"
        if self.recipe.model.attention != "auto":
            return self.recipe.model.attention
        return "fused" if self.base.model_type in FUSED_TYPES else "packed"

    @property
    def parameters(self) -> int:
        """Weights of the base and of the dense layers after it."""
        dim, count = self.base.output_dim or 0, self.base.parameters or 0
        for layer in layers_of(self.recipe, self.base):
            count += dim * layer.dim_after(dim) if layer.type == "dense" else 0
            dim = layer.dim_after(dim)
        return count

    @property
    def least_share(self) -> float:
        """Share of the parameters that there are at least: few texts have fewer words than a new table has rows."""
        return 0.1 if self.base.is_random and not self.base.num_layers else 1.0

    @property
    def trained(self) -> int:
        """Weights with a gradient; of adapters, those beside all six matrices of each layer."""
        if self.recipe.model.lora is not None:
            return 18 * self.recipe.model.lora.rank * (self.base.hidden_size or 0) * (self.base.num_layers or 0)
        frozen = [prod(shape) for name, shape in self.base.shapes.items() if self._is_frozen(name)]
        return self.parameters - sum(frozen)

    def _is_frozen(self, name: str) -> bool:
        """`name` is that in the file, which may begin with a name of the whole, such as `bert.`."""
        names = (f"backbone.{name}", f"backbone.{name.partition('.')[2]}")
        return any(fnmatch(each, pattern) for each in names for pattern in self.recipe.train.freeze)

    @property
    def token_table(self) -> tuple[str, tuple[int, ...]]:
        """Name and shape of a transformer's table of token embeddings, its largest matrix."""
        matrices = {name: tuple(shape) for name, shape in self.base.shapes.items() if len(shape) == 2}
        return max(matrices.items(), key=lambda item: prod(item[1]), default=("", (0, 0)))

    @property
    def layer_parameters(self) -> int:
        """Weights of the transformer's layers: all but the table of token embeddings."""
        return self.parameters - prod(self.token_table[1]) if self.base.num_layers else 0

    @property
    def trained_rows(self) -> tuple[int, int]:
        """Rows of the table of token embeddings that are trained: how many have moments at most, and how many not."""
        name, (rows, _) = self.token_table
        if not rows or self.recipe.model.lora is not None or self._is_frozen(name):
            return 0, 0
        tokens = sum(int(table.lengths().sum()) for table in self.tables)
        seen = rows if _uses_gpu(self.recipe) else min(rows, tokens)
        return seen, rows - seen

    @property
    def is_cached(self) -> bool:
        """Whether batches are embedded in mini-batches."""
        train = self.recipe.train
        return train.mini_batch_tokens is not None or (train.mini_batch_size or train.batch_size) < train.batch_size

    @property
    def columns(self) -> int:
        return max(len(table.text_ids) for table in self.tables)


def _libraries(footprint: Footprint) -> Range:
    return LIBRARIES["transformer" if footprint.base.num_layers else "table"]


def _rows(footprint: Footprint) -> Range:
    """Texts as Python holds them, and their tokens: once, and while they are read and tokenized once more."""
    low = high = 0
    for table in footprint.tables:
        cells = sum(map(len, table.examples.texts.values()))
        texts = sum(map(sys.getsizeof, table.examples.all_texts())) + 16 * cells
        distinct, tokens = len(table.lengths()), int(clip_lengths(table.lengths(), footprint.max_seq_length).sum())
        low += texts + BYTES_PER_TEXT[0] * distinct + FLOAT * tokens
        high += texts + BYTES_PER_TEXT[1] * distinct + 3 * FLOAT * tokens
    return low, high


def _weights(footprint: Footprint) -> Range:
    """The weights, and a copy while they are loaded or saved."""
    size = FLOAT if footprint.recipe.model.precision == "float32" else FLOAT // 2
    return size * footprint.least_share * footprint.parameters, 2 * size * footprint.parameters


def _optimizer(footprint: Footprint) -> Range:
    """A gradient and two moments of each trained weight; of a table of tokens, of the rows of tokens in the data."""
    (seen, unseen), (_, dim) = footprint.trained_rows, footprint.token_table[1]
    low = footprint.least_share * (footprint.trained - dim * (seen + unseen))
    return 2 * FLOAT * low, 3 * FLOAT * (footprint.trained - dim * unseen)


def _activations(footprint: Footprint) -> Range:
    """What the layers keep for the backward pass: per token, and the attention of each pair of tokens of a text."""
    hidden, tokens = footprint.base.hidden_size or 0, footprint.tokens_at_once
    layers: float = footprint.base.num_layers or 0
    if footprint.trained < footprint.layer_parameters and footprint.recipe.model.lora is None:  # nothing below is kept
        layers *= footprint.trained / footprint.layer_parameters
    if footprint.is_cached:
        layers *= SLACK_OF_MINI_BATCHES
    pairs = tokens * _typical_length(footprint) * (footprint.base.num_heads or hidden // 64)
    low, high = (layers * FLOAT * (kept * hidden * tokens + 1.25 * pairs) for kept in KEPT_PER_TOKEN[footprint.layout])
    return low, high


def _loss(footprint: Footprint) -> Range:
    """Embeddings of a batch, and the similarities of its texts, with their gradients."""
    rows, columns = min(footprint.recipe.train.batch_size, max(map(len, footprint.tables))), footprint.columns
    dim = max(footprint.base.hidden_size or 0, embedding_dim(footprint.recipe, footprint.base) or 0)
    numbers = rows * columns * dim + rows * rows * max(1, columns - 1)
    if any(loss.tag() == "batch_all_triplet" for loss in footprint.recipe.losses_by_path.values()):
        numbers += rows**3
    return 2 * FLOAT * numbers, 8 * FLOAT * numbers


def _evaluation(footprint: Footprint) -> Range:
    """Texts, embeddings and the scores of retrieval; a copy of the layers, which the probe of layouts makes, too."""
    dim = embedding_dim(footprint.recipe, footprint.base) or 0
    kept, largest = 0, 0
    for _, rows in footprint.evaluators:
        columns = list(rows.texts.values())
        texts = sum(map(len, columns))
        kept += sum(sys.getsizeof(text) + 16 for column in columns for text in column)
        embedded = 3 * FLOAT * dim * sum(min(len(column), CHUNK) for column in columns)
        scores = prod(map(len, columns)) if "query" in rows.texts else 0
        largest = max(largest, BYTES_PER_TEXT[1] * texts + embedded + 3 * FLOAT * min(scores, MAX_SCORES))
    return kept, kept + largest + 1.5 * FLOAT * footprint.layer_parameters


class Part(NamedTuple):
    measure: Callable[[Footprint], Range]
    advice: str
    """What makes it smaller."""
    on_device: bool = True
    """Whether it is in the memory of a GPU, if one is used."""


PARTS = {
    "libraries": Part(_libraries, "use a larger machine", on_device=False),
    "rows": Part(_rows, "set `data.streaming: true`, or `data.limit`", on_device=False),
    "weights": Part(_weights, "choose a smaller `model.base`"),
    "gradients and moments": Part(_optimizer, "set `model.lora`, or `train.freeze`"),
    "activations": Part(_activations, "lower `train.mini_batch_size`, `train.batch_size` or `model.max_seq_length`"),
    "loss": Part(_loss, "lower `train.batch_size`"),
    "evaluation": Part(_evaluation, "set `limit` in `eval`", on_device=False),
}


def forecast_memory(footprint: Footprint) -> dict[str, Range] | None:
    """Part -> least and most bytes, of the process or, with a GPU named in `train.device`, of that; None if unknown."""
    if None in (footprint.base.parameters, footprint.base.hidden_size, footprint.base.num_layers):
        return None
    on_cpu = not _uses_gpu(footprint.recipe)
    return {name: part.measure(footprint) for name, part in PARTS.items() if on_cpu or part.on_device}


def total(parts: dict[str, Range]) -> Range:
    low, high = (sum(ends) for ends in zip(*parts.values(), strict=True))
    return low, high


def lint_memory(footprint: Footprint) -> list[Problem]:
    """A warning if a training may need more than there is."""
    parts = forecast_memory(footprint)
    if parts is None or _uses_gpu(footprint.recipe) or total(parts)[1] <= usable_memory():
        return []
    low, high = total(parts)
    largest = max(parts, key=lambda name: parts[name][1])
    message = (
        f"training may need {format_range(low, high)} of memory, and there are {usable_memory() / 2**30:.1f} GiB. "
        f"The largest part, {largest}, needs up to {parts[largest][1] / 2**30:.1f} GiB: {PARTS[largest].advice}"
    )
    return [Problem(message, "memory")]


def format_range(low: float, high: float) -> str:
    return f"{low / 2**30:.1f} to {high / 2**30:.1f} GiB"


def _uses_gpu(recipe: Recipe) -> bool:
    return recipe.train.device.partition(":")[0] not in ("auto", "cpu")


def clip_lengths(lengths: np.ndarray, max_seq_length: int | None) -> np.ndarray:
    return lengths if max_seq_length is None else lengths.clip(max=max_seq_length)


def _typical_length(footprint: Footprint) -> float:
    """Length of the text that a token is in, on average over all tokens."""
    lengths = np.concatenate([clip_lengths(table.lengths(), footprint.max_seq_length) for table in footprint.tables])
    return float((lengths.astype(np.float64) ** 2).sum() / max(1, lengths.sum()))

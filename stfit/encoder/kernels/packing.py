"""How a batch of sequences of different lengths goes through the transformer: fused, packed, or padded.

All take sequences and give their token embeddings end to end, [tokens, dim], together with the order in which the
sequences lie there: sorting the few embeddings back after pooling is cheaper than sorting all tokens back before it.

Packed lays all sequences in one row, sorted by length. Linear layers see no padding, and attention runs once per
distinct length on a plain [sequences, heads, length, dim] slice, without a mask. It needs a model that routes its
attention through transformers' attention interface, so it is only chosen where a probe shows that it gives the padded
forward's embeddings.

Fused is packed with every layer as one function (`bert_layer.py`), for the models built like BERT.

Padded sorts by length and cuts into rectangles, so that a rectangle holds little padding. It works for every model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from stfit.encoder.kernels.attention import Packing, packed_attention
from stfit.encoder.kernels.fused_train import fuse_layers, unfuse_layers
from stfit.errors import ModelError

Forward = Callable[[Any, list[np.ndarray]], tuple[Tensor, np.ndarray]]
"""Backbone and sequences -> what comes out, end to end, and the order in which the sequences lie there."""


@dataclass(frozen=True)
class Layout:
    """A way through the transformer, and why it was chosen; of a table there is only one, called auto."""

    name: Literal["fused", "packed", "padded", "auto"]
    forward: Forward
    reason: str


RECTANGLE_TOKENS = 8192
"""Most tokens, padding included, that the padded layout sends through the model at once."""

PROBE_LENGTHS = (3, 17, 8, 3, 11, 2, 17, 5)
PROBE_TOLERANCE = 1e-5


def forward_padded(backbone: PreTrainedModel, sequences: list[np.ndarray]) -> tuple[Tensor, np.ndarray]:
    """Token embeddings [tokens, dim] of `sequences` and their order, through rectangles of similar lengths."""
    lengths, order = _sorted_lengths(sequences)
    parts = []
    for rectangle in cut_rectangles(lengths):
        parts.append(_forward_rectangle(backbone, [sequences[i] for i in order[rectangle]], lengths[rectangle]))
    return torch.cat(parts), order


def forward_in_one_rectangle(backbone: PreTrainedModel, sequences: list[np.ndarray]) -> tuple[Tensor, np.ndarray]:
    """The same with a single call of the model, however much padding that takes."""
    lengths, order = _sorted_lengths(sequences)
    return _forward_rectangle(backbone, [sequences[i] for i in order], lengths), order


def _forward_rectangle(backbone: PreTrainedModel, members: list[np.ndarray], lengths: np.ndarray) -> Tensor:
    """Token embeddings [tokens, dim] of sequences whose lengths rise, padded to the last one's."""
    real = np.arange(lengths[-1]) < lengths[:, None]
    token_ids = np.zeros(real.shape, dtype=np.int64)
    token_ids[real] = np.concatenate(members)
    mask = torch.from_numpy(real).to(backbone.device)
    states: Tensor = backbone(
        input_ids=torch.from_numpy(token_ids).to(backbone.device), attention_mask=mask.long()
    ).last_hidden_state
    return states[mask]


def _sorted_lengths(sequences: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Lengths in rising order, and the order that sorts the sequences so."""
    lengths = np.array([len(sequence) for sequence in sequences])
    order = np.argsort(lengths, kind="stable")
    return lengths[order], order


def cut_rectangles(lengths: np.ndarray) -> list[slice]:
    """Slices of rising `lengths` such that count x longest stays within RECTANGLE_TOKENS (one sequence always fits)."""
    slices, start = [], 0
    for end, length in enumerate(lengths):
        if end > start and (end - start + 1) * length > RECTANGLE_TOKENS:
            slices.append(slice(start, end))
            start = end
    return [*slices, slice(start, len(lengths))]


AttentionInterface.register("stfit_packed", packed_attention)
AttentionMaskInterface.register("stfit_packed", lambda *_, **__: None)


def _first_position(backbone: PreTrainedModel) -> int:
    """Position id of a sequence's first token: RoBERTa and its kin count from pad_token_id + 1."""
    embeddings = getattr(backbone, "embeddings", None)
    padding = getattr(embeddings, "padding_idx", None)
    return 0 if padding is None else int(padding) + 1


@dataclass(frozen=True)
class Row:
    """Sequences end to end, sorted by length."""

    token_ids: Tensor
    positions: Tensor
    packing: Packing
    order: np.ndarray
    """Which of the sequences lies where."""


def pack(backbone: PreTrainedModel, sequences: list[np.ndarray]) -> Row:
    """What a forward without padding takes."""
    lengths, order = _sorted_lengths(sequences)
    token_ids = np.concatenate([sequences[i] for i in order]).astype(np.int64)
    positions = np.arange(len(token_ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + _first_position(backbone)
    return Row(
        torch.from_numpy(token_ids).to(backbone.device),
        torch.from_numpy(positions).to(backbone.device),
        Packing(lengths),
        order,
    )


def _forward_packed(backbone: PreTrainedModel, sequences: list[np.ndarray]) -> tuple[Tensor, np.ndarray]:
    """Token embeddings [tokens, dim] of `sequences` and their order, all in one row without padding."""
    row = pack(backbone, sequences)
    states = backbone(
        input_ids=row.token_ids[None], position_ids=row.positions[None], packing=row.packing
    ).last_hidden_state
    return states[0], row.order


@torch.no_grad()
def choose_layout(backbone: PreTrainedModel, wanted: str) -> Layout:
    """The layout `wanted` (fused, packed or padded), or with `auto` the first of these that the backbone can do.

    Raises ModelError where it can't do the one that is wanted.
    """
    if wanted == "padded":
        return Layout("padded", forward_padded, "the recipe says so")
    was_training = backbone.training
    sequences = probe_sequences(backbone)
    expected_td, _ = forward_padded(backbone.eval(), sequences)
    packed = _try_packed(backbone, sequences, expected_td)
    fused = _try_fused(backbone, sequences, expected_td) if packed.works and wanted != "packed" else None
    backbone.train(was_training)
    for name, attempt in (("fused", fused), ("packed", packed)):
        if attempt and attempt.works and wanted in ("auto", name):
            return Layout(name, _forward_packed, attempt.finding)  # type: ignore[arg-type]  # mypy sees a str
    refused = fused or packed
    if wanted != "auto":
        raise ModelError(f"attention: {wanted} does not work for this base ({refused.finding}); use auto or padded")
    return Layout("padded", forward_padded, f"packed does not work: {refused.finding}")


@dataclass(frozen=True)
class ProbeResult:
    """What came of a layout on the probe."""

    works: bool
    finding: str


def _compare(states_td: Tensor, expected_td: Tensor) -> ProbeResult:
    """Whether these token embeddings are those of the padded forward."""
    error = relative_error(states_td, expected_td)
    return ProbeResult(error <= PROBE_TOLERANCE, f"at most {error:.0e} off the padded forward, on a probe")


def _try_packed(backbone: PreTrainedModel, sequences: list[np.ndarray], expected_td: Tensor) -> ProbeResult:
    """Packed attention, which stays in place where it works.

    Some models take the new attention without a word and never call it, so the calls are counted too.
    """
    standard = backbone.config._attn_implementation
    try:
        attentions = _replace_attention(backbone)
        packed_td, _ = _forward_packed(backbone, sequences)
        calls = sum(vars(module).get("packed_calls", 0) for module in backbone.modules())  # ALBERT's layers are one
        routed = attentions and calls == backbone.config.num_hidden_layers
        found = _compare(packed_td, expected_td) if routed else ProbeResult(False, "its attention can't be replaced")
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, NotImplementedError):
        found = ProbeResult(False, "it refuses the arguments of a packed forward")
    if not found.works:
        backbone.set_attn_implementation(standard)
    return found


def _try_fused(backbone: PreTrainedModel, sequences: list[np.ndarray], expected_td: Tensor) -> ProbeResult:
    """Fuse the layers on top of packed attention, and keep them so if that works."""
    layers = fuse_layers(backbone)
    if not layers:
        return ProbeResult(False, "its layers are not built like those of BERT")
    try:
        fused_td, _ = _forward_packed(backbone, sequences)
        result = _compare(fused_td, expected_td)
    except (AttributeError, NotImplementedError, RuntimeError):
        result = ProbeResult(False, "this build of torch lacks oneDNN's product")
    if not result.works:
        unfuse_layers(layers)
    return result


def probe_sequences(backbone: PreTrainedModel) -> list[np.ndarray]:
    """Random words of mixed lengths."""
    generator = np.random.default_rng(0)
    # Padding tokens stay out: where RoBERTa meets one inside a text, it does not count the position.
    words = np.setdiff1d(np.arange(backbone.config.vocab_size), [backbone.config.pad_token_id or 0])
    return [generator.choice(words, length) for length in PROBE_LENGTHS]


def relative_error(states_td: Tensor, expected_td: Tensor) -> float:
    """Largest error of a token embedding, relative to max(1, its norm)."""
    return float(((states_td - expected_td).norm(dim=1) / expected_td.norm(dim=1).clamp(min=1)).max())


def _replace_attention(backbone: PreTrainedModel) -> bool:
    """Route the model's attention through `packed_attention`; whether the model agreed."""
    backbone.set_attn_implementation("stfit_packed")
    return bool(backbone.config._attn_implementation == "stfit_packed")

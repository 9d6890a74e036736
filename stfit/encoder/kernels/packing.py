"""Layouts: how a batch of sequences of different lengths goes through the transformer (fused, packed or padded).

Each takes sequences and returns their token embeddings end to end, [tokens, dim], and the order of the sequences in
them: to reorder the few embeddings after pooling is cheaper than to reorder all tokens before it.

Packed: all sequences in one row, sorted by length. Linear layers see no padding, and attention runs once per distinct
length on a plain [sequences, heads, length, dim] slice, without a mask. The model must route its attention through
transformers' attention interface, so packed is only chosen if a probe gives the embeddings of the padded forward.

Fused: packed, with every layer as one function (`fused_train.py`), for models built like BERT.

Padded: sorted by length and cut into rectangles with little padding. Works for every model; if a probe shows that
padding changes its embeddings, a rectangle has texts of one length alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from stfit.encoder.kernels.attention import packed_attention
from stfit.encoder.kernels.blocks import Packing
from stfit.encoder.kernels.fused_train import can_run_fused, fuse_layers
from stfit.encoder.kernels.layer_parts import BackboneParts
from stfit.errors import ModelError
from stfit.io.display import single_line

Forward = Callable[[Any, list[np.ndarray]], tuple[Tensor, np.ndarray]]
"""Backbone and sequences -> token embeddings end to end, and the order of the sequences in them."""


@dataclass(frozen=True)
class Layout:
    """A forward pass and why it was chosen. Bases that are no transformer have only one, called auto."""

    name: Literal["fused", "packed", "padded", "auto"]
    forward: Forward
    reason: str


class LayoutError(ModelError):
    """The base can't run in the layout that the recipe names."""


RECTANGLE_TOKENS = 8192

PROBE_LENGTHS = (3, 17, 8, 3, 11, 2, 17, 5)
PROBE_WINDOW = 4
PROBE_TOLERANCE = 3e-5
"""Rounding alone makes 1.2e-5 of twelve layers of 768 (all-mpnet-base-v2): the padded forward is 3e-6 from float64, the
fused one 1.1e-5. An approximation of GELU is more than that off."""


def forward_padded(
    backbone: PreTrainedModel, sequences: list[np.ndarray], max_tokens: float = RECTANGLE_TOKENS
) -> tuple[Tensor, np.ndarray]:
    """Token embeddings [tokens, dim] and order of `sequences`, through rectangles of similar lengths."""
    lengths, order = _sorted_lengths(sequences)
    parts = []
    for rectangle in cut_rectangles(lengths, max_tokens):
        real = np.arange(lengths[rectangle][-1]) < lengths[rectangle][:, None]
        token_ids = np.zeros(real.shape, dtype=np.int64)
        token_ids[real] = np.concatenate([sequences[i] for i in order[rectangle]])
        ids, mask = torch.from_numpy(token_ids).to(backbone.device), torch.from_numpy(real).to(backbone.device)
        parts.append(backbone(input_ids=ids, attention_mask=mask.long()).last_hidden_state[mask])
    return torch.cat(parts), order


def forward_unpadded(backbone: PreTrainedModel, sequences: list[np.ndarray]) -> tuple[Tensor, np.ndarray]:
    """For models that mix padding into a text, as those with convolutions: only texts of one length share a batch."""
    lengths, order = _sorted_lengths(sequences)
    groups = np.split(order, np.flatnonzero(np.diff(lengths)) + 1)
    return torch.cat([forward_padded(backbone, [sequences[i] for i in group])[0] for group in groups]), order


def _sorted_lengths(sequences: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(sequence) for sequence in sequences])
    order = np.argsort(lengths, kind="stable")
    return lengths[order], order


def cut_rectangles(lengths: np.ndarray, max_tokens: float = RECTANGLE_TOKENS) -> list[slice]:
    """Slices of ascending `lengths` with count x longest <= `max_tokens` (or a single sequence)."""
    slices, start = [], 0
    for end, length in enumerate(lengths):
        if end > start and (end - start + 1) * length > max_tokens:
            slices.append(slice(start, end))
            start = end
    return [*slices, slice(start, len(lengths))]


AttentionInterface.register("stfit_packed", packed_attention)
AttentionMaskInterface.register("stfit_packed", lambda *_, **__: None)


def _count_positions(backbone: PreTrainedModel, token_ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Position id of each token: RoBERTa and its kin count from padding_idx + 1, and do not count padding tokens."""
    padding = getattr(getattr(backbone, "embeddings", None), "padding_idx", None)
    counts = np.ones_like(token_ids) if padding is None else (token_ids != padding).astype(np.int64)
    total = counts.cumsum()
    before = np.repeat((total - counts)[np.cumsum(lengths) - lengths], lengths)
    return total - before - 1 if padding is None else (total - before) * counts + padding


class PackedRow(NamedTuple):
    token_ids: Tensor
    positions: Tensor
    packing: Packing
    order: np.ndarray


def pack(backbone: PreTrainedModel, sequences: list[np.ndarray]) -> PackedRow:
    lengths, order = _sorted_lengths(sequences)
    token_ids = np.concatenate([sequences[i] for i in order]).astype(np.int64)
    positions = _count_positions(backbone, token_ids, lengths)
    return PackedRow(
        torch.from_numpy(token_ids).to(backbone.device),
        torch.from_numpy(positions).to(backbone.device),
        Packing(lengths),
        order,
    )


def _forward_packed(backbone: PreTrainedModel, sequences: list[np.ndarray]) -> tuple[Tensor, np.ndarray]:
    row = pack(backbone, sequences)
    output = backbone(input_ids=row.token_ids[None], position_ids=row.positions[None], packing=row.packing)
    return output.last_hidden_state[0], row.order


def _forward_fused(
    parts: BackboneParts, otherwise: Forward, backbone: PreTrainedModel, sequences: list[np.ndarray]
) -> tuple[Tensor, np.ndarray]:
    """Through layers that `fuse_layers` has changed. `otherwise`: for what `can_run_fused` excludes."""
    if not can_run_fused(backbone.device):
        return otherwise(backbone, sequences)
    row = pack(backbone, sequences)
    states = parts.embed(row.token_ids[None], row.positions[None])
    longest = row.packing.blocks(parts.layers[0].num_heads).blocks[-1].length  # rounded up
    relations = relations_at(parts, row.positions, longest)
    for layer in parts.layers:
        states = layer.layer(states, packing=row.packing, **relations[layer.relation])
    return parts.final_norm(states)[0] if parts.final_norm else states[0], row.order


def relations_at(parts: BackboneParts, positions: Tensor, length: int) -> dict[str | None, dict[str, Any]]:
    """What each kind of layer takes, for packed `positions` of sequences up to `length`."""
    taken: dict[str | None, dict[str, Any]] = {None: {}}
    for kind, relation in parts.relations.items():
        rotation = relation.rotation(positions) if relation.rotation else None
        taken[kind] = {
            "bias": relation.bias(length) if relation.bias else None,
            "distances": relation.distances(length) if relation.distances else None,
            "rotation": rotation and tuple(angles[:, None] for angles in rotation),
        }
    return taken


@contextmanager
def _narrow_windows(backbone: PreTrainedModel) -> Iterator[None]:
    """Narrow the windows of attention, so that the texts of a probe exceed them.

    Some models keep a window in their mask, which packing lacks, and do not pass it on to their attention.
    """
    config = backbone.config
    settings, width = dict(vars(config)), getattr(config, "sliding_window", None)
    modules = [module for module in backbone.modules() if isinstance(vars(module).get("sliding_window"), int)]
    change = min(0, PROBE_WINDOW - width) if isinstance(width, int) else 0
    if change:
        config.sliding_window = PROBE_WINDOW
    for module in modules:
        vars(module)["sliding_window"] += change
    try:
        yield
    finally:
        for module in modules:
            vars(module)["sliding_window"] -= change
        vars(config).update(
            {name: settings[name] for name in ("sliding_window", "local_attention") if name in settings}
        )


def _apart_by_rope(backbone: PreTrainedModel, forward: Forward) -> Forward:
    """`forward`, with texts above the original positions of longrope in a batch of their own.

    One of them in a batch would change the angles of all (Ding et al., 2024, https://arxiv.org/abs/2402.13753).
    """
    rope = getattr(backbone.config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return forward
    limit = rope.get("original_max_position_embeddings") or backbone.config.original_max_position_embeddings

    def forward_apart(backbone: PreTrainedModel, sequences: list[np.ndarray]) -> tuple[Tensor, np.ndarray]:
        is_long = np.array([len(sequence) > limit for sequence in sequences])
        groups = [members for members in (np.flatnonzero(~is_long), np.flatnonzero(is_long)) if len(members)]
        results = [(members, *forward(backbone, [sequences[i] for i in members])) for members in groups]
        return torch.cat([states for _, states, _ in results]), np.concatenate([m[order] for m, _, order in results])

    return forward_apart


@torch.no_grad()
def choose_layout(backbone: PreTrainedModel, attention: str) -> Layout:
    """The layout that `attention` names, or for `auto` the fastest that works. Raises LayoutError if it does not."""
    if attention == "padded":
        return Layout("padded", forward_padded, "chosen by the recipe")
    was_training = backbone.training
    sequences = probe_sequences(backbone)
    with _narrow_windows(backbone.eval()):
        expected_td, _ = forward_padded(backbone, sequences)
        packed = _try_packed(backbone, sequences, expected_td)
        fused = _try_fused(backbone, sequences, expected_td, packed.forward or forward_padded)
        is_padding_seen = not (packed.forward or _probe(forward_unpadded, backbone, sequences, expected_td).forward)
    backbone.train(was_training)
    results: dict[Literal["fused", "packed"], ProbeResult] = {"fused": fused, "packed": packed}
    for name, result in results.items():
        if result.forward and attention in ("auto", name):
            return Layout(name, _apart_by_rope(backbone, result.forward), result.finding)
    if attention == "auto":
        forward = forward_unpadded if is_padding_seen else forward_padded
        return Layout(
            "padded",
            _apart_by_rope(backbone, forward),
            f"packed does not work: {packed.finding}; fused: {fused.finding}",
        )
    finding = (fused if attention == "fused" else packed).finding
    raise LayoutError(f"attention: {attention} does not work for this base ({finding}); use auto or padded")


class ProbeResult(NamedTuple):
    forward: Forward | None
    """None if it does not work."""
    finding: str


def _probe(
    forward: Forward, backbone: PreTrainedModel, sequences: list[np.ndarray], expected_td: Tensor
) -> ProbeResult:
    """Whether a forward pass gives the embeddings of the padded one."""
    states_td, _ = forward(backbone, sequences)
    error = relative_error(states_td, expected_td)
    finding = f"differs from the padded forward by at most {error:.0e} on a probe"
    return ProbeResult(forward if error <= PROBE_TOLERANCE else None, finding)


def _try_packed(backbone: PreTrainedModel, sequences: list[np.ndarray], expected_td: Tensor) -> ProbeResult:
    """Route the attention through `packed_attention`, counting its calls: some models accept it and never call it."""
    standard = backbone.config._attn_implementation
    if getattr(backbone.config, "attention_chunk_size", None):  # Llama 4's mask, of texts longer than those of a probe
        return ProbeResult(None, "its attention is cut into chunks")
    if getattr(backbone.config, "token_dropout", False):  # ESM's
        return ProbeResult(None, "it scales each text by the share of its masked tokens")
    try:
        backbone.set_attn_implementation("stfit_packed")
        result = _probe(_forward_packed, backbone, sequences, expected_td)
        calls = sum(vars(module).get("packed_calls", 0) for module in backbone.modules())  # ALBERT's layers are one
        if backbone.config._attn_implementation != "stfit_packed" or calls != backbone.config.num_hidden_layers:
            result = ProbeResult(None, "its attention can't be replaced")
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, NotImplementedError):
        result = ProbeResult(None, "it refuses the arguments of a packed forward")
    if not result.forward:
        backbone.set_attn_implementation(standard)
    return result


def _try_fused(
    backbone: PreTrainedModel, sequences: list[np.ndarray], expected_td: Tensor, otherwise: Forward
) -> ProbeResult:
    parts = fuse_layers(backbone)
    if parts is None:
        return ProbeResult(None, "its layers are not built like those of BERT")
    try:
        result = _probe(partial(_forward_fused, parts, otherwise), backbone, sequences, expected_td)
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, NotImplementedError) as error:
        result = ProbeResult(None, f"its fused layers fail: {single_line(str(error))}")
    if not result.forward:
        for layer_parts in parts.layers:
            del layer_parts.layer.forward
    return result


def probe_sequences(backbone: PreTrainedModel) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    # Without the padding token, which RoBERTa does not count as a position.
    token_ids = np.setdiff1d(
        np.arange(backbone.config.vocab_size), [getattr(backbone.config, "pad_token_id", None) or 0]
    )
    return [generator.choice(token_ids, length) for length in PROBE_LENGTHS]


def relative_error(states_td: Tensor, expected_td: Tensor) -> float:
    """Largest error of a token embedding, relative to max(1, its norm)."""
    return float(((states_td - expected_td).norm(dim=1) / expected_td.norm(dim=1).clamp(min=1)).max())

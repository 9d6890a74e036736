"""The forward pass of BERT and its kin on a CPU without gradients, in about half as many passes over memory.

Weights are reordered once for oneDNN's kernels, which are a fifth faster than the default ones and apply bias and
activation while a product is still in the cache; query, key and value come from one product. It is chosen if a probe
shows that it gives the token embeddings of the layout that it replaces.

Tensor names: t = tokens of all sequences, d = hidden size, h = heads, n = sequences of one length l.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.activations import GELUActivation

from stfit.encoder.kernels.blocks import Packing
from stfit.encoder.kernels.fused_train import Rotation, rotate
from stfit.encoder.kernels.layer_parts import LayerParts, find_parts
from stfit.encoder.kernels.packing import PROBE_TOLERANCE, Forward, pack, probe_sequences, relations_at, relative_error
from stfit.encoder.kernels.relations import Distances, distance_scores

REORDER_TOKENS = 1024

ACTIVATIONS: dict[type[nn.Module], str] = {GELUActivation: "gelu", nn.ReLU: "relu"}
"""Activations that oneDNN computes exactly -> its name for them."""


class ReorderedLinear:
    """A linear map with its weights in the order of oneDNN. Several maps of one input are put side by side."""

    def __init__(self, *linears: nn.Linear, dtype: torch.dtype, activation: str = "none") -> None:
        weight = torch.cat([linear.weight.detach() for linear in linears]).to(dtype)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, REORDER_TOKENS)
        biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
        self.bias = torch.cat(biases).to(dtype) if biases else None
        self.activation, self.dtype = activation, dtype

    def __call__(self, states_td: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(
            states_td.to(self.dtype), self.weight, self.bias, self.activation, [], "none"
        )


class InferenceLayer:
    """One transformer layer with the weights as they are now."""

    def __init__(self, parts: LayerParts, dtype: torch.dtype) -> None:
        if type(parts.activation) not in ACTIVATIONS:
            raise NotImplementedError
        self.parts = parts
        self.query_key_value = ReorderedLinear(*parts.projections, dtype=dtype)
        self.attention_output = ReorderedLinear(parts.attention_output, dtype=dtype)
        activation = "none" if parts.gated else ACTIVATIONS[type(parts.activation)]
        self.up = ReorderedLinear(parts.up, dtype=dtype, activation=activation)
        self.down = ReorderedLinear(parts.down, dtype=dtype)

    def __call__(self, states_td: Tensor, packing: Packing, **relations: Any) -> Tensor:
        first_norm, second_norm = self.parts.norms
        if self.parts.norm_first:
            states_td = self._attend(first_norm(states_td), packing, **relations).float().add_(states_td)
            return self._feed_forward(second_norm(states_td)).float().add_(states_td)
        states_td = first_norm(self._attend(states_td, packing, **relations).float().add_(states_td))
        normed: Tensor = second_norm(self._feed_forward(states_td).float().add_(states_td))
        return normed

    def _feed_forward(self, states_td: Tensor) -> Tensor:
        inner = self.up(states_td)
        if self.parts.gated:
            activated, gate = inner.chunk(2, dim=1)
            inner = self.parts.activation(activated).mul_(gate)
        return self.down(inner)

    def _attend(
        self,
        states_td: Tensor,
        packing: Packing,
        bias: Tensor | None = None,
        distances: Tensor | None = None,
        rotation: Rotation | None = None,
    ) -> Tensor:
        qkv_td = self.query_key_value(states_td)
        heads, of_distances = self.parts.num_heads, None
        if rotation:
            rotate(qkv_td, heads, *rotation)
        if distances is not None:
            rows = self.query_key_value(distances).view(len(distances), 3, heads, -1)
            of_distances = Distances(*rows.permute(1, 2, 0, 3)[:2])
        return self.attention_output(_attend(qkv_td, packing, self.parts, bias, of_distances))


def _attend(
    states_td: Tensor, packing: Packing, parts: LayerParts, bias_hll: Tensor | None, distances: Distances | None
) -> Tensor:
    """Attention within each sequence; the columns of [t, 3 d] are query, key and value."""
    tokens, width, heads = len(states_td), states_td.shape[1] // 3, parts.num_heads
    output_td = states_td.new_empty(tokens, width)
    start = 0
    for count, length in packing.groups:
        end = start + count * length
        shape = (count, length, 3, heads, width // heads)
        query, key, value = states_td[start:end].view(shape).permute(2, 0, 3, 1, 4)
        added = None if bias_hll is None else bias_hll[:, :length, :length].to(query.dtype)
        if distances:
            added = distance_scores(query, key, distances) * parts.scale
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=added, scale=parts.scale)
        output_td[start:end].view(count, length, heads, -1).copy_(attended.transpose(1, 2))
        start = end
    return output_td


def build_fused(backbone: PreTrainedModel, dtype: torch.dtype = torch.float32) -> Forward:
    """The fused forward of a backbone with its present weights. Raises NotImplementedError if it can't be fused."""
    parts = find_parts(backbone)
    is_float_on_cpu = backbone.dtype == torch.float32 and backbone.device.type == "cpu"
    if parts is None or not is_float_on_cpu:
        raise NotImplementedError
    layers = [InferenceLayer(layer, dtype) for layer in parts.layers]

    def forward_fused(backbone: PreTrainedModel, sequences: list[np.ndarray]) -> tuple[Tensor, np.ndarray]:
        row = pack(backbone, sequences)
        states_td = parts.embed(row.token_ids[None], row.positions[None])[0]
        relations = relations_at(parts, row.positions, int(row.packing.lengths[-1]))
        for layer in layers:
            states_td = layer(states_td, row.packing, **relations[layer.parts.relation])
        return parts.final_norm(states_td) if parts.final_norm else states_td, row.order

    return forward_fused


@cache
def fused_supports(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies `dtype` on this CPU; bfloat16 needs avx512bw or avx_ne_convert."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    rows = torch.zeros(8, 8, dtype=dtype)
    try:
        weight = torch.ops.mkldnn._reorder_linear_weight(rows, REORDER_TOKENS)
        torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "none")
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return True


@torch.inference_mode()
def fused_works(backbone: PreTrainedModel, layout: Forward) -> bool:
    was_training = backbone.training
    backbone.eval()
    sequences = probe_sequences(backbone)
    try:
        fused, _ = build_fused(backbone)(backbone, sequences)
        expected, _ = layout(backbone, sequences)
        return relative_error(fused, expected) <= PROBE_TOLERANCE
    except (AttributeError, NotImplementedError, TypeError, RuntimeError, IndexError):
        return False  # built otherwise, or a torch without these kernels
    finally:
        backbone.train(was_training)

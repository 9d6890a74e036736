"""The forward pass of BERT and its kin on a CPU when nothing is learnt, in about half as many passes over memory.

Weights are laid out once for oneDNN's kernels, which beat the default ones by a fifth and apply bias and activation
while a product is still in the cache; query, key and value come from one product. It is chosen where a probe shows that
it gives the padded forward's token embeddings.

Tensor names: t = tokens of all sequences, d = hidden size, h = heads, n = sequences of one length l.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from stfit.encoder.kernels.attention import Packing
from stfit.encoder.kernels.fused_train import linear_modules, norm_modules
from stfit.encoder.kernels.packing import PROBE_TOLERANCE, Forward, pack, probe_sequences, relative_error

TOKENS = 1024
"""Tokens at once for which the weights are laid out."""

ACTIVATIONS = ("gelu", "relu")
"""Those whose oneDNN form is the same function (`gelu` is the exact one in both)."""


class Linear:
    """A linear map whose weights lie as oneDNN wants them."""

    def __init__(self, *linears: nn.Linear, dtype: torch.dtype, activation: str = "none") -> None:
        """Several maps of one input are put side by side. `dtype`: of the product."""
        weight = torch.cat([linear.weight.detach() for linear in linears]).to(dtype)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, TOKENS)
        self.bias = torch.cat([linear.bias.detach() for linear in linears]).to(dtype)
        self.activation = activation

    def __call__(self, states_td: Tensor) -> Tensor:
        """[t, in] -> [t, out], activated."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            states_td.to(self.bias.dtype), self.weight, self.bias, self.activation, [], "none"
        )
        return product


@dataclass(frozen=True)
class FusedLayer:
    """One transformer layer, normalised after each residual."""

    query_key_value: Linear
    attended: Linear
    attended_norm: nn.LayerNorm
    up: Linear
    down: Linear
    norm: nn.LayerNorm
    heads: int

    @classmethod
    def of(cls, layer: Any, heads: int, activation: str, dtype: torch.dtype) -> FusedLayer:
        """From a layer of transformers. Raises AttributeError where it is built otherwise."""
        query, key, value, attended, up, down = linears = linear_modules(layer)
        if any(type(linear) is not nn.Linear for linear in linears):  # an adapter's map hides what it adds
            raise NotImplementedError
        attended_norm, norm = norm_modules(layer)
        return cls(
            Linear(query, key, value, dtype=dtype),
            Linear(attended, dtype=dtype),
            attended_norm,
            Linear(up, dtype=dtype, activation=activation),
            Linear(down, dtype=dtype),
            norm,
            heads,
        )

    def __call__(self, states_td: Tensor, packing: Packing) -> Tensor:
        """[t, d] -> [t, d]."""
        attended_td = _attend(self.query_key_value(states_td), packing, self.heads)
        states_td = _norm(self.attended(attended_td).float().add_(states_td), self.attended_norm)
        return _norm(self.down(self.up(states_td)).float().add_(states_td), self.norm)


def _norm(states_td: Tensor, layer: nn.LayerNorm) -> Tensor:
    """Layer normalisation."""
    return functional.layer_norm(states_td, layer.normalized_shape, layer.weight, layer.bias, layer.eps)


def _attend(states_td: Tensor, packing: Packing, heads: int) -> Tensor:
    """Attention within each sequence; query, key and value stand side by side in [t, 3 d]."""
    tokens, width = len(states_td), states_td.shape[1] // 3
    output_td = states_td.new_empty(tokens, width)
    start = 0
    for group in packing.groups:
        end = start + group.count * group.length
        shape = (group.count, group.length, 3, heads, width // heads)
        query, key, value = states_td[start:end].view(shape).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        output_td[start:end].view(group.count, group.length, heads, -1).copy_(attended.transpose(1, 2))
        start = end
    return output_td


def build_fused(backbone: PreTrainedModel, dtype: torch.dtype = torch.float32) -> Forward:
    """The fused forward of a backbone, with its weights as they are now. `dtype`: of products and attention.

    Raises AttributeError or NotImplementedError where the backbone, or this build of torch, has not what it takes.
    """
    config, modules = backbone.config, cast(Any, backbone)
    embeddings = modules.embeddings
    if config.hidden_act not in ACTIVATIONS or backbone.dtype != torch.float32 or backbone.device.type != "cpu":
        raise NotImplementedError
    word_vd = embeddings.word_embeddings.weight.detach()
    # The type of every token is 0, so its embedding can be part of the position's.
    place_pd = (embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]).detach()
    layers = [
        FusedLayer.of(layer, config.num_attention_heads, config.hidden_act, dtype) for layer in modules.encoder.layer
    ]

    def forward_fused(backbone: PreTrainedModel, sequences: list[np.ndarray]) -> tuple[Tensor, np.ndarray]:
        """Token embeddings [tokens, dim] of `sequences` and their order."""
        row = pack(backbone, sequences)
        states_td = _norm(word_vd[row.token_ids].add_(place_pd[row.positions]), embeddings.LayerNorm)
        for layer in layers:
            states_td = layer(states_td, row.packing)
        return states_td, row.order

    return forward_fused


@cache
def fused_supports(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies `dtype` on this CPU; bfloat16 needs avx512bw or avx_ne_convert."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    rows = torch.zeros(8, 8, dtype=dtype)
    try:
        weight = torch.ops.mkldnn._reorder_linear_weight(rows, TOKENS)
        torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "none")
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return True


@torch.inference_mode()
def fused_works(backbone: PreTrainedModel, layout: Forward) -> bool:
    """Whether the fused forward gives the token embeddings of `layout`."""
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

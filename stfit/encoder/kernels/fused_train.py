"""A BERT layer as one function, differentiated by hand: the packed layout at its fastest, in float32 on a CPU.

Some thirty nodes of autograd's graph become one. The three projections of attention are one matrix product, the wide
tensors of the feed-forward pass stay in the cache in slices of rows, activations are computed again instead of kept,
and products run on oneDNN, which is the faster one where the left matrix is not transposed.

Serves every model whose layers are built like those of BERT (Devlin et al., 2018, https://arxiv.org/abs/1810.04805):
RoBERTa, XLM-RoBERTa, ELECTRA, CamemBERT and others; `layout.py` probes that it gives the padded forward's embeddings.

Tensor names: t = tokens, w = width of the model, f = width of the feed-forward pass, p = rows with heads first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers.activations import GELUActivation

from stfit.encoder.kernels.attention import Blocks, Packing, attend_backward, attend_blocks
from stfit.encoder.kernels.dropout import dropout_mask, kept_scale

FEED_FORWARD_ROWS = 512
"""Tokens whose feed-forward activations are in the cache together."""


@dataclass(frozen=True)
class Settings:
    """What a layer does besides its weights: dropout rates are 0 in evaluation, epsilons those of its two norms."""

    heads: int
    scale: float
    attention_dropout: float
    hidden_dropout: float
    epsilons: tuple[float, float]


def linear_modules(layer: Any) -> list[nn.Linear]:
    """Query, key, value, the projection after attention, and the two of the feed-forward pass."""
    inner = layer.attention.self
    after = (layer.attention.output.dense, layer.intermediate.dense, layer.output.dense)
    return [inner.query, inner.key, inner.value, *after]


def norm_modules(layer: Any) -> list[nn.LayerNorm]:
    """The norm after attention, and the one after the feed-forward pass."""
    return [layer.attention.output.LayerNorm, layer.output.LayerNorm]


def _is_bert_layer(layer: Any) -> bool:
    """Whether a layer of a transformer has the parts of BERT's, and nothing in the place of one of them."""
    try:
        linears, norms = linear_modules(layer), norm_modules(layer)
        activation = layer.intermediate.intermediate_act_fn
    except AttributeError:
        return False
    return (
        all(type(module) is nn.Linear and module.bias is not None for module in linears)
        and all(type(norm) is nn.LayerNorm for norm in norms)
        and type(activation) is GELUActivation
    )


def fuse_layers(backbone: nn.Module) -> list[nn.Module]:
    """Let every BERT layer of `backbone` run as one function wherever it can; the layers found."""
    layers = [module for module in backbone.modules() if _is_bert_layer(module)]
    for layer in layers:
        layer.forward = partial(_run_layer, layer, layer.forward)
    return layers


def unfuse_layers(layers: list[nn.Module]) -> None:
    """Give layers their own forward pass back."""
    for layer in layers:
        del layer.forward


def _run_layer(layer: Any, usual: Callable[..., Tensor], states: Tensor, *args: Any, **options: Any) -> Tensor:
    """The layer's output [1, t, w] for packed sequences; under autocast, on a GPU or padded as transformers does it."""
    packing: Packing | None = options.get("packing")
    if packing is None or states.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return usual(states, *args, **options)
    inner, norms = layer.attention.self, norm_modules(layer)
    rates = [module.p if layer.training else 0.0 for module in (inner.dropout, layer.output.dropout)]
    settings = Settings(inner.num_attention_heads, inner.scaling, rates[0], rates[1], (norms[0].eps, norms[1].eps))
    weights = [part for module in (*linear_modules(layer), *norms) for part in (module.weight, module.bias)]
    output_tw: Tensor = BertLayer.apply(states[0], packing.blocks(settings.heads), settings, *weights)  # type: ignore[no-untyped-call]
    return output_tw[None]


def _product(left: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Left @ weight^T + bias, by oneDNN for float32: some 10 % faster than the BLAS behind torch.mm, which varies."""
    if left.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        found: Tensor = torch.ops.mkldnn._linear_pointwise(left, weight, bias, "none", [], "")
        return found
    return functional.linear(left, weight, bias)


def _dropped_and_added(branch_tw: Tensor, residual_tw: Tensor, rate: float) -> tuple[Tensor, Tensor | None]:
    """Residual + dropout(branch), and the mask of what is kept (None without dropout)."""
    if rate == 0:
        return branch_tw.add_(residual_tw), None
    kept_tw = dropout_mask(branch_tw.numel(), rate).view_as(branch_tw)
    return torch.addcmul(residual_tw, branch_tw, kept_tw.to(branch_tw.dtype), value=kept_scale(rate)), kept_tw


def _through_dropout(gradient_tw: Tensor, kept_tw: Tensor | None, rate: float) -> Tensor:
    """The gradient of what a dropout was given."""
    return gradient_tw if kept_tw is None else (gradient_tw * kept_tw).mul_(kept_scale(rate))


class BertLayer(torch.autograd.Function):
    """Attention, feed-forward, and a norm after each."""

    @staticmethod
    def forward(ctx: Any, states_tw: Tensor, blocks: Blocks, settings: Settings, *weights: Tensor) -> Tensor:
        """[t, w] -> [t, w]; `weights` are weight and bias of each of `linear_modules`, then of the two norms."""
        qkv_weight, qkv_bias = torch.cat(weights[0:6:2]), torch.cat(weights[1:6:2])
        out_weight, out_bias, up_weight, up_bias, down_weight, down_bias, *norms = weights[6:]
        width = [states_tw.shape[1]]
        rate = settings.hidden_dropout

        qkv_pd = blocks.heads_first(_product(states_tw, qkv_weight, qkv_bias), parts=3)
        attended_pd, attention = attend_blocks(qkv_pd, blocks, settings.scale, settings.attention_dropout)
        attended_tw = blocks.tokens_first(attended_pd)
        first_tw, kept_first_tw = _dropped_and_added(_product(attended_tw, out_weight, out_bias), states_tw, rate)
        middle_tw, *first_stats = torch.native_layer_norm(first_tw, width, norms[0], norms[1], settings.epsilons[0])

        up, down = [], []
        for rows_tw in middle_tw.split(FEED_FORWARD_ROWS):
            up.append(_product(rows_tw, up_weight, up_bias))
            down.append(_product(functional.gelu(up[-1]), down_weight, down_bias))
        second_tw, kept_second_tw = _dropped_and_added(torch.cat(down), middle_tw, rate)
        output_tw, *second_stats = torch.native_layer_norm(second_tw, width, norms[2], norms[3], settings.epsilons[1])

        ctx.blocks, ctx.settings, ctx.attention, ctx.up = blocks, settings, attention, up
        ctx.save_for_backward(states_tw, qkv_weight, out_weight, up_weight, down_weight, *norms)
        ctx.kept = qkv_pd, attended_tw, first_tw, first_stats, middle_tw, second_tw, second_stats
        ctx.masks = kept_first_tw, kept_second_tw
        return output_tw

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_tw: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the input and of every weight."""
        states_tw, qkv_weight, out_weight, up_weight, down_weight, *norms = ctx.saved_tensors
        qkv_pd, attended_tw, first_tw, first_stats, middle_tw, second_tw, second_stats = ctx.kept
        blocks: Blocks = ctx.blocks
        rate = ctx.settings.hidden_dropout
        width, everything = [states_tw.shape[1]], [True, True, True]

        middle_gradient_tw, *second_norm = torch.ops.aten.native_layer_norm_backward(
            gradient_tw.contiguous(), second_tw, width, *second_stats, norms[2], norms[3], everything
        )
        down_gradient_tw = _through_dropout(middle_gradient_tw, ctx.masks[1], rate)
        up_grad, up_bias_grad = torch.zeros_like(up_weight), up_weight.new_zeros(len(up_weight))
        down_grad = torch.zeros_like(down_weight)
        branch = []
        for rows_tf, rows_tw, gradient in zip(
            ctx.up, middle_tw.split(FEED_FORWARD_ROWS), down_gradient_tw.split(FEED_FORWARD_ROWS), strict=True
        ):
            down_grad.addmm_(gradient.t(), functional.gelu(rows_tf))
            inner_tf = _product(gradient, down_weight.t())
            torch.ops.aten.gelu_backward.grad_input(inner_tf, rows_tf, grad_input=inner_tf)
            up_grad.addmm_(inner_tf.t(), rows_tw)
            up_bias_grad += inner_tf.sum(0)
            branch.append(_product(inner_tf, up_weight.t()))
        down_bias_grad = down_gradient_tw.sum(0)
        middle_gradient_tw = torch.cat(branch).add_(middle_gradient_tw)

        input_gradient_tw, *first_norm = torch.ops.aten.native_layer_norm_backward(
            middle_gradient_tw, first_tw, width, *first_stats, norms[0], norms[1], everything
        )
        out_gradient_tw = _through_dropout(input_gradient_tw, ctx.masks[0], rate)
        attended_gradient_pd = blocks.heads_first(_product(out_gradient_tw, out_weight.t()))
        qkv_gradient_pd = attend_backward(attended_gradient_pd, qkv_pd, blocks, ctx.attention)
        qkv_gradient_tw = blocks.tokens_first(qkv_gradient_pd, parts=3)
        qkv_grad, qkv_bias_grad = qkv_gradient_tw.t() @ states_tw, qkv_gradient_tw.sum(0)
        input_gradient_tw = _product(qkv_gradient_tw, qkv_weight.t()).add_(input_gradient_tw)
        of_qkv = [part for pair in zip(qkv_grad.chunk(3), qkv_bias_grad.chunk(3), strict=True) for part in pair]
        of_out = [out_gradient_tw.t() @ attended_tw, out_gradient_tw.sum(0)]
        of_both = [up_grad, up_bias_grad, down_grad, down_bias_grad]
        return input_gradient_tw, None, None, *of_qkv, *of_out, *of_both, *first_norm, *second_norm

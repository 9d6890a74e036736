"""A transformer layer as one function, differentiated by hand: the fastest training on a CPU in float32.

About thirty nodes of autograd's graph become one. The three projections of attention are one matrix product, the wide
tensors of the feed-forward pass stay in the cache in slices of rows, activations are recomputed instead of kept, and
products run on oneDNN, which is faster if the left matrix is not transposed.

`layer_parts.py` says which models can be fused; `packing.py` probes that the result is that of the padded forward.

Tensor names: t = tokens, w = width of the model, f = width of the feed-forward pass, p = rows with heads first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers.activations import GELUActivation

from stfit.encoder.kernels.attention import BlockLayout, Packing, attend_backward, attend_blocks
from stfit.encoder.kernels.dropout import dropout_mask, kept_scale
from stfit.encoder.kernels.layer_parts import BackboneParts, LayerParts, find_parts

FEED_FORWARD_ROWS = 512


@dataclass(frozen=True)
class LayerSettings:
    """What a layer needs besides its weights. Dropout rates are 0 in evaluation; pairs are attention, feed-forward."""

    num_heads: int
    scale: float
    attention_dropout: float
    hidden_dropouts: tuple[float, float]
    epsilons: tuple[float, float]


def fuse_layers(backbone: nn.Module) -> BackboneParts | None:
    """Run every layer of `backbone` as one function; returns its parts, None if it can't be fused."""
    parts = find_parts(backbone)
    if parts is None or any(type(layer.activation) is not GELUActivation for layer in parts.layers):
        return None
    for layer_parts in parts.layers:
        layer_parts.layer.forward = partial(_run_layer, layer_parts, layer_parts.layer.forward)
    return parts


def _run_layer(parts: LayerParts, unfused: Callable[..., Any], states: Tensor, *args: Any, **options: Any) -> Any:
    """[1, t, w] -> [1, t, w]. Padded input, autocast and GPUs take the model's own forward pass."""
    packing: Packing | None = options.get("packing")
    if packing is None or states.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return unfused(states, *args, **options)
    dropouts = (parts.attention_dropout, parts.hidden_dropouts) if parts.layer.training else (0.0, (0.0, 0.0))
    settings = LayerSettings(parts.num_heads, parts.scale, *dropouts, (parts.attention_norm.eps, parts.output_norm.eps))
    weights = [weight for module in (*parts.linears, *parts.norms) for weight in (module.weight, module.bias)]
    arguments = states[0], options.get("bias"), packing.blocks(settings.num_heads), settings, *weights
    output_tw: Tensor = PostNormLayer.apply(*arguments)  # type: ignore[no-untyped-call]
    return output_tw[None]


def _product(left: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Left @ weight^T + bias, by oneDNN for float32: some 10 % faster than the BLAS behind torch.mm, which varies."""
    if left.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(left, weight, bias, "none", [], "")
    return functional.linear(left, weight, bias)


def _drop_and_add(branch_tw: Tensor, residual_tw: Tensor, rate: float) -> tuple[Tensor, Tensor | None]:
    """Residual + dropout(branch), and the mask of what is kept (None without dropout)."""
    if rate == 0:
        return branch_tw.add_(residual_tw), None
    kept_tw = dropout_mask(branch_tw.numel(), rate).view_as(branch_tw)
    return torch.addcmul(residual_tw, branch_tw, kept_tw.to(branch_tw.dtype), value=kept_scale(rate)), kept_tw


def _dropout_backward(gradient_tw: Tensor, kept_tw: Tensor | None, rate: float) -> Tensor:
    return gradient_tw if kept_tw is None else (gradient_tw * kept_tw).mul_(kept_scale(rate))


class PostNormLayer(torch.autograd.Function):
    """Attention and a feed-forward pass, each with dropout, a residual and a norm after it."""

    @staticmethod
    def forward(
        ctx: Any,
        states_tw: Tensor,
        bias_hll: Tensor | None,
        blocks: BlockLayout,
        settings: LayerSettings,
        *weights: Tensor,
    ) -> Tensor:
        """[t, w] -> [t, w]; `weights` are weight and bias of each of `LayerParts.linears`, then of its norms.

        `bias_hll` is added to the scores of attention.
        """
        qkv_weight, qkv_bias = torch.cat(weights[0:6:2]), torch.cat(weights[1:6:2])
        out_weight, out_bias, up_weight, up_bias, down_weight, down_bias, *norms = weights[6:]
        width = [states_tw.shape[1]]
        attention_rate, feed_forward_rate = settings.hidden_dropouts

        qkv_pd = blocks.heads_first(_product(states_tw, qkv_weight, qkv_bias), parts=3)
        attended_pd, attention = attend_blocks(qkv_pd, blocks, settings.scale, settings.attention_dropout, bias_hll)
        attended_tw = blocks.tokens_first(attended_pd)
        projected_tw = _product(attended_tw, out_weight, out_bias)
        first_tw, kept_first_tw = _drop_and_add(projected_tw, states_tw, attention_rate)
        middle_tw, *first_stats = torch.native_layer_norm(first_tw, width, norms[0], norms[1], settings.epsilons[0])

        up, down = [], []
        for rows_tw in middle_tw.split(FEED_FORWARD_ROWS):
            up.append(_product(rows_tw, up_weight, up_bias))
            down.append(_product(functional.gelu(up[-1]), down_weight, down_bias))
        second_tw, kept_second_tw = _drop_and_add(torch.cat(down), middle_tw, feed_forward_rate)
        output_tw, *second_stats = torch.native_layer_norm(second_tw, width, norms[2], norms[3], settings.epsilons[1])

        ctx.blocks, ctx.settings, ctx.attention, ctx.up = blocks, settings, attention, up
        ctx.bias_shape = None if bias_hll is None else bias_hll.shape
        ctx.save_for_backward(states_tw, qkv_weight, out_weight, up_weight, down_weight, *norms)
        ctx.kept = qkv_pd, attended_tw, first_tw, first_stats, middle_tw, second_tw, second_stats
        ctx.masks = kept_first_tw, kept_second_tw
        return output_tw

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_tw: Tensor) -> tuple[Tensor | None, ...]:
        states_tw, qkv_weight, out_weight, up_weight, down_weight, *norms = ctx.saved_tensors
        qkv_pd, attended_tw, first_tw, first_stats, middle_tw, second_tw, second_stats = ctx.kept
        blocks: BlockLayout = ctx.blocks
        attention_rate, feed_forward_rate = ctx.settings.hidden_dropouts
        width, all_gradients = [states_tw.shape[1]], [True, True, True]

        middle_gradient_tw, *second_norm = torch.ops.aten.native_layer_norm_backward(
            gradient_tw.contiguous(), second_tw, width, *second_stats, norms[2], norms[3], all_gradients
        )
        down_gradient_tw = _dropout_backward(middle_gradient_tw, ctx.masks[1], feed_forward_rate)
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
            middle_gradient_tw, first_tw, width, *first_stats, norms[0], norms[1], all_gradients
        )
        out_gradient_tw = _dropout_backward(input_gradient_tw, ctx.masks[0], attention_rate)
        attended_gradient_pd = blocks.heads_first(_product(out_gradient_tw, out_weight.t()))
        bias_grad = ctx.bias_shape and gradient_tw.new_zeros(ctx.bias_shape)
        qkv_gradient_pd = attend_backward(attended_gradient_pd, qkv_pd, blocks, *ctx.attention, bias_grad)
        qkv_gradient_tw = blocks.tokens_first(qkv_gradient_pd, parts=3)
        qkv_grad, qkv_bias_grad = qkv_gradient_tw.t() @ states_tw, qkv_gradient_tw.sum(0)
        input_gradient_tw = _product(qkv_gradient_tw, qkv_weight.t()).add_(input_gradient_tw)
        qkv_grads = [part for pair in zip(qkv_grad.chunk(3), qkv_bias_grad.chunk(3), strict=True) for part in pair]
        out_grads = [out_gradient_tw.t() @ attended_tw, out_gradient_tw.sum(0)]
        feed_forward_grads = [up_grad, up_bias_grad, down_grad, down_bias_grad]
        return (
            input_gradient_tw,
            bias_grad,
            None,
            None,
            *qkv_grads,
            *out_grads,
            *feed_forward_grads,
            *first_norm,
            *second_norm,
        )

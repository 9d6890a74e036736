"""A transformer layer as one function, differentiated by hand: the fastest training on a CPU.

About thirty nodes of autograd's graph become one. The three projections of attention are one matrix product, the wide
tensors of the feed-forward pass stay in the cache in slices of rows, activations are recomputed instead of kept, and
products run on oneDNN, which is faster if the left matrix is not transposed.

In bfloat16, the inputs and results of products have that type, and so have the activations kept for the backward pass.
Weights, residuals, norms, the softmax of attention and sums over rows stay in float32.

`layer_parts.py` says which models can be fused; `packing.py` probes that the result is that of the padded forward.

Tensor names: t = tokens, w = width of the model, f = width of the feed-forward pass, p = rows with heads first,
d = dim of a head, h = heads, l = positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers.activations import GELUActivation

from stfit.encoder.kernels.attention import attend_backward, attend_blocks
from stfit.encoder.kernels.blocks import BlockLayout, Packing
from stfit.encoder.kernels.dropout import dropout_mask, kept_scale
from stfit.encoder.kernels.layer_parts import BackboneParts, LayerParts, find_parts
from stfit.encoder.kernels.relations import Distances, Relations, sum_dtype


def _is_zen_5() -> bool:
    """Of the CPUs of AMD, on which MKL takes its kernels for AVX2, those that multiply 512 bits at once."""
    describe = getattr(torch.cpu, "get_capabilities", dict)  # newer than the oldest supported torch
    capabilities: dict[str, Any] = describe()
    return "AMD" in capabilities.get("cpu_name", "") and capabilities.get("avx512_vp2intersect", False)


SLICE_ROWS = 1024
"""Rows of the wide tensors of a feed-forward pass that are activated at once, and stay in the cache."""

TRANSPOSES_PAY = _is_zen_5()
"""Whether weight gradients are faster by oneDNN, with transposed copies of both matrices, than by torch.mm (MKL).

Measured: 2 times on a Zen 5; 0.7 times on a Zen 4, which has AVX-512 in halves, and 0.8 times on an EPYC with AVX2.
"""

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines [t, 1, d / 2]."""
Weights = Sequence[Any]
"""Weight and bias of one module after another, Tensor or None."""


@dataclass(frozen=True)
class LayerSettings:
    """What a layer needs besides its weights. Dropout rates are 0 in evaluation; pairs are attention, feed-forward."""

    num_heads: int
    scale: float
    attention_dropout: float
    hidden_dropouts: tuple[float, float]
    epsilons: tuple[float, float]
    dtype: torch.dtype = torch.float32
    """Data type of the products."""
    projections: int = 3
    """Number of linear maps that give query, key and value."""
    norm_first: bool = False
    gated: bool = False


def fuse_layers(backbone: nn.Module) -> BackboneParts | None:
    """Run every layer of `backbone` as one function; returns its parts, None if it can't be fused."""
    parts = find_parts(backbone)
    if parts is None or any(type(layer.activation) is not GELUActivation for layer in parts.layers):
        return None
    for layer_parts in parts.layers:
        layer_parts.layer.forward = partial(_run_layer, layer_parts, layer_parts.layer.forward)
    return parts


def _run_layer(parts: LayerParts, unfused: Callable[..., Any], states: Tensor, *args: Any, **options: Any) -> Any:
    """[1, t, w] -> [1, t, w]. Padded input and what `can_run_fused` excludes take the model's own forward pass."""
    packing: Packing | None = options.get("packing")
    if packing is None or not can_run_fused(states.device):
        return unfused(states, *args, **options)
    dropouts = (parts.attention_dropout, parts.hidden_dropouts) if parts.layer.training else (0.0, (0.0, 0.0))
    first, second = (getattr(norm, "eps", 0.0) for norm in parts.norms)
    settings = LayerSettings(
        parts.num_heads,
        parts.scale,
        *dropouts,
        (first, second),
        torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else states.dtype,
        len(parts.projections),
        parts.norm_first,
        parts.gated,
    )
    modules = (*parts.linears, *parts.norms)
    weights = [getattr(module, name, None) for module in modules for name in ("weight", "bias")]
    relations = (options.get(name) for name in ("bias", "distances", "rotation"))
    arguments = states[0], *relations, packing.blocks(settings.num_heads), settings, *weights
    with torch.autocast("cpu", enabled=False):
        output_tw: Tensor = FusedLayer.apply(*arguments)  # type: ignore[no-untyped-call]
    return output_tw[None]


def can_run_fused(device: torch.device) -> bool:
    """On a CPU, in float32 or under autocast to bfloat16."""
    is_supported = not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") == torch.bfloat16
    return device.type == "cpu" and is_supported


def _has_onednn(left: Tensor) -> bool:
    return left.dtype == torch.float32 and torch.backends.mkldnn.is_available()


def _product(left: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Left @ weight^T + bias, by oneDNN for float32: some 10 % faster than the BLAS behind torch.mm, which varies."""
    if _has_onednn(left):
        return torch.ops.mkldnn._linear_pointwise(left, weight, bias, "none", [], "")
    return functional.linear(left, weight, bias)


def _weight_gradient(gradient_to: Tensor, states_ti: Tensor) -> Tensor:
    """Gradient^T @ states, at least in float32."""
    if TRANSPOSES_PAY and _has_onednn(gradient_to):
        return _product(gradient_to.t().contiguous(), states_ti.t().contiguous())
    result_oi = gradient_to.t() @ states_ti
    return result_oi.to(sum_dtype(result_oi.dtype))


def _to_dtype(weights: Weights, dtype: torch.dtype) -> list[Any]:
    return [None if weight is None else weight.to(dtype) for weight in weights]


def _sum_rows(gradient: Tensor, bias: Tensor | None) -> Tensor | None:
    return None if bias is None else gradient.to(sum_dtype(gradient.dtype)).sum(0)


def _drop_and_add(branch_tw: Tensor, residual_tw: Tensor, rate: float) -> tuple[Tensor, Tensor | None]:
    """Residual + dropout(branch), and the mask of what is kept (None without dropout)."""
    if rate == 0:
        return residual_tw + branch_tw, None
    kept_tw = dropout_mask(branch_tw.numel(), rate).view_as(branch_tw)
    return torch.addcmul(
        residual_tw, branch_tw.to(residual_tw.dtype), kept_tw.to(residual_tw.dtype), value=kept_scale(rate)
    ), kept_tw


def _dropout_backward(gradient_tw: Tensor, kept_tw: Tensor | None, rate: float) -> Tensor:
    return gradient_tw if kept_tw is None else (gradient_tw * kept_tw.to(gradient_tw.dtype)).mul_(kept_scale(rate))


class _Norm:
    """A layer norm, or nothing if it has no weight."""

    def __init__(self, weights: Weights, epsilon: float) -> None:
        self.weight, self.bias = weights
        self.epsilon = epsilon

    def __call__(self, states_tw: Tensor) -> Tensor:
        if self.weight is None:
            return states_tw
        self.input, width = states_tw, [states_tw.shape[1]]
        output_tw, *self.stats = torch.native_layer_norm(states_tw, width, self.weight, self.bias, self.epsilon)
        return output_tw

    def backward(self, gradient_tw: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Gradients of the input, the weight and the bias."""
        if self.weight is None:
            return gradient_tw, None, None
        gradient_tw, width = gradient_tw.to(self.input.dtype).contiguous(), [gradient_tw.shape[1]]
        wanted = [True, True, self.bias is not None]
        return torch.ops.aten.native_layer_norm_backward(
            gradient_tw, self.input, width, *self.stats, self.weight, self.bias, wanted
        )


class _Attention:
    """Self-attention of [t, w], with its output projection."""

    def __init__(
        self,
        weights: Weights,
        blocks: BlockLayout,
        settings: LayerSettings,
        bias_hll: Tensor | None,
        distances_rw: Tensor | None,
        rotation: Rotation | None,
    ) -> None:
        *projections, self.out_weight, self.out_bias = _to_dtype(weights, settings.dtype)
        self.count = settings.projections
        self.weight = torch.cat(projections[0::2])
        self.bias = None if projections[1] is None else torch.cat(projections[1::2])
        self.blocks, self.settings, self.distances_rw, self.rotation = blocks, settings, distances_rw, rotation
        self.relations = Relations(bias_hll)

    def __call__(self, states_tw: Tensor) -> Tensor:
        tokens = len(states_tw)
        rows_rw = states_tw if self.distances_rw is None else torch.cat([states_tw, self.distances_rw])
        self.input = rows_rw.to(self.weight.dtype)
        qkv_tw = _product(self.input, self.weight, self.bias)
        if self.rotation:
            rotate(qkv_tw, self.settings.num_heads, *self.rotation)
        if self.distances_rw is not None:
            rows = qkv_tw[tokens:].view(len(self.distances_rw), 3, self.settings.num_heads, -1)
            self.relations.distances = Distances(*rows.permute(1, 2, 0, 3)[:2].contiguous())
        self.qkv_pd = self.blocks.heads_first(qkv_tw[:tokens], parts=3)
        attended_pd, self.saved = attend_blocks(
            self.qkv_pd, self.blocks, self.settings.scale, self.settings.attention_dropout, self.relations
        )
        self.attended_tw = self.blocks.tokens_first(attended_pd)
        return _product(self.attended_tw, self.out_weight, self.out_bias)

    def backward(self, gradient_tw: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, list[Tensor | None]]:
        """Gradients of the input, of the bias of the scores, of the distances, and of the weights."""
        gradient_tw = gradient_tw.to(self.settings.dtype)
        out_grads = [_weight_gradient(gradient_tw, self.attended_tw), _sum_rows(gradient_tw, self.out_bias)]
        attended_gradient_pd = self.blocks.heads_first(_product(gradient_tw, self.out_weight.t()))
        qkv_gradient_pd = attend_backward(attended_gradient_pd, self.qkv_pd, self.blocks, *self.saved)
        qkv_gradient_tw = self.blocks.tokens_first(qkv_gradient_pd, parts=3)
        if self.relations.distances_grad:
            query_grad, key_grad = (grad.transpose(0, 1).flatten(1) for grad in self.relations.distances_grad)
            rows = torch.cat([query_grad, key_grad, torch.zeros_like(key_grad)], dim=1)
            qkv_gradient_tw = torch.cat([qkv_gradient_tw, rows.to(qkv_gradient_tw.dtype)])
        if self.rotation:
            rotate(qkv_gradient_tw, self.settings.num_heads, self.rotation[0], -self.rotation[1])
        weight_grads = _weight_gradient(qkv_gradient_tw, self.input).chunk(self.count)
        summed = _sum_rows(qkv_gradient_tw, self.bias)
        bias_grads = [None] * self.count if summed is None else summed.chunk(self.count)
        grads = [part for pair in zip(weight_grads, bias_grads, strict=True) for part in pair]
        input_gradient, tokens = _product(qkv_gradient_tw, self.weight.t()), len(gradient_tw)
        distances_grad = None if self.distances_rw is None else input_gradient[tokens:]
        return input_gradient[:tokens], self.relations.bias_grad_hll, distances_grad, [*grads, *out_grads]


def rotate(qkv_tw: Tensor, heads: int, cosines: Tensor, sines: Tensor) -> None:
    """Rotate query and key in place (Su et al., 2021, https://arxiv.org/abs/2104.09864)."""
    width = qkv_tw.shape[1] // 3
    first, second = qkv_tw[:, : 2 * width].view(len(qkv_tw), 2 * heads, width // heads).chunk(2, dim=-1)
    turned = first * sines
    first.mul_(cosines).addcmul_(second, sines, value=-1)
    second.mul_(cosines).add_(turned)


class _FeedForward:
    """down(gelu(up(states))); if gated, gelu of the first half of up(states) times the second."""

    def __init__(self, weights: Weights, settings: LayerSettings) -> None:
        self.up_weight, self.up_bias, self.down_weight, self.down_bias = _to_dtype(weights, settings.dtype)
        self.gated = settings.gated

    def __call__(self, states_tw: Tensor) -> Tensor:
        self.input = states_tw.to(self.up_weight.dtype)
        self.up = [_product(rows_tw, self.up_weight, self.up_bias) for rows_tw in self.input.split(SLICE_ROWS)]
        return torch.cat([_product(self._activate(rows_tf), self.down_weight, self.down_bias) for rows_tf in self.up])

    def _activate(self, rows_tf: Tensor) -> Tensor:
        if not self.gated:
            return functional.gelu(rows_tf)
        activated, gate = rows_tf.chunk(2, dim=1)
        return functional.gelu(activated).mul_(gate)

    def _activate_backward(self, gradient_tf: Tensor, rows_tf: Tensor, result_tf: Tensor) -> None:
        """Write the gradient of `rows_tf`, before the activation, to `result_tf`."""
        if not self.gated:
            torch.ops.aten.gelu_backward.grad_input(gradient_tf, rows_tf, grad_input=result_tf)
            return
        (activated, gate), (first, second) = rows_tf.chunk(2, dim=1), result_tf.chunk(2, dim=1)
        torch.mul(gradient_tf, functional.gelu(activated), out=second)
        first.copy_(torch.ops.aten.gelu_backward(gradient_tf.mul_(gate), activated))

    def backward(self, gradient_tw: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """Gradients of the input and of the weights."""
        gradient_tw = gradient_tw.to(self.input.dtype)
        activated_tf = gradient_tw.new_empty(len(gradient_tw), self.down_weight.shape[1])
        inner_tf = gradient_tw.new_empty(len(gradient_tw), len(self.up_weight))
        parts = (tensor.split(SLICE_ROWS) for tensor in (gradient_tw, activated_tf, inner_tf))
        for rows_tf, gradient, activated, inner in zip(self.up, *parts, strict=True):
            activated.copy_(self._activate(rows_tf))
            self._activate_backward(_product(gradient, self.down_weight.t()), rows_tf, inner)
        down_grads = [_weight_gradient(gradient_tw, activated_tf), _sum_rows(gradient_tw, self.down_bias)]
        up_grads = [_weight_gradient(inner_tf, self.input), _sum_rows(inner_tf, self.up_bias)]
        return _product(inner_tf, self.up_weight.t()), [*up_grads, *down_grads]


class FusedLayer(torch.autograd.Function):
    """Attention and a feed-forward pass, each with dropout, a residual, and a norm after it or before it."""

    @staticmethod
    def forward(
        ctx: Any,
        states_tw: Tensor,
        bias_hll: Tensor | None,
        distances_rw: Tensor | None,
        rotation: Rotation | None,
        blocks: BlockLayout,
        settings: LayerSettings,
        *weights: Tensor | None,
    ) -> Tensor:
        """[t, w] -> [t, w]; `weights` are weight and bias of each of `LayerParts.linears`, then of its norms.

        `bias_hll` is added to the scores of attention; `distances_rw` are states of distances, of which query and key
        are taken; `rotation` rotates query and key.
        """
        split = 2 * settings.projections + 2
        attention = _Attention(weights[:split], blocks, settings, bias_hll, distances_rw, rotation)
        feed_forward = _FeedForward(weights[split : split + 4], settings)
        norms = [
            _Norm(pair, epsilon)
            for pair, epsilon in zip((weights[-4:-2], weights[-2:]), settings.epsilons, strict=True)
        ]
        rates = settings.hidden_dropouts
        if settings.norm_first:
            middle_tw, kept_first = _drop_and_add(attention(norms[0](states_tw)), states_tw, rates[0])
            output_tw, kept_second = _drop_and_add(feed_forward(norms[1](middle_tw)), middle_tw, rates[1])
        else:
            first_tw, kept_first = _drop_and_add(attention(states_tw), states_tw, rates[0])
            middle_tw = norms[0](first_tw)
            second_tw, kept_second = _drop_and_add(feed_forward(middle_tw), middle_tw, rates[1])
            output_tw = norms[1](second_tw)
        ctx.parts, ctx.masks, ctx.settings = (attention, feed_forward, norms), (kept_first, kept_second), settings
        ctx.save_for_backward(*(weight for weight in weights if weight is not None))  # notices a change in place
        return output_tw

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_tw: Tensor) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors
        attention, feed_forward, norms = ctx.parts
        del ctx.parts  # activations of a layer are freed with its backward pass, not with that of the first layer
        rates = ctx.settings.hidden_dropouts
        if ctx.settings.norm_first:
            branch_tw, ff_grads = feed_forward.backward(_dropout_backward(gradient_tw, ctx.masks[1], rates[1]))
            middle_tw, *second_norm = norms[1].backward(branch_tw)
            middle_tw = middle_tw + gradient_tw
            branch_tw, *related, grads = attention.backward(_dropout_backward(middle_tw, ctx.masks[0], rates[0]))
            input_tw, *first_norm = norms[0].backward(branch_tw)
            input_tw = input_tw + middle_tw
        else:
            second_tw, *second_norm = norms[1].backward(gradient_tw)
            branch_tw, ff_grads = feed_forward.backward(_dropout_backward(second_tw, ctx.masks[1], rates[1]))
            first_tw, *first_norm = norms[0].backward(second_tw.add_(branch_tw))
            branch_tw, *related, grads = attention.backward(_dropout_backward(first_tw, ctx.masks[0], rates[0]))
            input_tw = first_tw.add_(branch_tw)
        return input_tw, *related, None, None, None, *grads, *ff_grads, *first_norm, *second_norm

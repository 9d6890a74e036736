"""A transformer layer with dropout, fused into one function, is its formula with the same masks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from stfit.encoder.kernels import fused_train
from stfit.encoder.kernels.blocks import Packing
from stfit.encoder.kernels.dropout import dropout_bits, dropout_mask, kept_scale
from stfit.encoder.kernels.fused_train import SLICE_ROWS, FusedLayer, LayerSettings

HEADS, WIDTH, INNER = 2, 8, 10
LENGTHS = np.array([3, 4, 4, 7, SLICE_ROWS])
POST = LayerSettings(HEADS, 0.5, 0.25, (0.125, 0.25), (1e-5, 1e-6), dtype=torch.float64)
CASES = {
    "BERT": (POST, set()),
    "MPNet": (POST, {"bias"}),
    "DeBERTa": (POST, {"distances"}),
    "ModernBERT": (
        replace(POST, projections=1, norm_first=True, gated=True),
        {"rotation", "no linear biases", "no norm biases"},
    ),
    "its first layer": (replace(POST, projections=1, norm_first=True, gated=True), {"rotation", "no first norm"}),
}


def draw(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def weights(settings: LayerSettings, traits: set[str]) -> list[torch.Tensor | None]:
    projections = [(3 * WIDTH // settings.projections, WIDTH)] * settings.projections
    shapes = [*projections, (WIDTH, WIDTH), (INNER * (1 + settings.gated), WIDTH), (WIDTH, INNER)]
    linears = [part for rows, columns in shapes for part in ((rows, columns), (rows,))]
    drawn = [draw(shape, seed).requires_grad_() for seed, shape in enumerate([*linears, *[(WIDTH,)] * 4])]
    missing = [i for i in range(1, len(linears), 2) if "no linear biases" in traits]
    missing += [len(drawn) - 3, len(drawn) - 1] if "no norm biases" in traits else []
    missing += [len(drawn) - 4, len(drawn) - 3] if "no first norm" in traits else []
    return [None if i in missing else weight for i, weight in enumerate(drawn)]


def angles() -> tuple[torch.Tensor, torch.Tensor]:
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    turned = positions[:, None, None] * torch.tensor([1.0, 0.3], dtype=torch.float64)
    return turned.cos(), turned.sin()


def rotated(states, cosines, sines):
    """As complex numbers: each pair of the first and the second half is turned by its angle."""
    pairs = torch.complex(*states.to(cosines.dtype).chunk(2, dim=-1)) * torch.complex(cosines, sines)
    return torch.cat([pairs.real, pairs.imag], dim=-1).to(states.dtype)


def formula(settings, states, bias, distances, rotation, all_weights):
    """The layer by torch's own pieces, drawing its masks in the same order."""
    *linears, first_norm, second_norm = zip(all_weights[0::2], all_weights[1::2], strict=True)
    *projections, out, up, down = linears

    def attention(inputs):
        def projected(rows):
            qkv = torch.cat([functional.linear(rows, *pair) for pair in projections], dim=1)
            return (part.view(-1, HEADS, WIDTH // HEADS) for part in qkv.chunk(3, dim=1))

        q, k, v = projected(inputs)
        q, k = (part if rotation is None else rotated(part, *rotation) for part in (q, k))
        blocks = Packing(LENGTHS).blocks(HEADS)
        flat = dropout_mask(sum(block.scores for block in blocks.blocks), settings.attention_dropout)
        attended, start = [], 0
        for block, kept in zip(blocks.blocks, flat.split([block.scores for block in blocks.blocks]), strict=True):
            for mask in kept.view(block.count, HEADS, block.length, block.length):
                rows = slice(start, start + LENGTHS[len(attended)])
                length = rows.stop - rows.start
                scores = torch.einsum("qhd,khd->hqk", q[rows], k[rows])
                if distances is not None:
                    position = torch.arange(length)
                    apart = position[:, None] - position + LENGTHS.max() - 1
                    of_query, of_key, _ = (part[apart] for part in projected(distances))
                    scores = scores + torch.einsum("qhd,qkhd->hqk", q[rows], of_key)
                    scores = scores + torch.einsum("khd,qkhd->hqk", k[rows], of_query)
                scores = scores * settings.scale
                scores = scores if bias is None else scores + bias[:, :length, :length]
                weighted = scores.softmax(-1) * mask[:, :length, :length] * kept_scale(settings.attention_dropout)
                attended.append(torch.einsum("hqk,khd->qhd", weighted, v[rows]).reshape(length, WIDTH))
                start = rows.stop
        return functional.linear(torch.cat(attended), *out)

    def feed_forward(inputs):
        inner = functional.linear(inputs, *up)
        if settings.gated:
            activated, gate = inner.chunk(2, dim=1)
            return functional.linear(functional.gelu(activated) * gate, *down)
        return functional.linear(functional.gelu(inner), *down)

    def added(branch, residual, rate):
        kept = dropout_mask(branch.numel(), rate).view_as(branch)
        return residual + branch * kept * kept_scale(rate)

    def norm(inputs, pair, epsilon):
        return inputs if pair[0] is None else functional.layer_norm(inputs, [WIDTH], *pair, epsilon)

    (rate, other_rate), (epsilon, other_epsilon) = settings.hidden_dropouts, settings.epsilons
    if settings.norm_first:
        middle = added(attention(norm(states, first_norm, epsilon)), states, rate)
        return added(feed_forward(norm(middle, second_norm, other_epsilon)), middle, other_rate)
    middle = norm(added(attention(states), states, rate), first_norm, epsilon)
    return norm(added(feed_forward(middle), middle, other_rate), second_norm, other_epsilon)


def fused(settings, states, bias, distances, rotation, all_weights):
    return FusedLayer.apply(states, bias, distances, rotation, Packing(LENGTHS).blocks(HEADS), settings, *all_weights)


@pytest.mark.parametrize("learned", ["all", "no query"])
@pytest.mark.parametrize(("settings", "traits"), CASES.values(), ids=CASES)
def test_values_and_gradients_equal_the_formula(settings, traits, learned: str) -> None:
    gradients = []
    for layer in (fused, formula):
        dropout_bits.seed(5)
        states = draw((int(LENGTHS.sum()), WIDTH), 100).requires_grad_()
        bias = draw((HEADS, LENGTHS.max(), LENGTHS.max()), 101).requires_grad_() if "bias" in traits else None
        distances = draw((2 * LENGTHS.max() - 1, WIDTH), 102).requires_grad_() if "distances" in traits else None
        given = weights(settings, traits)
        if learned == "no query":
            given[0].requires_grad_(False)
        output = layer(settings, states, bias, distances, angles() if "rotation" in traits else None, given)
        (output * torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output)).sum().backward()
        inputs = [states, bias, distances, *given]
        gradients.append([output.detach(), *(None if tensor is None else tensor.grad for tensor in inputs)])
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("transposed", [True, False])
def test_weight_gradients_are_the_same_by_either_library(monkeypatch, transposed: bool) -> None:
    monkeypatch.setattr(fused_train, "TRANSPOSES_PAY", transposed)
    gradient, states = (draw(shape, seed).float() for seed, shape in enumerate([(7, 5), (7, 6)]))
    expected = (gradient.double().t() @ states.double()).float()
    torch.testing.assert_close(fused_train._weight_gradient(gradient, states), expected)


def in_autocast(*arguments):
    with torch.autocast("cpu", torch.bfloat16):
        return formula(*arguments)


@pytest.mark.parametrize(("settings", "traits"), CASES.values(), ids=CASES)
def test_bfloat16_rounds_no_more_than_autocast(settings, traits) -> None:
    gradients = []
    for layer, dtype in ((formula, torch.float64), (fused, torch.bfloat16), (in_autocast, torch.bfloat16)):
        dropout_bits.seed(5)
        wide = torch.promote_types(dtype, torch.float32)
        states = draw((int(LENGTHS.sum()), WIDTH), 100)
        bias = draw((HEADS, LENGTHS.max(), LENGTHS.max()), 101) if "bias" in traits else None
        distances = draw((2 * LENGTHS.max() - 1, WIDTH), 102) if "distances" in traits else None
        drawn = states, bias, distances, *weights(settings, traits)
        inputs = [None if tensor is None else tensor.detach().to(wide).requires_grad_() for tensor in drawn]
        rotation = tuple(part.to(wide) for part in angles()) if "rotation" in traits else None
        output = layer(replace(settings, dtype=dtype), *inputs[:3], rotation, inputs[3:])
        (output * torch.linspace(-1, 1, output.numel(), dtype=wide).view_as(output)).sum().backward()
        assert output.dtype == wide
        gradients.append([output.detach(), *(tensor.grad for tensor in inputs if tensor is not None)])
    for exact, in_fused, in_autocasted in zip(*gradients, strict=True):
        assert (exact - in_fused).norm() <= 2 * (exact - in_autocasted).norm()
    assert not torch.equal(gradients[0][0].float(), gradients[1][0])

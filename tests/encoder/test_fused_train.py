"""A transformer layer with dropout, fused into one function, is its formula with the same masks."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from stfit.encoder.kernels.attention import Packing
from stfit.encoder.kernels.dropout import dropout_bits, dropout_mask, kept_scale
from stfit.encoder.kernels.fused_train import FEED_FORWARD_ROWS, LayerSettings, PostNormLayer

HEADS, WIDTH, INNER = 2, 6, 10
LENGTHS = np.array([3, 4, 4, 7, FEED_FORWARD_ROWS])
SETTINGS = LayerSettings(HEADS, 0.5, 0.25, (0.125, 0.25), (1e-5, 1e-6))


def weights() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = [(WIDTH, WIDTH)] * 4 + [(INNER, WIDTH), (WIDTH, INNER)]
    linears = [part for rows, columns in shapes for part in ((rows, columns), (rows,))]
    norms = [(WIDTH,)] * 4
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in [*linears, *norms]
    ]


def formula(states, bias, all_weights):
    """The layer by torch's own pieces, drawing its masks in the same order."""
    query, key, value, out, up, down = zip(all_weights[0:12:2], all_weights[1:12:2], strict=True)
    blocks = Packing(LENGTHS).blocks(HEADS)
    q, k, v = (functional.linear(states, *pair).view(-1, HEADS, WIDTH // HEADS) for pair in (query, key, value))
    flat = dropout_mask(sum(block.scores for block in blocks.blocks), SETTINGS.attention_dropout)
    attended, start = [], 0
    for block, kept in zip(blocks.blocks, flat.split([block.scores for block in blocks.blocks]), strict=True):
        for mask in kept.view(block.count, HEADS, block.length, block.length):
            rows = slice(start, start + LENGTHS[len(attended)])
            length = rows.stop - rows.start
            scores = torch.einsum("qhd,khd->hqk", q[rows], k[rows]) * SETTINGS.scale
            scores = scores if bias is None else scores + bias[:, :length, :length]
            weighted = scores.softmax(-1) * mask[:, :length, :length] * kept_scale(SETTINGS.attention_dropout)
            attended.append(torch.einsum("hqk,khd->qhd", weighted, v[rows]).reshape(length, WIDTH))
            start = rows.stop

    def added(branch, residual, rate):
        kept = dropout_mask(branch.numel(), rate).view_as(branch)
        return residual + branch * kept * kept_scale(rate)

    middle = added(functional.linear(torch.cat(attended), *out), states, SETTINGS.hidden_dropouts[0])
    middle = functional.layer_norm(middle, [WIDTH], *all_weights[12:14], SETTINGS.epsilons[0])
    inner = functional.gelu(functional.linear(middle, *up))
    output = added(functional.linear(inner, *down), middle, SETTINGS.hidden_dropouts[1])
    return functional.layer_norm(output, [WIDTH], *all_weights[14:16], SETTINGS.epsilons[1])


def fused(states, bias, all_weights):
    return PostNormLayer.apply(states, bias, Packing(LENGTHS).blocks(HEADS), SETTINGS, *all_weights)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("learnt", ["all", "no query"])
def test_values_and_gradients_equal_the_formula(learnt: str, with_bias: bool) -> None:
    gradients = []
    for layer in (fused, formula):
        dropout_bits.seed(5)
        states = torch.randn(
            LENGTHS.sum(), WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64
        ).requires_grad_()
        given = weights()
        if learnt == "no query":
            given[0].requires_grad_(False)
        shape = (HEADS, LENGTHS.max(), LENGTHS.max())
        bias = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
        output = layer(states, bias if with_bias else None, given)
        (output * torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output)).sum().backward()
        gradients.append([output.detach(), states.grad, bias.grad, *(weight.grad for weight in given)])
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)

"""Gradient caching changes the memory that a step takes, and nothing else."""

import itertools

import numpy as np
import pytest
import torch
from draws import every
from own_loss import own_loss

from stfit.data.source import ROLES
from stfit.losses.ranking import MultipleNegativesRanking
from stfit.losses.registry import LOSSES
from stfit.losses.terms import LossTerms
from stfit.runtime.timer import Timer
from stfit.training.gradients import (
    backward,
    build_splitter,
    compute_loss_terms,
    embed,
)
from stfit.training.rng import capture_rng, seed_everything

CUTS = {"rows": build_splitter(rows=2), "tokens": build_splitter(tokens=40)}
every_cut = pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
every_loss = pytest.mark.parametrize("choice", every(3, LOSSES), ids=lambda choice: choice.tag())


def learning(build, make_batch, choice, **settings):
    """Encoder, loss (with its weights, where it has any) and batch, in float64."""
    encoder = build(layers=["normalize"], **settings).double().train()
    taught = choice.fits[-1].label == "teacher"
    loss = LossTerms([choice(**({"teacher": "./teacher"} if taught else {}))], encoder.embedding_dim, 3).double()
    fit = choice.fits[-1]
    return encoder, loss, make_batch(encoder, ROLES[fit.format], fit.label)


def gradients(encoder, loss):
    """Gradients by name; the learner starts without any again."""
    gradients = {}
    for module in (encoder, loss):
        gradients |= {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}
        module.zero_grad(set_to_none=True)
    assert any(gradient.abs().max() > 1e-6 for gradient in gradients.values())
    return gradients


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-9, atol=1e-11, msg=name)


def everything(batch):
    return np.arange(len(batch.sequences))


def half(loss):
    return loss * 0.5


@every_cut
@every_loss
def test_cached_gradients_with_dropout_equal_those_of_the_same_mini_batches_with_their_graph_kept(
    build, make_batch, choice, cut
):
    encoder, loss, batch = learning(build, make_batch, choice)
    assert encoder.has_dropout
    seed_everything(5)
    value = backward(encoder, loss, batch, cut, half, Timer()).terms
    cached = gradients(encoder, loss)
    seed_everything(5)
    parts = cut(batch, everything(batch))
    expected = compute_loss_terms(torch.cat([embed(encoder, batch, part) for part in parts]), batch, loss)
    half(expected.sum()).backward()
    torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=0)
    assert_equal(cached, gradients(encoder, loss))


@every_cut
@every_loss
def test_cached_gradients_without_dropout_equal_those_in_one_piece(build, make_batch, choice, cut):
    encoder, loss, batch = learning(build, make_batch, choice, dropout=0.0)
    whole = backward(encoder, loss, batch, build_splitter(), half, Timer()).terms
    expected = gradients(encoder, loss)
    assert len(cut(batch, everything(batch))) > 1
    value = backward(encoder, loss, batch, cut, half, Timer()).terms
    torch.testing.assert_close(value, whole, rtol=1e-12, atol=0)
    assert_equal(gradients(encoder, loss), expected)


def test_dropout_layers_after_pooling_are_repeated_too(build, make_batch):
    encoder = build(layers=["dropout"]).double().train()
    loss, batch = LossTerms([MultipleNegativesRanking()], 32), make_batch(encoder, ("anchor", "positive"))
    seed_everything(5)
    backward(encoder, loss, batch, build_splitter(rows=1), half, Timer())
    cached = gradients(encoder, loss)
    seed_everything(5)
    parts = build_splitter(rows=1)(batch, everything(batch))
    half(compute_loss_terms(torch.cat([embed(encoder, batch, part) for part in parts]), batch, loss).sum()).backward()
    assert_equal(cached, gradients(encoder, loss))


def test_caching_draws_as_much_randomness_as_embedding_once(build, make_batch):
    encoder, loss, batch = learning(build, make_batch, MultipleNegativesRanking)
    seed_everything(5)
    backward(encoder, loss, batch, build_splitter(rows=2), half, Timer())
    cached = capture_rng()
    seed_everything(5)
    for part in build_splitter(rows=2)(batch, everything(batch)):
        embed(encoder, batch, part)
    plain = capture_rng()
    assert all(torch.equal(cached[name], plain[name]) for name in plain)


def test_missing_texts_are_a_row_of_zeros_and_take_no_gradient(build, make_batch):
    encoder = build(dropout=0.0).double().train()
    batch = make_batch(encoder, ("anchor", "positive", "negative"))
    batch.columns["negative"][2:] = -1
    seen = {}

    def squares(columns, label):
        seen.update(columns)
        return sum((vectors**2).sum() for vectors in columns.values())

    loss = own_loss(squares)

    backward(encoder, loss, batch, build_splitter(), half, Timer())
    expected = gradients(encoder, loss)
    assert not seen["negative"][2:].any()
    assert seen["negative"][:2].abs().sum() > 0
    backward(encoder, loss, batch, build_splitter(rows=1), half, Timer())
    assert_equal(gradients(encoder, loss), expected)


@pytest.mark.parametrize("tokens", [1, 7, 25, 10_000])
def test_mini_batches_by_tokens_hold_every_sequence_once_and_no_more_than_asked(build, make_batch, tokens):
    batch = make_batch(build(), ("anchor", "positive"))
    parts = build_splitter(tokens=tokens)(batch, everything(batch))
    assert np.array_equal(np.concatenate(parts), everything(batch))
    lengths = np.array([len(sequence) for sequence in batch.sequences])
    for part in parts:
        assert len(part) == 1 or lengths[part].sum() <= tokens
    for part, after in itertools.pairwise(parts):
        assert lengths[part].sum() + lengths[after[0]] > tokens


def test_recipe_without_mini_batches_embeds_everything_at_once(build, make_batch):
    batch = make_batch(build(), ("anchor", "positive"))
    all_sequences = everything(batch)
    assert [part.tolist() for part in build_splitter(None, None)(batch, all_sequences)] == [list(range(12))]
    assert len(build_splitter(2, None)(batch, all_sequences)) == 3
    assert len(build_splitter(None, 1)(batch, all_sequences)) == 12

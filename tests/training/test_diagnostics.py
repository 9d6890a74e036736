"""A run that learns nothing is said by name, once, and one that learns is left alone."""

import pytest
import torch
from own_loss import own_loss

from stfit.losses.ranking import MultipleNegativesRanking
from stfit.losses.terms import LossTerms
from stfit.training.diagnostics import Diagnostics
from stfit.training.gradients import build_splitter
from stfit.training.loop import build_train_objects, train_steps

RANKING = LossTerms([MultipleNegativesRanking()], 32)


@pytest.fixture
def problems(make_batch):
    """Codes of what is said in a few steps of an encoder."""

    def watch(encoder, loss=RANKING, steps=12):
        health, batch = Diagnostics(steps), make_batch(encoder, ("anchor", "positive"))
        learner = build_train_objects(encoder, [loss], 0.0, [])
        infos = train_steps(
            learner, [[(0, batch)]] * steps, lambda step: 1e-4, first_step=0, split=build_splitter(), max_grad_norm=1.0
        )
        return [problem.code for info in infos for problem in health.check_step(info)]

    return watch


def test_run_that_learns_is_left_alone(build, problems):
    assert problems(build()) == []


@pytest.mark.parametrize("steps", [1, 3, 12])
def test_loss_without_gradient_is_named_once(build, problems, steps):
    assert problems(build(), own_loss(lambda columns, label: columns["anchor"].sum() * 0), steps) == ["zero-gradient"]


def test_base_that_gives_every_text_the_same_embedding_is_named_once(build, problems):
    encoder = build(dropout=0.0)
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            if name.endswith("layer.1.output.LayerNorm.weight"):
                weight.zero_()
        encoder.backbone.encoder.layer[1].output.LayerNorm.bias.fill_(1.0)
    encoder.backbone.encoder.layer[1].output.LayerNorm.weight.requires_grad_(False)
    assert "constant-embeddings" in problems(encoder)


def test_zero_embedding_takes_nothing_from_the_gradients_of_the_others(build, make_batch):
    """With a normalised embedding: an epsilon in place of its norm would make its gradient a million million times."""
    from stfit.encoder.modules import UnitLength

    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    unit = UnitLength()(vectors)
    assert unit.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]
    (unit * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
    assert vectors.grad[1].tolist() == [0.0, 0.0]
    assert vectors.grad[0].norm() > 0.01

"""The same batches in one process or in several: the same losses, and the same weights."""

import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from draws import every
from processes import run_group
from torch.distributed.fsdp import FSDPModule

from stfit.data.source import ROLES
from stfit.distributed import all_gather_object, all_gather_rows, partition, rank
from stfit.errors import RecipeError
from stfit.losses.distillation import MarginMSE
from stfit.losses.orthogonal import GlobalOrthogonalRegularization
from stfit.losses.ranking import MultipleNegativesRanking
from stfit.losses.registry import LOSSES
from stfit.losses.terms import LossTerms
from stfit.training.fsdp import shard
from stfit.training.gradients import build_splitter
from stfit.training.loop import build_train_objects, train_steps, trainable_modules
from stfit.training.rng import seed_everything

LESSONS = [(choice, choice.fits[-1]) for choice in LOSSES]
"""A loss, and data that it learns from: of the teachers, those with most columns."""
TEXTS_ALONE = [(choice, fit) for choice in LOSSES for fit in choice.fits if fit.format == "text"]
TAUGHT = [(choice, fit) for choice, fit in LESSONS if fit.label == "teacher"]
ADAPTERS = {"lora": {"rank": 2}}
CUTS = {
    "in one piece": build_splitter(),
    "gradient caching by rows": build_splitter(rows=1),
    "by tokens": build_splitter(tokens=12),
}


def first_rows(batch, count):
    """A smaller batch of the same examples."""
    places = np.stack([column[:count] for column in batch.columns.values()])
    used, index = np.unique(places, return_inverse=True)
    columns = dict(zip(batch.columns, index.reshape(places.shape), strict=True))
    labels = tuple(None if label is None else label[:count] for label in batch.labels)
    sequences = [batch.sequences[i] for i in used]
    return replace(batch, rows=batch.rows[:count], sequences=sequences, columns=columns, labels=labels)


def batch_of(make_batch, encoder, choice, fit):
    """Six rows for a lesson; where a loss tells the dropouts of a text apart, every text stands in both columns."""
    batch = make_batch(encoder, ROLES[fit.format], fit.label)
    if fit.format != "text" or not choice.views:
        return batch
    places = np.arange(12).reshape(2, 6)
    return replace(batch, sequences=batch.sequences * 2, columns=dict(zip(choice.views, places, strict=True)))


def learn(build, make_batch, lessons, split, steps, kind="bert", sharded=False, frozen=(), **model):
    """Losses and weights of `steps` steps, a batch of one lesson after the other, the last of each as small as can be.

    Five rows are uneven in two processes as in three, and one pair leaves a process of three without any text. Without
    dropout two views of a text are the same, and the other texts of the batch are still told apart.
    """
    encoder = build(kind, layers=["normalize"], dropout=0.0, **model).double()
    seed_everything(1)  # of the weights of the losses
    choices = [choice(**({"teacher": "./teacher"} if fit.label == "teacher" else {})) for choice, fit in lessons]
    losses = [LossTerms([loss], encoder.embedding_dim, 3).double() for loss in choices]
    learner = build_train_objects(encoder, losses, 0.01, [*frozen], sharded=sharded)
    batches = [batch_of(make_batch, encoder, *lesson) for lesson in lessons]
    plan = []
    for step in range(steps):
        which = step % len(lessons)
        smallest = 1 if lessons[which][1].format == "labeled_pair" else 4
        rows = smallest if step >= steps - len(lessons) else 5
        plan.append([(which, first_rows(batches[which], rows))])
    infos = train_steps(learner, plan, lambda step: 0.01, first_step=0, split=split, max_grad_norm=1.0)
    step_losses = torch.tensor([info.loss for info in infos], dtype=torch.float64)
    with learner.full_encoder() as whole:
        return step_losses, [
            weight.detach().clone() for module in trainable_modules(whole, losses) for weight in module.parameters()
        ]


def check(tmp_path, counts, *actions):
    """What each of `actions` gives in one process, it gives in several, in each of them."""
    expected = [action() for action in actions]

    def compare():
        for action, (expected_losses, expected_weights) in zip(actions, expected, strict=True):
            losses, weights = action()
            torch.testing.assert_close(losses, expected_losses, rtol=1e-9, atol=1e-9)
            for weight, same in zip(weights, expected_weights, strict=True):
                torch.testing.assert_close(weight, same, rtol=1e-9, atol=1e-9)
            for weight in weights:
                assert all(torch.equal(weight, remote) for remote in all_gather_object(weight)), (
                    "processes have drifted apart"
                )

    output = tmp_path / "output"
    for count in counts:
        assert run_group(count, compare, output) == [0] * count, output.read_text()


def check_each(tmp_path, build, make_batch, lessons, turn, promise, **settings):
    """Twenty steps of each lesson by itself, in one group of processes: to start one takes longer than to learn.

    The lessons take turns with the ways to cut a batch.
    """
    split, lessons = list(CUTS.values())[turn], lessons[turn :: len(CUTS)]
    check(
        tmp_path,
        (2, 3),
        *(partial(learn, build, make_batch, [lesson], split, 20, **settings) for lesson in lessons),
    )
    kind = "".join(f"{name} " for name in settings)
    for loss, fit in lessons:
        what = f"{kind}{loss.tag()} of {fit.format}"
        promise("20 steps in 2 and 3 processes: losses and float64 weights within 1e-9", what)


SUM = [
    MultipleNegativesRanking(matryoshka_dims=[32, 16, 8], n_dims_per_step=2),
    GlobalOrthogonalRegularization(columns=["positive", "negative"], weight=0.3, precisions=["float32", "binary"]),
    MarginMSE(weight=0.5, teacher="./teacher"),
]
"""Losses of one batch of triplets: one draws its prefixes, one sees some columns, one has a label."""


def learn_sum(build, make_batch, split, sharded=False):
    encoder = build(layers=["normalize"], dropout=0.0).double()
    batch = make_batch(encoder, ("anchor", "positive", "negative"), "teacher")
    batch = replace(batch, labels=(None, None, *batch.labels))
    learner = build_train_objects(encoder, [LossTerms(SUM, 32).double()], 0.01, [], sharded=sharded)
    plan = [[(0, first_rows(batch, rows))] for rows in (6, 5, 4, 6, 5, 4)]
    infos = list(train_steps(learner, plan, lambda step: 0.01, first_step=0, split=split, max_grad_norm=1.0))
    terms = torch.tensor([[info.loss, *info.terms.values()] for info in infos], dtype=torch.float64)
    assert [*infos[0].terms] == ["multiple_negatives_ranking", "global_orthogonal_regularization", "margin_mse"]
    torch.testing.assert_close(terms[:, 0], terms[:, 1:].sum(dim=1), rtol=1e-9, atol=1e-9)
    with learner.full_encoder() as whole:
        return terms, [weight.detach().clone() for weight in whole.parameters()]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("sharded", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_processes_learn_from_a_sum_of_losses_what_one_learns(tmp_path, build, make_batch, cut, sharded):
    whole_terms, whole_weights = learn_sum(build, make_batch, CUTS["in one piece"])

    def learn_in_parts():
        terms, weights = learn_sum(build, make_batch, CUTS[cut], sharded)
        for found, expected in zip([terms, *weights], [whole_terms, *whole_weights], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        return terms, weights

    check(tmp_path, (2,), learn_in_parts)


@pytest.mark.parametrize(("processes", "split"), every(2, [(2, "in one piece"), (3, "gradient caching by rows")]))
def test_processes_learn_from_every_loss_what_one_process_learns(tmp_path, build, make_batch, processes, split):
    check(tmp_path, (processes,), lambda: learn(build, make_batch, LESSONS, CUTS[split], 2 * len(LESSONS)))


@pytest.mark.slow
def test_processes_teach_adapters_what_one_process_teaches_them(tmp_path, build, make_batch):
    lessons = [*TAUGHT, *TEXTS_ALONE]
    check(
        tmp_path,
        (2,),
        lambda: learn(build, make_batch, lessons, build_splitter(tokens=12), 2 * len(lessons), **ADAPTERS),
    )


@pytest.mark.slow
def test_processes_with_a_part_of_the_model_each_learn_what_one_learns(tmp_path, build, make_batch):
    check(
        tmp_path,
        (3,),
        lambda: learn(build, make_batch, LESSONS, build_splitter(rows=1), 2 * len(LESSONS), sharded=True),
    )


def test_torch_that_cannot_add_up_parts_is_refused_by_its_version(build, monkeypatch):
    monkeypatch.delattr(FSDPModule, "set_force_sum_reduction_for_comms")
    with pytest.raises(RecipeError, match=re.escape(f"needs a newer torch than {torch.__version__}")):
        shard(build())


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(len(CUTS)), ids=CUTS)
def test_twenty_steps_with_a_part_of_the_model_each_are_the_same(tmp_path, build, make_batch, turn, promise):
    check_each(tmp_path, build, make_batch, [*LESSONS, *TEXTS_ALONE], turn, promise, sharded=True)


@pytest.mark.slow
def test_frozen_weights_stay_with_a_part_of_the_model_each(tmp_path, build, make_batch):
    frozen = ["backbone.embeddings.*", "*.query.*", "*.layer.0.output.dense.weight"]
    check(
        tmp_path,
        (2,),
        lambda: learn(build, make_batch, LESSONS, build_splitter(), len(LESSONS), sharded=True, frozen=frozen),
    )


@pytest.mark.slow
def test_adapters_are_the_same_with_a_part_of_the_model_each(tmp_path, build, make_batch):
    lessons = [*TAUGHT, *TEXTS_ALONE]
    check(
        tmp_path,
        (2, 3),
        lambda: learn(build, make_batch, lessons, build_splitter(), len(lessons), sharded=True, **ADAPTERS),
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["roberta", "distilbert", "qwen3", "mpnet", "t5", "modernbert"])
def test_every_layout_is_cut_up(tmp_path, build, make_batch, kind):
    check(tmp_path, (2,), lambda: learn(build, make_batch, LESSONS[-1:], build_splitter(rows=2), 2, kind, sharded=True))


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(len(CUTS)), ids=CUTS)
def test_twenty_steps_of_one_loss_are_the_same(tmp_path, build, make_batch, turn, promise):
    check_each(tmp_path, build, make_batch, [*LESSONS, *TEXTS_ALONE], turn, promise)


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(len(CUTS)), ids=CUTS)
def test_twenty_steps_of_adapters_are_the_same(tmp_path, build, make_batch, turn, promise):
    check_each(tmp_path, build, make_batch, [*TAUGHT, *TEXTS_ALONE], turn, promise, **ADAPTERS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["roberta", "distilbert", "qwen3", "mpnet"])
def test_every_layout_is_shared_out(tmp_path, build, make_batch, kind):
    check(tmp_path, (2,), lambda: learn(build, make_batch, LESSONS[-1:], build_splitter(rows=2), 2, kind))


def test_shares_hold_everything_once_and_are_about_as_long(tmp_path):
    sizes = np.random.default_rng(0).integers(1, 100, 50)

    def shared():
        shares = partition(sizes.tolist())
        assert sorted(np.concatenate(shares).tolist()) == list(range(50))
        totals = [sizes[share].sum() for share in shares]
        assert max(totals) - min(totals) <= sizes.max()
        rows = torch.from_numpy(sizes[shares[rank()]]).double()[:, None].requires_grad_()
        whole = all_gather_rows(rows, shares)
        assert whole.flatten().tolist() == sizes.tolist()
        whole.square().sum().backward()
        assert torch.equal(rows.grad, 2 * rows)

    assert run_group(3, shared, tmp_path / "output") == [0, 0, 0], (tmp_path / "output").read_text()

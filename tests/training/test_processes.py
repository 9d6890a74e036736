"""The same batches in one process or in several: the same losses, and the same weights."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from processes import run_group

from stfit.data.source import ROLES
from stfit.losses.loss import LOSSES, build_loss, compute_loss
from stfit.processes import bring_together, from_all, rank, share_out
from stfit.training.gradients import cut_rows, cut_tokens, no_cut
from stfit.training.loop import build_learner, modules_of, train_steps
from stfit.training.randomness import seed_everything

CUTS = {"in one piece": no_cut, "gradient caching by rows": cut_rows(1), "by tokens": cut_tokens(12)}


def first_rows(batch, count):
    """A smaller batch of the same examples."""
    places = np.stack([column[:count] for column in batch.columns.values()])
    used, index = np.unique(places, return_inverse=True)
    columns = dict(zip(batch.columns, index.reshape(places.shape), strict=True))
    label = None if batch.label is None else batch.label[:count]
    sequences = [batch.sequences[i] for i in used]
    return replace(batch, rows=batch.rows[:count], sequences=sequences, columns=columns, label=label)


def learn(build, make_batch, choices, cut, steps, kind="bert"):
    """Losses and weights of `steps` steps, a batch of one choice after the other, the last of each as small as can be.

    Five rows are uneven in two processes as in three, and one pair leaves a process of three without any text.
    """
    encoder = build(kind, layers=["normalize"], dropout=0.0).double()
    seed_everything(1)  # of the weights of the losses
    made = [each(**({"teacher": "./teacher"} if each.fits[-1].label == "teacher" else {})) for each in choices]
    built = [build_loss(loss, encoder.embedding_dim, 3) for loss in made]
    losses = [loss.double() if isinstance(loss, torch.nn.Module) else partial(compute_loss, loss) for loss in built]
    learner = build_learner(encoder, losses, 0.01, [])
    batches = [make_batch(encoder, ROLES[each.fits[-1].format], each.fits[-1].label) for each in choices]
    plan = []
    for step in range(steps):
        which = step % len(choices)
        smallest = 1 if choices[which].fits[-1].format == "labeled_pair" else 4
        rows = smallest if step >= steps - len(choices) else 5
        plan.append([(which, first_rows(batches[which], rows))])
    infos = train_steps(learner, plan, lambda step: 0.01, first_step=0, cut=cut, max_grad_norm=1.0)
    told = torch.tensor([info.loss for info in infos], dtype=torch.float64)
    return told, [weight.detach() for module in modules_of(encoder, losses) for weight in module.parameters()]


def check(tmp_path, counts, action):
    """What `action` gives in one process, it gives in several, in each of them."""
    expected_losses, expected = action()

    def compare():
        losses, weights = action()
        torch.testing.assert_close(losses, expected_losses, rtol=1e-9, atol=1e-9)
        for weight, same in zip(weights, expected, strict=True):
            torch.testing.assert_close(weight, same, rtol=1e-9, atol=1e-9)
        for weight in weights:
            assert all(torch.equal(weight, other) for other in from_all(weight)), "processes have drifted apart"

    output = tmp_path / "output"
    for count in counts:
        assert run_group(count, compare, output) == [0] * count, output.read_text()


@pytest.mark.parametrize(("processes", "cut"), [(2, "in one piece"), (3, "gradient caching by rows")])
def test_processes_learn_from_every_loss_what_one_process_learns(tmp_path, build, make_batch, processes, cut):
    check(tmp_path, (processes,), lambda: learn(build, make_batch, LOSSES, CUTS[cut], 2 * len(LOSSES)))


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("choice", LOSSES, ids=lambda choice: choice.tag())
def test_twenty_steps_of_one_loss_are_the_same(tmp_path, build, make_batch, choice, cut, promise):
    check(tmp_path, (2, 3), lambda: learn(build, make_batch, [choice], cut, 20))
    promise("20 steps in 2 and 3 processes: losses and float64 weights within 1e-9", choice.tag())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["roberta", "distilbert", "qwen3", "mpnet"])
def test_every_layout_is_shared_out(tmp_path, build, make_batch, kind):
    check(tmp_path, (2,), lambda: learn(build, make_batch, LOSSES[-1:], cut_rows(2), 2, kind))


def test_shares_hold_everything_once_and_are_about_as_long(tmp_path):
    sizes = np.random.default_rng(0).integers(1, 100, 50)

    def shared():
        shares = share_out(sizes.tolist())
        assert sorted(np.concatenate(shares).tolist()) == list(range(50))
        totals = [sizes[share].sum() for share in shares]
        assert max(totals) - min(totals) <= sizes.max()
        rows = torch.from_numpy(sizes[shares[rank()]]).double()[:, None].requires_grad_()
        whole = bring_together(rows, shares)
        assert whole.flatten().tolist() == sizes.tolist()
        whole.square().sum().backward()
        assert torch.equal(rows.grad, 2 * rows)

    assert run_group(3, shared, tmp_path / "output") == [0, 0, 0], (tmp_path / "output").read_text()

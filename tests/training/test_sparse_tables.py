"""A table of tokens whose gradients hold only the rows of a batch learns what one with whole gradients learns."""

import numpy as np
import pytest
import torch

from stfit.data.batching.batches import Batch
from stfit.losses.ranking import MultipleNegativesRanking
from stfit.losses.terms import LossTerms
from stfit.training.adamw import MAX_GATHERED
from stfit.training.checkpoint import newest_checkpoint, restore_checkpoint, save_checkpoint
from stfit.training.gradients import build_splitter
from stfit.training.loop import build_train_objects, train_steps
from stfit.training.rng import seed_everything

LOSS = LossTerms([MultipleNegativesRanking()], 32)
ROWS = 600


@pytest.fixture
def learner(build):
    def build_learner(decay=0.5, kind="bert"):
        encoder = build(kind)
        torch.manual_seed(2)
        encoder.backbone.resize_token_embeddings(ROWS, mean_resizing=False)
        return build_train_objects(encoder, [LOSS], decay, [])

    return build_learner


def table_of(learner):
    return learner.encoder.backbone.get_input_embeddings()


def draw_batches(count, words=range(5, ROWS)):
    """Of each two columns of six sequences; every batch has other words."""
    rng, columns = np.random.default_rng(0), {"anchor": np.arange(6), "positive": np.arange(6, 12)}
    drawn = [
        [rng.choice(list(words)[20 * step :][:90], 5).astype(np.int32) for _ in range(12)] for step in range(count)
    ]
    return [[(0, Batch(np.arange(6), sequences, None, columns, (None,), None))] for sequences in drawn]


def learn(learner, batches, rows=None, max_grad_norm=0.1):
    seed_everything(0)
    list(
        train_steps(
            learner, batches, lambda step: 0.01, first_step=0, split=build_splitter(rows), max_grad_norm=max_grad_norm
        )
    )
    return table_of(learner).weight.detach()


@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("rows", [None, 2], ids=["in one piece", "gradient caching"])
def test_weights_equal_those_of_whole_gradients(learner, decay, rows) -> None:
    sparse, dense = learner(decay), learner(decay)
    table_of(dense).sparse = False
    batches = draw_batches(12)
    one, other = (learn(each, batches, rows) for each in (sparse, dense))
    shares = [len(state["seen"].nonzero()) / ROWS for state in sparse.optimizer.state.values() if "seen" in state]
    assert shares[0] > MAX_GATHERED, "no step that passes over the whole table"
    torch.testing.assert_close(one, other, rtol=0, atol=3e-4)  # a step is 1e-2; the order of sums differs


def test_rows_that_no_batch_has_only_decay(learner) -> None:
    trained = learner()
    before = table_of(trained).weight.detach().clone()
    after = learn(trained, draw_batches(3, range(5, 150)))
    torch.testing.assert_close(after[150:], before[150:] * (1 - 0.01 * 0.5) ** 3)
    state = trained.optimizer.state[table_of(trained).weight]
    assert not state["exp_avg"][150:].any()
    assert not state["seen"][150:].any()


def test_a_gradient_of_many_mini_batches_has_each_row_once(learner) -> None:
    trained, counts = learner(), []
    weight = table_of(trained).weight
    weight.register_post_accumulate_grad_hook(lambda weight: counts.append(weight.grad.indices().shape[1]))
    learn(trained, draw_batches(1, range(5, 15)), rows=1)
    assert len(counts) == 6  # rows of two sequences
    assert max(counts) <= 10


def test_a_learner_goes_on_from_a_checkpoint_to_the_same_bytes(learner, tmp_path) -> None:
    batches = draw_batches(8)
    whole, stopped, resumed = learner(), learner(), learner()
    expected = learn(whole, batches)
    learn(stopped, batches[:4])
    save_checkpoint(tmp_path / "step-00000004", stopped, {})
    restore_checkpoint(newest_checkpoint(tmp_path), resumed)
    list(train_steps(resumed, batches[4:], lambda _: 0.01, first_step=4, split=build_splitter(), max_grad_norm=0.1))
    assert torch.equal(table_of(resumed).weight, expected)


def test_a_checkpoint_of_whole_gradients_goes_on_with_those_of_rows(learner, tmp_path) -> None:
    """As one of an older version, or of several processes, has no list of the rows that were seen."""
    batches = draw_batches(8)
    dense, resumed = learner(), learner()
    table_of(dense).sparse = False
    learn(dense, batches[:4])
    save_checkpoint(tmp_path / "step-00000004", dense, {})
    restore_checkpoint(newest_checkpoint(tmp_path), resumed)
    for trained in (dense, resumed):
        seed_everything(1)
        list(train_steps(trained, batches[4:], lambda _: 0.01, first_step=4, split=build_splitter(), max_grad_norm=0.1))
    torch.testing.assert_close(table_of(resumed).weight, table_of(dense).weight, rtol=0, atol=1e-4)

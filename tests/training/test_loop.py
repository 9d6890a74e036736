"""What one step does to the weights, and what it leaves alone."""

import numpy as np
import pytest
import torch
from own_loss import own_loss

from stfit.errors import DivergedError, RecipeError
from stfit.losses.ranking import MultipleNegativesRanking
from stfit.losses.terms import LossTerms
from stfit.training.gradients import build_splitter
from stfit.training.loop import build_train_objects, train_steps
from stfit.training.rng import seed_everything

RANKING = MultipleNegativesRanking()
LOSS = LossTerms([RANKING], 32)

WHOLE = build_splitter()


def weights_of(encoder):
    return {name: weight.detach().clone() for name, weight in encoder.named_parameters()}


def moved(encoder, before):
    return {name for name, weight in encoder.named_parameters() if not torch.equal(weight, before[name])}


def steps(learner, batches, rate=0.01, max_grad_norm=None, split=WHOLE):
    seed_everything(0)
    return list(
        train_steps(learner, batches, lambda step: rate, first_step=0, split=split, max_grad_norm=max_grad_norm)
    )


def test_frozen_weights_stay_and_all_others_move(build, make_batch):
    encoder = build("bert")
    before = weights_of(encoder)
    learner = build_train_objects(encoder, [LOSS], 0.01, ["backbone.embeddings.*", "*.layer.0.*"])
    steps(learner, [[(0, make_batch(encoder, ("anchor", "positive")))]])
    frozen = {name for name in before if name.startswith(("backbone.embeddings.", "backbone.encoder.layer.0."))}
    unused = {name for name in before if ".pooler." in name}
    without_effect = {name for name in before if name.endswith(".key.bias")}  # softmax does not see it; rounding may
    assert moved(encoder, before) - without_effect == set(before) - frozen - unused - without_effect


def test_freezing_nothing_or_everything_is_refused(build):
    with pytest.raises(RecipeError, match=r"`nothing\.\*` matches no weight"):
        build_train_objects(build(), [LOSS], 0.01, ["nothing.*"])
    with pytest.raises(RecipeError, match="freezes all weights"):
        build_train_objects(build(), [LOSS], 0.01, ["*"])


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "qwen3"])
def test_biases_and_norms_do_not_decay(build, kind):
    encoder = build(kind, layers=[{"type": "dense", "out_features": 8}, "layer_norm"])
    optimizer = build_train_objects(encoder, [LOSS], 0.5, []).optimizer
    decay = {id(weight): group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    assert len(decay) == len(list(encoder.parameters()))
    for name, weight in encoder.named_parameters():
        spared = name.endswith("bias") or "norm" in name.lower() or name.startswith("layers.1.")
        assert decay[id(weight)] == (0.0 if spared else 0.5), name


@pytest.mark.parametrize("dividing", [("cpu", "cuda"), ()])
def test_gradients_are_scaled_down_to_the_norm_asked_for_and_null_leaves_them(build, make_batch, monkeypatch, dividing):
    """After one step, the first moment of AdamW is a tenth of the gradient. Not every kernel divides gradients."""
    monkeypatch.setattr("stfit.training.adamw.DIVIDING_KERNELS", dividing)
    lengths = {}
    for limit in (None, 1e9, 0.01):
        encoder = build(dropout=0.0)
        learner = build_train_objects(encoder, [LOSS], 0.0, [])
        (info,) = steps(learner, [[(0, make_batch(encoder, ("anchor", "positive")))]], 0.001, limit)
        moments = [state["exp_avg"].flatten() for state in learner.optimizer.state.values()]
        lengths[limit] = 10 * torch.cat(moments).norm().item()
    assert info.grad_norm > 0.1
    assert lengths[None] == lengths[1e9] == pytest.approx(info.grad_norm, rel=1e-3)
    assert lengths[0.01] == pytest.approx(0.01, rel=0.05)


def test_accumulated_batches_count_by_their_mean(build, make_batch):
    runs = []
    for times in (1, 3):
        encoder = build(dropout=0.0)
        batch = make_batch(encoder, ("anchor", "positive"))
        runs.append(
            (steps(build_train_objects(encoder, [LOSS], 0.0, []), [[(0, batch)] * times])[0], weights_of(encoder))
        )
    (single, one_weights), (accumulated, three_weights) = runs
    assert accumulated.loss == pytest.approx(single.loss)
    assert accumulated.grad_norm == pytest.approx(single.grad_norm, rel=1e-4)
    assert (single.rows, accumulated.rows) == (6, 18)
    assert accumulated.tokens == 3 * single.tokens
    for name, weight in one_weights.items():
        if not name.endswith(".key.bias"):  # its gradient is rounding noise, which Adam scales up to a full step
            torch.testing.assert_close(three_weights[name], weight, rtol=0, atol=2e-3, msg=name)


def with_broken_weight(encoder):
    with torch.no_grad():
        next(encoder.backbone.encoder.layer[1].parameters())[0, 0] = float("nan")


def with_broken_position(encoder, batch):
    """Only the longest sequence has a token where the embedding is not finite; gives its place."""
    lengths = [len(sequence) for sequence in batch.sequences]
    longest = int(np.argmax(lengths))
    assert lengths.count(lengths[longest]) == 1
    with torch.no_grad():
        encoder.backbone.embeddings.position_embeddings.weight[lengths[longest] - 1] = float("inf")
    return longest


def assert_stops_unmoved(learner, batches, *messages, split=WHOLE):
    before = weights_of(learner.encoder)
    with pytest.raises(DivergedError) as caught:
        steps(learner, batches, split=split)
    assert caught.value.exit_code == 6
    for words in messages:
        assert words in str(caught.value)
    for name, weight in weights_of(learner.encoder).items():
        assert torch.equal(before[name].nan_to_num(), weight.nan_to_num()), name


@pytest.mark.parametrize("split", [WHOLE, build_splitter(rows=1)], ids=["whole", "mini-batches"])
def test_nan_in_a_weight_stops_the_run_before_any_weight_moves_and_names_rows_and_texts(build, make_batch, split):
    encoder = build()
    with_broken_weight(encoder)
    batch = make_batch(encoder, ("anchor", "positive"))
    text = batch.examples.texts["positive"][0][:30]
    messages = ("embeddings are not finite in step 1, in rows 101, 102, 103", text, "last checkpoint is kept")
    assert_stops_unmoved(build_train_objects(encoder, [LOSS], 0.01, []), [[(0, batch)]], *messages, split=split)


@pytest.mark.parametrize(
    ("precision", "advice"), [("float16", "set train.precision to bfloat16"), ("float32", "Lower train.learning_rate")]
)
def test_advice_depends_on_the_precision(build, make_batch, precision, advice):
    encoder = build()
    encoder.precision = precision
    with_broken_weight(encoder)
    batch = make_batch(encoder, ("anchor", "positive"))
    assert_stops_unmoved(build_train_objects(encoder, [LOSS], 0.01, []), [[(0, batch)]], advice)


def test_only_the_rows_with_a_broken_embedding_are_named(build, make_batch):
    encoder = build()
    batch = make_batch(encoder, ("anchor", "positive"))
    row = 101 + with_broken_position(encoder, batch) % 6
    assert_stops_unmoved(build_train_objects(encoder, [LOSS], 0.01, []), [[(0, batch)]], f"in step 1, in row {row} (")


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_loss_that_is_not_finite_stops_the_run_before_any_weight_moves(build, make_batch, value):
    encoder = build()

    def broken(columns, label):
        return columns["anchor"].sum() * 0 + float(value)

    batch = make_batch(encoder, ("anchor", "positive"))
    learner = build_train_objects(encoder, [own_loss(broken)], 0.01, [])
    assert_stops_unmoved(learner, [[(0, batch)]], f"the loss is {value} in step 1, in rows 101, 102")


def test_infinite_gradient_of_a_finite_loss_stops_the_run_before_any_weight_moves(build, make_batch):
    encoder = build()

    def steep(columns, label):
        return (columns["anchor"].sum() - columns["anchor"].sum().detach()) * 1e30

    batch = make_batch(encoder, ("anchor", "positive"))
    learner = build_train_objects(encoder, [own_loss(steep)], 0.01, [])
    assert_stops_unmoved(learner, [[(0, batch)]], "the gradient norm is inf in step 1")


def test_step_that_breaks_is_named_by_its_number(build, make_batch):
    encoder = build()
    good, bad = make_batch(encoder, ("anchor", "positive")), make_batch(encoder, ("anchor", "positive"))
    seen = []

    def breaks_third(columns, label):
        seen.append(1)
        return RANKING(columns, label) * (float("nan") if len(seen) == 3 else 1)

    with pytest.raises(DivergedError, match="the loss is nan in step 3"):
        steps(build_train_objects(encoder, [own_loss(breaks_third)], 0.0, []), [[(0, good)], [(0, good)], [(0, bad)]])


def test_encoder_is_in_training_mode_in_every_step(build, make_batch):
    encoder = build()
    modes = []

    def watched(columns, label):
        modes.append(encoder.training)
        return RANKING(columns, label)

    batch = make_batch(encoder, ("anchor", "positive"))
    for _ in train_steps(
        build_train_objects(encoder, [own_loss(watched)], 0.0, []),
        [[(0, batch)]] * 2,
        lambda step: 0.01,
        first_step=0,
        split=WHOLE,
        max_grad_norm=None,
    ):
        encoder.eval()
    assert modes == [True, True]

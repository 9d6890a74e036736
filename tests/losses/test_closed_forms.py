"""Every loss on a batch small enough for a pencil, and the two that count triplets or pairs against plain loops."""

from itertools import product
from math import e, exp, log

import pytest
import torch

from stfit.losses.pairs import AnglE, Contrastive, CoSENT, CosineSimilarity, OnlineContrastive, Softmax
from stfit.losses.ranking import MegaBatchMargin, MultipleNegativesRanking, MultipleNegativesSymmetricRanking
from stfit.losses.registry import build_loss
from stfit.losses.triplets import (
    BatchAllTriplet,
    BatchHardSoftMarginTriplet,
    BatchHardTriplet,
    BatchSemiHardTriplet,
    Triplet,
)

EAST, NORTH, BETWEEN, UP = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]
ALL_DIRECTIONS = ["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float64)


def pairs(*rows):
    return {"sentence1": tensor([one for one, _ in rows]), "sentence2": tensor([other for _, other in rows])}


def close(value):
    return pytest.approx(value, rel=1e-12, abs=1e-12)


FOUR_PAIRS = pairs((EAST, EAST), (EAST, NORTH), (EAST, EAST), (EAST, EAST))  # cosine distances 0 1 0 0
FOUR_LABELS = torch.tensor([1, 1, 0, 0])


@pytest.mark.parametrize(
    ("loss", "value"),
    [
        (Contrastive(), (0 + 1 / 2 + 2 * 0.5**2 / 2) / 4),
        (Contrastive(size_average=False), 1 / 2 + 2 * 0.5**2 / 2),
        (Contrastive(margin=2.0), (0 + 1 + 4 + 4) / 2 / 4),
        (OnlineContrastive(), 1 + 2 * 0.5**2),
        (OnlineContrastive(margin=2.0), 1 + 2 * 2**2),
    ],
)
def test_contrastive_losses(loss, value):
    assert loss(FOUR_PAIRS, FOUR_LABELS).item() == close(value)


@pytest.mark.parametrize(("distance", "value"), [("euclidean", 25 / 2), ("manhattan", 49 / 2)])
def test_contrastive_distances(distance, value):
    columns = pairs(([3.0, 4.0], [0.0, 0.0]))
    assert Contrastive(distance=distance)(columns, torch.tensor([1])).item() == pytest.approx(value, rel=1e-5)


def test_online_contrastive_finds_nothing_hard_in_equal_distances():
    columns = pairs((EAST, NORTH), (EAST, NORTH))
    assert OnlineContrastive(margin=2.0)(columns, torch.tensor([0, 1])).item() == 0


def test_online_contrastive_takes_the_mean_of_the_one_kind_there_is():
    positives = pairs((EAST, EAST), (EAST, NORTH))  # only the second is farther than their mean, 1/2
    assert OnlineContrastive()(positives, torch.tensor([1, 1])).item() == close(1)
    assert OnlineContrastive()(positives, torch.tensor([0, 0])).item() == close(0.5**2)


@pytest.mark.parametrize(("feature", "value"), list(enumerate([1.0, 2.0, 3.0, 5.0, 2.0, 3.0, 3.0, 10.0])))
def test_softmax_sees_both_embeddings_their_difference_and_their_product(feature, value):
    head = build_loss(Softmax(concatenate_product=True), embedding_dim=2, num_classes=2).double()
    torch.nn.init.zeros_(head.classifier.weight)
    torch.nn.init.zeros_(head.classifier.bias)
    with torch.no_grad():
        head.classifier.weight[1, feature] = 1
    assert head(pairs(([1.0, 2.0], [3.0, 5.0])), torch.tensor([0])).item() == close(log(1 + exp(value)))


@pytest.mark.parametrize(
    ("loss", "value"),
    [
        (CosineSimilarity(), (0.5**2 + 0.25**2) / 2),
        (CosineSimilarity(error="l1"), (0.5 + 0.25) / 2),
        (CosineSimilarity(transformation="sigmoid"), ((1 / (1 + exp(-1)) - 0.5) ** 2 + 0.25**2) / 2),
    ],
)
def test_cosine_similarity(loss, value):
    columns = pairs((EAST, EAST), (EAST, NORTH))
    assert loss(columns, tensor([0.5, 0.25])).item() == close(value)


def test_cosent_counts_each_misordered_pair_once_and_ties_never():
    columns = pairs((EAST, EAST), (EAST, NORTH), (EAST, BETWEEN))  # cosines 1, 0, 0.6
    label = tensor([0.0, 1.0, 1.0])
    assert CoSENT(scale=1.0)(columns, label).item() == close(log(1 + exp(1 - 0) + exp(1 - 0.6)))
    assert CoSENT()(columns, torch.ones(3)).item() == 0


def test_angle_is_the_real_plus_the_imaginary_part():
    columns = pairs(([1.0, 0.0], [1.0, 0.0]), ([1.0, 0.0], [0.6, 0.8]))  # |1 + 0| and |0.6 - 0.8|
    assert AnglE(scale=1.0)(columns, tensor([0.0, 1.0])).item() == close(log(1 + exp(1 - 0.2)))


def ranked(anchors, positives, *negatives):
    columns = {"anchor": tensor(anchors), "positive": tensor(positives)}
    return columns | {f"negative_{i}": tensor(rows) for i, rows in enumerate(negatives, 1)}


APART = ranked([EAST, NORTH], [EAST, NORTH])
CONFUSED = ranked([EAST, NORTH], [EAST, EAST])


@pytest.mark.parametrize(
    ("loss", "columns", "value"),
    [
        (MultipleNegativesRanking(scale=1.0), APART, log(e + 1) - 1),
        (MultipleNegativesRanking(), APART, log(1 + exp(-20))),
        (MultipleNegativesRanking(scale=1.0), APART | {"negative": tensor([UP, UP])}, log(e + 3) - 1),
        (
            MultipleNegativesRanking(scale=1.0, similarity="dot"),
            {k: 2 * v for k, v in APART.items()},
            log(e**4 + 1) - 4,
        ),
        (MultipleNegativesRanking(scale=1.0), {k: 2 * v for k, v in APART.items()}, log(e + 1) - 1),
        (MultipleNegativesRanking(scale=1.0, directions=ALL_DIRECTIONS), APART, log(2 * e + 4) - 1),
        (MultipleNegativesRanking(scale=1.0), CONFUSED, log(2)),
        (MultipleNegativesSymmetricRanking(scale=1.0), CONFUSED, (log(2) + log(e + 1) - 1 / 2) / 2),
        (MegaBatchMargin(), APART, 0),
        (MegaBatchMargin(), CONFUSED, (0 + 0.7 + 0.8 + 0) / 2),
        (MegaBatchMargin(positive_margin=0.5, negative_margin=0.0), CONFUSED, (0 + 1 + 0.5 + 0) / 2),
    ],
)
def test_ranking_losses(loss, columns, value):
    assert loss(columns, None).item() == close(value)


@pytest.mark.parametrize(
    ("mode", "others_positive", "own_negative", "others_negative"),
    [("in_batch_negatives", 3, 1, 3), ("hard_negatives", 1, 3, 1), ("all_negatives", 3, 3, 3)],
)
def test_hardness_adds_its_strength_to_the_candidates_of_its_mode(mode, others_positive, own_negative, others_negative):
    columns = ranked([EAST, EAST], [EAST, EAST], [EAST, EAST])  # every cosine is 1
    loss = MultipleNegativesRanking(scale=1.0, hardness_mode=mode, hardness_strength=2.0)
    partition = e + exp(others_positive) + exp(own_negative) + exp(others_negative)
    assert loss(columns, None).item() == close(log(partition) - 1)


@pytest.mark.parametrize(
    ("settings", "partition"),
    [
        ({}, exp(1) + exp(0) + exp(0.6) + exp(0.8)),
        ({"negatives": "own"}, exp(1) + exp(0.6)),
        ({"negatives": "in_batch"}, exp(1) + exp(0) + exp(0.8)),
        ({"false_negative_margin": 0.0}, exp(1) + exp(0) + exp(0.6) + exp(0.8)),
    ],
)
def test_an_anchor_is_compared_with_the_negatives_that_are_chosen(settings, partition):
    # Of the first anchor: its positive, another positive, its own negative and another negative.
    columns = ranked([EAST, NORTH], [EAST, NORTH], [[0.6, 0.8, 0], [0.8, 0.6, 0]])
    value = MultipleNegativesRanking(scale=1.0, **settings)(columns, None).item()
    assert value == close(log(partition) - 1)  # the second has the same, with the axes exchanged


def test_candidates_that_are_more_similar_than_the_positive_by_the_margin_do_not_count():
    columns = ranked(
        [EAST, EAST], [[0.6, 0.8, 0], EAST], [NORTH, NORTH]
    )  # the second positive answers the first anchor
    first = exp(0.6) + exp(0) + exp(0)  # its cosine of 1 exceeds 0.6 by more than 0.1
    second = exp(1) + exp(0.6) + exp(0) + exp(0)
    value = MultipleNegativesRanking(scale=1.0, false_negative_margin=0.1)(columns, None).item()
    assert value == close((log(first) - 0.6 + log(second) - 1) / 2)
    counted = exp(0.6) + exp(1) + exp(0) + exp(0)
    value = MultipleNegativesRanking(scale=1.0, false_negative_margin=0.5)(columns, None).item()
    assert value == close((log(counted) - 0.6 + log(second) - 1) / 2)


@pytest.mark.parametrize("others", [["doc_to_query"], ["query_to_query", "doc_to_doc"]])
def test_candidates_below_the_margin_keep_every_direction_as_it_is(others):
    directions = ["query_to_doc", *others]
    columns = ranked([EAST, [0.6, 0.8, 0], NORTH], [EAST, [0.6, 0.8, 0], NORTH], [NORTH, EAST, [0.8, 0.6, 0]])
    plain = MultipleNegativesRanking(directions=directions)(columns, None)
    assert MultipleNegativesRanking(directions=directions, false_negative_margin=0.0)(columns, None) == plain


@pytest.mark.parametrize(("distance", "value"), [("euclidean", 5 - 1 + 5), ("manhattan", 7 - 1 + 5)])
def test_triplet(distance, value):
    columns = {"anchor": tensor([[0.0, 0.0]]), "positive": tensor([[3.0, 4.0]]), "negative": tensor([[0.0, 1.0]])}
    assert Triplet(distance=distance)(columns, None).item() == close(value)


def test_triplet_by_cosine():
    columns = {"anchor": tensor([EAST]), "positive": tensor([BETWEEN]), "negative": tensor([NORTH])}
    assert Triplet(distance="cosine", margin=0.7)(columns, None).item() == close(0.4 - 1 + 0.7)


LINE = tensor([[0.0], [1.0], [3.0]])  # distances 1, 3 and 2


@pytest.mark.parametrize(
    ("loss", "label", "value"),
    [
        (BatchHardTriplet(), [0, 0, 1], ((1 - 3 + 5) + (1 - 2 + 5) + (0 - 2 + 5)) / 3),
        (BatchHardTriplet(distance="squared_euclidean"), [0, 0, 1], (0 + (1 - 4 + 5) + (0 - 4 + 5)) / 3),
        (BatchHardSoftMarginTriplet(), [0, 0, 1], (2 * log(1 + exp(-2)) + log(1 + exp(-1))) / 3),
        (BatchAllTriplet(), [0, 0, 1], ((1 - 3 + 5) + (1 - 2 + 5)) / 2),
        (BatchAllTriplet(margin=1.5), [0, 0, 1], (1 - 2 + 1.5) / 1),
        (BatchAllTriplet(margin=0.5), [0, 0, 1], 0),
        (BatchSemiHardTriplet(), [0, 0, 1], ((1 - 3 + 5) + (1 - 2 + 5)) / 2),
        (BatchSemiHardTriplet(), [0, 1, 0], ((3 - 1 + 5) + (3 - 2 + 5)) / 2),
    ],
)
def test_batch_triplet_losses(loss, label, value):
    assert loss({"text": LINE}, torch.tensor(label)).item() == close(value)


def test_a_semi_hard_negative_is_strictly_farther_than_the_positive():
    columns = {
        "text": tensor([[0.0], [1.0], [-1.0], [2.5]])
    }  # the first row's negatives are at 1 and 2.5, its positive at 1
    costs = [1 - 2.5 + 5, 1 - 1.5 + 5, 3.5 - 2 + 5, 3.5 - 2.5 + 5]
    assert BatchSemiHardTriplet()(columns, torch.tensor([0, 0, 1, 1])).item() == close(sum(costs) / 4)


def test_batch_triplet_losses_by_cosine():
    columns = {"text": tensor([EAST, BETWEEN, NORTH])}  # cosine distances 0.4, 1 and 0.2
    hard = BatchHardTriplet(distance="cosine", margin=1.0)
    assert hard(columns, torch.tensor([0, 0, 1])).item() == close(((0.4 - 1 + 1) + (0.4 - 0.2 + 1) + (0 - 0.2 + 1)) / 3)


@pytest.mark.parametrize("margin", [0.1, 1.0, 5.0])
def test_batch_all_equals_a_loop_over_every_triplet(margin):
    rows, label = (
        torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
        [0, 1, 2, 0, 1, 2, 0, 0, 3],
    )
    costs = [
        (rows[a] - rows[p]).norm() - (rows[a] - rows[n]).norm() + margin
        for a, p, n in product(range(9), repeat=3)
        if a != p and label[a] == label[p] != label[n]
    ]
    expected = torch.stack([cost for cost in costs if cost > 0]).mean().item()
    assert BatchAllTriplet(margin=margin)({"text": rows}, torch.tensor(label)).item() == pytest.approx(
        expected, rel=1e-9
    )


@pytest.mark.parametrize("loss", [CoSENT(), CoSENT(scale=2.0)])
def test_cosent_equals_a_loop_over_every_two_pairs(loss):
    generator = torch.Generator().manual_seed(2)
    one, other = torch.randn(2, 8, 5, dtype=torch.float64, generator=generator)
    label = [0.2, 0.9, 0.2, 0.4, 0.9, 0.0, 1.0, 0.4]
    cosine = [(a @ b / a.norm() / b.norm()).item() for a, b in zip(one, other, strict=True)]
    total = sum(
        exp(loss.scale * (cosine[i] - cosine[j])) for i, j in product(range(8), repeat=2) if label[i] < label[j]
    )
    value = loss({"sentence1": one, "sentence2": other}, tensor(label)).item()
    assert value == pytest.approx(log(1 + total), rel=1e-9)

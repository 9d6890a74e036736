"""A loss that is a list: the weighted sum of several losses of the same embeddings."""

import itertools

import pytest
import torch
from own_loss import own_loss

from stfit.errors import RecipeError
from stfit.losses.distillation import MSE, MarginMSE
from stfit.losses.orthogonal import GlobalOrthogonalRegularization
from stfit.losses.pairs import CoSENT, Softmax
from stfit.losses.ranking import MultipleNegativesRanking
from stfit.losses.registry import compute_loss
from stfit.losses.terms import LossTerms

ROWS, DIM = 8, 16
NAMES = ["anchor", "positive", "negative"]


def numbers(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def texts(names=NAMES):
    """Columns by name, ready for a backward pass."""
    return {name: numbers(ROWS, DIM, seed=i).requires_grad_() for i, name in enumerate(names)}


def gradients(value, columns):
    return torch.autograd.grad(value, list(columns.values()), allow_unused=True, materialize_grads=True)


def by_hand_gor(vectors, mean_weight=1.0, second_weight=1.0):
    """Entry by entry, with loops."""
    unit = [vector / vector.norm() for vector in vectors]
    found = [unit[i] @ unit[j] for i in range(len(unit)) for j in range(len(unit)) if i != j]
    mean = sum(found) / len(found)
    second = sum(value**2 for value in found) / len(found)
    return mean_weight * mean**2 + second_weight * torch.clamp(second - 1 / vectors.shape[1], min=0)


@pytest.fixture(scope="module")
def peer():
    return pytest.importorskip("sentence_transformers.sentence_transformer.losses")


def test_sum_of_losses_is_the_sum_by_hand_with_its_gradients():
    columns, scores, teacher = texts(), numbers(ROWS, 2, seed=9), numbers(ROWS, 1, DIM, seed=10)
    terms = LossTerms(
        [
            MultipleNegativesRanking(),
            GlobalOrthogonalRegularization(weight=0.25, columns=["positive"]),
            MarginMSE(weight=0.5),
            MSE(weight=2.0, columns=["anchor"], teacher="./teacher"),
        ],
        DIM,
    )
    value = terms(columns, (None, None, scores, teacher))
    anchor, positive, negative = columns.values()
    margins = (anchor * positive).sum(1) - (anchor * negative).sum(1)
    similarity = torch.nn.functional.cosine_similarity(anchor[:, None], torch.cat([positive, negative])[None], dim=2)
    expected = [
        torch.nn.functional.cross_entropy(20 * similarity, torch.arange(ROWS)),
        0.25 * by_hand_gor(positive),
        0.5 * (margins - (scores[:, 0] - scores[:, 1])).square().mean(),
        2.0 * (anchor - teacher[:, 0]).square().mean(),
    ]
    torch.testing.assert_close(value, torch.stack(expected), rtol=1e-9, atol=1e-12)
    for ours, theirs in zip(gradients(value.sum(), columns), gradients(sum(expected), columns), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_one_loss_alone_is_a_sum_of_one_term():
    columns = texts()
    assert LossTerms([MultipleNegativesRanking()], DIM)(columns, (None,)).tolist() == [
        MultipleNegativesRanking()(columns, None).item()
    ]


def test_a_loss_with_weights_learns_beside_one_without():
    columns, labels = texts(["sentence1", "sentence2"]), torch.arange(ROWS) % 3
    terms = LossTerms([Softmax(), CoSENT(weight=0.1)], DIM, 3).double()
    terms(columns, (labels, labels.double() / 2)).sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in terms.parameters())
    assert len(list(terms.parameters())) == 2


@pytest.mark.parametrize("negatives", [["negative"], ["negative_1", "negative_2"]])
def test_a_loss_sees_the_columns_that_it_names_and_all_negatives_are_one(negatives):
    columns = texts(["anchor", "positive", *negatives])
    chosen = GlobalOrthogonalRegularization(columns=["negative"], aggregation="sum")
    (value,) = LossTerms([chosen], DIM)(columns, (None,))
    torch.testing.assert_close(value, sum(by_hand_gor(columns[name]) for name in negatives), rtol=1e-9, atol=1e-12)
    without = MultipleNegativesRanking(columns=["anchor", "positive"])
    pairs = {name: columns[name] for name in ("anchor", "positive")}
    assert LossTerms([without], DIM)(columns, (None,)).item() == MultipleNegativesRanking()(pairs, None).item()


def test_a_loss_of_twice_the_same_type_has_two_names():
    terms = LossTerms([MultipleNegativesRanking(), CoSENT(), CoSENT()], DIM)
    assert terms.names == ["multiple_negatives_ranking", "cosent", "cosent_2"]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    "settings",
    [{}, {"aggregation": "sum", "mean_weight": 0.0}, {"second_moment_weight": 0.0}, {"mean_weight": 0.3}],
    ids=str,
)
def test_orthogonal_regularization_costs_what_it_costs_the_peer(peer, settings, count):
    columns = texts(NAMES[:count])
    given = [vectors.detach().clone().requires_grad_() for vectors in columns.values()]
    theirs = peer.GlobalOrthogonalRegularizationLoss(None, **settings).compute_loss_from_embeddings(given)
    expected = sum(theirs.values())
    value = GlobalOrthogonalRegularization(**settings)(columns, None)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    for ours, other in zip(gradients(value, columns), torch.autograd.grad(expected, given), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-12)


def test_orthogonal_regularization_is_that_of_the_formula_and_passes_over_missing_negatives():
    columns = texts()
    with torch.no_grad():
        columns["negative"][3:] = 0
    expected = sum(by_hand_gor(vectors) for vectors in (*list(columns.values())[:2], columns["negative"][:3])) / 3
    torch.testing.assert_close(GlobalOrthogonalRegularization()(columns, None), expected, rtol=1e-9, atol=1e-12)


def test_sums_of_losses_equal_the_peers_dict_losses(peer):
    columns = texts(NAMES[:2])
    given = [vectors.detach().clone().requires_grad_() for vectors in columns.values()]
    ranking = peer.MultipleNegativesRankingLoss(None).compute_loss_from_embeddings(given, None)
    gor = peer.GlobalOrthogonalRegularizationLoss(None, mean_weight=0.2, second_moment_weight=0.1)
    expected = sum({"info_nce": ranking, **gor.compute_loss_from_embeddings(given)}.values())
    regularizer = GlobalOrthogonalRegularization(weight=0.1, mean_weight=2.0)
    value = LossTerms([MultipleNegativesRanking(), regularizer], DIM)(columns, (None, None)).sum()
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    for ours, other in zip(gradients(value, columns), torch.autograd.grad(expected, given), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-12)


def test_drawn_prefixes_are_some_of_all_and_the_same_for_the_same_seed():
    columns, dims, weights = texts(), [16, 8, 4, 2], [1.0, 0.5, 0.25, 2.0]

    def value(loss, seed=0):
        return compute_loss(loss, columns, None, seed).item()

    loss = MultipleNegativesRanking(matryoshka_dims=dims, matryoshka_weights=weights, n_dims_per_step=2)
    possible = {
        round(
            value(
                MultipleNegativesRanking(
                    matryoshka_dims=[dims[i] for i in chosen], matryoshka_weights=[weights[i] for i in chosen]
                )
            ),
            9,
        )
        for chosen in itertools.combinations(range(4), 2)
    }
    drawn = [round(value(loss, seed), 9) for seed in range(100)]
    assert set(drawn) == possible
    assert [round(value(loss, seed), 9) for seed in range(100)] == drawn


def test_prefixes_and_weights_are_those_of_each_loss():
    columns = texts()
    terms = [
        MultipleNegativesRanking(matryoshka_dims=[16, 4], matryoshka_weights=[1.0, 3.0]),
        GlobalOrthogonalRegularization(matryoshka_dims=[8], weight=0.5),
    ]
    half = {name: vectors[:, :8] for name, vectors in columns.items()}
    quarter = {name: vectors[:, :4] for name, vectors in columns.items()}
    plain = MultipleNegativesRanking()
    expected = [
        plain(columns, None) + 3 * plain(quarter, None),
        0.5 * sum(map(by_hand_gor, half.values())) / 3,
    ]
    value = LossTerms(terms, DIM)(columns, (None, None))
    torch.testing.assert_close(value, torch.stack(expected), rtol=1e-9, atol=1e-12)


def leaf(vectors):
    return vectors.detach().clone().requires_grad_()


@pytest.mark.parametrize("dims", [None, [16, 8]])
@pytest.mark.parametrize(
    "loss", [MultipleNegativesRanking(), MultipleNegativesRanking(similarity="dot", scale=1.0)], ids=["cosine", "dot"]
)
def test_losses_of_precisions_are_those_of_what_is_stored_and_gradients_pass_through(loss, dims):
    columns = texts()
    with torch.no_grad():
        columns["negative"][5:] = 0
    trained = loss.model_copy(update={"precisions": ["float32", "int8", "binary"], "matryoshka_dims": dims})
    value = compute_loss(trained, columns, None)
    expected, expected_gradients = 0.0, [torch.zeros_like(vectors) for vectors in columns.values()]
    for dim in dims or [16]:
        prefixes = [vectors.detach()[:, :dim] for vectors in columns.values()]
        present = torch.cat([vectors[vectors.abs().sum(1) > 0] for vectors in prefixes])
        low, high = present.min(0).values, present.max(0).values
        as_bytes = [low + ((vectors - low) * 255 / (high - low)).round() * (high - low) / 255 for vectors in prefixes]
        as_signs = [(2.0 * (vectors > 0) - 1) * vectors.norm(dim=1, keepdim=True) / dim**0.5 for vectors in prefixes]
        for stored in (prefixes, as_bytes, as_signs):
            leaves = dict(zip(columns, map(leaf, stored), strict=True))
            with torch.no_grad():
                leaves["negative"][5:] = 0
            of_stored = loss(leaves, None)
            expected = expected + of_stored.detach()
            for total, gradient in zip(expected_gradients, gradients(of_stored, leaves), strict=True):
                total[:, :dim] += gradient
    torch.testing.assert_close(value.detach(), expected, rtol=1e-9, atol=1e-12)
    for ours, theirs in zip(gradients(value, columns), expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("value", [torch.zeros(2), 3.0])
def test_a_loss_that_is_no_number_is_refused(value):
    with pytest.raises(RecipeError, match="must return a tensor of one number"):
        own_loss(lambda columns, label: value)(texts(), (None,))

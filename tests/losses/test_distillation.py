"""Losses with a teacher: the values of sentence-transformers, and what it has no word for."""

import pytest
import torch

from stfit.errors import DataError, ModelError
from stfit.losses.distillation import MSE, DistillKLDiv, EmbedDistill, MarginMSE, TeacherCosine
from stfit.losses.pairs import CosineSimilarity
from stfit.losses.ranking import GISTEmbed, MultipleNegativesRanking
from stfit.losses.registry import compute_loss

ROWS, DIM, TEACHER = 8, 16, "./teacher"
NAMES = ["anchor", "positive", "negative"]


def numbers(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def texts(count, seed=0):
    """Columns by name, ready for a backward pass."""
    return {name: numbers(ROWS, DIM, seed=seed + i).requires_grad_() for i, name in enumerate(NAMES[:count])}


def taught(count, dim=DIM):
    return numbers(ROWS, count, dim, seed=50)


class Given(torch.nn.Module):
    """A model of the peer whose embeddings are what it is given."""

    tokenizer = None
    max_seq_length = 1

    def __init__(self, dim=DIM):
        super().__init__()
        self.dim = dim

    def forward(self, features):
        return {"sentence_embedding": features["embedding"]}

    def get_embedding_dimension(self):
        return self.dim


def of_peer(loss, columns, label):
    """The peer's value and gradients of these columns."""
    embeddings = [vectors.detach().clone().requires_grad_() for vectors in columns.values()]
    value = loss([{"embedding": vectors} for vectors in embeddings], label)
    value.backward()
    return value.detach(), [vectors.grad for vectors in embeddings]


def assert_same(loss, columns, label, expected):
    value = loss(columns, label)
    value.backward()
    torch.testing.assert_close(value.detach(), expected[0], rtol=1e-9, atol=1e-12)
    for vectors, gradient in zip(columns.values(), expected[1], strict=True):
        torch.testing.assert_close(vectors.grad, gradient, rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def peer():
    return pytest.importorskip("sentence_transformers.sentence_transformer.losses")


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("distance", ["cosine", "l2", "mse"])
def test_embeddings_learnt_from_a_teacher_cost_what_they_cost_the_peer(peer, distance, count):
    columns, label = texts(count), taught(count)
    expected = of_peer(peer.EmbedDistillLoss(Given(), distance_metric=distance), columns, label)
    assert_same(EmbedDistill(teacher=TEACHER, distance=distance), columns, label, expected)


def test_mse_with_the_anchor_as_target_is_that_of_one_label_for_all_columns(peer):
    columns, label = texts(2), taught(1)
    expected = of_peer(peer.MSELoss(Given()), columns, label[:, 0])
    loss = MSE(teacher=TEACHER, target="anchor")
    assert loss.taught_roles(["anchor", "positive"]) == ["anchor"]
    assert_same(loss, columns, label, expected)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_margins_of_labels_and_of_a_teacher_cost_what_they_cost_the_peer(peer, similarity):
    from sentence_transformers.util import pairwise_cos_sim, pairwise_dot_score

    score = {"dot": pairwise_dot_score, "cosine": pairwise_cos_sim}[similarity]
    label = taught(3, dim=5)  # a teacher of another size
    margin = score(label[:, 0], label[:, 1]) - score(label[:, 0], label[:, 2])
    expected = of_peer(peer.MarginMSELoss(Given(), similarity_fct=score), texts(3), margin)
    assert_same(MarginMSE(similarity=similarity), texts(3), margin, expected)
    assert_same(MarginMSE(similarity=similarity, teacher=TEACHER), texts(3), label, expected)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_choices_of_a_teacher_cost_what_they_cost_the_peer(peer, temperature):
    label = taught(3, dim=5)
    score = torch.einsum("rd,rnd->rn", label[:, 0], label[:, 1:])
    expected = of_peer(peer.DistillKLDivLoss(Given(), temperature=temperature), texts(3), score)
    assert_same(DistillKLDiv(teacher=TEACHER, temperature=temperature), texts(3), label, expected)


def test_cosines_of_a_teacher_cost_what_they_cost_as_labels():
    columns, label = texts(2), taught(2, dim=5)
    cosine = torch.cosine_similarity(label[:, 0], label[:, 1])
    pair = {"sentence1": columns["anchor"], "sentence2": columns["positive"]}
    expected = CosineSimilarity()(pair, cosine)
    torch.testing.assert_close(TeacherCosine(teacher=TEACHER)(columns, label), expected)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"margin": 0.1},
        {"margin_strategy": "relative", "margin": 0.05},
        {"contrast_anchors": False},
        {"contrast_positives": False},
        {"scale": 20.0},
    ],
)
def test_gist_costs_what_it_costs_the_peer(peer, settings, count):
    label = taught(count, dim=5)
    label[:, 1] += 2 * label[:, 0]  # a guide that is mostly right: some negatives are left out, and some stay
    theirs = {name: value for name, value in settings.items() if name != "scale"}
    loss = object.__new__(peer.GISTEmbedLoss)
    torch.nn.Module.__init__(loss)
    loss.model, loss.guide, loss.must_retokenize = Given(), Given(), False
    loss.temperature, loss.gather_across_devices = 1 / settings.get("scale", 100.0), False
    loss.similarity_fct, loss.cross_entropy_loss = torch.nn.CosineSimilarity(dim=-1), torch.nn.CrossEntropyLoss()
    for name, value in ({"margin_strategy": "absolute", "margin": 0.0} | theirs).items():
        setattr(loss, name, value)
    loss.contrast_anchors = settings.get("contrast_anchors", True)
    loss.contrast_positives = settings.get("contrast_positives", True)
    guide = iter(label.unbind(1))
    loss.guide.forward = lambda features: {"sentence_embedding": next(guide)}
    columns = texts(count)
    expected = of_peer(loss, columns, None)
    assert_same(GISTEmbed(teacher=TEACHER, **settings), columns, label, expected)


def test_a_guide_that_finds_nothing_near_leaves_every_negative(peer):
    columns = texts(3)
    label = taught(3)
    label[:, 1] = label[:, 0] = torch.eye(ROWS, DIM, dtype=torch.float64)
    label[:, 2] = 0
    all_of_them = MultipleNegativesRanking(scale=100.0, directions=["query_to_doc", "query_to_query", "doc_to_doc"])
    pairs = {name: columns[name] for name in ("anchor", "positive")}
    torch.testing.assert_close(GISTEmbed(teacher=TEACHER)(pairs, label[:, :2]), all_of_them(pairs, None))


@pytest.mark.parametrize("choice", [EmbedDistill, TeacherCosine, MarginMSE, DistillKLDiv, GISTEmbed])
def test_a_column_of_missing_negatives_equals_no_column(choice):
    columns, label = texts(3), taught(3)
    loss = choice(teacher=TEACHER)
    missing = torch.zeros(ROWS, DIM, dtype=torch.float64, requires_grad=True)
    value = loss(columns | {"negative_2": missing}, torch.cat([label, torch.zeros(ROWS, 1, DIM)], dim=1))
    value.backward()
    torch.testing.assert_close(value, loss(columns, label))
    assert missing.grad.abs().max() == 0


def test_a_prefix_learns_the_prefix_of_its_teacher():
    columns, label = texts(1), taught(1)
    text = columns["anchor"]
    by_hand = (text - label[:, 0]).square().mean() + 0.5 * (text[:, :4] - label[:, 0, :4]).square().mean()
    loss = MSE(teacher=TEACHER, matryoshka_dims=[16, 4], matryoshka_weights=[1.0, 0.5])
    torch.testing.assert_close(compute_loss(loss, columns, label), by_hand)


def test_weighted_prefixes_cost_what_they_cost_the_peer(peer):
    columns = texts(3)
    inner = peer.MultipleNegativesRankingLoss(model := Given())
    loss = peer.MatryoshkaLoss(model, inner, [16, 8, 4], matryoshka_weights=[1.0, 0.5, 0.25])
    expected = of_peer(loss, columns, None)
    ours = MultipleNegativesRanking(matryoshka_dims=[16, 8, 4], matryoshka_weights=[1.0, 0.5, 0.25])
    assert_same(lambda *given: compute_loss(ours, *given), columns, None, expected)


def test_a_teacher_of_another_size_is_refused_where_numbers_are_compared():
    with pytest.raises(ModelError, match=r"teacher has 384 dimensions and the model 16.*out_features: 384"):
        MSE(teacher=TEACHER).require_teacher_dim(16, 384)
    TeacherCosine(teacher=TEACHER).require_teacher_dim(16, 384)


def test_embeddings_of_other_columns_are_refused():
    with pytest.raises(DataError, match=r"2 texts in 8 rows.*\[8, 3, 16\]"):
        MSE(teacher=TEACHER)(texts(2), taught(3))


def scored(candidates, seed=70):
    return numbers(ROWS, candidates, seed=seed)


def ranked(negatives):
    names = ["anchor", "positive", *(f"negative_{i}" for i in range(1, negatives + 1))]
    return {name: numbers(ROWS, DIM, seed=i).requires_grad_() for i, name in enumerate(names)}


@pytest.mark.parametrize("negatives", [1, 3])
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_margins_of_scores_in_the_data_are_those_of_the_peer(negatives, similarity):
    peer = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    util = pytest.importorskip("sentence_transformers.util")
    columns = ranked(negatives)
    similar = {"dot": util.pairwise_dot_score, "cosine": util.pairwise_cos_sim}[similarity]
    expected = of_peer(peer.MarginMSELoss(Given(), similarity_fct=similar), columns, scored(1 + negatives))
    assert_same(MarginMSE(similarity=similarity), columns, scored(1 + negatives), expected)


@pytest.mark.parametrize(
    "temperatures", [{}, {"temperature": 2.0}, {"student_temperature": 0.5, "teacher_temperature": 3.0}]
)
def test_the_divergence_from_scores_in_the_data_is_that_of_the_peer(temperatures):
    peer = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    util = pytest.importorskip("sentence_transformers.util")
    columns = ranked(3)
    loss = peer.DistillKLDivLoss(Given(), similarity_fct=util.pairwise_dot_score, **temperatures)
    assert_same(DistillKLDiv(**temperatures), columns, scored(4), of_peer(loss, columns, scored(4)))


@pytest.mark.parametrize("loss", [MarginMSE(), DistillKLDiv()], ids=lambda loss: loss.tag())
def test_a_candidate_without_a_score_makes_no_difference(loss):
    columns, scores = ranked(2), scored(3)
    missing = torch.zeros(ROWS, DIM, dtype=torch.float64, requires_grad=True)
    absent = torch.full((ROWS, 1), torch.nan, dtype=torch.float64)
    value = loss(columns | {"negative_3": missing}, torch.cat([scores, absent], dim=1))
    value.backward()
    torch.testing.assert_close(value.detach(), loss(columns, scores).detach())
    assert missing.grad.abs().max() == 0


@pytest.mark.parametrize("loss", [MarginMSE(), DistillKLDiv()], ids=lambda loss: loss.tag())
def test_scores_of_another_number_of_candidates_are_refused(loss):
    with pytest.raises(DataError, match="needs scores of 3 candidates in 8 rows"):
        loss(ranked(2), scored(4))


@pytest.mark.parametrize("mode", ["in_batch_negatives", "hard_negatives", "all_negatives"])
def test_a_guide_that_ignores_nothing_hardens_as_without_a_guide(mode):
    columns, guide = ranked(2), torch.zeros(ROWS, 4, DIM, dtype=torch.float64)
    guide[:, :, 0] = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)  # the pair is nearer than any negative
    settings = {"scale": 2.0, "hardness_mode": mode, "hardness_strength": 3.0}
    gist = GISTEmbed(teacher=TEACHER, contrast_anchors=False, contrast_positives=False, **settings)
    value = gist(columns, guide)
    torch.testing.assert_close(value, MultipleNegativesRanking(**settings)(columns, None))
    assert value != MultipleNegativesRanking(scale=2.0)(columns, None)

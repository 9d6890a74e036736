"""What holds for every loss, whatever the numbers."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from stfit.errors import DataError, ModelError, RecipeError
from stfit.losses.distillation import MSE
from stfit.losses.pairs import Softmax
from stfit.losses.ranking import MultipleNegativesRanking
from stfit.losses.registry import Loss, build_loss, compute_loss
from stfit.losses.softmax_classifier import SoftmaxHead
from stfit.losses.triplets import Triplet
from stfit.spec import accepted_names, union_members

ROWS, DIM, CLASSES = 6, 4, 3
COLUMNS = {
    "labeled_pair": ("sentence1", "sentence2"),
    "positive_pair": ("anchor", "positive"),
    "labeled_text": ("text",),
    "triplet": ("anchor", "positive", "negative"),
    "text": ("text",),
}
LABELS = {
    "none": None,
    "binary": torch.tensor([0, 1, 0, 1, 1, 0]),
    "class": torch.tensor([0, 1, 2, 0, 1, 0]),
    "score": torch.tensor([0.1, 0.9, 0.1, 0.5, 1.0, 0.0], dtype=torch.float64),
    "number": torch.tensor([-3.0, 0.9, 0.1, 5.0, 1.0, 0.0], dtype=torch.float64),
    "scores": torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(8), dtype=torch.float64),
    "embedding": torch.randn(ROWS, 1, DIM, generator=torch.Generator().manual_seed(9), dtype=torch.float64),
    "teacher": torch.randn(ROWS, 3, DIM, generator=torch.Generator().manual_seed(7), dtype=torch.float64),
}
CHOICES = union_members(Loss)
BATCH_TRIPLETS = [choice for choice in CHOICES if choice.tag().startswith("batch_")]
every_loss = pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.tag())
every_loss_but_softmax = pytest.mark.parametrize(
    "choice", [choice for choice in CHOICES if choice is not Softmax], ids=lambda choice: choice.tag()
)

every_loss_of_certain_columns = pytest.mark.parametrize(
    "choice", [choice for choice in CHOICES if not choice.takes_any_columns], ids=lambda choice: choice.tag()
)
every_batch_triplet = pytest.mark.parametrize("choice", BATCH_TRIPLETS, ids=lambda choice: choice.tag())


def batch_for(choice, dtype=torch.float64, seed=0):
    """Random columns and a label of the last kind of data that fits `choice`."""
    fit = choice.fits[-1]
    generator = torch.Generator().manual_seed(seed)
    random = {name: torch.randn(ROWS, DIM, generator=generator, dtype=torch.float64) for name in COLUMNS[fit.format]}
    label = LABELS[fit.label]
    if fit.label == "teacher":
        label = label[:, : len(random)]
    return {name: vectors.to(dtype) for name, vectors in random.items()}, label


def built(choice, dtype=torch.float64, **settings):
    torch.manual_seed(3)
    if choice.fits[-1].label == "teacher":
        settings["teacher"] = "./teacher"
    loss = build_loss(choice(**settings), DIM, CLASSES)
    return loss.to(dtype) if isinstance(loss, torch.nn.Module) else loss


def by_cosine(choice):
    """The loss where it compares by cosine: its default or its `distance`."""
    return built(choice, **({"distance": "cosine"} if "distance" in choice.model_fields else {}))


@every_loss
def test_every_loss_is_declared_in_full(choice):
    assert choice.fits
    assert all(fit.format in COLUMNS and fit.label in LABELS for fit in choice.fits)
    assert choice.sampler in ("shuffle", "no_duplicates", "group_by_label")
    assert choice.min_batch_size in (1, 2, 3)
    assert choice.__doc__
    undocumented = [name for name, field in choice.model_fields.items() if name != "type" and not field.description]
    assert not undocumented
    assert ("matryoshka_dims" in choice.model_fields) == (choice is not Softmax)


def test_no_two_losses_share_a_name():
    names = [name for choice in CHOICES for name in (choice.tag(), *choice.aliases)]
    assert len(names) == len(set(names)) == len(accepted_names(CHOICES))


@pytest.mark.parametrize("cached", ["", "Cached"])
def test_symmetric_class_names_keep_their_meaning(cached):
    loss = TypeAdapter(Loss).validate_python(f"{cached}MultipleNegativesSymmetricRankingLoss")
    assert (loss.directions, loss.partition) == (["query_to_doc", "doc_to_query"], "per_direction")


@every_loss
def test_row_order_does_not_change_the_value(choice):
    columns, label = batch_for(choice)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = {name: vectors[order] for name, vectors in columns.items()}
    loss = built(choice)
    value = loss(columns, label)
    assert value.ndim == 0
    assert value > 0
    torch.testing.assert_close(loss(shuffled, None if label is None else label[order]), value)


@every_loss
def test_gradients_are_those_of_finite_differences(choice):
    columns, label = batch_for(choice)
    loss = built(choice)
    inputs = tuple(vectors.requires_grad_() for vectors in columns.values())
    assert torch.autograd.gradcheck(lambda *vectors: loss(dict(zip(columns, vectors, strict=True)), label), inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every_loss
def test_half_precision_equals_float32_of_the_same_values(choice, dtype):
    columns, label = batch_for(choice, dtype)
    loss = built(choice, torch.float32)
    value = loss(columns, label)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss({name: vectors.float() for name, vectors in columns.items()}, label))


@pytest.mark.parametrize(
    "choice", [choice for choice in CHOICES if choice not in (Softmax, MSE)], ids=lambda choice: choice.tag()
)
def test_a_zero_row_leaves_the_gradient_of_a_cosine_finite_and_its_own_zero(choice):
    columns, label = batch_for(choice)
    loss = by_cosine(choice)
    for vectors in columns.values():
        vectors[0] = 0
        vectors.requires_grad_()
    value = loss(columns, label)
    value.backward()
    assert value.isfinite()
    for vectors in columns.values():
        assert vectors.grad[0].abs().max() == 0
        assert 0 < vectors.grad.norm() < 100


@every_loss_but_softmax
def test_matryoshka_weights_count_the_dimensions(choice):
    columns, label = batch_for(choice)
    both = [compute_loss(built(choice, matryoshka_dims=[dim]), columns, label) for dim in (4, 2)]
    weighted = built(choice, matryoshka_dims=[4, 2], matryoshka_weights=[1.0, 0.25])
    torch.testing.assert_close(compute_loss(weighted, columns, label), both[0] + 0.25 * both[1])


@pytest.mark.parametrize("dims", [[4], [4, 2], [3, 2, 1]])
@every_loss_but_softmax
def test_matryoshka_is_the_sum_over_prefixes_of_the_plain_loss(choice, dims):
    columns, label = batch_for(choice)
    plain = sum(built(choice)({name: vectors[:, :dim] for name, vectors in columns.items()}, label) for dim in dims)
    torch.testing.assert_close(compute_loss(built(choice, matryoshka_dims=dims), columns, label), plain)


@every_loss
def test_compute_loss_without_matryoshka_is_the_loss(choice):
    columns, label = batch_for(choice)
    assert torch.equal(compute_loss(built(choice), columns, label), built(choice)(columns, label))


@every_loss
def test_autocast_does_not_lower_the_precision_of_a_loss(choice):
    columns, label = batch_for(choice, torch.float32)
    loss = built(choice, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = compute_loss(loss, columns, label)
    assert torch.equal(value, loss(columns, label))


RANKINGS = [
    MultipleNegativesRanking(scale=1.0),
    MultipleNegativesRanking(similarity="dot", scale=1.0),
    MultipleNegativesRanking(scale=1.0, directions=["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]),
    MultipleNegativesRanking(scale=1.0, directions=["query_to_doc", "doc_to_query"], partition="per_direction"),
    MultipleNegativesRanking(scale=1.0, hardness_mode="all_negatives", hardness_strength=5.0),
    MultipleNegativesRanking(negatives="own"),
    MultipleNegativesRanking(negatives="in_batch", false_negative_margin=0.1),
]


@pytest.mark.parametrize("loss", RANKINGS)
def test_a_column_of_missing_negatives_equals_no_column(loss):
    columns, _ = batch_for(MultipleNegativesRanking)
    missing = torch.zeros(ROWS, DIM, dtype=torch.float64, requires_grad=True)
    value = loss(columns | {"negative_2": missing}, None)
    value.backward()
    torch.testing.assert_close(value.detach(), loss(columns, None))
    assert missing.grad.abs().max() == 0


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_missing_negatives_of_some_rows_are_no_candidates(similarity):
    columns, _ = batch_for(MultipleNegativesRanking)
    ragged = torch.randn(ROWS, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    ragged[[1, 4]] = 0
    loss = MultipleNegativesRanking(similarity=similarity, scale=1.0)
    documents = torch.cat([columns["positive"], columns["negative"], ragged[[0, 2, 3, 5]]])
    scores = columns["anchor"] @ documents.T
    if similarity == "cosine":
        scores = scores / columns["anchor"].norm(dim=1, keepdim=True) / documents.norm(dim=1)
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(ROWS))
    ragged.requires_grad_()
    value = loss(columns | {"negative_2": ragged}, None)
    value.backward()
    torch.testing.assert_close(value.detach(), expected)
    assert ragged.grad[[1, 4]].abs().max() == 0
    assert ragged.grad[0].abs().max() > 0


@every_batch_triplet
def test_a_batch_of_one_label_is_refused(choice):
    columns, _ = batch_for(choice)
    with pytest.raises(DataError, match=rf"all 6 rows of the batch have the same label.*`{choice.tag()}`"):
        built(choice)(columns, torch.ones(ROWS, dtype=torch.int64))


@every_batch_triplet
def test_identical_rows_leave_the_gradient_finite(choice):
    columns, label = batch_for(choice)
    columns["text"][3] = columns["text"][0]
    text = columns["text"].requires_grad_()
    built(choice)({"text": text}, label).backward()
    assert text.grad.isfinite().all()


@every_loss_of_certain_columns
def test_columns_that_would_be_ignored_are_refused_by_name(choice):
    columns, label = batch_for(choice)
    with pytest.raises(RecipeError, match=rf"`{choice.tag()}` takes the columns .*not used: source; missing: none"):
        built(choice)(columns | {"source": next(iter(columns.values()))}, label)


@every_loss_of_certain_columns
def test_missing_columns_are_named(choice):
    columns, label = batch_for(choice)
    first, *rest = columns
    with pytest.raises(RecipeError, match=rf"missing: {first}"):
        built(choice)({name: columns[name] for name in rest}, label)


@every_loss
def test_a_label_is_taken_where_the_format_has_one_and_refused_elsewhere(choice):
    columns, label = batch_for(choice)
    if label is None:
        with pytest.raises(RecipeError, match="not used: label"):
            built(choice)(columns, torch.zeros(ROWS))
    else:
        with pytest.raises((RecipeError, DataError), match="label"):
            built(choice)(columns, None)
        for wrong in (label[:-1], label[:, None]):
            with pytest.raises(DataError, match="label"):
                built(choice)(columns, wrong)


@pytest.mark.parametrize(("wrong", "message"), [(3, "label 3 in row 1"), (-1, "label -1 in row 1")])
def test_softmax_names_the_row_of_a_class_it_does_not_have(wrong, message):
    columns, label = batch_for(Softmax)
    label = label.clone()
    label[1] = wrong
    with pytest.raises(DataError, match=message):
        built(Softmax)(columns, label)


def test_softmax_has_weights_drawn_from_the_global_generator():
    torch.manual_seed(5)
    head = build_loss(Softmax(), DIM, CLASSES)
    torch.manual_seed(5)
    reference = torch.nn.Linear(3 * DIM, CLASSES)
    assert isinstance(head, SoftmaxHead)
    assert torch.equal(head.state_dict()["classifier.weight"], reference.weight)
    assert torch.equal(head.state_dict()["classifier.bias"], reference.bias)


def test_softmax_without_classes_is_refused():
    for num_classes in (None, 1):
        with pytest.raises(DataError, match="class"):
            build_loss(Softmax(), DIM, num_classes)


def test_matryoshka_dims_beyond_the_embedding_are_refused():
    with pytest.raises(ModelError, match=r"\[8\].*4 dimensions"):
        build_loss(Triplet(matryoshka_dims=[8, 4]), DIM)


@pytest.mark.parametrize(
    "recipe",
    [
        {"type": "softmax", "concatenate_embeddings": False, "concatenate_difference": False},
        {"type": "multiple_negatives_ranking", "directions": ["doc_to_query"]},
        {"type": "multiple_negatives_ranking", "directions": ["query_to_doc", "query_to_doc"]},
        {
            "type": "multiple_negatives_ranking",
            "directions": ["query_to_doc", "doc_to_doc"],
            "partition": "per_direction",
        },
        {"type": "multiple_negatives_ranking", "hardness_mode": "hard_negatives"},
        {"type": "multiple_negatives_ranking", "hardness_strength": 5.0},
        {"type": "multiple_negatives_ranking", "negatives": "own", "directions": ["query_to_doc", "doc_to_query"]},
        {"type": "triplet", "margin": -1.0},
        {"type": "triplet", "matryoshka_dims": []},
        {"type": "triplet", "matryoshka_dims": [0]},
        {"type": "triplet", "matryoshka_dims": [4, 2], "matryoshka_weights": [1.0]},
        {"type": "triplet", "matryoshka_weights": [1.0]},
        {"type": "gist", "teacher": "./teacher", "hardness_strength": 5.0},
        {"type": "mse", "teacher": "./teacher", "distance": "cosine"},
        {"type": "cosent", "scale": 0.0},
    ],
)
def test_settings_that_contradict_each_other_are_refused(recipe):
    with pytest.raises(ValidationError):
        TypeAdapter(Loss).validate_python(recipe)

import pytest

from stfit.data.checks.compatibility import LabelNeeds, check_labels, format_problem
from stfit.data.mapping.load_examples import load_examples
from stfit.data.source import Source
from stfit.errors import DataError

FITS = {
    "contrastive": [("labeled_pair", "binary")],
    "softmax": [("labeled_pair", "class")],
    "cosent": [("labeled_pair", "score")],
    "ranking": [("positive_pair", "none"), ("triplet", "none")],
    "batch_all": [("labeled_text", "class")],
}


def check(write, loss, labels, **keys):
    rows = [{"text": "t", "sentence1": "a", "sentence2": "b", "label": label} for label in labels]
    format = FITS[loss][0][0]
    needs = LabelNeeds(loss, tuple(kind for _, kind in FITS[loss]))
    check_labels([needs], load_examples(Source(dataset=write(rows), **keys), format, 1)[0])


def test_a_loss_that_does_not_fit_the_format_names_what_does():
    assert format_problem("ranking", "triplet", FITS) is None
    problem = format_problem("ranking", "labeled_pair", FITS)
    assert problem is not None
    assert "only positive_pair or triplet" in problem
    assert "Losses for labeled_pair: contrastive, softmax, cosent" in problem


@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        ("contrastive", [0, 1]),
        ("softmax", [0, 1]),
        ("softmax", [0, 1, 2]),
        ("softmax", ["a", "b"]),
        ("batch_all", ["a", "b", "c"]),
        ("batch_all", [2**31 - 7, 2**31 - 8]),
        ("cosent", [0.0, 0.3]),
        ("cosent", [0, 1]),
    ],
)
def test_labels_that_fit_are_accepted(write, loss, labels):
    check(write, loss, labels)


@pytest.mark.parametrize(
    ("loss", "labels", "what"),
    [
        ("cosent", [0.5, 4.2, 1.0], r"from 0\.5 to 4\.2; rescale them with `label_range: \[0, 5\]` \(row 2\)"),
        ("cosent", [0, 1, 5], r"from 0 to 5; rescale them with `label_range: \[0, 5\]` \(row 3\)"),
        ("cosent", [-0.5, 0.5], r"`label_range: \[-1, 1\]` \(row 1\)"),
        ("cosent", ["far", "near"], "these are classes"),
        ("contrastive", [0, 1, 2], r"from 0 to 2; use `label_map`.* \(row 3\)"),
        ("contrastive", [0.5, 1.0], r"labels that are 0 or 1, but these range from 0\.5 to 1"),
        ("contrastive", ["no", "yes"], r"set which of them mean similar: `label_map: \{no: 0, yes: 1\}`"),
        ("contrastive", ["False", "True"], r'`label_map: \{"False": 0, "True": 1\}`'),
        ("contrastive", ["0,1", "a: b"], r'`label_map: \{"0,1": 0, "a: b": 1\}`'),
        ("softmax", [0.1, 0.9], "these are floats"),
        ("batch_all", [0.5, 1.0], "these are floats"),
        ("softmax", [0, 1, -1], r"some are negative; drop them with `where: \{label: \{min: 0\}\}` \(row 3\)"),
        ("batch_all", [4, 4], "all 2 labels are 4"),
        ("cosent", [0.5, 0.5], r"all 2 labels are 0\.5"),
    ],
)
def test_labels_that_do_not_fit_say_what_to_change(write, loss, labels, what):
    with pytest.raises(DataError, match=what):
        check(write, loss, labels)


def test_the_advised_label_range_is_accepted(write):
    check(write, "cosent", [0.5, 4.2, 1.0], label_range=[0, 5])


def test_ids_are_no_classes_of_softmax_which_has_an_output_per_number(write):
    with pytest.raises(DataError, match="2 classes have numbers up to 2147483641; number them with `label_map`"):
        check(write, "softmax", [2**31 - 7, 2**31 - 8])

"""The lint of rows finds what is planted, names its rows, and reports nothing for rows without a mistake."""

import numpy as np
import pytest

from stfit.data.checks.lint import ERRORS, WARNINGS, fold_rows, lint_evaluation, lint_training
from stfit.data.mapping.examples import Examples
from stfit.errors import DataError

COUNT = 200
ANCHORS = [f"where does the river number {i} of this country end" for i in range(COUNT)]
POSITIVES = [f"the river number {i} of this country ends in lake {i + 7}" for i in range(COUNT)]
NEGATIVES = [f"nobody has ever seen mountain {3 * i} from below" for i in range(COUNT)]
PAIR = {"sentence1": ANCHORS, "sentence2": [POSITIVES[i] if i % 2 else NEGATIVES[i] for i in range(COUNT)]}
SCORES = [float(i % 2) for i in range(COUNT)]


def with_text(texts, at, text):
    return [text if i == at else old for i, old in enumerate(texts)]


def make(format, texts, label=None, kind="none", names=None):
    rows = np.arange(1, len(next(iter(texts.values()))) + 1)
    return Examples(format, texts, None if label is None else np.array(label), kind, names, rows, {})


def pairs(**changes):
    return make("positive_pair", {"anchor": ANCHORS, "positive": POSITIVES} | changes)


def triplets(**changes):
    return make("triplet", {"anchor": ANCHORS, "positive": POSITIVES, "negative": NEGATIVES} | changes)


def labeled(label=SCORES, kind="score", **changes):
    return make("labeled_pair", PAIR | changes, label, kind)


def classes(label, **changes):
    return make("labeled_text", {"text": ANCHORS} | changes, label, "class")


GOOD = {
    "pairs": (pairs(), "no_duplicates"),
    "triplets": (triplets(), "no_duplicates"),
    "scores": (labeled(), "shuffle"),
    "flags": (labeled([int(score) for score in SCORES], "binary"), "shuffle"),
    "classes": (classes([i % 4 for i in range(COUNT)]), "group_by_label"),
}

REPEATED = with_text(ANCHORS, 9, ANCHORS[4].upper())

# Code -> examples with the mistake, how rows form batches, and the row that is named.
PLANTED = {
    "same-column": (pairs(positive=ANCHORS), "shuffle", None),
    "constant-text": (pairs(positive=["news"] * COUNT), "shuffle", None),
    "no-words": (pairs(positive=[f"{i} / 7" for i in range(COUNT)]), "shuffle", None),
    "id-column": (pairs(positive=[f"q-{i}f" for i in range(COUNT)]), "shuffle", None),
    "few-texts": (pairs(positive=["news", "forum"] * (COUNT // 2)), "no_duplicates", None),
    "damaged-text": (pairs(anchor=with_text(ANCHORS, 9, "caf\ufffd")), "shuffle", 10),
    "placeholder": (pairs(positive=with_text(POSITIVES, 9, "NaN")), "shuffle", 10),
    "duplicate-rows": (pairs(anchor=REPEATED, positive=with_text(POSITIVES, 9, POSITIVES[4])), "shuffle", 10),
    "contradictory-labels": (
        labeled(with_text(SCORES, 9, 1 - SCORES[4]), sentence1=with_text(ANCHORS, 9, PAIR["sentence2"][4]),
                sentence2=with_text(PAIR["sentence2"], 9, ANCHORS[4])), "shuffle", 5),
    "equal-texts": (pairs(anchor=with_text(ANCHORS, 9, POSITIVES[9])), "shuffle", 10),
    "negative-is-right": (triplets(negative=with_text(NEGATIVES, 9, POSITIVES[9].upper())), "shuffle", 10),
    "swapped-negative": (triplets(positive=NEGATIVES, negative=POSITIVES), "shuffle", None),
    "upside-down-labels": (labeled([1 - score for score in SCORES]), "shuffle", None),
    "swapped-roles": (pairs(anchor=[text * 5 for text in POSITIVES], positive=ANCHORS), "shuffle", None),
    "false-negatives": (pairs(positive=with_text(POSITIVES, 9, POSITIVES[4])), "shuffle", 5),
    "lonely-class": (classes([4 if i == 9 else i % 4 for i in range(COUNT)]), "group_by_label", 10),
    "class-numbers": (classes([1 + i % 4 for i in range(COUNT)]), "group_by_label", None),
    "narrow-labels": (labeled([score / 20 for score in SCORES]), "shuffle", None),
}  # fmt: skip


def found_in(examples, sampler):
    rows = fold_rows(examples, in_batch=examples.label is None, sampler=sampler)
    return [problem for check in [*ERRORS, *WARNINGS] for problem in check(rows)]


@pytest.mark.parametrize("name", GOOD)
def test_rows_without_a_mistake_give_no_problem(name):
    assert found_in(*GOOD[name]) == []


@pytest.mark.parametrize("code", PLANTED)
def test_a_planted_mistake_is_found_with_its_row(code):
    examples, sampler, row = PLANTED[code]
    assert (code, row) in [(problem.code, problem.row) for problem in found_in(examples, sampler)]


def test_every_check_finds_something_here():
    finders = {
        check
        for check in [*ERRORS, *WARNINGS]
        for examples, sampler, _ in PLANTED.values()
        if [*check(fold_rows(examples, in_batch=examples.label is None, sampler=sampler))]
    }
    assert finders == {*ERRORS, *WARNINGS}


def test_certain_mistakes_are_refused_all_at_once_with_their_file():
    with pytest.raises(DataError) as refused:
        lint_training(
            pairs(anchor=["7"] * COUNT, positive=["7"] * COUNT), "pairs.csv", in_batch=True, sampler="shuffle"
        )
    assert {problem.code for problem in refused.value.problems} == {"same-column", "constant-text", "no-words"}
    assert {problem.file for problem in refused.value.problems} == {"pairs.csv"}


def test_equal_texts_apart_by_the_sampler_are_no_false_negatives_but_two_spellings_are():
    equal = pairs(positive=with_text(POSITIVES, 9, POSITIVES[4]))
    spelt = pairs(positive=with_text(POSITIVES, 9, POSITIVES[4].upper()))
    codes = [[found.code for found in found_in(examples, "no_duplicates")] for examples in (equal, spelt)]
    assert codes == [[], ["false-negatives"]]


def test_a_pair_of_classes_is_ordered_and_a_pair_of_scores_is_not():
    """That a entails b says nothing of b and a."""
    turned = {"sentence1": ["a cat", "it rains"], "sentence2": ["it rains", "a cat"]}
    as_classes = found_in(make("labeled_pair", turned, [0, 1], "class", ["yes", "no"]), "shuffle")
    as_scores = found_in(make("labeled_pair", turned, [0.0, 1.0], "score"), "shuffle")
    assert [found.code for found in as_classes] == []
    assert [found.code for found in as_scores] == ["contradictory-labels"]


def test_missing_negatives_are_neither_texts_nor_equal_to_one_another():
    some = [None if i % 2 else text for i, text in enumerate(NEGATIVES)]
    assert found_in(make("triplet", triplets().texts | {"negative_2": some}), "no_duplicates") == []


def test_an_evaluator_with_one_label_is_refused_and_one_with_named_classes_is_doubted():
    with pytest.raises(DataError, match="nothing can be measured"):
        lint_evaluation(labeled([0.5] * COUNT), "test.csv")
    named = make("labeled_pair", PAIR, [i % 3 for i in range(COUNT)], "class", ["contradiction", "entails", "neutral"])
    assert [problem.code for problem in lint_evaluation(named, "test.csv")] == ["class-labels"]
    assert lint_evaluation(labeled(), "test.csv") == []


def test_chance_alone_is_no_suspicion():
    """Words are drawn without a plan, so neither side shares more of them, but for chance."""
    for seed in range(10):
        random = np.random.default_rng(seed)
        anchors, positives, negatives = (
            [" ".join(f"w{word}" for word in random.integers(20, size=8)) for _ in range(COUNT)] for _ in range(3)
        )
        drawn = triplets(anchor=anchors, positive=positives, negative=negatives)
        scored = labeled(random.random(COUNT).tolist(), sentence1=anchors, sentence2=positives)
        suspected = {
            problem.code
            for examples in (drawn, scored)
            for problem in lint_training(examples, "drawn", False, "shuffle")
        }
        assert not suspected & {"swapped-negative", "upside-down-labels"}


@pytest.mark.parametrize(("read_as", "says"), [("latin-1", "cp1252 that is read as latin-1"), ("cp1252", None)])
def test_windows_text_read_as_latin_1_is_noticed(read_as, says):
    text = "“it” 5 €…".encode("cp1252").decode(read_as)
    problems = lint_training(pairs(anchor=with_text(ANCHORS, 9, text)), "rows.csv", False, "shuffle")
    assert [problem.row for problem in problems if says and says in problem.message] == ([10] if says else [])
    assert says or "damaged-text" not in [problem.code for problem in problems]


@pytest.mark.parametrize("text", ["Это", "naïve café", "日本語", "10 °C"])
@pytest.mark.parametrize("read_as", ["latin-1", "utf-8"])
def test_utf_8_read_as_latin_1_is_noticed_in_any_script(text, read_as):
    given = pairs(anchor=with_text(ANCHORS, 9, text.encode().decode(read_as)))
    codes = [problem.code for problem in lint_training(given, "rows.csv", False, "shuffle")]
    assert ("damaged-text" in codes) == (read_as == "latin-1")


@pytest.mark.parametrize("sampler", ["shuffle", "group_by_label"])
def test_labels_that_nearly_all_occur_once_are_no_classes(sampler):
    labels = [*range(COUNT - 2), 0, 1]
    (found,) = [p for p in lint_training(classes(labels), "rows", False, sampler) if p.code == "lonely-class"]
    assert "is the label an id?" in found.message


def test_classes_may_be_numbered_by_ids():
    problems = found_in(classes([2**31 - 1 - i % 4 for i in range(COUNT)]), "group_by_label")
    assert [problem.code for problem in problems] == ["class-numbers"]

"""Every text of an evaluator is compared with every text that is trained on."""

import random
import tracemalloc

import numpy as np
import pytest

from stfit.data.checks.leakage import Measured, columns_of, numbers_in, separating_roles, shared_texts, without_texts
from stfit.data.checks.lint import fold
from stfit.data.checks.near_duplicates import near_duplicates
from stfit.data.mapping import plain_text
from stfit.data.mapping.examples import Examples
from stfit.data.mapping.plain_text import plain


def make(format="positive_pair", **texts):
    rows = len(next(iter(texts.values())))
    return Examples(format, texts, None, "none", None, np.arange(1, rows + 1), {})


def measured(examples, name="dev"):
    return Measured(name, "dev.jsonl", columns_of(examples), examples)


def drawn(count, words=12, seed=0):
    """Texts of random words."""
    source = random.Random(seed)
    return [" ".join(f"w{source.randrange(5_000)}" for _ in range(words)) for _ in range(count)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Is it raining?", "  is it\tRAINING !"),
        ("Straße", "STRASSE"),
        ("caf\u00e9 \uff21\uff11", "cafe\u0301 A1"),
        ("soft\u00adware\u200b", "software"),
        ("\u201cquoted\u201d \u2013 text\u2026", '"quoted" - text...'),
        ("I \u2764\ufe0f it", "I \u2764 it"),
    ],
)
def test_texts_that_differ_in_case_space_punctuation_or_form_are_the_same(one, other):
    assert plain(one) == plain(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("C++", "C"), ("की", "का"), ("5 €", "5 $"), ("fine 😀", "fine 😡"), ("?!", "..."), ("résumé", "resume")],
)
def test_other_texts_are_not_the_same(one, other):
    assert plain(one) != plain(other)


PIECES = ["Ein  STRASSE, \u2460 \u00a8 a\u0301 b!", "e \u0301x  e\u0301 x", " , a", "!? ...", "", "   "]


@pytest.mark.parametrize("text", PIECES)
def test_a_text_in_pieces_has_the_same_words(text, monkeypatch):
    texts = [text, f"{text} {text}\t{text}", text * 3]
    whole = [(plain(each), fold(each)) for each in texts]
    for size in range(1, 9):
        monkeypatch.setattr(plain_text, "PIECE", size)
        assert [(plain(each), fold(each)) for each in texts] == whole


def test_the_words_of_a_long_text_never_lie_in_a_list():
    text = "word " * 2**21
    for compare in (plain, fold):
        tracemalloc.start()
        compare(text)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * len(text)


def test_single_texts_are_found_in_any_column_and_counted_by_column():
    training = make(anchor=["one a", "two b"], positive=["three c", "four d"])
    examples = make("triplet", anchor=["x y", "FOUR d!"], positive=["y z", "z x"], negative=["one  A", "one a."])
    (problem,) = shared_texts([training], [measured(examples)])
    assert (problem.code, problem.row, problem.file) == ("shared-texts", 1, "dev.jsonl")
    assert "1 of 2 in anchor (row 2), 2 of 2 in negative (rows 1, 2)" in problem.message


def test_whole_examples_are_found_across_order_and_format():
    training = make("labeled_pair", sentence1=["one a", "two b"], sentence2=["three c", "four d"])
    (problem,) = shared_texts([training], [measured(make(anchor=["x", "Four D"], positive=["y", "two b"]))])
    assert problem.code == "shared-rows"
    assert "1 of 2 examples are trained on, row 2" in problem.message


def test_a_missing_negative_is_shared_with_nothing():
    training = make("triplet", anchor=["a"], positive=["b"], negative_1=["c"], negative_2=[None])
    examples = make("triplet", anchor=["d"], positive=["e"], negative_1=["f"], negative_2=[None])
    assert shared_texts([training], [measured(examples)]) == []
    assert without_texts(training, numbers_in([measured(examples)])) is training


def test_a_role_separates_a_holdout_if_no_text_stands_beside_several_of_it():
    training, held_out = make(anchor=["a", "b"], positive=["x", "y"]), make(anchor=["a", "A"], positive=["z", "w"])
    assert separating_roles(training, measured(held_out)) == []  # of two spellings, `by` makes two groups
    held_out = make(anchor=["a", "c"], positive=["z", "w"])
    assert separating_roles(training, measured(held_out)) == ["anchor"]
    crossed = make(anchor=["a", "x"], positive=["z", "w"])
    assert separating_roles(training, measured(crossed)) == []
    queries = measured(crossed)._replace(columns={"query": columns_of(crossed)["anchor"]})
    assert separating_roles(training, queries) == ["anchor"]


def test_rows_without_shared_texts_are_kept():
    training = make(anchor=["one a", "two b", "three c"], positive=["x", "y", "z"])
    kept = without_texts(training, numbers_in([measured(make(anchor=["TWO b."], positive=["z?"]))]))
    assert kept.texts == {"anchor": ["one a"], "positive": ["x"]}
    assert (kept.row.tolist(), kept.dropped, training.dropped) == ([1], {"shared with an evaluator": 2}, {})
    assert shared_texts([kept], [measured(make(anchor=["TWO b."], positive=["z?"]))]) == []


def test_near_duplicates_are_found_and_equal_or_other_texts_are_not():
    texts = drawn(300)
    added = [f"{text} more" for text in texts[:20]]
    changed = [text.replace(text.split()[5], "other") for text in texts[20:40]]
    equal, unrelated = [f"{text}!" for text in texts[40:60]], drawn(40, seed=1)
    (problem,) = near_duplicates(
        [make("text", text=texts)], [measured(make("text", text=added + changed + equal + unrelated))]
    )
    assert problem.code == "near-duplicates"
    assert problem.message.startswith("evaluator `dev` nearly shares texts with training: 40 of 100 in text (rows 1, 2")
    assert f"such as {added[0]!r} and {texts[0]!r}" in problem.message


def test_near_duplicates_are_found_in_scripts_without_spaces():
    text = "今天的天气非常好我们一起去公园散步吧"
    (problem,) = near_duplicates([make("text", text=[text])], [measured(make("text", text=[text.replace("好", "糟")]))])
    assert "1 of 1 in text (row 1)" in problem.message


def test_near_duplicates_do_not_depend_on_how_training_comes():
    texts = drawn(200)
    evaluator = measured(make("text", text=[f"{text} more" for text in texts]))
    parts = [make("text", text=texts[start : start + 7]) for start in range(0, 200, 7)]
    assert near_duplicates(parts, [evaluator]) == near_duplicates([make("text", text=texts)], [evaluator])

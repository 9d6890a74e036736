import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from stfit.data.mapping.load_examples import load_examples
from stfit.data.source import Condition, Holdout, ReadOptions, Source
from stfit.errors import DataError, RecipeError

PAIRS = [{"anchor": f"a{i}", "positive": f"p{i}", "topic": i // 3, "n": i} for i in range(30)]


def load(dataset, format, seed=1, holdout=None, **keys):
    return load_examples(Source(dataset=dataset, **keys), format, seed, holdout)


def train(dataset, format, **keys):
    return load(dataset, format, **keys)[0]


def test_roles_take_the_columns_of_their_own_names(write):
    examples, held_out = load(write(PAIRS), "positive_pair")
    assert held_out is None
    assert examples.texts == {"anchor": [f"a{i}" for i in range(30)], "positive": [f"p{i}" for i in range(30)]}
    assert (examples.label, examples.label_kind, examples.num_classes) == (None, "none", None)
    assert examples.row.tolist() == list(range(1, 31))


def test_names_decide_the_role_and_not_the_order(write):
    examples = train(write(PAIRS), "positive_pair", columns={"positive": "anchor", "anchor": "positive"})
    assert (examples.texts["anchor"][0], examples.texts["positive"][0]) == ("p0", "a0")


def test_empty_texts_are_dropped_and_counted_and_rows_keep_their_number(write):
    rows = [{"text": text, "label": 1} for text in ["a", "", None, " \n", "b"]] + [
        {"text": "c", "label": None},
        {"text": "d"},
    ]
    examples = train(write(rows), "labeled_text")
    assert examples.texts == {"text": ["a", "b"]}
    assert examples.row.tolist() == [1, 5]
    assert examples.dropped == {"empty text": 3, "null label": 2}


def test_several_texts_of_a_row_make_one_example_each(write):
    rows = [
        {"title": "t1", "body": "b1", "answers": ["x", "y"], "label": 4},
        {"title": "t2", "body": "", "answers": [], "label": 0},
    ]
    examples = train(write(rows), "labeled_text", columns={"text": ["title", "body", "answers[*]"]})
    assert examples.texts["text"] == ["t1", "b1", "x", "y", "t2"]
    assert examples.label.tolist() == [4, 4, 4, 4, 0]
    assert examples.row.tolist() == [1, 1, 1, 1, 2]


@pytest.mark.parametrize("negative", ["n[:3]", ["n[0]", "n[1]", "n[2]"]])
def test_several_negatives_may_be_ragged(write, negative):
    rows = [{"a": "a", "p": "p", "n": n} for n in (["1", "2", "3", "4"], ["5"], [], ["", None, "6"])]
    examples = train(write(rows), "triplet", columns={"anchor": "a", "positive": "p", "negative": negative})
    assert examples.texts["negative_1"] == ["1", "5", "6"]
    assert examples.texts["negative_2"] == ["2", None, None]
    assert examples.texts["negative_3"] == ["3", None, None]
    assert examples.dropped == {"empty text": 1}


def test_a_single_negative_is_called_negative(write):
    rows = [{"anchor": "a", "positive": "p", "negative": "n"}]
    assert list(train(write(rows), "triplet").texts) == ["anchor", "positive", "negative"]
    columns = {"negative": ["negative", "other[:2]"]}
    assert list(train(write([{**rows[0], "other": []}]), "triplet", columns=columns).texts)[-1] == "negative"


def test_rows_with_empty_lists_are_counted(write):
    rows = [{"q": "a", "p": []}, {"q": "b", "p": ["1", ""]}]
    examples = train(write(rows), "positive_pair", columns={"anchor": "q", "positive": "p[*]"})
    assert examples.dropped == {"empty list": 1, "empty text": 1}


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        (2, [2]),
        ([1, 3], [1, 3]),
        (Condition(min=2), [2, 3]),
        (Condition(min=1, max=2), [1, 2]),
        (Condition.model_validate({"not": 2}), [0, 1, 3, None]),
        (Condition.model_validate({"not": [0, 2], "present": True}), [1, 3]),
        (Condition(present=False), [None]),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_where_keeps_rows_that_match_also_where_numbers_are_text(write, condition, kept, suffix):
    numbers = [0, 1, 2, 3, None]
    if suffix == "jsonl":
        path = write([{"anchor": f"{n}", "positive": "p", "n": n} for n in numbers])
    else:
        path = write("anchor,positive,n\n" + "".join(f"{n},p,{'' if n is None else n}\n" for n in numbers), "a.csv")
    assert train(path, "positive_pair", where={"n": condition}).texts["anchor"] == [str(n) for n in kept]


def test_where_follows_paths_and_text(write):
    rows = [{**row, "meta": {"lang": lang}} for row, lang in zip(PAIRS, ["en", "de"] * 15, strict=True)]
    assert train(write(rows), "positive_pair", where={"meta.lang": "de"}).row.tolist() == list(range(2, 31, 2))


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ({"lang": "deu"}, "no row meets `lang: deu`; its values are eng (20), Deu (9), null (1): did you mean Deu?"),
        ({"lang": ["fr", "Eng"]}, "`lang: [fr, Eng]`; its values are eng (20), Deu (9), null (1): did you mean eng?"),
        ({"level": "1"}, "are numbers, which have no quotes: 0 (15), 1 (15): did you mean 1?"),
        ({"level": {"min": 2}}, "no row meets `level: {min: 2}`; its numbers are 0 to 1"),
        ({"lang": {"max": 2}}, "it holds no numbers"),
        ({"anchor": "nobody"}, "(1) and 20 more"),
        ({"lang": "eng", "n": 25}, "met by some rows (`lang` by 20, `n` by 1), but no row meets all"),
    ],
)
def test_where_that_keeps_nothing_says_what_is_there(write, where, reason):
    langs = ["eng"] * 20 + ["Deu"] * 9 + [None]
    rows = [
        {**row, "n": i, "level": i % 2, "lang": lang} for i, (row, lang) in enumerate(zip(PAIRS, langs, strict=True))
    ]
    with pytest.raises(DataError, match=f"`where` drops all 30 rows: .*{re.escape(reason)}"):
        train(write(rows), "positive_pair", where=where)


@pytest.mark.parametrize("size", [Holdout(fraction=0.2), Holdout(rows=6)])
def test_holdout_and_training_part_the_rows(write, size):
    training, held_out = load(write(PAIRS), "positive_pair", holdout=size)
    assert len(held_out) == 6
    assert sorted([*training.row, *held_out.row]) == list(range(1, 31))
    assert not set(training.row) & set(held_out.row)


def test_holdout_follows_from_its_own_seed_alone(write):
    path = write(PAIRS)
    holdouts = [Holdout(rows=6, seed=seed) for seed in (1, 1, 2, 3)]
    draws = [load(path, "positive_pair", seed, holdout)[1].row.tolist() for seed, holdout in enumerate(holdouts)]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) == 3
    shortened = load(path, "positive_pair", 1, holdouts[0], shuffle=True, limit=5)
    assert shortened[1].row.tolist() == draws[0]
    assert len(shortened[0]) == 5


@pytest.mark.parametrize("seed", range(8))
def test_holdout_by_a_column_never_splits_a_group(write, seed):
    training, held_out = load(write(PAIRS), "positive_pair", 0, Holdout(fraction=0.25, by="topic", seed=seed))
    topics = [{PAIRS[row - 1]["topic"] for row in part.row} for part in (training, held_out)]
    assert not topics[0] & topics[1]
    assert len(held_out) == 6  # two groups of three; a third does not fit into 7.5 rows


@pytest.mark.parametrize("seed", range(8))
def test_holdout_takes_whole_rows_before_lists_are_expanded(write, seed):
    rows = [{"set": [f"{i}-{k}" for k in range(4)]} for i in range(10)]
    columns = {"anchor": "set[*]", "positive": "set[*]"}
    training, held_out = load(write(rows), "positive_pair", seed, Holdout(rows=3), columns=columns)
    assert (len(training), len(held_out)) == (7 * 6, 3 * 6)
    assert not set(training.row) & set(held_out.row)


def test_both_sides_of_a_holdout_number_their_classes_alike(write):
    rows = [{"text": f"t{i}", "label": "abcdefghij"[i]} for i in range(10)]
    for part in load(write(rows), "labeled_text", 1, Holdout(rows=4)):
        assert part.label_names == list("abcdefghij")
        assert part.label.tolist() == (part.row - 1).tolist()


def test_a_holdout_that_leaves_one_side_empty_is_refused(write):
    with pytest.raises(DataError, match="a holdout of 30 of 30 rows leaves no rows to train on"):
        load(write(PAIRS), "positive_pair", holdout=Holdout(rows=30))
    same = [{**row, "topic": 1} for row in PAIRS]
    with pytest.raises(DataError, match="1 groups of equal `topic`"):
        load(write(same), "positive_pair", holdout=Holdout(rows=3, by="topic"))


def test_specs_refuse_what_can_not_be_meant():
    with pytest.raises(ValidationError, match="`fraction` or `rows`"):
        Holdout()
    with pytest.raises(ValidationError, match="must be less than"):
        Source(dataset="./a.csv", label_range=[5, 0])


def test_shuffle_comes_before_limit_and_after_everything_else(write):
    path = write(PAIRS)
    whole = train(path, "positive_pair", shuffle=True)
    assert sorted(whole.row) == list(range(1, 31))
    assert whole.row.tolist() != list(range(1, 31))
    assert train(path, "positive_pair", shuffle=True, limit=7).row.tolist() == whole.row[:7].tolist()
    assert train(path, "positive_pair", where={"n": Condition(min=10)}, limit=2).row.tolist() == [11, 12]
    assert train(path, "positive_pair", split="train[50%:]", limit=2).row.tolist() == [16, 17]


def test_the_fingerprint_is_that_of_the_content(write):
    first = train(write(PAIRS), "positive_pair").fingerprint
    assert first == train(write(PAIRS, "copy.jsonl.gz"), "positive_pair").fingerprint
    others = [
        train(write([{**PAIRS[0], "anchor": "x"}, *PAIRS[1:]], "b.jsonl"), "positive_pair"),
        train(write(PAIRS), "positive_pair", columns={"anchor": "positive", "positive": "anchor"}),
        train(write(PAIRS), "positive_pair", limit=29),
        train(write(PAIRS), "positive_pair", shuffle=True),
    ]
    assert len({first, *(other.fingerprint for other in others)}) == 5


def test_the_fingerprint_and_the_order_do_not_depend_on_the_hash_seed(write):
    code = (
        "import sys\n"
        "from stfit.data.mapping.load_examples import load_examples\n"
        "from stfit.data.source import Holdout, Source\n"
        "source = Source(dataset=sys.argv[1], shuffle=True)\n"
        "parts = load_examples(source, 'positive_pair', 3, Holdout(rows=5, by='topic'))\n"
        "print([part.fingerprint for part in parts])"
    )
    path = write([{**row, "topic": f"topic {row['topic']}"} for row in PAIRS])
    found = {
        subprocess.check_output([sys.executable, "-c", code, path], env={**os.environ, "PYTHONHASHSEED": seed})
        for seed in ("0", "1", "2")
    }
    assert len(found) == 1


def test_missing_columns_are_named_with_the_line_to_write(write):
    path = write([{"premise": "a", "hypothesis": "b", "label": 1}])
    with pytest.raises(DataError) as caught:
        train(path, "labeled_pair", columns={"sentence1": "premise"})
    assert str(caught.value) == (
        f"{path}: format labeled_pair needs sentence2, but the columns are premise, hypothesis, label: "
        "write `columns: {sentence1: premise, sentence2: ..., label: label}`"
    )


def test_all_missing_columns_are_reported_at_once(write):
    with pytest.raises(DataError) as caught:
        train(write(PAIRS), "positive_pair", columns={"anchor": "ancor", "positive": "postive"})
    assert [problem.message.split(":")[0] for problem in caught.value.problems] == [
        "there is no column `ancor`",
        "there is no column `postive`",
    ]


@pytest.mark.parametrize(
    ("columns", "format", "what"),
    [
        (
            {"anchr": "a"},
            "positive_pair",
            "`columns: anchr` is not a role .*: did you mean `anchor`",
        ),
        ({"label": "n"}, "positive_pair", "is not a role of format positive_pair"),
        ({"anchor": ["a", "b"]}, "positive_pair", "takes one selector"),
        ({"text": []}, "labeled_text", "takes one selector"),
        ({"anchor": "anchor[:2]"}, "positive_pair", "takes one text: replace the slice in `anchor\\[:2\\]`"),
        ({"anchor": "anchor[x]"}, "positive_pair", "can't read the selector"),
        ({"negative": ["anchor[*]", "positive"]}, "triplet", "use slices instead"),
    ],
)
def test_columns_that_make_no_sense_are_a_recipe_error(write, columns, format, what):
    with pytest.raises(RecipeError, match=what):
        train(write(PAIRS), format, columns=columns)


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        (7, r"a number: 7; set `read: {numbers: as_text}`"),
        (0.5, "a number"),
        (["x"], r"a list: .*`anchor\[0\]`"),
        ({"a": 1}, r"a mapping: .*`anchor\.a`"),
        (True, "true or false: .*--read numbers=as_text"),
        ("\ud800", "has half a character"),
    ],
)
def test_cells_that_are_no_text_are_named_by_row(write, cell, kind):
    rows = [{**row, "anchor": cell if i in (4, 9) else row["anchor"]} for i, row in enumerate(PAIRS)]
    with pytest.raises(DataError, match=f"anchor .from `anchor`. is not text in rows 5, 10, but {kind}") as caught:
        train(write(rows), "positive_pair")
    assert caught.value.problems[0].row == 5


def test_numbers_are_texts_where_that_is_asked_for(write):
    cells = [7, 0.5, 3.0, True, "text", 10**30]
    gaps = [None, float("nan"), ""]
    rows = [{"anchor": cell, "positive": f"p{i}"} for i, cell in enumerate([*cells, *gaps])]
    examples = train(write(rows), "positive_pair", read=ReadOptions(numbers="as_text"))
    assert examples.texts["anchor"] == ["7", "0.5", "3", "true", "text", "1" + "0" * 30]
    assert examples.dropped == {"empty text": 3}
    rows = [{"anchor": "a", "positive": "b", "negative": [1, False]}]
    examples = train(write(rows), "triplet", columns={"negative": "negative[:]"}, read=ReadOptions(numbers="as_text"))
    assert (examples.texts["negative_1"], examples.texts["negative_2"]) == (["1"], ["false"])


def test_a_gap_of_pandas_is_a_missing_text(write):
    rows = [{"anchor": "a", "positive": "b"}, {"anchor": float("nan"), "positive": "c"}]
    assert train(write(rows), "positive_pair").dropped == {"empty text": 1}


def test_at_most_five_rows_are_shown(write):
    with pytest.raises(DataError, match="is not text in rows 1, 2, 3, 4, 5 and 25 more, but a number: "):
        train(write(PAIRS), "positive_pair", columns={"positive": "n"})


def test_bad_texts_and_bad_labels_are_reported_together(write):
    rows = [{"text": "a", "label": 0}, {"text": 3, "label": 1}, {"text": "b", "label": float("nan")}]
    with pytest.raises(DataError) as caught:
        train(write(rows), "labeled_text")
    assert [problem.row for problem in caught.value.problems] == [2, 3]


def test_no_examples_left_says_what_dropped_them(write):
    rows = [{"text": "", "label": 1}, {"text": "a", "label": None}]
    with pytest.raises(DataError, match=r"no example can be made from 2 rows \(empty text: 1, null label: 1\)"):
        train(write(rows), "labeled_text")
    with pytest.raises(DataError, match=r"the split `train\[:0\]` has no rows"):
        train(write(PAIRS), "positive_pair", split="train[:0]")
    with pytest.raises(DataError, match="the file is empty"):
        train(write([]), "positive_pair")


def test_take_reorders_everything(write):
    rows = [{"sentence1": f"{i}", "sentence2": "x", "label": i / 4} for i in range(4)]
    taken = train(write(rows), "labeled_pair").take(np.array([3, 1]))
    assert (taken.texts["sentence1"], taken.label.tolist(), taken.row.tolist()) == (["3", "1"], [0.75, 0.25], [4, 2])


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (["anchor ", " positive"], {"anchor": "anchor ", "positive": " positive"}),
        (["Anchor", "POSITIVE"], {"anchor": "Anchor", "positive": "POSITIVE"}),
        (["anchors", "other: x"], {"anchor": "anchors", "positive": "..."}),
    ],
)
def test_a_hint_names_the_columns_that_are_nearly_called_so_and_can_be_pasted(write, names, hint):
    with pytest.raises(DataError, match="write `columns: ") as caught:
        train(write([dict(zip(names, "ab", strict=True))]), "positive_pair")
    written = str(caught.value).partition("write `columns: ")[2].rpartition("`")[0]
    assert yaml.safe_load(written) == hint


def test_tabs_in_a_text_file_are_noticed(write):
    path = write("one\ttwo\nthree\tfour\n", "pairs.txt")
    with pytest.raises(DataError, match="if a tab separates its columns") as caught:
        train(path, "positive_pair")
    hint = yaml.safe_load(str(caught.value).partition("set `read: ")[2].rpartition("`")[0])
    assert len(train(path, "positive_pair", read=ReadOptions(**hint))) == 2


def test_a_limit_reads_no_further_than_it_needs_unless_other_rows_have_a_say(write):
    lines = [json.dumps({"anchor": f"a{i}" if i % 3 else "", "positive": f"p{i}", "n": i}) for i in range(40_000)]
    whole = train(write("\n".join(lines)), "positive_pair")
    path = write("\n".join([*lines[:35_000], "not JSON"]), "broken.jsonl")
    for limit in (5, 13_000):
        first = train(path, "positive_pair", limit=limit)
        assert first.texts == whole.take(np.arange(limit)).texts
        assert first.row.tolist() == whole.row[:limit].tolist()
    for keys in ({"limit": 30_000}, {"limit": 5, "shuffle": True}, {"limit": 5, "where": {"n": 3}}):
        with pytest.raises(DataError, match="line 35001 is not valid JSON"):
            train(path, "positive_pair", **keys)


def test_a_hint_gives_each_role_a_column_of_its_own(write):
    path = write([{"sentence_A": "a", "sentence_B": "b", "score": 0.5}])
    with pytest.raises(DataError, match=r"\{sentence1: sentence_A, sentence2: sentence_B, label: score\}"):
        train(path, "labeled_pair", columns={"label": "score"})


def scored_rows(tmp_path, *rows):
    path = tmp_path / "scored.jsonl"
    lines = [{"anchor": f"a{i}", "positive": f"p{i}", "neg": neg, "s": s} for i, (neg, s) in enumerate(rows)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    columns = {"negative": "neg[:]", "scores": "s"}
    return Source(dataset=str(path), columns=columns)


def test_scores_belong_to_the_positive_and_to_each_negative(tmp_path):
    source = scored_rows(tmp_path, (["x", "y"], [9, 1.5, -2]), (["z"], [3, 2]), (["", "w"], [7, 6, 5]), (["v"], None))
    examples, _ = load_examples(source, "triplet", 0)
    assert examples.texts["negative_1"] == ["x", "z", "w"]
    np.testing.assert_array_equal(examples.scores, [[9, 1.5, -2], [3, 2, np.nan], [7, 5, np.nan]])
    assert examples.dropped == {"no scores": 1}
    np.testing.assert_array_equal(examples.take(np.array([2, 0])).scores, examples.scores[[2, 0]])
    unscored, _ = load_examples(source.model_copy(update={"columns": {"negative": "neg[:]"}}), "triplet", 0)
    assert unscored.fingerprint != examples.fingerprint


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0, 2.0], r"scores has 2 numbers for a positive and 2 negatives: one for each is needed \(row 1\)"),
        (3.5, "scores is not a list of numbers, but 3.5"),
        ([1.0, "high", 2.0], "scores holds 'high', which is no finite number"),
        ([1.0, None, 2.0], "scores holds None"),
    ],
)
def test_scores_that_do_not_fit_the_candidates_are_refused_with_their_row(tmp_path, scores, message):
    with pytest.raises(DataError, match=message) as caught:
        load_examples(scored_rows(tmp_path, (["x", "y"], scores)), "triplet", 0)
    assert caught.value.problems[0].row == 1


def test_a_label_and_scores_are_one_too_many(tmp_path):
    source = scored_rows(tmp_path, (["x"], [1, 2]))
    with pytest.raises(RecipeError, match="has both label and scores"):
        load_examples(source.model_copy(update={"columns": source.columns | {"label": "s"}}), "triplet", 0)

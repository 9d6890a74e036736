"""Forty mistakes in real rows: every one is refused or warned of, with its row where it has one."""

import gzip
import json
import re

import pytest

ROWS = 300
AT = 37
ROW = AT + 1

TRAIN = "train: {batch_size: 16, learning_rate: 1.0e-3}\n"
MODEL = "model: {base: {type: scratch, hidden_size: 32, num_layers: 1, num_heads: 2}}\n"

# Set -> its split, and the rest of a recipe for it.
SETS = {
    "stsb": ("train", "{format: labeled_pair, columns: {label: score}}", "cosine_similarity"),
    "quora_duplicates": (
        "train",
        "{format: labeled_pair, columns: {sentence1: question1, sentence2: question2, label: is_duplicate}}",
        "contrastive",
    ),
    "snli": ("test", "{format: labeled_pair, columns: {sentence1: premise, sentence2: hypothesis}}", "softmax"),
    "trec": ("train", "{format: labeled_text, columns: {label: coarse_label}}", "batch_hard_triplet"),
    "qqp_triplets": (
        "train",
        '{format: triplet, columns: {anchor: set.query, positive: "set.pos[0]", negative: "set.neg[0]"}}',
        "multiple_negatives_ranking",
    ),
    "nli_pairs": ("train", "{format: positive_pair}", "multiple_negatives_ranking"),
}


def cell(key, value):
    """Write one cell of one row; a function of the row gives the value."""

    def change(rows):
        where = rows[AT]
        *path, last = key.split(".")
        for part in path:
            where = where[part]
        last = int(last) if isinstance(where, list) else last
        where[last] = value(rows[AT]) if callable(value) else value

    return change


def column(key, value):
    """Write one column of all rows."""

    def change(rows):
        for index, row in enumerate(rows):
            row[key] = value(index, row)

    return change


def swap(one, other):
    def change(rows):
        for row in rows:
            row[one], row[other] = row[other], row[one]

    return change


def swap_in_set(rows):
    for row in rows:
        row["set"]["pos"], row["set"]["neg"] = row["set"]["neg"], row["set"]["pos"]


def repeat_row(rows):
    rows[AT] = json.loads(json.dumps(rows[3]))


def contradict(rows):
    rows[AT] = rows[3] | {"score": 1 - round(rows[3]["score"])}


def same_anchor_in_capitals(rows):
    rows[AT]["positive"] = rows[3]["positive"].upper()


def drop_column(key):
    def change(rows):
        for row in rows:
            del row[key]

    return change


def label_again(rows):
    rows.append(rows[AT] | {"coarse_label": 5 - rows[AT]["coarse_label"]})


def cut_rows(rows):
    del rows[1:]


# Set, name, change, a word of what check should say, and whether it should name the row.
MUTANTS = [
    ("stsb", "empty text", cell("sentence1", ""), "dropped", True),
    ("stsb", "blank text", cell("sentence2", " \t "), "dropped", True),
    ("stsb", "null text", cell("sentence1", None), "dropped", True),
    ("stsb", "number for a text", cell("sentence1", 7), "a number", True),
    ("stsb", "list for a text", cell("sentence2", ["a", "b"]), "list", True),
    ("stsb", "mapping for a text", cell("sentence2", {"text": "a"}), "a mapping", True),
    ("stsb", "half a surrogate pair", cell("sentence1", "broken \ud83d"), "not-text", True),
    ("stsb", "replacement characters", cell("sentence1", "caf\ufffd au lait"), "wrong encoding", True),
    ("stsb", "UTF-8 read as Latin-1", cell("sentence1", "café au lait".encode().decode("latin-1")), "decoded", True),
    ("stsb", "null label", cell("score", None), "dropped", True),
    ("stsb", "label out of range", cell("score", 1.7), "label_range", True),
    ("stsb", "negative score", cell("score", -0.2), "label_range", True),
    ("stsb", "label is NaN", cell("score", float("nan")), "finite", True),
    ("stsb", "label is a word", cell("score", "similar"), "label", True),
    ("stsb", "label is a list", cell("score", [0.5]), "label", True),
    ("stsb", "scores from 0 to 5", column("score", lambda i, row: row["score"] * 5), "label_range", False),
    ("stsb", "scores from 0 to 0.05", column("score", lambda i, row: row["score"] / 20), "label_range", False),
    ("stsb", "constant score", column("score", lambda i, row: 0.5), "differences", False),
    ("stsb", "scores upside down", column("score", lambda i, row: 1 - row["score"]), "high label", False),
    ("stsb", "row twice", repeat_row, "duplicates", True),
    ("stsb", "contradictory labels", contradict, "different labels", True),
    ("stsb", "id column for a text", column("sentence2", lambda i, row: f"{i}"), "no words", False),
    ("stsb", "hex ids for a text", column("sentence2", lambda i, row: f"doc-{i * 7919:08x}-1"), "id column", False),
    ("stsb", "source column for a text", column("sentence2", lambda i, row: "headlines"), "every row", False),
    ("stsb", "genre column for a text", column("sentence2", lambda i, row: ["news", "forum"][i % 2]), "class", False),
    ("stsb", "one text for both", column("sentence2", lambda i, row: row["sentence1"]), "same text", False),
    ("stsb", "column missing", drop_column("score"), "score", False),
    ("quora_duplicates", "labels upside down", column("is_duplicate", lambda i, row: 1 - row["is_duplicate"]),
     "high label", False),
    ("quora_duplicates", "equal but different", cell("question2", lambda row: row["question1"]), "equal", True),
    ("quora_duplicates", "labels 1 and 2", column("is_duplicate", lambda i, row: row["is_duplicate"] + 1), "1 to 2",
     False),
    ("quora_duplicates", "all duplicates", column("is_duplicate", lambda i, row: 1), "all 300 labels", False),
    ("snli", "classes from 1", column("label", lambda i, row: row["label"] + 1), "class", False),
    ("snli", "no gold label", cell("label", -1), "class", True),
    ("snli", "class 7", cell("label", 7), "has no rows", False),
    ("trec", "one class", column("coarse_label", lambda i, row: 3), "all 300 labels", False),
    ("trec", "class of one row", cell("coarse_label", 6), "classes with one row", True),
    ("trec", "every row its class", column("coarse_label", lambda i, row: i), "one row", False),
    ("trec", "text labelled twice", label_again, "different labels", True),
    ("qqp_triplets", "positive and negative swapped", swap_in_set, "swapped", False),
    ("qqp_triplets", "no positive", cell("set.pos", []), "dropped", True),
    ("qqp_triplets", "positive is no list", cell("set.pos", "a question"), "list", True),
    ("qqp_triplets", "negative is the positive", cell("set.neg.0", lambda row: row["set"]["pos"][0]), "negative", True),
    ("qqp_triplets", "positive is the anchor", cell("set.pos.0", lambda row: row["set"]["query"].upper()), "equals its",
     True),
    ("nli_pairs", "query and document swapped", column("anchor", lambda i, row: 5 * (row["anchor"] + " ")),
     "much longer", False),
    ("nli_pairs", "0/1 column beside the pair", column("is_positive", lambda i, row: i % 2), "where", False),
    ("nli_pairs", "0/1 column of a CSV", column("gold", lambda i, row: str(i % 2)), "where", False),
    ("nli_pairs", "one positive, two spellings", same_anchor_in_capitals, "case or whitespace", True),
    ("nli_pairs", "one positive for all", column("positive", lambda i, row: "yes"), "every row", False),
    ("nli_pairs", "long texts", column("anchor", lambda i, row: f"{i} words " * 400), "cut", False),
    ("nli_pairs", "one row", cut_rows, "do not form a batch", False),
]  # fmt: skip


@pytest.fixture
def rows_of(shared):
    """Name of a set -> its first rows without blemish of their own, which would hide what is planted."""

    def read(name):
        with gzip.open(shared / "data" / name / f"{SETS[name][0]}.jsonl.gz", "rt", encoding="utf-8") as file:
            return [json.loads(next(file)) for _ in range(ROWS)]

    return read


def write_recipe(name, rows):
    """The mutated rows in a file of the current folder; the recipe for them."""
    with open("rows.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    _, data, loss = SETS[name]
    return f"{MODEL}data: {{dataset: ./rows.jsonl, {data[1:]}\nloss: {loss}\n{TRAIN}"


def test_every_wrong_row_is_refused_or_warned_of_with_its_number(rows_of, judge, table):
    known = {}
    for name in SETS:
        errors, warnings = judge.problems_of(write_recipe(name, rows_of(name)))
        assert not errors, (name, errors)
        known[name] = {problem.message for problem in warnings}
    kinds, wrong = [], []
    for name, title, change, word, has_row in MUTANTS:
        rows = rows_of(name)
        change(rows)
        verdict = judge(write_recipe(name, rows), known[name])
        kinds.append(verdict.kind)
        meant = [problem for problem in verdict.new if word in f"{problem.message}\n{problem.code}"]
        if not meant or (has_row and not any(names_row(problem.message) for problem in meant)):
            wrong.append((name, title, verdict))
    table("wrong data", kinds)
    assert not wrong, "\n".join(map(str, wrong))
    assert set(kinds) == {"refused", "warned"}
    assert len(kinds) >= 40


def names_row(message):
    return re.search(rf"\brows? (\d+, )*{ROW}\b", message)

"""Every shared set loads with nothing but a Source."""

import pytest

from stfit.data.mapping.load_examples import load_examples
from stfit.data.source import ReadOptions, Source

QUORA = {"sentence1": "question1", "sentence2": "question2", "label": "is_duplicate"}
SICK = {"sentence1": "sentence_A", "sentence2": "sentence_B"}
QQP = {"anchor": "set.query", "positive": "set.pos[0]"}
STS_COLUMNS = ["genre", "file", "year", "id", "label", "sentence1", "sentence2"]
RAW = ReadOptions(delimiter="\t", quoting=False, header=STS_COLUMNS)

RAW_KEYS = {"read": RAW, "label_range": [0, 5]}
FIRST_TWO = {"anchor": "set[0]", "positive": "set[1]"}
SICK_SCORES = {"columns": {**SICK, "label": "relatedness_score"}, "label_range": [1, 5]}
SNLI = {"columns": {"sentence1": "premise", "sentence2": "hypothesis"}, "split": "test"}

SETS = {
    "stsb": ("stsb", "labeled_pair", {"columns": {"label": "score"}}, 5749, "score"),
    "stsb raw": ("stsb/raw/sts-train.csv.gz", "labeled_pair", RAW_KEYS, 5749, "score"),
    "sick scores": ("sick", "labeled_pair", SICK_SCORES, 4500, "score"),
    "sick classes": ("sick", "labeled_pair", {"columns": SICK}, 4500, "class"),
    "snli": ("snli", "labeled_pair", SNLI, 9824, "class"),
    "snli_cad": ("snli_cad", "labeled_pair", {"columns": {"label": "gold_label"}}, 8330, "class"),
    "quora": ("quora_duplicates", "labeled_pair", {"columns": QUORA}, 7901, "binary"),
    "quora positives": (
        "quora_duplicates",
        "positive_pair",
        {"columns": {"anchor": "question1", "positive": "question2"}, "where": {"is_duplicate": 1}},
        3960,
        "none",
    ),
    "quora_pairs": ("quora_pairs", "positive_pair", {"columns": FIRST_TWO}, 3960, "none"),
    "sentence_compression": (
        "sentence_compression",
        "positive_pair",
        {"columns": FIRST_TWO},
        800,
        "none",
    ),
    "flickr8k": ("flickr8k", "positive_pair", {"columns": {"anchor": "set[*]", "positive": "set[*]"}}, 60_000, "none"),
    "asset": (
        "asset",
        "positive_pair",
        {"columns": {"anchor": "original", "positive": "simplifications[*]"}, "split": "validation"},
        20_000,
        "none",
    ),
    "trec coarse": ("trec", "labeled_text", {"columns": {"label": "coarse_label"}}, 5452, "class"),
    "trec fine": ("trec", "labeled_text", {"columns": {"label": "fine_label"}}, 5452, "class"),
    "banking77": ("banking77", "labeled_text", {}, 10_003, "class"),
    "qqp one negative": ("qqp_triplets", "triplet", {"columns": {**QQP, "negative": "set.neg[0]"}}, 4705, "none"),
    "qqp all negatives": ("qqp_triplets", "triplet", {"columns": {**QQP, "negative": "set.neg[:5]"}}, 4705, "none"),
    "allnli": ("allnli_triplets", "triplet", {}, 3256, "none"),
}


@pytest.mark.parametrize("name", SETS)
def test_a_real_set_loads(shared, name):
    folder, format, keys, rows, kind = SETS[name]
    examples, _ = load_examples(Source(dataset=str(shared / "data" / folder), **keys), format, 1)
    assert (len(examples), examples.label_kind, examples.dropped) == (rows, kind, {})
    if kind == "score":
        assert (examples.label.min(), examples.label.max()) == (0, 1)


def test_class_names_of_real_sets_are_kept(shared):
    columns = {"label": "fine_label"}
    trec, _ = load_examples(Source(dataset=str(shared / "data/trec"), columns=columns), "labeled_text", 1)
    assert trec.num_classes == len(trec.label_names) == 50
    cad, _ = load_examples(
        Source(dataset=str(shared / "data/snli_cad"), columns={"label": "gold_label"}), "labeled_pair", 1
    )
    assert cad.label_names == ["contradiction", "entailment", "neutral"]


def test_the_raw_and_the_converted_stsb_are_the_same_examples(shared):
    folder = shared / "data/stsb"
    raw = Source(dataset=str(folder / "raw/sts-dev.csv.gz"), read=RAW, label_range=[0, 5])
    converted = Source(dataset=str(folder), split="validation", columns={"label": "score"})
    one, other = (load_examples(source, "labeled_pair", 1)[0] for source in (raw, converted))
    assert one.texts == other.texts
    assert one.label.tolist() == pytest.approx(other.label.tolist())

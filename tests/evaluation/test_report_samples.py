"""Samples of a dataset and snapshots of a model on them."""

import json

import numpy as np
import pytest

from stfit.data.mapping.examples import Examples
from stfit.data.mapping.load_examples import load_examples
from stfit.data.source import ROLES, Source
from stfit.encoder.build import load_encoder
from stfit.evaluation.collection import collection_of_pairs
from stfit.evaluation.report_samples import MAX_CHARACTERS, MAX_ROWS, build_sample

WORDS = [f"word{i}" for i in range(300)]


@pytest.fixture(scope="module")
def encoder(tiny_base):
    return load_encoder(tiny_base("bert"))


def examples(folder, format, **columns):
    rows = [
        {role: f"{role} {word} {word if role != 'negative' else i}" for role in ROLES[format]}
        | {name: value(i) for name, value in columns.items()}
        for i, word in enumerate(WORDS)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_examples(Source(dataset=str(folder / "rows.jsonl")), format, 0)[0]


CASES = {
    "positive_pair": {},
    "triplet": {},
    "labeled_text": {"label": lambda i: f"class {i % 3}"},
    "labeled_pair": {"label": lambda i: i % 11 / 10},
    "text": {},
}


@pytest.mark.parametrize("format", CASES)
def test_every_format_has_a_sample_of_a_bounded_size(tmp_path, encoder, format):
    rows = examples(tmp_path, format, **CASES[format])
    sample = build_sample("rows", rows, lambda encoder, role: "")
    assert len(sample.left) == MAX_ROWS
    assert len(set(sample.right)) == len(sample.right)
    snapshot = sample.snapshot(encoder)
    json.dumps([sample.to_dict(), snapshot])
    assert bool(snapshot["positive"]) == bool(snapshot["negative"]) == (format != "text")
    assert (sample.gold_l is not None) == (format == "labeled_pair")
    again = build_sample("rows", rows, lambda encoder, role: "")
    assert again.to_dict() == sample.to_dict()


def test_what_belongs_together_is_known_from_all_rows(tmp_path):
    rows = [
        {"anchor": "a", "positive": "b", "negative": "c"},
        {"anchor": "a", "positive": "c", "negative": "d"},  # c is right for a here, so it is no negative there
        {"anchor": "e", "positive": "f", "negative": "b"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sample = build_sample(
        "rows", load_examples(Source(dataset=str(tmp_path / "rows.jsonl")), "triplet", 0)[0], lambda *_: ""
    )
    relation = {
        (left, right): sample.relation_lr[i, j]
        for i, (_, left) in enumerate(sample.left)
        for j, (_, right) in enumerate(sample.right)
    }
    assert [relation["a", "b"], relation["a", "c"], relation["e", "f"], relation["e", "b"]] == [1, 1, 1, -1]
    assert relation["e", "c"] == 0


def test_scores_say_how_far_ranks_are_apart(tmp_path):
    rows = examples(tmp_path, "labeled_pair", label=lambda i: i / 300)
    sample = build_sample("rows", rows, lambda encoder, role: "")
    similarity_lr = np.zeros((len(sample.left), len(sample.right)))
    similarity_lr[np.arange(len(sample.left)), sample.row_partner_l] = sample.gold_l
    np.testing.assert_array_equal(sample.score(similarity_lr), 1)
    np.testing.assert_allclose(sample.score(-similarity_lr)[[0, -1]], 0)


def test_long_texts_make_a_smaller_sample(tmp_path):
    rows = [{"anchor": f"{i} " * 2000, "positive": "short"} for i in range(100)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples = load_examples(Source(dataset=str(tmp_path / "rows.jsonl")), "positive_pair", 0)[0]
    sample = build_sample("rows", examples, lambda encoder, role: "")
    assert 2 <= len(sample.left) <= MAX_CHARACTERS // 4000


def test_a_document_without_text_is_a_text(encoder):
    """BEIR has such documents; only a negative that a row lacks is left out."""
    pairs = collection_of_pairs(
        Examples(
            "positive_pair", {"anchor": ["a", "b"], "positive": ["", "c"]}, None, "none", None, np.array([1, 2]), {}
        )
    ).pairs
    sample = build_sample("beir", pairs, lambda encoder, role: "")
    assert [text for _, text in sample.right] == ["", "c"]
    sample.snapshot(encoder)

"""Texts that the base's vocabulary does not hold: few are named, most of them end the run before it begins."""

import json

import numpy as np
import pytest

from stfit.commands.check import check
from stfit.data.checks.lengths import empty_texts, unknown_tokens
from stfit.errors import DataError


@pytest.mark.parametrize(("unknown", "found"), [(0, False), (1, False), (2, True), (50, True)])
def test_more_than_one_in_a_hundred_is_named(unknown, found) -> None:
    ids = np.array([1] * unknown + [5] * (100 - unknown))
    assert bool(unknown_tokens(ids, 1)) == found
    assert unknown_tokens(ids, None) == []


def test_more_than_half_is_an_error() -> None:
    with pytest.raises(DataError, match="51% of the tokens are not in the base's vocabulary"):
        unknown_tokens(np.array([1] * 51 + [5] * 49), 1)


def test_check_counts_them_without_the_weights(tiny_base, tmp_path) -> None:
    def recipe(texts):
        rows = [{"anchor": text, "positive": f"the cat {text}"} for text in texts]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        content = {"data": {"dataset": "./rows.jsonl", "format": "positive_pair"}, "loss": "multiple_negatives_ranking"}
        settings = {"model": {"base": str(tiny_base("bert"))}, "train": {"batch_size": 2, "epochs": 1}}
        (tmp_path / "recipe.yaml").write_text(json.dumps(content | settings))
        return check(tmp_path / "recipe.yaml", [])

    assert "unknown-tokens" not in str(recipe(["rain", "a guitar", "the sea", "two children"]))
    assert "unknown-tokens" in str(recipe(["東京 タワー", "大阪 城", "京都 寺", "横浜 港"]))


def test_texts_without_any_known_word_are_refused():
    assert len(empty_texts(np.array([0, 0, 3]))) == 1
    assert empty_texts(np.array([])) == []
    with pytest.raises(DataError, match="2 of 2 texts contain no word"):
        empty_texts(np.array([0, 0]))

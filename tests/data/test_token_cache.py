"""Tokens are kept on disk for large corpora, and a damaged file costs time, not truth."""

from itertools import pairwise

import numpy as np
import pytest

from stfit.data.cache import tokens as token_cache
from stfit.data.cache.tokens import load_tokens


class Counting:
    """A tokenizer that gives every text its length and its first letter, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, texts):
        self.asked += 1
        return [np.array([len(text), ord(text[0])], dtype=np.int32) for text in texts]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(token_cache, "MIN_CACHED_TEXTS", 3)
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path))
    return tmp_path / "stfit" / "tokens"


TEXTS = ["one", "three", "four", "eleven"]


def test_second_run_reads_what_the_first_wrote(folder) -> None:
    first, second = Counting(), Counting()
    flat, starts = load_tokens(TEXTS, first, "t")
    again_flat, again_starts = load_tokens(TEXTS, second, "t")
    assert (first.asked, second.asked) == (1, 0)
    np.testing.assert_array_equal(flat, again_flat)
    np.testing.assert_array_equal(starts, again_starts)
    assert again_flat.dtype == np.int32
    assert [list(again_flat[a:b]) for a, b in pairwise(again_starts)] == [[len(text), ord(text[0])] for text in TEXTS]


@pytest.mark.parametrize(
    "change", [lambda t, k: (t[::-1], k), lambda t, k: (t, "other"), lambda t, k: ([*t[:2], "fo", "ureleven"], k)]
)
def test_other_texts_or_tokenizers_do_not_share_a_file(folder, change) -> None:
    load_tokens(TEXTS, Counting(), "t")
    other = Counting()
    load_tokens(*change(TEXTS, "t")[:1], other, change(TEXTS, "t")[1])
    assert other.asked == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"x" * len(data),
        lambda data: data.replace(np.int32([ord("o"), len("three")]).tobytes(), np.int32([ord("o"), 9]).tobytes()),
    ],
)
def test_damaged_file_is_made_again(folder, damage) -> None:
    flat, _ = load_tokens(TEXTS, Counting(), "t")
    (path,) = folder.glob("*.arrow")
    path.write_bytes(damage(path.read_bytes()))
    again = Counting()
    np.testing.assert_array_equal(load_tokens(TEXTS, again, "t")[0], flat)
    assert again.asked == 1
    assert load_tokens(TEXTS, Counting(), "t")[0].tolist() == flat.tolist()


def test_small_corpora_leave_no_file(folder) -> None:
    load_tokens(TEXTS[:2], Counting(), "t")
    assert not folder.exists()

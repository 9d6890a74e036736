"""From Python, `encode` and `train` take what holds texts, and name the place of what does not."""

from typing import ClassVar

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import stfit
from stfit.commands.api import _splits_of
from stfit.errors import DataError, RecipeError

TEXTS = ["a cat", "a dog", "a cat"]


@pytest.fixture(scope="module")
def encoder(tiny_base):
    return stfit.load(tiny_base("bert"))


@pytest.mark.parametrize(
    "texts",
    [
        tuple(TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        pd.Series(TEXTS, index=[7, 8, 9]),
        pd.Series(TEXTS, dtype="category"),
        pd.Index(TEXTS),
        pa.array(TEXTS),
        pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
        datasets.Dataset.from_dict({"text": TEXTS})["text"],
    ],
    ids=lambda texts: type(texts).__name__,
)
def test_what_holds_strings_is_taken_in_order(encoder, texts):
    np.testing.assert_array_equal(encoder.encode(texts), encoder.encode(TEXTS))


def test_a_string_is_one_text(encoder):
    np.testing.assert_array_equal(encoder.encode("a dog"), encoder.encode(TEXTS)[1])
    assert encoder.encode([]).shape == (0, 32)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"a": 1, "b": 2}, r"not a dict: \{'a': 1"),
        ({"a", "b"}, "not a set"),
        (None, "not None"),
        (b"text", "not a bytes"),
        (7, "not an int: 7"),
        ((text for text in TEXTS), "not a generator"),
        (datasets.Dataset.from_dict({"text": TEXTS}), "not a Dataset"),
        (pd.DataFrame({"text": TEXTS}), "not a DataFrame"),
        (np.array([TEXTS]), "not a ndarray"),
        (["a", None], "item 1 is None"),
        (["a", float("nan")], "item 1 is a float: nan"),
        (pd.Series(["a", None]), "item 1 is (a float: nan|None)"),
        (pd.Series(["a", pd.NA], dtype="string"), "item 1 is a NAType"),
        ([("a", "b")], r"item 0 is a tuple: \('a', 'b'\)"),
        (np.arange(3), "item 0 is an int: 0"),
        (["a", b"b"], "item 1 is a bytes"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_is_a_type_error_with_its_position(encoder, texts, message):
    with pytest.raises(TypeError, match=message):
        encoder.encode(texts)


def test_half_of_a_surrogate_pair_is_refused_with_its_position(encoder):
    with pytest.raises(DataError, match=r"item 1 holds half of a surrogate pair.*'a \\ud83d'"):
        encoder.encode(["\U0001f6e0", "a \ud83d"])
    with pytest.raises(DataError, match="the prompt holds half"):
        encoder.encode(["a"], prompt="\ud83d")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"prompt": 7}, TypeError, "prompt must be"),
        ({"prompt_name": ["query"]}, TypeError, "prompt_name must be"),
        ({"truncate_dim": "8"}, TypeError, "truncate_dim must be"),
        ({"truncate_dim": True}, TypeError, "truncate_dim must be"),
        ({"truncate_dim": 33}, RecipeError, "truncate_dim 33: the model's embeddings have 32 dimensions"),
        ({"truncate_dim": 0}, RecipeError, "truncate_dim 0"),
    ],
)
def test_other_arguments_are_checked(encoder, arguments, error, message):
    with pytest.raises(error, match=message):
        encoder.encode(TEXTS, **arguments)


ROWS = [{"anchor": "a", "label": 1}, {"anchor": "b", "more": "x"}]


@pytest.mark.parametrize("data", [ROWS, tuple(ROWS), pd.DataFrame(ROWS)], ids=lambda data: type(data).__name__)
def test_rows_in_memory_become_a_split_with_all_columns(data):
    rows = _splits_of(data)["train"]
    assert (rows["anchor"][:], rows["more"][:]) == (["a", "b"], [None, "x"])


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ("rows.jsonl", TypeError, "not a str: 'rows.jsonl'"),
        ({"anchor": ["a"]}, TypeError, "not a dict"),
        ([{"anchor": "a"}, ["b"]], TypeError, "item 1 is a list"),
        ([{"anchor": "a"}, {1: "b"}], TypeError, "item 1 is a dict"),
        ([{"anchor": "a"}, {"anchor": 1}], DataError, "data: .*: `anchor` of item 1 is an int: 1, and of item 0 a str"),
        ([], DataError, "no columns"),
        (pd.DataFrame(), DataError, "no columns"),
        (datasets.DatasetDict(), DataError, "no columns"),
        (datasets.Dataset.from_dict({"a": ["b"]}).to_iterable_dataset(), TypeError, "with `data.streaming`"),
        (datasets.DatasetDict({"train": ["a"]}), TypeError, "not a DatasetDict"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_data_is_refused_with_its_position(data, error, message):
    with pytest.raises(error, match=message):
        stfit.train("recipe.yaml", data)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stfit.train({"model": {}}), "recipe must be"),
        (lambda: stfit.train("r.yaml", overrides="train.epochs=1"), "overrides must be"),
        (lambda: stfit.train("r.yaml", overrides=[1]), "each of `overrides` must be"),
        (lambda: stfit.train("r.yaml", fresh="no"), "fresh must be bool, not a str"),
        (lambda: stfit.load(None), "model must be"),
        (lambda: stfit.load("model", 1), "device must be"),
    ],
)
def test_arguments_of_other_types_are_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


class TableOfPolars:
    """As polars has it: no class of pandas or pyarrow, but its own columns as a stream of Arrow."""

    columns: ClassVar[list[str]] = ["anchor", "n"]

    def __arrow_c_stream__(self, requested_schema=None):
        table = pa.table({"anchor": pa.array(TEXTS, pa.string_view()), "n": [1, None, 3]})
        return table.__arrow_c_stream__(requested_schema)


class SeriesOfPolars:
    dtype = "String"

    def to_list(self):
        return TEXTS


def test_tables_and_columns_of_other_libraries_are_taken(encoder):
    for table in (TableOfPolars(), pa.table({"anchor": TEXTS, "n": [1, None, 3]})):
        assert _splits_of(table)["train"].to_dict() == {"anchor": TEXTS, "n": [1, None, 3]}
    np.testing.assert_array_equal(encoder.encode(SeriesOfPolars()), encoder.encode(TEXTS))
    with pytest.raises(DataError, match="names a column twice: a, a"):
        _splits_of(pa.table([["x"], ["y"]], names=["a", "a"]))


def test_a_gap_of_pandas_is_missing_in_rows_as_in_a_data_frame():
    frame = pd.DataFrame({"anchor": ["a", None], "label": [0.5, None]})
    rows = _splits_of(frame.to_dict("records"))["train"].to_dict()
    assert rows == _splits_of(frame)["train"].to_dict() == {"anchor": ["a", None], "label": [0.5, None]}

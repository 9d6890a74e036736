"""What databases, pandas and other tools write for numbers, ids and gaps."""

from decimal import Decimal

import pyarrow as pa
import pytest
from pyarrow import parquet

from stfit.data.infer_format import infer_format
from stfit.data.mapping.cells import is_missing, number_in
from stfit.data.mapping.load_examples import load_examples
from stfit.data.mapping.texts import stream_texts
from stfit.data.reading.load_table import load_table
from stfit.data.source import Condition, Source, TableSource
from stfit.evaluation.collection import load_collection


def numbers(*values: str) -> pa.Array:
    """A column of type NUMBER, as Snowflake, Oracle and DuckDB export it."""
    return pa.array(map(Decimal, values), pa.decimal128(20, 2))


@pytest.fixture
def table(tmp_path):
    def write(name: str = "rows", **columns) -> str:
        path = tmp_path / f"{name}.parquet"
        parquet.write_table(pa.table(columns), path)
        return str(path)

    return write


def test_decimals_are_numbers_in_labels_filters_and_proposals(table):
    scores = numbers("0.50", "1.00", "0.25")
    path = table(sentence1=["a", "b", "c"], sentence2=["d", "e", "f"], score=scores)
    keys = {"dataset": path, "columns": {"label": "score"}}
    assert load_examples(Source(**keys), "labeled_pair", 1)[0].label.tolist() == [0.5, 1.0, 0.25]
    for condition, rows in [(Condition(min=0.5), [1, 2]), (0.25, [3]), (1, [2]), (Condition(**{"not": 1}), [1, 3])]:
        kept = load_examples(Source(**keys, where={"score": condition}), "labeled_pair", 1)[0]
        assert kept.row.tolist() == rows
    whole = load_examples(Source(**keys, label_map={"0.5": 2, "1": 1, "0.25": 0}), "labeled_pair", 1)[0]
    assert whole.label.tolist() == [2, 1, 0]
    assert infer_format(load_table(TableSource(dataset=path))).columns["label"] == "score"


def test_whole_floats_and_decimals_are_ids(table, write):
    for ids in (numbers("7.00", "8.00"), pa.array([7.0, 8.0])):
        assert next(stream_texts(Source(dataset=table(text=["a", "b"], id=ids)), None, "id")).ids == [7, 8]
    rows = write([{"text": "a", "_id": {"$oid": "x"}}, {"text": "b", "_id": {"$oid": "y"}}])
    assert next(stream_texts(Source(dataset=rows), "text", "_id.$oid")).ids == ["x", "y"]


def test_judgments_with_decimals_name_the_ids(table):
    documents = TableSource(dataset=table("c", id=["1", "2"], text=["a", "b"], title=[float("nan"), None]))
    queries = TableSource(dataset=table("q", id=[1, 2], text=["c", "d"]))
    judgments = table("j", query=numbers("1", "2"), corpus=numbers("2", "1"), score=numbers("1.00", "0.00"))
    collection = load_collection(documents, queries, TableSource(dataset=judgments), is_split=False)
    assert (collection.relevant, collection.corpus) == ([{1: 1.0}], ["a", "b"])


def test_nan_is_not_present(write):
    rows = [{"text": "a", "label": 1, "n": value} for value in (1.5, float("nan"), None, "")]
    for present, kept in ((True, [1]), (False, [2, 3, 4])):
        source = Source(dataset=write(rows), where={"n": Condition(present=present)})
        assert load_examples(source, "labeled_text", 1)[0].row.tolist() == kept
    assert not any(map(is_missing, (0, 0.0, False, "nan", [], Decimal(0))))


@pytest.mark.parametrize("name", ["1_2", "_1", "1__0"])
def test_a_name_with_an_underscore_is_no_number(write, name):
    rows = [{"text": "a", "label": name}, {"text": "b", "label": "3"}]
    assert load_examples(Source(dataset=write(rows)), "labeled_text", 1)[0].label_names == sorted([name, "3"])
    assert number_in(name) is None

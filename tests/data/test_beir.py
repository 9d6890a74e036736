"""A dataset in BEIR's layout: pairs to train on, and one text of a document everywhere."""

import json

import numpy as np
import pytest

from stfit.commands.encode import encode
from stfit.commands.mine import mine
from stfit.data.mapping.load_examples import load_examples
from stfit.data.mapping.texts import source_of_texts, stream_texts
from stfit.data.reading.load_table import find_splits, load_table
from stfit.data.source import Source, TrainingData
from stfit.errors import DataError
from stfit.evaluation.evaluators.retrieval import Retrieval
from stfit.options import EncodeOptions, MiningOptions
from stfit.recipe.load import load_recipe
from stfit.workflows.encode.text_windows import Inputs

DOCUMENTS = {
    "d1": ("On rain", "It rains in the north."),
    "d2": ("", "The cat sleeps."),
    "d3": ("On bread", "Bread is baked at night."),
    "d4": ("", ""),
}
QUERIES = {"q1": "rain in the north", "q2": "who bakes bread", "q3": "a cat"}
RELEVANT = [("q1", "d1", 3), ("q1", "d2", 0), ("q2", "d3", 1), ("q2", "d1", -1), ("q2", "gone", 2), ("q3", "d2", 2)]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "beir"
    (path / "qrels").mkdir(parents=True)
    rows = [{"_id": id, "title": title, "text": text} for id, (title, text) in DOCUMENTS.items()]
    (path / "corpus.jsonl").write_text(lines(rows))
    (path / "queries.jsonl").write_text(lines([{"_id": id, "text": text} for id, text in QUERIES.items()]))
    for split, judged in (("train", RELEVANT), ("test", RELEVANT[:1])):
        rows = "".join(f"{query}\t{document}\t{score}\n" for query, document, score in judged)
        (path / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    return path


def pairs(folder, **settings):
    source = TrainingData(dataset=str(folder), split="train", format="positive_pair", **settings)
    examples, _ = load_examples(source, "positive_pair", 0)
    return list(zip(examples.column("anchor"), examples.column("positive"), strict=True)), examples.dropped


def test_its_pairs_are_queries_and_their_relevant_documents(folder):
    found, dropped = pairs(folder)
    assert found == [
        (QUERIES["q1"], "On rain It rains in the north."),
        (QUERIES["q2"], "On bread Bread is baked at night."),
        (QUERIES["q3"], "The cat sleeps."),
    ]
    assert dropped == {"empty text": 1}  # the document that is gone
    assert set(find_splits(Source(dataset=str(folder)))) == {"train", "test", "corpus", "queries"}
    assert load_table(Source(dataset=str(folder), split="corpus")).columns["_id"] == list(DOCUMENTS)


def test_scores_and_parts_of_the_document_can_be_chosen(folder):
    assert len(pairs(folder, where={"score": {"min": 2}})[0]) == 2
    assert pairs(folder, columns={"positive": "document_text"})[0][0][1] == "It rains in the north."
    assert (
        pairs(folder, columns={"positive": "{document_title}: {document_text}"})[0][0][1]
        == "On rain: It rains in the north."
    )


def test_a_document_has_one_text_everywhere(folder, tmp_path, tiny_base):
    texts = ["On rain It rains in the north.", "The cat sleeps.", "On bread Bread is baked at night.", ""]
    (streamed,) = stream_texts(source_of_texts(str(folder), None), None, None)
    assert (streamed.texts, streamed.ids) == (texts, list(DOCUMENTS))
    evaluator = Retrieval.model_validate({"dataset": str(folder)})
    assert sorted(evaluator.load(0, None).corpus) == sorted(texts)
    assert {positive for _, positive in pairs(folder)[0]} <= set(texts)
    list(
        encode(
            str(tiny_base("bert")), Inputs(source_of_texts(str(folder), None)), tmp_path / "o.jsonl", EncodeOptions()
        )
    )
    assert [json.loads(line)["id"] for line in (tmp_path / "o.jsonl").read_text().splitlines()] == list(DOCUMENTS)


def test_a_document_that_answers_the_query_is_no_negative(folder, tmp_path, tiny_base):
    with (folder / "corpus.jsonl").open("a") as file:
        file.write(lines([{"_id": "d5", "title": "On rain", "text": "it rains in the north"}]))  # d1 in other words
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.write("q3\td3\t1\n")  # not trained below
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{base: {tiny_base('bert')}}}\nloss: multiple_negatives_ranking\n"
        f"data: {{dataset: {folder}, split: train, format: positive_pair, where: {{score: {{min: 2}}}}}}\n"
    )
    rules = MiningOptions(margin=-9, relative_margin=-1e6, duplicate=2, per_row=9)
    recipe = load_recipe(tmp_path / "recipe.yaml").recipe
    corpus = source_of_texts(str(folder), None)
    mine(str(tiny_base("bert")), recipe, tmp_path / "m.jsonl", rules, corpus=corpus, corpus_column=None, device="cpu")
    rows = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    bread, cat = "On bread Bread is baked at night.", "The cat sleeps."
    assert {row["anchor"]: set(row["negative"]) for row in rows} == {
        QUERIES["q1"]: {bread, cat},
        QUERIES["q3"]: {"On rain It rains in the north.", "On rain it rains in the north"},
    }


def test_an_id_that_is_there_twice_is_refused(folder):
    with (folder / "corpus.jsonl").open("a") as file:
        file.write(lines([{"_id": "d1", "title": "", "text": "another"}]))
    with pytest.raises(DataError, match="the id 'd1' occurs more than once"):
        pairs(folder)


def test_a_holdout_by_query_shares_no_query(folder):
    source = TrainingData(
        dataset=str(folder), split="train", format="positive_pair", holdout={"by": "anchor", "rows": 1}
    )
    training, held_out = load_examples(source, "positive_pair", 0, source.holdout)
    assert not set(training.column("anchor")) & set(held_out.column("anchor"))
    assert np.isin(held_out.column("anchor"), list(QUERIES.values())).all()

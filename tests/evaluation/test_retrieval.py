"""Retrieval equals sentence-transformers' evaluator, whatever the data comes as, and needs little memory."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from measured import measured

from stfit.errors import DataError, RecipeError
from stfit.evaluation.evaluators.retrieval import Retrieval
from stfit.evaluation.measure import known_metrics, main_metrics
from stfit.neighbors.exact import nearest
from stfit.similarity import SIMILARITIES

RIGHT = {"q1": {"d2": 2, "d0": 1}, "q2": {"d5": 1, "d3": 0}, "q4": {"d4": 1, "d1": 1, "d6": 3}}


@pytest.fixture
def beir(tmp_path, sentences):
    """A BEIR folder, and its queries and documents by id."""
    documents = {f"d{i}": text for i, text in enumerate(sentences)}
    queries = {f"q{i}": text for i, text in enumerate(reversed(sentences))}
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": key, "title": "On rain" if key == "d0" else "", "text": text} for key, text in documents.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"_id": key, "text": text} for key, text in queries.items()]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"{query}\t{document}\t{score}\n" for query, found in RIGHT.items() for document, score in found.items()]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder, queries, documents | {"d0": "On rain " + documents["d0"]}


def load(**settings):
    evaluator = Retrieval.model_validate(settings)
    return evaluator, evaluator.load(0, None)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_values_are_those_of_sentence_transformers(encoder, beir, peer_of, similarity):
    encoder.config.similarity = similarity
    peer = peer_of(encoder)
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    folder, queries, documents = beir
    ours = measured(encoder, [load(dataset=str(folder), name="beir", k=[1, 3, 10])], "end")
    right = {query: {document for document, score in found.items() if score} for query, found in RIGHT.items()}
    ks = [1, 3, 10]
    at = {"accuracy_at_k": ks, "precision_recall_at_k": ks, "ndcg_at_k": ks, "mrr_at_k": ks, "map_at_k": ks}
    theirs = InformationRetrievalEvaluator(queries, documents, right, write_csv=False, **at)(peer)
    binary = {name: value for name, value in ours.items() if "graded" not in name}
    assert len(binary) == 18
    expected = {f"beir/{name.partition('_')[2]}": pytest.approx(value, abs=1e-6) for name, value in theirs.items()}
    assert binary == expected


def test_metrics_that_are_asked_for_are_computed_at_any_cutoff(encoder, beir):
    dataset = str(beir[0])
    asked = load(dataset=dataset, name="beir", metrics=["recall@2", "ndcg@1", "recall@2"])
    assert main_metrics([asked], "cosine") == ["beir/recall@2", "beir/ndcg@1"]
    found = measured(encoder, [asked], "end")
    assert found == measured(encoder, [load(dataset=dataset, name="beir", k=[1, 2, 10, 100])], "end")
    assert {*known_metrics([asked[0]], "end")} == {*found}


@pytest.mark.parametrize(
    ("ks", "shown"),
    [
        ([1, 10, 100], ["ndcg@10", "mrr@10", "map@100", "recall@100", "accuracy@1"]),
        ([3, 10], ["ndcg@10", "mrr@10"]),
        ([5, 20], ["ndcg@20"]),
    ],
)
def test_the_most_used_metrics_come_first_as_far_as_they_are_computed(ks, shown):
    evaluator = Retrieval.model_validate({"dataset": "x", "k": ks})
    assert evaluator.main_metrics == shown
    assert set(shown) <= set(evaluator.metrics)


@pytest.mark.parametrize("seed", range(5))
def test_graded_ndcg_is_that_of_trec_eval(tmp_path, seed):
    """Scores of -1 to 4, some of a document that the corpus lacks."""
    pytrec_eval = pytest.importorskip("pytrec_eval")
    random = np.random.default_rng(seed)
    documents, queries = [f"d{i}" for i in range(60)], [f"q{i}" for i in range(12)]
    judged = {
        q: {str(d): int(random.integers(-1, 5)) for d in random.choice([*documents, "gone"], 20, False)}
        for q in queries
    }
    lines = "".join(f"{q}\t{d}\t{score}\n" for q, found in judged.items() for d, score in found.items())
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)
    for name, ids in (("corpus", documents), ("queries", queries)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"_id": i, "text": i}) + "\n" for i in ids))
    vectors = {text: random.normal(size=8).astype(np.float32) for text in [*documents, *queries]}
    evaluator, rows = load(dataset=str(tmp_path), k=[1, 5, 10, 100])
    found = evaluator.measure(rows, lambda _, texts: np.stack([vectors[text] for text in texts]), "dot")
    run = {q: {d: float(vectors[q] @ vectors[d]) for d in documents} for q in queries}
    theirs = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.1,5,10,100"}).evaluate(run)
    for k in (1, 5, 10, 100):
        mean = np.mean([values[f"ndcg_cut_{k}"] for values in theirs.values()])
        assert found[f"ndcg_graded@{k}"].value == pytest.approx(mean, abs=1e-6)
    assert found["ndcg_graded@10"].value != pytest.approx(found["ndcg@10"].value, abs=1e-3)


def test_three_tables_give_the_same_as_their_folder(encoder, beir):
    folder, *_ = beir
    tables = {
        "corpus": {"dataset": str(folder / "corpus.jsonl"), "columns": {"id": "_id"}},
        "queries": {"dataset": str(folder / "queries.jsonl"), "columns": {"id": "_id"}},
        "relevant": {
            "dataset": str(folder / "qrels" / "test.tsv"),
            "columns": {"query": "query-id", "corpus": "corpus-id"},
        },
    }
    assert measured(encoder, [load(name="beir", **tables)], "end") == measured(
        encoder, [load(name="beir", dataset=str(folder))], "end"
    )


def test_pairs_search_among_all_positives(examples_of, values):
    rows = [{"anchor": "a", "positive": "p"}, {"anchor": "a", "positive": "q"}, {"anchor": "b", "positive": "p"},
            {"anchor": "b", "positive": "r"}]  # fmt: skip
    vectors = {"a": [1.0, 0], "b": [0.0, 1], "p": [2.0, 1], "q": [1.0, 0], "r": [3.0, 0]}
    found = values(*examples_of(Retrieval, rows, k=[1, 2]), vectors)
    # a finds r (wrong), p; b finds p, q (wrong; equal to r, which comes later)
    assert found["accuracy@1"] == 0.5
    assert found["recall@2"] == found["precision@2"] == 0.5
    assert found["mrr@2"] == (1 / 2 + 1) / 2
    assert found["map@2"] == ((1 / 2) / 2 + 1 / 2) / 2


def test_prompts_of_queries_and_documents_differ(tiny_base, beir, sentences):
    from stfit.encoder.build import build_encoder
    from stfit.encoder.config import Model

    prompts = {"query": "find: ", "document": "text: "}
    encoder = build_encoder(Model(base=str(tiny_base("bert")), prompts=prompts))
    evaluator, rows = load(dataset=str(beir[0]))
    sent = []

    def embed(role, texts):
        prompt = encoder.role_prompt(role, None)
        sent.append((role, prompt))
        return encoder.encode(texts, prompt=prompt)

    evaluator.measure(rows, embed, "cosine")
    assert sent == [("query", "find: "), ("corpus", "text: ")]


def everywhere(queries, documents):
    """The same embedding for every text."""
    return {text: [1.0] for text in [*queries.values(), *documents.values()]}


def test_equally_near_documents_come_in_the_order_of_their_ids(tmp_path, beir, values):
    folder, queries, documents = beir
    found = values(*load(dataset=str(folder), k=[1, 3]), everywhere(queries, documents))
    assert found["accuracy@1"] == 1 / 3  # d0 is the first of all
    assert found["recall@3"] == (2 / 2 + 0 + 1 / 3) / 3


def judge_also(folder, *lines):
    with (folder / "qrels" / "test.tsv").open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def problems_of(folder, **settings):
    evaluator, rows = load(dataset=str(folder), **settings)
    return {problem.code: (problem.message, problem.row) for problem in evaluator.problems_of(rows)}


def test_documents_that_the_corpus_does_not_have_count_as_missed(beir, values):
    folder, queries, documents = beir
    judge_also(folder, "q2\tgone\t1")
    message = "1 of 7 judged documents are missing (gone), and count as missed"
    assert problems_of(folder)["missing-documents"] == (message, 8)
    found = values(*load(dataset=str(folder), k=[7]), everywhere(queries, documents))
    assert found["recall@7"] == (1 + 1 / 2 + 1) / 3


def test_judged_queries_that_are_missing_are_counted_and_named(beir):
    judge_also(beir[0], "lost\td1\t1", "gone\td2\t1", "lost\td2\t1")
    message = "2 of 5 judged queries are missing (lost, gone), and are not measured"
    assert problems_of(beir[0])["missing-queries"] == (message, 8)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([f"lost{i}\td1\t1" for i in range(4)], "4 of 7 judged queries are missing (lost0, lost1, lost2, lost3): is"),
        ([f"q1\tgone{i}\t1" for i in range(7)], "7 of 13 judged documents are missing (gone0, gone1, gone2, gone3, "
         "gone4 and 2 more): is"),
    ],
)  # fmt: skip
def test_a_collection_most_of_which_is_missing_is_refused(beir, lines, message):
    judge_also(beir[0], *lines)
    with pytest.raises(DataError, match=re.escape(message)):
        load(dataset=str(beir[0]))


def test_judgments_that_contradict_each_other_are_counted(beir):
    folder, *_ = beir
    judge_also(folder, "q1\td1\t1", "q1\td1\t0", "q1\td2\t0")
    message, row = problems_of(folder)["contradicting-judgments"]
    assert message.startswith("2 scores of 0 or less contradict scores above 0 of the same query and document")
    assert row == 9


def test_queries_without_a_relevant_document_are_named_unless_another_split_has_them(beir):
    folder, *_ = beir
    judge_also(folder, "q3\td1\t0")
    message = "4 queries have no relevant document (q0, q3, q5, q6), and are not measured"
    assert problems_of(folder)["unjudged-queries"] == (message, None)
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td1\t1\n")
    message = "1 queries have no relevant document (q3), and are not measured"
    assert problems_of(folder)["unjudged-queries"] == (message, None)


def test_a_query_that_is_a_document_is_left_out_of_its_own_ranking_only_if_asked_for(tmp_path, values):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "queries.jsonl").write_text('{"_id": "a", "text": "same"}\n{"_id": "c", "text": "other"}\n')
    (tmp_path / "corpus.jsonl").write_text('{"_id": "a", "text": "same"}\n{"_id": "b", "text": "right"}\n')
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\na\tb\t1\nc\ta\t1\n")
    vectors = {"same": [1.0, 0.0], "right": [0.9, 0.1], "other": [1.0, -0.1]}
    ranked = values(*load(dataset=str(tmp_path), k=[1]), vectors)
    ignored = values(*load(dataset=str(tmp_path), k=[1], ignore_identical_ids=True), vectors)
    assert (ranked["accuracy@1"], ignored["accuracy@1"]) == (0.5, 1)  # c finds `same`, which is not its own, both times


def test_pairs_have_no_ids_to_ignore(examples_of):
    with pytest.raises(RecipeError, match="pairs have none"):
        examples_of(Retrieval, [{"anchor": "a", "positive": "p"}], ignore_identical_ids=True)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\tnobody\t1\n", "no judgement above 0 names"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t0\n", "no judgement above 0 names"),
        ("qrels/test.tsv", "query\tcorpus\nq1\td1\n", "there is no column `query-id`"),
        ("corpus.jsonl", '{"_id": "d1", "text": "a"}\n{"_id": "d1", "text": "b"}\n', "'d1' occurs more than once"),
    ],
)
def test_a_collection_that_can_not_be_used_is_refused(beir, file, text, message):
    (beir[0] / file).write_text(text)
    with pytest.raises(DataError, match=message):
        load(dataset=str(beir[0]))


def test_an_unknown_split_names_those_that_exist(beir):
    with pytest.raises(DataError, match="known: test"):
        load(dataset=str(beir[0]), split="validation")


@pytest.mark.parametrize("settings", [{}, {"dataset": "a/b", "from": "holdout"}, {"corpus": {"dataset": "a/b"}}])
def test_rows_come_from_one_place(settings):
    with pytest.raises((ValueError, RecipeError), match=r"set exactly one of|set all three"):
        Retrieval.model_validate(settings)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_chunks_give_what_one_sorted_list_gives_ties_included(similarity, chunk):
    random = np.random.default_rng(0)
    corpus = random.integers(-2, 3, (100, 3)).astype(np.float32)
    queries = random.integers(-2, 3, (5, 3)).astype(np.float32)
    chunks = [corpus[start : start + chunk] for start in range(0, 100, chunk)]
    score, index = nearest(queries, chunks, 10, similarity)
    whole_score, whole_index = nearest(queries, [corpus], 100, similarity)
    np.testing.assert_allclose(score, whole_score[:, :10], atol=1e-6)
    exact = similarity in ("dot", "manhattan")  # a rounded root or length may tell equals apart
    if exact:
        np.testing.assert_array_equal(index, whole_index[:, :10])
        np.testing.assert_array_equal(whole_index, np.lexsort((np.tile(np.arange(100), (5, 1)), -np.take_along_axis(
            whole_score, np.argsort(whole_index, axis=1), axis=1))))  # fmt: skip


MILLION = """
import resource
import numpy as np
from stfit.neighbors.exact import nearest

queries, dim, chunk, chunks = 100, 32, 50_000, 20
sought = np.random.default_rng(99).normal(size=(queries, dim)).astype(np.float32)
planted = np.random.default_rng(98).permutation(chunk * chunks)[:queries]

def corpus(chunks):
    for number in range(chunks):
        vectors = np.random.default_rng(number).normal(size=(chunk, dim)).astype(np.float32)
        inside = planted // chunk == number
        vectors[planted[inside] % chunk] = sought[inside]
        yield vectors

nearest(sought, corpus(1), 10, "cosine")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
score, index = nearest(sought, corpus(chunks), 10, "cosine")
np.testing.assert_array_equal(index[:, 0], planted)
np.testing.assert_allclose(score[:, 0], 1, atol=1e-6)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_a_million_documents_need_the_memory_of_one_chunk():
    grown_mib = subprocess.run([sys.executable, "-c", MILLION], check=True, capture_output=True, text=True).stdout
    assert float(grown_mib) < 60  # the corpus alone is 122 MiB, all similarities 381


def test_queries_and_documents_without_text_are_counted_and_named(beir):
    folder, *_ = beir
    for name, blank in (("queries", "blank"), ("corpus", "empty")):
        with (folder / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps({"_id": blank, "text": "  "}) + "\n")
    judge_also(folder, "blank\td1\t1")
    found = problems_of(folder)
    assert found["blank-queries"][0].startswith("1 of 4 queries have no text (blank), and are measured")
    assert "documents have no text (empty)" in found["blank-documents"][0]


def of_numbers(tmp_path, judged):
    """Tables whose ids are whole numbers, and judgments with the ids `judged`."""
    rows = {
        "corpus": [{"id": i, "text": f"document {i}"} for i in (1, 2)],
        "queries": [{"id": i, "text": f"query {i}"} for i in (1, 2)],
        "relevant": [{"query": id, "corpus": id} for id in judged],
    }
    for name, listed in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    return {name: {"dataset": str(tmp_path / f"{name}.jsonl")} for name in rows}


def test_ids_that_are_whole_numbers_are_the_same_as_floats(tmp_path):
    _, rows = load(**of_numbers(tmp_path, [1.0, 2.0]))
    assert rows.relevant == [{0: 1.0}, {1: 1.0}]


def test_judgments_of_nothing_are_shown_beside_the_ids_that_there_are(tmp_path):
    with pytest.raises(DataError, match=r"names 'd1' and 'd1', and the first ids there are '1' and '1'\)"):
        load(**of_numbers(tmp_path, ["d1"]))


@pytest.mark.parametrize("score", [None, "relevant", "1,0", "", float("nan")])
def test_a_score_that_is_no_number_is_refused_with_its_row_and_true_is_one(beir, score):
    folder, *_ = beir
    tables = {
        "corpus": {"dataset": str(folder / "corpus.jsonl"), "columns": {"id": "_id"}},
        "queries": {"dataset": str(folder / "queries.jsonl"), "columns": {"id": "_id"}},
        "relevant": {"dataset": str(folder / "judged.jsonl")},
    }
    for second in (True, score):
        rows = [{"query": "q1", "corpus": "d1", "score": 1}, {"query": "q1", "corpus": "d2", "score": second}]
        (folder / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if second is True:
            assert load(**tables)[1].relevant == [{1: 1.0, 2: 1.0}]
        else:
            with pytest.raises(DataError, match=f"row 2: the score {re.escape(repr(score))} is no number"):
                load(**tables)

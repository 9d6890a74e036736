"""A slice has the metrics that its rows alone have, and the worst of them can decide."""

import json

import numpy as np
import pytest
from measured import measured

from stfit.data.mapping.load_examples import load_examples
from stfit.data.source import Holdout, Source
from stfit.errors import DataError
from stfit.evaluation.evaluators.binary_classification import BinaryClassification
from stfit.evaluation.evaluators.classification import Classification
from stfit.evaluation.evaluators.reranking import Reranking
from stfit.evaluation.evaluators.retrieval import Retrieval
from stfit.evaluation.evaluators.similarity import Similarity
from stfit.evaluation.evaluators.triplet import TripletAccuracy
from stfit.evaluation.gate import Gate, guard
from stfit.evaluation.measure import evaluator_of, known_metrics, main_metrics
from stfit.evaluation.slices import require_slices, slice_names, slice_of, sliced, with_slice
from stfit.evaluation.statistic import Statistic, mean_of

WORDS = ["rain", "bread", "train", "cat", "star", "song", "chess", "tea", "apple", "river", "lamp", "fish"]
GENRES = ["news", "chat", "law/eu"]


def rows():
    return [
        {
            "sentence1": f"one {word}",
            "sentence2": f"{WORDS[i * 5 % 12]} two",
            "label": (i * 7 % 12) % 4 / 3,
            "binary": i // 3 % 2,
            "anchor": f"about {word}",
            "positive": f"on {word}s",
            "negative": f"no {WORDS[i - 3]}",
            "text": f"{word} {i}",
            "class": i % 2,
            "genre": GENRES[i % 3],
            "about": {"genre": GENRES[i % 3]},
        }
        for i, word in enumerate(WORDS)
    ]


EVALUATORS = {
    "similarity": (Similarity, {}),
    "binary": (BinaryClassification, {"columns": {"label": "binary"}}),
    "triplet": (TripletAccuracy, {}),
    "reranking": (Reranking, {}),
}


@pytest.mark.parametrize("by", ["genre", "about.genre"])
@pytest.mark.parametrize("name", EVALUATORS)
def test_a_slice_has_the_metrics_of_its_rows_alone(encoder, examples_of, name, by):
    kind, settings = EVALUATORS[name]
    whole = measured(encoder, [examples_of(kind, rows(), name="all", by=by, **settings)], "end")
    main = [metric for metric in main_metrics([(kind(dataset="./x", name="all"), None)], "cosine") if metric in whole]
    for metric in main:
        of_slices = []
        for genre in GENRES:
            own = [row for row in rows() if row["genre"] == genre]
            alone = measured(encoder, [examples_of(kind, own, name="all", **settings)], "end")
            assert whole[with_slice(metric, "all", genre)] == pytest.approx(alone[metric], abs=1e-9)
            of_slices.append(alone[metric])
        assert whole[with_slice(metric, "all", "worst")] == pytest.approx(min(of_slices), abs=1e-9)


def test_queries_of_a_slice_search_the_whole_corpus(encoder, tmp_path):
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)

    def write(name, lines):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))

    write("corpus.jsonl", [{"_id": f"d{i}", "text": row["positive"]} for i, row in enumerate(rows())])
    queries = [{"_id": f"q{i}", "text": row["anchor"], "genre": row["genre"]} for i, row in enumerate(rows())]
    judged = "".join(f"q{i}\td{i}\t1\n" for i in range(12))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    write("queries.jsonl", queries)

    def metrics(**settings):
        evaluator = Retrieval(dataset=str(folder), name="docs", **settings)
        return measured(encoder, [(evaluator, evaluator.load(0, None))], "end")

    whole, found = metrics(by="genre"), {}
    for genre in GENRES:
        write("queries.jsonl", [query for query in queries if query["genre"] == genre])
        judged = "".join(f"q{i}\td{i}\t1\n" for i in range(12) if GENRES[i % 3] == genre)
        (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
        found[genre] = metrics()["docs/ndcg@10"]
        assert whole[f"docs[{genre}]/ndcg@10"] == pytest.approx(found[genre])
    assert whole["docs[worst]/ndcg@10"] == pytest.approx(min(found.values()))
    assert "docs[news]/precision@1" not in whole  # of slices, the main metrics alone


def test_pairs_as_a_collection_have_the_slice_of_the_first_row_of_a_query(encoder, examples_of):
    pairs = [*rows(), rows()[0] | {"positive": "more of it", "genre": "law/eu"}]
    evaluator, found = examples_of(Retrieval, pairs, name="docs", by="genre")
    assert evaluator.slices_of(found) == [row["genre"] for row in rows()]


def test_classes_of_a_slice_are_learned_from_all_known_texts(encoder, examples_of, tmp_path):
    settings = {"train_split": "train[:6]", "columns": {"label": "class"}, "methods": ["knn"]}
    evaluator, found = examples_of(Classification, rows(), name="kinds", by="genre", **settings)
    whole = measured(encoder, [(evaluator.model_copy(update={"split": "train[6:]"}), found)], "end")
    values = [whole[f"kinds[{genre}]/knn_accuracy"] for genre in GENRES]
    assert np.mean(values) == pytest.approx(whole["kinds/knn_accuracy"])


def test_a_holdout_keeps_the_column(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    source = Source(dataset=str(path), split="train")
    _, held_out = load_examples(source, "triplet", 1, Holdout(rows=6), keep=["genre"])
    assert held_out is not None
    assert held_out.kept == {"genre": [GENRES[(row - 1) % 3] for row in held_out.row.tolist()]}


def test_slices_are_measured_at_every_matryoshka_dimension(encoder, examples_of):
    pair = examples_of(Similarity, rows(), name="all", by="genre")
    found = measured(encoder, [pair], "end", [8])
    assert {"all[news]@8/spearman_cosine", "all[worst]@8/spearman_cosine"} <= set(found)
    assert {"all[worst]/spearman_dot", "all[worst]@8/spearman_dot"} <= set(known_metrics([pair[0]], "end", [8]))
    assert "all[worst]/pearson_dot" not in known_metrics([pair[0]], "end")


def test_names_of_slices_are_their_values_without_brackets():
    assert slice_names(["de", None, float("nan"), 7, "a [b]\n c", "", True]) == [
        "de", "none", "none", "7", "a (b) c", "none", "True",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "name", "changed"),
    [
        ("x/ndcg@10", None, "x[de]/ndcg@10"),
        ("x[law/eu]/ndcg@10", "law/eu", "x[de]/ndcg@10"),
        ("x[worst]@64/ndcg@10", "worst", "x[de]@64/ndcg@10"),
        ("x@64/ndcg@10", None, "x[de]@64/ndcg@10"),
    ],
)
def test_the_slice_in_a_metric_is_found_and_changed(metric, name, changed):
    assert slice_of(metric, "x") == name
    assert with_slice(metric, "x", "de") == changed
    assert with_slice(changed, "x", name) == metric
    assert evaluator_of(metric, ["y", "x", "xx"]) == "x"


def test_an_evaluator_whose_name_has_a_bracket_is_known_by_its_metrics():
    assert evaluator_of("data[0-9][de]/accuracy", ["data", "data[0-9]"]) == "data[0-9]"
    assert evaluator_of("other/accuracy", ["data"]) == ""


@pytest.mark.parametrize(
    ("names", "message"),
    [(list("abcdef"), "has 6 values in 6 rows"), (["worst", "worst", "a", "a"], "has the value `worst`")],
)
def test_columns_that_make_no_slices_are_refused(names, message):
    with pytest.raises(DataError, match=message):
        require_slices("id", names)


def test_metrics_of_other_rows_have_no_slices():
    without_rows = Statistic(0, lambda weight: 1.0)
    statistics = {"one": mean_of(np.arange(4.0)), "other": mean_of(np.arange(3.0)), "none": without_rows}
    found = sliced(statistics, list("aabb"))
    assert {name: list(of_slice) for name, of_slice in found.items()} == {"a": ["one"], "b": ["one"], "worst": ["one"]}
    assert found["worst"]["one"].value == 0.5
    assert found["worst"]["one"].at(np.array([0.0, 0, 1, 1])) == 2.5  # a slice that is not drawn does not count


GUARD = Gate(metric="x/accuracy", against="base", guard=True)


def models(random, slices, rows, worse=0.0, worse_in=1):
    """Slice -> accuracy of two models on the same rows, of which the first is worse in some slices."""
    found = {}
    for number in range(slices):
        other = random.random(rows) < 0.7
        changed = random.random(rows) < 0.2
        model = np.where(changed, random.random(rows) < 0.7, other)
        lost = random.random(rows) < (worse if number < worse_in else 0.0)
        found[f"s{number}"] = (mean_of(model & ~lost), mean_of(other))
    return found


def test_a_guard_names_the_slices_that_are_worse():
    random = np.random.default_rng(1)
    result = guard(GUARD, "x[each]/accuracy", models(random, 4, 300, worse=0.4, worse_in=2))
    assert result.passed is False
    assert result.note == "worse in s0, s1"
    assert result.metric == "x[each]/accuracy"
    same = {name: (model, model) for name, (model, _) in models(random, 4, 300).items()}
    assert guard(GUARD, "x", same).passed


def test_a_guard_without_confidence_compares_plain_numbers_and_small_slices_are_said():
    better, worse = mean_of(np.array([1.0, 1, 1])), mean_of(np.array([1.0, 1, 0]))
    plain = GUARD.model_copy(update={"confidence": None})
    assert guard(plain, "x", {"a": (better, worse), "b": (worse, better)}).note == "worse in b"
    result = guard(GUARD, "x", {"a": (better, worse), "b": (worse, better)})
    assert result.passed
    assert "2 of 2 slices have too few rows to tell" in result.note


@pytest.mark.slow
@pytest.mark.parametrize(("slices", "rows"), [(4, 50), (8, 100)])
def test_a_guard_refuses_a_model_that_is_no_worse_anywhere_at_most_as_often_as_stated(slices, rows, promise):
    random = np.random.default_rng(slices)
    refused = np.mean([not guard(GUARD, "x", models(random, slices, rows)).passed for _ in range(500)])
    missed = np.mean([guard(GUARD, "x", models(random, slices, rows, worse=0.25)).passed for _ in range(500)])
    rates = f"refused though no worse {refused:.3f}; worse by 0.18 in one slice, and passed {missed:.3f}"
    promise("500 draws of a guard", f"{slices} slices of {rows}: {rates}")
    assert refused <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 500)
    assert missed <= 0.5

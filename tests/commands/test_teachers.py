"""Losses that learn from another model, and texts alone, from the recipe to the model."""

import json
import re

import numpy as np
import pytest
import torch

from stfit.commands.check import check
from stfit.commands.fetch import fetch
from stfit.data.cache import teacher as taught
from stfit.encoder.build import load_encoder
from stfit.encoder.cross_encoder import CrossEncoder, load_cross_encoder
from stfit.errors import DataError, ModelError, RecipeError
from stfit.events import StepInfo
from stfit.recipe.load import load_recipe

TEXT = {"format": "text", "columns": {"text": "anchor"}}
SAME_SIZE = {"layers": [{"type": "dense", "out_features": 32, "activation": "identity"}]}


@pytest.fixture
def teacher(tiny_base, tmp_path, monkeypatch) -> str:
    """A model of 32 dimensions, and a cache of its own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    return str(tiny_base("bert"))


def reranked(cross_encoder, loss="margin_mse", **settings):
    return {"type": loss, "teacher": {"cross_encoder": str(cross_encoder), **settings}}


def write_rows(folder, change):
    """The rows beside the recipe, changed."""
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row |= change(number, row)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def losses_of(events):
    return [event.loss for event in events if isinstance(event, StepInfo)]


def of(teacher, loss="mse", **settings):
    return {"type": loss, "teacher": teacher, **settings}


def test_a_student_nears_its_teacher(tmp_path, write, run, teacher):
    recipe = write(model=SAME_SIZE, data=TEXT, loss=of(teacher), train={"max_steps": 60})
    costs = losses_of(run(recipe))
    student, taught_by = load_encoder(tmp_path / "runs" / "tiny" / "model"), load_encoder(teacher)
    rows = [json.loads(line)["anchor"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    error = float(np.square(student.encode(rows) - taught_by.encode(rows)).mean())
    assert error < 0.1 * costs[0]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["mse", "embed_distill", "teacher_cosine", "margin_mse", "distill_kl_div", "gist"])
def test_with_mini_batches_a_teacher_teaches_the_same(write, run, teacher, loss):
    model = SAME_SIZE | {"dropout": 0.0}
    recipe = {"model": model, "data": {"format": "triplet"}, "loss": of(teacher, loss)}
    whole = losses_of(run(write(**recipe), "whole"))
    cached = losses_of(run(write(**recipe, train={"mini_batch_size": 2}), "cached"))
    assert np.allclose(whole, cached, rtol=1e-4)
    assert whole[0] != whole[1]


def test_a_teacher_embeds_once_over_all_runs(write, run, teacher, monkeypatch):
    recipe = write(model=SAME_SIZE, data=TEXT, loss=of(teacher))
    first = losses_of(run(recipe, "first"))

    def refuse(texts):
        raise AssertionError("embedded again")

    load = taught.load_embeddings
    monkeypatch.setattr(
        "stfit.workflows.train.loss_labels.load_embeddings", lambda texts, _, key: load(texts, refuse, key)
    )
    assert losses_of(run(recipe, "second")) == first


def test_translations_learn_the_english_embedding(tmp_path, write, run, teacher, monkeypatch):
    asked = []
    load = taught.load_embeddings
    monkeypatch.setattr(
        "stfit.workflows.train.loss_labels.load_embeddings", lambda *given: asked.extend(given[0]) or load(*given)
    )
    run(write(model=SAME_SIZE, loss=of(teacher, target="anchor")))
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert sorted(asked) == sorted(row["anchor"] for row in rows)


def test_margins_may_be_numbers_of_the_data(write, run):
    recipe = write(data={"format": "triplet", "columns": {"label": "score"}}, loss="margin_mse")
    assert all(cost > 0 for cost in losses_of(run(recipe)))


@pytest.mark.parametrize("loss", ["margin_mse", "distill_kl_div"])
def test_scores_in_the_data_teach_what_their_teacher_does(tmp_path, write, run, teacher, loss):
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    of_teacher, first = load_encoder(teacher), rows[0]["negative"]
    for row in rows:
        anchor, *candidates = of_teacher.encode([row["anchor"], row["positive"], row["negative"], first])
        row |= {"negatives": [row["negative"], first], "scores": [float(anchor @ each) for each in candidates]}
        if row["negative"] == first:  # a row with fewer negatives than the others
            row["negatives"], row["scores"] = row["negatives"][:1], row["scores"][:2]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # A batch of all rows, whose order depends on what they hold.
    recipe = {"model": SAME_SIZE | {"dropout": 0.0}, "train": {"batch_size": 12, "mini_batch_size": 2}}
    columns = {"negative": "negatives[:]"}
    taught = write(**recipe, data={"format": "triplet", "columns": columns}, loss=of(teacher, loss))
    expected = losses_of(run(taught, "taught"))
    scored = write(**recipe, data={"format": "triplet", "columns": columns | {"scores": "scores"}}, loss=loss)
    assert np.allclose(losses_of(run(scored, "scored")), expected, rtol=1e-3)
    data = {"format": "triplet", "columns": columns | {"scores": "scores"}, "streaming": True, "shuffle_buffer": 12}
    streamed = write(**recipe | {"model": {"base": teacher}}, data=data, loss=loss)
    assert len(losses_of(run(streamed, "streamed"))) == 6


def test_two_dropouts_of_a_text_are_a_pair(write, run):
    costs = losses_of(run(write(data=TEXT, model={"dropout": 0.3})))
    assert all(cost > 0 for cost in costs)
    with pytest.raises(RecipeError, match="this model has none"):
        run(write(data=TEXT, model={"dropout": 0.0}), "without")


def test_a_forecast_counts_both_dropouts(write):
    once = check(write(data=TEXT, loss=of("./no", "mse")), [])
    twice = check(write(data=TEXT), [])
    assert twice["tokens"] == 2 * once["tokens"]
    assert "/no does not exist" in once["errors"][0].message  # a teacher that is not there does not hide the rest


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        ({"loss": {"type": "teacher_cosine"}}, RecipeError, "`loss.teacher` is missing"),
        ({"loss": "mse", "data": TEXT}, DataError, "needs embeddings or a teacher"),
        ({"loss": reranked("./nowhere"), "data": {"format": "triplet"}}, ModelError, "nowhere"),
        (
            {"loss": [of("./nowhere"), {"type": "mse", "columns": ["anchor"]}], "data": {"format": "triplet"}},
            DataError,
            "needs embeddings or a teacher",
        ),
        (
            {"loss": "margin_mse", "data": {"format": "triplet"}},
            DataError,
            "needs a numeric label, scores or a teacher",
        ),
        ({"loss": "distill_kl_div", "data": {"format": "triplet"}}, DataError, "needs scores or a teacher"),
        (
            {"loss": "triplet", "data": {"format": "triplet", "columns": {"scores": "score"}}},
            DataError,
            "not a list of numbers",
        ),
        (
            {"loss": "triplet", "data": {"format": "triplet", "columns": {"label": "score"}}},
            DataError,
            "ignores labels",
        ),
        ({"loss": "triplet", "data": TEXT}, RecipeError, "does not support format `text`"),
        ({"loss": of("./nowhere", "gist")}, ModelError, "nowhere"),
    ],
)
def test_what_does_not_go_together_is_said_before_training(write, run, sections, error, message):
    with pytest.raises(error, match=message):
        run(write(**sections))


def test_a_teacher_of_another_size_is_found_by_check(write, run, teacher):
    recipe = write(loss=of(teacher))
    found = check(recipe, [])["errors"]
    assert ["the teacher has 32 dimensions and the model 16" in problem.message for problem in found] == [True]
    with pytest.raises(ModelError, match="out_features: 32"):
        run(recipe)


def test_the_lock_names_the_teacher_and_fetch_takes_no_folder(tmp_path, write, run, teacher):
    recipe = write(model=SAME_SIZE, data=TEXT, loss=of(teacher))
    run(recipe)
    lock = json.loads((tmp_path / "runs" / "tiny" / "stfit.lock").read_text())
    assert [set(each) for each in lock["teachers"]] == [{"base", "fingerprint"}]
    assert fetch(load_recipe(recipe)) == {"fetched": []}


@pytest.mark.parametrize("loss", ["margin_mse", "distill_kl_div"])
@pytest.mark.parametrize("kind", ["reranker", "roberta-reranker", "qwen3-reranker"])
def test_a_cross_encoder_teaches_what_its_scores_in_the_data_do(tmp_path, write, run, teacher, tiny_base, kind, loss):
    model = load_cross_encoder(str(tiny_base(kind)))
    first = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])["negative"]

    def score(number, row):
        negatives = [row["negative"], first][: 1 + (row["negative"] != first)]
        pairs = [(row["anchor"], text) for text in (row["positive"], *negatives)]
        return {"negatives": negatives, "scores": model.score(pairs).tolist()}

    write_rows(tmp_path, score)
    recipe = {"model": {"dropout": 0.0}, "train": {"batch_size": 12, "mini_batch_size": 2, "sampler": "shuffle"}}
    columns = {"negative": "negatives[:]"}
    taught = run(write(**recipe, data={"format": "triplet", "columns": columns}, loss=reranked(tiny_base(kind), loss)))
    scored = write(**recipe, data={"format": "triplet", "columns": columns | {"scores": "scores"}}, loss=loss)
    assert np.allclose(losses_of(taught), losses_of(run(scored, "scored")), rtol=1e-3)


def test_a_cross_encoder_scores_once_over_all_runs_and_goes_on_after_a_kill(
    write, run, teacher, tiny_base, monkeypatch
):
    recipe = write(data={"format": "triplet"}, loss=reranked(tiny_base("reranker")))
    monkeypatch.setattr("stfit.workflows.mine.rerank.PAIRS", 10)
    score, asked = CrossEncoder.score, []

    def die(self, pairs):
        if len(asked) == 1:
            raise KeyboardInterrupt
        asked.append(len(pairs))
        return score(self, pairs)

    monkeypatch.setattr(CrossEncoder, "score", die)
    with pytest.raises(KeyboardInterrupt):
        run(recipe)
    monkeypatch.setattr(CrossEncoder, "score", lambda self, pairs: asked.append(len(pairs)) or score(self, pairs))
    first = losses_of(run(recipe, "first"))
    assert asked == [10, 10, 4]  # of 12 rows with a positive and a negative each
    assert losses_of(run(recipe, "second")) == first
    assert asked == [10, 10, 4]
    other = write(data={"format": "triplet"}, loss=reranked(tiny_base("reranker"), query_template="find {query}"))
    assert losses_of(run(other, "third")) != first
    assert sum(asked) == 48


@pytest.mark.parametrize(
    ("base", "settings", "message"),
    [
        ("reranker-of-two", {}, "has 2 outputs for a pair of texts"),
        ("bert", {}, "is no cross-encoder: it is a BertModel"),
        ("reranker", {"revision": "main"}, "selects a version on the Hub"),
        ("reranker", {"query_template": "find"}, "lacks {query}"),
        ("reranker", {"prompt": "find"}, "unknown key `loss.teacher.prompt`"),
    ],
)
def test_what_can_not_score_is_refused_at_its_key_before_weights_are_loaded(write, tiny_base, base, settings, message):
    recipe = write(data={"format": "triplet"}, loss=reranked(tiny_base(base), **settings))
    (problem,) = check(recipe, [])["errors"]
    assert message in problem.message
    assert (problem.line, problem.column > 1) == (1, True)


def test_the_lock_names_the_cross_encoder(tmp_path, write, run, teacher, tiny_base):
    recipe = write(data={"format": "triplet"}, loss=reranked(tiny_base("reranker")))
    run(recipe)
    lock = json.loads((tmp_path / "runs" / "tiny" / "stfit.lock").read_text())
    assert [set(each) for each in lock["teachers"]] == [{"base", "fingerprint"}]
    assert fetch(load_recipe(recipe)) == {"fetched": []}


def test_a_score_is_that_of_sentence_transformers(tiny_base, sentences):
    peer = pytest.importorskip("sentence_transformers")
    pairs = [(one, other) for one in sentences for other in sentences]
    for kind in ("reranker", "roberta-reranker"):
        theirs = peer.CrossEncoder(str(tiny_base(kind)), device="cpu", activation_fn=torch.nn.Identity())
        np.testing.assert_allclose(
            load_cross_encoder(str(tiny_base(kind))).score(pairs),
            theirs.predict(pairs, show_progress_bar=False),
            atol=1e-5,
        )


@pytest.mark.parametrize(
    "data", [TEXT, {"format": "positive_pair"}, {"format": "triplet"}], ids=lambda data: data["format"]
)
def test_embeddings_in_the_data_teach_what_their_teacher_does(tmp_path, write, run, teacher, data):
    """The anchor's embedding is that of the row."""
    encoder = load_encoder(teacher)
    write_rows(tmp_path, lambda number, row: {"vector": encoder.encode([row["anchor"]])[0].tolist()})
    recipe = {"model": SAME_SIZE | {"dropout": 0.0}, "train": {"batch_size": 12, "sampler": "shuffle"}}
    expected = losses_of(run(write(**recipe, data=data, loss=of(teacher, target="anchor")), "taught"))
    with_vectors = data | {"columns": data.get("columns", {}) | {"embedding": "vector"}}
    assert np.allclose(losses_of(run(write(**recipe, data=with_vectors, loss="mse"), "given")), expected, rtol=1e-3)
    streamed = with_vectors | {"streaming": True, "shuffle_buffer": 12}
    assert len(losses_of(run(write(model={"base": teacher}, data=streamed, loss="embed_distill"), "streamed"))) == 6


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([1.0, float("nan"), 2.0], r"is not a list of finite numbers.*\(row 3\)"),
        ([1.0, "a", 2.0], r"is not a list of finite numbers.*\(row 3\)"),
        ([1.0, 2.0], r"has 2 numbers, and that of the first row has 3 \(row 3\)"),
        (7.0, r"is not a list of finite numbers, but 7.0 \(row 3\)"),
    ],
)
def test_embeddings_that_are_none_are_refused_with_their_row(tmp_path, write, vector, message):
    write_rows(tmp_path, lambda number, row: {"vector": vector if number == 2 else [1.0, 2, 3]})
    recipe = write(data={"format": "positive_pair", "columns": {"embedding": "vector"}}, loss="mse")
    (problem,) = check(recipe, [])["errors"]
    assert re.search(message, problem.message)
    assert problem.row == 3


def test_embeddings_of_another_size_or_that_nothing_learns_from_are_refused(tmp_path, write, teacher):
    write_rows(tmp_path, lambda number, row: {"vector": [1.0, 2.0, 3.0]})
    data = {"format": "positive_pair", "columns": {"embedding": "vector"}}
    for loss, message in (
        ("mse", "the data has 3 dimensions and the model 16"),
        ("multiple_negatives_ranking", "ignores embeddings: remove `columns.embedding`"),
        (of(teacher, "teacher_cosine"), "ignores embeddings beside a teacher: remove `columns.embedding`"),
    ):
        (problem,) = check(write(data=data, loss=loss), [])["errors"]
        assert message in problem.message


def test_rows_without_an_embedding_are_left_out_and_counted(tmp_path, write, run):
    write_rows(tmp_path, lambda number, row: {"vector": [0.1] * 16 if number % 3 else None})
    started, *_ = run(write(data={"format": "positive_pair", "columns": {"embedding": "vector"}}, loss="mse"))
    assert (started.rows, started.dropped) == (8, {"no embedding": 4})

"""A task of mteb is measured as by mteb itself; this one has its data in it."""

import pytest
from measured import measured

from stfit.encoder.folder.save import save_encoder
from stfit.errors import RecipeError
from stfit.evaluation.evaluators.mteb import Adapter, Mteb
from stfit.evaluation.evaluators.similarity import Similarity
from stfit.evaluation.measure import EmbeddingCache, known_metrics, measure


@pytest.fixture
def tasks(monkeypatch):
    """The tasks that mteb tests itself with, in its register."""
    pytest.importorskip("mteb", reason="pip install stfit[mteb]")
    from mteb.get_tasks import _TASKS_REGISTRY
    from mteb.mocks import mock_tasks

    for name in ("MockSTSTask", "MockRetrievalTask"):
        monkeypatch.setitem(_TASKS_REGISTRY, name, getattr(mock_tasks, name))
    return _TASKS_REGISTRY


def load(**settings):
    evaluator = Mteb.model_validate({"type": "mteb", **settings})
    return evaluator, evaluator.load(0, None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_similarity_task_scores_as_the_same_pairs_do(tasks, encoder, examples_of):
    task = tasks["MockSTSTask"]()
    task.load_data()
    rows = [
        {"sentence1": row["sentence1"], "sentence2": row["sentence2"], "label": float(row["score"])}
        for row in task.dataset["test"]
    ]
    ours = measured(encoder, [examples_of(Similarity, rows, name="pairs")], "end")
    found = measured(encoder, [load(task="MockSTSTask")], "end")
    assert found == {"MockSTSTask/main_score": pytest.approx(ours["pairs/spearman_cosine"], abs=1e-6)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_search_task_has_the_prompts_of_queries_and_documents(tasks, encoder):
    encoder.config.prompts = {"query": "ask: ", "document": "read: "}
    sent = []
    tokens = encoder.tokenizer
    encoder.tokenizer = lambda texts: (sent.extend(texts), tokens(texts))[1]
    measured(encoder, [load(task="MockRetrievalTask", name="mock")], "end")
    assert {text.partition(":")[0] for text in sent} == {"ask", "read"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_queries_of_a_search_task_are_rows_and_several_tasks_have_a_mean(tasks, encoder):
    import mteb

    names = ["MockRetrievalTask", "MockSTSTask"]
    evaluator, rows = load(tasks=names)
    found = measure(encoder, [(evaluator, rows)], "end")
    search, pairs = (found[f"mteb/{name}"] for name in names)
    embed = EmbeddingCache(encoder, [(evaluator, rows)], keep_all=True).embed_for(evaluator, encoder.output_dim)
    theirs = mteb.evaluate(
        Adapter(embed, encoder.config.similarity), tasks["MockRetrievalTask"](), cache=None, co2_tracker=False
    )
    assert search.value == pytest.approx(theirs.task_results[0].get_score(), abs=1e-5)
    assert search.rows == 4  # two queries in each of two splits
    assert pairs.rows == 0  # mteb gives one correlation of all pairs
    assert found["mteb/main_score"].value == pytest.approx((search.value + pairs.value) / 2)
    assert known_metrics([evaluator], "end") == [f"mteb/{name}" for name in ("main_score", *names)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mteb_finds_the_same_with_the_model_folder_in_sentence_transformers(tasks, encoder, tmp_path):
    import mteb
    from sentence_transformers import SentenceTransformer

    encoder.config.prompts = {"query": "ask: ", "document": "read: "}
    save_encoder(encoder, tmp_path / "model")
    whole = mteb.evaluate(
        SentenceTransformer(str(tmp_path / "model"), device="cpu"),
        tasks["MockRetrievalTask"](),
        cache=None,
        co2_tracker=False,
    )
    ours = measured(encoder, [load(task="MockRetrievalTask")], "end")
    assert ours["MockRetrievalTask/main_score"] == pytest.approx(whole.task_results[0].get_score(), abs=1e-5)


@pytest.mark.parametrize("settings", [{}, {"task": "SciFact", "tasks": ["SciFact"]}])
def test_a_task_or_several_are_named(settings):
    with pytest.raises(ValueError, match="set either `task` or `tasks`"):
        Mteb.model_validate({"type": "mteb", **settings})


def test_an_unknown_task_is_refused_with_the_nearest_name(tasks):
    with pytest.raises(RecipeError, match="STSBenchmark"):
        load(task="STSBenchmrk")

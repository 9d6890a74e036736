"""A task of mteb is measured as by mteb itself; this one has its data in it."""

import pytest
from measured import measured

from stfit.errors import RecipeError
from stfit.evaluation.mteb import Mteb
from stfit.evaluation.similarity import Similarity


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


def test_an_unknown_task_is_refused_with_the_nearest_name(tasks):
    with pytest.raises(RecipeError, match="STSBenchmark"):
        load(task="STSBenchmrk")

"""A retrieval set in MTEB's layout is read from the Hub by its name alone."""

import json

import pytest
from hub.conftest import RECIPE, lines

README = b"""---
configs:
- config_name: corpus
  data_files: [{split: corpus, path: corpus.jsonl}]
- config_name: queries
  data_files: [{split: queries, path: queries.jsonl}]
- config_name: default
  data_files: [{split: test, path: qrels/test.jsonl}]
---
"""


@pytest.mark.slow
def test_corpus_queries_and_judgements_are_found(filled, stfit, tmp_path, sentences):
    files = {
        "corpus.jsonl": lines([{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(sentences)]),
        "queries.jsonl": lines([{"_id": f"q{i}", "text": text} for i, text in enumerate(sentences)]),
        "qrels/test.jsonl": lines([{"query-id": f"q{i}", "corpus-id": f"d{i}", "score": 1} for i in range(4)]),
    }
    filled.state.create("dataset", "me/search", {"README.md": README, **files})
    recipe = RECIPE.replace("type: similarity, dataset: team/scored, split: train, columns: {label: score}",
                            "type: retrieval, dataset: me/search")  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(recipe)
    ended = stfit("eval me/base --recipe recipe.yaml --json")
    assert ended.returncode == 0, ended.stderr
    metrics = json.loads(ended.stdout)["metrics"]
    assert metrics["search/accuracy@1"] == 1  # each query is its own document
    assert metrics["search/precision@10"] == 0.1
    data = "dataset: me/search, split: test, format: positive_pair, columns: {anchor: '{query_id} {anchor}'}"
    trained = RECIPE.replace("dataset: me/rows, config: pairs, format: positive_pair", data)
    (tmp_path / "pairs.yaml").write_text(trained.replace("batch_size: 8", "batch_size: 4"))
    ended = stfit("check pairs.yaml --json")
    assert ended.returncode == 0, ended.stdout
    assert json.loads(ended.stdout)["samples"][0] == {"anchor": f"q0 {sentences[0]}", "positive": sentences[0]}

"""NanoBEIR is read from the Hub by its language, and measured as by sentence-transformers."""

import json
import subprocess
import sys

import pytest
from hub.conftest import RECIPE, lines

from stfit.evaluation.evaluators.nanobeir import SETS, NanoBeir

PEER = """
import json, sys
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import NanoBEIREvaluator
model = SentenceTransformer(sys.argv[1], device="cpu")
print(json.dumps(NanoBEIREvaluator(write_csv=False)(model)))
"""


def stand_in(sentences: list[str]) -> dict[str, bytes]:
    """The layout of NanoBEIR with a few sentences in each set: a set differs in which of them are relevant."""
    files = {
        f"{config}/Nano{name}.jsonl": lines(rows)
        for number, name in enumerate(SETS)
        for config, rows in {
            "corpus": [{"_id": f"d{i}", "text": f"{text} in {name}"} for i, text in enumerate(sentences)],
            "queries": [{"_id": f"q{i}", "text": text} for i, text in enumerate(reversed(sentences)) if i % 2],
            "qrels": [
                {"query-id": f"q{i}", "corpus-id": f"d{(i * (number + 1) + j) % len(sentences)}"}
                for i in range(1, len(sentences), 2)
                for j in range(1 + number % 3)
            ],
        }.items()
    }
    configs = [
        {"config_name": config, "data_files": [{"split": f"Nano{n}", "path": f"{config}/Nano{n}.jsonl"} for n in SETS]}
        for config in ("corpus", "queries", "qrels")
    ]
    return files | {"README.md": f"---\nconfigs: {json.dumps(configs)}\n---\n".encode()}


@pytest.mark.slow
def test_values_are_those_of_sentence_transformers_and_each_set_is_a_slice(
    filled, stfit, tiny_base, tmp_path, sentences
) -> None:
    pytest.importorskip("sentence_transformers", reason="pip install stfit[sentence-transformers]")
    filled.state.create("dataset", "sentence-transformers/NanoBEIR-en", stand_in(sentences))
    recipe = RECIPE.replace("type: similarity, dataset: team/scored, split: train, columns: {label: score}",
                            "type: nanobeir, k: [1, 10], precisions: [binary]")  # fmt: skip
    recipe += 'gate: [{metric: "nanobeir[worst]/ndcg@10", against: base, guard: true}]\n'
    (tmp_path / "recipe.yaml").write_text(recipe.replace("[worst]", ""))
    ended = stfit("eval me/base --recipe recipe.yaml --json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    env = filled.env(tmp_path / "peer", "hf_me")
    theirs = subprocess.run(
        [sys.executable, "-c", PEER, str(tiny_base("bert"))], env=env, capture_output=True, text=True, check=True
    )
    expected = json.loads(theirs.stdout.splitlines()[-1])
    metrics = found["metrics"]
    for kind in ("ndcg@10", "mrr@10", "accuracy@1", "accuracy@10", "precision@10", "recall@10"):
        assert metrics[f"nanobeir/{kind}"] == pytest.approx(expected[f"NanoBEIR_mean_cosine_{kind}"], abs=1e-6)
    for name in SETS:
        own = metrics[f"nanobeir[{name}]/ndcg@10"]
        assert own == pytest.approx(expected[f"Nano{name}_cosine_ndcg@10"], abs=1e-6)
    assert metrics["nanobeir[worst]/ndcg@10"] == min(metrics[f"nanobeir[{name}]/ndcg@10"] for name in SETS)
    assert "nanobeir#binary/ndcg@10" in metrics
    assert {*found["slices"]["nanobeir/ndcg@10"]} == {*SETS}
    gain, guard = found["gate"]
    assert (gain["gain"], gain["passed"], guard["passed"]) == (0, True, True)

    trained = stfit("train recipe.yaml --json")
    assert trained.returncode == 0, trained.stderr
    lock = json.loads((tmp_path / "runs/recipe/stfit.lock").read_text())
    assert len(lock["eval"]["nanobeir"]["sentence-transformers/NanoBEIR-en"]["commit"]) == 40


def test_languages_stand_for_datasets() -> None:
    several = NanoBeir.model_validate({"type": "nanobeir", "languages": ["en", "de"]})
    assert several.origin == "sentence-transformers/NanoBEIR-en, sentence-transformers/NanoBEIR-de"
    assert NanoBeir.model_validate({"type": "nanobeir"}).languages == ["en"]
    again = NanoBeir.model_validate(several.model_dump(by_alias=True))
    assert again == several
    own = NanoBeir.model_validate({"type": "nanobeir", "datasets": [{"dataset": "me/NanoBEIR-xx"}]})
    assert (own.languages, own.origin) == (None, "me/NanoBEIR-xx")
    assert NanoBeir.model_validate(own.model_dump(by_alias=True)) == own
    for wrong in ({"languages": []}, {"languages": ["en", "en"]}):
        with pytest.raises(ValueError, match=r"at least 1 item|is named twice"):
            NanoBeir.model_validate({"type": "nanobeir", **wrong})
    with pytest.raises(ValueError, match="`languages` and `datasets` name different datasets"):
        NanoBeir.model_validate({"type": "nanobeir", "languages": ["fr"], "datasets": [{"dataset": "me/NanoBEIR-xx"}]})

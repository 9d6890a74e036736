"""Training adapters: what a checkpoint and a model folder hold, and that a run goes on to the same bits."""

import pytest
from processes import stop_at
from safetensors.torch import load_file
from versions import since

from stfit.errors import ModelError, RecipeError
from stfit.events import Finished, StepInfo
from stfit.runtime.run_folder import RunFolder
from stfit.workflows.report.summarize_run import summarize_run


@pytest.fixture
def recipe(write, tiny_base, tmp_path):
    """Adapters of a tiny base that can be written to."""
    base = tmp_path / "base"
    base.symlink_to(tiny_base("bert"))
    model = {"base": str(base), "lora": {"rank": 2, "dropout": 0.1}, "layers": [{"type": "dense", "out_features": 8}]}
    return write(model=model)


def model_of(runs):
    return {path.parent.name: path.read_bytes() for path in (runs / "tiny" / "model").rglob("*.safetensors")}


def test_a_stopped_run_goes_on_to_the_same_merged_weights(recipe, run, tmp_path):
    run(recipe, "whole")
    stop_at(recipe, tmp_path / "stopped", 3)
    events = run(recipe, "stopped")
    assert isinstance(events[-1], Finished)
    assert [event.step for event in events if isinstance(event, StepInfo)] == [3, 4, 5, 6]
    assert model_of(tmp_path / "stopped") == model_of(tmp_path / "whole")


@since("transformers", "5.1", "saves norms of BERT under their old names before")
def test_a_checkpoint_holds_what_is_trained_alone(recipe, run, tmp_path):
    run(recipe)
    assert "LoRA of rank 2" in dict(summarize_run(RunFolder(tmp_path / "runs" / "tiny")).inputs)["base"]
    (newest, *_) = sorted((tmp_path / "runs" / "tiny" / "checkpoints").glob("step-*"), reverse=True)
    kept = load_file(newest / "weights.safetensors")
    assert all(".lora_" in name or name.startswith("0.layers.") for name in kept)
    model = load_file(tmp_path / "runs" / "tiny" / "model" / "model.safetensors")
    base = load_file(tmp_path / "base" / "model.safetensors")
    assert model.keys() == base.keys()
    moved = {name for name in base if not model[name].equal(base[name])}
    assert moved == {name for name in base if ".layer." in name and name.endswith("weight") and "LayerNorm" not in name}


def test_adapters_go_on_upon_their_own_base_only(recipe, run, tmp_path, tiny_base):
    stop_at(recipe, tmp_path / "runs", 3)
    (tmp_path / "base").unlink()
    (tmp_path / "base").symlink_to(tiny_base("electra"))
    with pytest.raises(ModelError, match="adapters of another base"):
        run(recipe)


def test_adapters_that_no_embedding_depends_on_are_refused(write, run, tiny_base):
    recipe = write(model={"base": str(tiny_base("bert")), "lora": {"target": ["pooler.dense"]}})
    with pytest.raises(RecipeError, match="no weight that is trained has an effect on the embeddings"):
        run(recipe)

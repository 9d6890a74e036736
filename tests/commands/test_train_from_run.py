"""The run of one recipe is the base of the next: what it learnt, its prompts and its layers are kept."""

import pytest

from stfit.commands.check import check
from stfit.commands.train import train
from stfit.encoder.build import load_encoder
from stfit.errors import ModelError, RecipeError
from stfit.events import Evaluated, StepInfo
from stfit.recipe.load import load_recipe

FIRST = {"prompts": {"query": "ask: "}, "layers": [{"type": "dense", "out_features": 8}, "normalize"]}
SCORES = {"data": {"format": "labeled_pair", "columns": {"label": "score"}}, "loss": "cosent"}


@pytest.mark.slow
@pytest.mark.parametrize("repeated", [{}, {"layers": FIRST["layers"]}, FIRST])
@pytest.mark.parametrize("named", ["runs/tiny", "runs/tiny/model"])
def test_second_run_begins_where_the_first_one_ended(tmp_path, write, run, similarity, named, repeated):
    first = run(write(model=FIRST, eval=[similarity]))[-1].result
    model = {"base": f"./{named}", "max_seq_length": None, **repeated}
    events = run(write(model=model, eval=[similarity], **SCORES), "second")
    begin = next(event for event in events if isinstance(event, Evaluated))
    assert begin.metrics == first["metrics"]
    encoder = load_encoder(tmp_path / "second" / "tiny" / "model")
    assert encoder.config.prompts == {"query": "ask: "}
    assert [layer.type for layer in encoder.config.layers] == ["dense", "normalize"]
    assert encoder.tokenizer.max_seq_length == 16
    assert events[-1].result["metrics"] != first["metrics"]


def test_check_looks_into_the_run(write, run):
    run(write(model=FIRST))
    result = check(write(model={"base": "./runs/tiny"}), [])
    assert "error" not in result
    assert result["samples"][0]["anchor"].startswith("ask: ")


def test_run_is_not_its_own_base(tmp_path, write, run):
    run(write())
    with pytest.raises(RecipeError, match="choose another `name`"):
        run(write(model={"base": "./runs/tiny"}))
    assert (tmp_path / "runs" / "tiny" / "model" / "modules.json").is_file()
    assert not (tmp_path / "runs" / "tiny.1").exists()


def test_run_without_a_model_yet_says_so(tmp_path, write):
    events = train(load_recipe(write()), tmp_path / "runs")
    next(event for event in events if isinstance(event, StepInfo))
    events.close()
    with pytest.raises(ModelError, match="its run has not finished yet"):
        list(train(load_recipe(write(model={"base": "./runs/tiny"})), tmp_path / "second"))

"""The list of the names that transformers defines is the same from the cache, and made anew where that is damaged."""

from pathlib import Path
from types import ModuleType

import pytest
import transformers
from transformers.utils import import_utils

from stfit.cli.transformers_index import keep_index

define = import_utils.define_import_structure.__wrapped__  # transformers adds to what the cached one has returned
MODELS = Path(transformers.__file__).parent / "models"


@pytest.fixture
def find(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path))
    module, calls = ModuleType("import_utils"), []

    def count(path, prefix=None):
        calls.append(str(path))
        return define(path, prefix)

    module.define_import_structure = count
    keep_index(module)
    return module.define_import_structure, calls


def test_names_are_those_that_transformers_finds_and_are_found_once(find, tmp_path) -> None:
    look_up, calls = find
    expected = define(MODELS, prefix="models")
    assert look_up(MODELS, prefix="models") == expected
    assert look_up(MODELS, prefix="models") == expected
    assert look_up(str(MODELS / "__init__.py")) == define(str(MODELS))
    assert calls == [str(MODELS)]
    (kept,) = tmp_path.glob("stfit/imports/*.json")
    kept.write_text(kept.read_text()[:100])
    assert look_up(MODELS, prefix="models") == expected
    assert len(calls) == 2


def test_names_of_one_model_are_left_to_transformers(find) -> None:
    look_up, calls = find
    assert look_up(MODELS / "bert") == define(MODELS / "bert")
    assert calls == [str(MODELS / "bert")]


def test_a_cache_that_may_not_be_written_to_costs_time_alone(find, tmp_path) -> None:
    look_up, _ = find
    (tmp_path / "stfit").write_text("no folder")
    assert look_up(MODELS, prefix="models") == define(MODELS, prefix="models")

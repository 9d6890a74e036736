"""What `stfit eval`, `encode` and `similar` take for a model."""

import pytest

from stfit.commands.evaluate import model_in
from stfit.errors import ModelError


def test_a_run_folder_means_its_model(tmp_path) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "modules.json").write_text("[]")
    assert model_in(str(tmp_path / "run")) == str(tmp_path / "run" / "model")
    assert model_in(str(tmp_path / "run" / "model")) == str(tmp_path / "run" / "model")


def test_a_mistyped_run_is_not_asked_of_the_hub(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(ModelError, match="no such run"):
        model_in("runs/typo")
    assert model_in("owner/name") == "owner/name"

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stfit.cli.main import main

ROWS = "".join(
    json.dumps({"sentence1": f"about {word}", "sentence2": f"on {word}s", "label": i % 5 / 4}) + "\n"
    for i, word in enumerate(["rain", "bread", "train", "cat", "star", "song", "chess", "tea", "apple", "river"])
)
RECIPE = """\
model: {base: {type: scratch, hidden_size: 16, num_layers: 1, num_heads: 2}}
data: {dataset: ./rows.jsonl, format: labeled_pair}
loss: cosent
train: {batch_size: 5, max_steps: 2}
eval:
  - {type: similarity, name: kept|here, dataset: ./rows.jsonl, split: train}
"""


Run = Callable[[str], tuple[int, str, str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A recipe and its rows in the current folder; loggers as they were, afterwards."""
    (tmp_path / "rows.jsonl").write_text(ROWS)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "texts.txt").write_text("about rain\nabout tea\n")
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "CI", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    handlers = logging.getLogger("stfit").handlers
    yield tmp_path
    logging.getLogger("stfit").handlers = handlers


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process: exit code, stdout, stderr."""

    def run_line(line: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["stfit", *line.split()])
        with pytest.raises(SystemExit) as end:
            main()
        return (end.value.code or 0, *capsys.readouterr())

    return run_line

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stfit.commands.train import train
from stfit.events import TrainEvent
from stfit.recipe.load import load_recipe

ANIMALS = ["cat", "dog", "bird", "fish", "horse", "cow", "sheep", "goat", "mouse", "rat", "lion", "tiger"]
ROWS = [
    {
        "anchor": f"the {animal} is number {i}",
        "positive": f"{i} of the {animal}s that we saw today",
        "negative": f"nothing but {ANIMALS[i - 1]}s",
        "sentence1": f"a {animal} on a hill",
        "sentence2": f"a {ANIMALS[i - i % 2]} by the sea",
        "text": f"{animal} {animal} in the year {i}",
        "label": i % 3,
        "score": round(i / 11, 2),
    }
    for i, animal in enumerate(ANIMALS)
]
SIMILARITY = {"type": "similarity", "name": "scores", "dataset": "./rows.jsonl", "split": "train"} | {
    "columns": {"label": "score"}
}
RECIPE = {
    "model": {"base": {"type": "scratch", "hidden_size": 16, "num_layers": 1, "num_heads": 2}, "max_seq_length": 16},
    "data": {"dataset": "./rows.jsonl", "format": "positive_pair"},
    "loss": "multiple_negatives_ranking",
    "train": {"max_steps": 6, "batch_size": 4, "learning_rate": 0.01, "save_every_steps": 2, "log_every_steps": 1},
}

Write = Callable[..., Path]
Run = Callable[..., list[TrainEvent]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a recipe for a tiny model, beside its data. Sections given as mappings change single keys."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def write_recipe(**sections: Any) -> Path:
        path = tmp_path / "tiny.yaml"
        merged = {
            name: RECIPE[name] | section if {type(section), type(RECIPE.get(name))} == {dict} else section
            for name, section in sections.items()
        }
        path.write_text(json.dumps(RECIPE | merged))
        return path

    return write_recipe


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Trains a recipe below `runs`/ to its end and gives all events."""

    def train_recipe(recipe: Path, runs: str = "runs", **options: bool) -> list[TrainEvent]:
        return list(train(load_recipe(recipe), tmp_path / runs, **options))

    return train_recipe


@pytest.fixture
def similarity() -> dict[str, Any]:
    """An evaluator on the labelled pairs of the data."""
    return SIMILARITY

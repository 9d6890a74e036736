import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stfit.data.examples import Examples, load_examples
from stfit.encoder.build import build_encoder
from stfit.encoder.encoder import Encoder
from stfit.encoder.settings import Model


@pytest.fixture
def encoder(tiny_base) -> Encoder:
    """Random weights of two layers."""
    return build_encoder(Model(base=str(tiny_base("bert"))))


@pytest.fixture
def examples_of(tmp_path: Path) -> Callable[..., Examples]:
    """Writes rows and reads them as an evaluator reads them."""

    def load(evaluator: type, rows: list[dict[str, Any]], **settings: Any) -> Any:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        chosen = evaluator.model_validate({"dataset": str(path), "split": "train", **settings})
        return chosen, load_examples(chosen, chosen.format, seed=0)[0]

    return load

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stfit.data.mapping.examples import Examples
from stfit.encoder.build import build_encoder
from stfit.encoder.config import Model
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.save import save_encoder


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
        return chosen, chosen.load(0, None)

    return load


@pytest.fixture
def values() -> Callable[..., dict[str, float]]:
    """Measures rows with embeddings that are given by text."""

    def measure(evaluator: Any, rows: Any, vector_of: dict[str, list[float]], similarity: str = "dot") -> Any:
        def embed(role: str, texts: list[str]) -> np.ndarray:
            return np.array([vector_of[text] for text in texts], dtype=np.float32)

        return {name: found.value for name, found in evaluator.measure(rows, embed, similarity).items()}

    return measure


@pytest.fixture
def peer_of(tmp_path: Path) -> Callable[[Encoder], Any]:
    """The same model, loaded by sentence-transformers."""
    peer = pytest.importorskip("sentence_transformers", reason="pip install stfit[sentence-transformers]")

    def load(encoder: Encoder) -> Any:
        save_encoder(encoder, tmp_path / "model")
        return peer.SentenceTransformer(str(tmp_path / "model"), device="cpu")

    return load

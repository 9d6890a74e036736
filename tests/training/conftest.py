import numpy as np
import pytest
import torch

from stfit.data.batching.batches import Batch
from stfit.data.mapping.examples import Examples
from stfit.encoder.build import build_encoder
from stfit.encoder.config import Model
from stfit.encoder.encoder import Encoder

LABELS = {"none": None, "binary": [0, 1, 0, 1, 1, 0], "class": [0, 1, 2, 0, 1, 0], "score": [0.1, 0.9, 0.2, 0.5, 1, 0]}
TEACHER = np.random.default_rng(7).normal(size=(6, 3, 32))
LABELS["embedding"] = TEACHER[:, :1]


@pytest.fixture
def build(tiny_base):
    """An encoder of two layers with stfit's own dropout, its new layers drawn from one seed."""

    def build_tiny(kind: str = "bert", **settings) -> Encoder:
        path = tiny_base(kind)  # which draws, where it is not there yet
        torch.manual_seed(1)
        encoder = build_encoder(Model.model_validate({"base": str(path), **settings}))
        encoder.use_fast_dropout()
        return encoder

    return build_tiny


@pytest.fixture
def make_batch(sentences):
    """Six rows with a text of its own in every column, of different lengths, and a label of the kind asked for."""

    def make(encoder: Encoder, roles: tuple[str, ...], label: str = "none") -> Batch:
        texts = [f"{sentences[i % len(sentences)]} {i}" for i in range(6 * len(roles))]
        columns = {role: np.arange(6) + 6 * i for i, role in enumerate(roles)}
        numbers = TEACHER[:, : len(roles)] if label == "teacher" else LABELS[label]
        label = None if numbers is None else np.array(numbers)
        by_role = {role: [texts[i] for i in places] for role, places in columns.items()}
        examples = Examples("", by_role, label, "score", None, np.arange(101, 107), {})
        return Batch(np.arange(6), encoder.tokenizer(texts), None, columns, (label,), examples)

    return make

"""`stfit.load` in somebody else's program: threads share a model, processes receive its name, nothing else changes."""

import copy
import logging
import os
import pickle
import shutil
import signal
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.utils import logging as transformers_logging

import stfit
from stfit.errors import ModelError

TEXTS = [f"text {i} about {'many ' * (i % 9)}things" for i in range(60)]


@pytest.fixture
def model(tiny_base, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_base("bert"), tmp_path / "model"))


def embed(encoder, texts) -> tuple[int, int, np.ndarray]:
    return os.getpid(), id(encoder), encoder.encode(texts)


def test_model_is_pickled_as_its_name_and_loaded_once_in_a_process(model, monkeypatch) -> None:
    monkeypatch.chdir(model.parent)
    encoder = stfit.load("model", threads=1)
    expected = encoder.encode(TEXTS)
    assert len(pickle.dumps(encoder)) < 1000
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        monkeypatch.chdir("/")
        found = list(pool.map(embed, [encoder] * 6, [TEXTS] * 6))
    assert len({number for _, number, _ in found}) <= len({process for process, _, _ in found})
    assert os.getpid() not in {process for process, _, _ in found}
    for _, _, embeddings in found:
        np.testing.assert_allclose(embeddings, expected, rtol=0, atol=2e-7)


def test_changed_model_is_not_pickled_and_a_copy_is_another_model(model) -> None:
    encoder = stfit.load(model)
    before = encoder.encode(TEXTS)
    copied = copy.deepcopy(encoder)
    with torch.no_grad():
        next(copied.backbone.parameters()).add_(1)
    assert np.array_equal(encoder.encode(TEXTS), before)
    assert not np.array_equal(copied.encode(TEXTS), before)
    assert np.array_equal(pickle.loads(pickle.dumps(encoder)).encode(TEXTS), before)
    with pytest.raises(TypeError, match="another process gets it by its folder alone"):
        pickle.dumps(copied)


def test_model_that_is_gone_is_told_where_it_is_loaded(model) -> None:
    pickled = pickle.dumps(stfit.load(model, threads=3))
    shutil.rmtree(model)
    with pytest.raises(ModelError, match="model"):
        pickle.loads(pickled)


def test_threads_share_a_model(model) -> None:
    encoder = stfit.load(model)
    expected = encoder.encode(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(encoder.encode, [TEXTS] * 40):
            assert np.array_equal(found, expected)


def test_program_that_imports_stfit_keeps_its_settings(model) -> None:
    def settings():
        return (
            [signal.getsignal(number) for number in signal.valid_signals()],
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.random.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002 - the global one
            transformers_logging.get_verbosity(),
            transformers_logging.is_progress_bar_enabled(),
            logging.root.level,
            list(logging.root.handlers),
            dict(os.environ),
            sys.path,
            sys.excepthook,
        )

    before = settings()
    encoder = stfit.load(model, threads=1)
    encoder.encode(TEXTS)
    assert settings() == before

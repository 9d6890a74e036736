"""`stfit export`: a model as a graph for ONNX Runtime or OpenVINO, held against stfit's own embeddings."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stfit.encoder.build import build_encoder, load_encoder
from stfit.encoder.config import Model
from stfit.encoder.encoder import Encoder
from stfit.encoder.export.onnx import (
    embed_with_graph,
    graph_mib,
    load_graph,
    save_tokenizer_and_config,
    write_int8,
    write_onnx,
    write_openvino,
)
from stfit.encoder.folder.resolve import model_in
from stfit.errors import DataError, ModelError, RecipeError
from stfit.io.atomic import atomic_directory
from stfit.workflows.text_windows import Inputs, stream_text_windows

SAMPLE = 512
"""Texts on which a graph is compared."""
LOWEST_COSINE = 0.9999
"""Of a float32 graph's embedding with stfit's own; below, it is another model."""


def export(model: str, to: str, output: Path, int8: bool, texts: Inputs | None) -> dict[str, Any]:
    """Write the graph with its tokenizer to `output`; what `stfit export --json` prints.

    Compared are `texts`, or random tokens where there are none. Raises RecipeError for choices that don't go together,
    ModelError where a model can't be exported, or its graph gives other embeddings; then nothing is written.
    """
    if to == "openvino" and int8:
        raise RecipeError("--int8 is for --to onnx: OpenVINO quantises with its package nncf, after a calibration")
    if output.exists() and not (output / "config_sentence_transformers.json").is_file():
        raise RecipeError(f"{output} is there, and is no export: choose another folder with -o")
    folder = model_in(model)
    encoder = load_encoder(folder)
    if encoder.layout.name == "auto":
        raise ModelError(f"{model}: is a table of vectors, and only transformers are exported")
    sequences = _sample(encoder, texts)
    own, own_rate = _timed(lambda: encoder.embed(sequences), len(sequences))
    with atomic_directory(output) as scratch:
        traced = build_encoder(Model(base=folder, attention="padded"))
        onnx = scratch / "onnx" / "model.onnx"
        write_onnx(traced, onnx)
        graphs = [onnx]
        if int8:
            graphs.append(onnx.with_name("model_int8.onnx"))
            write_int8(*graphs)
        if to == "openvino":
            graphs = [scratch / "openvino" / "openvino_model.xml"]
            write_openvino(onnx, *graphs)
            for file in (*onnx.parent.iterdir(), onnx.parent):
                file.rmdir() if file.is_dir() else file.unlink()
        save_tokenizer_and_config(traced, scratch)
        compared = [_compare(graph, sequences, own) for graph in graphs]
        if compared[0]["lowest_cosine"] < LOWEST_COSINE:
            raise ModelError(
                f"the graph gives other embeddings than the model (a cosine of {compared[0]['lowest_cosine']:.4f}): "
                "this architecture can't be exported"
            )
        files = [
            {"file": str(graph.relative_to(scratch)), "mib": graph_mib(graph), **found}
            for graph, found in zip(graphs, compared, strict=True)
        ]
    return {
        "output": str(output),
        "embedding_dim": encoder.output_dim,
        "compared": len(sequences),
        "compared_on": "random tokens" if texts is None else texts.source.dataset,
        "rows_per_second": own_rate,
        "files": files,
    }


def _sample(encoder: Encoder, texts: Inputs | None) -> list[np.ndarray]:
    """Token sequences of the first texts, or random ones of 4 to 128 tokens."""
    if texts is None:
        generator = np.random.default_rng(0)
        longest = min(128, encoder.tokenizer.max_seq_length or 128)
        words = np.setdiff1d(np.arange(encoder.backbone.config.vocab_size), [encoder.backbone.config.pad_token_id or 0])
        return [generator.choice(words, length) for length in generator.integers(4, longest + 1, SAMPLE // 4)]
    found: list[np.ndarray] = []
    for window in stream_text_windows(texts, encoder, encoder.prompt(None)):
        found += [sequence for sequence in window.sequences or [] if len(sequence)]
        if len(found) >= SAMPLE:
            break
    if not found:
        raise DataError(f"{texts.source.dataset}: holds no text to compare the graph on")
    return found[:SAMPLE]


def _compare(graph: Path, sequences: list[np.ndarray], own_nd: np.ndarray) -> dict[str, float]:
    """How far a graph's embeddings are from stfit's own, and how many of them it makes in a second."""
    run = load_graph(graph)
    found_nd, rate = _timed(lambda: embed_with_graph(run, sequences, own_nd.shape[1]), len(sequences))
    lengths = np.linalg.norm(found_nd, axis=1) * np.linalg.norm(own_nd, axis=1)
    cosine_n = (found_nd * own_nd).sum(axis=1) / lengths
    return {
        "largest_difference": float(np.abs(found_nd - own_nd).max()),
        "lowest_cosine": float(cosine_n.min()),
        "mean_cosine": float(cosine_n.mean()),
        "rows_per_second": rate,
    }


def _timed(work: Callable[[], np.ndarray], rows: int) -> tuple[np.ndarray, float]:
    """What comes out, and rows per second in the better of two runs: the first one also warms up."""
    rates = []
    for _ in range(2):
        start = time.perf_counter()
        found = work()
        rates.append(rows / (time.perf_counter() - start))
    return found, max(rates)

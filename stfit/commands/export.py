"""`stfit export`: write a model for ONNX Runtime or OpenVINO, and compare its embeddings with stfit's own."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stfit.data.reading.local_files import input_paths
from stfit.encoder.build import build_encoder, load_encoder
from stfit.encoder.config import Model
from stfit.encoder.encoder import Encoder
from stfit.encoder.export.onnx import (
    OPENVINO_SETTINGS,
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
from stfit.io.outputs import require_output
from stfit.progress import task, track
from stfit.similarity import agreement
from stfit.workflows.encode.text_windows import Inputs, open_texts, stream_text_windows

SAMPLE = 512
MIN_COSINE = 0.9999
"""Between an embedding of the float32 graph and stfit's own; below it, the export is wrong."""


def export(model: str, to: str, output: Path, int8: bool, texts: Inputs | None) -> dict[str, Any]:
    """Embeddings are compared on `texts`, or on random tokens without any. After an error, nothing is written."""
    if to == "openvino" and int8:
        raise RecipeError(
            "--int8 works only with --to onnx: OpenVINO models are quantized by its package nncf, with calibration data"
        )
    if output.exists() and not (output / "config_sentence_transformers.json").is_file():
        raise RecipeError(f"{output} exists and is not an earlier export: choose another folder with -o")
    folder = model_in(model)
    require_output(output, [Path(folder), *(input_paths(texts.source) if texts else [])], is_folder=True)
    encoder = load_encoder(folder)
    if encoder.layout.name == "auto":
        raise ModelError(f"{model} is not a transformer, and only transformers can be exported")
    sequences = _sample(encoder, texts)
    embeddings, rate_in_stfit = _timed(lambda: encoder.embed(sequences), len(sequences))
    with atomic_directory(output) as scratch:
        traced = build_encoder(Model(base=folder, attention="padded"))
        with task(f"exporting to {to}"):
            graphs = _write_graphs(traced, scratch, to, int8)
        save_tokenizer_and_config(traced, scratch)
        comparisons = [_compare(graph, sequences, embeddings) for graph in track(graphs, "comparing embeddings")]
        if not (cosine := comparisons[0]["lowest_cosine"]) >= MIN_COSINE:  # NaN is neither
            raise ModelError(
                f"the graph's embeddings differ from the model's (cosine {cosine:.4f}): this architecture can't be "
                "exported"
            )
        files = [
            {"file": str(graph.relative_to(scratch)), "mib": graph_mib(graph), **comparison}
            for graph, comparison in zip(graphs, comparisons, strict=True)
        ]
    return {
        "output": str(output),
        "embedding_dim": encoder.output_dim,
        "compared": len(sequences),
        "compared_on": "random tokens" if texts is None else texts.source.dataset,
        "rows_per_second": rate_in_stfit,
        "files": files,
        "python": _usage(output / graphs[-1].relative_to(scratch), output, encoder.prompt(None)),
    }


def _usage(graph: Path, folder: Path, prompt: str) -> list[str]:
    """Lines of Python that embed texts with the graph."""
    path = repr(str(graph))
    runtime, embed = {
        ".onnx": ("onnxruntime", f"onnxruntime.InferenceSession({path}).run(None, dict(tokens))[0]"),
        ".xml": ("openvino", f'openvino.compile_model({path}, "CPU", {OPENVINO_SETTINGS})(dict(tokens))[0]'),
    }[graph.suffix]
    settings = 'padding=True, truncation=True, return_token_type_ids=False, return_tensors="np"'
    return [
        f"import {runtime}, transformers",
        f"tokenizer = transformers.AutoTokenizer.from_pretrained({str(folder)!r})",
        f"tokens = tokenizer([{prompt + 'a text'!r}, {prompt + 'another one'!r}], {settings})",
        f"embeddings = {embed}",
    ]


def _write_graphs(encoder: Encoder, folder: Path, to: str, int8: bool) -> list[Path]:
    onnx = folder / "onnx" / "model.onnx"
    write_onnx(encoder, onnx)
    if to == "openvino":
        openvino = folder / "openvino" / "openvino_model.xml"
        write_openvino(onnx, openvino)
        shutil.rmtree(onnx.parent)
        return [openvino]
    if int8:
        quantized = onnx.with_name("model_int8.onnx")
        write_int8(onnx, quantized)
        return [onnx, quantized]
    return [onnx]


def _sample(encoder: Encoder, texts: Inputs | None) -> list[np.ndarray]:
    """Token sequences of the first texts, or random ones of 4 to 128 tokens."""
    if texts is None:
        generator = np.random.default_rng(0)
        longest = min(128, encoder.tokenizer.max_seq_length or 128)
        words = np.setdiff1d(np.arange(encoder.backbone.config.vocab_size), [encoder.backbone.config.pad_token_id or 0])
        return [generator.choice(words, length) for length in generator.integers(4, longest + 1, SAMPLE // 4)]
    sequences: list[np.ndarray] = []
    for window in stream_text_windows(open_texts(texts).blocks, encoder, encoder.prompt(None)):
        sequences += [sequence for sequence in window.sequences or [] if len(sequence)]
        if len(sequences) >= SAMPLE:
            break
    if not sequences:
        raise DataError(f"{texts.source.dataset}: contains no text to compare embeddings on")
    return sequences[:SAMPLE]


def _compare(graph: Path, sequences: list[np.ndarray], expected_nd: np.ndarray) -> dict[str, float]:
    run = load_graph(graph)
    graph_nd, rate = _timed(lambda: embed_with_graph(run, sequences, expected_nd.shape[1]), len(sequences))
    cosine_n = agreement(graph_nd, expected_nd)
    return {
        "largest_difference": float(np.abs(graph_nd - expected_nd).max()),
        "lowest_cosine": float(cosine_n.min()),
        "mean_cosine": float(cosine_n.mean()),
        "rows_per_second": rate,
    }


def _timed(work: Callable[[], np.ndarray], rows: int) -> tuple[np.ndarray, float]:
    """The embeddings, and rows per second of the faster of two runs (the first one warms up)."""
    rates = []
    for _ in range(2):
        start = time.perf_counter()
        embeddings = work()
        rates.append(rows / (time.perf_counter() - start))
    return embeddings, max(rates)

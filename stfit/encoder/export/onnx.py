"""Export an encoder as a graph from padded token ids and their mask to embeddings, for ONNX Runtime and OpenVINO.

The graph contains pooling and layers, and takes any number of texts of any length. Needs the extras `onnx` or
`openvino`. Tensor names: r = texts, l = tokens of the longest, d = dim of a token embedding.
"""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stfit.encoder.encoder import Encoder, token_batches
from stfit.encoder.folder.st_config import st_settings
from stfit.encoder.pooling import POOLINGS, PaddedStates, compute_pooled
from stfit.errors import ModelError
from stfit.io.json_files import write_json

RUNTIME_TOKENS = 2048
OPENVINO_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32"}
"""By default it multiplies in bfloat16 if the CPU supports it."""

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Token ids and mask [r, l], int64 -> embeddings."""


class Graph(nn.Module):
    """Token ids and mask, [r, l] int64 -> embeddings [r, dim], as `encode` returns them."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.backbone, self.layers = encoder.backbone, encoder.layers
        self.modes, self.dim = encoder.config.pooling, encoder.output_dim

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states_rld = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask_rl = attention_mask.to(states_rld.dtype)
        embedding_rd = compute_pooled(self.modes, PaddedStates(states_rld, mask_rl))
        for layer in self.layers:
            embedding_rd = layer(embedding_rd)
        return embedding_rd[:, : self.dim]


def require_exportable(encoder: Encoder) -> None:
    reason = None
    if encoder.base.st_name != "Transformer":
        reason = f"a {encoder.base.st_name} is not a transformer"
    elif encoder.config.token_layers:
        reason = f"it has layers before pooling ({', '.join(layer.type for layer in encoder.config.token_layers)})"
    elif unknown := [mode for mode in encoder.config.pooling if mode not in POOLINGS]:
        reason = f"pooling `{unknown[0]}` comes from an installed package"
    elif not encoder.config.include_prompt:
        reason = "it excludes prompts from pooling, and the mask does not show where they end"
    if reason:
        raise ModelError(f"this model can't be exported: {reason}")


def write_onnx(encoder: Encoder, path: Path) -> None:
    """Write the graph of an encoder in the padded layout. Raises ModelError if torch can't export it."""
    require_exportable(encoder)
    encoder.backbone.set_attn_implementation("eager")
    ids = torch.from_numpy(np.stack([encoder.tokenizer(["a"])[0]] * 2).astype(np.int64)).repeat(1, 3)
    any_size = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens")}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # warns if torchvision is missing
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about itself
            program = torch.onnx.export(
                Graph(encoder).eval(),
                (ids, torch.ones_like(ids)),
                dynamo=True,
                input_names=["input_ids", "attention_mask"],
                output_names=["sentence_embedding"],
                dynamic_shapes={"input_ids": any_size, "attention_mask": any_size},
                verbose=False,
            )
        assert program is not None
        program.save(path)
    except ImportError as error:
        raise ModelError(f"export needs onnx: install the extra `onnx` ({error})") from error
    except Exception as error:  # depends on the architecture
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(
            f"torch.onnx can't export this {encoder.backbone.config.model_type} model: {first_line}"
        ) from error


def write_int8(onnx: Path, path: Path) -> None:
    """Write a graph with 8-bit weights; activations are quantized at run time (dynamic quantization)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)  # it recommends a step that would fix the lengths
    quantize_dynamic(onnx, path, weight_type=QuantType.QInt8, per_channel=True)
    logging.disable(logging.NOTSET)


def write_openvino(onnx: Path, path: Path) -> None:
    try:
        import openvino
    except ImportError as error:
        raise ModelError(f"this export needs OpenVINO: install the extra `openvino` ({error})") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(openvino.convert_model(onnx), path, compress_to_fp16=False)


def save_tokenizer_and_config(encoder: Encoder, folder: Path) -> None:
    encoder.tokenizer.save(folder)
    encoder.backbone.config.save_pretrained(folder)
    write_json(folder / "config_sentence_transformers.json", st_settings(encoder.config))


def load_graph(path: Path) -> Run:
    threads = torch.get_num_threads()
    if path.suffix == ".xml":
        import openvino

        settings = {"INFERENCE_NUM_THREADS": threads} | OPENVINO_SETTINGS
        compiled: Any = openvino.compile_model(path, "CPU", settings)
        return lambda ids, mask: np.asarray(compiled({"input_ids": ids, "attention_mask": mask})[0])
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda ids, mask: np.asarray(session.run(None, {"input_ids": ids, "attention_mask": mask})[0])


def embed_with_graph(run: Run, sequences: list[np.ndarray], dim: int) -> np.ndarray:
    embeddings = np.empty((len(sequences), dim), np.float32)
    for members in token_batches([len(sequence) for sequence in sequences], RUNTIME_TOKENS):
        lengths = np.array([len(sequences[i]) for i in members])
        mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
        ids = np.zeros_like(mask)
        ids[mask == 1] = np.concatenate([sequences[i] for i in members])
        embeddings[members] = run(ids, mask)
    return embeddings


def graph_mib(path: Path) -> float:
    return sum(file.stat().st_size for file in path.parent.iterdir() if file.name.startswith(f"{path.stem}.")) / 2**20

"""Generated anchors whose passage a model does not find among all passages (https://arxiv.org/abs/1906.05416).

Array names: q = anchors of a block, r = ranks, d = embedding dim.
"""

import json
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import numpy as np

from stfit.data.embeddings.matrix import EmbeddingMatrix
from stfit.data.embeddings.read import map_embeddings
from stfit.data.part import Part
from stfit.data.saved_blocks import SavedBlocks
from stfit.data.source import Source
from stfit.encoder.build import load_encoder
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.resolve import model_in
from stfit.encoder.prompts import prompt_name
from stfit.generation.filters import Row
from stfit.neighbors.exact import nearest
from stfit.options import EncodeOptions, GenerationOptions
from stfit.progress import task
from stfit.runtime.device import choose_device
from stfit.workflows.encode.encode_texts import encode_texts
from stfit.workflows.encode.text_windows import Inputs
from stfit.workflows.mine.candidates import BLOCK

ROUNDING = 1e-5
"""By which a similarity may differ between two ways to compute it."""
PART = Part(1, 1)


def passages_not_found(
    blocks: Iterable[list[Row]], count: int, options: GenerationOptions, passages: Path, device: str
) -> np.ndarray:
    """Whether the passage of each row is not among the nearest to its anchor, for `count` rows in blocks.

    `passages`: a file with the texts, whose lines rows name by `number`. What was computed is kept beside it.
    """
    assert options.retriever is not None
    assert options.round_trip is not None
    encoder = load_encoder(model_in(options.retriever), choose_device(device))
    matrix = _embed_passages(encoder, options.retriever, passages, device)
    saved = SavedBlocks(passages.with_name("round-trip"))
    is_lost: list[bool] = []
    with task("looking for each passage", count) as step:
        for number, block in enumerate(blocks):
            made = [encoder.fingerprint, options.round_trip, [(row["anchor"], row["number"]) for row in block]]
            digest = sha256(json.dumps(made).encode()).hexdigest()
            found = saved.read(number, digest)
            if found is None:
                found = _not_found(encoder, matrix, block, options.round_trip)
                saved.write(number, digest, found)
            is_lost += found
            step.advance(len(block))
    return np.array(is_lost, dtype=bool)


def _embed_passages(encoder: Encoder, model: str, passages: Path, device: str) -> EmbeddingMatrix:
    name = prompt_name("positive", None, encoder.config.default_prompt)
    folder = passages.with_name("embeddings")
    folder.mkdir(exist_ok=True)
    inputs = Inputs(Source(dataset=str(passages)), "text", part=PART)
    options = EncodeOptions(prompt_name=name, normalize=True)
    for _ in encode_texts(model, inputs, folder, options, device=device):
        pass  # the command line shows its task
    arrays = map_embeddings(folder)
    assert arrays is not None
    return EmbeddingMatrix(arrays)


def _not_found(encoder: Encoder, matrix: EmbeddingMatrix, block: list[Row], ranks: int) -> list[bool]:
    if not block:
        return []
    prompt = encoder.role_prompt("anchor", None)
    anchor_qd = encoder.encode([row["anchor"] for row in block], prompt=prompt, normalize=True)
    score_qr, _ = nearest(anchor_qd, matrix.unit_blocks(BLOCK), ranks, "dot", encoder.device.type)
    own_q = (anchor_qd * matrix.take_unit(np.array([row["number"] for row in block]))).sum(axis=1)
    return (own_q < score_qr[:, -1] - ROUNDING).tolist()

"""`stfit similar`: the texts that are nearest to a query, or the closest pairs among all texts."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from stfit.encoder.build import load_encoder
from stfit.encoder.folder.resolve import model_in
from stfit.errors import DataError
from stfit.evaluation.knn import nearest
from stfit.evaluation.top_pairs import closest_pairs, closest_pairs_approximately
from stfit.runtime.device import choose_device
from stfit.workflows.text_windows import Inputs, stream_text_windows


def similar(model: str, inputs: Inputs, queries: list[str], top: int, device: str) -> dict[str, Any]:
    """For each query, the `top` most similar texts by cosine, most similar first. The texts are not kept in memory."""
    encoder = load_encoder(model_in(model), choose_device(device))
    query_prompt, prompt = (encoder.role_prompt(role, None) for role in ("query", "corpus"))
    query_qd = encoder.encode(queries, prompt=query_prompt, normalize=True)
    found: list[dict[str, float]] = [{} for _ in queries]
    for window in stream_text_windows(inputs, encoder, prompt):
        if not window.sequences:
            break
        text_nd = encoder.embed(window.sequences, encoder.prompt_skip(prompt), normalize=True)
        blank = sum(not text.strip() for text in window.distinct)
        score_qk, index_qk = nearest(query_qd, [text_nd], top + blank, "cosine")
        for near, score_k, index_k in zip(found, score_qk.tolist(), index_qk.tolist(), strict=True):
            near |= {window.distinct[i]: score for i, score in zip(index_k, score_k, strict=True)}
        found = [_top_k(near, top) for near in found]
    if not any(found):
        raise DataError(f"{inputs.source.dataset}: holds no text")
    return {
        "queries": [
            {"query": query, "nearest": [{"text": text, "similarity": score} for text, score in near.items()]}
            for query, near in zip(queries, found, strict=True)
        ]
    }


def _top_k(near: dict[str, float], top: int) -> dict[str, float]:
    """The most similar texts with something in them."""
    order = sorted((text for text in near if text.strip()), key=lambda text: -near[text])
    return {text: near[text] for text in order[:top]}


def closest(model: str, inputs: Inputs, top: int, device: str, *, approximate: bool = False) -> dict[str, Any]:
    """The `top` pairs of distinct texts with the highest cosine. All embeddings are held in memory."""
    encoder = load_encoder(model_in(model), choose_device(device))
    prompt = encoder.prompt(None)
    start = time.perf_counter()
    texts: dict[str, None] = {}
    parts = [np.empty((0, encoder.resolve_dim(None)), dtype=np.float32)]
    for window in stream_text_windows(inputs, encoder, prompt):
        assert window.sequences is not None
        new = [i for i, text in enumerate(window.distinct) if text.strip() and text not in texts]
        sequences = [window.sequences[i] for i in new]
        parts.append(encoder.embed(sequences, encoder.prompt_skip(prompt), normalize=True))
        texts |= dict.fromkeys(window.distinct[i] for i in new)
    if len(texts) < 2:
        raise DataError(f"{inputs.source.dataset}: holds {len(texts)} distinct texts, and a pair takes two")
    embedded = time.perf_counter()
    find = closest_pairs_approximately if approximate else closest_pairs
    score_k, pair_k = find(np.concatenate(parts), top)
    listed = list(texts)
    return {
        "texts": len(listed),
        "seconds_encoding": round(embedded - start, 3),
        "seconds_comparing": round(time.perf_counter() - embedded, 3),
        "pairs": [
            {"similarity": score, "text1": listed[one], "text2": listed[other]}
            for score, (one, other) in zip(score_k.tolist(), pair_k.tolist(), strict=True)
        ],
    }

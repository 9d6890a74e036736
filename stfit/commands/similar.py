"""`stfit similar`: the texts most similar to a query, or the most similar pairs of texts."""

import logging
import time
from typing import Any

import numpy as np

from stfit.encoder.build import load_encoder
from stfit.encoder.folder.resolve import model_in
from stfit.errors import DataError, ModelError, RecipeError
from stfit.evaluation.knn import nearest
from stfit.evaluation.top_pairs import closest_pairs, closest_pairs_approximately
from stfit.io.unicode import is_unicode
from stfit.runtime.device import choose_device
from stfit.workflows.text_windows import Inputs, stream_text_windows

log = logging.getLogger("stfit")


def similar(model: str, inputs: Inputs, queries: list[str], top: int, device: str) -> dict[str, Any]:
    """For each query, the `top` most similar texts by cosine, best first. Only the best texts are kept in memory."""
    for number, query in enumerate(queries, start=1):
        if not is_unicode(query):
            raise RecipeError(f"--query {number} is no Unicode text: {query!a}; it has bytes that are not UTF-8")
    encoder = load_encoder(model_in(model), choose_device(device))
    query_prompt, prompt = (encoder.role_prompt(role, None) for role in ("query", "corpus"))
    query_qd = encoder.encode(queries, prompt=query_prompt, normalize=True)
    if not np.isfinite(query_qd).all():
        raise ModelError(f"{model}: its embedding of a query is not finite: are its weights damaged?")
    broken = 0
    nearest_texts: list[dict[str, float]] = [{} for _ in queries]
    for window in stream_text_windows(inputs, encoder, prompt):
        if not window.sequences:
            break
        text_nd = encoder.embed(window.sequences, encoder.prompt_skip(prompt), normalize=True)
        blank = sum(not text.strip() for text in window.distinct)
        broken += _count_broken(text_nd)
        score_qk, index_qk = nearest(query_qd, [text_nd], top + blank, "cosine")
        for scores, score_k, index_k in zip(nearest_texts, score_qk.tolist(), index_qk.tolist(), strict=True):
            scores |= {window.distinct[i]: score for i, score in zip(index_k, score_k, strict=True) if score > -np.inf}
        nearest_texts = [_top_k(scores, top) for scores in nearest_texts]
    _report_broken(broken)
    if not any(nearest_texts):
        raise DataError(f"{inputs.source.dataset}: contains no text")
    return {
        "queries": [
            {"query": query, "nearest": [{"text": text, "similarity": score} for text, score in scores.items()]}
            for query, scores in zip(queries, nearest_texts, strict=True)
        ]
    }


def _count_broken(text_nd: np.ndarray) -> int:
    return int((~np.isfinite(text_nd).all(axis=1)).sum())


def _report_broken(texts: int) -> None:
    if texts:
        log.warning("%d texts have an embedding that is not finite, and are similar to nothing", texts)


def _top_k(scores: dict[str, float], top: int) -> dict[str, float]:
    order = sorted((text for text in scores if text.strip()), key=lambda text: -scores[text])
    return {text: scores[text] for text in order[:top]}


def closest(model: str, inputs: Inputs, top: int, device: str, *, approximate: bool = False) -> dict[str, Any]:
    """The `top` pairs of distinct texts with the highest cosine. All embeddings are kept in memory."""
    encoder = load_encoder(model_in(model), choose_device(device))
    prompt = encoder.prompt(None)
    start, broken = time.perf_counter(), 0
    texts: dict[str, None] = {}
    parts = [np.empty((0, encoder.resolve_dim(None)), dtype=np.float32)]
    for window in stream_text_windows(inputs, encoder, prompt):
        assert window.sequences is not None
        new = [i for i, text in enumerate(window.distinct) if text.strip() and text not in texts]
        sequences = [window.sequences[i] for i in new]
        text_nd = encoder.embed(sequences, encoder.prompt_skip(prompt), normalize=True)
        broken += _count_broken(text_nd)
        whole = np.isfinite(text_nd).all(axis=1)
        parts.append(text_nd[whole])
        texts |= dict.fromkeys(window.distinct[i] for i, is_whole in zip(new, whole, strict=True) if is_whole)
    _report_broken(broken)
    if len(texts) < 2:
        raise DataError(f"{inputs.source.dataset}: contains {len(texts)} distinct texts, but a pair needs two")
    embedded = time.perf_counter()
    find = closest_pairs_approximately if approximate else closest_pairs
    score_k, pair_k = find(np.concatenate(parts), top)
    listed = list(texts)
    return {
        "texts": len(listed),
        "seconds_encoding": round(embedded - start, 3),
        "seconds_comparing": round(time.perf_counter() - embedded, 3),
        "pairs": [
            {"similarity": score, "text1": listed[first], "text2": listed[second]}
            for score, (first, second) in zip(score_k.tolist(), pair_k.tolist(), strict=True)
        ],
    }

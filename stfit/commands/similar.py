"""`stfit similar`: the lines of a file that are nearest to a query."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stfit.commands.encode import read_lines
from stfit.commands.evaluate import model_in
from stfit.commands.train import choose_device
from stfit.encoder.build import load_encoder
from stfit.errors import DataError


def similar(model: str, texts: Path, queries: list[str], top: int, device: str) -> dict[str, Any]:
    """For each query, the `top` most similar lines of `texts` by cosine, most similar first."""
    lines = list(dict.fromkeys(line for line in read_lines(texts) if line.strip()))
    if not lines:
        raise DataError(f"{texts}: holds no text")
    encoder = load_encoder(model_in(model), choose_device(device))
    query_prompt, document_prompt = (encoder.prompt_of_role(role, None) for role in ("query", "corpus"))
    query_qd = encoder.encode(queries, prompt=query_prompt, normalize=True)
    line_nd = encoder.encode(lines, prompt=document_prompt, normalize=True)
    score_qn = query_qd @ line_nd.T
    best_qk = np.argsort(-score_qn, axis=1, kind="stable")[:, :top]
    return {
        "queries": [
            {"query": query, "nearest": [{"text": lines[i], "similarity": float(score_n[i])} for i in best_k]}
            for query, score_n, best_k in zip(queries, score_qn, best_qk, strict=True)
        ]
    }

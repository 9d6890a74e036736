"""`stfit mine`: hard negatives, texts that are similar to an anchor but are not its positives.

Tensor names: b = rows of a block, c = candidate texts, d = embedding dim.
"""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from stfit.data.mapping.cells import as_text
from stfit.data.mapping.examples import Examples
from stfit.data.mapping.plain_text import plain
from stfit.data.mapping.texts import stream_texts
from stfit.data.reading.local_files import input_paths
from stfit.data.source import Source
from stfit.data.table import Table
from stfit.encoder.build import load_encoder
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.resolve import model_in, paths_of_model
from stfit.errors import DataError, RecipeError
from stfit.io.atomic import atomic_write
from stfit.io.display import shorten
from stfit.io.outputs import require_output
from stfit.options import MiningOptions
from stfit.progress import track
from stfit.recipe.inputs import paths_in
from stfit.recipe.recipe import Objective, Recipe
from stfit.runtime.device import choose_device
from stfit.workflows.validate import load_training_rows

log = logging.getLogger("stfit")

MAX_SCORES = 2**24
"""Similarities in memory at once."""


@dataclass(frozen=True)
class Mined:
    """A row with its negatives, the most similar first."""

    row: int
    positive_score: float
    negatives: list[str]
    scores: list[float]


def mine(
    model: str,
    recipe: Recipe,
    output: Path,
    options: MiningOptions,
    *,
    corpus: Source | None,
    corpus_column: str | None,
    device: str,
) -> dict[str, Any]:
    """The negatives are positives of other rows, or texts of `corpus`. Rows without a negative are left out."""
    if output.suffix != ".jsonl":
        raise RecipeError(f"{output}: the output must be a .jsonl file")
    require_output(output, [*paths_of_model(Path(model)), *paths_in(recipe), *(input_paths(corpus) if corpus else [])])
    pairs, table = load_pairs(recipe)
    of_pairs: dict[str, list[str]] = {text: [] for text in pairs.column("positive")}
    candidates = of_pairs if corpus is None else _ids_by_text(corpus, corpus_column)
    texts = list(candidates)
    if options.ranks[0] > len(texts):
        raise RecipeError(f"--ranks starts at {options.ranks[0]}, and there are only {len(texts)} texts to choose from")
    encoder = load_encoder(model_in(model), choose_device(device))
    # Another model than the recipe's may lack its prompts: then it has those of its own.
    chosen = _objective_with_pairs(recipe).data.prompts or {}
    prompts = {role: name for role, name in chosen.items() if name in encoder.config.prompts}
    embed = partial(_embed, encoder, prompts)
    anchor_bd, positive_bd = (embed(pairs.column(role), role) for role in ("anchor", "positive"))
    text_cd = embed(texts, "positive")
    _report_broken(text_cd, texts)
    positive_b = (anchor_bd * positive_bd).sum(dim=1)
    limit_b = _limits(positive_b, pairs, options)
    is_known = _is_judged(pairs, table, candidates) if "document_id" in table.columns else _is_linked(pairs, texts)
    mined: list[Mined] = []
    blocks = torch.arange(len(pairs)).split(max(1, MAX_SCORES // len(texts)))
    for rows in track(blocks, f"comparing {len(pairs):,} pairs with {len(texts):,} texts"):
        same_bc = torch.from_numpy(is_known(rows.numpy())) | (positive_bd[rows] @ text_cd.T >= options.duplicate)
        found = _mine_block(anchor_bd[rows] @ text_cd.T, same_bc, limit_b[rows], texts, options)
        mined += [
            Mined(row, score, *negatives)
            for row, score, negatives in zip(rows.tolist(), positive_b[rows].tolist(), found, strict=True)
        ]
    kept = [row for row in mined if row.negatives]
    if not kept:
        raise DataError("no row has a negative: widen --ranks, or lower the margins")
    _write(kept, pairs, output)
    return _summary(kept, len(pairs), options.per_row, output)


def _embed(encoder: Encoder, prompts: dict[str, str], texts: list[str], role: str) -> Tensor:
    return torch.from_numpy(encoder.encode(texts, prompt=encoder.role_prompt(role, prompts), normalize=True))


def _summary(kept: list[Mined], rows: int, per_row: int, output: Path) -> dict[str, Any]:
    count = sum(len(row.negatives) for row in kept)
    return {
        "output": str(output),
        "rows": len(kept),
        "rows_without": rows - len(kept),
        "rows_with_fewer": sum(len(row.negatives) < per_row for row in kept),
        "negatives": count,
        "negatives_missing": rows * per_row - count,
        "mean_positive_score": round(float(np.mean([row.positive_score for row in kept])), 4),
        "mean_negative_score": round(sum(sum(row.scores) for row in kept) / count, 4),
        "data": f'data: {{dataset: ./{output.name}, format: triplet, columns: {{negative: "negative[:]"}}}}',
    }


def load_pairs(recipe: Recipe) -> tuple[Examples, Table]:
    """The pairs that are trained, and the table that they come from."""
    return load_training_rows(recipe, _objective_with_pairs(recipe))


def _objective_with_pairs(recipe: Recipe) -> Objective:
    objectives = recipe.objectives_by_path.values()
    with_pairs = [objective for objective in objectives if objective.data.format in ("positive_pair", "triplet")]
    if len(with_pairs) != 1:
        formats = ", ".join(objective.data.format for objective in objectives)
        raise RecipeError(
            f"mine needs a recipe with exactly one dataset of format positive_pair or triplet; this one has {formats}"
        )
    (objective,) = with_pairs
    if objective.data.streaming:
        raise RecipeError("mine compares all rows with each other, which a stream does not allow: remove `streaming`")
    return objective


def _ids_by_text(corpus: Source, column: str | None) -> dict[str, list[str]]:
    """Every text that is not blank -> its ids."""
    ids: dict[str, list[str]] = {}
    for block in stream_texts(corpus, column, None):
        for id, text in zip(block.ids, block.texts, strict=True):
            if text.strip():
                ids.setdefault(text, []).append(as_text(id))
    return ids


def _is_linked(pairs: Examples, texts: list[str]) -> Callable[[np.ndarray], np.ndarray]:
    """Of some pairs, whether each text says the same: linked by pairs, even indirectly, or `plain`-equal.

    The result gives [pairs, texts].
    """
    numbers: dict[str, int] = {}
    anchor, positive, text = (
        np.array([numbers.setdefault(plain(text), len(numbers)) for text in column], dtype=np.int64)
        for column in (pairs.column("anchor"), pairs.column("positive"), texts)
    )
    links = coo_array((np.ones(len(anchor)), (anchor, positive)), shape=(len(numbers), len(numbers)))
    _, cluster = connected_components(links, directed=False)
    return lambda rows: cluster[anchor][rows, None] == cluster[text]


def _is_judged(pairs: Examples, table: Table, candidates: dict[str, list[str]]) -> Callable[[np.ndarray], np.ndarray]:
    """The same for judgments, where a document answers many queries: what is relevant to the query, by id or by text.

    Judgments that are not trained (`where`, `limit`) count too.
    """
    numbers: dict[str, int] = {}
    text_c = np.array([numbers.setdefault(plain(text), len(numbers)) for text in candidates], dtype=np.int64)
    number_of = {id: number for number, ids in zip(text_c.tolist(), candidates.values(), strict=True) for id in ids}
    relevant: dict[str, set[int]] = {}
    for query, id, text in zip(*(table.columns[name] for name in ("anchor", "document_id", "positive")), strict=True):
        relevant.setdefault(plain(query or ""), set()).update(
            {number_of.get(id, -1), numbers.get(plain(text or ""), -1)}
        )
    known = [
        list(relevant.get(plain(anchor), set()) | {numbers.get(plain(text), -1) for text in (anchor, positive)})
        for anchor, positive in zip(pairs.column("anchor"), pairs.column("positive"), strict=True)
    ]
    return lambda rows: np.stack([np.isin(text_c, known[row]) for row in rows.tolist()])


def _report_broken(text_cd: Tensor, texts: list[str]) -> None:
    """Such a text is no negative: a similarity that is not a number is below no limit."""
    broken = (~torch.isfinite(text_cd).all(dim=1)).nonzero()[:, 0].tolist()
    if broken:
        share, example = f"{len(broken)} of {len(texts)} texts", shorten(texts[broken[0]], 80)
        log.warning("%s have an embedding that is not finite, and are no negatives, such as %r", share, example)


def _limits(positive_b: Tensor, pairs: Examples, options: MiningOptions) -> Tensor:
    """The highest similarity of a negative of each row: below that of every known positive of the row's anchor."""
    _, anchor_b = np.unique([plain(anchor) for anchor in pairs.column("anchor")], return_inverse=True)
    lowest = np.full(len(positive_b), np.inf, dtype=np.float32)
    np.fmin.at(lowest, anchor_b, positive_b.numpy())  # passes over what is not a number
    least_b = torch.from_numpy(lowest[anchor_b]).masked_fill(positive_b.isnan(), torch.nan)
    return torch.minimum(least_b - options.margin, least_b - options.relative_margin * least_b.abs())


def _mine_block(
    score_bc: Tensor, same_bc: Tensor, limit_b: Tensor, texts: list[str], options: MiningOptions
) -> Iterator[tuple[list[str], list[float]]]:
    """The negatives of each row with their similarities. `same_bc`: texts that say the same as the positive."""
    score_bc.masked_fill_(same_bc | (score_bc >= options.duplicate) | score_bc.isnan(), -torch.inf)
    first, last = options.ranks
    top = score_bc.topk(min(last, len(texts)), dim=1)
    for limit, scores, indices in zip(limit_b.tolist(), top.values.tolist(), top.indices.tolist(), strict=True):
        ranked = list(zip(scores, indices, strict=True))[first - 1 :]
        negatives = [(score, index) for score, index in ranked if -torch.inf < score <= limit][: options.per_row]
        yield [texts[index] for _, index in negatives], [score for score, _ in negatives]


def _write(kept: list[Mined], pairs: Examples, output: Path) -> None:
    anchors, positives = pairs.column("anchor"), pairs.column("positive")
    rows = [
        {
            "anchor": anchors[mined.row],
            "positive": positives[mined.row],
            "negative": mined.negatives,
            "positive_score": round(mined.positive_score, 6),
            "negative_scores": [round(score, 6) for score in mined.scores],
        }
        for mined in kept
    ]
    atomic_write(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

"""`stfit mine`: hard negatives, texts that are similar to an anchor but are not its positives.

Tensor names: b = rows of a block, c = candidate texts, d = embedding dim.
"""

import itertools
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stfit.data.cache.tokens import cache_key
from stfit.data.embeddings.matrix import EmbeddingMatrix
from stfit.data.mapping.examples import Examples
from stfit.data.mapping.plain_text import plain
from stfit.data.part import Part, rows_file
from stfit.data.reading.local_files import input_paths
from stfit.data.saved_blocks import SavedBlocks
from stfit.data.source import Source
from stfit.data.table import Table
from stfit.encoder.build import load_encoder
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.resolve import model_in, paths_of_model
from stfit.errors import DataError, RecipeError
from stfit.io.atomic import atomic_write
from stfit.io.outputs import require_output
from stfit.losses.base import CrossEncoderTeacher
from stfit.neighbors.approximate import approximately_nearest, build_index, measure_recall, offer_index
from stfit.neighbors.exact import nearest
from stfit.options import MiningOptions
from stfit.progress import track
from stfit.recipe.inputs import paths_in
from stfit.recipe.recipe import Objective, Recipe
from stfit.runtime.device import choose_device
from stfit.runtime.run_folder import lock_folder
from stfit.runtime.signals import handle_signals_resumably
from stfit.workflows.check.validate import load_training_rows
from stfit.workflows.mine.candidates import BLOCK, Candidates, candidates_of_corpus, candidates_of_texts
from stfit.workflows.mine.known_positives import IsKnown, find_known_positives
from stfit.workflows.mine.rerank import CachedScores, open_cross_encoder

log = logging.getLogger("stfit")

ROWS = 4096
"""Pairs that are compared at once: an interruption loses no more."""
SPARE = 64
"""Neighbors that are looked at beyond the last rank, since some of them say the same as the positive."""
GATHERED = 128
"""Rows whose neighbors' embeddings are in memory at once."""


class Mined(NamedTuple):
    """A row with its negatives, the most similar first."""

    row: int
    positive_score: float
    negatives: list[int]
    """Indices of candidates."""
    scores: list[float]
    reranked: list[float]
    """Scores of a cross-encoder for the positive and each negative; empty without one."""


@dataclass(frozen=True)
class _Task:
    """What all blocks of rows have in common."""

    pairs: Examples
    candidates: Candidates
    embed: Callable[[list[str], str], Tensor]
    """Texts and their role -> unit embeddings."""
    matrix: EmbeddingMatrix
    search: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
    """Embeddings [b, d] and k -> similarities and indices of candidates, [b, k]."""
    is_known: IsKnown
    anchor_number: np.ndarray
    """Of each row: equal for anchors that are one text."""
    options: MiningOptions
    rerank: CachedScores | None
    """Scores of a cross-encoder, to which the margins apply then."""


def mine(
    model: str,
    recipe: Recipe,
    output: Path,
    options: MiningOptions,
    *,
    corpus: Source | None,
    corpus_column: str | None,
    device: str,
    part: Part | None = None,
    approximate: bool = False,
) -> dict[str, Any]:
    """The negatives are positives of other rows, or texts of `corpus`. Rows without a negative are left out.

    Of a part, `output` is a folder, with a file for each part. After InterruptedRun, the same command resumes.
    """
    target = rows_file(output, part)
    require_output(target, [*paths_of_model(Path(model)), *paths_in(recipe), *(input_paths(corpus) if corpus else [])])
    pairs, table = load_pairs(recipe)
    candidates = (
        candidates_of_corpus(corpus, corpus_column) if corpus else candidates_of_texts(pairs.column("positive"))
    )
    count = len(candidates.texts)
    if options.ranks[0] > count:
        raise RecipeError(f"--ranks starts at {options.ranks[0]}, and there are only {count} texts to choose from")
    encoder = load_encoder(model_in(model), choose_device(device))
    # Another model than the recipe's may lack its prompts: then it has those of its own.
    chosen = _objective_with_pairs(recipe).data.prompts or {}
    prompts = {role: name for role, name in chosen.items() if name in encoder.config.prompts}
    dim = candidates.require_dim(encoder, model)
    embed = partial(_embed, encoder, prompts, dim)
    is_known = find_known_positives(pairs, table, candidates)
    rerank = _open_reranker(options, choose_device(device))
    blocks = SavedBlocks(target.with_name(target.name + ".blocks"))
    rows = np.array((part or Part(1, 1)).share_of(len(pairs)))
    made = [
        approximate,
        encoder.fingerprint,
        prompts,
        asdict(options),
        pairs.fingerprint,
        cache_key(candidates.texts, str(dim)),
        rerank and rerank.model.fingerprint,
    ]
    kept_in = f"what was compared is kept in {blocks.folder}"
    with lock_folder(blocks.folder / "output"), handle_signals_resumably(lambda: kept_in):
        matrix = candidates.embedded(lambda texts: embed(texts, "positive").numpy())
        anchor_number = np.unique([plain(anchor) for anchor in pairs.column("anchor")], return_inverse=True)[1]
        search = _open_search(matrix, encoder.device.type, approximate, len(rows))
        mining = _Task(pairs, candidates, embed, matrix, search, is_known, anchor_number, options, rerank)
        mined = _mine_blocks(mining, rows, blocks, made)
        kept = [row for row in mined if row.negatives]
        if not kept and part is None:
            blocks.delete()
            raise DataError("no row has a negative: widen --ranks, or lower the margins")
        _write(kept, pairs, candidates.texts, target)
        blocks.delete()
    return _summary(kept, len(rows), options, output, part)


def _open_reranker(options: MiningOptions, device: str) -> CachedScores | None:
    if options.reranker is None:
        return None
    return open_cross_encoder(CrossEncoderTeacher(cross_encoder=model_in(options.reranker)), device)


def _open_search(
    matrix: EmbeddingMatrix, device: str, approximate: bool, queries: int
) -> Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]:
    if approximate:
        index = build_index(matrix)
        log.info("the index finds %.1f%% of nearest neighbors", 100 * measure_recall(index, matrix))
        return partial(approximately_nearest, index)
    offer_index(queries * len(matrix), matrix.dim)
    return lambda query_bd, k: nearest(query_bd, matrix.unit_blocks(BLOCK), k, "dot", device)


def _mine_blocks(mining: _Task, rows: np.ndarray, saved: SavedBlocks, made: list[Any]) -> list[Mined]:
    mined: list[Mined] = []
    blocks = np.split(rows, range(ROWS, len(rows), ROWS))
    doing = f"comparing {len(rows):,} pairs with {len(mining.candidates.texts):,} texts"
    for number, block in enumerate(track(blocks, doing)):
        digest = sha256(json.dumps([made, block.tolist()]).encode()).hexdigest()
        found = saved.read(number, digest)
        if found is None:
            found = list(_mine_rows(mining, block))
            saved.write(number, digest, found)
        mined += itertools.starmap(Mined, found)
    return mined


def _mine_rows(mining: _Task, rows: np.ndarray) -> Iterator[Mined]:
    """More neighbors are looked at until enough of them are left without those that say the same."""
    pairs, options = mining.pairs, mining.options
    anchors, positives = pairs.column("anchor"), pairs.column("positive")
    # Other rows may have the same anchor: no negative may be nearer than their positives.
    siblings = np.flatnonzero(np.isin(mining.anchor_number, mining.anchor_number[rows]))
    anchor_sd = mining.embed([anchors[i] for i in siblings], "anchor")
    positive_sd = mining.embed([positives[i] for i in siblings], "positive")
    positive_s = (anchor_sd * positive_sd).sum(dim=1)
    limit_s = _limits(positive_s, mining.anchor_number[siblings], options)
    place = torch.from_numpy(np.searchsorted(siblings, rows))
    anchor_bd, positive_bd, score_b, limit_b = (each[place] for each in (anchor_sd, positive_sd, positive_s, limit_s))
    found: dict[int, tuple[list[int], list[float]]] = {}
    if mining.rerank is not None:
        limit_b = torch.full_like(limit_b, torch.inf)  # the reranker decides
    left, neighbors = np.arange(len(rows)), options.ranks[1] + SPARE
    while len(left):
        score_bk, index_bk = mining.search(anchor_bd[left].numpy(), neighbors)
        is_same_bk = mining.is_known(rows[left], index_bk) | (score_bk >= options.duplicate) | (score_bk == -np.inf)
        is_same_bk |= _similarity_to(mining.matrix, positive_bd[left], index_bk) >= options.duplicate
        is_enough = (~is_same_bk).sum(axis=1) >= options.ranks[1]
        is_enough |= index_bk.shape[1] == len(mining.matrix)
        for i, row in zip(np.flatnonzero(is_enough).tolist(), left[is_enough].tolist(), strict=True):
            other = ~is_same_bk[i]
            found[row] = _choose(score_bk[i][other], index_bk[i][other], limit_b[row].item(), options, mining.rerank)
        left, neighbors = left[~is_enough], 4 * neighbors
    mined = [
        Mined(row, score, *found[i], [])
        for i, (row, score) in enumerate(zip(rows.tolist(), score_b.tolist(), strict=True))
    ]
    yield from mined if mining.rerank is None else _rerank(mining, mining.rerank, mined, siblings)


def _rerank(mining: _Task, score_pairs: CachedScores, rows: list[Mined], siblings: np.ndarray) -> Iterator[Mined]:
    """Of the neighbors, those whose score is below that of every known positive of the anchor by the margins.

    The nearest are scored first, and others only for the rows that still lack negatives.
    """
    anchors, positives = mining.pairs.column("anchor"), mining.pairs.column("positive")
    texts, per_row = mining.candidates.texts, mining.options.per_row
    positive_s = score_pairs([(anchors[row], positives[row]) for row in siblings.tolist()])
    limit_s = _limits(torch.from_numpy(positive_s), mining.anchor_number[siblings], mining.options).tolist()
    places = np.searchsorted(siblings, [mined.row for mined in rows]).tolist()
    taken: list[dict[int, float]] = [{} for _ in rows]
    seen = [0] * len(rows)
    while asked := [
        (i, number)
        for i, mined in enumerate(rows)
        for number in range(seen[i], min(seen[i] + per_row - len(taken[i]), len(mined.negatives)))
    ]:
        scores = score_pairs([(anchors[rows[i].row], texts[rows[i].negatives[number]]) for i, number in asked])
        for (i, number), score in zip(asked, scores.tolist(), strict=True):
            seen[i] = number + 1
            if score <= limit_s[places[i]]:
                taken[i][number] = score
    for mined, place, chosen in zip(rows, places, taken, strict=True):
        yield mined._replace(
            negatives=[mined.negatives[number] for number in chosen],
            scores=[mined.scores[number] for number in chosen],
            reranked=[float(positive_s[place]), *chosen.values()],
        )


def _similarity_to(matrix: EmbeddingMatrix, text_bd: Tensor, index_bk: np.ndarray) -> np.ndarray:
    """Of each row's text to each of its candidates, [b, k]."""
    parts = []
    for some_bd, some_bk in zip(
        text_bd.split(GATHERED), np.split(index_bk, range(GATHERED, len(index_bk), GATHERED)), strict=True
    ):
        taken = torch.from_numpy(matrix.take_unit(some_bk.reshape(-1))).view(*some_bk.shape, -1)
        parts.append(torch.einsum("bkd,bd->bk", taken, some_bd))
    return torch.cat(parts).numpy()


def _choose(
    score_k: np.ndarray, index_k: np.ndarray, limit: float, options: MiningOptions, rerank: CachedScores | None
) -> tuple[list[int], list[float]]:
    """Of the neighbors that say something else, those of the ranks that are not too near; all, if they are reranked."""
    first, last = options.ranks
    score_k, index_k = score_k[first - 1 : last], index_k[first - 1 : last]
    taken = np.flatnonzero(score_k <= limit)[: options.per_row if rerank is None else None]
    return index_k[taken].tolist(), score_k[taken].tolist()


def _embed(encoder: Encoder, prompts: dict[str, str], dim: int, texts: list[str], role: str) -> Tensor:
    prompt = encoder.role_prompt(role, prompts)
    return torch.from_numpy(encoder.encode(texts, prompt=prompt, normalize=True, truncate_dim=dim))


def _summary(kept: list[Mined], rows: int, options: MiningOptions, output: Path, part: Part | None) -> dict[str, Any]:
    count = sum(len(row.negatives) for row in kept)
    name = f"{output.name}/*.jsonl" if part else output.name
    return {
        "output": str(output),
        "rows": len(kept),
        "rows_without": rows - len(kept),
        "rows_with_fewer": sum(len(row.negatives) < options.per_row for row in kept),
        "negatives": count,
        "reranked": options.reranker is not None,
        "negatives_missing": rows * options.per_row - count,
        "mean_positive_score": round(float(np.mean([row.positive_score for row in kept])), 4) if kept else None,
        "mean_negative_score": round(sum(sum(row.scores) for row in kept) / count, 4) if kept else None,
        "data": f'data: {{dataset: ./{name}, format: triplet, columns: {{negative: "negative[:]"}}}}',
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


def _limits(positive_s: Tensor, anchor_s: np.ndarray, options: MiningOptions) -> Tensor:
    """The highest similarity of a negative of each row: below that of every known positive of the row's anchor."""
    numbers, anchor_s = np.unique(anchor_s, return_inverse=True)
    lowest = np.full(len(numbers), np.inf, dtype=np.float32)
    np.fmin.at(lowest, anchor_s, positive_s.numpy())  # passes over what is not a number
    least_s = torch.from_numpy(lowest[anchor_s]).masked_fill(positive_s.isnan(), torch.nan)
    return torch.minimum(least_s - options.margin, least_s - options.relative_margin * least_s.abs())


def _write(kept: list[Mined], pairs: Examples, texts: list[str], output: Path) -> None:
    anchors, positives = pairs.column("anchor"), pairs.column("positive")
    rows = [
        {
            "anchor": anchors[mined.row],
            "positive": positives[mined.row],
            "negative": [texts[index] for index in mined.negatives],
            "positive_score": round(mined.positive_score, 6),
            "negative_scores": [round(score, 6) for score in mined.scores],
            **({"scores": [round(score, 6) for score in mined.reranked]} if mined.reranked else {}),
        }
        for mined in kept
    ]
    atomic_write(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

"""`stfit init`: a dataset -> a commented recipe for it, which passes `stfit check`."""

from __future__ import annotations

import os
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stfit.data.infer_format import Proposal, infer_format
from stfit.data.reading.load_table import find_splits, load_split
from stfit.data.source import Source
from stfit.data.table import Table, concatenate
from stfit.errors import DataError, Problem, RecipeError, ResourceError
from stfit.paths import DATA_SUFFIXES, TEXT_SUFFIXES, looks_like_path
from stfit.recipe.dump import to_inline_yaml

DEFAULT_BASE = "sentence-transformers/all-MiniLM-L6-v2"

RATES = {"scratch": 1e-3, "static": 5e-2, "word_embeddings": 5e-2, "bag_of_words": 1e-3}
"""Type of a base that starts from nothing -> a learning rate that moves it."""
TABLES = ("static", "word_embeddings", "bag_of_words")
"""Those of them that are no transformer."""
VECTORS_RATE = 5e-3
"""The same for vectors that know something already."""

LOSSES = {
    ("positive_pair", "none"): (
        "multiple_negatives_ranking",
        "Each anchor has to find its own positive among all positives of the batch; a larger batch is a harder task.",
    ),
    ("triplet", "none"): (
        "multiple_negatives_ranking",
        "Each anchor has to find its own positive among all positives and negatives of the batch.",
    ),
    ("labeled_pair", "score"): (
        "cosent",
        "A pair with a higher score should have a higher cosine similarity; only the order of the scores matters.",
    ),
    ("labeled_pair", "class"): (
        "softmax",
        "The classes have no order: a classifier on both embeddings learns to predict them.",
    ),
    ("labeled_text", "class"): (
        "batch_hard_soft_margin_triplet",
        "Texts of one class should be closer to each other than to texts of other classes. There is no margin to set.",
    ),
    ("text", "none"): (
        "multiple_negatives_ranking",
        "A text under another dropout mask is its own positive, and the other texts of the batch are the negatives. "
        "Labeled data or a teacher ({type: mse, teacher: ...}) gives better models.",
    ),
}
"""(format, kind of label) -> the loss to begin with, and why."""

EVALUATORS = {
    ("labeled_pair", "score"): "similarity",
    ("labeled_pair", "binary"): "binary_classification",
    ("triplet", "none"): "triplet",
    ("positive_pair", "none"): "retrieval",
    ("labeled_text", "class"): "classification",
}
"""(format, kind of label) -> the evaluator that measures on such rows."""

MEASURING_SPLITS = ("validation", "valid", "val", "dev", "development", "test")
"""In this order: the test split stays untouched where there is another."""
EVALUATION_ROWS = 2000
"""An evaluation runs six times by default, and should take seconds."""
HOLDOUT_SHARE = 0.1
WIDTH = 100


@dataclass(frozen=True)
class DatasetSummary:
    """What was seen of a dataset: its rows for training, and the split to measure on, if it has one."""

    split: str
    rows: int
    measuring: str | None
    measuring_rows: int
    proposal: Proposal


def init(dataset: str, output: Path, base: str = DEFAULT_BASE, config: str | None = None) -> dict[str, Any]:
    """Look at a Hub dataset, file or folder, and write a recipe for it to `output`; what `stfit init --json` prints.

    `base` is a Hub id, a folder, a file of word vectors, or the type of a base that starts from nothing. Raises
    DataError where no format fits the columns, HubError where the Hub can't be reached, RecipeError where `output`
    exists or the base can't learn from texts alone, ResourceError where it can't be written.
    """
    if output.exists():
        raise RecipeError(f"{output} exists: choose another file with -o, or delete it")
    source = Source(dataset=dataset, config=config)
    look = _look_at(source)
    training = look.proposal
    if training.label_kind == "binary":
        training = training.similar_only()
    if training.format == "text" and (base in TABLES or base.endswith(TEXT_SUFFIXES)):
        raise RecipeError(
            f"{dataset} has only single texts, whose loss needs dropout, and a table of vectors has none: choose a "
            "transformer, or `scratch`, as the base"
        )
    loss, because = LOSSES[training.format, training.label_kind]
    text = _write_recipe(dataset, config, look, training, (loss, because), base, output)
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ResourceError(f"{output} can't be written: {error.strerror}") from error
    return {
        "recipe": str(output),
        "format": training.format,
        "columns": training.columns,
        "loss": loss,
        "reasons": [*training.reasons, because],
    }


def _look_at(source: Source) -> DatasetSummary:
    """Read the split to train on and the one to measure on, and propose what to do with them."""
    splits = find_splits(source)
    if {"corpus", "queries"} <= set(splits):
        message = "this dataset is for retrieval evaluation: add it to a recipe's `eval` as {type: retrieval, dataset}"
        raise DataError(Problem(message, "no-format", source.dataset))
    measuring = next((name for name in MEASURING_SPLITS if name in splits), None)
    # Without a split called train, the test split is the last that is trained on.
    split = min(splits, key=lambda name: (name != "train", name == "test"))
    if measuring == split:
        measuring = "test" if "test" in splits and split != "test" else None
    table = load_split(splits[split](None))
    if not len(table):
        raise DataError(Problem(f"the split `{split}` has no rows", "no-rows", table.origin))
    other: Table | None = load_split(splits[measuring](None)) if measuring else None
    # Of both together, since the ends of a score may only be reached in one.
    proposal = infer_format(table if other is None else concatenate([table, other]))
    return DatasetSummary(split, len(table), measuring, len(other) if other else 0, proposal)


def _write_recipe(
    dataset: str,
    config: str | None,
    look: DatasetSummary,
    training: Proposal,
    loss: tuple[str, str],
    base: str,
    output: Path,
) -> str:
    """The text of the recipe."""
    where = {"dataset": _located(dataset, output), **({"config": config} if config else {})}
    evaluation = _evaluation_of(where, look, training)
    holdout = {"holdout": {"fraction": HOLDOUT_SHARE}} if evaluation.get("from") else {}
    data = where | {"split": look.split, "format": training.format, "columns": training.columns}
    model, rate = _model_of(base, output)
    train: dict[str, Any] = {"epochs": 1, "batch_size": 64 if loss[0] == "multiple_negatives_ranking" else 32}
    lines = [
        *_comment(f"Written by `stfit init` based on {look.rows} rows. Correct anything that it guessed wrong."),
        "#",
        f"#   stfit check {output.name}",
        f"#   stfit train {output.name}",
        "version: 1",
        f"name: {to_inline_yaml(_run_name(dataset))}",
        "",
        *_section("model", model),
        "",
        *_comment(*training.reasons),
        *_section("data", data | training.options | holdout),
        "",
        *_comment(loss[1]),
        f"loss: {loss[0]}",
        "",
        *_section("train", train | rate),
        "",
        *_comment(_reason_of(evaluation, look)),
        *(_section("eval", evaluation, item=True) if evaluation else []),
    ]
    return "\n".join(lines) + "\n"


def _model_of(base: str, output: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """The section `model`, and the learning rate where the default is not meant for such a base."""
    if base.endswith(TEXT_SUFFIXES):
        return {"base": {"type": "static", "vectors": _located(base, output)}}, {"learning_rate": VECTORS_RATE}
    if base not in RATES:
        return {"base": _located(base if looks_like_path(base) or not Path(base).is_dir() else f"./{base}", output)}, {}
    # A bag of words has nothing to train by itself.
    layers = {"layers": [{"type": "dense", "out_features": 256}]} if base == "bag_of_words" else {}
    return {"base": {"type": base}} | layers, {"learning_rate": RATES[base]}


def _evaluation_of(where: dict[str, Any], look: DatasetSummary, training: Proposal) -> dict[str, Any]:
    """The evaluator to measure with; empty where stfit has none for such rows.

    Pairs that are similar or not are measured with both kinds, though only the similar ones are trained on.
    """
    proposal = training if look.measuring is None else look.proposal
    kind = EVALUATORS.get((proposal.format, proposal.label_kind))
    if kind is None:
        return {}
    if look.measuring is None:
        return {"type": kind, "from": "holdout"}
    shorter = {"shuffle": True, "limit": EVALUATION_ROWS} if look.measuring_rows > EVALUATION_ROWS else {}
    learned = {"train_split": look.split} if kind == "classification" and look.split != "train" else {}
    chosen = {"type": kind, **where, "split": look.measuring, **learned, "columns": proposal.columns}
    return chosen | proposal.options | shorter


def _reason_of(evaluation: dict[str, Any], look: DatasetSummary) -> str:
    """Why the evaluation is what it is."""
    if not evaluation:
        return "No evaluation: stfit has no evaluator for rows like these. To add one on another dataset, use `eval`."
    if "from" in evaluation:
        return "There is no evaluation split, so some rows are held out of training."
    few = f", {EVALUATION_ROWS} of its {look.measuring_rows} rows" if "limit" in evaluation else ""
    return f"Evaluated before, during and after training on the split {look.measuring}{few}."


def _located(dataset: str, output: Path) -> str:
    """A Hub id and an absolute path as they are; another path as seen from the recipe's folder."""
    if not looks_like_path(dataset) or os.path.isabs(dataset):
        return dataset
    path = os.path.relpath(os.path.expanduser(dataset), output.parent)
    return path if path.startswith("..") else f"./{path}"


def _run_name(dataset: str) -> str:
    """A name for the run folder, after the last part of the dataset's."""
    last = Path(dataset).name
    stem = next((last.removesuffix(suffix) for suffix in DATA_SUFFIXES if last.endswith(suffix)), last)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip(".-_") or "run"


def _section(key: str, values: dict[str, Any], item: bool = False) -> list[str]:
    """A key with one line for each of its values, or a list of one such mapping."""
    lines = [f"{name}: {to_inline_yaml(value)}" for name, value in values.items()]
    first, rest = ("  - ", "    ") if item else ("  ", "  ")
    return [f"{key}:", first + lines[0], *(rest + line for line in lines[1:])]


def _comment(*texts: str) -> list[str]:
    """Lines that start with #."""
    return [f"# {line}" for text in texts for line in textwrap.wrap(text, WIDTH)]

"""Checks of a recipe's losses: whether they fit their data, and whether their settings can work."""

from collections.abc import Iterator

from stfit.data.checks.compatibility import format_problem
from stfit.distributed import world_size
from stfit.encoder.folder.model_config import ModelInfo
from stfit.errors import did_you_mean
from stfit.losses.base import LossBase
from stfit.losses.ranking import MultipleNegativesRanking
from stfit.losses.registry import LOSSES
from stfit.recipe.recipe import Objective, Recipe
from stfit.workflows.check.findings import Findings, embedding_dim, layers_of

MIN_BATCH_SIZE = 8
"""A smaller batch teaches little if its other rows are the negatives."""


def incompatible_losses(recipe: Recipe, base: ModelInfo) -> Findings:
    fits = {loss.tag(): loss.fits for loss in LOSSES}
    for key, objective, loss in _each_loss(recipe):
        format = objective.format_of(loss)
        unknown = [name for name in loss.columns or [] if name not in objective.roles]
        if unknown:
            message = f"this data has no column `{unknown[0]}`: {did_you_mean(unknown[0], list(objective.roles))}"
            yield f"{key}.columns", "unknown-role", message
        elif format is None:
            names = " and ".join(loss.columns or [])
            message = f"`{loss.tag()}` can't learn from {names} alone: choose [anchor, positive], or remove this key"
            yield f"{key}.columns", "loss-format", message
        elif problem := format_problem(loss.tag(), format, fits):
            yield key, "loss-format", problem


def absent_negatives(recipe: Recipe, base: ModelInfo) -> Findings:
    for key, objective, loss in _each_loss(recipe):
        format = objective.format_of(loss)
        if isinstance(loss, MultipleNegativesRanking) and loss.negatives == "own" and format not in (None, "triplet"):
            message = f"`negatives: own` needs the negatives of format triplet; format {format} has none"
            yield f"{key}.negatives", "loss-format", message


def _each_loss(recipe: Recipe) -> Iterator[tuple[str, Objective, LossBase]]:
    for path, objective in recipe.objectives_by_path.items():
        for key, loss in objective.losses_by_key.items():
            yield f"{path}{key}", objective, loss


def prefixes_of_weights(recipe: Recipe, base: ModelInfo) -> Findings:
    for key, loss in recipe.losses_by_path.items():
        if loss.is_built and loss.matryoshka_dims:
            message = f"`{loss.tag()}` has weights of its own, which fit whole embeddings: remove this key"
            yield f"{key}.matryoshka_dims", "matryoshka", message


def exceeded_dimensions(recipe: Recipe, base: ModelInfo) -> Findings:
    dim = embedding_dim(recipe, base)
    sizes = {f"{key}.matryoshka_dims": max(loss.matryoshka_dims or [0]) for key, loss in recipe.losses_by_path.items()}
    for key, size in {**sizes, "model.truncate_dim": recipe.model.truncate_dim or 0}.items():
        if dim is not None and size > dim:
            yield key, "too-many-dimensions", f"{size} exceeds the {dim} dimensions of the embeddings"


def unreachable_margins(recipe: Recipe, base: ModelInfo) -> Findings:
    """A margin larger than any distance keeps pushing pairs apart that are as far apart as possible."""
    maximum = {"cosine": 2.0}
    if [layer.type for layer in layers_of(recipe, base)[-1:]] == ["normalize"]:
        maximum |= {"euclidean": 2.0, "squared_euclidean": 4.0}
    for key, loss in recipe.losses_by_path.items():
        settings = dict(loss)
        distance, margin = settings.get("distance"), settings.get("margin", 0.0)
        if distance in maximum and margin >= maximum[distance]:
            name = "cosine distance" if distance == "cosine" else f"{distance} distance of normalized embeddings"
            message = f"{margin:g} can't be reached: the {name} is at most {maximum[distance]:g}"
            yield f"{key}.margin", "margin", message


def scale_for_temperature(recipe: Recipe, base: ModelInfo) -> Findings:
    for key, loss in recipe.losses_by_path.items():
        scale = dict(loss).get("scale", 1.0)
        if scale < 1:
            message = f"{scale:g} multiplies the cosine. If you mean a temperature of {scale:g}, write {1 / scale:g}"
            yield f"{key}.scale", "scale", message


def few_negatives(recipe: Recipe, base: ModelInfo) -> Findings:
    size = recipe.train.batch_size * world_size()
    in_batch = any(loss.sampler == "no_duplicates" for loss in recipe.losses_by_path.values())
    if in_batch and size < MIN_BATCH_SIZE:
        advice = "Use 64 or more; with `mini_batch_size`, they fit into memory"
        yield "train.batch_size", "few-negatives", f"{size} rows give only {size - 1} negatives. {advice}"


def unsuitable_sampler(recipe: Recipe, base: ModelInfo) -> Findings:
    """A loss that mines its batches finds little in batches of another sampler."""
    for key, objective in recipe.objectives_by_path.items():
        needed = objective.best_sampler
        if needed not in ("shuffle", objective.sampler):
            place = "train.sampler" if objective.sampler == recipe.train.sampler else f"{key}sampler"
            loss = next(loss for loss in objective.losses if loss.sampler == needed)
            message = f"loss `{loss.tag()}` needs `sampler: {needed}`, not `{objective.sampler}`"
            yield place, "sampler", message


def equal_views(recipe: Recipe, base: ModelInfo) -> Findings:
    if recipe.model.dropout != 0 and base.st_name == "Transformer":
        return
    for key, objective in recipe.objectives_by_path.items():
        if objective.views:
            problem = "needs dropout to tell the two views of a text apart, and this model has none"
            yield f"{key}loss", "one-view", f"{problem}: set `model.dropout`, or use a transformer"

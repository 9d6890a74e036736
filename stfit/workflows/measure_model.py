"""Measure a model with all that lies in its folder."""

from pathlib import Path

from stfit.encoder.build import load_encoder
from stfit.encoder.encoder import Encoder
from stfit.encoder.folder.resolve import ALL_FILES, locate, model_in
from stfit.evaluation.measure import Details, Evaluators, measure
from stfit.evaluation.statistic import Statistic
from stfit.losses.softmax_classifier import NamedHead, load_head
from stfit.recipe.recipe import Recipe

Statistics = dict[str, Statistic]


def measure_model(
    model: str | Path, evaluators: Evaluators, recipe: Recipe, device: str, details: Details | None = None
) -> tuple[Encoder, Statistics]:
    """`model`: folder, run or Hub id."""
    named = model_in(str(model))
    encoder, head = load_encoder(named, device), load_head(locate(named, None, ALL_FILES))
    return encoder, measure(encoder, evaluators, "end", recipe.matryoshka_dims, details, _to(head, device))


def measure_other(model: str | Path | Encoder, evaluators: Evaluators, recipe: Recipe, device: str) -> Statistics:
    """What can be measured of a model that another is compared with: it may have no classifier."""
    if isinstance(model, Encoder):
        return measure(model, _without_head(evaluators), "end", recipe.matryoshka_dims)
    has_head = load_head(locate(model_in(str(model)), None, ALL_FILES)) is not None
    return measure_model(model, evaluators if has_head else _without_head(evaluators), recipe, device)[1]


def _without_head(evaluators: Evaluators) -> Evaluators:
    return [(evaluator, rows) for evaluator, rows in evaluators if not evaluator.needs_head]


def _to(named: NamedHead | None, device: str) -> NamedHead | None:
    return named and named._replace(head=named.head.to(device))

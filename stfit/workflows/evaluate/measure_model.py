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
    encoder, head = _load(model, device)
    return encoder, measure(encoder, evaluators, "end", recipe.matryoshka_dims, details, head)


def measure_other(model: str | Path | Encoder, evaluators: Evaluators, recipe: Recipe, device: str) -> Statistics:
    """What can be measured of a model that another is compared with: it may have no classifier."""
    encoder, head = (model, None) if isinstance(model, Encoder) else _load(model, device)
    measurable = [(evaluator, rows) for evaluator, rows in evaluators if head or not evaluator.needs_head]
    return measure(encoder, measurable, "end", recipe.matryoshka_dims, head=head)


def _load(model: str | Path, device: str) -> tuple[Encoder, NamedHead | None]:
    """The model, and the classifier beside it if there is one."""
    named = model_in(str(model))
    encoder, head = load_encoder(named, device), load_head(locate(named, None, ALL_FILES))
    return encoder, head and head._replace(head=head.head.to(device))

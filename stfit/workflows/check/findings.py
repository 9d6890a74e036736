"""What a check of a recipe finds, and what checks know of the model: sizes that only recipe and base together tell."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain

from stfit.encoder.folder.model_config import ModelConfig, ModelInfo
from stfit.encoder.layers import Layer
from stfit.errors import Problem
from stfit.recipe.marked_yaml import Mark
from stfit.recipe.recipe import Recipe

Findings = Iterator[tuple[str, str, str]]
"""Dotted key to change, stable code, and what is wrong."""
Check = Callable[[Recipe, ModelInfo], Findings]


def lint_recipe(checks: list[Check], recipe: Recipe, base: ModelInfo, origins: Mapping[str, Mark]) -> list[Problem]:
    problems = []
    for key, code, message in chain.from_iterable(check(recipe, base) for check in checks):
        mark, text = origins.get(key), f"{key}: {message}"
        problems.append(mark.problem(text, code) if mark else Problem(text, code))
    return problems


def embedding_dim(recipe: Recipe, base: ModelInfo) -> int | None:
    if base.hidden_size is None:
        return None
    config, model = base.config or ModelConfig(pooling=("mean",)), recipe.model
    pooling = config.pooling if model.modes is None else model.modes
    token_layers = config.token_layers if model.token_layers is None else model.token_layers
    return ModelConfig(pooling, token_layers, layers_of(recipe, base)).embedding_dim(base.hidden_size)


def layers_of(recipe: Recipe, base: ModelInfo) -> list[Layer]:
    if recipe.model.layers is not None:
        return recipe.model.layers
    return base.config.layers if base.config else []

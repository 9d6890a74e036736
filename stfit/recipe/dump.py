"""A recipe -> YAML with all values (resolved.yaml), which loads as the same recipe."""

from pathlib import Path
from typing import Any

import yaml

from stfit.io.yaml_text import RecipeDumper
from stfit.paths import FOR_OTHERS, TO_BE_READ
from stfit.recipe.load import LoadedRecipe
from stfit.spec import Spec


def to_yaml(recipe: Spec, for_others: bool = False) -> str:
    """All values of a recipe as YAML. Paths are absolute; `for_others` removes their folders."""
    values = recipe.model_dump(by_alias=True, context=FOR_OTHERS if for_others else TO_BE_READ)
    return yaml.dump(
        values, Dumper=RecipeDumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None
    )


def values_with_origins(loaded: LoadedRecipe[Any], path: Path) -> dict[str, tuple[Any, str]]:
    """Dotted key -> value and origin: default, command line, or a line of `path` or of a file that it extends."""
    values = {}
    for key, value in flatten(loaded.recipe.model_dump(by_alias=True)).items():
        origin = str(loaded.origins.get(key, "the file's name" if key == "name" else "default"))
        extended = ":" in origin and not origin.startswith(f"{path}:")
        values[key] = (value, f"extends {origin}" if extended else origin)
    return values


def flatten(value: Any, key: str = "") -> dict[str, Any]:
    """Dotted key -> value for every leaf; lists of mappings are flattened too."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value:
        return {key: value}
    leaves: dict[str, Any] = {}
    for name, inner in value.items():
        leaves |= flatten(inner, f"{key}.{name}".lstrip("."))
    return leaves

"""A recipe -> YAML with every value written out (resolved.yaml), which reads back to the same recipe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from stfit.paths import FOR_OTHERS
from stfit.recipe.load import LoadedRecipe
from stfit.recipe.marked_yaml import FLOAT
from stfit.spec import Spec


class RecipeDumper(yaml.SafeDumper):
    """Puts quotes around what either YAML 1.1 or our own reader would take for something else than text."""

    def ignore_aliases(self, data: Any) -> bool:
        """Equal lists are written out twice: recipes have no aliases."""
        return True


def _represent_text(dumper: RecipeDumper, text: str) -> yaml.Node:
    """Text; the line breaks that only YAML knows are escaped, or they would be read back as plain ones."""
    style = '"' if any(char in text for char in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


RecipeDumper.add_representer(str, _represent_text)
# The rules of YAML 1.1 are asked first, so this one is left with `1e-5` and the like. `\Z`: PyYAML calls match().
RecipeDumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(rf"({FLOAT.pattern})\Z"), list("-+.0123456789")
)


def to_yaml(recipe: Spec, for_others: bool = False) -> str:
    """Every value of the recipe in the order in which the classes declare them.

    Paths are absolute; in a recipe for others, they lose their folders.
    """
    values = recipe.model_dump(by_alias=True, context=FOR_OTHERS if for_others else None)
    return yaml.dump(
        values, Dumper=RecipeDumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None
    )


def values_with_origins(loaded: LoadedRecipe[Any], path: Path) -> dict[str, tuple[Any, str]]:
    """Dotted key -> its value, and where that was said: a default, a line of `path` or of what it extends, an override.

    Lists of plain values and empty mappings count as one value.
    """
    own = f"{path}:"
    found = {}
    for key, value in flatten(loaded.recipe.model_dump(by_alias=True)).items():
        origin = str(loaded.origins.get(key, "the file's name" if key == "name" else "default"))
        extended = ":" in origin and not origin.startswith(own)
        found[key] = (value, f"extends {origin}" if extended else origin)
    return found


def flatten(value: Any, key: str = "") -> dict[str, Any]:
    """Dotted key -> value, for all that lies below."""
    if isinstance(value, dict) and value:
        children = list(value.items())
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        children = list(enumerate(value))
    else:
        return {key: value}
    return {
        leaf: found for name, inner in children for leaf, found in flatten(inner, f"{key}.{name}".lstrip(".")).items()
    }


def to_inline_yaml(value: Any) -> str:
    """A value in YAML that reads back to it, without line breaks."""
    written: str = yaml.dump(
        [value], Dumper=RecipeDumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6
    )
    return written.strip()[1:-1]

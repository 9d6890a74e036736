"""A recipe -> YAML with every value written out (resolved.yaml), which reads back to the same recipe."""

from __future__ import annotations

import re
from typing import Any

import yaml

from stfit.recipe.marked_yaml import FLOAT
from stfit.spec import Spec


class Dumper(yaml.SafeDumper):
    """Puts quotes around what either YAML 1.1 or our own reader would take for something else than text."""

    def ignore_aliases(self, data: Any) -> bool:
        """Equal lists are written out twice: recipes have no aliases."""
        return True


def represent_text(dumper: Dumper, text: str) -> yaml.Node:
    """Text; the line breaks that only YAML knows are escaped, or they would be read back as plain ones."""
    style = '"' if any(char in text for char in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


Dumper.add_representer(str, represent_text)
# The rules of YAML 1.1 are asked first, so this one is left with `1e-5` and the like. `\Z`: PyYAML calls match().
Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"({FLOAT.pattern})\Z"), list("-+.0123456789"))


def to_yaml(recipe: Spec) -> str:
    """Every value of the recipe in the order in which the classes declare them; paths are absolute."""
    values = recipe.model_dump(by_alias=True)
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)

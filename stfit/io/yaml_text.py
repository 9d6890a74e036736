"""Values -> YAML that stfit's reader reads as the same values."""

import json
import re
from typing import Any

import yaml

FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")

PLAIN = re.compile(r"\w([\w .-]*\w)?|\.\.\.")
WORDS = ("null", "true", "false")


class RecipeDumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or stfit's reader would not read as text."""

    def ignore_aliases(self, data: Any) -> bool:
        """Recipes have no aliases: write equal lists twice."""
        return True


def _represent_text(dumper: RecipeDumper, text: str) -> yaml.Node:
    """Escape the line breaks that only YAML knows: they would be read back as normal ones."""
    style = '"' if any(char in text for char in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


RecipeDumper.add_representer(str, _represent_text)
# The resolvers of YAML 1.1 come first, so this one only sees numbers such as `1e-5`. `\Z`: PyYAML uses match().
RecipeDumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(rf"({FLOAT.pattern})\Z"), list("-+.0123456789")
)


def to_inline_yaml(value: Any) -> str:
    text: str = yaml.dump(
        [value], Dumper=RecipeDumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6
    )
    return text.strip()[1:-1]


def to_hint(value: Any) -> str:
    """What can be pasted into a recipe, with no more quotes than it needs: a mapping, a list or a scalar."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{to_hint(key)}: {to_hint(entry)}' for key, entry in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(to_hint, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    is_plain = PLAIN.fullmatch(value) and value.lower() not in WORDS and not FLOAT.fullmatch(value)
    return value if is_plain else json.dumps(value, ensure_ascii=False)

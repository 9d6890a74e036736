"""pydantic's validation errors -> messages in plain words, at the line and column to change."""

import re
from collections.abc import Callable
from typing import Any, TypeAlias

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from stfit.errors import Problem, closest_hint, did_you_mean
from stfit.recipe.marked_yaml import Mark, Node, quoted, resolve_plain
from stfit.recipe.script_words import ANSWERS, CLASSES, KEYS
from stfit.recipe.type_tree import Key, bare_names, choices_in, fields_of, key_owners, specs_in, types_at
from stfit.spec import Spec

Keys: TypeAlias = tuple[Key, ...]

EXPECTED: dict[str, str] = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a name, or a mapping with `type`",
    "literal_error": "{expected}",
    "finite_number": "a finite number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "at least {min_length} items",
    "too_long": "at most {max_length} items",
}

MAX_SHOWN = 200
"""Maximum number of errors to explain: thousands of unknown keys would take seconds."""
QUOTED_KEY = re.compile(r"`([\w.]+)")
BOOLEANS = {
    "yes": "true", "on": "true", "y": "true", "true": "true", "1": "true",
    "no": "false", "off": "false", "n": "false", "false": "false", "0": "false",
}  # fmt: skip
"""Words for true and false, mostly those of YAML 1.1."""


def explain_errors(error: ValidationError, root: Node, model: type[Spec]) -> list[Problem]:
    errors = error.errors(include_url=False)
    groups: dict[Keys, list[ErrorDetails]] = {}
    for detail in errors[:MAX_SHOWN]:
        groups.setdefault(_keys_of(detail, root), []).append(detail)
    places = [(keys, details) for keys, details in groups.items() if not _is_noise(keys, details, groups)]
    shown = [_explain(keys, details, root, model) for keys, details in places]
    hidden = len(errors) - MAX_SHOWN
    return [*shown, Problem(f"and {hidden} more errors: is this file a recipe?")] if hidden > 0 else shown


def _keys_of(detail: ErrorDetails, root: Node) -> Keys:
    """The keys from the top of the file to the error, without the tags and union members of pydantic's location."""
    keys: Keys = ()
    node, skipped_tag = root, False
    for part in detail["loc"]:
        tag = node.child("type")
        if not skipped_tag and tag is not None and part == tag.value:
            skipped_tag = True
        elif (child := node.child(part)) is not None:
            node, keys, skipped_tag = child, (*keys, part), False
    return (*keys, detail["loc"][-1]) if detail["type"] == "missing" else keys


def _is_noise(keys: Keys, details: list[ErrorDetails], groups: dict[Keys, list[ErrorDetails]]) -> bool:
    """Whether another member of the union matches better: then its error is deeper in the file and is shown instead."""
    deeper = any(len(path) > len(keys) and path[: len(keys)] == keys for path in groups)
    return deeper and all(detail["type"] in EXPECTED for detail in details)


def _explain(keys: Keys, details: list[ErrorDetails], root: Node, model: type[Spec]) -> Problem:
    # Of a union's members, the one whose error is not just "wrong type" is the one that was meant.
    specific = [detail for detail in details if detail["type"] not in EXPECTED] or details
    formatter = FORMATTERS.get(specific[0]["type"], _wrong_value)
    mark, message, code = formatter(keys, specific, root, model)
    return mark.problem(message, code)


def _node_at(root: Node, keys: Keys) -> Node:
    for key in keys:
        child = root.child(key)
        if child is None:
            return root
        root = child
    return root


def _dotted(keys: Keys) -> str:
    return quoted(".".join(str(key) for key in keys)) if keys else "the recipe"


def _section_of(keys: Keys) -> str:
    return ".".join(key for key in keys[:-1] if isinstance(key, str))


_Explanation: TypeAlias = tuple[Mark, str, str]


def _unknown_key(keys: Keys, details: list[ErrorDetails], root: Node, model: type[Spec]) -> _Explanation:
    parent, key = _node_at(root, keys[:-1]), str(keys[-1])
    section = _section_of(keys)
    mark = _node_at(root, keys).key or parent.where
    known = [name for spec in _chosen(parent, types_at([model], keys[:-1])) for name in fields_of(spec)]
    if key in ANSWERS and key not in known:
        return mark, f"unknown key {_dotted(keys)}; {ANSWERS[key]}", "unknown-key"
    name = KEYS.get(key, key)
    hints = [f"it is called `{name}` in stfit"] if name != key else []
    hints += [_section_hint(name, section, model)] if name not in known else []
    hint = ", ".join(filter(None, hints)) or did_you_mean(key, known)
    return mark, f"unknown key {_dotted(keys)}{'; ' if hint else ''}{hint}", "unknown-key"


def _chosen(node: Node, types: list[Any]) -> list[type[Spec]]:
    tag = node.child("type")
    return [spec for spec in choices_in(types) if tag is not None and spec.tag() == tag.value] or specs_in(types)


def _section_hint(key: str, section: str, model: type[Spec]) -> str:
    places = [] if key == "type" else key_owners(model).get(key, [])
    here = sorted({f"`{spec.tag()}`" for path, spec in places if path == section and "type" in spec.model_fields})
    if here:
        return f"it is a key of {', '.join(here)}"
    paths = list(dict.fromkeys(path for path, _ in places))
    known = [f"under `{path}:`" if path else "at the top level" for path in paths[:3]]
    return f"it belongs {' or '.join(known)}" if known else ""


def _missing_key(keys: Keys, details: list[ErrorDetails], root: Node, model: type[Spec]) -> _Explanation:
    parent = _node_at(root, keys[:-1])
    fields = [fields_of(spec).get(str(keys[-1])) for spec in _chosen(parent, types_at([model], keys[:-1]))]
    description = next((" ".join(field.description.split()) for field in fields if field and field.description), "")
    return parent.where, f"{_dotted(keys)} is missing{': ' if description else ''}{description}", "missing-key"


def _unknown_choice(keys: Keys, details: list[ErrorDetails], root: Node, model: type[Spec]) -> _Explanation:
    node, types = _node_at(root, keys), types_at([model], keys)
    names = list(bare_names(types)) or [spec.tag() for spec in choices_in(types)]
    tags = ", ".join(spec.tag() for spec in choices_in(types))
    tag = node.child("type")
    if tag is None or not isinstance(tag.value, str):
        return (tag or node).where, f"{_dotted(keys)} needs a `type`: {tags}", "missing-key"
    hint = CLASSES.get(tag.value) or closest_hint(tag.value, names) or f"known: {tags}"
    return tag.where, f"{_dotted(keys)}: unknown choice {quoted(tag.value)}; {hint}", "unknown-choice"


def _broken_rule(keys: Keys, details: list[ErrorDetails], root: Node, model: type[Spec]) -> _Explanation:
    message = re.sub("^(Value error|Assertion failed), ", "", details[0]["msg"])
    node = _node_at(root, keys)
    value = f" {quoted(node.value)}" if isinstance(node.value, str) else ""
    return _first_quoted_key(message, node).where, f"{_dotted(keys)}{value}: {message}", "invalid"


def _first_quoted_key(message: str, section: Node) -> Node:
    """The first key in a rule's message that exists below `section`; otherwise `section` itself."""
    paths = [name.split(".") for name in QUOTED_KEY.findall(message)]
    nodes = (_node_at(section, tuple(int(key) if key.isdigit() else key for key in path)) for path in paths)
    return next((node for node in nodes if node is not section), section)


def _wrong_value(keys: Keys, details: list[ErrorDetails], root: Node, model: type[Spec]) -> _Explanation:
    node = _node_at(root, keys)
    if any(detail["type"] not in EXPECTED for detail in details):
        return node.where, f"{_dotted(keys)}: {details[0]['msg']}", "invalid"
    kinds = {detail["type"]: EXPECTED[detail["type"]].format(**detail.get("ctx", {})) for detail in details}
    *others, last = dict.fromkeys(kinds.values())
    expected = (f"{', '.join(others)} or {last}" if others else last).replace("'", "`")
    is_range = any(kind.startswith(("finite", "greater", "less", "too_")) for kind in kinds)
    known = re.findall(r"'([^']*)'", kinds.get("literal_error", ""))
    value = node.plain()
    hint = closest_hint(value, known) if isinstance(value, str) else ""
    hint = hint or next(filter(None, (ADVICE[kind](value) for kind in kinds if kind in ADVICE)), "")
    message = f"{_dotted(keys)}: expected {expected}, found {_describe(value)}{'; ' if hint else ''}{hint}"
    return node.where, message, "out-of-range" if is_range else "wrong-type"


def _describe(value: Any) -> str:
    if value is None:
        return "nothing (null)"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else f"a list of {len(value)}"
    if isinstance(value, str):
        return f"text {quoted(value)}"
    return f"`{str(value).lower()}`"


def _boolean_advice(value: Any) -> str:
    boolean = BOOLEANS.get(str(value).lower())
    return f"write {boolean}" if boolean else ""


def _number_advice(value: Any) -> str:
    """For a number in quotes, with `_` between digits, or an integer written as 3.0."""
    number = resolve_plain(value.strip().replace("_", "")) if isinstance(value, str) else value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return f"write {number}" if is_number and number is not value else ""


QUOTE_ADVICE = {bool: 'put it in quotes, "{}"', int: 'put it in quotes, "{}"', float: "put it in quotes"}
"""Of a float, the text as it was written is not known."""
ADVICE: dict[str, Callable[[Any], str]] = {
    "bool_type": _boolean_advice,
    "int_type": _number_advice,
    "float_type": _number_advice,
    "string_type": lambda value: QUOTE_ADVICE.get(type(value), "").format(str(value).lower()),
    "list_type": lambda value: f"write [{value}]" if isinstance(value, str | int | float) else "",
}
"""Error type of pydantic -> a guess at what to write instead; empty if there is none."""

FORMATTERS: dict[str, Callable[[Keys, list[ErrorDetails], Node, type[Spec]], _Explanation]] = {
    "extra_forbidden": _unknown_key,
    "missing": _missing_key,
    "union_tag_invalid": _unknown_choice,
    "union_tag_not_found": _unknown_choice,
    "value_error": _broken_rule,
    "assertion_error": _broken_rule,
}
"""Error type of pydantic -> what explains it; all other types are wrong types and ranges."""

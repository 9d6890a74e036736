"""What pydantic says about a recipe -> what its author reads: in plain words, at the line and word to change."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, TypeAlias

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from stfit.errors import Problem, did_you_mean
from stfit.recipe.marked_yaml import Mark, Node, quoted, resolve_plain
from stfit.recipe.type_tree import Key, bare_names, choices_in, fields_of, key_owners, specs_in, types_at
from stfit.spec import Spec

Keys: TypeAlias = tuple[Key, ...]

RENAMED: dict[str, str] = {}
"""Dotted key of an older version of the recipe language -> what to do now ("is now `train.learning_rate`")."""

HF_ALIASES = {
    "bf16": "precision",
    "early_stopping_patience": "early_stopping",
    "eval_steps": "eval_every_steps",
    "fp16": "precision",
    "gradient_accumulation_steps": "accumulate_steps",
    "logging_steps": "log_every_steps",
    "lr": "learning_rate",
    "lr_scheduler_type": "schedule",
    "metric_for_best_model": "best",
    "num_train_epochs": "epochs",
    "output_dir": "name",
    "per_device_train_batch_size": "batch_size",
    "report_to": "track",
    "save_steps": "save_every_steps",
    "save_total_limit": "keep_checkpoints",
    "train_batch_size": "batch_size",
}
"""Names that the training arguments of transformers have for a key."""

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
    "string_pattern_mismatch": "text like {pattern}",
}
"""Error type of pydantic -> what would have been right."""

MAX_SHOWN = 200
"""Nobody reads more; a file of ten thousand unknown keys should still be answered at once."""
QUOTED_KEY = re.compile(r"`([\w.]+)")
"""A key in the words of a rule."""

RANGES = (
    "finite_number",
    "greater_than",
    "greater_than_equal",
    "less_than",
    "less_than_equal",
    "too_short",
    "too_long",
)
BOOLEANS = {
    "yes": "true", "on": "true", "y": "true", "true": "true", "1": "true",
    "no": "false", "off": "false", "n": "false", "false": "false", "0": "false",
}  # fmt: skip
"""What people write for true and false, the words of YAML 1.1 first of all."""


def explain_errors(error: ValidationError, root: Node, model: type[Spec]) -> list[Problem]:
    """What validation of `root.plain()` by `model` found, one Problem for each place of the file."""
    found = error.errors(include_url=False)
    groups: dict[Keys, list[ErrorDetails]] = {}
    for detail in found[:MAX_SHOWN]:
        groups.setdefault(_keys_of(detail, root), []).append(detail)
    shown = [
        _place(keys, details, root, model) for keys, details in groups.items() if not _is_noise(keys, details, groups)
    ]
    left_out = len(found) - MAX_SHOWN
    return [*shown, Problem(f"and {left_out} more: is it a recipe?")] if left_out > 0 else shown


def _keys_of(detail: ErrorDetails, root: Node) -> Keys:
    """The keys from the top of the file to the mistake.

    Pydantic's location also holds the tag of a choice and the names of a union's members, which are not in the file.
    """
    keys: Keys = ()
    node, tag_passed = root, False
    for part in detail["loc"]:
        tag = node.child("type")
        if not tag_passed and tag is not None and part == tag.value:
            tag_passed = True
        elif (child := node.child(part)) is not None:
            node, keys, tag_passed = child, (*keys, part), False
    return (*keys, detail["loc"][-1]) if detail["type"] == "missing" else keys


def _is_noise(keys: Keys, details: list[ErrorDetails], groups: dict[Keys, list[ErrorDetails]]) -> bool:
    """Whether another member of a union fitted better, so that its mistake lies deeper and is the one to show."""
    deeper = any(len(other) > len(keys) and other[: len(keys)] == keys for other in groups)
    return deeper and all(detail["type"] in EXPECTED for detail in details)


def _place(keys: Keys, details: list[ErrorDetails], root: Node, model: type[Spec]) -> Problem:
    """The Problem for all that is said about one place."""
    # Of a union's members, the one that says more than "not my type" is the one that was meant.
    telling = [detail for detail in details if detail["type"] not in EXPECTED] or details
    word = FORMATTERS.get(telling[0]["type"], _general)
    mark, message, code = word(keys, telling, root, model)
    return mark.problem(message, code)


def _node_at(root: Node, keys: Keys) -> Node:
    """The node at the end of `keys`, or the last one on the way that exists."""
    for key in keys:
        child = root.child(key)
        if child is None:
            return root
        root = child
    return root


def _dotted(keys: Keys) -> str:
    """`keys` as one writes them on the command line."""
    return quoted(".".join(str(key) for key in keys)) if keys else "the recipe"


def _section_of(keys: Keys) -> str:
    """The dotted section that holds `keys`, without indices of lists."""
    return ".".join(key for key in keys[:-1] if isinstance(key, str))


_Explanation: TypeAlias = tuple[Mark, str, str]
"""Where, the message, and its code."""


def _unknown_key(keys: Keys, details: list[ErrorDetails], root: Node, model: type[Spec]) -> _Explanation:
    """A key that its section does not have: renamed, misplaced or misspelt."""
    parent, key = _node_at(root, keys[:-1]), str(keys[-1])
    section = _section_of(keys)
    mark = _node_at(root, keys).key or parent.where
    old = f"{section}.{key}".lstrip(".")
    if old in RENAMED:
        return mark, f"{quoted(old)} {RENAMED[old]}", "renamed-key"
    known = [name for spec in _chosen(parent, types_at([model], keys[:-1])) for name in fields_of(spec)]
    name = HF_ALIASES.get(key, key)
    hints = [f"here it is called `{name}`"] if name != key else []
    hints += [_where_it_belongs(name, section, model)] if name not in known else []
    hint = ", ".join(filter(None, hints)) or did_you_mean(key, known)
    return mark, f"unknown key {_dotted(keys)}{'; ' if hint else ''}{hint}", "unknown-key"


def _chosen(node: Node, shape: list[Any]) -> list[type[Spec]]:
    """The classes a mapping may be, given its `type` where it has one."""
    tag = node.child("type")
    return [spec for spec in choices_in(shape) if tag is not None and spec.tag() == tag.value] or specs_in(shape)


def _where_it_belongs(key: str, section: str, model: type[Spec]) -> str:
    """Where a key that is unknown in `section` is known, or nothing."""
    places = [] if key == "type" else key_owners(model).get(key, [])
    here = sorted({f"`{spec.tag()}`" for path, spec in places if path == section and "type" in spec.model_fields})
    if here:
        return f"it is a key of {', '.join(here)}"
    paths = list(dict.fromkeys(path for path, _ in places))
    known = [f"under `{path}:`" if path else "at the top level" for path in paths[:3]]
    return f"it belongs {' or '.join(known)}" if known else ""


def _missing_key(keys: Keys, details: list[ErrorDetails], root: Node, model: type[Spec]) -> _Explanation:
    """A key that has no default and is not there."""
    parent = _node_at(root, keys[:-1])
    fields = [fields_of(spec).get(str(keys[-1])) for spec in _chosen(parent, types_at([model], keys[:-1]))]
    about = next((" ".join(field.description.split()) for field in fields if field and field.description), "")
    return parent.where, f"{_dotted(keys)} is missing{': ' if about else ''}{about}", "missing-key"


def _unknown_choice(keys: Keys, details: list[ErrorDetails], root: Node, model: type[Spec]) -> _Explanation:
    """A `type` that is not among the choices, or none."""
    node, shape = _node_at(root, keys), types_at([model], keys)
    names = list(bare_names(shape)) or [spec.tag() for spec in choices_in(shape)]
    tags = ", ".join(spec.tag() for spec in choices_in(shape))
    tag = node.child("type")
    if tag is None or not isinstance(tag.value, str):
        return (tag or node).where, f"{_dotted(keys)} needs a `type`: one of {tags}", "missing-key"
    near = _nearest(tag.value, names)
    return tag.where, f"{_dotted(keys)} can't be {quoted(tag.value)}{near or f'; known: {tags}'}", "unknown-choice"


def _broken_rule(keys: Keys, details: list[ErrorDetails], root: Node, model: type[Spec]) -> _Explanation:
    """A rule between the keys of a section, or about one value, in the words of the class."""
    said = re.sub("^(Value error|Assertion failed), ", "", details[0]["msg"])
    node = _node_at(root, keys)
    value = f" {quoted(node.value)}" if isinstance(node.value, str) else ""
    return _first_named(said, node).where, f"{_dotted(keys)}{value}: {said}", "invalid"


def _first_named(said: str, section: Node) -> Node:
    """The first key below a section that a rule names and the file holds; else the section itself."""
    named = [tuple(int(key) if key.isdigit() else key for key in name.split(".")) for name in QUOTED_KEY.findall(said)]
    found = (_node_at(section, keys) for keys in named)
    return next((node for node in found if node is not section), section)


def _general(keys: Keys, details: list[ErrorDetails], root: Node, model: type[Spec]) -> _Explanation:
    """A value of the wrong type or out of range."""
    node = _node_at(root, keys)
    if any(detail["type"] not in EXPECTED for detail in details):
        return node.where, f"{_dotted(keys)}: {details[0]['msg']}", "invalid"
    kinds = {detail["type"]: EXPECTED[detail["type"]].format(**detail.get("ctx", {})) for detail in details}
    *most, last = dict.fromkeys(kinds.values())
    expected = (f"{', '.join(most)} or {last}" if most else last).replace("'", "`")
    code = "out-of-range" if kinds.keys() & set(RANGES) else "wrong-type"
    known = re.findall(r"'([^']*)'", kinds.get("literal_error", ""))
    value = node.plain()
    hint = _nearest(value, known) if isinstance(value, str) and known else ""
    hint = hint or next(filter(None, (ADVICE[kind](value) for kind in kinds if kind in ADVICE)), "")
    return node.where, f"{_dotted(keys)}: expected {expected}, found {_described(value)}{hint}", code


def _nearest(word: str, known: list[str]) -> str:
    """A near match, as the end of a message."""
    near = get_close_matches(word, known, n=1)
    return f"; did you mean `{near[0]}`?" if near else ""


def _described(value: Any) -> str:
    """What stands in the file."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else f"a list of {len(value)}"
    if isinstance(value, str):
        return f"text {quoted(value)}"
    return f"`{str(value).lower()}`"


def _boolean_advice(value: Any) -> str:
    """For a word of YAML 1.1, a quoted `true`, or 0 and 1."""
    meant = BOOLEANS.get(str(value).lower())
    return f": write {meant}" if meant else ""


def _number_advice(value: Any) -> str:
    """For a number in quotes, with `_` between its digits, or a whole one written as 3.0."""
    number = resolve_plain(value.strip().replace("_", "")) if isinstance(value, str) else value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return f": write {number}" if is_number and number is not value else ""


def _text_advice(value: Any) -> str:
    """For a number or boolean where text is meant."""
    return f': put it in quotes, "{str(value).lower()}"' if isinstance(value, int | float) else ""


def _list_advice(value: Any) -> str:
    """For a single value where a list of them is meant."""
    return f": write [{value}]" if isinstance(value, str | int | float) else ""


ADVICE: dict[str, Callable[[Any], str]] = {
    "bool_type": _boolean_advice,
    "int_type": _number_advice,
    "float_type": _number_advice,
    "string_type": _text_advice,
    "list_type": _list_advice,
}
"""Error type of pydantic -> what to write instead, where that can be guessed."""

FORMATTERS: dict[str, Callable[[Keys, list[ErrorDetails], Node, type[Spec]], _Explanation]] = {
    "extra_forbidden": _unknown_key,
    "missing": _missing_key,
    "union_tag_invalid": _unknown_choice,
    "union_tag_not_found": _unknown_choice,
    "value_error": _broken_rule,
    "assertion_error": _broken_rule,
}
"""Error type of pydantic -> who words it; the others are wrong types and ranges."""

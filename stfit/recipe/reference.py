"""The reference page of the recipe language in Markdown, generated from the JSON Schema and the registries.

`make docs` writes it to recipes/README.md. Its text is in templates/reference.md.jinja.
"""

import json
from collections.abc import Iterator
from typing import Any, TypeAlias

from markupsafe import Markup

from stfit.data.source import ROLES
from stfit.errors import StfitError
from stfit.evaluation.registry import EVALUATORS
from stfit.io.templates import build_environment
from stfit.losses.registry import LOSSES
from stfit.recipe.recipe import Recipe
from stfit.recipe.schema import json_schema

Part: TypeAlias = dict[str, Any]


def metric_names() -> str:
    """The metrics of each evaluator, a line each; their names in a recipe begin with the name of the evaluator."""
    # model_construct: no fields are required, because only the names of the metrics are read.
    lines = [f"{evaluator.tag()}: {', '.join(evaluator.model_construct().metrics)}" for evaluator in EVALUATORS]
    about = "A metric is named EVALUATOR/METRIC, at a Matryoshka dimension EVALUATOR@DIM/METRIC. By type of evaluator:"
    return "\n".join([about, "", *lines, ""])


def reference_page() -> str:
    schema = json_schema(Recipe)
    tables = _Tables(schema["definitions"])
    top = {key: part for key, part in schema["properties"].items() if key != "extends"}
    template = build_environment("stfit.recipe", Markup, {}).get_template("reference.md.jinja")
    return template.render(
        keys=tables.table(top, schema["anyOf"][0]["required"]),
        sections=list(tables.sections(top, "")),
        formats=_formats(),
        # model_construct: no fields are required, because only the names of the metrics are read.
        evaluators={evaluator.tag(): evaluator.model_construct().metrics for evaluator in EVALUATORS},
        errors=[
            # An interrupted run exits with 128 + the number of the signal.
            (vars(error).get("exit_code", "130, 143"), error.__name__, _one_line(error.__doc__ or ""))
            for error in StfitError.__subclasses__()
        ],
    )


class _Tables:
    """Headings and tables of a schema's definitions, each once, below the first key that refers to it."""

    def __init__(self, definitions: dict[str, Part]) -> None:
        self.definitions = definitions
        self.shown: set[str] = set()

    def sections(self, properties: dict[str, Part], path: str) -> Iterator[str]:
        for key, part in properties.items():
            names = [name for name in dict.fromkeys(_references(part)) if name not in self.shown]
            here = f"{path}.{key}".lstrip(".")
            shared = self.shared_by(names) if len(names) > 1 else {}
            if len(names) > 1:
                yield f"## `{here}`\n\n{self.about(part)}\n"
            if shared:
                yield self.shared_table(shared)
            for name in names:
                yield self.section(name, here, len(names) > 1, shared)
            for name in names:
                yield from self.sections(self.definitions[name]["properties"], here)

    def section(self, name: str, here: str, is_choice: bool, shared: dict[str, Part]) -> str:
        definition = self.definitions[name]
        properties = dict(definition["properties"])
        spellings = properties.pop("type", {}).get("enum", [])
        self.shown.add(name)
        title = f"`{here}`: `{spellings[0]}`" if spellings else f"`{here}`"
        lines = [f"{'###' if is_choice else '##'} {title}", "", definition.get("description", "").strip()]
        if spellings[1:]:
            lines += ["", f"Alias: {', '.join(f'`{spelling}`' for spelling in spellings[1:])}."]
        own = {key: part for key, part in properties.items() if shared.get(key) != part}
        taken = [f"`{key}`" for key in shared if key in properties and key not in own]
        if len(taken) < len(shared):
            lines += ["", f"Of the keys above, {'only ' + ', '.join(taken) if taken else 'none'} can be set."]
        if own:
            lines += ["", self.table(own, definition.get("required", [])).rstrip("\n")]
        return "\n".join(lines) + "\n"

    def shared_by(self, names: list[str]) -> dict[str, Part]:
        """The keys that at least four fifths of the definitions share."""
        first, *others = (self.definitions[name]["properties"] for name in names)
        few = len(others) // 5
        return {key: part for key, part in first.items() if sum(other.get(key) != part for other in others) <= few}

    def shared_table(self, shared: dict[str, Part]) -> str:
        data = self.definitions["TrainingData"]["properties"]
        as_in_data = [key for key, part in shared.items() if data.get(key) == part]
        new = {key: part for key, part in shared.items() if key not in as_in_data}
        names = ", ".join(f"`{key}`" for key in as_in_data)
        same = f"the keys {names} with the same meaning as in `data`, and " if as_in_data else ""
        return f"Each has {same}these keys:\n\n" + self.table(new, [])

    def table(self, properties: dict[str, Part], required: list[str]) -> str:
        lines = ["| key | value | default | description |", "| --- | --- | --- | --- |"]
        for key, part in properties.items():
            default = "required" if key in required else _default_of(part)
            lines.append(f"| `{key}` | {_cell(self.value(part))} | {default} | {_cell(self.about(part))} |")
        return "\n".join(lines) + "\n"

    def about(self, part: Part) -> str:
        """The description of a key; pydantic omits it if the section has the same one."""
        described = [part, *(self.definitions[name] for name in _references(part))]
        return _one_line(next(piece["description"] for piece in described if "description" in piece))

    def value(self, part: Part) -> str:
        if names := list(dict.fromkeys(_references(part, deep=False))):
            return self.choice(part, names)
        if "enum" in part or "const" in part:
            return ", ".join(f"`{_plain(value)}`" for value in part.get("enum", [part.get("const")]))
        if "anyOf" in part:
            return _or_of([self.value(member) for member in part["anyOf"]])
        if part.get("type") == "array":
            return f"list of {self.value(part['items'])}"
        if part.get("type") == "object":
            return f"mapping to {self.value(part['additionalProperties'])}"
        return f"{TYPES[part['type']]}{_bounds(part)}"

    def choice(self, part: Part, names: list[str]) -> str:
        tags = [self.definitions[name]["properties"].get("type", {}).get("enum", ["mapping"])[0] for name in names]
        shown = ", ".join(tag if tag == "mapping" else f"`{tag}`" for tag in tags)
        return _or_of([shown, *(self.other(member, names) for member in part.get("anyOf", []))])

    def other(self, member: Part, names: list[str]) -> str:
        """A value that is none of the choices `names` themselves; empty if it is."""
        found = dict.fromkeys(_references(member))
        if list(found) == names:
            return "a list of them" if member.get("type") == "array" else ""
        return "" if "$ref" in member or "enum" in member else self.value(member)


TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true`, `false`", "null": "null"}
BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}


def _or_of(values: list[str]) -> str:
    """Join the values without duplicates; `number` includes whole numbers."""
    distinct = dict.fromkeys(filter(None, values))
    return " or ".join(value for value in distinct if value != "whole number" or "number" not in values)


def _bounds(part: Part) -> str:
    limits = [f"{sign} {part[key]:g}" for key, sign in BOUNDS.items() if key in part]
    return f" {', '.join(limits)}" if limits else ""


def _references(part: Any, deep: bool = True) -> list[str]:
    """Names of the definitions that a schema refers to; `deep` includes list items and values of mappings."""
    if isinstance(part, list):
        return [name for item in part for name in _references(item, deep)]
    if not isinstance(part, dict):
        return []
    if "$ref" in part:
        return [part["$ref"].rpartition("/")[2]]
    inside = ("anyOf", "oneOf", "allOf", *(("items", "additionalProperties") if deep else ()))
    return [name for key in inside for name in _references(part.get(key), deep)]


def _default_of(part: Part) -> str:
    """The default as in a recipe; empty for a section, whose table has its defaults."""
    is_section = isinstance(part.get("default"), dict) and _references(part, deep=False)
    return f"`{_plain(part['default'])}`" if "default" in part and not is_section else ""


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


LABELS = {
    "none": "no label",
    "binary": "label 0 or 1",
    "class": "label: a class",
    "score": "label: a score, 0 to 1",
    "number": "label: a number",
    "scores": "scores: a list of numbers",
    "embedding": "embedding: a list of numbers",
    "teacher": "no label, `loss.teacher`",
}


def _formats() -> list[dict[str, Any]]:
    formats: dict[tuple[str, str], list[str]] = {}
    for loss in LOSSES:
        for fit in loss.fits:
            if fit.label == "none" and fit.format.startswith("labeled"):
                continue  # a regularizer, beside a loss that uses the labels
            formats.setdefault((fit.format, fit.label), []).append(loss.tag())
    return [
        {"name": format, "columns": ROLES[format], "label": LABELS[label], "losses": losses}
        for (format, label), losses in sorted(formats.items(), key=lambda entry: list(ROLES).index(entry[0][0]))
    ]

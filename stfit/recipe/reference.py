"""The reference page of the recipe language, in Markdown: every key, which loss for which format, and the rules.

All that the classes of a recipe know of themselves comes from the JSON Schema that is made of them; `make docs` writes
the page to recipes/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeAlias

from stfit.data.source import ROLES
from stfit.errors import StfitError
from stfit.evaluation.registry import EVALUATORS
from stfit.losses.registry import LOSSES
from stfit.recipe.recipe import Recipe
from stfit.recipe.schema import json_schema

Part: TypeAlias = dict[str, Any]
"""A piece of a JSON Schema."""

INTRO = """\
<!-- Made by `make docs` from the classes of a recipe. Change those. -->
# Recipes

A recipe is one YAML file. `stfit init DATASET` writes one for your data, `stfit check RECIPE` finds what is wrong with
it, `stfit train RECIPE` trains it. Unknown keys, duplicate keys and wrong types are errors that name their line.

```yaml
version: 1
model:
  base: sentence-transformers/all-MiniLM-L6-v2
data:
  dataset: ./pairs.jsonl
  format: positive_pair
loss: multiple_negatives_ranking
```

For completion and help while you type, write `# yaml-language-server: $schema=recipe.schema.json` as the first line
(`stfit schema -o recipe.schema.json` makes that file).

**Paths** start with `./`, `../`, `/` or `~`, are globs, or end in a suffix that stfit reads; anything else is an id on
the Hub. In a recipe they are relative to the file that writes them.

**Where a choice is made** (a loss, a layer, an evaluator) the bare name stands for the choice with its defaults:
`loss: cosent` is `loss: {type: cosent}`.
"""

SELECTORS = """\
## Selectors

A role of a format takes a column of the data, or a part of one. A role that `columns` leaves out takes the column of
its own name; columns that no role takes are dropped.

| selector | takes |
| --- | --- |
| `title` | the column; a column that is called exactly like the selector always wins |
| `set.query` | the value of a key, where the column holds mappings |
| `set.pos[0]`, `set.pos[-1]` | one element of a list, from its start or its end; rows without it are dropped |
| `set.neg[:5]` | for `negative` only: up to five negatives in one example |
| `set.neg[*]` | every element, each in an example of its own |
| `[title, body]` | for `text`: an example of each; for `negative`: several negatives in one example |

Two equal selectors with `[*]` take every two elements of their list once, in order. Different ones on one list
(`turns[*].question`, `turns[*].answer`) take the same element; on different lists they combine as a cross product, of
which `max_per_row` keeps the first.

**Order of a source**: split, `where`, `holdout`, selectors, `label_map`, `label_range`, dropped empties, `shuffle`,
`limit`.
"""

OVERRIDES = """\
## Overrides and inheritance

`extends: ./base.yaml` lets one recipe override another: mappings are merged key by key, anything else is replaced, and
another `type` drops the keys of the old choice. Chains are fine, circles are refused. The command line overrides both:

| argument | does |
| --- | --- |
| `train.epochs=1` | replaces a value; it is YAML, read and checked as in the file |
| `eval.0.split=test` | lists go by index, from 0 |
| `loss=cosent` | makes another choice |
| `~eval` | deletes a key |

`stfit train RECIPE --print-config` shows every value and where it was said: a default, a line of a file, an extended
file, or the command line.
"""


def reference_page() -> str:
    """The whole page."""
    schema = json_schema(Recipe)
    pages = _Tables(schema["definitions"])
    top = {key: part for key, part in schema["properties"].items() if key != "extends"}
    parts = [
        INTRO,
        "## Keys\n\n" + pages.table(top, schema["anyOf"][0]["required"]),
        *pages.sections(top, ""),
        _formats(),
        _metrics(),
        SELECTORS,
        OVERRIDES,
        _exit_codes(),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


class _Tables:
    """Headings and tables of the definitions of a schema, each once, at the first key that leads to it."""

    def __init__(self, definitions: dict[str, Part]) -> None:
        self.definitions = definitions
        self.heading_of: dict[str, str] = {}
        """Name of a definition -> the heading that it stands under."""

    def sections(self, properties: dict[str, Part], path: str) -> Iterator[str]:
        """What lies below the keys of a section: a table of each, or one of each choice."""
        for key, part in properties.items():
            names = [name for name in _references(part) if name not in self.heading_of]
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
        """Heading, words and table of one definition."""
        definition = self.definitions[name]
        properties = dict(definition["properties"])
        spellings = properties.pop("type", {}).get("enum", [])
        self.heading_of[name] = f"{here}: {spellings[0]}" if spellings else here
        title = f"`{here}`: `{spellings[0]}`" if spellings else f"`{here}`"
        lines = [f"{'###' if is_choice else '##'} {title}", "", definition.get("description", "").strip()]
        if spellings[1:]:
            lines += ["", f"Also called {', '.join(f'`{spelling}`' for spelling in spellings[1:])}."]
        own = {key: part for key, part in properties.items() if shared.get(key) != part}
        taken = [f"`{key}`" for key in shared if key in properties and key not in own]
        if len(taken) < len(shared):
            lines += ["", f"It takes {'only ' + ', '.join(taken) if taken else 'none'} of the keys above."]
        if own:
            lines += ["", self.table(own, definition.get("required", [])).rstrip("\n")]
        return "\n".join(lines) + "\n"

    def shared_by(self, names: list[str]) -> dict[str, Part]:
        """The keys that nearly all these definitions have alike."""
        first, *others = (self.definitions[name]["properties"] for name in names)
        few = len(others) // 5
        return {key: part for key, part in first.items() if sum(other.get(key) != part for other in others) <= few}

    def shared_table(self, shared: dict[str, Part]) -> str:
        """The keys of every choice; of those that are as in `data`, only the names."""
        data = self.definitions["TrainingData"]["properties"]
        as_in_data = [key for key, part in shared.items() if data.get(key) == part]
        new = {key: part for key, part in shared.items() if key not in as_in_data}
        same = f"the keys {', '.join(f'`{key}`' for key in as_in_data)} as `data` does, and " if as_in_data else ""
        return f"Each takes {same}these:\n\n" + self.table(new, [])

    def table(self, properties: dict[str, Part], required: list[str]) -> str:
        """One line a key."""
        lines = ["| key | value | default | |", "| --- | --- | --- | --- |"]
        for key, part in properties.items():
            default = "required" if key in required else _default_of(part)
            lines.append(f"| `{key}` | {_cell(self.value(part))} | {default} | {_cell(self.about(part))} |")
        return "\n".join(lines) + "\n"

    def about(self, part: Part) -> str:
        """Its description; pydantic leaves out the one of a key whose section says the same."""
        described = [part, *(self.definitions[name] for name in _references(part))]
        return _one_line(next(piece["description"] for piece in described if "description" in piece))

    def value(self, part: Part) -> str:
        """What may stand there, in words."""
        if names := _references(part, deep=False):
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
        """A mapping with keys of its own, named after its type where it has one, beside what else may stand there."""
        tags = [self.definitions[name]["properties"].get("type", {}).get("enum", ["mapping"])[0] for name in names]
        others = [member for member in part.get("anyOf", []) if "$ref" not in member and "enum" not in member]
        shown = ", ".join(tag if tag == "mapping" else f"`{tag}`" for tag in tags)
        return _or_of([shown, *(self.value(member) for member in others)])


TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true`, `false`", "null": "null"}
BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}


def _or_of(values: list[str]) -> str:
    """Each of the values once; a whole number is a number."""
    return " or ".join(value for value in dict.fromkeys(values) if value != "whole number" or "number" not in values)


def _bounds(part: Part) -> str:
    """` > 0, ≤ 1`."""
    said = [f"{sign} {part[key]:g}" for key, sign in BOUNDS.items() if key in part]
    return f" {', '.join(said)}" if said else ""


def _references(part: Any, deep: bool = True) -> list[str]:
    """Names of the definitions that a piece points to; `deep`: also as items of a list or values of a mapping."""
    if isinstance(part, list):
        return [name for item in part for name in _references(item, deep)]
    if not isinstance(part, dict):
        return []
    if "$ref" in part:
        return [part["$ref"].rpartition("/")[2]]
    inside = ("anyOf", "oneOf", "allOf", *(("items", "additionalProperties") if deep else ()))
    return [name for key in inside for name in _references(part.get(key), deep)]


def _default_of(part: Part) -> str:
    """The default as a recipe would write it; a section's own defaults stand in its own table."""
    default = part.get("default")
    if isinstance(default, dict) and _references(part, deep=False):
        return ""
    return f"`{_plain(default)}`" if "default" in part else ""


def _plain(value: Any) -> str:
    """A value, text without quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _one_line(text: str) -> str:
    """Text without its line breaks."""
    return " ".join(text.split())


def _cell(text: str) -> str:
    """Text inside a table."""
    return text.replace("|", "\\|")


LABEL_KINDS = {
    "none": "no label",
    "binary": "label 0 or 1",
    "class": "label: a class",
    "score": "label: a score, 0 to 1",
    "number": "label: a number",
    "teacher": "no label, `loss.teacher`",
}


def _formats() -> str:
    """Which columns a format has, and which losses learn from it."""
    lines = ["## Formats and losses", "", "| format | columns | label | losses |", "| --- | --- | --- | --- |"]
    for format, roles in ROLES.items():
        kinds = dict.fromkeys(fit.label for loss in LOSSES for fit in loss.fits if fit.format == format)
        for kind in kinds:
            names = [f"`{loss.tag()}`" for loss in LOSSES if (format, kind) in loss.fits]
            lines.append(f"| `{format}` | {', '.join(roles)} | {LABEL_KINDS[kind]} | {', '.join(names)} |")
    return "\n".join(lines) + "\n"


def _metrics() -> str:
    """What every evaluator finds, with the defaults of what it is asked for."""
    lines = [
        "## Metrics",
        "",
        "`train.best` and `gate.metric` name one as `<name of the evaluator>/<metric>`: `stsb/spearman_cosine`. With "
        "`matryoshka_dims` there is each at every size, too: `stsb@128/spearman_cosine`.",
        "",
        "| evaluator | metrics |",
        "| --- | --- |",
    ]
    for evaluator in EVALUATORS:
        # None of them is asked for its rows.
        names = ", ".join(f"`{name}`" for name in evaluator.model_construct().metrics)
        lines.append(f"| `{evaluator.tag()}` | {names} |")
    return "\n".join(lines) + "\n"


def _exit_codes() -> str:
    """The classes of stfit.errors, by their codes; that of an interrupted run is 128 + the signal's number."""
    lines = ["## Exit codes", "", "| code | class | meaning |", "| --- | --- | --- |"]
    lines += ["| 0 | | Done. |", "| 1 | | A bug of stfit. |"]
    for error in StfitError.__subclasses__():
        code = error.exit_code if "exit_code" in vars(error) else "130, 143"
        lines.append(f"| {code} | {error.__name__} | {_one_line(error.__doc__ or '')} |")
    return "\n".join(lines) + "\n"

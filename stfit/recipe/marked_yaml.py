"""YAML text -> a tree in which every value knows its file, line and column.

The tree is built from PyYAML's events by hand, because PyYAML's own loader keeps no positions, accepts duplicate keys
and follows YAML 1.1. A recipe is the plain subset of YAML 1.2: mappings, lists and scalars. Features that make a file
mean something other than it seems (aliases, tags, merge keys, duplicate keys) are errors; `no` and `010` stay text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from rich.cells import cell_len

from stfit.errors import Problem, RecipeError
from stfit.io.display import shorten
from stfit.io.yaml_text import FLOAT
from stfit.paths import Located

MAX_BYTES = 1_000_000
MAX_DEPTH = 50
"""The C parser crashes at about ten thousand levels. Events are read one at a time, so the limit takes effect first."""
MAX_VALUES = 20_000
"""A recipe has hundreds. Half a million fit into MAX_BYTES, and their errors would take seconds to explain."""
SNIPPET_WIDTH = 100

COMMAND_LINE = "command line"

Scalar: TypeAlias = "str | int | float | bool | None"

INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
UNREADABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
SECRET = re.compile(r"hf_[A-Za-z0-9]{16,}")


def resolve_plain(text: str) -> Scalar:
    """The value of an unquoted scalar by YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema).

    Stricter: `010`, `0x1F` and integers of more than 19 digits stay text.
    """
    if text in WORDS:
        return WORDS[text]
    if INT.fullmatch(text):
        return int(text)
    if NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    if FLOAT.fullmatch(text) and not text.lstrip("-+").isdigit():
        return float(text)
    return text


@dataclass(frozen=True)
class SourceText:
    file: str
    folder: Path
    lines: list[str]
    """By Python's line breaks, which are those of YAML where a text has no control characters."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The position of a word: line and column from 1, width in characters."""

    source: SourceText
    line: int
    column: int
    width: int = 1

    def __str__(self) -> str:
        return COMMAND_LINE if self.source.file == COMMAND_LINE else f"{self.source.file}:{self.line}"

    def problem(self, message: str, code: str) -> Problem:
        """An error at this position, with the line and carets. Hub tokens are masked."""
        snippet = SECRET.sub(lambda match: "hf_" + "*" * (len(match[0]) - 3), self.snippet())
        message = SECRET.sub("hf_***", message)
        if self.source.file == COMMAND_LINE:  # arguments have one line
            return Problem(message, code, COMMAND_LINE, snippet=snippet)
        return Problem(message, code, self.source.file, self.line, self.column, snippet=snippet)

    def snippet(self) -> str:
        lines = self.source.lines
        line = lines[self.line - 1] if self.line <= len(lines) else ""
        cut = max(0, self.column - 1 - SNIPPET_WIDTH // 2) if len(line) > SNIPPET_WIDTH else 0
        shown = _printable(line[cut : cut + SNIPPET_WIDTH])
        start = self.column - 1 - cut
        gutter = "    " if self.source.file == COMMAND_LINE else f"{self.line:>4}"
        carets = "^" * max(1, cell_len(shown[start : start + self.width]))
        before, after = "…" if cut else "", "…" if cut + SNIPPET_WIDTH < len(line) else ""
        pad = " " * (len(before) + cell_len(shown[:start]))
        return f"{gutter} | {before}{shown}{after}\n{' ' * len(gutter)} | {pad}{carets}"


def _printable(text: str) -> str:
    return "".join(" " if char == "\t" else char if char.isprintable() else "?" for char in text)


def quoted(text: str) -> str:
    """A user's word for a message: in backticks, at most 60 characters, printable."""
    return f"`{_printable(shorten(text, 60))}`"


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its position; `key` is the position of its key, None for list items and the root."""

    value: Scalar | list[Node] | dict[str, Node]
    mark: Mark
    key: Mark | None = None

    @property
    def where(self) -> Mark:
        """The position that errors about this value point at: of a scalar itself, of the key otherwise."""
        return self.mark if self.key is None or not isinstance(self.value, list | dict) else self.key

    def child(self, key: str | int) -> Node | None:
        if isinstance(self.value, dict) and isinstance(key, str):
            return self.value.get(key)
        if isinstance(self.value, list) and isinstance(key, int) and key < len(self.value):
            return self.value[key]
        return None

    def plain(self) -> Any:
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value


def decode(data: bytes, file: str) -> str:
    """Decode the bytes of a file. Raises RecipeError if it is too large or is not UTF-8."""
    if len(data) > MAX_BYTES:
        raise RecipeError(Problem(f"the file is larger than {MAX_BYTES // 1000} kB: is it a recipe?", "yaml", file))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        source = SourceText(file, Path(), data.decode(errors="replace").splitlines())
        mark = _mark_at(source, before, len(before))
        message = f"byte 0x{data[error.start]:02x} is not UTF-8: save the file as UTF-8"
        raise RecipeError(mark.problem(message, "yaml")) from None


def _mark_at(source: SourceText, text: str, index: int, width: int = 1) -> Mark:
    before = (text[:index] + "|").splitlines()
    return Mark(source, len(before), len(before[-1]), width)


def read_yaml(text: str, file: str, folder: Path, shown: str | None = None) -> tuple[Node, list[Problem]]:
    """The tree of a YAML text, and the problems after which parsing could continue; RecipeError for the others.

    `file` and, for part of an argument, `shown` are for messages; `folder`: where relative paths start.
    """
    text = text.removeprefix("\ufeff")
    source = SourceText(file, folder, (shown or text).splitlines())
    if unreadable := UNREADABLE.search(text):
        mark = _mark_at(source, text, unreadable.start())
        message = f"character U+{ord(unreadable[0]):04X} is not allowed in YAML: delete it"
        raise RecipeError(mark.problem(message, "yaml"))
    builder = _TreeBuilder(source)
    for secret in SECRET.finditer(text):
        builder.add_problem(
            _mark_at(source, text, secret.start(), len(secret[0])),
            "this looks like a Hub token, and recipes are published: delete it and use `hf auth login` or HF_TOKEN",
            "secret",
        )
    try:
        events = yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return builder.document(events), builder.problems
    except yaml.MarkedYAMLError as error:
        raise RecipeError([*builder.problems, _syntax_problem(error, source)]) from None


TOO_DEEP = f"more than {MAX_DEPTH} levels: is it a recipe?"

SYNTAX_HINTS: tuple[tuple[str, str], ...] = (
    ("maximum nesting depth", TOO_DEEP),  # newer versions of libyaml have a limit of their own
    ("escape", "a backslash in double quotes starts an escape sequence: use single quotes"),
    ("quoted scalar", "the quote opened here is never closed"),
    ("mapping values", "`: ` is not allowed here: check the indentation of this line, or put the value in quotes"),
    ("flow sequence", "the `[` opened here is not closed, or a comma is missing"),
    ("flow mapping", "the `{` opened here is not closed, or a comma is missing"),
    ("expected key", "this line does not match the lines above: check its indentation"),
    ("expected '-'", "this line does not match the lines above: check its indentation"),
    ("<block end>", "this line does not match the lines above: check its indentation"),
    ("':'", "`: ` is missing after this key"),
)
"""Words of the parser's message -> the mistake. Checked in this order."""


def _syntax_problem(error: yaml.MarkedYAMLError, source: SourceText) -> Problem:
    message = ", ".join(part for part in (error.context, error.problem) if part)
    hint = next((hint for words, hint in SYNTAX_HINTS if words in message), message)
    is_at_start = "opened here" in hint or "after this key" in hint
    place = error.context_mark if is_at_start else error.problem_mark
    mark = Mark(source, place.line + 1, place.column + 1) if place else Mark(source, 1, 1)
    line = source.lines[mark.line - 1] if mark.line <= len(source.lines) else ""
    character = line[mark.column - 1 : mark.column]
    if character == "\t":
        hint = "tab: indent with spaces"
    elif character and character in "@`%":
        hint = f"a value cannot start with `{character}`: put it in quotes"
    return mark.problem(f"not valid YAML: {hint}", "yaml")


class _TreeBuilder:
    """Builds the tree from the parser's events in one pass, and collects what is not allowed in a recipe."""

    def __init__(self, source: SourceText) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.values = 0

    def add_problem(self, mark: Mark, message: str, code: str = "yaml") -> None:
        self.problems.append(mark.problem(message, code))

    def document(self, events: Iterator[Any]) -> Node:
        starts = (event for event in events if isinstance(event, yaml.DocumentStartEvent))
        if next(starts, None) is None:
            return Node(None, Mark(self.source, 1, 1))
        root = self.node(next(events), events, 0)
        if second := next(starts, None):
            message = "a second document starts here, but a recipe is one document: delete the `---`"
            self.add_problem(self.mark(second), message)
        return root

    def node(self, event: Any, events: Iterator[Any], depth: int, key: Mark | None = None) -> Node:
        mark = self.mark(event)
        self.values += 1
        if depth > MAX_DEPTH or self.values > MAX_VALUES:
            message = TOO_DEEP if depth > MAX_DEPTH else f"more than {MAX_VALUES} values: is it a recipe?"
            raise RecipeError([*self.problems, mark.problem(message, "yaml")])
        if isinstance(event, yaml.AliasEvent):
            alias = quoted(f"*{event.anchor}")
            self.add_problem(mark, f"{alias} is an alias, which recipes do not support: write the value again")
            return Node(None, mark, key)
        if event.anchor is not None:
            anchor = quoted(f"&{event.anchor}")
            self.add_problem(mark, f"{anchor} is an anchor, which recipes do not support: delete it")
        if event.tag is not None:
            self.add_problem(mark, f"{quoted(event.tag)} is a tag, which recipes do not support: delete it")
        if isinstance(event, yaml.MappingStartEvent):
            return Node(self.mapping(events, depth), mark, key)
        if isinstance(event, yaml.SequenceStartEvent):
            items = takewhile(lambda item: not isinstance(item, yaml.SequenceEndEvent), events)
            return Node([self.node(item, events, depth + 1) for item in items], mark, key)
        value = resolve_plain(event.value) if event.implicit[0] else event.value
        return Node(Located(value, self.source.folder) if isinstance(value, str) else value, mark, key)

    def mapping(self, events: Iterator[Any], depth: int) -> dict[str, Node]:
        """The keys and values until the end of the mapping; of a duplicate key, the first value is kept."""
        entries: dict[str, Node] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = self.node(event, events, depth + 1)
            value = self.node(next(events), events, depth + 1, key.mark)
            if not isinstance(key.value, str):
                self.add_problem(key.mark, "a key must be text: put it in quotes")
            elif key.value == "<<" and event.implicit[0]:
                self.add_problem(key.mark, "`<<` (merge) is not supported in recipes: use `extends`")
            elif key.value in entries:
                first = f"first used on line {entries[key.value].where.line}"
                self.add_problem(key.mark, f"{quoted(key.value)} is a duplicate key, {first}: delete one")
            else:
                entries[str(key.value)] = value
        return entries

    def mark(self, event: Any) -> Mark:
        start, end = event.start_mark, event.end_mark
        width = end.column - start.column if end.line == start.line else 1
        return Mark(self.source, start.line + 1, start.column + 1, max(1, width))

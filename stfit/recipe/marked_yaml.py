"""YAML text -> a tree in which every value knows the file, line and column it was written at.

The language is the plain part of YAML 1.2: mappings, lists and scalars. What makes a file mean something else than it
seems to (aliases, tags, merge keys, duplicate keys, `no` as false, `010` as 8) is refused, or stays the text it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from stfit.errors import Problem, RecipeError
from stfit.paths import Located

MAX_BYTES = 1_000_000
MAX_DEPTH = 50
"""The C parser dies of some ten thousand levels; events are pulled one at a time, so stopping here is early enough."""
MAX_VALUES = 20_000
"""A recipe has hundreds. Half a million of them fit into the size limit, and would take seconds to explain."""
SNIPPET_WIDTH = 100

COMMAND_LINE = "command line"

Scalar: TypeAlias = "str | int | float | bool | None"

INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
UNREADABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
SECRET = re.compile(r"hf_[A-Za-z0-9]{16,}")
"""What the tokens of the Hub look like."""


def resolve_plain(text: str) -> Scalar:
    """The value of a scalar without quotes, by YAML 1.2's core rules (https://yaml.org/spec/1.2.2/#103-core-schema).

    Stricter in one thing: digits after a leading zero (`010`), hexadecimal and octal numbers (`0x1F`), and whole
    numbers of more than 19 digits stay text.
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
    """A text that was handed to stfit: a file, or one argument of the command line."""

    file: str
    folder: Path
    lines: list[str]

    @classmethod
    def of(cls, text: str, file: str, folder: Path) -> SourceText:
        """From the whole text; the line breaks are YAML's, which are the same once control characters are refused."""
        return cls(file, folder, text.splitlines())


@dataclass(frozen=True, slots=True)
class Mark:
    """A word of a text: line and column count from 1, width in characters."""

    written: SourceText
    line: int
    column: int
    width: int = 1

    def __str__(self) -> str:
        return COMMAND_LINE if self.written.file == COMMAND_LINE else f"{self.written.file}:{self.line}"

    def problem(self, message: str, code: str) -> Problem:
        """A mistake at this word, with its line and a caret. What looks like a token of the Hub is never repeated."""
        snippet = SECRET.sub(lambda found: "hf_" + "*" * (len(found[0]) - 3), self.snippet())
        message = SECRET.sub("hf_***", message)
        if self.written.file == COMMAND_LINE:  # an argument has no line number worth showing
            return Problem(message, code, COMMAND_LINE, snippet=snippet)
        return Problem(message, code, self.written.file, self.line, self.column, snippet=snippet)

    def snippet(self) -> str:
        """The line, and a second one with carets under the word; a long line is cut to the part around it."""
        lines = self.written.lines
        line = lines[self.line - 1] if self.line <= len(lines) else ""
        cut = max(0, self.column - 1 - SNIPPET_WIDTH // 2) if len(line) > SNIPPET_WIDTH else 0
        shown = _printable(line[cut : cut + SNIPPET_WIDTH])
        start = self.column - 1 - cut
        gutter = "    " if self.written.file == COMMAND_LINE else f"{self.line:>4}"
        carets = "^" * max(1, _columns_of(shown[start : start + self.width]))
        before, after = "…" if cut else "", "…" if cut + SNIPPET_WIDTH < len(line) else ""
        pad = " " * (len(before) + _columns_of(shown[:start]))
        return f"{gutter} | {before}{shown}{after}\n{' ' * len(gutter)} | {pad}{carets}"


def _printable(text: str) -> str:
    """`text` on a terminal: one character for each, nothing that moves the cursor."""
    return "".join(" " if char == "\t" else char if char.isprintable() else "?" for char in text)


def quoted(text: str) -> str:
    """A word of the user's, to stand in a message."""
    return f"`{_printable(text if len(text) <= 60 else text[:59] + '…')}`"


def _columns_of(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands; `key` is the mark of its key, None for items of a list and for the whole file."""

    value: Scalar | list[Node] | dict[str, Node]
    mark: Mark
    key: Mark | None = None

    @property
    def where(self) -> Mark:
        """What an error about this value points at: a scalar itself, the key of anything longer."""
        return self.mark if self.key is None or not isinstance(self.value, list | dict) else self.key

    def child(self, key: str | int) -> Node | None:
        """What stands under `key`, or at that index; None where there is nothing."""
        if isinstance(self.value, dict) and isinstance(key, str):
            return self.value.get(key)
        if isinstance(self.value, list) and isinstance(key, int) and key < len(self.value):
            return self.value[key]
        return None

    def plain(self) -> Any:
        """The value without its marks."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value


def decode(data: bytes, file: str) -> str:
    """The text of a file. Raises RecipeError for one that is too long for a recipe, or is not UTF-8."""
    if len(data) > MAX_BYTES:
        raise RecipeError(Problem(f"this file is larger than {MAX_BYTES // 1000} kB: is it a recipe?", "yaml", file))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        written = SourceText.of(data.decode(errors="replace"), file, Path())
        found = _mark_at(written, before, len(before))
        message = f"byte 0x{data[error.start]:02x} is not UTF-8: save the file in that encoding"
        raise RecipeError(found.problem(message, "yaml")) from None


def _mark_at(written: SourceText, text: str, index: int, width: int = 1) -> Mark:
    """The mark of character `index` of `text`."""
    before = (text[:index] + "|").splitlines()
    return Mark(written, len(before), len(before[-1]), width)


def read_yaml(text: str, file: str, folder: Path, shown: str | None = None) -> tuple[Node, list[Problem]]:
    """The tree of a YAML text, and what is wrong with it that does not keep the rest from being read.

    `file` is how errors name it; relative paths in it start from `folder`, which every string of the tree remembers;
    `shown` is the line to show instead of `text`, when that is only a part of what the user wrote.
    Raises RecipeError where reading can't go on: broken syntax, a forbidden character, too deep, too many values.
    """
    text = text.removeprefix("\ufeff")
    written = SourceText.of(shown or text, file, folder)
    unreadable = UNREADABLE.search(text)
    if unreadable:
        bad = _mark_at(written, text, unreadable.start())
        raise RecipeError(bad.problem(f"character U+{ord(unreadable[0]):04X} can't stand in YAML: delete it", "yaml"))
    reader = _TreeBuilder(written)
    for secret in SECRET.finditer(text):
        reader.refuse(
            _mark_at(written, text, secret.start(), len(secret[0])),
            "this looks like a token of the Hub, and recipes are published: delete it, use `hf auth login` or HF_TOKEN",
            "secret",
        )
    try:
        return reader.document(yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))), reader.problems
    except yaml.MarkedYAMLError as error:
        raise RecipeError([*reader.problems, _syntax_problem(error, written)]) from None


TOO_DEEP = f"more than {MAX_DEPTH} levels: is it a recipe?"

SYNTAX_HINTS: tuple[tuple[str, str], ...] = (
    ("maximum nesting depth", TOO_DEEP),  # a newer libyaml stops by itself, ahead of the events
    ("escape", "in double quotes a backslash starts an escape: use single quotes"),
    ("quoted scalar", "a quote is opened here and never closed"),
    ("mapping values", "`: ` can't stand here: check how far this line is indented, or put the value in quotes"),
    ("flow sequence", "a `[` is opened here and not closed, or a comma is missing"),
    ("flow mapping", "a `{` is opened here and not closed, or a comma is missing"),
    ("expected key", "this line does not fit the ones above it: check how far it is indented"),
    ("expected '-'", "this line does not fit the ones above it: check how far it is indented"),
    ("<block end>", "this line does not fit the ones above it: check how far it is indented"),
    ("':'", "no `: ` follows this key"),
)
"""Words of the parser's own message -> what the user did. Checked in this order."""


def _syntax_problem(error: yaml.MarkedYAMLError, written: SourceText) -> Problem:
    """The parser's complaint, in plain words and at the place to change."""
    said = ", ".join(part for part in (error.context, error.problem) if part)
    hint = next((hint for words, hint in SYNTAX_HINTS if words in said), said)
    begun_here = "opened here" in hint or "follows this key" in hint
    place = error.context_mark if begun_here else error.problem_mark
    mark = Mark(written, place.line + 1, place.column + 1) if place else Mark(written, 1, 1)
    line = written.lines[mark.line - 1] if mark.line <= len(written.lines) else ""
    here = line[mark.column - 1 : mark.column]
    if here == "\t":
        hint = "a tab: YAML is indented with spaces"
    elif here and here in "@`%":
        hint = f"a value can't start with `{here}`: put it in quotes"
    return mark.problem(f"not valid YAML: {hint}", "yaml")


class _TreeBuilder:
    """Builds nodes from the parser's events, in one pass, and collects what a recipe must not hold."""

    def __init__(self, written: SourceText) -> None:
        self.written = written
        self.problems: list[Problem] = []
        self.values = 0

    def refuse(self, mark: Mark, message: str, code: str = "yaml") -> None:
        """Note a mistake, and go on."""
        self.problems.append(mark.problem(message, code))

    def document(self, events: Iterator[Any]) -> Node:
        """The one document of the text; a text without any is null."""
        root: Node | None = None
        for event in events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            if root is not None:
                self.refuse(self.mark(event), "a second document starts here: a recipe is one, delete the `---`")
                break
            root = self.node(next(events), events, 0)
        return root or Node(None, Mark(self.written, 1, 1))

    def node(self, event: Any, events: Iterator[Any], depth: int, key: Mark | None = None) -> Node:
        """The value that `event` starts."""
        mark = self.mark(event)
        self.values += 1
        if depth > MAX_DEPTH or self.values > MAX_VALUES:
            too_much = TOO_DEEP if depth > MAX_DEPTH else f"more than {MAX_VALUES} values: is it a recipe?"
            raise RecipeError([*self.problems, mark.problem(too_much, "yaml")])
        if isinstance(event, yaml.AliasEvent):
            self.refuse(
                mark, f"{quoted(f'*{event.anchor}')} is an alias: write the value out (recipes share by `extends`)"
            )
            return Node(None, mark, key)
        if event.anchor is not None:
            self.refuse(mark, f"{quoted(f'&{event.anchor}')} is an anchor, which recipes don't have: delete it")
        if event.tag is not None:
            self.refuse(mark, f"{quoted(event.tag)} is a tag, which recipes don't have: delete it")
        if isinstance(event, yaml.MappingStartEvent):
            return Node(self.mapping(events, depth), mark, key)
        if isinstance(event, yaml.SequenceStartEvent):
            return Node(self.sequence(events, depth), mark, key)
        value = resolve_plain(event.value) if event.implicit[0] else event.value
        return Node(Located(value, self.written.folder) if isinstance(value, str) else value, mark, key)

    def sequence(self, events: Iterator[Any], depth: int) -> list[Node]:
        """The items up to the end of a list."""
        items = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(self.node(event, events, depth + 1))
        return items

    def mapping(self, events: Iterator[Any], depth: int) -> dict[str, Node]:
        """The keys and values up to the end of a mapping; of a duplicate key the first value is kept."""
        entries: dict[str, Node] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = self.node(event, events, depth + 1)
            value = self.node(next(events), events, depth + 1, key.mark)
            if not isinstance(key.value, str):
                self.refuse(key.mark, "a key is text: put it in quotes")
            elif key.value == "<<" and event.implicit[0]:
                self.refuse(key.mark, "`<<` merges mappings in other YAML, not in a recipe: use `extends`")
            elif key.value in entries:
                first = entries[key.value].where.line
                self.refuse(key.mark, f"{quoted(key.value)} is given twice, first on line {first}: delete one")
            else:
                entries[str(key.value)] = value
        return entries

    def mark(self, event: Any) -> Mark:
        """Where an event starts, and how much of that line it covers."""
        start, end = event.start_mark, event.end_mark
        width = end.column - start.column if end.line == start.line else 1
        return Mark(self.written, start.line + 1, start.column + 1, max(1, width))

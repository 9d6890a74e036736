"""A folder of documents (.txt, .md) as passages: rows with the columns of a BEIR corpus, and their document.

A passage is a number of words of one section, with the headings above it as its title.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from stfit.data.mapping.plain_text import WORD
from stfit.data.reading.packed_file import open_bytes
from stfit.data.reading.text_lines import in_blocks, line_error, read_lines
from stfit.data.source import ReadOptions
from stfit.data.table import Table, build_table
from stfit.lazy import lazy

if TYPE_CHECKING:
    import markdown_it
else:
    markdown_it = lazy("markdown_it")

MARKDOWN = (".md", ".markdown")
SUFFIXES = (".txt", *MARKDOWN)
FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)\n---[ \t]*(?:\n|$)", re.DOTALL)
MODEL_FILES = ("modules.json", "model*.safetensors", "pytorch_model*.bin")
MAX_TITLE = 12
"""Words of a first line that is taken for the title of a text file, if an empty line follows."""
COLUMNS = ("_id", "document", "title", "text")


class Section(NamedTuple):
    title: str
    text: str


def document_files(folder: Path) -> list[Path]:
    """The documents in a folder and its subfolders, but hidden ones, and the vocabulary and the card of a model."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    shown = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    models = {each for each in {path.parent for path in shown} if holds_model(each)}
    return sorted(path for path in shown if path.parent not in models)


def holds_model(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in MODEL_FILES)


def read_documents(paths: Iterable[Path], folder: Path, options: ReadOptions) -> Iterator[Table]:
    """Blocks of passages. Raises DataError for a file that is no text."""
    rows = (row for path in paths for row in _read_document(path, path.relative_to(folder).as_posix(), options))
    for block in in_blocks(rows):
        columns = zip(*block, strict=True)
        yield build_table(str(folder), {name: list(cells) for name, cells in zip(COLUMNS, columns, strict=True)}, {})


def _read_document(path: Path, name: str, options: ReadOptions) -> Iterator[tuple[str, str, str, str]]:
    """Id, document, title and text of each passage."""
    lines = []
    for number, line in read_lines(open_bytes(path), path, options, newline=None):
        if "\0" in line:
            raise line_error(path, number, "holds a zero byte: this is no text")
        lines.append(line)
    read = _markdown_sections if path.suffix.lower() in MARKDOWN else _text_sections
    number = 0
    for section in read("".join(lines)):
        for text in split_words(section.text, options.passage_words, options.overlap_words):
            number += 1
            yield f"{name}#{number}", name, section.title, text


def split_words(text: str, size: int, overlap: int) -> Iterator[str]:
    """Parts of `size` words, each of which begins with the last `overlap` words of the one before."""
    spans: list[tuple[int, int]] = []
    new = 0
    for match in WORD.finditer(text):
        spans.append(match.span())
        new += 1
        if len(spans) == size:
            yield text[spans[0][0] : spans[-1][1]]
            spans, new = spans[size - overlap :], 0
    if new:
        yield text[spans[0][0] : spans[-1][1]]


def _text_sections(text: str) -> Iterator[Section]:
    first, _, rest = text.strip().partition("\n")
    is_title = rest.startswith("\n") and len(first.split()) <= MAX_TITLE
    yield Section(first.strip(), rest) if is_title else Section("", text)


def _markdown_sections(text: str) -> Iterator[Section]:
    """The texts between headings, without markup; the title of each is all headings above it."""
    front = FRONT_MATTER.match(text)
    headings = {0: _title_of(front[1])} if front else {}
    tokens = iter(markdown_it.MarkdownIt("commonmark").enable("table").parse(text[front.end() :] if front else text))
    found: list[str] = []
    for token in tokens:
        if token.type == "heading_open":
            if found:
                yield Section(_join_headings(headings), "\n".join(found))
            level = int(token.tag[1])
            headings = {above: words for above, words in headings.items() if above < level}
            headings[level], found = _words_of(next(tokens).children or []), []
        elif token.type in ("fence", "code_block"):
            found.append(token.content.strip())
        elif token.type == "inline":
            found.append(_words_of(token.children or []))
    if found:
        yield Section(_join_headings(headings), "\n".join(found))


def _join_headings(headings: dict[int, str]) -> str:
    return ": ".join(dict.fromkeys(filter(None, headings.values())))


def _words_of(tokens: list[markdown_it.token.Token]) -> str:
    """The text that a reader sees; of a picture, its description."""
    breaks = {"softbreak": "\n", "hardbreak": "\n"}
    shown = ("text", "code_inline", "image", "text_special")
    return "".join(breaks.get(token.type, token.content if token.type in shown else "") for token in tokens).strip()


def _title_of(front_matter: str) -> str:
    try:
        fields = yaml.safe_load(front_matter)
    except yaml.YAMLError:
        return ""
    title = fields.get("title") if isinstance(fields, dict) else None
    return title.strip() if isinstance(title, str) else ""

"""The passages of a dataset or of a folder of documents, that pairs are generated from."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stfit.data.mapping.cells import as_text
from stfit.data.mapping.load_examples import load_examples
from stfit.data.mapping.texts import source_of_texts, stream_texts
from stfit.data.reading.beir import is_document as is_of_corpus
from stfit.data.reading.documents import split_words
from stfit.data.reading.load_table import open_blocks
from stfit.data.reading.local_files import holds_documents
from stfit.data.source import ROWS_SEED, ReadOptions, Source
from stfit.errors import RecipeError
from stfit.generation.base import Passage

KEPT = ("title", "document", "_id", "id")


@dataclass(frozen=True)
class Corpus:
    source: Source
    column: str | None = None
    title_column: str = "title"
    split_rows: bool = False
    """Whether rows are split into passages, as documents are."""
    limit: int | None = None
    """Passages; None for all."""


def corpus_of(
    dataset: str,
    split: str | None,
    read: ReadOptions,
    column: str | None,
    title_column: str,
    passage_words: int | None,
    overlap: int | None,
    limit: int | None,
) -> Corpus:
    """Documents are split into passages as they are read, rows of other datasets if `passage_words` is given."""
    given = {"passage_words": passage_words, "overlap_words": overlap}
    try:
        read = ReadOptions.model_validate(
            read.model_dump(exclude_unset=True) | {key: value for key, value in given.items() if value is not None}
        )
    except ValidationError:
        raise RecipeError(f"--overlap {overlap}: must be less than --passage-words") from None
    source = source_of_texts(dataset, split, read)
    split_rows = passage_words is not None and not holds_documents(source.dataset)
    return Corpus(source, column, title_column, split_rows, limit)


def read_prompt(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise RecipeError(f"{path}: the prompt can't be read: {error}") from error


def read_examples(path: Path) -> list[dict[str, str]]:
    rows = load_examples(Source(dataset=str(path)), "positive_pair", ROWS_SEED)[0]
    return [
        {"anchor": anchor, "positive": positive}
        for anchor, positive in zip(rows.column("anchor"), rows.column("positive"), strict=True)
    ]


def read_passages(corpus: Corpus) -> Iterator[Passage]:
    """In order. Those without text are left out. Raises DataError or RecipeError."""
    return islice(_all_passages(corpus), corpus.limit)


def _all_passages(corpus: Corpus) -> Iterator[Passage]:
    first = next(iter(open_blocks(corpus.source)()), None)
    columns = [] if first is None else [*first.columns]
    if corpus.title_column != "title" and corpus.title_column not in columns:
        raise RecipeError(f"--title-column {corpus.title_column}: the columns are {', '.join(columns)}")
    # Of a corpus in BEIR's layout, the title is no part of the text here.
    column = "text" if corpus.column is None and is_of_corpus(columns) else corpus.column
    kept = (corpus.title_column, *KEPT)
    for block in stream_texts(corpus.source, column, None, keep_if_there=kept):
        for number, text, cells in zip(block.ids, block.texts, block.kept, strict=True):
            yield from _passages_of(corpus, text, cells, number)


def _passages_of(corpus: Corpus, text: str, cells: dict[str, Any], number: int) -> Iterator[Passage]:
    id = as_text(cells.get("_id", cells.get("id", number)))
    title = cells.get(corpus.title_column)
    read = corpus.source.read
    texts = list(split_words(text, read.passage_words, read.overlap_words)) if corpus.split_rows else [text]
    for part, each in enumerate(texts, start=1):
        own_id = f"{id}#{part}" if corpus.split_rows else id
        document = as_text(cells.get("document") or id)
        if each.strip():
            yield Passage(own_id, document, title.strip() if isinstance(title, str) else "", each.strip())

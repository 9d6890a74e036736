"""The data section of a recipe: where a dataset is, which rows to use, and which columns play which role."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from stfit.paths import Location, is_address
from stfit.spec import Spec

Format = Literal["labeled_pair", "positive_pair", "labeled_text", "triplet", "text"]
Scalar = str | int | float | bool

ROWS_SEED = 42
"""Chooses which rows are measured, whatever the seed of the training."""

STDIN = "-"
"""The dataset that is read from standard input."""

ROLES: dict[str, tuple[str, ...]] = {
    "labeled_pair": ("sentence1", "sentence2"),
    "positive_pair": ("anchor", "positive"),
    "labeled_text": ("text",),
    "triplet": ("anchor", "positive", "negative"),
    "text": ("text",),
}
"""Format -> its text roles. Formats `labeled_...` also have the role `label`; a triplet has it if `columns` sets it."""


class Unnamed(str):
    """The split of a recipe that names none: a dataset that has no splits is taken as it is, whatever this says."""


def _unnamed_if_null(value: Any, validate: ValidatorFunctionWrapHandler) -> str:
    return Unnamed("test") if value is None else validate(value)


def _null_if_unnamed(split: str) -> str | None:
    return None if isinstance(split, Unnamed) else split


OptionalSplit = Annotated[
    str,
    WrapValidator(_unnamed_if_null, json_schema_input_type=str | None),
    PlainSerializer(_null_if_unnamed, return_type=str | None),
]
"""`test` if the recipe does not name a split, which resolved.yaml keeps as null."""


class ReadOptions(Spec):
    """How to read the data, text files above all. On the command line: `--read KEY=VALUE`."""

    delimiter: str | None = Field(None, min_length=1, max_length=1)
    """One character between fields. Default: a comma for .csv, a tab for .tsv, or what a first line `sep=;` says. With
    it, a .txt file is read like a .csv file."""
    quoting: bool = True
    """Whether double quotes group a field. Set to false for files that use them as plain characters."""
    encoding: str = "utf-8"
    """Encoding of the text, such as cp1252. A byte order mark (UTF-8, UTF-16, UTF-32) overrides it."""
    numbers: Literal["as_text"] | None = None
    """`as_text` turns the numbers and booleans of a text column into text, in files of any kind and datasets. Null and
    NaN stay missing texts, and whole numbers are written without a point."""
    passage_words: int = Field(120, gt=0)
    """Of a folder of documents (.txt, .md), words of each passage, which is a row."""
    overlap_words: int = Field(20, ge=0)
    """Words that a passage has in common with the one before."""
    header: bool | list[str] = True
    """Whether the first line holds the column names. For a file without such a line, false names the columns column_1,
    column_2, ...; a list names the first columns, and the others are ignored."""

    @field_validator("header")
    @classmethod
    def _names_columns(cls, value: bool | list[str]) -> bool | list[str]:
        if isinstance(value, list) and not len(value) == len(set(value)) > 0:
            raise ValueError("a list must name at least one column, and none twice")
        return value

    @model_validator(mode="after")
    def _goes_on(self) -> Self:
        if self.overlap_words >= self.passage_words:
            raise ValueError(f"overlap_words must be less than passage_words, {self.passage_words}")
        return self

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            "".encode(value)
        except (LookupError, ValueError):  # ValueError: a NUL in the name
            raise ValueError("unknown encoding: write utf-8, utf-16, cp1252, shift_jis, gb18030, ...") from None
        return value


def read_hint(key: str, value: str) -> str:
    """What to write so that a file is read otherwise. `value`: as in YAML."""
    argument = shlex.quote(f"{key}={value}")
    return f"set `read: {{{key}: {value}}}` in the recipe, or `--read {argument}` on the command line"


class Condition(Spec):
    """Keeps the rows whose value meets all given conditions."""

    min: float | None = None
    """Minimum value to keep."""
    max: float | None = None
    """Maximum value to keep."""
    not_: Annotated[Scalar | list[Scalar] | None, Field(alias="not")] = None
    """Value, or list of values, to drop."""
    present: bool | None = None
    """true keeps rows whose value is neither null, NaN nor empty; false keeps only the other rows."""


class Holdout(Spec):
    """Rows to hold out of training, for evaluation (`from: holdout`)."""

    fraction: float | None = Field(None, gt=0, lt=1)
    """Fraction of the rows to hold out."""
    rows: int | None = Field(None, gt=0)
    """Number of rows to hold out. Set either `fraction` or `rows`."""
    by: str | None = None
    """Column to group by, such as an author or a topic: rows with equal values are either all held out or all kept."""
    seed: int = Field(ROWS_SEED, ge=0)
    """Seed of the choice, apart from that of the recipe: runs of several seeds are measured on the same rows."""

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.fraction is None) == (self.rows is None):
            raise ValueError("set either `fraction` or `rows`, not both")
        return self


class TableSource(Spec):
    """A table: its location, and which of its rows and columns to use."""

    dataset: Location
    """Hub id, file or glob (.jsonl, .json, .csv, .tsv, .txt, .parquet, .arrow, .feather; also .gz, .bz2, .xz, .zst),
    folder of splits or of documents (.txt, .md), or a dataset saved to disk. Files may be in an object store:
    s3://bucket/rows.jsonl. A `labels.json` beside the files, such as `{"label": ["no", "yes"]}`, names the classes 0,
    1, ... of a column."""
    config: str | None = None
    """Configuration (subset) of a Hub dataset."""
    files: str | list[str] | dict[str, str | list[str]] | None = None
    """Data files of a Hub repository that does not define splits. A mapping sets the files of each split."""
    split: str = "train"
    """Split, with an optional slice: `train`, `train[:50%]`, `train[100:200]`, `train+validation`. One file, a glob, or
    a dataset saved to disk without splits is the split `train`."""
    revision: str | None = None
    """Branch, tag or commit of a Hub dataset. Reset if an override, or a recipe that extends this one, sets another
    `dataset`."""
    read: ReadOptions = ReadOptions()
    """How to read a text file."""
    columns: dict[str, str | list[str]] = {}
    """Role -> column selector: `{anchor: set.query, positive: "set.pos[0]"}`. `"{title} {text}"` joins columns.
    Default: the column of that name."""
    where: dict[str, Scalar | list[Scalar] | Condition] = {}
    """Column -> a value, a list of values, or a condition. Only matching rows are kept."""

    @property
    def label_column(self) -> str | None:
        """The selector of the labels; None for rows without labels."""
        return None


class Source(TableSource):
    """A table whose columns fill the roles of a format."""

    prompts: dict[str, str] | None = None
    """Role -> name of a prompt in `model.prompts`. Default: query for anchors, document for positives and negatives."""
    label_map: dict[str, int | float] | None = None
    """Label in the data -> number. A label that is not listed is an error."""
    label_range: list[float] | None = Field(None, min_length=2, max_length=2)
    """`[low, high]`: range of the labels, rescaled to 0..1."""
    shuffle: bool = False
    """Shuffle the examples with the recipe's seed, before `limit` is applied."""
    limit: int | None = Field(None, gt=0)
    """Maximum number of examples; the first ones are used. The rest of a long file is not read, unless labels are
    numbered, rows are shuffled, chosen by `where` or held out: that takes all rows."""
    max_per_row: int | None = Field(None, gt=0)
    """Maximum number of examples made from one row by `[*]` selectors."""

    @field_validator("label_range")
    @classmethod
    def _low_before_high(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and value[0] >= value[1]:
            raise ValueError("the first number must be less than the second: `[low, high]`")
        return value


class TrainingData(Source):
    """The training data, in one of five formats."""

    format: Format
    """labeled_pair, positive_pair, labeled_text, triplet or text: determines which losses are possible."""
    holdout: Holdout | None = None
    """Rows to hold out of training, for evaluation."""
    drop_overlap: bool = False
    """Leave out the rows with a text that an evaluator has too (of retrieval and reranking, with one of the queries),
    whatever its case, white space, punctuation or Unicode form."""
    streaming: bool = False
    """Read the rows of the split again in every epoch instead of keeping them in memory, so that memory use does not
    depend on their number. Files on the Hub are still downloaded to disk. Needs `train.max_steps`. Rows are checked as
    they are read."""
    shuffle_buffer: int = Field(10_000, gt=0)
    """Number of examples that `streaming` keeps in memory. Batches are sampled from these, so shuffle a sorted split
    beforehand."""

    @property
    def label_column(self) -> str | None:
        return label_selector(self.format, self.columns)


def label_selector(format: str, columns: Mapping[str, str | list[str]]) -> str | None:
    """The selector of the role `label`; None if the format has none."""
    selector = columns.get("label", "label" if format.startswith("labeled") else None)
    return selector if isinstance(selector, str) else None


def is_remote(dataset: str) -> bool:
    """Whether a resolved `dataset` is a Hub id: paths are absolute by now, and addresses have `://`."""
    return not Path(dataset).is_absolute() and not is_address(dataset)

"""Datasets on the Hub: which files are whose split, as `datasets` understands the repository, and their rows.

`datasets` is shown a folder of empty files with the repository's names, so that it decides from names and metadata
alone. The files it chooses are then downloaded, or read in part if the first rows are enough.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from stfit.data.reading.beir import hub_tables, join_pairs
from stfit.data.reading.parquet import refuse_parquet_bomb
from stfit.data.reading.split import Preview
from stfit.data.source import TableSource
from stfit.data.table import Table, build_table, concatenate
from stfit.errors import DataError
from stfit.hub.download import download_files, find_commit, list_files, snapshot_folder
from stfit.hub.retry import call_with_retries
from stfit.lazy import lazy

if TYPE_CHECKING:
    import datasets
else:
    datasets = lazy("datasets")

METADATA = ["README.md", ".huggingface.yaml", "dataset_infos.json"]
"""Files of a repository that describe its other files. Code in a repository is never run."""
ROWS_AT_ONCE = 10_000

Splits = dict[str, Callable[[int | None], Iterator[Table]]]
"""Name of a split -> its blocks; given a number, at least so many of its first rows."""


@dataclass(frozen=True)
class HubSplit:
    id: str
    commit: str
    builder: Any
    name: str
    files: list[str]
    is_preview: bool
    """Whether files that are not here yet are read in part from the Hub, not downloaded whole."""

    @cached_property
    def folder(self) -> Path:
        """Folder with the files of the split, downloaded on first use. Raises DataError for a parquet bomb."""
        folder = download_files("dataset", self.id, self.commit, [glob.escape(path) for path in self.files])
        with _as_data_error(self.id):
            for path in self.files:
                if path.endswith(".parquet"):
                    refuse_parquet_bomb(folder / path)
        return folder

    def read(self, limit: int | None) -> Iterator[Table]:
        cached = snapshot_folder("dataset", self.id, self.commit)
        if self.is_preview and not all((cached / path).is_file() for path in self.files):
            root = f"hf://datasets/{self.id}@{self.commit}"
            yield from call_with_retries(lambda: list(self._blocks(root, limit)), "dataset", self.id, self.commit)
        else:
            yield from self._blocks(str(self.folder), limit)

    def _blocks(self, root: str, limit: int | None) -> Iterator[Table]:
        with _as_data_error(self.id):
            files = {self.name: [f"{root}/{path}" for path in self.files]}
            self.builder.config.data_files = datasets.data_files.DataFilesDict(files)
            yield from dataset_blocks(self.builder.as_streaming_dataset(self.name), self.id, limit)


def hub_splits(source: TableSource) -> Splits:
    """Split -> its blocks. Raises HubError if the Hub does not give the dataset, DataError if it is not a dataset."""
    if source.dataset.count("/") > 1:
        raise DataError(f"`{source.dataset}` is no Hub id: for a path, write `./{source.dataset}`")
    if Path(source.dataset).exists():  # `datasets` would take the folder without a warning
        message = f"`{source.dataset}` is both a Hub id and a local path: for the path, write `./{source.dataset}`"
        raise DataError(message)
    commit = find_commit("dataset", source.dataset, source.revision)
    paths = list_files("dataset", source.dataset, commit)
    metadata = download_files("dataset", source.dataset, commit, METADATA)
    datasets.disable_progress_bars()
    with TemporaryDirectory() as scratch, _as_data_error(source.dataset):
        stage = Path(scratch).resolve() / source.dataset.rpartition("/")[2]
        for path in paths:
            (stage / path).parent.mkdir(parents=True, exist_ok=True)
            (stage / path).write_bytes((metadata / path).read_bytes() if path in METADATA else b"")
        if source.config is None and source.files is None and any("corpus" in path for path in paths):
            configs = set(datasets.get_dataset_config_names(str(stage)))
            if {"corpus", "queries"} <= configs:
                return _splits_with_pairs(source)
        builder = datasets.load_dataset_builder(
            str(stage),
            name=source.config,
            data_files=source.files,
            cache_dir=scratch,  # where the builder leaves a lock: the user's cache may be read-only
        )
        files_by_split = {
            str(split): [str(Path(path).relative_to(stage)) for path in files]
            for split, files in builder.config.data_files.items()
        }
    is_preview = isinstance(source.split, Preview)
    return {
        split: HubSplit(source.dataset, commit, builder, split, files, is_preview).read
        for split, files in files_by_split.items()
    }


def _splits_with_pairs(source: TableSource) -> Splits:
    """Of a dataset in MTEB's layout: the corpus, the queries, and a split of pairs for every split of judgments."""
    corpus, queries, qrels = hub_tables(source)
    documents, questions = hub_splits(corpus)["corpus"], hub_splits(queries)["queries"]

    def read(judgments: Callable[[int | None], Iterator[Table]]) -> Iterator[Table]:
        judged, asked, known = (concatenate(list(blocks(None))) for blocks in (judgments, questions, documents))
        yield join_pairs(judged, asked, known, source.dataset)

    pairs = {name: lambda _, blocks=blocks: read(blocks) for name, blocks in hub_splits(qrels).items()}
    return pairs | {"corpus": documents, "queries": questions}


@contextmanager
def _as_data_error(id: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError, FileNotFoundError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"`datasets` can't load `{id}`: {error}") from error


def dataset_blocks(
    dataset: datasets.Dataset | datasets.IterableDataset, origin: str, limit: int | None = None
) -> Iterator[Table]:
    """Blocks of a dataset as plain Python values, without decoding images and audio; the first block has no rows."""
    features = dataset.features or {}
    names = {name: feature.names for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)}
    yield build_table(origin, {name: [] for name in features}, names)
    try:
        for batch in (dataset if limit is None else dataset.take(limit)).with_format("arrow").iter(ROWS_AT_ONCE):
            batch.validate(full=True)  # of damaged offsets, pyarrow would read other memory
            yield build_table(origin, batch.to_pydict(), names)
    except (ValueError, TypeError, NotImplementedError, OverflowError) as error:  # of pyarrow
        raise DataError(f"{origin}: its rows can't be read: {error}") from error

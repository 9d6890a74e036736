"""Datasets on the Hub: which files are whose split, as `datasets` understands the repository, and their rows.

`datasets` is shown a folder of empty files with the repository's names, so that it decides from names and metadata
alone. What it decided on is then fetched file by file, or only begun to be read where a few rows will do.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from stfit.data.reading.readers import refuse_parquet_bomb
from stfit.data.reading.split import Preview
from stfit.data.source import TableSource
from stfit.data.table import Table, build_table, concatenate
from stfit.errors import DataError
from stfit.hub.download import fetch, find_commit, list_files, snapshot_folder
from stfit.hub.retry import call_with_retries
from stfit.lazy import lazy

if TYPE_CHECKING:
    import datasets
else:
    datasets = lazy("datasets")

METADATA = ["README.md", ".huggingface.yaml", "dataset_infos.json"]
"""Files of a repository that say what its other files are. Code in it is never run."""
ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class HubDataset:
    """One configuration of a dataset at a commit."""

    id: str
    commit: str
    builder: Any
    """`datasets`' reader of such files."""
    files: dict[str, list[str]]
    """Split -> its files."""

    def fetch(self, splits: list[str]) -> Path:
        """Folder with the files of these splits."""
        wanted = [glob.escape(path) for split in splits for path in self.files[split]]
        return fetch("dataset", self.id, self.commit, wanted)

    def is_here(self, split: str) -> bool:
        """Whether the files of a split have been fetched."""
        folder = snapshot_folder("dataset", self.id, self.commit)
        return all((folder / path).is_file() for path in self.files[split])

    def rows(self, split: str, glimpse: bool, limit: int | None) -> Table:
        """The rows of a split, or its first `limit`; for a glimpse, a file that is not here is not fetched whole."""
        far = glimpse and not self.is_here(split)
        root = f"hf://datasets/{self.id}@{self.commit}" if far else str(self.fetch([split]))
        if not far:
            self.refuse_bombs(Path(root), split)
        read = partial(self.read, split, root, limit)
        return call_with_retries(read, "dataset", self.id, self.commit) if far else read()

    def refuse_bombs(self, folder: Path, split: str) -> None:
        """Raise DataError for a file of a split that says far more than it holds."""
        with _refusals(self.id):
            for path in self.files[split]:
                if path.endswith(".parquet"):
                    refuse_parquet_bomb(folder / path)

    def read(self, split: str, root: str, limit: int | None) -> Table:
        """The rows of a split whose files lie below `root`."""
        tables = list(self.blocks(split, root, limit))
        # Later batches of JSON Lines may have other columns.
        rows = concatenate(tables) if tables else build_table(self.id, {}, {})
        return build_table(self.id, rows.columns, rows.label_names)

    def blocks(self, split: str, root: str, limit: int | None = None) -> Iterator[Table]:
        """The same, some rows at a time."""
        with _refusals(self.id):
            self.builder.config.data_files = datasets.data_files.DataFilesDict(
                {split: [f"{root}/{path}" for path in self.files[split]]}
            )
            found = self.builder.as_streaming_dataset(split)
            yield from table_blocks(found if limit is None else found.take(limit), self.id)


def find_dataset(source: TableSource) -> HubDataset:
    """The dataset that a source means. Raises HubError where the Hub does not give it, DataError where it is none."""
    if Path(source.dataset).exists():  # `datasets` would take the folder, and say nothing
        raise DataError(f"`{source.dataset}` is a Hub id, and a path here too: write `./{source.dataset}` for the path")
    commit = find_commit("dataset", source.dataset, source.revision)
    listed = list_files("dataset", source.dataset, commit)
    metadata = fetch("dataset", source.dataset, commit, METADATA)
    datasets.disable_progress_bars()
    with TemporaryDirectory() as scratch, _refusals(source.dataset):
        stage = Path(scratch).resolve() / source.dataset.rpartition("/")[2]
        for path in listed:
            (stage / path).parent.mkdir(parents=True, exist_ok=True)
            (stage / path).write_bytes((metadata / path).read_bytes() if path in METADATA else b"")
        builder = datasets.load_dataset_builder(str(stage), name=source.config, data_files=source.files)
        files = {
            str(split): [str(Path(path).relative_to(stage)) for path in paths]
            for split, paths in builder.config.data_files.items()
        }
    return HubDataset(source.dataset, commit, builder, files)


def hub_splits(source: TableSource) -> dict[str, Callable[[int | None], Table]]:
    """Splits of a dataset on the Hub."""
    found = find_dataset(source)
    return {split: partial(found.rows, split, isinstance(source.split, Preview)) for split in found.files}


@contextmanager
def _refusals(id: str) -> Iterator[None]:
    """What `datasets` says of a dataset that it can't read, as a DataError."""
    try:
        yield
    except (ValueError, RuntimeError, FileNotFoundError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"`datasets` refuses `{id}`: {error}") from error


def table_blocks(dataset: datasets.Dataset | datasets.IterableDataset, origin: str) -> Iterator[Table]:
    """The rows of a dataset, some at a time, as plain Python values, without decoding images or sound."""
    names = label_names(dataset.features)
    for batch in dataset.with_format("arrow").iter(ROWS_AT_ONCE):
        yield build_table(origin, batch.to_pydict(), names)


def label_names(features: Any) -> dict[str, list[str]]:
    """Column -> names of its classes, where the dataset gives them."""
    return {
        name: feature.names for name, feature in (features or {}).items() if isinstance(feature, datasets.ClassLabel)
    }

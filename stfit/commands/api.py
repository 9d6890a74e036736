"""`from stfit import load, train`: commands as Python functions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetDict

from stfit.commands.train import Finished, train
from stfit.data.cache.datasets import cache_dataset
from stfit.data.mapping.cells import is_missing
from stfit.encoder.inputs import describe, require_type
from stfit.errors import DataError
from stfit.io.yaml_text import to_inline_yaml
from stfit.recipe.load import load_recipe


def train_recipe(
    recipe: str | Path, data: Any, overrides: Sequence[str], runs: str | Path, fresh: bool
) -> dict[str, Any]:
    require_type("recipe", recipe, str | Path)
    require_type("runs", runs, str | Path)
    require_type("fresh", fresh, bool)
    require_type("overrides", overrides, list | tuple)
    for override in overrides:
        require_type("each of `overrides`", override, str)
    loaded = load_recipe(Path(recipe), [*overrides, *_dataset_overrides(data)])
    finished = [event for event in train(loaded, Path(runs), fresh=fresh) if isinstance(event, Finished)]
    return finished[-1].result


def _dataset_overrides(data: Dataset | DatasetDict | None) -> list[str]:
    """Overrides that make a recipe read `data` from a copy on disk, where a resumed run finds it."""
    if data is None:
        return []
    splits = _splits_of(data)
    if not splits or not all(split.column_names for split in splits.values()):
        raise DataError("data: has no columns, so there is nothing to train on")
    hub_keys = [f"data.{key}=null" for key in ("config", "files", "revision")]
    of_split = [] if splits is data else ["data.split=train"]
    return [f"data.dataset={to_inline_yaml(str(cache_dataset(splits)))}", *hub_keys, *of_split]


def _splits_of(data: Any) -> DatasetDict:
    """The splits as they are, or the rows as the split `train`. Raises TypeError for anything else."""
    if isinstance(data, DatasetDict) and all(isinstance(split, Dataset) for split in data.values()):
        return data
    if isinstance(data, Dataset):
        return DatasetDict(train=data)
    if hasattr(data, "iloc") and hasattr(data, "columns"):  # pandas
        return DatasetDict(train=_build(Dataset.from_pandas, data, preserve_index=False))
    columns = _columns_of(data)
    try:
        return DatasetDict(train=_build(Dataset.from_dict, columns))
    except DataError as error:
        raise DataError(f"{error}{_name_odd_cell(columns)}") from error


def _columns_of(data: Any) -> dict[str, list[Any]]:
    """The columns of a table of polars, pyarrow and others, or of rows."""
    if hasattr(data, "__arrow_c_stream__") and hasattr(data, "columns"):
        table = pa.table(data)
        if len(set(table.column_names)) < len(table.column_names):
            raise DataError(f"data: names a column twice: {', '.join(table.column_names)}")
        columns: dict[str, list[Any]] = table.to_pydict()
        return columns
    if not isinstance(data, list | tuple):
        hint = ": name it in the recipe, with `data.streaming`" if type(data).__name__.startswith("Iterable") else ""
        kinds = "a Dataset, a DatasetDict, a DataFrame, an Arrow table or a list of rows"
        raise TypeError(f"data must be {kinds}, not {describe(data)}{hint}")
    for position, row in enumerate(data):
        if not isinstance(row, dict) or not all(isinstance(name, str) for name in row):
            raise TypeError(f"data takes rows of {{column: value}}, but item {position} is {describe(row)}")
    names = dict.fromkeys(name for row in data for name in row)
    # NaN is what `to_dict("records")` of pandas writes for a gap.
    return {name: [None if is_missing(cell := row.get(name)) else cell for row in data] for name in names}


def _name_odd_cell(columns: dict[str, list[Any]]) -> str:
    """The first cell of another type than the first one of its column."""
    for name, cells in columns.items():
        present = [position for position, cell in enumerate(cells) if cell is not None]
        for position in present:
            first, cell = cells[present[0]], cells[position]
            if type(cell) is not type(first) and {type(cell), type(first)} != {int, float}:
                return f": `{name}` of item {position} is {describe(cell)}, and of item {present[0]} {describe(first)}"
    return ""


def _build(build: Callable[..., Dataset], *arguments: Any, **settings: Any) -> Dataset:
    """Raises DataError if a column holds values of several types."""
    try:
        return build(*arguments, **settings)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise DataError(f"data: {error}") from error

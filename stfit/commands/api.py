"""The functions of `stfit`: their arguments are checked, and become those of the commands."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetDict

from stfit.commands.check import check, result_to_json
from stfit.commands.encode import encode
from stfit.commands.evaluate import evaluate
from stfit.commands.mine import mine
from stfit.commands.train import train
from stfit.data.cache.datasets import cache_dataset
from stfit.data.mapping.cells import is_missing
from stfit.data.mapping.texts import source_of_texts
from stfit.data.object_store import local_output, shown
from stfit.encoder.inputs import describe, require_type
from stfit.errors import DataError, RecipeError
from stfit.events import EncodeEvent, TrainEvent
from stfit.io.yaml_text import to_inline_yaml
from stfit.options import EncodeOptions, MiningOptions
from stfit.recipe.load import LoadedRecipe, load_recipe
from stfit.recipe.recipe import Recipe
from stfit.runtime.run_folder import recipe_of_run
from stfit.workflows.encode.text_windows import inputs_to_keep

PATH = str | os.PathLike  # type: ignore[type-arg]


def train_recipe(
    recipe: str | Path, data: Any, overrides: Sequence[str], runs: str | Path, fresh: bool
) -> Iterator[TrainEvent]:
    require_type("runs", runs, PATH)
    require_type("fresh", fresh, bool)
    loaded = _load(recipe, overrides, _dataset_overrides(data))
    return train(loaded, Path(runs), fresh=fresh)


def evaluate_model(
    model: str | Path, recipe: str | Path | None, overrides: Sequence[str], compare: str | Path | None
) -> dict[str, Any]:
    require_type("model", model, PATH)
    require_type("compare", compare, PATH | None)
    if recipe is None and (recipe := recipe_of_run(Path(model))) is None:
        raise RecipeError(f"{model} is no run folder, which has a recipe: name the recipe whose evaluators are run")
    loaded = _load(recipe, overrides)
    return evaluate(str(model), loaded.recipe, None if compare is None else str(compare))[0]


def check_recipe(recipe: str | Path, overrides: Sequence[str], full: bool, strict: bool) -> dict[str, Any]:
    require_type("recipe", recipe, PATH)
    require_type("full", full, bool)
    require_type("strict", strict, bool)
    return result_to_json(check(Path(recipe), _listed(overrides), full=full, strict=strict))


def mine_negatives(
    model: str | Path,
    recipe: str | Path,
    output: str | Path,
    overrides: Sequence[str],
    options: MiningOptions,
    corpus: str | Path | None,
    column: str | None,
    device: str,
) -> dict[str, Any]:
    require_type("model", model, PATH)
    require_type("output", output, PATH)
    require_type("options", options, MiningOptions)
    require_type("corpus", corpus, PATH | None)
    require_type("column", column, str | None)
    require_type("device", device, str)
    source = None if corpus is None else source_of_texts(str(corpus), None)
    loaded = _load(recipe, overrides)
    with local_output(Path(output)) as target:
        result = mine(str(model), loaded.recipe, target, options, corpus=source, corpus_column=column, device=device)
    return result | {"output": shown(Path(output))}


def encode_texts(
    model: str | Path,
    texts: str | Path,
    output: str | Path,
    options: EncodeOptions,
    column: str | None,
    id_column: str | None,
    split: str | None,
    keep: Sequence[str],
    with_text: bool,
    calibration: str | Path | None,
    device: str,
) -> Iterator[EncodeEvent]:
    require_type("texts (for those in memory: load(model).encode(texts))", texts, PATH)
    require_type("model", model, PATH)
    require_type("output", output, PATH)
    require_type("options", options, EncodeOptions)
    require_type("column", column, str | None)
    require_type("id_column", id_column, str | None)
    require_type("split", split, str | None)
    require_type("keep", keep, list | tuple)
    require_type("with_text", with_text, bool)
    require_type("calibration", calibration, PATH | None)
    require_type("device", device, str)
    inputs = inputs_to_keep(source_of_texts(str(texts), split), column, id_column, keep)
    ranges = None if calibration is None else Path(calibration)
    return encode(str(model), inputs, Path(output), options, calibration=ranges, with_text=with_text, device=device)


def _load(recipe: str | Path, overrides: Sequence[str], more: Sequence[str] = ()) -> LoadedRecipe[Recipe]:
    require_type("recipe", recipe, PATH)
    return load_recipe(Path(recipe), [*_listed(overrides), *more])


def _listed(overrides: Sequence[str]) -> list[str]:
    require_type("overrides", overrides, list | tuple)
    for override in overrides:
        require_type("each of `overrides`", override, str)
    return list(overrides)


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

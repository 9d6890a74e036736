"""Train sentence-embedding models from YAML recipes.

The commands as Python functions; `import stfit` is fast, since heavy packages are imported on first use::

    from stfit import load, train

    result = train("recipe.yaml")
    embeddings = load(result["model"]).encode(["a text", "another"])

Public are the names in `__all__`, and the modules `stfit.errors`, `stfit.events`, `stfit.options`, and `stfit.spec` for
plug-ins. Everything else may change at any time.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 11):  # noqa: UP036 - pip refuses it, but not who starts stfit from a clone
    sys.stderr.write("stfit needs Python 3.11 or newer, and this is {}.{}\n".format(*sys.version_info))
    sys.exit(9)

from stfit.options import EncodeOptions, MiningOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from datasets import Dataset, DatasetDict
    from pandas import DataFrame

    from stfit.encoder.encoder import Encoder
    from stfit.events import EncodeEvent, TrainEvent

__all__ = ["check", "encode", "evaluate", "iter_encode", "iter_train", "load", "mine", "train"]


def train(
    recipe: str | Path,
    data: Dataset | DatasetDict | DataFrame | Sequence[dict[str, Any]] | None = None,
    overrides: Sequence[str] = (),
    *,
    runs: str | Path = "runs",
    fresh: bool = False,
) -> dict[str, Any]:
    """Train a recipe to the end, or resume its run, and return what `stfit train --json` prints.

    `data` replaces the recipe's `data.dataset`: a Dataset, a DataFrame (pandas, polars), an Arrow table or a list of
    rows also replaces its `split`, and of a DatasetDict the recipe chooses the split. `overrides` are those of the
    command line: `["train.epochs=1"]`. Raises the errors of stfit.errors, and TypeError for arguments of other types.
    """
    return _last_result(iter_train(recipe, data, overrides, runs=runs, fresh=fresh))


def iter_train(
    recipe: str | Path,
    data: Dataset | DatasetDict | DataFrame | Sequence[dict[str, Any]] | None = None,
    overrides: Sequence[str] = (),
    *,
    runs: str | Path = "runs",
    fresh: bool = False,
) -> Iterator[TrainEvent]:
    """Train as `train` does, and yield the events of `stfit.events` as they happen: the last is Finished.

    The training goes on while the iterator is read. A run whose iterator is closed early can be resumed.
    """
    from stfit.commands.api import train_recipe

    return train_recipe(recipe, data, overrides, runs, fresh)


def evaluate(
    model: str | Path,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    compare: str | Path | None = None,
) -> dict[str, Any]:
    """Run the evaluators of a recipe on a run folder, a model folder or a Hub id: what `stfit eval --json` prints.

    Without `recipe`, those of the run. `compare`: another model, measured on the same rows. A model that does not pass
    its gate gives a result with the key `error`.
    """
    from stfit.commands.api import evaluate_model

    return evaluate_model(model, recipe, overrides, compare)


def check(
    recipe: str | Path, overrides: Sequence[str] = (), *, full: bool = False, strict: bool = False
) -> dict[str, Any]:
    """Find what is wrong with a recipe and its data before training: what `stfit check --json` prints.

    `full` reads all rows of streams and Hub datasets, and weights; `strict` makes warnings errors. Mistakes are no
    exceptions here, but the list `errors`; with any, `error` is what training would end with.
    """
    from stfit.commands.api import check_recipe

    return check_recipe(recipe, overrides, full, strict)


def mine(
    model: str | Path,
    recipe: str | Path,
    output: str | Path,
    overrides: Sequence[str] = (),
    *,
    options: MiningOptions = MiningOptions(),  # noqa: B008 - frozen
    corpus: str | Path | None = None,
    column: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Write hard negatives for the pairs of a recipe to a .jsonl file: what `stfit mine --json` prints.

    They are positives of other rows, or texts of `corpus` (in its column `column`).
    """
    from stfit.commands.api import mine_negatives

    return mine_negatives(model, recipe, output, overrides, options, corpus, column, device)


def encode(
    model: str | Path,
    texts: str | Path,
    output: str | Path,
    *,
    options: EncodeOptions = EncodeOptions(),  # noqa: B008 - frozen
    column: str | None = None,
    id_column: str | None = None,
    split: str | None = None,
    keep: Sequence[str] = (),
    with_text: bool = False,
    calibration: str | Path | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Embed the texts of a file, folder or Hub dataset into a file, and return what `stfit encode --json` prints.

    Without `split`: train, or the corpus of a BEIR folder. The same call resumes what was interrupted. For texts in
    memory: `load(model).encode(texts)`.
    """
    return _last_result(
        iter_encode(
            model, texts, output, options=options, column=column, id_column=id_column, split=split,
            keep=keep, with_text=with_text, calibration=calibration, device=device,
        )
    )  # fmt: skip


def iter_encode(
    model: str | Path,
    texts: str | Path,
    output: str | Path,
    *,
    options: EncodeOptions = EncodeOptions(),  # noqa: B008 - frozen
    column: str | None = None,
    id_column: str | None = None,
    split: str | None = None,
    keep: Sequence[str] = (),
    with_text: bool = False,
    calibration: str | Path | None = None,
    device: str = "auto",
) -> Iterator[EncodeEvent]:
    """Embed as `encode` does, and yield the events of `stfit.events` as they happen: the last is Finished."""
    from stfit.commands.api import encode_texts

    return encode_texts(model, texts, output, options, column, id_column, split, keep, with_text, calibration, device)


def load(model: str | Path, device: str = "auto", threads: int | None = None) -> Encoder:
    """Load the encoder of a run folder, a model folder or a Hub id: `load("runs/qqp").encode(texts)`.

    `threads`: cores that `encode` uses on a CPU; by default, as many as torch. Threads of a program may share an
    encoder. Pickled, it is its name and no weights: a process that receives it loads the model, once.
    Raises ModelError if the model can't be loaded, HubError if it can't be downloaded.
    """
    from stfit.encoder.inputs import require_type
    from stfit.encoder.load_again import load as load_by_name

    require_type("model", model, str | os.PathLike)
    require_type("device", device, str)
    require_type("threads", threads, int | None)
    return load_by_name(str(model), device, threads)


def _last_result(events: Iterator[Any]) -> dict[str, Any]:
    for event in events:
        last = event
    result: dict[str, Any] = last.result
    return result

"""The inputs of a training, of every kind, each with its commit or fingerprint."""

import glob
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from stfit.data.mapping.examples import Examples
from stfit.data.reading.local_files import fingerprint_files
from stfit.data.source import TableSource, TrainingData
from stfit.encoder.config import Model
from stfit.encoder.folder.resolve import SMALL_FILES, locate_adapter_base, model_folder
from stfit.evaluation.evaluators.mse import MSEToTeacher
from stfit.io.hashing import hash_file
from stfit.losses.base import CrossEncoderTeacher
from stfit.paths import Pattern
from stfit.recipe.hub_refs import hub_ref
from stfit.recipe.recipe import Recipe
from stfit.spec import Spec

WEIGHTS = ("*.json", "*.safetensors")
"""Files of a model folder whose digest stands beside its name, as it always did."""
OTHERS = ("*.bin", "*.model", "*.txt")
"""Other files of a model folder that are read."""

ROWS = re.compile(r"^eval\b|\bdataset$")
"""Keys of sources of rows."""

Inputs = dict[str, Any]


def describe_inputs(pinned: Recipe) -> Inputs:
    """The inputs of a recipe whose revisions are commits. Files are hashed; no rows are read."""
    objectives = pinned.objectives_by_path.values()
    teachers = [teacher for objective in objectives for teacher in objective.teachers if teacher]
    others = [(key, path) for key, path in keyed_paths(pinned) if not ROWS.search(key)]
    files = {key: digest for key, path in others if (digest := _digest_of(path))}
    return {
        "base": _describe_model(pinned.model),
        "data": [_describe_training(objective.data) for objective in objectives],
        **({"teachers": list(map(_describe_teacher, teachers))} if teachers else {}),
        "eval": {
            evaluator.label: described for evaluator in pinned.eval if (described := _describe_evaluator(evaluator))
        },
        **({"files": files} if files else {}),
    }


def _describe_model(model: Model) -> Inputs:
    if ref := hub_ref(model):
        return {"base": ref.id, "commit": ref.revision}
    if not isinstance(model.base, str):
        return {"base": "scratch"}
    return {"base": model.base, "fingerprint": _digest_folder(model_folder(Path(model.base)), WEIGHTS)}


def _describe_teacher(teacher: Model | CrossEncoderTeacher) -> Inputs:
    if isinstance(teacher, CrossEncoderTeacher):
        teacher = Model(base=teacher.cross_encoder, revision=teacher.revision)
    return _describe_model(teacher)


def _describe_source(source: Any) -> Inputs:
    if ref := hub_ref(source):
        return {"dataset": source.dataset, "commit": ref.revision}
    return {"dataset": source.dataset, "bytes": fingerprint_files(source)}


def _describe_training(source: TrainingData) -> Inputs:
    """Of a stream, whose rows are not all read, the bytes stand for the rows."""
    described = _describe_source(source)
    if source.streaming and "bytes" in described:
        described["fingerprint"] = described.pop("bytes")
    return described


def _describe_evaluator(evaluator: Any) -> Inputs:
    """Its dataset, and its tables by their keys; nothing for rows that are held out of the training."""
    tables = {key: _describe_source(table) for key, table in evaluator if isinstance(table, TableSource)}
    tables |= {each.dataset: _describe_source(each) for each in getattr(evaluator, "datasets", None) or []}
    if isinstance(evaluator, MSEToTeacher):
        tables["teacher"] = _describe_model(Model(base=evaluator.teacher, revision=evaluator.teacher_revision))
    if not evaluator.dataset:
        return tables
    if train_split := getattr(evaluator, "train_split", None):
        evaluator = evaluator.model_copy(update={"split": f"{evaluator.split}+{train_split}"})
    return _describe_source(evaluator) | tables


def paths_in(recipe: Recipe) -> list[Path]:
    """All paths of this machine that a recipe reads, with the files that its patterns match."""
    patterns = (text for _, text in _locations(recipe) if isinstance(text, Pattern))
    matches = chain.from_iterable(glob.glob(pattern, recursive=True) for pattern in patterns)
    return [*(path for _, path in keyed_paths(recipe)), *map(Path, matches)]


def keyed_paths(recipe: Recipe) -> list[tuple[str, Path]]:
    """Dotted key -> path of every input. Relative paths were resolved when the recipe was loaded."""
    return [(key, Path(text)) for key, text in _locations(recipe)]


def _locations(recipe: Recipe) -> Iterator[tuple[str, str]]:
    return _paths_in(recipe.model_copy(update={"gate": [], "push": None}))


def _paths_in(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        if os.path.isabs(value):
            yield key.lstrip("."), value
    else:
        for name, part in _parts(value):
            yield from _paths_in(part, f"{key}.{name}")


def _parts(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, list):
        return enumerate(value)
    return dict(value).items() if isinstance(value, Spec | dict) else ()


def _digest_of(path: Path) -> str | None:
    """The digest of a file; of a model folder, that of the files which `_describe_model` leaves out, if it has any."""
    if path.is_file():
        return hash_file(path)
    if not path.is_dir():
        return None
    folder = model_folder(path)
    others = _digest_folder(folder, OTHERS), _identify_adapted(folder)
    return sha256(repr(others).encode()).hexdigest() if any(others) else None


def _identify_adapted(folder: Path) -> str:
    """The commit or digest of the model that an adapter belongs to; empty without an adapter."""
    adapted = locate_adapter_base(folder, SMALL_FILES)
    if adapted is None:
        return ""
    is_snapshot = adapted.parent.name == "snapshots"  # of the Hub's cache, where files are added as they are needed
    return adapted.name if is_snapshot else _digest_folder(adapted, (*WEIGHTS, *OTHERS))


def _digest_folder(folder: Path, patterns: tuple[str, ...]) -> str:
    """sha256 of the names and bytes of files; empty if there are none."""
    digest = sha256()
    paths = sorted(path for pattern in patterns for path in folder.rglob(pattern))
    for path in paths:
        digest.update(str(path.relative_to(folder)).encode())
        hash_file(path, digest)
    return digest.hexdigest() if paths else ""


def fingerprint_rows(rows: Any) -> str | None:
    """sha256 of the rows that an evaluator has loaded; None for rows of another kind than stfit's own."""
    if isinstance(rows, Examples):
        return rows.fingerprint
    if not is_dataclass(rows):
        return None
    try:
        parts = [getattr(rows, field.name) for field in fields(rows)]
        digests = [fingerprint_rows(part) or json.dumps(part, default=_as_list) for part in parts]
    except TypeError:
        return None
    return sha256(json.dumps(digests).encode()).hexdigest()


def _as_list(part: Any) -> list[Any]:
    return sorted(part) if isinstance(part, set) else part.tolist() if isinstance(part, np.ndarray) else list(part)

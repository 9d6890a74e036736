"""Recipe files and overrides -> a valid recipe, or all of their errors at once."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic

from pydantic import ValidationError
from typing_extensions import TypeVar

from stfit.errors import Problem, RecipeError, did_you_mean
from stfit.io.unicode import require_text
from stfit.recipe.marked_yaml import MAX_BYTES, Mark, Node, decode, quoted, read_yaml
from stfit.recipe.overrides import apply_overrides, merge
from stfit.recipe.recipe import Recipe
from stfit.recipe.seal import is_damaged
from stfit.recipe.type_tree import Key, Types, normalize_choices
from stfit.recipe.validation_errors import explain_errors
from stfit.spec import Spec

LANGUAGE_VERSION = 1

DATASET_KEYS = (
    "dataset", "config", "files", "revision", "read", "columns", "where", "label_map", "label_range", "max_per_row",
)  # fmt: skip
"""Keys of `data` that say how to read the dataset, independent of the split."""

R = TypeVar("R", bound=Spec, default=Recipe)


@dataclass(frozen=True)
class LoadedRecipe(Generic[R]):
    recipe: R
    text: str
    origins: dict[str, Mark]
    """Dotted path -> where the value was set; the others are defaults."""


@dataclass(frozen=True)
class _RecipeFile:
    """One file of an `extends` chain; `root` has normalized choices and no `extends`."""

    path: Path
    text: str
    root: Node
    problems: list[Problem]
    extends: Node | None


def load_recipe(path: Path, overrides: Sequence[str] = (), model: type[R] = Recipe) -> LoadedRecipe[R]:  # type: ignore[assignment]
    """Read `path` and the files it extends, apply the overrides (see apply_overrides), and validate the result.

    The default of `name` is the file's stem. Raises RecipeError with all problems, those of the outermost file first.
    """
    types: Types = [model]
    files = _read_files(path, types)
    require_text(path)
    problems = [problem for file in files for problem in file.problems]
    root = files[-1].root
    for file in reversed(files[:-1]):
        root = merge(root, file.root, types)
    root, later_problems = apply_overrides(root, overrides, types)
    root = _complete_loss_evaluators(_expand_from_data(root))
    origins = _origins_of(root)
    root = _apply_default_name(root, path, model)
    try:
        recipe = model.model_validate(root.plain())
    except ValidationError as error:
        # A line with a YAML problem has an odd value: one error about it is enough.
        lines = {(problem.file, problem.line) for problem in problems}
        explained = [_blame_file_name(problem, path, root) for problem in explain_errors(error, root, model)]
        later_problems += [problem for problem in _told_once(explained) if (problem.file, problem.line) not in lines]
    if problems or later_problems:
        place = {str(file.path): number for number, file in enumerate(files)}
        problems += later_problems
        problems.sort(key=lambda at: (place.get(at.file or "", len(files)), at.line or 0, at.column or 0))
        raise RecipeError(problems)
    return LoadedRecipe(recipe, files[0].text, origins)


def _told_once(problems: list[Problem]) -> list[Problem]:
    """Without those of values that an evaluator has from another section, where they are told."""
    elsewhere = {_place(problem) for problem in problems if "`eval." not in problem.message}
    return [each for each in problems if "`eval." not in each.message or _place(each) not in elsewhere]


def _place(problem: Problem) -> tuple[Any, ...]:
    return problem.file, problem.line, problem.column


def _expand_from_data(root: Node) -> Node:
    """Copy the keys of `data` into every evaluator with `from: data`; the evaluator's own keys win."""
    data, evaluators = root.child("data"), root.child("eval")
    if not isinstance(root.value, dict) or not data or not evaluators or not isinstance(evaluators.value, list):
        return root
    shared = {key: value for key in DATASET_KEYS if (value := data.child(key))}
    shared["split"] = Node("test", data.mark)  # named, since a file has no rows but those that are trained on
    items = [
        replace(item, value=shared | {key: value for key, value in item.value.items() if key != "from"})
        if isinstance(item.value, dict) and (origin := item.child("from")) and origin.value == "data"
        else item
        for item in evaluators.value
    ]
    return replace(root, value=root.value | {"eval": replace(evaluators, value=items)})


def _complete_loss_evaluators(root: Node) -> Node:
    """What an evaluator of the loss does not set is that of the training."""
    evaluators = root.child("eval")
    if not isinstance(root.value, dict) or not evaluators or not isinstance(evaluators.value, list):
        return root
    sections = {"loss": root, "format": root.child("data"), "batch_size": root.child("train")}
    shared = {key: value for key, section in sections.items() if section and (value := section.child(key))}
    data, prompts = root.child("data"), {}
    if data and (written := data.child("prompts")):
        prompts = {"prompts": written}

    def complete(item: Node) -> Node:
        kind, own = item.child("type"), item.child("format")
        if not isinstance(item.value, dict) or not kind or kind.value != "loss":
            return item
        has_same_roles = own is None or ("format" in shared and own.value == shared["format"].value)
        return replace(item, value=shared | (prompts if has_same_roles else {}) | item.value)

    items = [complete(item) for item in evaluators.value]
    return replace(root, value=root.value | {"eval": replace(evaluators, value=items)})


def _apply_default_name(root: Node, path: Path, model: type[Spec]) -> Node:
    if not isinstance(root.value, dict) or "name" in root.value or "name" not in model.model_fields:
        return root
    return replace(root, value={**root.value, "name": Node(path.stem, root.mark)})


def _blame_file_name(problem: Problem, path: Path, root: Node) -> Problem:
    """The problem of a name that no line of the recipe holds."""
    if not problem.message.startswith("`name`") or getattr(root.child("name"), "mark", None) is not root.mark:
        return problem
    message = f"{problem.message}. The name is that of the file {quoted(path.name)}: rename it, or set `name` in it"
    return Problem(message, problem.code, str(path))


def _origins_of(node: Node, keys: tuple[Key, ...] = ()) -> dict[str, Mark]:
    children: dict[Any, Node] = node.value if isinstance(node.value, dict) else {}
    if isinstance(node.value, list):
        children = dict(enumerate(node.value))
    origins = {".".join(map(str, keys)): node.where} if keys else {}
    for key, child in children.items():
        origins |= _origins_of(child, (*keys, key))
    return origins


def _read_files(path: Path, types: Types) -> list[_RecipeFile]:
    files: list[_RecipeFile] = []
    extended_by: Node | None = None
    while True:
        file = _read_file(path, extended_by, types)
        if extended_by and any(path.samefile(earlier.path) for earlier in files):
            chain = " -> ".join(str(file) for file in [*(earlier.path for earlier in files), path])
            raise RecipeError(extended_by.where.problem(f"circular `extends`: {chain}", "extends"))
        files.append(file)
        extended_by = file.extends
        if extended_by is None:
            return files
        path = Path(os.path.normpath(path.parent / os.path.expanduser(str(extended_by.value))))


def _read_file(path: Path, extended_by: Node | None, types: Types) -> _RecipeFile:
    """Read one file; `extended_by` is the `extends` that names it."""
    text = decode(_read_bytes(path, extended_by), str(path))
    if is_damaged(text):
        message = "differs from the digest in its first line: it is damaged. If you have edited it, delete that line"
        raise RecipeError(Problem(message, "damaged", str(path)))
    root, problems = read_yaml(text, str(path), Path(os.path.abspath(path.parent)))
    root = normalize_choices(root, types)
    _require_known_version(root)
    extends = root.child("extends")
    if isinstance(root.value, dict) and extends is not None:
        root = replace(root, value={key: child for key, child in root.value.items() if key != "extends"})
        if not isinstance(extends.value, str):
            message = "`extends` must be the path of one recipe, relative to this file"
            problems.append(extends.where.problem(message, "extends"))
            extends = None
    return _RecipeFile(path, text, root, problems, extends)


def _read_bytes(path: Path, extended_by: Node | None) -> bytes:
    """Read at most one byte more than MAX_BYTES, so that a larger file is noticed."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        is_folder, is_missing = isinstance(error, IsADirectoryError), isinstance(error, FileNotFoundError)
        reason = "it is a folder" if is_folder else getattr(error, "strerror", None) or str(error)
    siblings = sorted(file.name for file in path.parent.glob("*.y*ml")) if is_missing else []
    hint = did_you_mean(path.name, siblings)
    message = f"cannot read recipe {quoted(str(path))}: {reason}{'; ' if hint else ''}{hint}"
    if extended_by:
        raise RecipeError(extended_by.where.problem(message, "extends"))
    raise RecipeError(Problem(message, "no-file", str(path)))


def _require_known_version(root: Node) -> None:
    """Fail early: a recipe of a newer language would only give a page of unknown keys."""
    version = root.child("version")
    if version is not None and isinstance(version.value, int) and version.value > LANGUAGE_VERSION:
        supported = f"but this stfit supports version {LANGUAGE_VERSION}: upgrade stfit"
        message = f"the recipe uses version {version.value} of the recipe language, {supported}"
        raise RecipeError(version.where.problem(message, "version"))

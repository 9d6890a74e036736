"""Choices that installed packages add: entry points of the group `stfit.choices`.

A package that was installed on purpose is the user's own code; what a model folder or a dataset brings is never run.
In the package's pyproject.toml, the kind of choice and its name on the left, where to find it on the right::

    [project.entry-points."stfit.choices"]
    "loss.focal" = "my_package:Focal"              # a Spec, as those in stfit/losses
    "evaluator.coherence" = "my_package:Coherence" # an EvaluationSource, as those in stfit/evaluation
    "pooling.top_two" = "my_package:pool_top_two"  # a function, as those in stfit/encoder/pooling.py
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel

from stfit.errors import RecipeError

GROUP = "stfit.choices"
RENAMED = {"also_called": "aliases", "smallest_batch": "min_batch_size", "suffixed": "per_similarity"}
"""Class attributes under the names that packages written before 2026-12 give them -> today's."""


@cache
def installed_entry_points(kind: str) -> dict[str, EntryPoint]:
    """Name -> entry point of the choices of a kind that installed packages add, sorted; nothing is imported yet."""
    found = [entry for entry in entry_points(group=GROUP) if entry.name.partition(".")[0] == kind]
    return {entry.name.partition(".")[2]: entry for entry in sorted(found, key=lambda entry: entry.name)}


@cache
def installed_choices(kind: str, base: type[BaseModel], needs: tuple[str, ...]) -> list[Any]:
    """The classes that installed packages add to a union: each a `base` with the attributes in `needs`.

    Raises RecipeError, with the name of the package, for what can't be loaded or lacks an attribute.
    """
    choices = {entry: load_entry_point(entry) for entry in installed_entry_points(kind).values()}
    for entry, choice in choices.items():
        for old, new in RENAMED.items():
            if hasattr(choice, old):
                setattr(choice, new, getattr(choice, old))
        is_choice = isinstance(choice, type) and issubclass(choice, base) and "type" in choice.model_fields
        wrong = [f"has no `{name}`" for name in needs if not hasattr(choice, name)]
        if not is_choice:
            wrong = [f"is no {base.__name__} with a `type`"]
        if wrong:
            raise RecipeError(f"{_added_by(entry)}, but {entry.value} {', '.join(wrong)}")
    return list(choices.values())


def load_entry_point(entry: EntryPoint) -> Any:
    """What an entry point names. Raises RecipeError, with the name of the package, where it can't be loaded."""
    try:
        return entry.load()
    except Exception as error:  # whatever a package does when it is imported
        reason = f"{type(error).__name__}: {error}"
        raise RecipeError(
            f"{_added_by(entry)}, and {entry.value} can't be loaded ({reason}): mend it or uninstall it"
        ) from error


def _added_by(entry: EntryPoint) -> str:
    """Whose entry point it is, as the beginning of a message."""
    return f"the package `{entry.dist.name if entry.dist else entry.module}` adds `{entry.name}` to {GROUP}"

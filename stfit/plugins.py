"""Choices that installed packages add: entry points of the group `stfit.choices`.

An installed package is code that the user trusts; code in a model folder or dataset is never run. In the pyproject.toml
of the package, `<kind>.<name>` is on the left, the object on the right::

    [project.entry-points."stfit.choices"]
    "loss.focal" = "my_package:Focal"              # a LossBase: see stfit/losses
    "evaluator.coherence" = "my_package:Coherence" # an EvaluatorBase like those in stfit/evaluation
    "pooling.top_two" = "my_package:pool_top_two"  # a function like those in stfit/encoder/pooling.py
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel

from stfit.errors import RecipeError

GROUP = "stfit.choices"


@cache
def installed_entry_points(kind: str) -> dict[str, EntryPoint]:
    """Name -> entry point of the choices of one kind, sorted by name; imports nothing."""
    entries = [entry for entry in entry_points(group=GROUP) if entry.name.partition(".")[0] == kind]
    return {entry.name.partition(".")[2]: entry for entry in sorted(entries, key=lambda entry: entry.name)}


@cache
def installed_choices(kind: str, base: type[BaseModel], required_attributes: tuple[str, ...]) -> list[Any]:
    """Classes that installed packages add to a union. Raises RecipeError, naming the package, if one is unusable."""
    choices = {entry: load_entry_point(entry) for entry in installed_entry_points(kind).values()}
    for entry, choice in choices.items():
        is_choice = isinstance(choice, type) and issubclass(choice, base) and "type" in choice.model_fields
        problems = [f"has no `{name}`" for name in required_attributes if not hasattr(choice, name)]
        if not is_choice:
            problems = [f"is not a subclass of {base.__name__} with a `type`"]
        if problems:
            raise RecipeError(f"{_added_by(entry)}, but {entry.value} {', '.join(problems)}")
    return list(choices.values())


def load_entry_point(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:  # importing a package can raise anything
        reason = f"{type(error).__name__}: {error}"
        message = f"{_added_by(entry)}, but {entry.value} can't be loaded ({reason}): fix or uninstall the package"
        raise RecipeError(message) from error


def _added_by(entry: EntryPoint) -> str:
    return f"the package `{entry.dist.name if entry.dist else entry.module}` adds `{entry.name}` to {GROUP}"

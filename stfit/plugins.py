"""Choices that installed packages add: entry points of the group `stfit.choices`.

An installed package is code that the user trusts; code in a model folder or dataset is never run. An error in it is
called a bug of the package. In the pyproject.toml of the package, `<kind>.<name>` is on the left, the object on the
right::

    [project.entry-points."stfit.choices"]
    "loss.focal" = "my_package:Focal"              # a LossBase: see stfit/losses
    "evaluator.coherence" = "my_package:Coherence" # an EvaluatorBase like those in stfit/evaluation
    "pooling.top_two" = "my_package:pool_top_two"  # a function like those in stfit/encoder/pooling.py
"""

from collections.abc import Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from inspect import Signature, isfunction, signature
from traceback import walk_tb
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
        problems += _signature_problems(choice, base) if is_choice else []
        if not is_choice:
            problems = [f"is not a subclass of {base.__name__} with a `type`"]
        if problems:
            raise RecipeError(f"{_added_by(entry)}, but {entry.value} {', '.join(problems)}")
    return list(choices.values())


def _signature_problems(choice: type[BaseModel], base: type[BaseModel]) -> Iterator[str]:
    """Methods of the base that a choice replaces by some that can't be called in their place."""
    for name, method in vars(base).items():
        own = getattr(choice, name)
        if not isfunction(method) or not isfunction(own) or own is method or (name[0] == "_" and name != "__call__"):
            continue
        try:
            signature(own).bind(*signature(method).parameters)
        except TypeError:
            expected = signature(method).replace(return_annotation=Signature.empty)
            names = ", ".join(list(expected.parameters)[1:])
            yield f"has a `{name}` that does not take ({names})"


def package_at_fault(error: BaseException) -> str | None:
    """The name of a package with choices whose code raised an error, or called what raised it; None if none did."""
    added = {entry.module.partition(".")[0]: entry for entry in entry_points(group=GROUP)}
    modules = [str(frame.f_globals.get("__name__")).partition(".")[0] for frame, _ in walk_tb(error.__traceback__)]
    entry = next((added[module] for module in reversed(modules) if module in added and module != "stfit"), None)
    return None if entry is None else entry.dist.name if entry.dist else entry.module


def load_entry_point(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:  # importing a package can raise anything
        reason = f"{type(error).__name__}: {error}"
        message = f"{_added_by(entry)}, but {entry.value} can't be loaded ({reason}): fix or uninstall the package"
        raise RecipeError(message) from error


def _added_by(entry: EntryPoint) -> str:
    return f"the package `{entry.dist.name if entry.dist else entry.module}` adds `{entry.name}` to {GROUP}"

"""Choices that installed packages add: entry points of the group `stfit.choices`.

A package that was installed on purpose is the user's own code; what a model folder or a dataset brings is never run.
In the package's pyproject.toml, the kind of choice and its name on the left, the class on the right::

    [project.entry-points."stfit.choices"]
    "loss.focal" = "my_package.losses:Focal"
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from stfit.errors import RecipeError

GROUP = "stfit.choices"


@cache
def installed_choices(kind: str, base: type, needs: tuple[str, ...]) -> list[Any]:
    """The classes that installed packages add to the choices of a kind: each a `base` with the attributes in `needs`.

    Raises RecipeError, with the name of the package, for what can't be loaded or lacks an attribute.
    """
    of_kind = [entry for entry in entry_points(group=GROUP) if entry.name.partition(".")[0] == kind]
    return [load_choice(entry, base, needs) for entry in sorted(of_kind, key=lambda entry: entry.name)]


def load_choice(entry: EntryPoint, base: type, needs: tuple[str, ...]) -> Any:
    """The class behind an entry point."""
    package = entry.dist.name if entry.dist else entry.module
    try:
        choice = entry.load()
    except Exception as error:  # whatever a package does when it is imported
        raise RecipeError(
            f"the package `{package}` adds `{entry.name}` to {GROUP}, and {entry.value} can't be loaded: "
            f"{type(error).__name__}: {error}; mend or uninstall it"
        ) from error
    is_choice = isinstance(choice, type) and issubclass(choice, base) and hasattr(choice, "model_fields")
    wrong = "" if is_choice and "type" in choice.model_fields else f"is no {base.__name__} with a `type`"
    wrong = wrong or ", ".join(f"has no `{name}`" for name in needs if not hasattr(choice, name))
    if wrong:
        raise RecipeError(f"the package `{package}` adds `{entry.name}` to {GROUP}, but {entry.value} {wrong}")
    return choice

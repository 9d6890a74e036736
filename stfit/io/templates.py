"""Jinja2 environments in which every expression is escaped unless a template opts out with `safe`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def build_environment(
    package: str, escape: Callable[[str], str], filters: Mapping[str, Callable[..., Any]]
) -> Environment:
    """Expressions pass through `escape`, unless they are markup, and then through jinja2's own HTML escaping."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        finalize=lambda value: value if hasattr(value, "__html__") else escape(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment

"""Jinja2 environment of the pages: every expression is escaped and put on one line unless a template opts out."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from stfit.io.display import format_duration, format_gain, format_interval, format_metric, single_line

if TYPE_CHECKING:
    from jinja2 import Environment

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Content security policy of a page: its own styles, no scripts, no requests."""


def render(template: str, **values: Any) -> str:
    """Render a template of `templates/` as a self-contained HTML page."""
    return _environment().get_template(template).render(values, policy=POLICY)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("stfit.report"),
        autoescape=True,
        finalize=_to_single_line,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": format_duration,
        "gain": format_gain,
        "interval": format_interval,
        "metric": format_metric,
    }
    return environment


def _to_single_line(value: Any) -> Any:
    """Reduce text to one line, except markup (`__html__`), which a template has escaped already."""
    return single_line(value) if isinstance(value, str) and not hasattr(value, "__html__") else value

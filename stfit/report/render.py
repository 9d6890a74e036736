from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from stfit.io.display import format_gain, format_interval, format_metric, single_line
from stfit.io.templates import build_environment

if TYPE_CHECKING:
    from jinja2 import Environment

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Content security policy of a page: its own styles, no scripts, no requests."""


def render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(values, policy=POLICY)


@cache
def _environment() -> Environment:
    return build_environment(
        "stfit.report", single_line, {"gain": format_gain, "interval": format_interval, "metric": format_metric}
    )

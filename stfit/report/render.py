import re
from functools import cache
from typing import Any

from stfit.io.display import format_gain, format_interval, format_metric, format_verdict, single_line
from stfit.io.templates import build_environment

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Content security policy of a page: its own styles, no scripts, no requests."""


def render(template: str, **values: Any) -> str:
    return str(_environment().get_template(template).render(values, policy=POLICY))


@cache
def _environment() -> Any:
    """Once: an environment keeps its compiled templates."""
    filters: dict[str, Any] = {
        "gain": format_gain,
        "interval": format_interval,
        "metric": format_metric,
        "parts": re.compile(r"[^/_]+[/_]*|[/_]+").findall,
        "verdict": format_verdict,
    }
    return build_environment("stfit.report", single_line, filters)

from typing import Any

from stfit.io.display import format_gain, format_interval, format_metric, single_line
from stfit.io.templates import build_environment

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Content security policy of a page: its own styles, no scripts, no requests."""


def render(template: str, **values: Any) -> str:
    filters: dict[str, Any] = {"gain": format_gain, "interval": format_interval, "metric": format_metric}
    environment = build_environment("stfit.report", single_line, filters)
    return environment.get_template(template).render(values, policy=POLICY)

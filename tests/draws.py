"""How much of what could be tried the tests try: some of it by default, all in `make test-all`."""

import os
from collections.abc import Iterable
from typing import Any

import pytest

MANY = int(os.environ.get("STFIT_DRAWS", "2500"))


def few_or_many(few: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("count", [few, pytest.param(MANY, marks=pytest.mark.slow)])


def every(step: int, cases: Iterable[Any]) -> list[Any]:
    """Parameters: the first of each `step` cases by default, and all in `make test-all`. A tuple is for several."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else [case]), marks=[pytest.mark.slow] if number % step else [])
        for number, case in enumerate(cases)
    ]

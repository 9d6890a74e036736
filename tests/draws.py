"""How many inputs the tests draw at random: a few by default, many in `make test-all`."""

import os

import pytest

MANY = int(os.environ.get("STFIT_DRAWS", "2500"))


def few_or_many(few: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("count", [few, pytest.param(MANY, marks=pytest.mark.slow)])

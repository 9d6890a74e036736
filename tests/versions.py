"""Tests that the lowest allowed versions of packages can't pass: `make test-lowest` skips them, and says why."""

from importlib.metadata import PackageNotFoundError, version

import pytest
from packaging.version import Version


def since(package: str, wanted: str, why: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(_version(package) < Version(wanted), reason=f"needs {package} {wanted}: {why}")


def _version(package: str) -> Version:
    try:
        return Version(version(package))
    except PackageNotFoundError:
        return Version("0")


OLD_MODERNBERT = since("transformers", "5.1", "ModernBERT is written in another way before, and runs padded")

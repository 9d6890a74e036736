"""Import heavy packages on first use, so that declaring a choice or printing `--help` costs nothing.

In a module that uses torch inside functions only::

    if TYPE_CHECKING:
        import torch
    else:
        torch = lazy("torch")

`importlib.util.LazyLoader` is no substitute: it registers an unfinished module in sys.modules, which transformers
replaces while it loads and which `inspect.getmodule` (called by pydantic for every class) loads at once.
"""

from importlib import import_module
from typing import Any


class _LazyModule:
    """Imports the module `name` when an attribute is first read."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # inspect and pickle probe dunders, which must not load the module
            raise AttributeError(attribute)
        return getattr(import_module(self._name), attribute)


def lazy(name: str) -> Any:
    """The module `name`, imported on first use."""
    return _LazyModule(name)

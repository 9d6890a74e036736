"""Heavy packages on first use, so that declaring a choice or printing `--help` costs nothing.

Write, in a module that only uses torch inside functions::

    if TYPE_CHECKING:
        import torch
    else:
        torch = lazy("torch")

`importlib.util.LazyLoader` is no substitute: it registers a half-made module in sys.modules, which transformers
replaces under its feet and which `inspect.getmodule` (pydantic calls it for every class) loads at once.
"""

from importlib import import_module
from typing import Any


class Lazy:
    """A stand-in for the module `name` that imports it when an attribute is first asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # inspect and pickle probe dunders; they must not load the module
            raise AttributeError(attribute)
        return getattr(import_module(self._name), attribute)


def lazy(name: str) -> Any:
    """The module `name`, imported on first use."""
    return Lazy(name)

"""Import heavy packages on first use, so that declaring a choice or printing `--help` costs nothing.

A module that uses torch inside functions only writes `from stfit.lazy import Tensor, torch`; for another package::

    if TYPE_CHECKING:
        import datasets
    else:
        datasets = lazy("datasets")

`importlib.util.LazyLoader` is no substitute: it registers an unfinished module in sys.modules, which transformers
replaces while it loads and which `inspect.getmodule` (called by pydantic for every class) loads at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["F", "Tensor", "lazy", "nn", "torch"]


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


if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn
else:
    torch, nn, F = lazy("torch"), lazy("torch.nn"), lazy("torch.nn.functional")
    Tensor = Any  # for annotations only

"""Start in half the time: import transformers without what it imports and the command line never uses.

- transformers is told that there is no scipy, with which it detects objects, no torch.distributed, with which it shards
  a model, and no accelerate, which it asks for a compiled model before it saves one: that imports torch's compiler.
- What it reads in all its files to list their names is kept in the cache (`transformers_index.py`).
- torch's compiler is a placeholder while a module of transformers is imported.

Only the command line does this: another program may want all of transformers. Tried with transformers 5.24, and with
5.0, which asks in another way: then what it imports is imported.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from stfit.cli.transformers_index import keep_index
from stfit.progress import task

COMPILER = "torch._dynamo"


def defer_imports() -> None:
    if not any(isinstance(finder, _TransformersFinder) for finder in sys.meta_path):
        sys.meta_path[:0] = [_TransformersFinder(), _TorchFinder()]


class _TorchFinder(MetaPathFinder):
    """Says that torch is loaded, which takes seconds."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == "torch" else None
        if spec and spec.loader:
            spec.loader = _TorchLoader(spec.loader)
        return spec


class _TorchLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__:
            module.__spec__.loader = module.__loader__ = self._loader
        with task("loading torch"):
            self._loader.exec_module(module)


class _TransformersFinder(MetaPathFinder):
    """Finds the modules of transformers, which are imported while placeholders are in place."""

    def __init__(self) -> None:
        self.is_importing = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if self.is_importing or not name.startswith("transformers."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec and spec.loader:
            spec.loader = _TransformersLoader(self, spec.loader)
        return spec


class _TransformersLoader(Loader):
    def __init__(self, finder: _TransformersFinder, loader: Loader) -> None:
        self._finder, self._loader = finder, loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._finder.is_importing = True
        try:
            with task("loading transformers"), _placeholders():
                self._loader.exec_module(module)
        except Exception:
            self._loader.exec_module(module)
        finally:
            self._finder.is_importing = False
        if import_utils := sys.modules.get("transformers.utils.import_utils"):
            keep_index(import_utils)


@contextmanager
def _placeholders() -> Iterator[None]:
    if COMPILER in sys.modules:
        yield
        return
    finder = _PlaceholderFinder()
    sys.meta_path.insert(0, finder)
    try:
        _answer_that_packages_are_missing()
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in filter(_is_compiler, [*sys.modules]):
            del sys.modules[name]
        vars(sys.modules.get("torch", sys)).pop("_dynamo", None)


def _is_compiler(name: str) -> bool:
    return name == COMPILER or name.startswith(f"{COMPILER}.")


def _answer_that_packages_are_missing() -> None:
    """The functions of transformers that ask for them cache the answers."""
    utils, distributed = sys.modules.get("transformers.utils.import_utils"), sys.modules.get("torch.distributed")
    if utils and distributed:
        answer_no: dict[str, Any] = {"is_available": lambda: False}
        with _replaced(sys.modules, {"scipy": None, "accelerate": None}), _replaced(vars(distributed), answer_no):
            for name in ("is_scipy_available", "is_accelerate_available", "is_torch_distributed_available"):
                ask = getattr(utils, name, bool)
                if ask() and hasattr(ask, "cache_clear"):  # transformers has asked already, and kept the answer
                    ask.cache_clear()
                    ask()


@contextmanager
def _replaced(entries: dict[str, Any], others: dict[str, Any]) -> Iterator[None]:
    before = dict(entries)
    entries.update(others)
    try:
        yield
    finally:
        for name in others:
            del entries[name]
        entries.update((name, before[name]) for name in others if name in before)


class _PlaceholderFinder(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if _is_compiler(name) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        vars(module)["__getattr__"] = lambda name: _placeholder(spec.name, name)
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


def _placeholder(module: str, name: str) -> Any:
    """Of the compiler itself, a decorator that does nothing; of its parts, a function that imports them."""
    if name.startswith("__"):
        raise AttributeError(name)
    if module == COMPILER:
        return _unchanged
    return lambda *arguments: getattr(import_module(module), name)(*arguments)


def _unchanged(function: Any = None, *_: Any, **__: Any) -> Any:
    return function if callable(function) else _unchanged

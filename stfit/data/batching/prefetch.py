"""Run an iterator in a thread, one item ahead of its consumer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def prefetch(items: Iterable[T]) -> Iterator[T]:
    """Yield the same items in the same order; computes the next one while one is used.

    An error of `items` is raised in place of the item. A consumer that stops early must close this iterator.
    """
    iterator, end = iter(items), object()

    def next_item() -> Any:
        return next(iterator, end)

    executor = ThreadPoolExecutor(max_workers=1)
    try:
        future = executor.submit(next_item)
        while (item := future.result()) is not end:
            future = executor.submit(next_item)
            yield item
    finally:
        executor.shutdown(wait=False)  # a signal must not wait for the next item

"""An iterator that runs in a thread, one item ahead of whoever takes from it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from queue import Queue
from typing import TypeVar

Item = TypeVar("Item")


class End:
    """Comes after the last item, with the error that ended the iterator, if one did."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetch(items: Iterable[Item]) -> Iterator[Item]:
    """The same items in the same order. While one is used the next is made, and one more may wait: memory for three.

    An error of `items` is raised where its item would have come. Whoever stops early closes this iterator.
    """
    waiting: Queue[Item | End] = Queue(maxsize=1)
    unwanted = threading.Event()

    def work() -> None:
        error = None
        try:
            for item in items:
                waiting.put(item)
                if unwanted.is_set():
                    return
        except BaseException as caught:  # raised again on the other side
            error = caught
        waiting.put(End(error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        unwanted.set()
        while thread.is_alive() and not waiting.empty():
            waiting.get_nowait()

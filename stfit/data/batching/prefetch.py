"""Run an iterator in a thread, one item ahead of its consumer."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from queue import Queue
from typing import TypeVar

T = TypeVar("T")


@dataclass
class _End:
    """Follows the last item; holds the error that ended the iterator, if any."""

    error: BaseException | None


def prefetch(items: Iterable[T]) -> Iterator[T]:
    """Yield the same items, computing the next one while one is used; up to three are in memory.

    Raises the errors of `items` in their place. A consumer that stops early must close this iterator.
    """
    queue: Queue[T | _End] = Queue(maxsize=1)
    stopped = threading.Event()

    def work() -> None:
        error = None
        try:
            for item in items:
                queue.put(item)
                if stopped.is_set():
                    return
        except BaseException as caught:  # raised again in the consumer
            error = caught
        queue.put(_End(error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while not isinstance(item := queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        while thread.is_alive() and not queue.empty():
            queue.get_nowait()

"""Where the time of a step goes. GPU kernels run asynchronously, so on a GPU the boundaries are approximate."""

import time
from collections import defaultdict


class Timer:
    """Seconds by activity."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last lap to `name`."""
        now = time.perf_counter()
        self.seconds[name] += now - self.last
        self.last = now

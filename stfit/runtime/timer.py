"""Where the time of a step goes. GPU kernels run asynchronously, so on a GPU the boundaries are approximate."""

import time
from collections import defaultdict


class Timer:
    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] += now - self.last
        self.last = now

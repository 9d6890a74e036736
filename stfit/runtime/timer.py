"""Where the time goes. A GPU works on while Python goes on: there, the parts of a step blur into one another."""

from __future__ import annotations

import time
from collections import defaultdict


class Timer:
    """Seconds by what they were spent on."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last lap to `name`."""
        now = time.perf_counter()
        self.seconds[name] += now - self.last
        self.last = now

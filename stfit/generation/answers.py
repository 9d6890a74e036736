"""What models have written, in a file beside the output: nothing is asked twice, whatever ends the program.

The key of an answer is all that it was made from: passage, prompt, model, settings and seed.
"""

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from stfit.errors import ResourceError

SETTINGS = ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = NORMAL")
"""A killed program loses nothing, a power failure the last answers; and nothing waits for the disk."""


class Answers:
    """Within `with`, lists of texts by key, each on disk as soon as it is put. Threads may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self.counts: Counter[str] = Counter()
        """What was done: requests, answers that were kept from before, ..."""

    def get(self, key: str) -> list[str] | None:
        found = self._execute("SELECT texts FROM answers WHERE key = ?", (key,))
        return json.loads(found[0][0]) if found else None

    def put(self, key: str, texts: Sequence[str]) -> None:
        self._execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(texts, ensure_ascii=False)))

    def _execute(self, statement: str, values: tuple[str, ...]) -> list[Any]:
        with self._lock:
            return self._execute_alone(statement, values)

    def _execute_alone(self, statement: str, values: tuple[str, ...]) -> list[Any]:
        try:
            if self._database is None:
                self._database = sqlite3.connect(
                    self.path,
                    isolation_level=None,
                    check_same_thread=False,  # every put is a transaction
                )
                for setting in SETTINGS:
                    self._database.execute(f"PRAGMA {setting}")
                self._database.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, texts TEXT)")
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise ResourceError(
                f"{self.path}: the file of answers can't be used ({error}): if another `stfit generate` writes it, "
                "wait for that; if it is damaged, delete it"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


def key_of(*made_from: Any) -> str:
    return sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()

"""Every fault at every request: the cases, run several at a time, each by a client of its own, and their table."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from hub.faults import Fault, of_account
from hub.server import Server
from hub.worker import Ended

Place = tuple[str, str]
"""Method and path of a request."""

ONCE = {
    "500": {"kind": "status", "status": 500},
    "403": {"kind": "status", "status": 403},
    "429, wait 1 s": {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}},
    "silence": {"kind": "hang"},
    "reset": {"kind": "reset"},
    "reset inside request": {"kind": "reset_inside_request", "after": 20},
    "lost reply": {"kind": "lost_reply"},
    "cut inside reply": {"kind": "cut", "after": 3},
    "reset inside reply": {"kind": "reset_inside_reply", "after": 3},
    "bit flipped": {"kind": "flip", "after": 1},
}
ALWAYS = {
    "500": {"kind": "status", "status": 500},
    "403": {"kind": "status", "status": 403},
    "429, wait 1 h": {"kind": "status", "status": 429, "headers": {"Retry-After": "3600"}},
    "silence": {"kind": "hang"},
    "a byte at a time": {"kind": "trickle", "after": 1},
    "bit flipped": {"kind": "flip", "after": 1},
}
ENDS = 403
"""A refusal ends it at once, also where it comes only once."""


@dataclass
class Case:
    """A fault at a request of one client, whose account is `name`."""

    name: str
    place: str
    fault: str
    always: bool
    order: Fault = field(repr=False)

    @property
    def token(self) -> str:
        return f"hf_{self.name}"

    @property
    def passes(self) -> bool:
        """Whether what was asked for has to come about all the same."""
        return not self.always and self.order.status != ENDS

    @property
    def struck(self) -> bool:
        return self.order.struck.is_set()


def all_cases(places: Mapping[str, Place]) -> Iterator[Case]:
    """Every fault at every place, once and always."""
    for place, (method, path) in places.items():
        for faults, always in ((ONCE, False), (ALWAYS, True)):
            for fault, how in faults.items():
                if method == "HEAD" and how["kind"] in ("cut", "reset_inside_reply", "flip"):
                    continue
                if method in ("HEAD", "GET") and how["kind"] == "reset_inside_request":
                    continue
                name = "-".join(re.sub(r"\W+", "-", word) for word in (place, fault, "always" if always else "once"))
                order = Fault(method, path, **how, times=1000 if always else 1)
                yield Case(name, place, fault, always, order)


def place_orders(hub: Server, cases: Iterable[Case], objects: Mapping[str, Iterable[str]]) -> None:
    """Open the accounts, and order the faults; `objects`: case -> sha256 of what only its client sends or fetches."""
    for case in cases:
        hub.account(case.token, case.name)
        case.order.client = "|".join([of_account(case.name), *objects[case.name]])
        hub.faults.append(case.order)


def show(title: str, cases: list[Case], ends: list[Ended]) -> None:
    """The table: what came of each fault, and how long it took."""
    lines = []
    for case, ended in zip(cases, ends, strict=True):
        often = ("always" if case.always else "once") if case.struck else "never asked"
        outcome = "done" if ended.code == 0 else f"exit {ended.code}: {ended.err.strip().splitlines()[-1:]}"
        lines.append(f"{title}  {case.place:12}  {case.fault:20}  {often:11}  {ended.seconds:5.1f} s  {outcome}")
    counts = Counter("done" if ended.code == 0 else "one line" for ended in ends)
    longest = max(ended.seconds for ended in ends)
    sys.stdout.write("\n".join([*lines, f"{title}: {len(cases)} cases, {dict(counts)}, longest {longest:.0f} s", ""]))


def require_one_line(case: Case, ended: Ended) -> None:
    """It failed as it should: exit code 5, and one sentence."""
    assert ended.code == 5, (case, ended)
    *before, last = ended.err.strip().splitlines()
    assert last.startswith("stfit: "), (case, ended)
    assert not [line for line in before if line.startswith(("stfit: ", "Traceback"))], (case, ended)

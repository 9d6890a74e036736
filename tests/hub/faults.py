"""What goes wrong between a client and the test Hub, on order."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from threading import Event
from typing import Literal

Kind = Literal[
    "status", "hang", "reset", "reset_inside_request", "lost_reply", "cut", "reset_inside_reply", "flip", "trickle"
]
"""
status                answers `status`, and does nothing
hang                  reads the request, then is silent until the client gives up
reset                 reads the request, then resets the connection (RST)
reset_inside_request  resets it after `after` bytes of the request's body
lost_reply            does what is asked, then resets the connection
cut                   ends the reply after `after` bytes of its body (FIN)
reset_inside_reply    resets the connection after `after` bytes of the reply's body
flip                  flips one bit of the reply's body, at byte `after`
trickle               sends the reply, its headers too, in pieces of `after` bytes, five a second
"""


def of_account(name: str) -> str:
    """A pattern that is found in the tokens of an account, and in the paths of its repositories."""
    return rf"(?<=[/_-]){name}(?![\w-])"


@dataclass
class Fault:
    """Strikes the requests of `method` whose path `path` is found in: not the first `skip`, then `times` of them.

    Only those of `client`, which is found in the token or in the path; storage is asked without a token.
    """

    method: str
    path: str
    kind: Kind
    skip: int = 0
    times: int = 1
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    after: int = 0
    client: str = ""
    struck: Event = field(default_factory=Event)

    def strikes(self, method: str, path: str, token: str) -> bool:
        """Whether this request is struck; counts it."""
        if self.method not in (method, "*") or not re.search(self.path, path):
            return False
        if not re.search(self.client, f"{token} {path}"):
            return False
        self.skip -= 1
        if self.skip >= 0 or self.times <= 0:
            return False
        self.times -= 1
        self.struck.set()
        return True

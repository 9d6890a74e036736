"""Requests and responses of the test Hub, as its endpoints see them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hub.state import Account, State


@dataclass(frozen=True)
class Request:
    """What a client asks. `base` is the address of the Hub, `storage` that of the (other) host that keeps objects."""

    state: State
    account: Account | None
    query: dict[str, str]
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes
    base: str
    storage: str

    def json(self) -> Any:
        return json.loads(self.body or b"{}")


@dataclass
class Response:
    """What it is told."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """A request that is answered with an error, in the Hub's way: a code for the client, a message for people."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        super().__init__(message)
        error_headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        body = json.dumps({"error": message}).encode()
        self.response = Response(status, body, {"Content-Type": "application/json", **error_headers, **headers})


def reply(value: Any, status: int = 200, **headers: str) -> Response:
    """JSON."""
    return Response(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


def part_of(content: bytes, range_header: str | None, headers: dict[str, str]) -> Response:
    """A file's bytes, or the range of them that a Range header asks for."""
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
    if not range_header:
        return Response(200, content, headers)
    first, last = byte_range(range_header, len(content))
    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return Response(206, content[first : last + 1], headers)


def byte_range(range_header: str, size: int) -> tuple[int, int]:
    """First and last byte that `bytes=a-b` names."""
    start, _, stop = range_header.removeprefix("bytes=").partition("-")
    if not start:
        return max(0, size - int(stop)), size - 1
    if int(start) >= size:
        raise Refusal(416, "there are no such bytes", **{"Content-Range": f"bytes */{size}"})
    return int(start), min(int(stop) if stop else size - 1, size - 1)

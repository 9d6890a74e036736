"""A Hub on this machine: enough of https://huggingface.co for the real clients to push to and load from.

It speaks both upload paths (LFS and Xet), keeps accounts, private and gated repositories, breaks on order (see
faults.py), and remembers every request. Large objects are kept by `another host`: localhost, while the Hub itself is
127.0.0.1. Clients read HF_ENDPOINT when they are imported, so run what is tested in a subprocess, with `env`.
"""

from __future__ import annotations

import io
import os
import re
import socket
import struct
import threading
import traceback
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

from hub.faults import Fault
from hub.messages import Refusal, Request, Response
from hub.reading import READING
from hub.state import Account, State
from hub.storage import STORAGE
from hub.writing import WRITING

ROUTES = [*READING, *STORAGE, *WRITING]


@dataclass
class Logged:
    """A request that was received, and its answer."""

    method: str
    path: str
    """With the query."""
    host: str
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes
    status: int | None = None
    """None where there was no answer."""

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


@dataclass
class Server:
    """A running Hub. Use it in a `with`."""

    state: State = field(default_factory=State)
    faults: list[Fault] = field(default_factory=list)
    log: list[Logged] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self.sockets = Sockets(("127.0.0.1", 0), Handler)
        self.sockets.hub = self
        self.port = self.sockets.server_address[1]
        self.thread = threading.Thread(target=self.sockets.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.sockets.shutdown()
        self.sockets.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def env(self, home: Path, token: str | None = None, *, xet: bool = True) -> dict[str, str]:
        """The environment of a client that knows this Hub only. `home` becomes HF_HOME; without `xet`, LFS is used."""
        closed = "http://127.0.0.1:9"  # where anything goes that is not meant for this machine
        kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(("HF_", "HUGGING"))}
        environment = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HTTP_PROXY": closed,
            "HTTPS_PROXY": closed,
            "NO_PROXY": "127.0.0.1,localhost",
        }
        environment |= {"HF_TOKEN": token} if token else {}
        return kept | environment | ({} if xet else {"HF_HUB_DISABLE_XET": "1"})

    def break_(self, method: str, path: str, kind: str, **how: object) -> Fault:
        """Order a fault; see faults.py."""
        fault = Fault(method, path, kind, **how)
        self.faults.append(fault)
        return fault

    def requests(self, method: str = "", path: str = "") -> list[Logged]:
        """The logged requests of a method, whose path the pattern is found in."""
        return [entry for entry in self.log if entry.method.startswith(method) and re.search(path, entry.path)]

    def account(self, token: str, name: str, **traits: object) -> str:
        """Open an account (`role`, `orgs`); gives the token."""
        self.state.accounts[token] = Account(name, **traits)
        return token

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Response:
        """Do what is asked."""
        address = urlsplit(path)
        handler_method = "GET" if method == "HEAD" else method
        try:
            for route_method, pattern, endpoint in ROUTES:
                if route_method == handler_method and (match := re.fullmatch(pattern, address.path)):
                    named = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
                    with self.lock:
                        if led := self.new_address(path, named):
                            return Response(307, b"", {"Location": led})
                        return endpoint(self.request(address.query, headers, body), **named)
            raise Refusal(404, "no such endpoint")
        except Refusal as refusal:
            return refusal.response

    def new_address(self, path: str, named: dict[str, str]) -> str | None:
        """Where a repository went that was renamed."""
        old = named.get("id", "")
        new = self.state.moved.get((named.get("kind", "model"), old))
        return path.replace(f"/{old}", f"/{new}", 1) if new else None

    def request(self, query: str, headers: dict[str, str], body: bytes) -> Request:
        """What an endpoint gets to see. Raises Refusal for a token that nobody has."""
        token = headers.get("authorization", "").removeprefix("Bearer ")
        account = self.state.accounts.get(token)
        if token and account is None and not token.startswith("xet-"):
            raise Refusal(401, "Invalid credentials in Authorization header")
        storage = f"http://localhost:{self.port}"
        return Request(self.state, account, dict(parse_qsl(query)), headers, body, self.url, storage)


class Sockets(ThreadingHTTPServer):
    """One thread a connection."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    hub: Server

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news; anything else is a mistake in this server."""
        error = traceback.format_exc()
        if "ConnectionResetError" not in error and "BrokenPipeError" not in error:
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Reads a request, lets its fault strike, answers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Sockets

    def handle_any(self) -> None:
        hub = self.server.hub
        headers = {name.lower(): value for name, value in self.headers.items()}
        with hub.lock:
            token = headers.get("authorization", "")
            fault = next((fault for fault in hub.faults if fault.strikes(self.command, self.path, token)), None)
        kind = fault.kind if fault else None
        body = self.read_body(headers, fault.after if fault and kind == "reset_inside_request" else None)
        entry = Logged(self.command, self.path, headers.get("host", ""), headers, body)
        hub.log.append(entry)
        if fault is None:
            response = hub.answer(self.command, self.path, headers, body)
        elif kind == "hang":
            hub.stopping.wait()
            return self.reset()
        elif kind in ("reset", "reset_inside_request"):
            return self.reset()
        elif kind == "status":
            response = Response(fault.status, b'{"error": "on order"}', dict(fault.headers))
        else:
            response = hub.answer(self.command, self.path, headers, body)
        if kind == "lost_reply":
            return self.reset()
        entry.status = response.status
        self.send(response, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def read_body(self, headers: dict[str, str], at_most: int | None) -> bytes:
        """The request's body, which has to be read before any answer, or it would be taken for the next request."""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        size = int(headers.get("content-length", 0))
        return self.rfile.read(size if at_most is None else min(size, at_most))

    def send(self, response: Response, fault: Fault | None) -> None:
        """The response, as far as its fault lets it through."""
        kind = fault.kind if fault else None
        if fault and kind == "trickle":
            return self.send_slowly(response, fault.after)
        body = bytearray(response.body)
        if fault and kind == "flip" and body:
            body[min(fault.after, len(body) - 1)] ^= 1
        self.send_response_only(response.status)
        for name, value in ({"Content-Length": str(len(body))} | response.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        broken = fault is not None and kind in ("cut", "reset_inside_reply")
        self.wfile.write(body[: fault.after] if fault is not None and broken else body)
        if kind == "reset_inside_reply":
            self.reset()
        elif broken:
            self.close_connection = True

    def send_slowly(self, response: Response, piece: int) -> None:
        """The response in small pieces."""
        connection, self.wfile = self.wfile, io.BytesIO()
        self.send(response, None)
        whole, self.wfile = self.wfile.getvalue(), connection
        for at in range(0, len(whole), piece):
            self.wfile.write(whole[at : at + piece])
            if self.server.hub.stopping.wait(0.2):
                return self.reset()

    def reset(self) -> None:
        """Close the connection in the rude way (RST), at once."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def log_message(self, *_: object) -> None:
        """The log is kept, not printed."""

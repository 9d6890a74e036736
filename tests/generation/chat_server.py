"""A server on this machine that speaks the OpenAI chat protocol, and misbehaves on order."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


@dataclass
class ChatServer:
    address: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies, each with the header `key`."""
    faults: list[Reply | None] = field(default_factory=list)
    """Replies to the next requests; None closes the connection in the middle of one."""
    answer: Callable[[dict[str, Any]], str] = lambda body: json.dumps([f"what about {body['messages'][0]['content']}?"])
    """The content of a message that answers."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply_to(self, body: dict[str, Any]) -> Reply | None:
        with self.lock:
            self.requests.append(body)
            if self.faults:
                return self.faults.pop(0)
        return completion(self.answer(body))

    @property
    def asked(self) -> list[str]:
        """What the model was asked first in each conversation."""
        return [body["messages"][0]["content"] for body in self.requests]


def completion(content: str, encoding: str = "utf-8") -> Reply:
    said = {
        "choices": [{"message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }
    header = {"Content-Type": f"application/json; charset={encoding}"}
    return 200, header, json.dumps(said, ensure_ascii=False).encode(encoding)


def failure(status: int, message: str = "no", **headers: str) -> Reply:
    return status, headers, json.dumps({"error": {"message": message}}).encode()


@contextmanager
def running() -> Iterator[ChatServer]:
    chat = ChatServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = chat.reply_to(body | {"key": self.headers.get("Authorization"), "path": self.path})
            status, headers, content = reply or (200, {"Content-Type": "application/json"}, b'{"choices": [')
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content) + (100 if reply is None else 0)))
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = reply is None

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda request, address: None  # a client that no longer listens
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    chat.address = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

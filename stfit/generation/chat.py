"""Requests to a server that speaks the OpenAI chat protocol, with retries and its limits obeyed.

The key is read from OPENAI_API_KEY, and is in no message.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

from stfit.errors import EndpointError
from stfit.hub.client import http_library
from stfit.io.display import shorten

KEY = "OPENAI_API_KEY"
PAUSES = (0.5, 1, 2, 4, 8)
"""Seconds before each retry, where the server does not say how long to wait."""
MAX_WAITING = 600
"""Seconds that a request waits in all for a server whose limit is reached."""
MAX_BYTES = 2**24
"""Of an answer."""
NO_ACCESS = (401, 403)


class RefusedRequest(Exception):
    """The server does not take this request, and would not take it again."""


class _TryAgain(Exception):
    """What went wrong, and the seconds that the server asks to wait: 0 if it does not say."""

    def __init__(self, reason: str, seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Chat:
    """Within `with`, call it with messages to get the answer. Threads may share it."""

    def __init__(self, endpoint: str, body: dict[str, Any], timeout: float, counts: Counter[str]) -> None:
        self._endpoint, self._body, self._timeout = endpoint.rstrip("/"), body, timeout
        self._key = os.environ.get(KEY, "").strip()
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        needs_certificates = endpoint.startswith("https")  # they take half a second to load
        limits = http_library().Limits(max_connections=None)
        self._client = http_library().Client(timeout=timeout, headers=headers, limits=limits, verify=needs_certificates)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._wait_until = 0.0
        """A limit holds for all requests."""
        self._counts = counts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._client.close()

    def __call__(self, messages: list[dict[str, str]]) -> str:
        """The answer. Raises RefusedRequest, or EndpointError if the server can't be reached or does not let us in."""
        waited = 0.0
        pauses = iter(PAUSES)
        while True:
            if self._ended.wait(max(0.0, self._wait_until - time.monotonic())):
                raise RefusedRequest("another request has failed")
            try:
                return self._try(messages)
            except _TryAgain as failure:
                pause, waited = failure.seconds or next(pauses, 0.0), waited + failure.seconds
                if not pause or waited > MAX_WAITING:
                    asked = f", and asks to wait {pause:.0f} s" if pause else ""
                    raise EndpointError(f"{self._endpoint} {failure}{asked}") from failure
            with self._lock:
                self._wait_until = max(self._wait_until, time.monotonic() + pause)

    def _try(self, messages: list[dict[str, str]]) -> str:
        self.count("requests")
        try:
            response, content = self._post(messages)
        except http_library().TimeoutException as error:
            raise _TryAgain(f"does not answer within {self._timeout:g} s") from error
        except http_library().HTTPError as error:
            reason = self._without_key(str(error)) or type(error).__name__
            raise _TryAgain(f"can't be reached ({reason})") from error
        except RuntimeError:  # the client is closed
            raise RefusedRequest("another request has failed") from None
        status = response.status_code
        answer = self._read(content, response.charset_encoding or "utf-8") if status == 200 else None
        if answer is not None:
            return answer
        reason = self._without_key(_reason(content))
        if status == 200:
            raise _TryAgain(f"sends what is no answer of the chat protocol: {reason!r}")
        if status in NO_ACCESS:
            hint = f"check {KEY}" if self._key else f"it wants a key: set {KEY} in the environment"
            raise EndpointError(f"{self._endpoint} answers with status {status}: {hint} ({reason})")
        if status in (408, 429) or status >= 500:
            raise _TryAgain(f"answers with status {status}: {reason}", seconds_to_wait(response.headers))
        raise RefusedRequest(f"status {status}: {reason}")

    def _post(self, messages: list[dict[str, str]]) -> tuple[Any, bytes]:
        """The response and its content; the client's own limit of time is for each piece, not for the whole."""
        end = time.monotonic() + self._timeout
        content = bytearray()
        request = self._body | {"messages": messages}
        with self._client.stream("POST", f"{self._endpoint}/chat/completions", json=request) as response:
            for piece in response.iter_bytes():
                content += piece
                if time.monotonic() > end:
                    raise http_library().ReadTimeout("it sends an answer too slowly")
                if len(content) > MAX_BYTES:
                    raise http_library().ReadError("it sends an answer without end")
        return response, bytes(content)

    def _read(self, content: bytes, encoding: str) -> str | None:
        """The text of an answer; None if it is not one."""
        try:
            said = json.loads(content.decode(encoding))
            answer = said["choices"][0]["message"]["content"]
            usage = dict(said.get("usage") or {})
        except (ValueError, LookupError, TypeError, AttributeError):
            return None
        for name in ("prompt_tokens", "completion_tokens"):
            self.count(name, usage[name] if isinstance(usage.get(name), int) else 0)
        return answer if isinstance(answer, str) else ""

    def count(self, name: str, number: int = 1) -> None:
        with self._lock:
            self._counts[name] += number

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "...") if self._key else text


def seconds_to_wait(headers: Any) -> float:
    """What Retry-After says, as a number of seconds or as a date; 0 if it says nothing."""
    value = str(headers.get("Retry-After", "")).strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def _reason(content: bytes) -> str:
    """What the server says, on one line."""
    text = content[:2000].decode("utf-8", "replace")
    try:
        said = json.loads(content)["error"]
        text = said["message"] if isinstance(said, dict) else said
    except (ValueError, LookupError, TypeError):
        pass
    return shorten(" ".join(str(text).split()), 200)

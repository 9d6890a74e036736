"""Errors of the Hub's client as one sentence: what went wrong, and what to do."""

import errno
import re
from collections.abc import Iterator
from typing import Any, Literal

from stfit.errors import HubError, Problem, ResourceError, StfitError, did_you_mean
from stfit.hub.client import client, constants, errors

Kind = Literal["model", "dataset"]

OUT_OF_REACH = "hub-out-of-reach"
"""Code of a problem that may be temporary."""
REFUSED = "hub-refused"
"""Code of a problem that stays until something is changed."""
NOT_THERE = "hub-not-there"
"""Code of a repository that does not exist or is hidden from this account."""
NO_REVISION = "hub-no-revision"
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
XET_STATUS = re.compile(r"HTTP status \w+ error \((\d{3})")
ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


class StalledError(Exception):
    """A transfer to or from the Hub made almost no progress."""


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes; the client often wraps the reason in another error."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_retryable(error: Exception) -> bool:
    """Whether the same request may succeed soon: no response, a broken one, or a server error."""
    if _is_about(error, errors.HFValidationError, errors.OfflineModeIsEnabled, StalledError) or _disk_error(error):
        return False
    status = _status_of(error)
    return status is None or status in (408, 429) or status >= 500


def retry_after(error: Exception) -> int:
    """Seconds that the server asks to wait before a retry."""
    value = str(getattr(_response_of(error), "headers", {}).get("Retry-After", ""))
    return int(value) if value.isdigit() else 0


def explain_error(error: Exception, kind: Kind, id: str, revision: str | None) -> StfitError:
    if reason := _disk_error(error):
        return ResourceError(
            f"cannot store the {kind} `{id}` in {constants.HF_HUB_CACHE}: {reason}; set HF_HOME to another folder"
        )
    if _is_about(error, errors.HFValidationError):
        return HubError(_not_an_id(kind, id))
    if _is_about(error, errors.OfflineModeIsEnabled):
        return HubError(not_cached(kind, id))
    status = _status_of(error)
    if _is_about(error, StalledError) or status is None:
        message = f"the Hub ({constants.ENDPOINT}) {_connection_error(error)}: {kind} `{id}`"
    elif status == 429:
        message = f"the Hub's rate limit is reached: {kind} `{id}`; try again later"
    elif status >= 500:
        message = f"the Hub has an internal error (status {status}): {kind} `{id}`; try again later"
    else:
        return HubError(_refusal(error, status, kind, id, revision))
    return HubError(Problem(message, OUT_OF_REACH))


def _not_an_id(kind: Kind, id: str) -> Problem:
    message = f"`{id}` is not a valid id of a {kind} on the Hub (`owner/name`); a path starts with ./ or /"
    return Problem(message, REFUSED)


def not_cached(kind: Kind, id: str) -> Problem:
    if not ID.fullmatch(id):  # the client checks it only online
        return _not_an_id(kind, id)
    message = f"HF_HUB_OFFLINE is set and the {kind} `{id}` is not in the cache: run `stfit fetch RECIPE` online"
    return Problem(message, OUT_OF_REACH)


def _is_about(error: BaseException, *types: type[BaseException]) -> bool:
    return any(isinstance(cause, types) for cause in causes_of(error))


def _response_of(error: BaseException) -> Any:
    responses = (getattr(cause, "response", None) for cause in causes_of(error))
    return next((response for response in responses if response is not None), None)


def _status_of(error: BaseException) -> int | None:
    if (response := _response_of(error)) is not None:
        return int(response.status_code)
    matches = (XET_STATUS.search(str(cause)) for cause in causes_of(error))  # Xet has the status in its message only
    return next((int(match[1]) for match in matches if match), None)


def _disk_error(error: BaseException) -> str | None:
    disk = (cause for cause in causes_of(error) if isinstance(cause, OSError) and cause.errno in DISK_ERRORS)
    return next((cause.strerror for cause in disk), None)


def _connection_error(error: BaseException) -> str:
    causes = list(causes_of(error))
    names = " ".join(type(cause).__name__ for cause in causes)
    if stalled := next((cause for cause in causes if isinstance(cause, StalledError)), None):
        return f"stopped responding; {stalled}"
    if "Timeout" in names:
        return f"did not answer within {constants.HF_HUB_DOWNLOAD_TIMEOUT} s"
    if "ConnectError" in names:
        return "can't be reached"
    if _is_about(error, ValueError):
        return "sent a response that can't be read"
    reason, *_ = str(causes[-1]).strip().splitlines() or [""]
    shown = re.sub(r"\?\S+", "", reason)[:200]  # the query of a URL may hold a signature
    return f"closed the connection ({type(causes[-1]).__name__}: {shown})"


def _refusal(error: BaseException, status: int, kind: Kind, id: str, revision: str | None) -> Problem:
    # The types are compared exactly: GatedRepoError is a RepositoryNotFoundError.
    types = {type(cause) for cause in causes_of(error)}
    has_token = client.get_token() is not None
    if errors.GatedRepoError in types:
        request = f"request access at {constants.ENDPOINT}/{'' if kind == 'model' else 'datasets/'}{id}"
        return Problem(f"the {kind} `{id}` is gated: {request if has_token else f'{LOG_IN}, and {request}'}", REFUSED)
    if errors.RepositoryNotFoundError in types:
        otherwise = "request access if it is private" if has_token else f"if it is private, {LOG_IN}"
        return Problem(f"the Hub has no {kind} `{id}`: check the spelling, or {otherwise}", NOT_THERE)
    if errors.RevisionNotFoundError in types:
        hint = _similar_revisions(kind, id, revision or "")
        return Problem(f"the {kind} `{id}` has no revision `{revision}`{hint}", NO_REVISION)
    if status == 401:
        return Problem(f"the Hub does not accept the token: {LOG_IN}", REFUSED)
    messages = (getattr(cause, "server_message", None) for cause in causes_of(error))
    reason = "; ".join(next(filter(None, messages), f"status {status}").splitlines())
    refused = "rejects what it was sent for" if status == 400 else "refuses access to"
    return Problem(f"the Hub {refused} the {kind} `{id}`: {reason}", REFUSED)


def _similar_revisions(kind: Kind, id: str, revision: str) -> str:
    try:
        refs = client.HfApi().list_repo_refs(id, repo_type=kind)
    except Exception:  # a hint is not worth a second error
        return ""
    hint = did_you_mean(revision, [ref.name for ref in (*refs.branches, *refs.tags)])
    return f"; {hint}" if hint else ""

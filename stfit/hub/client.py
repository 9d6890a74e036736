"""huggingface_hub, loaded on first use."""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from stfit.lazy import lazy

if TYPE_CHECKING:
    import huggingface_hub as client
    from huggingface_hub import constants, errors
else:
    client = lazy("huggingface_hub")
    constants, errors = lazy("huggingface_hub.constants"), lazy("huggingface_hub.errors")

__all__ = ["client", "constants", "errors", "http_library"]


@cache
def http_library() -> Any:
    """The client's HTTP library: httpx, or httpx2 since huggingface_hub 2.4."""
    return import_module(type(client.get_session()).__module__.partition(".")[0])

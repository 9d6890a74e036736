"""huggingface_hub, loaded on first use."""

from typing import TYPE_CHECKING

from stfit.lazy import lazy

if TYPE_CHECKING:
    import huggingface_hub as client
    from huggingface_hub import constants, errors
else:
    client = lazy("huggingface_hub")
    constants, errors = lazy("huggingface_hub.constants"), lazy("huggingface_hub.errors")

__all__ = ["client", "constants", "errors"]

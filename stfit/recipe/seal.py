"""A text that carries its digest: a YAML file that was cut in half may still be valid."""

import re
from hashlib import sha256

SEAL = re.compile(r"# sha256 of all lines below: ([0-9a-f]{64})\n")


def seal(text: str) -> str:
    """The text below a comment with its digest."""
    return f"# sha256 of all lines below: {sha256(text.encode()).hexdigest()}\n{text}"


def is_sealed(text: str) -> bool:
    return SEAL.match(text) is not None


def is_damaged(text: str) -> bool:
    """Whether a text does not fit the digest above it; one without a digest is not known to be damaged."""
    sealed = SEAL.match(text)
    return sealed is not None and sha256(text[sealed.end() :].encode()).hexdigest() != sealed[1]

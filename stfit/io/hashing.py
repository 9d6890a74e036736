from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any


def hash_file(path: Path, digest: Any = None) -> str:
    """Feed a file to `digest`, a new sha256 by default; returns the digest as hex. Raises OSError."""
    with path.open("rb") as stream:
        return file_digest(stream, lambda: sha256() if digest is None else digest).hexdigest()


def hash_buffers(*parts: Any) -> str:
    """sha256 of bytes and of contiguous arrays; their lengths are hashed too, so that boundaries count."""
    digest = sha256()
    for part in parts:
        view = memoryview(part)
        digest.update(view.nbytes.to_bytes(8, "little"))
        digest.update(view.cast("B") if view.nbytes else b"")
    return digest.hexdigest()

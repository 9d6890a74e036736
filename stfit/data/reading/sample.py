"""A digest of a dataset that reads little of it: parts of a large one are told apart from those of another."""

from hashlib import sha256
from pathlib import Path

from stfit.data.object_store import is_stored, version_of
from stfit.data.reading.local_files import files_of_splits
from stfit.data.source import TableSource

BLOCKS = 256
BLOCK_BYTES = 4096


def fingerprint_sample(source: TableSource) -> str:
    """Of the names and sizes of all files and of some blocks of them, evenly spread; on the Hub, of what is named.

    A change that keeps the size, within other bytes than these, is not seen.
    """
    digest = sha256(source.model_dump_json(exclude={"dataset"}).encode())
    files = files_of_splits(source)
    if files is None:
        digest.update(source.dataset.encode())
        return digest.hexdigest()
    return fingerprint_sample_of(files, digest.digest())


def fingerprint_sample_of(files: list[Path], beside: bytes = b"") -> str:
    digest = sha256(beside)
    total = sum(path.stat().st_size for path in files)
    step = max(BLOCK_BYTES, total // BLOCKS)
    ahead = 0
    """Bytes until the next block."""
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        if is_stored(path):
            digest.update(version_of(path).encode())
        elif ahead < size:
            with path.open("rb") as file:
                for start in range(ahead, size, step):
                    file.seek(start)
                    digest.update(file.read(BLOCK_BYTES))
        ahead = (ahead - size) % step
    return digest.hexdigest()

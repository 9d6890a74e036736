"""Cache of token ids, so that a corpus is tokenized once for all runs that use it.

One Arrow file per (tokenizer and its settings, texts), memory-mapped when read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stfit.data.cache.folder import cache_folder, limit_bytes, mark_used, trim_cache
from stfit.io.atomic import atomic_cache_entry
from stfit.io.hashing import hash_buffers
from stfit.lazy import lazy
from stfit.progress import track

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

log = logging.getLogger("stfit")

MIN_CACHED_TEXTS = 20_000
"""Tokenizing fewer texts takes no longer than looking them up."""

DIGEST = "sha256"
"""Key of the digest in the metadata of a file."""

TOKENIZE_BATCH_SIZE = 5_000
"""Texts per call of the tokenizer, which a signal can't interrupt."""

Tokenize = Callable[[Sequence[str]], list[np.ndarray]]


def load_tokens(texts: list[str], tokenize: Tokenize, cache_name: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Concatenated token ids of all texts (int32), and the start of each text, plus the end of the last.

    `cache_name` identifies the tokenizer and its settings; None caches nothing.
    """
    if cache_name is None or len(texts) < MIN_CACHED_TEXTS:
        return _tokenize_all(texts, tokenize)
    path = cache_folder("tokens") / f"{cache_key(texts, cache_name)}.arrow"
    limit = limit_bytes()
    try:
        tokens = _read(path, len(texts))
        mark_used(path)
        return tokens
    except (OSError, ValueError):  # missing or damaged; pyarrow's errors derive from both
        flat, starts = _tokenize_all(texts, tokenize)
    try:
        if flat.nbytes + starts.nbytes <= limit:
            _write(path, flat, starts)
            trim_cache(path)
    except OSError as error:  # a full or read-only disk must not end the run
        log.warning("token ids can't be cached for the next run: %s", error)
    return flat, starts


def _tokenize_all(texts: list[str], tokenize: Tokenize) -> tuple[np.ndarray, np.ndarray]:
    sequences = [
        ids
        for start in track(range(0, len(texts), TOKENIZE_BATCH_SIZE), f"tokenizing {len(texts):,} texts")
        for ids in tokenize(texts[start : start + TOKENIZE_BATCH_SIZE])
    ]
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in sequences], dtype=np.int64)])
    return np.concatenate(sequences), starts


def cache_key(texts: list[str], processor: str) -> str:
    """sha256 of texts and of what processes them; text lengths are hashed too, so that boundaries count."""
    digest = sha256(processor.encode())
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def _write(path: Path, flat: np.ndarray, starts: np.ndarray) -> None:
    column = pa.LargeListArray.from_arrays(pa.array(starts), pa.array(flat))
    schema = pa.schema([("tokens", column.type)], {DIGEST: hash_buffers(flat, starts)})
    with (
        atomic_cache_entry(path) as temporary,
        pa.OSFile(str(temporary), "wb") as stream,
        pa.ipc.new_file(stream, schema) as file,
    ):
        file.write_batch(pa.record_batch([column], schema))


def _read(path: Path, texts: int) -> tuple[np.ndarray, np.ndarray]:
    file = pa.ipc.open_file(pa.memory_map(str(path)))
    column = file.get_batch(0).column("tokens")
    if len(column) != texts:
        raise ValueError(f"{path} holds {len(column)} texts instead of {texts}")
    flat, starts = column.values.to_numpy(), column.offsets.to_numpy()
    if (file.schema.metadata or {}).get(DIGEST.encode()) != hash_buffers(flat, starts).encode():
        raise ValueError(f"{path} differs from its digest")
    return flat, starts

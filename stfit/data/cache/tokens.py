"""Token ids on disk, so that a corpus is tokenised once over all runs that use it.

One Arrow file per (tokenizer, limit, texts), memory-mapped when read. Deleting the folder loses nothing but time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stfit.lazy import lazy

if TYPE_CHECKING:
    import huggingface_hub.constants as hub
    import pyarrow as pa
else:
    pa, hub = lazy("pyarrow"), lazy("huggingface_hub.constants")

log = logging.getLogger("stfit")

WORTH_KEEPING = 20_000
"""Fewer texts than this are tokenised in the time that looking them up would take."""

AT_ONCE = 5_000
"""Texts that are tokenised in one call: a signal waits for its end."""

Tokenize = Callable[[Sequence[str]], list[np.ndarray]]


def load_tokens(texts: list[str], tokenize: Tokenize, tokenizer: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of all texts end to end (int32), and where each text starts; one more start than texts.

    `tokenizer` names the tokenizer and its settings. Corpora of WORTH_KEEPING texts are kept on disk, if it is named.
    """
    if tokenizer is None or len(texts) < WORTH_KEEPING:
        return _lay_out(_tokenize_all(texts, tokenize))
    path = cache_folder("tokens") / f"{cache_key(texts, tokenizer)}.arrow"
    try:
        return _read(path, len(texts))
    except (OSError, ValueError):  # not there yet, or damaged: pyarrow's errors are kinds of both
        flat, starts = _lay_out(_tokenize_all(texts, tokenize))
    try:
        _write(path, flat, starts)
    except OSError as error:  # a full or read-only disk costs the next run some time, not this one its life
        log.warning("token ids are not kept for the next run: %s", error)
    return flat, starts


def _tokenize_all(texts: list[str], tokenize: Tokenize) -> list[np.ndarray]:
    """Token ids of each text."""
    return [ids for start in range(0, len(texts), AT_ONCE) for ids in tokenize(texts[start : start + AT_ONCE])]


def cache_folder(kind: str) -> Path:
    """Where the Hugging Face libraries want such files: $HF_ASSETS_CACHE/stfit."""
    return Path(hub.HF_ASSETS_CACHE) / "stfit" / kind


def cache_key(texts: list[str], tokenizer: str) -> str:
    """Name of a corpus under a tokenizer; a length before each text keeps neighbours apart."""
    found = sha256(tokenizer.encode())
    for text in texts:
        data = text.encode()
        found.update(len(data).to_bytes(8, "little"))
        found.update(data)
    return found.hexdigest()


def _lay_out(sequences: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Sequences end to end, and where each starts."""
    starts = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences], dtype=np.int64)])
    return np.concatenate(sequences), starts


def _write(path: Path, flat: np.ndarray, starts: np.ndarray) -> None:
    """One column of lists of token ids; a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    column = pa.LargeListArray.from_arrays(pa.array(starts), pa.array(flat))
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    with pa.OSFile(str(scratch), "wb") as stream, pa.ipc.new_file(stream, pa.schema([("tokens", column.type)])) as file:
        file.write_batch(pa.record_batch([column], names=["tokens"]))
    scratch.replace(path)


def _read(path: Path, texts: int) -> tuple[np.ndarray, np.ndarray]:
    """What `write` wrote, memory-mapped. Raises OSError or ValueError where it can't be used."""
    column = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0).column("tokens")
    if len(column) != texts:
        raise ValueError(f"{path} holds {len(column)} texts instead of {texts}")
    return column.values.to_numpy(), column.offsets.to_numpy()

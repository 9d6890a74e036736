"""The part of the Xet protocol that a client needs to push and to fetch a file (https://huggingface.co/docs/xet).

Uploads are unpacked at once: a xorb (a run of compressed chunks) into its chunks, a shard (which chunks make up which
file) into whole files. Downloads are packed anew, without compression, so that a file which never came through Xet
can be fetched through it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from hashlib import sha256

import pyarrow

CHUNK = 64 * 1024
HEADER = 8
"""Bytes before a chunk: version, compressed length (3), scheme, raw length (3)."""
RECORD = 48
"""Bytes of every entry of a shard."""
END = b"\xff" * 32
HAS_VERIFICATION, HAS_METADATA = 1 << 31, 1 << 30


def hash_text(raw: bytes) -> str:
    """32 bytes as the protocol writes them: each group of 8 reversed, in hex."""
    return b"".join(raw[i : i + 8][::-1] for i in range(0, 32, 8)).hex()


def unpack_chunks(xorb: bytes) -> list[bytes]:
    """The raw chunks of a xorb; what follows the last one is an index that nobody needs here."""
    chunks, at = [], 0
    while at + HEADER <= len(xorb) and xorb[at] == 0:
        packed, raw = int.from_bytes(xorb[at + 1 : at + 4], "little"), int.from_bytes(xorb[at + 5 : at + 8], "little")
        chunks.append(unpack(xorb[at + 4], xorb[at + HEADER : at + HEADER + packed], raw))
        at += HEADER + packed
    return chunks


def unpack(scheme: int, data: bytes, size: int) -> bytes:
    """Scheme 0 is raw, 1 an LZ4 frame, 2 the same of bytes sorted by their place in groups of four."""
    if scheme == 0:
        return data
    flat = pyarrow.decompress(data, size, codec="lz4", asbytes=True)
    if scheme == 1:
        return flat
    raw, at = bytearray(size), 0
    for place in range(4):
        count = len(range(place, size, 4))
        raw[place::4] = flat[at : at + count]
        at += count
    return bytes(raw)


def pack_chunks(content: bytes) -> bytes:
    """A file as the chunks of one xorb, uncompressed."""
    packed = []
    for at in range(0, len(content), CHUNK):
        chunk = content[at : at + CHUNK]
        size = len(chunk).to_bytes(3, "little")
        packed.append(b"\0" + size + b"\0" + size + chunk)
    return b"".join(packed)


@dataclass
class XetStore:
    """What was pushed through Xet: chunks by xorb, files by sha256."""

    chunks: dict[str, list[bytes]] = field(default_factory=dict)

    def add_xorb(self, name: str, xorb: bytes) -> None:
        self.chunks[name] = unpack_chunks(xorb)

    def files_of(self, shard: bytes) -> list[bytes]:
        """The files that a shard describes. Raises ValueError where one is not what its sha256 says."""
        files, at = [], RECORD
        while shard[at : at + 32] != END:
            flags, count = struct.unpack_from("<II", shard, at + 32)
            at += RECORD
            content = b""
            for _ in range(count):
                first, end = struct.unpack_from("<II", shard, at + 40)
                content += b"".join(self.chunks[hash_text(shard[at : at + 32])][first:end])
                at += RECORD
            at += RECORD * count * bool(flags & HAS_VERIFICATION)
            if flags & HAS_METADATA:
                if hash_text(shard[at : at + 32]) != sha256(content).hexdigest():
                    raise ValueError("a file is not what its sha256 says")
                at += RECORD
            files.append(content)
        return files


def reconstruction(name: str, content: bytes, first: int, last: int, address: str) -> dict:
    """Which chunks hold the bytes `first` to `last` (inclusive) of a file, and where its xorb can be fetched."""
    begin, end = first // CHUNK, last // CHUNK + 1
    raw = min(end * CHUNK, len(content)) - begin * CHUNK
    chunks = {"start": begin, "end": end}
    place = {"start": begin * (CHUNK + HEADER), "end": begin * (CHUNK + HEADER) + raw + (end - begin) * HEADER - 1}
    return {
        "offset_into_first_range": first - begin * CHUNK,
        "terms": [{"hash": name, "unpacked_length": raw, "range": chunks}],
        "fetch_info": {name: [{"range": chunks, "url": address, "url_range": place}]},
    }

"""Repositories of the test Hub: files, commits, branches and tags, as git would number them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import cached_property
from hashlib import sha1, sha256
from pathlib import Path

KINDS = ("model", "dataset", "space")
LARGE = ("*.safetensors", "*.bin", "*.parquet", "*.gz", "*.npy", "*.arrow", "*.pt", "*.zip", "*.model", "*.onnx")
"""What a fresh repository's .gitattributes gives to LFS."""
LARGE_FROM = 10 * 2**20
"""Bytes from which a file is LFS whatever its name."""


@dataclass(frozen=True)
class File:
    """One file's bytes, and whether git keeps them or LFS."""

    content: bytes
    lfs: bool

    @cached_property
    def sha256(self) -> str:
        return sha256(self.content).hexdigest()

    @cached_property
    def oid(self) -> str:
        """The git blob's name; of an LFS file that of its pointer."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        blob = pointer.encode() if self.lfs else self.content
        return sha1(b"blob %d\0" % len(blob) + blob).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid

    def entry(self, path: str, xet: bool) -> dict:
        """The file in a tree listing."""
        entry = {"type": "file", "path": path, "size": len(self.content), "oid": self.oid}
        if self.lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": 134}
            if xet:
                entry["xetHash"] = self.sha256
        return entry


def as_file(path: str, content: bytes) -> File:
    """A file as the Hub would keep it; an empty one always stands in git."""
    large = len(content) >= LARGE_FROM or any(fnmatch(path, pattern) for pattern in LARGE)
    return File(content, lfs=large and bool(content))


def files_in(folder: Path) -> dict[str, bytes]:
    """What lies below a folder, to fill a repository with."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass(frozen=True)
class Commit:
    """A state of the whole repository."""

    files: Mapping[str, File]
    parent: Commit | None
    title: str
    author: str
    date: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def oid(self) -> str:
        parent = self.parent.oid if self.parent else ""
        tree = [(path, file.oid) for path, file in sorted(self.files.items())]
        return sha1(repr((parent, tree, self.title, self.author, self.date)).encode()).hexdigest()

    def history(self) -> list[Commit]:
        """This commit and those before it, newest first."""
        return [self, *(self.parent.history() if self.parent else [])]

    def folders(self) -> set[str]:
        return {path.rsplit("/", depth)[0] for path in self.files for depth in range(1, path.count("/") + 1)}


@dataclass
class Repository:
    """A model, dataset or space."""

    kind: str
    id: str
    private: bool = False
    gated: bool = False
    readers: set[str] = field(default_factory=set)
    """Accounts that may read it although it is gated."""
    branches: dict[str, Commit] = field(default_factory=dict)
    """Pull requests stand among them, as `refs/pr/N`."""
    tags: dict[str, Commit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE)
        first = {".gitattributes": as_file(".gitattributes", attributes.encode())}
        self.branches["main"] = Commit(first, None, "initial commit", self.namespace)

    @property
    def namespace(self) -> str:
        return self.id.rpartition("/")[0]

    @property
    def head(self) -> Commit:
        return self.branches["main"]

    @property
    def prefix(self) -> str:
        """What stands before the id in addresses of files."""
        return "" if self.kind == "model" else f"{self.kind}s/"

    def resolve(self, revision: str) -> Commit | None:
        """The commit of a branch, tag, pull request or (abbreviated) commit."""
        if head := self.branches.get(revision) or self.tags.get(revision):
            return head
        every = [commit for tip in [*self.branches.values(), *self.tags.values()] for commit in tip.history()]
        long_enough = len(revision) >= 7
        return next((commit for commit in every if long_enough and commit.oid.startswith(revision)), None)

    def files(self) -> Iterator[File]:
        """Every version of every file."""
        for tip in [*self.branches.values(), *self.tags.values()]:
            for commit in tip.history():
                yield from commit.files.values()

    def put(self, files: Mapping[str, bytes], title: str = "Upload", author: str = "") -> Commit:
        """Add or replace files on main, as a test does that needs them there."""
        changed = {path: as_file(path, content) for path, content in files.items()}
        self.branches["main"] = Commit({**self.head.files, **changed}, self.head, title, author or self.namespace)
        return self.head

"""What the test Hub holds: accounts, repositories, and stored objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hub.repository import KINDS, Repository
from hub.xet import XetStore


@dataclass(frozen=True)
class Account:
    """Whom a token belongs to, and what the token may do."""

    name: str
    role: str = "write"
    orgs: tuple[str, ...] = ()

    def may_write(self, namespace: str) -> bool:
        return self.role == "write" and namespace in (self.name, *self.orgs)


@dataclass
class State:
    """Everything that outlives a request."""

    accounts: dict[str, Account] = field(default_factory=dict)
    """By token."""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    """By kind and id."""
    moved: dict[tuple[str, str], str] = field(default_factory=dict)
    """Kind and old id -> new id."""
    objects: dict[str, bytes] = field(default_factory=dict)
    """LFS objects by sha256."""
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)
    """Parts of LFS objects on their way, by sha256 and number."""
    with_xet: bool = True
    """Whether large files are offered, and taken, through Xet."""
    xet: XetStore = field(default_factory=XetStore)

    def create(self, kind: str, id: str, files: Mapping[str, bytes] | None = None, **traits: bool) -> Repository:
        """A new repository (`private`, `gated`), with its first files."""
        assert kind in KINDS
        repository = self.repositories[kind, id] = Repository(kind, id, **traits)
        if files:
            repository.put(files)
        return repository

    def move(self, kind: str, old: str, new: str) -> None:
        """Rename a repository; its old id leads to the new one."""
        repository = self.repositories.pop((kind, old))
        repository.id = new
        self.repositories[kind, new] = repository
        self.moved[kind, old] = new

    def find_object(self, name: str) -> bytes | None:
        """What was uploaded by that sha256, or stands in a repository."""
        kept = (file for repository in self.repositories.values() for file in repository.files())
        return self.objects.get(name) or next((file.content for file in kept if file.lfs and file.sha256 == name), None)

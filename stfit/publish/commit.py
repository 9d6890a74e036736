"""A model's files as one commit of a repository on the Hub: all of them, or none.

The commit stands on the one that was read (`parent_commit`). After a reply that was lost, the repository is read again:
where it holds what was to be published, it is published, and nothing is sent a second time.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha1, sha256
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stfit.errors import HubError, ModelError
from stfit.hub.download import find_account, look_up
from stfit.hub.explain import LOG_IN, NO_REVISION, NOT_THERE
from stfit.hub.retry import call_with_retries
from stfit.io.hashing import hash_file
from stfit.lazy import lazy
from stfit.publish.allowlist import MANIFEST, is_allowed, listed

if TYPE_CHECKING:
    import huggingface_hub as client
    from huggingface_hub import constants
else:
    client = lazy("huggingface_hub")
    constants = lazy("huggingface_hub.constants")

log = logging.getLogger("stfit")

MAIN = "main"
NEWEST = 20
"""Pull requests that are looked at for what is to be published."""


@dataclass(frozen=True)
class File:
    """A file of a commit. `oid`: the sha1 of its git blob; `sha256` where it is stored through LFS."""

    oid: str
    sha256: str | None = None


@dataclass(frozen=True)
class BranchState:
    """What a branch holds. `commit` is None where there is no such branch, or no repository, yet."""

    commit: str | None = None
    files: Mapping[str, File] = field(default_factory=dict)
    private: bool | None = None
    """None where there is no repository."""
    pushed: frozenset[str] = frozenset()
    """Paths that the newest push put there."""

    @property
    def has_model(self) -> bool:
        """Whether a model is published there."""
        return "modules.json" in self.files


@dataclass(frozen=True)
class Change:
    """What a commit does to the files of a head."""

    add: dict[str, Path | bytes]
    delete: list[str]


def find_repository(name: str, open_to_all: bool = False) -> str:
    """The full id of a repository that this token may write to; one without an owner is of the token's account.

    Asks for the account only, so that it can be called before a training. `open_to_all`: for a pull request, which
    needs no right of the repository's owner. Raises HubError.
    """
    account = find_account(name)
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise HubError(f"the token of `{account['name']}` may only read: make one that may write, and {LOG_IN}")
    owner, slash, _ = name.rpartition("/")
    if not slash:
        return f"{account['name']}/{name}"
    rights = {org["name"]: org.get("roleInOrg") for org in account.get("orgs", [])}
    if open_to_all or owner == account["name"]:
        return name
    if owner not in rights:
        known = ", ".join([account["name"], *rights])
        raise HubError(f"the token is of `{account['name']}`, which may not push to `{owner}` (but to {known})")
    if rights[owner] == "read":
        raise HubError(f"`{account['name']}` may only read in the organisation `{owner}`")
    return name


def preflight(name: str) -> None:
    """Find out before a training, not after it, whether its model can be pushed. Raises HubError."""
    if constants.HF_HUB_OFFLINE:
        log.warning("HF_HUB_OFFLINE is set: whether `%s` can be pushed to is not asked", name)
    else:
        log.info("may be pushed to %s", find_repository(name))


def read_branch(repo: str, branch: str = MAIN) -> BranchState:
    """The newest commit of a branch, and its files. Raises HubError where the Hub can't be asked."""
    try:
        found = look_up("model", repo, branch)
    except HubError as error:
        if error.problems[0].code == NOT_THERE:
            return BranchState()
        if error.problems[0].code == NO_REVISION:
            return BranchState(private=bool(look_up("model", repo).private))
        raise
    head = BranchState(found.sha, _read_files(repo, found.sha), bool(found.private))
    manifest = read_file(repo, head, MANIFEST) or b""
    return replace(head, pushed=frozenset(manifest.decode("utf-8", "replace").splitlines()))


def _read_files(repo: str, commit: str) -> dict[str, File]:
    """Path -> file of a commit."""
    from huggingface_hub.hf_api import RepoFile

    entries = call_with_retries(
        lambda: list(client.HfApi().list_repo_tree(repo, recursive=True, revision=commit)), "model", repo, commit
    )
    files = [entry for entry in entries if isinstance(entry, RepoFile)]
    return {file.path: File(file.blob_id, file.lfs.sha256 if file.lfs else None) for file in files}


def read_file(repo: str, head: BranchState, path: str) -> bytes | None:
    """A small file of a head; None where there is none."""
    if path not in head.files:
        return None
    local = call_with_retries(
        lambda: client.hf_hub_download(repo, path, revision=head.commit), "model", repo, head.commit
    )
    content = Path(local).read_bytes()
    if not is_same(content, head.files[path]):
        raise HubError(f"{path} of `{repo}` arrives damaged: run the same again")
    return content


def _content_of(file: Path | bytes) -> bytes:
    """What is in a file."""
    return file if isinstance(file, bytes) else file.read_bytes()


def is_same(local: Path | bytes, remote: File) -> bool:
    """Whether a local file has the content of a remote one."""
    if remote.sha256 is not None:
        digest = sha256(local).hexdigest() if isinstance(local, bytes) else hash_file(local)
        return digest == remote.sha256
    content = _content_of(local)
    return sha1(b"blob %d\0" % len(content) + content).hexdigest() == remote.oid


def find_change(files: Mapping[str, Path | bytes], head: BranchState) -> Change:
    """What has to be done to a head to publish these files. Deletes what an earlier push left, and nothing else."""
    add = {path: file for path, file in files.items() if path not in head.files or not is_same(file, head.files[path])}
    stale = (path for path in head.pushed if path in head.files and path not in files and is_allowed(path))
    return Change(add, sorted(stale))


def with_manifest(files: Mapping[str, Path | bytes]) -> dict[str, Path | bytes]:
    """The files, and the list of them."""
    return {**files, MANIFEST: "".join(f"{path}\n" for path in sorted(files)).encode()}


def refuse_token(files: Mapping[str, Path | bytes]) -> None:
    """Raises ModelError where a file to be published holds the token that publishes it."""
    token = (client.get_token() or "").encode()
    found = [path for path, file in files.items() if token and holds(file, token)]
    if found:
        raise ModelError(f"the Hub token stands in {listed(found)}: nothing is published. Take it out, and revoke it")


def holds(file: Path | bytes, words: bytes) -> bool:
    """Whether a file, of any size, holds these bytes."""
    if isinstance(file, bytes):
        return words in file
    with file.open("rb") as stream:
        if file.stat().st_size == 0:
            return False
        with mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
            return content.find(words) >= 0


def create_repository(repo: str, private: bool) -> None:
    """Make a repository that is not there yet."""
    call_with_retries(lambda: client.create_repo(repo, private=private, exist_ok=True), "model", repo)


def create_branch(repo: str, branch: str) -> None:
    """Make a branch of what main holds."""
    call_with_retries(lambda: client.create_branch(repo, branch=branch, exist_ok=True), "model", repo, branch)


@dataclass(frozen=True)
class Published:
    """A commit that holds what was to be published."""

    commit: str
    pull_request: str | None = None


def commit(
    repo: str, files: Mapping[str, Path | bytes], head: BranchState, message: str, branch: str, as_pull_request: bool
) -> Published:
    """Publish as one commit on top of `head`. Raises HubError where it did not come to be, or somebody was faster."""
    from huggingface_hub.utils._runtime import is_xet_available
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    change = find_change(files, head)

    def send() -> Published:
        made = client.HfApi().create_commit(
            repo,
            _operations_of(change),
            commit_message=message,
            revision=branch,
            create_pr=as_pull_request,
            parent_commit=head.commit,
        )
        return Published(made.oid, made.pr_url)

    def find_it() -> Published | None:
        return find_published(repo, files, branch, as_pull_request)

    unobservable_bytes = _bytes_of(change) if is_xet_available() else 0
    try:
        return call_with_retries(send, "model", repo, branch, done=find_it, unobservable_bytes=unobservable_bytes)
    except HubError:
        if read_branch(repo, branch).commit != head.commit:
            message = f"somebody else pushed to `{repo}` meanwhile, nothing of this is there: run the same again"
            raise HubError(message) from None
        raise


def _bytes_of(change: Change) -> int:
    """How much a change adds."""
    return sum(len(file) if isinstance(file, bytes) else file.stat().st_size for file in change.add.values())


def _operations_of(change: Change) -> list[Any]:
    """A change in the client's words, which it uses up: a second try needs new ones."""
    return [
        *(client.CommitOperationAdd(path, file) for path, file in change.add.items()),
        *(client.CommitOperationDelete(path) for path in change.delete),
    ]


def find_published(
    repo: str, files: Mapping[str, Path | bytes], branch: str, as_pull_request: bool
) -> Published | None:
    """A commit that holds exactly these files of stfit's: the branch's newest, or that of a pull request."""
    if not as_pull_request:
        head = read_branch(repo, branch)
        return Published(head.commit) if head.commit and is_published(files, head) else None
    refs = call_with_retries(lambda: client.HfApi().list_repo_refs(repo, include_pull_requests=True), "model", repo)
    for request in reversed((refs.pull_requests or [])[-NEWEST:]):
        if is_published(files, BranchState(request.target_commit, _read_files(repo, request.target_commit))):
            number = request.ref.rpartition("/")[2]
            return Published(request.target_commit, f"{constants.ENDPOINT}/{repo}/discussions/{number}")
    return None


def is_published(files: Mapping[str, Path | bytes], head: BranchState) -> bool:
    """Whether a head holds these files, their list among them, and nothing stale."""
    change = find_change(files, head)
    return not change.add and not change.delete


def require_published(repo: str, files: Mapping[str, Path | bytes], published: Published) -> None:
    """Raises HubError where the commit does not hold what was sent."""
    found = BranchState(published.commit, _read_files(repo, published.commit))
    if not is_published(files, found):
        change = find_change(files, found)
        wrong = listed([*change.add, *change.delete])
        raise HubError(f"commit {published.commit} of `{repo}` is not what was sent: {wrong}. Run the same again")


def commit_of_tag(repo: str, tag: str) -> str | None:
    """The commit that a tag names, if there is such a tag."""
    refs = call_with_retries(lambda: client.HfApi().list_repo_refs(repo), "model", repo)
    return next((found.target_commit for found in refs.tags if found.name == tag), None)


def create_tag(repo: str, tag: str, commit: str) -> None:
    """Name a commit. Raises HubError where another one has the name."""
    call_with_retries(
        lambda: client.HfApi().create_tag(repo, tag=tag, revision=commit, exist_ok=True), "model", repo, tag
    )
    if (named := commit_of_tag(repo, tag)) != commit:
        raise HubError(f"`{repo}` is published as {commit}, but its tag `{tag}` names {named}: choose another --tag")

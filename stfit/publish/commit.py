"""Publish the files of a model as one commit: all of them, or none.

The commit builds on the one that was read (`parent_commit`). If the reply is lost, the repository is read again; if it
contains the files, the push has succeeded and nothing is sent a second time.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha1, sha256
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stfit.encoder.folder.files import name_some
from stfit.errors import HubError, ModelError
from stfit.hub.client import client, constants
from stfit.hub.download import find_account, look_up
from stfit.hub.explain import LOG_IN, NO_REVISION, NOT_THERE
from stfit.hub.retry import call_with_retries
from stfit.io.hashing import hash_file
from stfit.publish.allowlist import MANIFEST, is_allowed
from stfit.publish.destination import Push
from stfit.publish.readme import write_readme

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

log = logging.getLogger("stfit")

MAIN = "main"
MAX_PULL_REQUESTS = 20
"""Number of pull requests, newest first, in which an earlier push is searched."""

Files = Mapping[str, Path | bytes]


@dataclass(frozen=True)
class BranchState:
    commit: str | None = None
    """None if the branch or the repository does not exist."""
    files: Mapping[str, RepoFile] = field(default_factory=dict)
    private: bool | None = None
    """None if the repository does not exist."""
    pushed: frozenset[str] = frozenset()
    """Paths that the latest push has written."""
    is_known: bool = True
    """False if nobody has looked."""


class FileDiff(NamedTuple):
    add: dict[str, Path | bytes]
    delete: list[str]


def resolve_repository(name: str, for_pull_request: bool = False) -> str:
    """Reads only the account, so it can be called before a training. A pull request needs no rights at the owner."""
    account = find_account(name)
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise HubError(f"the token of `{account['name']}` is read-only: create one with write access, and {LOG_IN}")
    owner, slash, _ = name.rpartition("/")
    if not slash:
        return f"{account['name']}/{name}"
    rights = {org["name"]: org.get("roleInOrg") for org in account.get("orgs", [])}
    if for_pull_request or owner == account["name"]:
        return name
    if owner not in rights:
        owners = ", ".join([account["name"], *rights])
        raise HubError(f"the token belongs to `{account['name']}`, which may not push to `{owner}`, only to {owners}")
    if rights[owner] == "read":
        raise HubError(f"`{account['name']}` has only read access to the organization `{owner}`")
    return name


def preflight(push: Push) -> None:
    """Raise HubError if this account may not push to the repository, or if the Hub rejects license or language."""
    if constants.HF_HUB_OFFLINE:
        log.warning("HF_HUB_OFFLINE is set: not checking whether `%s` can be pushed to", push.repo)
        return
    repo = resolve_repository(push.repo)
    if push.license or push.language:
        card = client.RepoCard(write_readme({"license": push.license, "language": push.language or None}, ""))
        call_with_retries(lambda: card.validate(repo_type="model"), "model", repo)
    log.info("the model can be pushed to %s", repo)


def read_branch(repo: str, branch: str = MAIN) -> BranchState:
    try:
        info = look_up("model", repo, branch)
    except HubError as error:
        if error.problems[0].code == NOT_THERE:
            return BranchState()
        if error.problems[0].code == NO_REVISION:
            return BranchState(private=bool(look_up("model", repo).private))
        raise
    state = BranchState(info.sha, _read_files(repo, info.sha), bool(info.private))
    manifest = read_remote_file(repo, state, MANIFEST) or b""
    return replace(state, pushed=frozenset(manifest.decode("utf-8", "replace").splitlines()))


def _read_files(repo: str, commit: str) -> dict[str, RepoFile]:
    from huggingface_hub.hf_api import RepoFile

    entries = call_with_retries(
        lambda: list(client.HfApi().list_repo_tree(repo, recursive=True, revision=commit)), "model", repo, commit
    )
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def read_remote_file(repo: str, state: BranchState, path: str) -> bytes | None:
    if path not in state.files:
        return None
    local = call_with_retries(
        lambda: client.hf_hub_download(repo, path, revision=state.commit), "model", repo, state.commit
    )
    content = Path(local).read_bytes()
    if not has_same_content(content, state.files[path]):
        raise HubError(f"the download of {path} from `{repo}` is corrupt: run the command again")
    return content


def has_same_content(local: Path | bytes, remote: RepoFile) -> bool:
    """Compare a local file with one on the Hub, by the SHA-256 of LFS files and the git blob hash of the others."""
    if remote.lfs:
        digest = sha256(local).hexdigest() if isinstance(local, bytes) else hash_file(local)
        return digest == remote.lfs.sha256
    content = local if isinstance(local, bytes) else local.read_bytes()
    return sha1(b"blob %d\0" % len(content) + content).hexdigest() == remote.blob_id


def diff_files(files: Files, state: BranchState) -> FileDiff:
    """The difference between a branch and the files to publish. Deletes only files that an earlier push has written."""
    add = {
        path: file
        for path, file in files.items()
        if path not in state.files or not has_same_content(file, state.files[path])
    }
    stale = (path for path in state.pushed if path in state.files and path not in files and is_allowed(path))
    return FileDiff(add, sorted(stale))


def reject_token(files: Files) -> None:
    token = (client.get_token() or "").encode()
    leaks = [path for path, file in files.items() if token and _contains(file, token)]
    if leaks:
        names = name_some(leaks)
        raise ModelError(f"the Hub token is in {names}: nothing was published. Remove it from there, and revoke it")


def _contains(file: Path | bytes, token: bytes) -> bool:
    if isinstance(file, bytes):
        return token in file
    with file.open("rb") as stream:
        if file.stat().st_size == 0:
            return False
        with mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
            return content.find(token) >= 0


def create_repository(repo: str, private: bool) -> None:
    call_with_retries(lambda: client.create_repo(repo, private=private, exist_ok=True), "model", repo)


def create_branch(repo: str, branch: str) -> None:
    call_with_retries(lambda: client.create_branch(repo, branch=branch, exist_ok=True), "model", repo, branch)


class PublishedCommit(NamedTuple):
    """A commit that contains the published files. `pull_request`: its URL."""

    commit: str
    pull_request: str | None = None


def create_commit(
    repo: str, files: Files, parent: BranchState, message: str, branch: str, as_pull_request: bool
) -> PublishedCommit:
    from huggingface_hub.utils._runtime import is_xet_available

    diff = diff_files(files, parent)

    def send() -> PublishedCommit:
        # The client modifies the operations, so each attempt needs new ones.
        operations: list[Any] = [
            *(client.CommitOperationAdd(path, file) for path, file in diff.add.items()),
            *(client.CommitOperationDelete(path) for path in diff.delete),
        ]
        info = client.HfApi().create_commit(
            repo,
            operations,
            commit_message=message,
            revision=branch,
            create_pr=as_pull_request,
            parent_commit=parent.commit,
        )
        return PublishedCommit(info.oid, info.pr_url)

    find_it = partial(find_published, repo, files, branch, as_pull_request)
    sizes = [len(file) if isinstance(file, bytes) else file.stat().st_size for file in diff.add.values()]
    unobservable_bytes = sum(sizes) if is_xet_available() else 0
    try:
        return call_with_retries(send, "model", repo, branch, done=find_it, unobservable_bytes=unobservable_bytes)
    except HubError:
        if read_branch(repo, branch).commit != parent.commit:
            message = f"somebody else pushed to `{repo}` in the meantime: nothing was published. Run the command again"
            raise HubError(message) from None
        raise


def find_published(repo: str, files: Files, branch: str, as_pull_request: bool) -> PublishedCommit | None:
    if not as_pull_request:
        state = read_branch(repo, branch)
        return PublishedCommit(state.commit) if state.commit and not any(diff_files(files, state)) else None
    refs = call_with_retries(lambda: client.HfApi().list_repo_refs(repo, include_pull_requests=True), "model", repo)
    for request in reversed((refs.pull_requests or [])[-MAX_PULL_REQUESTS:]):
        if not any(_diff_with_commit(repo, files, request.target_commit)):
            number = request.ref.rpartition("/")[2]
            return PublishedCommit(request.target_commit, f"{constants.ENDPOINT}/{repo}/discussions/{number}")
    return None


def _diff_with_commit(repo: str, files: Files, commit: str) -> FileDiff:
    return diff_files(files, BranchState(commit, _read_files(repo, commit)))


def verify_commit(repo: str, files: Files, commit: str) -> None:
    diff = _diff_with_commit(repo, files, commit)
    if any(diff):
        names = name_some([*diff.add, *diff.delete])
        raise HubError(f"commit {commit} of `{repo}` differs from what was sent, in {names}. Run the command again")


def find_tag(repo: str, tag: str) -> str | None:
    refs = call_with_retries(lambda: client.HfApi().list_repo_refs(repo), "model", repo)
    return next((ref.target_commit for ref in refs.tags if ref.name == tag), None)


def create_tag(repo: str, tag: str, commit: str) -> None:
    call_with_retries(
        lambda: client.HfApi().create_tag(repo, tag=tag, revision=commit, exist_ok=True), "model", repo, tag
    )
    if (tagged := find_tag(repo, tag)) != commit:
        raise HubError(f"`{repo}` is published as {commit}, but its tag `{tag}` is at {tagged}: choose another --tag")

"""Who may see, read and change what; and the addresses of repositories."""

from __future__ import annotations

from hub.messages import Refusal, Request
from hub.repository import Commit, Repository
from hub.state import Account

ID = r"(?P<id>[\w.-]+/[\w.-]+?|[\w.-]+?)"
REPO = rf"/api/(?P<kind>model|dataset|space)s/{ID}"
REVISION = r"(?P<revision>[^/]+)"


def signed_in(request: Request) -> Account:
    if request.account is None:
        raise Refusal(401, "Invalid username or password.")
    return request.account


def find(request: Request, kind: str, id: str) -> Repository:
    """The repository, where it may be seen. A private one is as good as missing to a stranger."""
    target = request.state.repositories.get((kind, id))
    if target is None or (target.private and not (request.account and is_member(request, target))):
        raise Refusal(404 if request.account else 401, "Repository not found", "RepoNotFound")
    return target


def is_member(request: Request, repository: Repository) -> bool:
    account = request.account
    return account is not None and repository.namespace in (account.name, *account.orgs)


def find_writable(request: Request, kind: str, id: str) -> Repository:
    """The repository, where it may be changed. A pull request is open to all who may read it."""
    if request.query.get("create_pr") and signed_in(request).role == "write":
        return find_readable(request, kind, id)
    repository = find(request, kind, id)
    if not signed_in(request).may_write(repository.namespace):
        raise Refusal(403, "You don't have the rights to write to this repository")
    return repository


def find_readable(request: Request, kind: str, id: str) -> Repository:
    """The repository, where its files may be read, which a gate can forbid."""
    repository = find(request, kind, id)
    account = request.account
    invited = is_member(request, repository) or (account and account.name in repository.readers)
    if repository.gated and not invited:
        raise Refusal(403 if account else 401, f"Access to {kind} {id} is restricted.", "GatedRepo")
    return repository


def commit_of(repository: Repository, revision: str) -> Commit:
    if commit := repository.resolve(revision):
        return commit
    raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

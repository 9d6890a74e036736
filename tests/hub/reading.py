"""The endpoints that change nothing: accounts, listings, downloads."""

from __future__ import annotations

from urllib.parse import parse_qs, quote

from hub.access import ID, REPO, REVISION, commit_of, find, find_readable, find_writable, signed_in
from hub.messages import Refusal, Request, Response, part_of, reply
from hub.repository import Commit
from hub.storage import store_of

PAGE = 1000
"""Entries of a tree listing in one answer."""


def whoami(request: Request) -> Response:
    account = signed_in(request)
    return reply(
        {
            "type": "user",
            "id": account.name,
            "name": account.name,
            "fullname": account.name,
            "email": None,
            "emailVerified": True,
            "isPro": False,
            "canPay": False,
            "avatarUrl": "",
            "orgs": [{"name": name, "type": "org", "roleInOrg": "write"} for name in account.orgs],
            "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": account.role}},
        }
    )


def auth_check(request: Request, kind: str, id: str) -> Response:
    find_readable(request, kind, id)
    return reply({})


def info(request: Request, kind: str, id: str, revision: str = "main") -> Response:
    repository = find(request, kind, id)
    commit = commit_of(repository, revision)
    siblings = []
    for path, file in sorted(commit.files.items()):
        sibling = {"rfilename": path}
        if request.query.get("blobs"):
            sibling |= {"size": len(file.content), "blobId": file.oid}
            sibling |= {"lfs": {"sha256": file.sha256, "size": len(file.content)}} if file.lfs else {}
        siblings.append(sibling)
    return reply(
        {
            "_id": "0" * 24,
            "id": id,
            **({"modelId": id} if kind == "model" else {}),
            "author": repository.namespace,
            "sha": commit.oid,
            "lastModified": timestamp(commit),
            "createdAt": timestamp(commit.history()[-1]),
            "private": repository.private,
            "gated": "manual" if repository.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings,
        }
    )


def timestamp(commit: Commit) -> str:
    return commit.date.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def references(request: Request, kind: str, id: str) -> Response:
    repository = find(request, kind, id)
    named = [(name, "heads", commit) for name, commit in repository.branches.items()]
    listed = {
        "branches": [(n, f"refs/heads/{n}", c) for n, _, c in named if not n.startswith("refs/")],
        "tags": [(name, f"refs/tags/{name}", commit) for name, commit in repository.tags.items()],
        "converts": [],
        "pullRequests": [(n, n, c) for n, _, c in named if n.startswith("refs/pr/")],
    }
    return reply(
        {
            group: [{"name": name, "ref": ref, "targetCommit": commit.oid} for name, ref, commit in members]
            for group, members in listed.items()
        }
    )


def commits(request: Request, kind: str, id: str, revision: str) -> Response:
    history = commit_of(find(request, kind, id), revision).history()
    return reply(
        [
            {
                "id": commit.oid,
                "title": commit.title,
                "message": "",
                "authors": [{"user": commit.author}],
                "date": timestamp(commit),
            }
            for commit in history
        ]
    )


def tree(request: Request, kind: str, id: str, revision: str, path: str = "") -> Response:
    repository = find(request, kind, id)
    commit = commit_of(repository, revision)
    folders = commit.folders()
    if path and path not in folders:
        raise Refusal(404, f"{path} does not exist on {revision}", "EntryNotFound")
    below = f"{path}/" if path else ""
    deep = request.query.get("recursive") in ("true", "True", "1")
    entries = [
        entry_of(request, commit, name)
        for name in sorted([*commit.files, *folders])
        if name.startswith(below) and (deep or "/" not in name[len(below) :])
    ]
    start = int(request.query.get("cursor", 0))
    page = entries[start : start + int(request.query.get("limit", PAGE))]
    if start + len(page) == len(entries):
        return reply(page)
    kept = "&".join(f"{key}={value}" for key, value in request.query.items() if key != "cursor")
    here = f"{request.base}/api/{kind}s/{id}/tree/{quote(revision, safe='')}{'/' if path else ''}{quote(path)}"
    return reply(page, Link=f'<{here}?{kept}&cursor={start + len(page)}>; rel="next"')


def entry_of(request: Request, commit: Commit, name: str) -> dict:
    file = commit.files.get(name)
    if file is None:
        return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
    return file.entry(name, request.state.with_xet)


def paths_info(request: Request, kind: str, id: str, revision: str) -> Response:
    commit = commit_of(find(request, kind, id), revision)
    paths = parse_qs(request.body.decode()).get("paths", [])
    existing = [name for name in paths if name in commit.files or name in commit.folders()]
    return reply([entry_of(request, commit, name) for name in existing])


def download(request: Request, id: str, revision: str, path: str, kind: str = "model") -> Response:
    """A file, or for LFS the address of its object on the storage host."""
    repository = find_readable(request, kind, id)
    commit = commit_of(repository, revision)
    at = {"X-Repo-Commit": commit.oid}
    file = commit.files.get(path)
    if file is None:
        raise Refusal(404, "Entry not found", "EntryNotFound", **at)
    if not file.lfs:
        return part_of(file.content, request.headers.get("range"), at | {"ETag": f'"{file.etag}"'})
    headers = at | {
        "ETag": f'"{file.etag}"',
        "X-Linked-Etag": f'"{file.etag}"',
        "X-Linked-Size": str(len(file.content)),
        "Location": f"{request.storage}/objects/{file.sha256}",
    }
    if request.state.with_xet:
        route = f"{request.base}/api/{kind}s/{id}/xet-read-token/{commit.oid}"
        headers |= {"X-Xet-Hash": file.sha256, "X-Xet-Refresh-Route": route, "Link": f'<{route}>; rel="xet-auth"'}
    return Response(302, b"", headers)


def token_for_xet(request: Request, kind: str, id: str, revision: str, right: str) -> Response:
    """Leave to talk to the store of chunks; a token of its own, so that the account's stays here."""
    (find_writable if right == "write" else find_readable)(request, kind, id)
    if not request.state.with_xet:
        raise Refusal(404, "this server has no Xet storage")
    token = f"xet-{right}-{request.account.name if request.account else ''}"
    granted = {"casUrl": store_of(request), "exp": 4102444800, "accessToken": token}
    headers = {"X-Xet-Cas-Url": granted["casUrl"], "X-Xet-Access-Token": token}
    return reply(granted, **headers, **{"X-Xet-Token-Expiration": str(granted["exp"])})


READING = [
    ("GET", "/api/whoami-v2", whoami),
    ("GET", rf"{REPO}/auth-check", auth_check),
    ("GET", rf"{REPO}/revision/{REVISION}", info),
    ("GET", rf"{REPO}/refs", references),
    ("GET", rf"{REPO}/commits/{REVISION}", commits),
    ("GET", rf"{REPO}/tree/{REVISION}(?:/(?P<path>.+))?", tree),
    ("POST", rf"{REPO}/paths-info/{REVISION}", paths_info),
    ("GET", rf"{REPO}/xet-(?P<right>read|write)-token/{REVISION}", token_for_xet),
    ("GET", REPO, info),
    ("GET", rf"/(?:(?P<kind>dataset|space)s/)?{ID}/resolve/{REVISION}/(?P<path>.+)", download),
]

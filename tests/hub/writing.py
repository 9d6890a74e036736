"""The endpoints that change repositories."""

from __future__ import annotations

import base64
import json
import re

import yaml
from hub.access import REPO, REVISION, commit_of, find_writable, signed_in
from hub.messages import Refusal, Request, Response, reply
from hub.repository import Commit, File, as_file

SECRET = re.compile(rb"hf_[A-Za-z0-9]{30,}")


def create_repository(request: Request) -> Response:
    account, options = signed_in(request), request.json()
    kind, id = options.get("type") or "model", f"{options.get('organization') or account.name}/{options['name']}"
    if not account.may_write(id.partition("/")[0]):
        raise Refusal(403, f"You don't have the rights to create a {kind} under this namespace")
    existing = request.state.repositories.get((kind, id))
    private = options.get("visibility") == "private" or bool(options.get("private"))
    repository = existing or request.state.create(kind, id, private=private)
    answer = {"url": f"{request.base}/{repository.prefix}{id}", "name": id, "id": id}
    return reply(answer | {"error": f"You already created this {kind} repo"}, 409) if existing else reply(answer)


def delete_repository(request: Request) -> Response:
    account, options = signed_in(request), request.json()
    kind, id = options.get("type") or "model", f"{options.get('organization') or account.name}/{options['name']}"
    find_writable(request, kind, id)
    del request.state.repositories[kind, id]
    return reply({})


def create_branch(request: Request, kind: str, id: str, revision: str) -> Response:
    repository = find_writable(request, kind, id)
    if revision in repository.branches:
        raise Refusal(409, f"Branch {revision} already exists")
    repository.branches[revision] = commit_of(repository, request.json().get("startingPoint") or "main")
    return reply({})


def delete_branch(request: Request, kind: str, id: str, revision: str) -> Response:
    find_writable(request, kind, id).branches.pop(revision)
    return reply({})


def create_tag(request: Request, kind: str, id: str, revision: str) -> Response:
    repository = find_writable(request, kind, id)
    name = request.json()["tag"]
    if name in repository.tags:
        raise Refusal(409, f"Tag {name} already exists")
    repository.tags[name] = commit_of(repository, revision)
    return reply({})


def delete_tag(request: Request, kind: str, id: str, revision: str) -> Response:
    find_writable(request, kind, id).tags.pop(revision)
    return reply({})


LICENSES = ("apache-2.0", "mit", "other")


def validate_yaml(request: Request) -> Response:
    """Only what a card must not have: metadata that is no YAML mapping, or a license that this Hub does not know."""
    content = request.json()["content"]
    _, fence, rest = content.partition("---\n")
    try:
        metadata = (yaml.safe_load(rest.split("\n---", 1)[0]) or {}) if fence else {}
        if not isinstance(metadata, dict):
            raise ValueError("YAML metadata: metadata is not a mapping")
        if metadata.get("license", LICENSES[0]) not in LICENSES:
            raise ValueError(f'"license" must be one of {list(LICENSES)}')
    except (yaml.YAMLError, ValueError) as error:
        return reply({"errors": [{"message": str(error)}], "warnings": []}, 400)
    return reply({"errors": [], "warnings": []})


def preupload(request: Request, kind: str, id: str, revision: str) -> Response:
    """Which way each file has to go, and what stands at its path."""
    repository = find_writable(request, kind, id)
    commit = commit_of(repository, revision)
    answers = []
    for file in request.json()["files"]:
        path = file["path"]
        lfs = as_file(path, b"\0" * file["size"]).lfs
        answer = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
        if current := commit.files.get(path):
            answer["oid"] = current.sha256 if current.lfs else current.oid
        answers.append(answer)
    return reply({"files": answers, "commitOid": commit.oid})


def commit(request: Request, kind: str, id: str, revision: str) -> Response:
    """All operations as one commit, on a branch or as a pull request."""
    repository = find_writable(request, kind, id)
    parent = commit_of(repository, revision)
    lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    if (expected := header.get("parentCommit")) and expected != parent.oid:
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    files = dict(parent.files)
    for line in lines:
        apply(request, files, line["key"], line["value"])
    new_commit = Commit(files, parent, header["summary"], signed_in(request).name)
    answer = {"success": True, "hookOutput": ""}
    if request.query.get("create_pr"):
        number = 1 + sum(name.startswith("refs/pr/") for name in repository.branches)
        revision = f"refs/pr/{number}"
        answer["pullRequestUrl"] = f"{request.base}/{repository.prefix}{id}/discussions/{number}"
    elif revision not in repository.branches:
        raise Refusal(400, f"{revision} is no branch")
    repository.branches[revision] = new_commit
    return reply(
        answer
        | {"commitOid": new_commit.oid, "commitUrl": f"{request.base}/{repository.prefix}{id}/commit/{new_commit.oid}"}
    )


def apply(request: Request, files: dict[str, File], key: str, value: dict) -> None:
    """One line of a commit."""
    path = value.get("path", "")
    match key:
        case "file":
            content = base64.b64decode(value["content"])
            if SECRET.search(content):
                raise Refusal(400, f"{path} holds what looks like an access token")
            files[path] = File(content, lfs=False)
        case "lfsFile":
            content = request.state.find_object(value["oid"])
            if content is None:
                raise Refusal(400, f"LFS object of {path} was not uploaded")
            files[path] = File(content, lfs=True)
        case "deletedFile":
            if files.pop(path, None) is None:
                raise Refusal(400, f"{path} does not exist")
        case "deletedFolder":
            for name in [name for name in files if name.startswith(f"{path.rstrip('/')}/")]:
                del files[name]


WRITING = [
    ("POST", "/api/repos/create", create_repository),
    ("DELETE", "/api/repos/delete", delete_repository),
    ("POST", rf"{REPO}/branch/{REVISION}", create_branch),
    ("DELETE", rf"{REPO}/branch/{REVISION}", delete_branch),
    ("POST", rf"{REPO}/tag/{REVISION}", create_tag),
    ("DELETE", rf"{REPO}/tag/{REVISION}", delete_tag),
    ("POST", "/api/validate-yaml", validate_yaml),
    ("POST", rf"{REPO}/preupload/{REVISION}", preupload),
    ("POST", rf"{REPO}/commit/{REVISION}", commit),
]

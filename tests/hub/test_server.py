"""The test Hub is one that the real clients take for a Hub."""

import os
import subprocess
import sys
from collections.abc import Callable
from random import Random

import pytest
from hub.repository import files_in

pytestmark = pytest.mark.slow

CONTENT = {
    "config.json": b'{"hidden_size": 8}',
    "1_Pooling/config.json": b"{}",
    "README.md": b"---\ntags: [a]\n---\nA model.\n",
    # noise, zeros and text: Xet packs the three in different ways
    "model.safetensors": Random(1).randbytes(300_000)
    + bytes(300_000)
    + b"a text that is said again and again " * 9_000,
}

Client = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def client(hub, tmp_path) -> Client:
    """Runs Python code against the Hub, in a process and a home of its own."""

    def run(code: str, token: str | None = "hf_me", xet: bool = True) -> subprocess.CompletedProcess[str]:
        home = tmp_path / f"home{len(hub.log)}"
        env = hub.env(home, token, xet=xet) | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        code = "from huggingface_hub import *\napi = HfApi()\n" + code
        return subprocess.run(
            [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=180
        )

    return run


@pytest.mark.parametrize("xet", [True, False])
def test_what_is_pushed_is_what_is_fetched(hub, client, tmp_path, xet):
    for path, content in CONTENT.items():
        (tmp_path / "new" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "new" / path).write_bytes(content)
    push = "api.create_repo('team/new', exist_ok=True)\napi.upload_folder(repo_id='team/new', folder_path='new')\n"
    pushed = client(push + push, xet=xet)
    assert pushed.returncode == 0, pushed.stderr
    repository = hub.state.repositories["model", "team/new"]
    assert {path: file.content for path, file in repository.head.files.items() if path != ".gitattributes"} == CONTENT
    assert len(repository.head.history()) == 2  # the first one, and one for both pushes
    for read_with_xet in (True, False):
        code = "snapshot_download('team/new', local_dir='got', force_download=True)\n"
        code += "assert not api.verify_repo_checksums('team/new', local_dir='got').mismatches"
        fetched = client(code, xet=read_with_xet)
        assert fetched.returncode == 0, fetched.stderr
        got = files_in(tmp_path / "got")
        assert {path: got[path] for path in CONTENT} == CONTENT
    assert bool(hub.requests("POST", "/xorbs/")) == xet
    assert bool(hub.requests("PUT", "/objects/")) != xet
    assert hub.requests("GET", "/xet/xorbs/")
    assert hub.requests("GET", "^/objects/")


def test_a_large_lfs_file_comes_in_parts(hub, client, tmp_path):
    content = Random(2).randbytes(21 * 2**20)
    (tmp_path / "large.bin").write_bytes(content)
    hub.state.create("dataset", "me/rows")
    code = (
        "api.upload_file(repo_id='me/rows', repo_type='dataset', path_in_repo='a/b.bin', path_or_fileobj='large.bin')"
    )
    ended = client(code, xet=False)
    assert ended.returncode == 0, ended.stderr
    assert hub.state.repositories["dataset", "me/rows"].head.files["a/b.bin"].content == content
    assert len(hub.requests("PUT", "/part/")) == 5


@pytest.mark.parametrize(
    ("traits", "token", "error"),
    [
        ({}, None, None),
        ({"private": True}, "hf_me", None),
        ({"private": True}, "hf_guest", "RepositoryNotFoundError"),
        ({"private": True}, None, "RepositoryNotFoundError"),
        ({"gated": True}, "hf_guest", "GatedRepoError"),
        ({"gated": True}, None, "GatedRepoError"),
        ({}, "hf_nobody", "Invalid credentials"),
    ],
)
def test_who_may_read_what(hub, client, traits, token, error):
    hub.state.create("model", "me/model", CONTENT, **traits)
    ended = client("hf_hub_download('me/model', 'config.json')", token)
    assert (ended.returncode == 0) == (error is None), ended.stderr
    assert error is None or error in ended.stderr


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("hf_hub_download('me/model', 'nothing.json')", "EntryNotFoundError"),
        ("hf_hub_download('me/model', 'config.json', revision='v9')", "RevisionNotFoundError"),
        ("api.create_repo('team/new', token='hf_guest')", "403"),
        ("api.upload_file(repo_id='me/model', path_in_repo='a', path_or_fileobj=b'a', token='hf_guest')", "403"),
        (
            "add = [CommitOperationAdd('a', b'a')]\n"
            "api.create_commit('me/model', add, commit_message='a', parent_commit='0' * 40)",
            "412",
        ),
    ],
)
def test_what_is_refused(hub, client, code, error):
    hub.state.create("model", "me/model", CONTENT)
    ended = client(code)
    assert ended.returncode
    assert error in ended.stderr


def test_branches_tags_pull_requests_and_new_names(hub, client):
    repository = hub.state.create("model", "me/old", CONTENT)
    hub.state.move("model", "me/old", "me/new")
    code = (
        "api.create_tag('me/new', tag='v1')\n"
        "api.create_branch('me/new', branch='next')\n"
        "add = lambda name: [CommitOperationAdd(name, b'x')]\n"
        "api.create_commit('me/new', add('b'), commit_message='b', revision='next')\n"
        "api.create_commit('me/new', add('c'), commit_message='c', create_pr=True, token='hf_guest')\n"
        "assert api.model_info('me/old').id == 'me/new'\n"
        "assert [tag.name for tag in api.list_repo_refs('me/new').tags] == ['v1']\n"
        "assert len(api.list_repo_commits('me/new', revision='next')) == 3\n"
        "hf_hub_download('me/old', 'c', revision='refs/pr/1')\n"
    )
    ended = client(code)
    assert ended.returncode == 0, ended.stderr
    assert "b" not in repository.head.files
    assert "c" not in repository.head.files


def test_long_listings_come_in_pages(hub, client):
    hub.state.create("model", "me/many", {f"folder/{number}.txt": b"x" for number in range(1500)})
    ended = client("assert len(list(api.list_repo_tree('me/many', recursive=True))) == 1502")
    assert ended.returncode == 0, ended.stderr
    assert len(hub.requests("GET", "/tree/")) == 2


def test_the_token_stays_on_its_host(hub, client):
    hub.state.create("model", "me/model", CONTENT, private=True)
    for xet in (True, False):
        assert client("snapshot_download('me/model')", xet=xet).returncode == 0
    strangers = [request for request in hub.log if request.host.startswith("localhost")]
    assert strangers
    assert not any("hf_me" in f"{request.path}{request.headers}" for request in strangers)


GET = "import httpx2\nanswer = httpx2.get(api.endpoint + '/me/model/resolve/main/config.json', timeout=1)\n"


@pytest.mark.parametrize(
    ("kind", "how", "code"),
    [
        ("status", {"status": 503}, "assert answer.status_code == 503"),
        ("hang", {}, "ReadTimeout"),
        ("reset", {}, "ReadError"),
        ("lost_reply", {}, "ReadError"),
        ("cut", {"after": 4}, "RemoteProtocolError"),
        ("reset_inside_reply", {"after": 4}, "ReadError"),
        ("flip", {"after": 0}, "assert answer.content[0] == ord('{') ^ 1"),
        ("trickle", {"after": 50}, "assert answer.elapsed.total_seconds() > 0.5"),
    ],
)
def test_a_fault_strikes_when_it_is_due(hub, client, kind, how, code):
    hub.state.create("model", "me/model", CONTENT)
    hub.break_("GET", "config.json", kind, skip=1, **how)
    broken = f"{GET}{code}\n" if code.startswith("assert") else f"try:\n {GET.splitlines()[1]}\n raise SystemExit(2)\n"
    broken += "" if code.startswith("assert") else f"except httpx2.{code}: pass\n"
    fine = GET + "assert answer.content == b'{\"hidden_size\": 8}'\n"
    ended = client(fine + broken + fine)
    assert ended.returncode == 0, ended.stderr
    assert len(hub.requests("GET", "config.json")) == 3


def test_nothing_but_this_machine_is_reached(hub, tmp_path):
    env = hub.env(tmp_path)
    assert env["HTTPS_PROXY"].startswith("http://127.0.0.1:")
    assert not {"HF_TOKEN", "HF_HUB_OFFLINE"} & set(env)
    assert env["PATH"] == os.environ["PATH"]

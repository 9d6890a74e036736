"""A push is one commit of the whole model, or none; run again, it does nothing."""

import json
import os
import shutil
import signal
import time

import pytest
import yaml
from hub.repository import files_in
from publish.conftest import WORDS

from stfit.io.json_files import load_json_object, seal_json
from stfit.publish.readme import BEGIN, END
from stfit.runtime.run_folder import hash_model


def head(server, repo="me/tiny"):
    return server.state.repositories["model", repo].head


def contents(commit):
    return {path: file.content for path, file in commit.files.items() if path != ".gitattributes"}


def commits(server, repo="me/tiny"):
    return len(head(server, repo).history())


def expected(run):
    published = files_in(run / "model")
    return published | {".stfit-files": "".join(f"{path}\n" for path in sorted(published)).encode()}


def rewrite(run, name, content):
    """Another file in the model of a run, with the digests that the run keeps of them."""
    (run / "model" / name).write_text(content)
    result = load_json_object(run / "result.json") | {"weights": hash_model(run / "model")}
    (run / "result.json").write_text(seal_json(result))


def test_a_push_is_one_commit_of_the_whole_model(server, stfit, run):
    ended = stfit("push", run, "--json")
    assert ended.code == 0, ended.err
    assert ended.json["repo"] == "me/tiny"
    assert ended.json["commit"] == head(server).oid
    assert set(ended.json["files"]) == set(contents(head(server))) == set(expected(run))
    published = contents(head(server))
    assert {path: published[path] for path in published if path != "README.md"} == {
        path: content for path, content in expected(run).items() if path != "README.md"
    }
    assert b'SentenceTransformer("me/tiny")' in published["README.md"]
    assert commits(server) == 2  # the Hub's own first one, and the push


def test_a_run_is_pushed_from_a_folder_of_any_name(server, stfit, run):
    moved = shutil.move(run, run.parent / "a[b] *? #é %20 'x'")
    ended = stfit("push", moved, "--json")
    assert ended.code == 0, ended.err
    assert set(contents(head(server))) == set(expected(moved))


def test_what_is_published_names_no_folder_of_this_machine(server, stfit, run):
    assert stfit("push", run).code == 0
    published = contents(head(server))
    assert "stfit.lock" in published
    for path, content in published.items():
        assert not [word for word in (b"secret-project", b"somebodys-home", b"/tmp", b"/home") if word in content], path


def test_run_again_it_does_nothing(server, stfit, run):
    first = stfit("push", run, "--json").json
    again = stfit("push", run, "--json")
    assert again.code == 0, again.err
    assert first["changed"]
    assert not again.json["changed"]
    assert again.json["commit"] == first["commit"]
    assert commits(server) == 2


def test_another_model_replaces_stale_files_and_keeps_foreign_ones(server, stfit, run):
    stfit("push", run)
    foreign = {"notes.md": b"mine", "onnx/model.onnx": b"mine too", "9_Dense/config.json": b"{}"}
    server.state.repositories["model", "me/tiny"].put(foreign)
    other = shutil.copytree(run / "model", run.parent / "other")
    listed = other / "modules.json"
    kept = json.dumps([module for module in json.loads(listed.read_text()) if module["path"] != "2_Dense"])
    listed.write_text(kept)
    shutil.rmtree(other / "2_Dense")
    ended = stfit("push", other, "--repo", "me/tiny", "--json")
    assert ended.code == 0, ended.err
    published = contents(head(server))
    assert foreign.items() <= published.items()
    assert not [path for path in published if path.startswith("2_Dense")]
    assert published["modules.json"] == kept.encode()
    assert commits(server) == 4


def test_repository_that_stfit_never_pushed_to_loses_nothing(server, stfit, run):
    theirs = {"2_Other/config.json": b"{}", "vocab.txt": b"a", "pytorch_model.bin": b"b"}
    server.state.create("model", "me/tiny", theirs)
    assert stfit("push", run).code == 0
    rewrite(run, "1_Pooling/config.json", "{}")
    assert stfit("push", run).code == 0
    assert theirs.items() <= contents(head(server)).items()


def test_readme_written_by_hand_is_kept(server, stfit, run):
    server.state.create("model", "me/tiny", {"README.md": b"# Mine\n"})
    ended = stfit("push", run)
    assert ended.code == 0, ended.err
    assert contents(head(server))["README.md"] == b"# Mine\n"
    assert "written by hand and is kept" in ended.err
    assert not stfit("push", run, "--json").json["changed"]


def test_text_around_the_generated_section_is_kept(server, stfit, run):
    handwritten = f"---\nlicense: mit\nwidget: []\n---\n# Mine\n{BEGIN}\n{END}\nMine too\n"
    server.state.create("model", "me/tiny", {"README.md": handwritten.encode()})
    assert stfit("push", run).code == 0
    readme = contents(head(server))["README.md"].decode()
    assert "# Mine\n" in readme
    assert readme.endswith("Mine too\n")
    assert 'SentenceTransformer("me/tiny")' in readme
    assert not stfit("push", run, "--json").json["changed"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "token", "repo", "message"),
    [
        ([], "hf_me", "me/tiny", None),
        (["--repo", "short"], "hf_me", "me/short", None),
        (["--repo", "short"], "hf_guest", "guest/short", None),
        (["--repo", "team/shared"], "hf_me", "team/shared", None),
        (["--repo", "team/shared"], "hf_guest", None, "may not push to `team`"),
        ([], "hf_reader", None, "is read-only"),
        ([], "hf_nobody", None, "does not accept the token"),
        ([], "", None, "hf auth login"),
        (["--repo", "a//b"], "hf_me", None, "is not a valid repository name"),
        (["--create-pr"], "hf_me", None, "no model `me/tiny` to open a pull request for"),
    ],
)
def test_owner_of_the_repository(server, stfit, run, arguments, token, repo, message):
    ended = stfit("push", run, *arguments, HF_TOKEN=token)
    created = [id for _, id in server.state.repositories]
    assert created == ([repo] if repo else [])
    assert (ended.code == 0) == (message is None), ended.err
    if message:
        assert message in ended.err
        assert len(ended.err.strip().splitlines()) == 1
        assert ended.code == (2 if "repository name" in message else 5)


def test_card_is_corrected_without_a_training(server, stfit, run):
    refused = stfit("push", run, "--license", "apache2")
    assert refused.code == 5
    assert "the Hub rejects" in refused.err
    assert '"license" must be one of [' in refused.err
    assert len(refused.err.strip().splitlines()) == 1
    assert head(server).files.keys() <= {".gitattributes"}
    assert stfit("push", run, "--license", "mit", "--language", "de", "--language", "en").code == 0
    metadata = yaml.safe_load(contents(head(server))["README.md"].decode().split("---")[1])
    assert (metadata["license"], metadata["language"]) == ("mit", ["de", "en"])
    assert stfit("push", run, "--language", "german").code == 2


@pytest.mark.slow
def test_license_that_the_hub_rejects_is_found_before_the_training(server, stfit, trained, tmp_path):
    recipe = trained.parents[1] / "recipe.yaml"
    ended = stfit("train", recipe, "push.license=apache2", "--runs", tmp_path)
    assert ended.code == 5
    assert '"license" must be one of [' in ended.err
    assert "add `~push`" in ended.err
    checked = stfit("check", recipe, "push.license=apache2")
    assert checked.code == 0
    assert "`apache2` is not a known license of the Hub, which may reject it; did you mean `apache-2.0`?" in checked.err


def test_private_means_private(server, stfit, run):
    assert stfit("push", run, "--private").code == 0
    assert server.state.repositories["model", "me/tiny"].private
    server.state.create("model", "me/open")
    refused = stfit("push", run, "--private", "--repo", "me/open")
    assert refused.code == 5
    assert "is public" in refused.err
    assert commits(server, "me/open") == 1


def test_repository_that_the_push_makes_gets_its_tag(server, stfit, run):
    ended = stfit("push", run, "--repo", "me/new", "--tag", "v1", "--json")
    assert ended.code == 0, ended.err
    assert server.state.repositories["model", "me/new"].tags["v1"].oid == ended.json["commit"]


@pytest.mark.slow
def test_branch_tag_and_pull_request(server, stfit, run):
    repository = server.state.create("model", "me/tiny", {"README.md": b"# Mine\n"})
    before = repository.head.oid
    ended = stfit("push", run, "--branch", "next", "--tag", "v1", "--json")
    assert ended.code == 0, ended.err
    assert repository.head.oid == before
    assert repository.branches["next"].oid == repository.tags["v1"].oid == ended.json["commit"]
    again = stfit("push", run, "--branch", "next", "--tag", "v1")
    assert again.code == 0
    assert "nothing to do, commit" in again.out
    assert "tagged v1" in again.out
    rewrite(run, "1_Pooling/config.json", "{}")
    refused = stfit("push", run, "--branch", "next", "--tag", "v1")
    assert refused.code == 5
    assert "already has a tag `v1`" in refused.err
    first = stfit("push", run, "--create-pr", "--json")
    again = stfit("push", run, "--create-pr", "--json")
    assert first.code == again.code == 0, first.err + again.err
    assert first.json["pull_request"] == again.json["pull_request"] == f"{server.url}/me/tiny/discussions/1"
    assert first.json["commit"] == again.json["commit"] == repository.branches["refs/pr/1"].oid
    assert repository.head.oid == before


def test_dry_run_lists_and_changes_nothing(server, stfit, run):
    ended = stfit("push", run, "--dry-run")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines() == [f"would add     {path}" for path in sorted(expected(run))]
    assert not server.state.repositories
    assert all(request.method in ("GET", "HEAD") for request in server.log)


def test_dry_run_needs_no_token(server, stfit, run):
    ended = stfit("push", run, "--dry-run", "--repo", "me/tiny", HF_TOKEN="")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines() == [f"would add     {path}" for path in sorted(expected(run))]
    assert "there is no token: `me/tiny` is not looked at" in ended.err
    assert not server.log
    assert stfit("push", run, "--repo", "me/tiny", HF_TOKEN="").code == 5


def test_stray_file_or_link_stops_it_before_anything_is_asked(server, stfit, run):
    (run / "model" / ".env").write_text("SECRET=1")
    (run / "model" / "vocab.txt").symlink_to("/etc/passwd")
    ended = stfit("push", run)
    assert ended.code == 4
    assert ".env" in ended.err
    assert "vocab.txt" in ended.err
    assert not server.log


def test_run_that_has_not_finished_is_not_published_past_its_gate(server, stfit, run):
    (run / "result.json").unlink()
    ended = stfit("push", run, "--repo", "me/tiny")
    assert ended.code == 4
    assert "has not finished" in ended.err
    shutil.rmtree(run / "model")
    ended = stfit("push", run, "--repo", "me/tiny")
    assert ended.code == 4
    assert "has no model yet" in ended.err
    assert not server.log


def test_file_that_holds_the_token_is_not_published(server, stfit, run):
    rewrite(run, "config.json", '{"token": "hf_me"}')
    ended = stfit("push", run)
    assert ended.code == 4
    assert "the Hub token is in config.json" in ended.err
    assert "hf_me" not in ended.err
    assert not server.log


def test_plain_model_folder_is_published_with_its_own_readme(server, stfit, run, tmp_path):
    shutil.copytree(run / "model", tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("# By hand\n")
    without = stfit("push", tmp_path / "copy")
    assert without.code == 2
    assert "--repo" in without.err
    ended = stfit("push", tmp_path / "copy", "--repo", "copy")
    assert ended.code == 0, ended.err
    listed = "".join(f"{path}\n" for path in sorted(files_in(tmp_path / "copy"))).encode()
    assert contents(head(server, "me/copy")) == files_in(tmp_path / "copy") | {".stfit-files": listed}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lost_reply", "reset", "status"])
def test_after_a_broken_commit_nothing_is_committed_twice(server, stfit, run, kind):
    server.break_("POST", "/commit/", kind)
    ended = stfit("push", run, "--json")
    assert ended.code == 0, ended.err
    assert commits(server) == 2
    assert ended.json["commit"] == head(server).oid
    assert len(server.requests("POST", "/commit/")) == (1 if kind == "lost_reply" else 2)


@pytest.mark.slow
def test_somebody_who_is_faster_is_not_overwritten(server, stfit, run):
    repository = server.state.create("model", "me/tiny", {"notes.md": b"1"})
    server.break_("POST", "/preupload/", "hang")
    stfit.start("push", run)
    while not server.requests("POST", "/preupload/"):
        time.sleep(0.01)
    repository.put({"notes.md": b"2"})
    ended = stfit.end()
    assert ended.code == 5
    assert "somebody else pushed" in ended.err
    assert contents(repository.head) == {"notes.md": b"2"}


@pytest.mark.slow
def test_killed_before_its_commit_it_leaves_the_old_model_and_goes_through_when_run_again(server, stfit, run):
    stfit("push", run)
    before = contents(head(server))
    rewrite(run, "1_Pooling/config.json", "{}")
    server.break_("POST", "/commit/", "hang")
    child = stfit.start("push", run)
    while len(server.requests("POST", "/commit/")) < 2:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    assert stfit.end().code == -signal.SIGKILL
    assert contents(head(server)) == before
    assert stfit("push", run).code == 0
    assert contents(head(server))["1_Pooling/config.json"] == b"{}"
    assert commits(server) == 3


def test_token_goes_to_the_hub_only(server, stfit, run):
    server.account("hf_canary", "me")
    ended = stfit("push", run, "--debug", HF_TOKEN="hf_canary", HF_DEBUG="1")
    assert ended.code == 0, ended.err
    strangers = [request for request in server.log if request.host.startswith("localhost")]
    assert strangers
    assert not any("hf_canary" in f"{request.path}{request.headers}{request.body}" for request in strangers)
    assert "hf_canary" not in ended.out + ended.err
    assert not any(b"hf_canary" in content for content in contents(head(server)).values())
    assert "hf_canary" not in json.dumps(list(files_in(run).keys()))
    assert not any(b"hf_canary" in content for content in files_in(run).values())


def test_ranges_are_published_with_the_model_and_used_where_none_are_given(server, stfit, run, tmp_path):
    (tmp_path / "texts.txt").write_text("".join(f"about {one} {other}s\n" for one in WORDS for other in WORDS))
    texts, ranges = tmp_path / "texts.txt", tmp_path / "ranges.json"
    one, two = (tmp_path / name for name in ("one.npy", "two.npy"))
    assert stfit("encode", run, texts, "--precision", "int8", "-o", one, "--calibration", ranges).code == 0
    assert "need --calibration FILE" in stfit("encode", run, texts, "--precision", "int8", "-o", two).err
    ended = stfit("push", run, "--calibration", ranges, "--json")
    assert ended.code == 0, ended.err
    assert "int8_ranges.json" in ended.json["add"]
    assert not stfit("push", run, "--json").json["changed"]  # the folder of the run has it, too
    ended = stfit("encode", "me/tiny", texts, "--precision", "int8", "-o", two)
    assert ended.code == 0, ended.err
    assert two.read_bytes() == one.read_bytes()
    own, given = (
        stfit("search", "me/tiny", two, "--query", "rain", "--json", *option).json
        for option in ([], ["--calibration", ranges])
    )
    assert own["queries"] == given["queries"]
    assert len(own["queries"][0]["nearest"]) > 0
    other = tmp_path / "other.json"
    other.write_text(json.dumps(json.loads(ranges.read_text()) | {"model": "another"}))
    (run / "model" / "int8_ranges.json").write_text(other.read_text())
    commands = [("push", run, "--calibration", other), ("push", run), ("search", run, two, "--query", "rain")]
    for command in commands:
        refused = stfit(*command)
        assert refused.code == 3
        assert "by another model" in refused.err

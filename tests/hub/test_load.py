"""Bases and datasets are loaded from the Hub at a commit, whole, or refused in one sentence that says what to do."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub.conftest import RECIPE, ROWS, lines
from hub.repository import files_in
from processes import needs_mounts
from safetensors.torch import load

from stfit.recipe.load import load_recipe


def error_of(ended: subprocess.CompletedProcess[str]) -> str:
    assert ended.returncode == 5, ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr
    message = json.loads(ended.stdout)["error"]["message"]
    assert "\n" not in message
    return message


@pytest.mark.slow
def test_what_was_fetched_trains_without_a_network(filled, stfit, tmp_path):
    fetched = stfit("fetch recipe.yaml --json")
    assert fetched.returncode == 0, fetched.stderr
    commits = {kept.id: kept.head.oid for kept in filled.state.repositories.values()}
    assert {entry["id"]: entry["commit"] for entry in json.loads(fetched.stdout)["fetched"]} == commits
    assert not filled.requests(path="other/rows.jsonl")
    requests_before = len(filled.log)
    trained = stfit("train recipe.yaml --json", HF_HUB_OFFLINE="1")
    assert trained.returncode == 0, trained.stderr
    assert len(filled.log) == requests_before
    assert "fetching" not in trained.stderr
    resolved = (tmp_path / "runs/recipe/resolved.yaml").read_text()
    assert all(resolved.count(commit) == 1 for commit in commits.values())


@pytest.mark.slow
def test_nothing_is_written_that_is_in_the_cache_already(filled, stfit, tmp_path):
    assert stfit("fetch recipe.yaml --json").returncode == 0

    def written():
        files = [path for name in ("hub", "assets") for path in (tmp_path / "home" / name).rglob("*")]
        return {path: path.stat().st_mtime_ns for path in files if path.is_file()}

    before = written()
    assert any(path.name == "main" for path in before)
    assert stfit("fetch recipe.yaml --json").returncode == 0
    assert written() == before


@pytest.mark.slow
@needs_mounts
def test_every_verb_works_on_a_cache_that_is_read_only(filled, stfit, tmp_path):
    assert stfit("fetch recipe.yaml").returncode == 0
    for line in ("check recipe.yaml", "init me/rows --config pairs -o first.yaml"):  # these read more than `fetch`
        assert stfit(line).returncode == 0
    (tmp_path / "texts.txt").write_text("a cat\na dog\n")
    home = tmp_path / "home"
    mount = f"mount --bind {home} {home} && mount -o remount,ro,bind {home}"
    verbs = [
        "fetch recipe.yaml",
        "check recipe.yaml",
        "train recipe.yaml ~push",
        "eval runs/recipe",
        "encode me/base texts.txt -o embeddings.npy",
        "similar me/base texts.txt --query cats",
        "mine runs/recipe recipe.yaml -o mined.jsonl --corpus texts.txt --relative-margin 0",
        "init me/rows --config pairs -o written.yaml",
    ]
    for line, offline in [*((line, "0") for line in verbs), (verbs[2].replace("~push", "seed=1 ~push"), "1")]:
        ended = stfit(line, shell=f"{mount} && ! touch {home}/file 2>/dev/null", HF_HUB_OFFLINE=offline)
        assert ended.returncode == 0, f"{line}: {ended.stderr}"
        assert "Read-only" not in ended.stderr, f"{line}: {ended.stderr}"


@pytest.mark.slow
def test_a_base_without_safetensors_is_fetched_and_read_as_tensors_alone(filled, stfit, tiny_base):
    files = files_in(tiny_base("bert"))
    stream = io.BytesIO()
    torch.save(load(files.pop("model.safetensors")), stream)
    filled.state.create("model", "me/base", files | {"pytorch_model.bin": stream.getvalue(), "onnx/x.bin": b"x"})
    trained = stfit("train recipe.yaml ~push --json")
    assert trained.returncode == 0, trained.stderr
    assert "read without running code" in trained.stderr
    assert not filled.requests(path="onnx/x.bin")


@pytest.mark.slow
def test_a_repository_without_a_model_says_what_is_missing(filled, stfit):
    filled.state.create("model", "me/base", {"README.md": b"soon"})
    ended = stfit("check recipe.yaml --json")
    assert ended.returncode == 4, ended.stderr
    assert "`me/base` on the Hub has none of the files modules.json, config.json" in ended.stdout


def test_offline_without_the_files_says_how_to_get_them(stfit):
    assert "stfit fetch" in error_of(stfit("fetch recipe.yaml --json", HF_HUB_OFFLINE="1"))


@pytest.mark.slow
def test_a_hub_that_is_not_there_is_one_sentence(stfit):
    message = error_of(stfit("fetch recipe.yaml --json", HF_ENDPOINT="http://127.0.0.1:9"))
    assert message == "the Hub (http://127.0.0.1:9) can't be reached: model `me/base`"


@pytest.mark.slow
def test_a_check_reads_the_first_rows_and_a_small_part_of_the_files(filled, stfit):
    wide = [{"anchor": f"question {i} " + "x" * 500, "positive": f"answer {i}"} for i in range(80_000)]
    filled.state.repositories["dataset", "me/rows"].put({"data/train-00000-of-00002.jsonl": lines(wide)})
    ended = stfit("check recipe.yaml --json")
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert (result["rows"], result["looked_at"]) == (10_000, "the first 10000 rows")
    assert not filled.requests(path="model.safetensors")
    ranges = [request.headers["range"] for request in filled.requests("GET", "data/train-00000")]
    spans = [tuple(map(int, span.removeprefix("bytes=").split("-"))) for span in ranges]
    assert max(last for _, last in spans) < 0.75 * len(lines(wide))


@pytest.mark.slow
def test_a_run_stays_with_the_commits_that_it_started_with(filled, stfit, tmp_path):
    """A dataset that moves between two processes of a run changes nothing in it."""
    data = filled.state.repositories["dataset", "me/rows"]
    first = data.head.oid
    assert stfit("fetch recipe.yaml").returncode == 0
    recipe = f"{RECIPE}".replace("config: pairs", f"config: pairs, revision: {first[:10]}")
    (tmp_path / "recipe.yaml").write_text(recipe)
    data.put({"data/test.jsonl": b"", "data/train-00000-of-00002.jsonl": b"{}"})
    trained = stfit("train recipe.yaml --json")
    assert trained.returncode == 0, trained.stderr
    assert first in (tmp_path / "runs/recipe/resolved.yaml").read_text()


@pytest.mark.slow
def test_code_of_a_repository_is_neither_run_nor_fetched(filled, stfit, tmp_path):
    base = filled.state.repositories["model", "me/base"]
    code = {"AutoConfig": "modeling.TheirConfig", "AutoModel": "modeling.TheirModel"}
    canary = tmp_path / "canary"
    base.put(
        {
            "config.json": json.dumps({"model_type": "their_own", "auto_map": code}).encode(),
            "modeling.py": f"open({str(canary)!r}, 'w').close()".encode(),
        }
    )
    ended = stfit("train recipe.yaml --json")
    assert ended.returncode == 4, ended.stderr
    assert "of `auto_map` is code in a repository, which stfit never runs" in ended.stdout
    assert not canary.exists()
    assert not filled.requests(path="modeling.py")


@pytest.mark.slow
def test_a_renamed_repository_is_followed_and_said(filled, stfit):
    filled.state.move("dataset", "me/rows", "me/better-rows")
    ended = stfit("check recipe.yaml")
    assert ended.returncode == 0, ended.stderr
    assert "`me/rows` was renamed to `me/better-rows`" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "token", "expected"),
    [
        ("model.base=me/nothing", "hf_me", "has no model `me/nothing`"),
        ("data.dataset=me/nothing data.config=null", None, "hf auth login"),
        ("data.revision=v9", "hf_me", "has no revision `v9`; known: main"),
        ("model.revision=mian", "hf_me", "did you mean `main`?"),
        ("model.base=a/b/c", "hf_me", "is not a valid id of a model"),
        ("eval.0.limit=10", None, "hf auth login"),
        ("eval.0.limit=10", "hf_guest", "request access if it is private"),
        ("eval.0.limit=10", "hf_nobody", "does not accept the token: log in with `hf auth login`"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(stfit, change, token, expected):
    assert expected in error_of(stfit(f"fetch recipe.yaml --json {change}", token))


@pytest.mark.slow
@pytest.mark.parametrize(("token", "expected"), [(None, "hf auth login"), ("hf_guest", "request access at http")])
def test_a_gated_repository_says_how_to_get_in(filled, stfit, token, expected):
    filled.state.repositories["model", "me/base"].gated = True
    message = error_of(stfit("fetch recipe.yaml ~eval --json", token))
    assert "gated" in message
    assert expected in message


@pytest.mark.slow
def test_a_damaged_cache_is_mended(filled, stfit, tmp_path):
    assert stfit("fetch recipe.yaml").returncode == 0
    (weights,) = Path(tmp_path / "home").glob("hub/models--me--base/snapshots/*/model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.resolve().write_bytes(content)
    ended = stfit("fetch recipe.yaml")
    assert ended.returncode == 0
    assert "is damaged, downloading it again" in ended.stderr
    content[-1] ^= 1
    assert weights.read_bytes() == content


@pytest.mark.slow
def test_a_token_is_told_to_nobody_but_the_hub(filled, stfit, tmp_path):
    """Nothing on disk, no output, no other host: for what works and for what fails, with all that talks turned on."""
    filled.account("hf_canary", "me", orgs=("team",))
    talk = {"HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug"}
    lines = ["train recipe.yaml --debug", "check recipe.yaml data.revision=v9", "fetch recipe.yaml --debug"]
    ends = [stfit(line, "hf_canary", **talk) for line in lines[:2]]
    filled.break_("GET", "/api/", "status", times=100, status=403, headers={"X-Error-Message": "no"})
    ends += [stfit(lines[2], "hf_canary", **talk)]
    assert [ended.returncode for ended in ends] == [0, 5, 5]
    assert filled.requests()
    outputs = [ended.stdout + ended.stderr for ended in ends]
    assert "Traceback" in outputs[2]
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    forwarded = [f"{request.path}{request.headers}" for request in filled.log if request.host.startswith("localhost")]
    assert forwarded
    assert not any("hf_canary" in text for text in outputs + forwarded)
    assert not any(b"hf_canary" in content for content in written)


SENTENCE_MODEL = """
import sys
from sentence_transformers import SentenceTransformer, models
base = models.Transformer(sys.argv[1], max_seq_length=20)
pooling = models.Pooling(base.get_word_embedding_dimension(), pooling_mode="cls")
model = SentenceTransformer(modules=[base, pooling, models.Normalize()], prompts={"query": "ask: "}, device="cpu")
model.save_pretrained(sys.argv[2])
"""


@pytest.mark.slow
def test_a_sentence_transformers_model_of_the_hub_is_gone_on_from(filled, stfit, tiny_base, tmp_path):
    """At the commit that its branch was at; with its own pooling, layers, length and prompts."""
    pytest.importorskip("sentence_transformers", reason="pip install stfit[sentence-transformers]")
    theirs = tmp_path / "theirs"
    subprocess.run([sys.executable, "-c", SENTENCE_MODEL, tiny_base("bert"), theirs], check=True, capture_output=True)
    repository = filled.state.create("model", "team/sentences", files_in(theirs), private=True)
    ended = stfit("train recipe.yaml model.base=team/sentences model.revision=main --json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["steps"] == 2
    model = load_recipe(tmp_path / "runs/recipe/resolved.yaml").recipe.model
    assert (model.base, model.revision) == ("team/sentences", repository.head.oid)
    assert (model.pooling, model.max_seq_length, model.prompts["query"]) == (["cls"], 20, "ask: ")
    assert [layer.type for layer in model.layers] == ["normalize"]
    card = (tmp_path / "runs/recipe/model/README.md").read_text()
    assert f"at commit `{repository.head.oid}`" in card
    assert "base_model: team/sentences" in card


@pytest.mark.slow
def test_a_cache_that_can_not_be_written_is_no_bug(filled, stfit, tmp_path):
    (tmp_path / "home").write_text("a file where the cache should be")
    ended = stfit("fetch recipe.yaml --json")
    assert ended.returncode == 9, ended.stderr
    assert "HF_HOME" in json.loads(ended.stdout)["error"]["message"]


@pytest.mark.slow
def test_texts_of_a_dataset_are_encoded(filled, stfit, tmp_path):
    (tmp_path / "t.jsonl").write_bytes(lines(ROWS[:5]))
    filled.state.create("dataset", "me/texts", {"train.jsonl": lines(ROWS[:5]), "test.jsonl": lines(ROWS)})
    for source, output in (("me/texts", "hub.npy"), ("t.jsonl", "file.npy")):
        ended = stfit(f"encode me/base {source} -o {output} --column positive")
        assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "hub.npy").read_bytes() == (tmp_path / "file.npy").read_bytes()
    assert not filled.requests(path="test.jsonl")
    assert "no split `tset`" in stfit("encode me/base me/texts --split tset -o no.npy --column positive").stderr


@pytest.mark.slow
def test_a_stream_of_a_dataset_trains_on_its_files_and_is_checked_by_its_first_rows(filled, stfit, tmp_path):
    streamed = "data.streaming=true data.shuffle_buffer=16 train.max_steps=8"
    checked = stfit(f"check recipe.yaml {streamed} --json")
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["rows"] == len(ROWS)
    trained = stfit(f"train recipe.yaml {streamed} --json")
    assert trained.returncode == 0, trained.stderr
    lock = json.loads((tmp_path / "runs/recipe/stfit.lock").read_text())
    assert lock["data"] == [{"dataset": "me/rows", "commit": filled.state.repositories["dataset", "me/rows"].head.oid}]
    refused = stfit("check recipe.yaml data.streaming=true data.split=train+test --json")
    assert refused.returncode == 2
    assert "`train[:10000]+test[:10000]`: a stream only reads one whole split" in refused.stdout

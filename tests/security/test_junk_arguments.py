"""Whatever is given, on a command line, from Python or as a folder, nothing ends in an error of stfit's own making."""

import io
import json
import logging
import random
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from traceback import format_exception, walk_tb

import datasets
import numpy as np
import pandas as pd
import pytest
from draws import few_or_many

import stfit
from stfit.cli.main import main
from stfit.data.reading.load_table import load_table
from stfit.data.source import Source
from stfit.encoder.build import build_encoder, load_encoder
from stfit.encoder.config import Model
from stfit.encoder.folder.save import save_encoder
from stfit.errors import StfitError

COUNT = few_or_many(25)

TEXTS = ["about rain", "on bread", "a train", "the cat"]
RECIPE = """\
model: {base: {type: static}}
data: {dataset: ./rows.jsonl, format: positive_pair}
loss: multiple_negatives_ranking
train: {batch_size: 4, max_steps: 1, learning_rate: 0.01}
"""
FLAGS = {
    "--fresh", "--resume", "--print-config", "--skip-unchanged", "--with-text", "--normalize", "--fast", "--int8",
    "--approximate", "--strict", "--full", "--json", "--help",
}  # fmt: skip
VERBS = {
    "train": "recipe.yaml --runs --fresh --resume --locked --print-config --skip-unchanged --json",
    "eval": "model --recipe --compare --runs --json",
    "encode": "model texts.txt -o --column --id-column --with-text --split --prompt-name --normalize --truncate-dim "
    "--precision --calibration --batch-tokens --fast --device --json",
    "export": "model texts.txt --to -o --int8 --column --split --json",
    "similar": "model texts.txt --query --top --column --split --approximate --device --json",
    "mine": "model recipe.yaml -o --corpus --column --ranks --margin --relative-margin --duplicate --per-row --json",
    "report": "runs/recipe -o --json",
    "runs": "--runs --json",
    "check": "recipe.yaml --strict --full --json",
    "fetch": "recipe.yaml --json",
    "init": "rows.jsonl -o --base --config --json",
    "schema": "-o --json",
    "reference": "metrics -o",
}
"""Verb -> its arguments, and its options."""
WORDS = [
    "recipe.yaml", "rows.jsonl", "texts.txt", "model", "runs/recipe", "out.npy", "out.jsonl", "out", "ranges.json",
    "nothing", "a/b", ".", "..", "-", "--", "", " ", "0", "-1", "3", "1e9", "nan", "1:9", "9:1", "int8", "binary",
    "cpu", "cuda:7", "text", "anchor", "set.pos[*]", "[", "*", "train[:50%]", "train.max_steps=0", "seed=x", "=", "{",
    "model.prompts={query: 'q: '}", 'model.prompts={query: "\\ud83d"}', "a=b=c", "\udcff", "😀", "é" * 3_000, "~data",
    "--json", "--help", "--nonsense", "metrics", "loss=softmax", "data.format=text", "eval=[similarity]", "saw \udced",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """A recipe, rows, texts and a small model in the current folder."""
    rows = [{"anchor": f"{text} {i}", "positive": f"{i} {text}"} for i, text in enumerate(TEXTS * 2)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    base = Model.model_validate({"base": {"type": "static"}})
    save_encoder(build_encoder(base, lambda: TEXTS), tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    for name in ("CI", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    handlers = logging.getLogger("stfit").handlers
    yield tmp_path
    logging.getLogger("stfit").handlers = handlers


def end_of(arguments: list[str]) -> tuple[int, str]:
    """Exit code and stderr of a command line in this process, with an empty stdin."""
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") for _ in range(2)]
    sys.argv, sys.stdin = ["stfit", *arguments], io.TextIOWrapper(io.BufferedReader(io.BytesIO()))
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]), warnings.catch_warnings(action="ignore"):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        streams[1].flush()
    return code, streams[1].buffer.getvalue().decode()


def draw_line(rng: random.Random) -> list[str]:
    """A verb with its arguments and a few of its options, some of them junk."""
    verb = rng.choice(list(VERBS))
    words = VERBS[verb].split()
    options = [word for word in words if word[0] == "-"]
    line = [verb, *(rng.choice([word] * 4 + WORDS[:12] + [rng.choice(WORDS)]) for word in words if word[0] != "-")]
    for option in rng.sample(options, rng.randint(0, min(3, len(options)))):
        line += [option] if option in FLAGS else [option, rng.choice(WORDS)]
    if "-o" in options and "-o" not in line and rng.random() < 0.8:
        line += ["-o", rng.choice(["out.npy", "out.jsonl", "out", "ranges.json"])]
    return [*line, *rng.sample(WORDS, rng.choice([0, 0, 0, 1, 2]))]


@COUNT
def test_no_command_line_ends_with_exit_code_1(folder, monkeypatch, promise, count):
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(sys, "stdin", None)
    rng, codes = random.Random(f"{count} lines"), {}
    for _ in range(count):
        line = draw_line(rng)
        code, err = end_of(line)
        assert code != 1, f"{line!r}\n{err}"
        codes[code] = codes.get(code, 0) + 1
    promise("command lines that end without an exit code of 1", f"{count}/{count} {codes}")


VALUES = [
    None, "", "a cat", "\ud83d", b"a", 0, -1, 7, 1.5, float("nan"), float("inf"), 2**70, True, [], ["a"], ["a", None],
    ["a", 1], [["a"]], [("a", "b")], ("a", "b"), {"a": 1}, {"a"}, range(3), iter("ab"), object(), str, np.array(["a"]),
    np.array("a"), np.array([["a"]]), np.array([1.0]), pd.Series(["a"]), pd.Series([None]), pd.DataFrame({"a": ["b"]}),
    "query", "cpu", "cuda", "nothing", "a/b", "/", ".", "model", "recipe.yaml", "x" * 5_000, ["train.epochs=1"], ["x"],
    datasets.Dataset.from_dict({"text": ["a"]}), datasets.Dataset.from_dict({"anchor": ["a"], "positive": ["c"]}),
    datasets.DatasetDict(), [{"anchor": "a", "positive": "b"}, {"anchor": 1}], [{}], [{"anchor": object()}], "\udcff",
]  # fmt: skip


def call(rng: random.Random, encoder) -> None:
    draw = lambda: rng.choice(VALUES)  # noqa: E731
    names = rng.sample(["prompt_name", "prompt", "normalize", "truncate_dim"], rng.choice([0, 0, 1, 2]))
    match rng.choice(["encode", "encode", "encode", "load", "train"]):
        case "encode":
            encoder.encode(draw(), **{name: draw() for name in names})
        case "load":
            stfit.load(*(draw() for _ in range(rng.choice([1, 1, 2]))))
        case "train":
            recipe = rng.choice(["recipe.yaml", draw()])
            stfit.train(recipe, draw(), **rng.choice([{}, {}, {"overrides": draw()}, {"runs": draw()}]))


@COUNT
def test_no_python_argument_is_a_bare_error(folder, promise, count):
    encoder, rng, refused = stfit.load("model"), random.Random(f"{count} calls"), 0
    for number in range(count):
        try:
            call(rng, encoder)
        except StfitError:
            refused += 1
        except TypeError as error:
            *_, (frame, _) = walk_tb(error.__traceback__)
            if frame.f_globals["__name__"] not in ("stfit.encoder.inputs", "stfit.commands.api"):
                pytest.fail(describe(number, error))
            refused += 1
        except Exception as error:
            pytest.fail(describe(number, error))
    promise("junk arguments from Python, taken or refused in stfit's own words", f"{count}/{count}, {refused} refused")


def describe(number: int, error: Exception) -> str:
    text = f"draw {number}: {''.join(format_exception(error))}"
    return text.encode("ascii", "backslashreplace").decode()  # half a surrogate pair would end pytest-xdist


JUNK = [None, True, -1, 0, 10**12, 1.5, "", "x", "../x", "/etc/passwd", [], [None], ["x"], {}, {"type": "x"}, "\ud800"]


def damage(path: Path, rng: random.Random) -> str:
    """Change a value of a JSON file, or the bytes of any other; gives what was done."""
    content = path.read_bytes()
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    if not isinstance(value, dict | list) or not value or rng.random() < 0.2:
        at = rng.randrange(len(content) + 1)
        path.write_bytes(
            rng.choice([b"", content[:at], content[:at] + b"\xff\x00" + content[at + 2 :], content + b"x"])
        )
        return f"{path.name}: bytes at {at}"
    node = value
    while True:
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.7:
            node = node[key]
            continue
        node[key] = rng.choice(JUNK)
        break
    path.write_text(json.dumps(value))
    return f"{path.name}: {key} = {node[key]!r}"


def read_damaged(good: Path, root: Path, read, count: int, rng: random.Random) -> int:
    """How many of `count` damaged copies of a folder are refused; the others are read."""
    refused = 0
    read(good)
    for number in range(count):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(good, root)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        chosen = rng.sample(files, rng.choice([1, 1, 2]))
        done = [damage(path, rng) if rng.random() < 0.9 else path.unlink() or f"{path.name}: gone" for path in chosen]
        try:
            with warnings.catch_warnings(action="ignore"):
                read(root)
        except StfitError:
            refused += 1
        except Exception as error:
            error.add_note(f"draw {number}: {done}")
            raise
    return refused


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved dataset with several types of columns, and splits of any name."""
    rows = {
        "text": ["a", "b", None],
        "label": [0, 1, 1],
        "set": [{"pos": ["x"]}, {"pos": []}, None],
        "vector": [[1.0], [], [2]],
    }
    label = {"label": datasets.ClassLabel(names=["no", "yes"])}
    split = datasets.Dataset.from_dict(rows).cast_column("label", label["label"])
    root = tmp_path_factory.mktemp("saved")
    datasets.DatasetDict({"train": split, "odd-name.1": split}).save_to_disk(str(root / "dict"))
    split.save_to_disk(str(root / "one"))
    return root


@COUNT
@pytest.mark.parametrize("kind", ["dict", "one"])
def test_no_saved_dataset_is_a_bare_error(saved, tmp_path, promise, kind, count):
    rng = random.Random(f"{count} {kind}")
    read = lambda root: load_table(Source(dataset=str(root), split="train"))  # noqa: E731
    refused = read_damaged(saved / kind, tmp_path / "root", read, count, rng)
    promise("damaged saved datasets, read or refused in own words", f"{count}/{count}, {refused} refused ({kind})")


@COUNT
@pytest.mark.parametrize("kind", ["bert", "static"])
def test_no_model_folder_is_a_bare_error(tiny_base, tmp_path, promise, kind, count):
    base = str(tiny_base("bert")) if kind == "bert" else {"type": "static"}
    model = Model.model_validate({"base": base, "layers": [{"type": "dense", "out_features": 4}, "normalize"]})
    save_encoder(build_encoder(model, lambda: TEXTS), tmp_path / "good")
    rng = random.Random(f"{count} {kind}")
    read = lambda root: load_encoder(root).encode(TEXTS)  # noqa: E731
    refused = read_damaged(tmp_path / "good", tmp_path / "root", read, count, rng)
    promise("damaged model folders, loaded or refused in own words", f"{count}/{count}, {refused} refused ({kind})")

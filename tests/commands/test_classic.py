"""The recipes of recipes/classic, shortened, on real rows of the same shape: every one makes its first metric better.

`data.dataset` is what makes a recipe read the look-alike, and its evaluators with it. What else can't be had here is
the base, STS-B where it is measured on beside another dataset, and rows enough for the recipe's own holdout.
"""

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from stfit.commands.train import train
from stfit.events import Finished
from stfit.recipe.load import load_recipe

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "recipes" / "classic"
SHORTENED = [
    "train.epochs=null",
    "train.max_steps=25",
    "train.batch_size=32",
    "train.learning_rate=1e-4",
    "train.eval_every=1.0",
    "train.save_every=1.0",
]
TREC = ["data.dataset=DATA/trec", "model.base=BASE"]
QQP_RUN = "model.base=RUNS/qqp_triplets"
SNLI = "DATA/snli/validation.jsonl.gz"  # its train split could not be had

CASES = {
    "qqp_triplets": ["data.dataset=DATA/qqp_triplets", "model.base=WHOLE"],
    "sentence_compression": ["data.dataset=DATA/sentence_compression", "data.holdout.fraction=0.25", QQP_RUN],
    "snli_softmax": [
        *["data.dataset=DATA/snli", "data.split=validation", "eval.0.split=test", "model.base=BASE"],
        *["train.max_steps=100", "train.learning_rate=1e-3"],
    ],
    "snli_entailment": [f"data.dataset={SNLI}", "model.base=BASE"],
    "snli_both": [f"objectives.0.data.dataset={SNLI}", f"objectives.1.data.dataset={SNLI}", "model.base=BASE"],
    "trec": TREC,
    "trec, batch_hard": [*TREC, "loss=batch_hard_triplet"],
    "trec, batch_semi_hard": [*TREC, "loss=batch_semi_hard_triplet"],
    "trec, batch_hard_soft": [*TREC, "loss=batch_hard_soft_margin_triplet"],
    "flickr30k": ["data.dataset=DATA/flickr8k", "data.holdout.rows=60", "model.base=BASE"],
    "coco_captions": ["data.dataset=DATA/flickr8k", "data.holdout.rows=60", "model.base=BASE"],
    "yahoo_answers": ["data.dataset=TOPICS", "model.base=BASE"],
    "stsb_cosent": ["data.dataset=DATA/stsb", "model.base=BASE"],
    "stsb_cosine": ["data.dataset=DATA/stsb", "model.base=BASE"],
    "minilm_further": ["data.dataset=DATA/qqp_triplets", "data.holdout.rows=200", QQP_RUN],
}
"""Recipe -> the overrides that let it run here. Runs of the first are the base of others."""


@pytest.fixture(scope="module")
def places(shared, minilm, tmp_path_factory) -> dict[str, str]:
    """Words of the overrides -> paths. The base is a third of a real encoder, so that all of this takes minutes.

    But for the triplets: their negatives are so near that a model that small learns nothing from a few hundred.
    """
    folder = tmp_path_factory.mktemp("classic")
    cut_to_two_layers(minilm, folder / "base")
    places = {
        "DATA": shared / "data",
        "WHOLE": minilm,
        "BASE": folder / "base",
        "RUNS": folder / "runs",
        "TOPICS": folder / "topics",
    }
    write_topics(shared / "data" / "banking77", places["TOPICS"])
    return {word: str(path) for word, path in places.items()}


def cut_to_two_layers(source: Path, folder: Path) -> None:
    """A copy of a BERT with its lowest layers only."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("config.json", "model.safetensors"))
    folder.chmod(0o700)
    config = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    weights = load_file(source / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if not re.search(r"layer\.([2-9]|\d\d)\.", name)}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def write_topics(source: Path, folder: Path) -> None:
    """Rows of three texts and their topic, as Yahoo Answers has them, of a set with one text a row."""
    folder.mkdir()
    for split, name in (("train", "train"), ("test", "test")):
        with gzip.open(source / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        texts: dict[int, list[str]] = {}
        for row in rows:
            texts.setdefault(row["label"], []).append(row["text"])
        threes = [
            dict(zip(("question_title", "question_content", "best_answer"), found[i : i + 3], strict=True))
            | {"topic": topic}
            for topic, found in texts.items()
            for i in range(0, len(found) - 2, 3)
        ]
        threes.sort(key=lambda row: row["question_title"])  # or slices would hold whole topics
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in threes))


def overrides_of(name: str, path: Path, places: dict[str, str]) -> list[str]:
    """What lets a recipe run here, shortened."""
    given = [*SHORTENED, *CASES[name]]
    recipe = load_recipe(path).recipe
    own = [each.data.dataset for each in recipe.objectives_by_path.values()]
    for i, evaluator in enumerate(recipe.eval):
        if evaluator.dataset is not None:
            given.append(f"eval.{i}.limit=400")
        if evaluator.dataset not in (None, *own):
            given.append(f"eval.{i}.dataset=DATA/stsb")
    for word, place in places.items():
        given = [override.replace(f"={word}", f"={place}") for override in given]
    return given


def finished_run(name: str, places: dict[str, str]) -> Finished:
    """A recipe's run, after that of its base."""
    if QQP_RUN in CASES[name]:
        finished_run("qqp_triplets", places)  # at once, where this process of the tests has it already
    path = FOLDER / f"{name.partition(',')[0]}.yaml"
    finished = list(train(load_recipe(path, overrides_of(name, path, places)), Path(places["RUNS"])))[-1]
    assert isinstance(finished, Finished)
    return finished


@pytest.mark.parametrize("name", CASES)
def test_classic_recipe_makes_its_metric_better(name, places, promise):
    finished = finished_run(name, places)
    metric = finished.main[0]
    before, after = (finished.result[moment][metric] for moment in ("baseline", "metrics"))
    assert after > before
    promise(f"recipes/classic, {name}: {metric}", f"{before:.3f} -> {after:.3f}")


def test_every_classic_recipe_is_run():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {name.partition(",")[0] for name in CASES}

"""Quality, time and memory on public data: bases as they are, after stfit, and after sentence-transformers.

    STFIT_SHARED=... python tests/benchmarks/results.py NAME=FOLDER[:ROWS] ... [--runs runs/results] [--page FILE]

Both tools train on the same ROWS rows (500 by default; twice as many are measured) with the same loss, epochs, batch
size, rate and seed. Every training is a process of its own, in turn; stfit's evaluators then measure both models. What
was measured is kept in results.jsonl beside this file, so that the same command goes on where it was stopped: delete
the lines that are to be measured anew.
"""

import argparse
import gzip
import itertools
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from results_page import write_page
from runs import find_shared, kept_lines, read_lines, run_json, where_and_when

LINES = Path(__file__).with_name("results.jsonl")
SEEDS = (1, 2, 3)
ROWS = 500
BATCH, RATE, WARM_UP, MAX_SEQ_LENGTH = 32, 2e-5, 0.1, 128

ST_LOSSES = {
    "cosent": "CoSENTLoss",
    "multiple_negatives_ranking": "MultipleNegativesRankingLoss",
    "online_contrastive": "OnlineContrastiveLoss",
    "batch_hard_soft_margin_triplet": "BatchHardSoftMarginTripletLoss",
}
SAMPLERS = {"multiple_negatives_ranking": "no_duplicates", "batch_hard_soft_margin_triplet": "group_by_label"}
STSB = {"sentence1": "sentence1", "sentence2": "sentence2", "label": "score"}
SICK = {"sentence1": "sentence_A", "sentence2": "sentence_B", "label": "relatedness_score"}
DUPLICATES = {"sentence1": "question1", "sentence2": "question2", "label": "is_duplicate"}
PAIR = {"anchor": ("set", 0), "positive": ("set", 1)}
TITLES = {"anchor": "title", "positive": "text"}

TASKS: dict[str, tuple[str, str, str, tuple[str, dict], tuple[str, dict], list[str]]] = {
    # name: format, loss, evaluator, (file, role -> column) to train on and to measure, metrics
    "STS-B": ("labeled_pair", "cosent", "similarity",
              ("stsb/train", STSB), ("stsb/test", STSB), ["spearman_cosine"]),
    "SICK": ("labeled_pair", "cosent", "similarity",
             ("sick/train", SICK), ("sick/test", SICK), ["spearman_cosine"]),
    "Quora pairs": ("positive_pair", "multiple_negatives_ranking", "binary_classification",
                    ("quora_pairs/train", PAIR), ("quora_duplicates/test", DUPLICATES), ["ap_cosine"]),
    "Quora duplicates": ("labeled_pair", "online_contrastive", "binary_classification",
                         ("quora_duplicates/train", DUPLICATES), ("quora_duplicates/test", DUPLICATES), ["ap_cosine"]),
    "AllNLI, measured on STS-B": ("triplet", "multiple_negatives_ranking", "similarity",
                                  ("allnli_triplets/train", {r: r for r in ("anchor", "positive", "negative")}),
                                  ("stsb/test", STSB), ["spearman_cosine"]),
    "Banking77": ("labeled_text", "batch_hard_soft_margin_triplet", "classification",
                  ("banking77/train", {"text": "text", "label": "label"}),
                  ("banking77/test", {"text": "text", "label": "label"}), ["knn_accuracy"]),
    "TREC": ("labeled_text", "batch_hard_soft_margin_triplet", "classification",
             ("trec/train", {"text": "text", "label": "coarse_label"}),
             ("trec/test", {"text": "text", "label": "coarse_label"}), ["knn_accuracy"]),
    "Tatoeba en-de": ("positive_pair", "multiple_negatives_ranking", "translation",
                      ("tatoeba_en_de/train", {"anchor": "english", "positive": "non_english"}),
                      ("tatoeba_en_de/test", {"anchor": "english", "positive": "non_english"}), ["mean_accuracy"]),
    "Flickr8k captions": ("positive_pair", "multiple_negatives_ranking", "retrieval",
                          ("flickr8k/train", PAIR), ("flickr8k/test", PAIR), ["ndcg@10"]),
    "Cranfield": ("positive_pair", "multiple_negatives_ranking", "retrieval",
                  ("cranfield/corpus", TITLES), ("cranfield", {}), ["ndcg@10", "ndcg_graded@10"]),
}  # fmt: skip


def read_rows(shared: Path, name: str, columns: dict[str, Any], most: int) -> list[dict[str, Any]]:
    """At most `most` rows, drawn with a fixed seed, with the roles as column names."""
    written = read_lines(shared / f"data/{name}.jsonl.gz")
    rows = [{role: _cell(row, column) for role, column in columns.items()} for row in written]
    rows = [row for row in rows if all(cell != "" for cell in row.values())]
    scale = max(row["label"] for row in rows) if isinstance(rows[0].get("label"), float) else 1
    random.Random(7).shuffle(rows)
    return [row | ({"label": row["label"] / scale} if scale != 1 else {}) for row in rows[:most]]


def _cell(row: dict[str, Any], column: str | tuple[str, int]) -> Any:
    return row[column] if isinstance(column, str) else row[column[0]][column[1]]


def prepare(shared: Path, task: str, rows: int, folder: Path) -> dict[str, Any]:
    """Write the rows of a task, and return its recipe without a base and a seed."""
    format_, loss, evaluator, train, test, _ = TASKS[task]
    folder.mkdir(parents=True, exist_ok=True)
    splits = {"train": read_rows(shared, *train, rows)}
    measured: dict[str, Any] = {"type": evaluator, "name": "test", "dataset": str(folder), "split": "test"}
    if test[1]:
        splits["test"] = read_rows(shared, *test, 2 * rows)
    else:  # judgments, in the layout of BEIR
        measured["dataset"] = str(write_collection(shared / "data" / test[0], folder / test[0], 4 * rows))
    if evaluator == "classification":
        splits["known"] = read_rows(shared, *train, 4 * rows)
        measured["train_split"] = "known"
    for split, kept in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    return {
        "data": {"dataset": str(folder), "split": "train", "format": format_},
        "loss": loss,
        "train": {
            "batch_size": BATCH, "learning_rate": RATE, "warmup_ratio": WARM_UP, "weight_decay": 0.0, "epochs": 1,
            "sampler": SAMPLERS.get(loss, "shuffle"),
        },
        "eval": [measured | {"when": ["end"]}],
    }  # fmt: skip


def write_collection(whole: Path, folder: Path, most: int) -> Path:
    """A folder in BEIR's layout with about `most` documents: those that are judged, then the others in order."""
    documents = read_lines(whole / "corpus.jsonl.gz")
    if most >= len(documents):
        return whole
    head, *judgments = (whole / "qrels" / "test.tsv").read_text().splitlines()
    by_query: dict[str, list[str]] = {}
    for line in judgments:
        by_query.setdefault(line.split("\t")[0], []).append(line)
    kept: dict[str, None] = {}
    lines = []
    for of_query in by_query.values():
        if len(kept) < most // 2:
            lines += of_query
            kept |= dict.fromkeys(line.split("\t")[1] for line in of_query)
    for document in documents:
        if len(kept) < most:
            kept[document["_id"]] = None
    (folder / "qrels").mkdir(parents=True)
    (folder / "qrels" / "test.tsv").write_text("\n".join([head, *lines]) + "\n")
    corpus = (json.dumps(document) + "\n" for document in documents if document["_id"] in kept)
    (folder / "corpus.jsonl").write_text("".join(corpus))
    (folder / "queries.jsonl").write_bytes(gzip.decompress((whole / "queries.jsonl.gz").read_bytes()))
    return folder


def train_stfit(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe | {"eval": [], "name": "stfit"}))
    return run_json([sys.executable, "-m", "stfit", "train", str(path), "--fresh", "--json", "--runs", str(folder)])


def train_st(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    path = folder / "st.json"
    path.write_text(json.dumps(recipe))
    return run_json([sys.executable, __file__, "--sentence-transformers", str(path)])


def train_with_sentence_transformers(path: Path) -> dict[str, Any]:
    """sentence-transformers' own training loop, in this process."""
    import resource

    from datasets import load_dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    recipe = json.loads(path.read_text())
    base, settings = recipe["model"]["base"], recipe["train"]
    if (Path(base) / "modules.json").is_file():
        model = SentenceTransformer(base, device="cpu")
        model.max_seq_length = MAX_SEQ_LENGTH
    else:
        transformer = Transformer(base, max_seq_length=MAX_SEQ_LENGTH)
        model = SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension())], device="cpu")
    rows = load_dataset("json", data_files=str(Path(recipe["data"]["dataset"]) / "train.jsonl"), split="train")
    sampler = {"shuffle": "batch_sampler"}.get(settings["sampler"], settings["sampler"])
    output = path.parent / "st"
    with tempfile.TemporaryDirectory() as scratch:
        arguments = Arguments(
            output_dir=scratch, num_train_epochs=settings["epochs"], per_device_train_batch_size=BATCH,
            learning_rate=settings["learning_rate"], seed=recipe["seed"], warmup_steps=WARM_UP, weight_decay=0.0,
            use_cpu=True, batch_sampler=sampler, save_strategy="no", report_to="none", disable_tqdm=True,
        )  # fmt: skip
        loss = getattr(losses, ST_LOSSES[recipe["loss"]])(model)
        SentenceTransformerTrainer(model=model, args=arguments, train_dataset=rows, loss=loss).train()
    model.save_pretrained(str(output))
    return {"model": str(output), "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def with_limit(base: Path, folder: Path) -> Path:
    """A copy of a base that cuts texts at MAX_SEQ_LENGTH, as it is, for both tools and for the evaluation."""
    copy = folder / "base"
    shutil.copytree(base, copy)
    for name, key in (("tokenizer_config.json", "model_max_length"), ("sentence_bert_config.json", "max_seq_length")):
        if (path := copy / name).is_file():
            path.chmod(0o644)
            path.write_text(json.dumps(json.loads(path.read_text()) | {key: MAX_SEQ_LENGTH}))
    return copy


def evaluate(model: str, recipe: dict[str, Any], folder: Path) -> dict[str, float]:
    path = folder / "eval.yaml"
    path.write_text(json.dumps(recipe))
    return run_json([sys.executable, "-m", "stfit", "eval", model, "--recipe", str(path), "--json"])["metrics"]


TRAINED = {"stfit": train_stfit, "sentence-transformers": train_st}
MEASURED = (("base", None), *((tool, seed) for seed in SEEDS for tool in TRAINED))


def measure(shared: Path, line: dict[str, Any], base: Path, folder: Path) -> dict[str, Any]:
    """The line with its values, and with what the training took; the tool "base" is the base as it is."""
    base = with_limit(base, folder)
    recipe = prepare(shared, line["task"], line["rows"], folder / "rows") | {"model": {"base": str(base)}}
    run: dict[str, Any] = {"model": str(base)}
    if line["tool"] in TRAINED:
        run = TRAINED[line["tool"]](recipe | {"seed": line["seed"]}, folder)
    found = evaluate(run["model"], recipe, folder)
    taken = {key: round(run[key], 1) for key in ("wall_seconds", "processor_seconds", "peak_rss_mib") if key in run}
    return line | {"values": {name: found[f"test/{name}"] for name in line["metrics"]}} | taken | where_and_when()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bases", nargs="*", help="NAME=FOLDER, or NAME=FOLDER:ROWS")
    parser.add_argument("--runs", type=Path, default=Path("runs/results"))
    parser.add_argument("--page", type=Path, help="write the tables there")
    parser.add_argument("--sentence-transformers", type=Path, help="train this recipe with sentence-transformers")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    if options.sentence_transformers is not None:
        print(json.dumps(train_with_sentence_transformers(options.sentence_transformers)))
        return
    shared = find_shared()
    options.runs.mkdir(parents=True, exist_ok=True)
    lines = kept_lines(LINES)
    done = {(line["base"], line["task"], line["tool"], line["seed"]) for line in lines}
    for word in options.bases:
        name, _, where = word.partition("=")
        where, _, rows = where.partition(":")
        for task, (tool, seed) in itertools.product(TASKS, MEASURED):
            if (name, task, tool, seed) in done:
                continue
            folder = (options.runs / "work").resolve()
            shutil.rmtree(folder, ignore_errors=True)
            line = {"base": name, "task": task, "rows": int(rows or ROWS), "seed": seed, "metrics": TASKS[task][-1]}
            lines.append(measure(shared, line | {"tool": tool}, Path(where).resolve(), folder))
            with LINES.open("a") as out:
                out.write(json.dumps(lines[-1]) + "\n")
            print(json.dumps(lines[-1]), flush=True)
    if options.page:
        write_page(lines, options.page)


if __name__ == "__main__":
    main()

"""Sums of losses, rerankers as teachers and trained precisions, each against in-batch negatives alone; three seeds.

    STFIT_SHARED=... python tests/benchmarks/methods.py [--runs runs/methods]

The base is plain MiniLM. Two sets show what global orthogonal regularization does to whole embeddings and to their
first 64 dimensions. The reranker is trained here, on question pairs with labels, by transformers' own classes. What was
measured is kept in methods.jsonl beside this file, so that the same command goes on where it was stopped.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from statistics import mean

from results_page import half_width
from runs import MODEL, find_shared, kept_lines, read_lines, run_json, where_and_when

LINES = Path(__file__).with_name("methods.jsonl")
SEEDS = (1, 2, 3)
TRAIN = {"batch_size": 64, "learning_rate": 2e-5, "warmup_ratio": 0.1, "epochs": 1}
DIM, CUT = 384, 64
MAX_SEQ_LENGTH = 64
NEGATIVES = 3
IN_BATCH = {"type": "multiple_negatives_ranking"}
SPREAD = {"type": "global_orthogonal_regularization"}
EPOCHS, BATCH, RATE = 1, 32, 3e-5
"""Of the reranker."""


def tasks(shared: Path, reranker: Path) -> dict[str, dict]:
    """Name -> data, evaluators and losses."""
    quora = {"dataset": str(shared / "data/quora_duplicates"), "split": "test", "type": "binary_classification"}
    quora |= {"name": "test", "columns": {"sentence1": "question1", "sentence2": "question2", "label": "is_duplicate"}}
    stsb = {"type": "similarity", "name": "test", "dataset": str(shared / "data/stsb"), "split": "test"}
    stsb |= {"columns": {"label": "score"}}
    questions = {"dataset": str(shared / "data/qqp_triplets"), "split": "train", "limit": 3000}
    pair = {"anchor": "set.query", "positive": "set.pos[0]"}
    pairs = questions | {"format": "positive_pair", "columns": pair}
    triplets = questions | {"format": "triplet", "columns": pair | {"negative": f"set.neg[:{NEGATIVES}]"}}
    teacher = {"cross_encoder": str(reranker)}
    divergence = {"type": "distill_kl_div", "similarity": "cosine", "student_temperature": 0.05, "teacher": teacher}
    spread = {
        "in-batch negatives": IN_BATCH,
        "and regularization, weight 0.1": [IN_BATCH, SPREAD | {"weight": 0.1}],
        "and regularization, weight 1": [IN_BATCH, SPREAD],
    }
    captions = {"dataset": str(shared / "data/flickr8k"), "columns": {"anchor": "set[0]", "positive": "set[1]"}}
    search = {"type": "retrieval", "name": "test", "split": "test", "precisions": ["binary"]}
    stored = {
        "in-batch negatives": IN_BATCH,
        "for float32 and binary": IN_BATCH | {"precisions": ["float32", "binary"]},
    }
    nli = {"dataset": str(shared / "data/allnli_triplets"), "split": "train", "format": "triplet"}
    duplicates = {"dataset": str(shared / "data/quora_pairs"), "split": "train", "format": "positive_pair"}
    duplicates |= {"columns": {"anchor": "set[0]", "positive": "set[1]"}}
    return {
        "NLI -> STS-B": {
            "evaluator": stsb,
            "metric": "spearman_cosine",
            "losses": {name: (nli, loss) for name, loss in spread.items()},
        },
        "Quora pairs -> duplicates": {
            "evaluator": quora,
            "metric": "ap_cosine",
            "losses": {name: (duplicates, loss) for name, loss in spread.items()},
        },
        "Quora pairs -> search": {
            "evaluator": search | {"dataset": duplicates["dataset"], "columns": duplicates["columns"]},
            "metric": "ndcg@10",
            "losses": {name: (duplicates, loss) for name, loss in stored.items()},
            "titles": ("float32", "binary"),
        },
        "Flickr8k captions -> search": {
            "evaluator": search | captions,
            "metric": "ndcg@10",
            "losses": {
                name: (captions | {"split": "train", "format": "positive_pair"}, loss) for name, loss in stored.items()
            },
            "titles": ("float32", "binary"),
        },
        "Quora triplets -> duplicates": {
            "evaluator": quora,
            "metric": "ap_cosine",
            "losses": {
                "in-batch negatives": (pairs, IN_BATCH),
                "in-batch and own negatives": (triplets, IN_BATCH),
                "margins of the reranker": (triplets, {"type": "margin_mse", "teacher": teacher}),
                "distribution of the reranker": (triplets, divergence),
                "in-batch negatives and distribution": (triplets, [IN_BATCH, divergence | {"weight": 400.0}]),
            },
        },
    }


def train_reranker(base: Path, shared: Path, folder: Path) -> None:
    """A cross-encoder that tells duplicate questions from others."""
    import torch
    import transformers

    torch.manual_seed(1)
    rows = read_lines(shared / "data/quora_duplicates/train.jsonl.gz")
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    steps = EPOCHS * len(rows) // BATCH
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(rows)).tolist()
        for start in range(0, len(order) - BATCH + 1, BATCH):
            batch = [rows[i] for i in order[start : start + BATCH]]
            inputs = tokenizer(
                [row["question1"] for row in batch],
                [row["question2"] for row in batch],
                padding=True,
                truncation=True,
                max_length=2 * MAX_SEQ_LENGTH,
                return_tensors="pt",
            )
            label = torch.tensor([float(row["is_duplicate"]) for row in batch])
            logits = model(**inputs).logits[:, 0]
            torch.nn.functional.binary_cross_entropy_with_logits(logits, label).backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def evaluate(model: str, task: dict, folder: Path) -> dict[str, float]:
    """The metric of whole embeddings, and of their first dimensions or of their signs."""
    path = folder / "eval.yaml"
    data, _ = next(iter(task["losses"].values()))
    recipe = {
        "model": {"base": model, "max_seq_length": MAX_SEQ_LENGTH},
        "data": data,
        "loss": IN_BATCH if "titles" in task else IN_BATCH | {"matryoshka_dims": [DIM, CUT]},
        "eval": [task["evaluator"]],
    }
    path.write_text(json.dumps(recipe))
    found = run_json([sys.executable, "-m", "stfit", "eval", model, "--recipe", str(path), "--json"])["metrics"]
    metric, cut = task["metric"], "#binary" if "titles" in task else f"@{CUT}"
    return {"value": found[f"test/{metric}"], "cut": found[f"test{cut}/{metric}"]}


def train(base: str, data: dict, loss: dict | list, seed: int, folder: Path) -> str:
    model = {"base": base, "max_seq_length": MAX_SEQ_LENGTH}
    recipe = {"name": "run", "seed": seed, "model": model, "data": data, "loss": loss, "train": TRAIN}
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return run_json([sys.executable, "-m", "stfit", "train", str(path), "--fresh", "--json", "--runs", str(folder)])[
        "model"
    ]


def print_tables(lines: list[dict], titles: dict[str, tuple[str, str]]) -> None:
    for task in dict.fromkeys(line["task"] for line in lines):
        print(f"\n| {task} | {' | '.join(titles[task])} |\n| --- | --: | --: |")
        for variant in dict.fromkeys(line["variant"] for line in lines if line["task"] == task):
            cells = []
            for key in ("value", "cut"):
                found = [line[key] for line in lines if (line["task"], line["variant"]) == (task, variant)]
                spread = f" ± {half_width(found):.4f}" if len(found) == len(SEEDS) else ""
                cells.append(f"{mean(found):.4f}{spread}")
            print(f"| {variant} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/methods"))
    runs = parser.parse_args().runs.resolve()
    shared = find_shared()
    base, reranker, folder = shared / MODEL, runs / "reranker", runs / "work"
    runs.mkdir(parents=True, exist_ok=True)
    if not reranker.exists():
        train_reranker(base, shared, reranker)
    lines = kept_lines(LINES)
    for seed in (None, *SEEDS):
        for name, task in tasks(shared, reranker).items():
            done = {line["variant"] for line in lines if (line["task"], line["seed"]) == (name, seed)}
            variants = {"as it is": (None, None)} if seed is None else task["losses"]
            for variant, (data, loss) in variants.items():
                if variant in done:
                    continue
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                model = str(base) if seed is None else train(str(base), data, loss, seed, folder)
                line = {"task": name, "variant": variant, "seed": seed, **evaluate(model, task, folder)}
                lines.append(line | where_and_when())
                with LINES.open("a") as out:
                    out.write(json.dumps(lines[-1]) + "\n")
                print(json.dumps(line), flush=True)
    whole = (f"{DIM} dimensions", f"first {CUT}")
    print_tables(lines, {name: task.get("titles", whole) for name, task in tasks(shared, reranker).items()})


if __name__ == "__main__":
    main()

"""Quality at equal budget: STS-B test Spearman after one epoch of CoSENT, by stfit and by sentence-transformers.

    STFIT_SHARED=... python tests/benchmarks/quality.py [--seeds 1 2 3]

Same plain base, batch 32, learning rate 5e-5 with a linear warm-up over a tenth of the steps, no weight decay.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from runs import MODEL, find_shared, run_json

BATCH, RATE, WARM_UP = 32, 5e-5, 0.1


def stfit_spearman(shared: Path, seed: int, folder: Path) -> float:
    stsb = {"dataset": str(shared / "data/stsb"), "columns": {"label": "score"}}
    recipe = folder / f"stsb-{seed}.yaml"
    recipe.write_text(json.dumps({
        "seed": seed,
        "model": {"base": str(shared / MODEL), "max_seq_length": 128},
        "data": {**stsb, "format": "labeled_pair"},
        "loss": "cosent",
        "train": {"batch_size": BATCH, "learning_rate": RATE, "warmup_ratio": WARM_UP, "weight_decay": 0.0},
        "eval": [{"type": "similarity", "name": "stsb", **stsb, "split": "test", "when": ["end"]}],
    }))  # fmt: skip
    result = run_json([sys.executable, "-m", "stfit", "train", str(recipe), "--json", "--runs", str(folder)])
    return result["metrics"]["stsb/spearman_cosine"]


def st_spearman(seed: int) -> float:
    return run_json([sys.executable, __file__, "--sentence-transformers", str(seed)])["spearman"]


def train_st(shared: Path, seed: int) -> float:
    """sentence-transformers' own training loop and evaluator, in this process."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from datasets import load_dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator
    from sentence_transformers.sentence_transformer.losses import CoSENTLoss
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    splits = load_dataset(
        "json", data_files={name: str(shared / f"data/stsb/{name}.jsonl.gz") for name in ("train", "test")}
    )
    transformer = Transformer(str(shared / MODEL), max_seq_length=128)
    model = SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension())], device="cpu")
    with tempfile.TemporaryDirectory() as scratch:
        arguments = Arguments(
            output_dir=scratch, num_train_epochs=1, per_device_train_batch_size=BATCH, learning_rate=RATE, seed=seed,
            warmup_steps=WARM_UP, weight_decay=0.0, use_cpu=True, save_strategy="no", report_to="none",
            disable_tqdm=True,
        )  # fmt: skip
        trainer = SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=splits["train"], loss=CoSENTLoss(model)
        )
        trainer.train()
    test = splits["test"]
    evaluate = EmbeddingSimilarityEvaluator(test["sentence1"][:], test["sentence2"][:], test["score"][:])
    return float(evaluate(model)["spearman_cosine"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--sentence-transformers", type=int, help="train with sentence-transformers and this seed")
    options = parser.parse_args()
    shared = find_shared()
    if options.sentence_transformers is not None:
        print(json.dumps({"spearman": train_st(shared, options.sentence_transformers)}))
        return
    print("| seed | stfit | sentence-transformers |\n| --- | --- | --- |")
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in options.seeds:
            found.append((stfit_spearman(shared, seed, Path(scratch)), st_spearman(seed)))
            print(f"| {seed} | {found[-1][0]:.4f} | {found[-1][1]:.4f} |", flush=True)
    means = [statistics.mean(column) for column in zip(*found, strict=True)]
    print(f"| mean | {means[0]:.4f} | {means[1]:.4f} |")


if __name__ == "__main__":
    main()

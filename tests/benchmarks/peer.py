"""Training by sentence-transformers: its own loop, examples per second after the first steps, and peak memory.

    python peer.py --base DIR --data FILE.jsonl --loss triplet --pooling mean --precision bfloat16 ...

Prints one JSON object. The columns of the data are those of the loss, in order. No evaluation and no checkpoint.
"""

import argparse
import json
import os
import resource
import tempfile
import time

os.environ["HF_HUB_OFFLINE"] = "1"

from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import TrainerCallback

WARM_UP_STEPS = 2
LOSSES = {"multiple_negatives_ranking": losses.MultipleNegativesRankingLoss, "triplet": losses.TripletLoss}
POOLINGS = {"mean": "mean", "last_token": "lasttoken"}


class StepClock(TrainerCallback):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(time.perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--loss", choices=LOSSES, required=True)
    parser.add_argument("--pooling", choices=POOLINGS, default="mean")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--max-seq-length", type=int, required=True)
    options = parser.parse_args()

    with open(options.data) as lines:
        rows = [json.loads(line) for line in lines]
    transformer = Transformer(options.base, max_seq_length=options.max_seq_length)
    pooling = Pooling(transformer.get_embedding_dimension(), POOLINGS[options.pooling])
    model = SentenceTransformer(modules=[transformer, pooling], device="cpu")
    clock = StepClock()
    with tempfile.TemporaryDirectory() as scratch:
        settings = SentenceTransformerTrainingArguments(
            output_dir=scratch, per_device_train_batch_size=options.batch_size, max_steps=options.steps, use_cpu=True,
            bf16=options.precision == "bfloat16", save_strategy="no", report_to="none", logging_steps=10_000,
            disable_tqdm=True, seed=1,
        )  # fmt: skip
        SentenceTransformerTrainer(
            model=model, args=settings, train_dataset=Dataset.from_list(rows), loss=LOSSES[options.loss](model),
            callbacks=[clock],
        ).train()  # fmt: skip
    seconds = clock.ends[-1] - clock.ends[WARM_UP_STEPS]
    print(json.dumps({
        "examples_per_second": options.batch_size * (len(clock.ends) - 1 - WARM_UP_STEPS) / seconds,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }))  # fmt: skip


if __name__ == "__main__":
    main()

"""What a recipe says about training."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from stfit.spec import Spec

Share = Annotated[float, Field(gt=0, le=1)]
Steps = Annotated[int, Field(gt=0)]


def _known_device(name: str) -> str:
    """A kind of device that torch has, and its number. Whether there is one is seen when the run starts."""
    if not re.fullmatch(r"auto|(cpu|cuda|mps|xpu)(:\d+)?", name):
        raise ValueError("write auto, cpu, cuda, cuda:1, mps or xpu")
    return name


class EarlyStopping(Spec):
    """Ends the run when the `best` metric no longer improves."""

    patience: int = Field(3, gt=0)
    """Evaluations in a row without improvement before the run ends."""
    min_delta: float = Field(0.0, ge=0)
    """Smallest gain that counts as an improvement."""


class Train(Spec):
    """Batches, steps, optimizer and schedule."""

    epochs: float | None = Field(None, gt=0)
    """Passes over the training data; 1 when neither `epochs` nor `max_steps` is given."""
    max_steps: Steps | None = None
    """Optimizer steps; instead of `epochs`."""
    batch_size: int = Field(32, gt=0)
    """Rows per call of the loss, on one process: N processes make batches of N times as many, and the loss sees all."""
    mini_batch_size: int | None = Field(None, gt=0)
    """Rows embedded at once by a process; fewer than `batch_size` means gradient caching: the same gradients with less
    memory, for one more forward."""
    mini_batch_tokens: int | None = Field(None, gt=0)
    """The same by tokens; one of the two."""
    accumulate_steps: int = Field(1, gt=0)
    """Batches per optimizer step. Adds no in-batch negatives: for those raise `batch_size`, with `mini_batch_size`."""
    learning_rate: float = Field(2e-5, ge=0)
    """Highest learning rate of the schedule."""
    layer_decay: float | None = Field(None, gt=0, le=1)
    """Share of the rate of each layer that the layer below it has; 0.9 keeps much of a pretrained model. Default: one
    rate for all. What comes after the transformer has the whole rate, its token embeddings have the lowest."""
    optimizer: Literal["adamw"] = "adamw"
    """AdamW (Loshchilov and Hutter, 2019), betas 0.9 and 0.999, eps 1e-8."""
    warmup_ratio: float | None = Field(None, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0; 0.1 when `warmup_steps` isn't given either."""
    warmup_steps: int | None = Field(None, ge=0)
    """The same in steps."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after warm-up: to 0 on a line or half a cosine, or not at all."""
    weight_decay: float = Field(0.01, ge=0)
    """Decay of weight matrices; biases and norms are left alone."""
    max_grad_norm: float | None = Field(1.0, gt=0)
    """Gradients longer than this are scaled down to it; null = never."""
    freeze: list[str] = []
    """Names of weights that are not trained, with `*`: `["backbone.embeddings.*", "backbone.encoder.layer.0.*"]`."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type of the matrix products; auto = float32 on a CPU, bfloat16 on a GPU that has it."""
    sampler: Literal["auto", "shuffle", "no_duplicates", "group_by_label"] = "auto"
    """How rows form batches; auto = what the loss needs (no text twice in a batch for in-batch negatives, several rows
    of each label for the batch triplets)."""
    shard: bool = False
    """Of several processes, each keeps a part of the encoder's weights, gradients and optimizer state (FSDP2), for a
    model of which a process can hold the weights, but not four times as much. Slower."""
    device: Annotated[str, AfterValidator(_known_device)] = "auto"
    """cpu, cuda, cuda:1, mps; auto = the first GPU, else the CPU."""
    log_every_steps: int = Field(10, gt=0)
    """Steps between lines of metrics.jsonl (and of the log where there is no terminal)."""
    eval_every: Share | None = None
    """Share of the run between evaluations; 0.25 when `eval_every_steps` isn't given either."""
    eval_every_steps: Steps | None = None
    """The same in steps."""
    save_every: Share | None = None
    """Share of the run between checkpoints; 0.25 when `save_every_steps` isn't given either."""
    save_every_steps: Steps | None = None
    """The same in steps."""
    keep_checkpoints: int = Field(2, gt=0)
    """Newest checkpoints that are kept."""
    best: str | None = None
    """A metric such as `stsb/spearman_cosine`: the evaluation that has its highest value becomes the model; null = the
    last step."""
    early_stopping: EarlyStopping | None = None
    """Ends the run early; needs `best`."""

    @model_validator(mode="after")
    def one_spelling_each(self) -> Self:
        """Two keys for one thing can contradict each other."""
        for one, other in (
            ("epochs", "max_steps"),
            ("warmup_ratio", "warmup_steps"),
            ("eval_every", "eval_every_steps"),
            ("save_every", "save_every_steps"),
            ("mini_batch_size", "mini_batch_tokens"),
        ):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(
                    f"`{one}` and `{other}` say the same thing: give one of them; in a command, `~train.{other}` takes "
                    "one out of the file"
                )
        if self.shard and self.precision == "float16":
            raise ValueError("`shard` and `precision: float16` don't go together: use bfloat16")
        if self.early_stopping is not None and self.best is None:
            raise ValueError("`early_stopping` needs `best`: the metric that has to improve")
        return self

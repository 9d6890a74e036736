"""The `train` section of a recipe."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from stfit.spec import Spec

Fraction = Annotated[float, Field(gt=0, le=1)]
Steps = Annotated[int, Field(gt=0)]


def _known_device(name: str) -> str:
    if not re.fullmatch(r"auto|(cpu|cuda|mps|xpu)(:\d+)?", name):
        raise ValueError("write auto, cpu, cuda, cuda:1, mps or xpu")
    return name


class EarlyStopping(Spec):
    """Stops training when the metric `best` no longer improves."""

    patience: int = Field(3, gt=0)
    """Consecutive evaluations without improvement after which training stops."""
    min_delta: float = Field(0.0, ge=0)
    """Minimum gain that counts as an improvement."""


class Train(Spec):
    """Batches, steps, optimizer and schedule."""

    epochs: float | None = Field(None, gt=0)
    """Passes over the training data; 1 if neither `epochs` nor `max_steps` is given."""
    max_steps: Steps | None = None
    """Optimizer steps, instead of `epochs`."""
    batch_size: int = Field(32, gt=0)
    """Rows per batch and process: with N processes, the loss sees N times as many rows."""
    mini_batch_size: int | None = Field(None, gt=0)
    """Rows that a process embeds at once. A value smaller than `batch_size` enables gradient caching: the same
    gradients with less memory, at the cost of a second forward pass."""
    mini_batch_tokens: int | None = Field(None, gt=0)
    """Tokens that a process embeds at once, instead of `mini_batch_size`."""
    accumulate_steps: int = Field(1, gt=0)
    """Batches per optimizer step. Does not add in-batch negatives; for more of them, raise `batch_size` and set
    `mini_batch_size`."""
    learning_rate: float = Field(2e-5, ge=0)
    """Peak learning rate, reached at the end of warmup."""
    layer_decay: float | None = Field(None, gt=0, le=1)
    """Layer-wise learning rate decay: factor between the learning rates of a layer and the layer above it. 0.9 keeps
    the lower layers close to the pretrained model. Token embeddings get the lowest rate; modules after the transformer
    get `learning_rate`. null = the same rate for all."""
    optimizer: Literal["adamw"] = "adamw"
    """AdamW (Loshchilov and Hutter, 2019, https://arxiv.org/abs/1711.05101), betas 0.9 and 0.999, eps 1e-8."""
    warmup_ratio: float | None = Field(None, ge=0, lt=1)
    """Fraction of the steps in which the learning rate rises linearly; 0.1 if `warmup_steps` is not given either."""
    warmup_steps: int | None = Field(None, ge=0)
    """Warmup in steps, instead of `warmup_ratio`."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Learning rate after warmup: falls to 0 linearly or along half a cosine, or stays constant."""
    weight_decay: float = Field(0.01, ge=0)
    """Weight decay of matrices; not applied to biases and norms."""
    max_grad_norm: float | None = Field(1.0, gt=0)
    """Maximum gradient norm; larger gradients are scaled down. null = no clipping."""
    freeze: list[str] = []
    """Patterns of weights that are not trained, such as `["backbone.embeddings.*", "backbone.encoder.layer.0.*"]`."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type of matrix products in training. auto = bfloat16 on a GPU that supports it, otherwise float32. On a CPU
    with instructions for it (avx512_bf16, AMX), bfloat16 takes about 0.6 of the time."""
    sampler: Literal["auto", "shuffle", "no_duplicates", "group_by_label"] = "auto"
    """How batches are formed. no_duplicates: no text occurs twice in a batch. group_by_label: several rows per label.
    auto = what the loss needs: no_duplicates for in-batch negatives, group_by_label for triplets mined in the batch,
    otherwise shuffle."""
    shard: bool = False
    """Shard the encoder's weights, gradients and optimizer state across processes (FSDP2). Use it if a process can
    hold the weights, but not gradients and Adam state as well. Slower."""
    timeout_minutes: float = Field(10.0, gt=0)
    """With several processes: how long a step or a save waits for a process whose machine or network may be gone. A
    process that dies is noticed at once."""
    device: Annotated[str, AfterValidator(_known_device)] = "auto"
    """cpu, cuda, cuda:1, mps, xpu. auto = the first GPU, otherwise the CPU."""
    log_every_steps: int = Field(10, gt=0)
    """Steps between lines in metrics.jsonl (and in the log, if stderr is not a terminal)."""
    eval_every: Fraction | None = None
    """Fraction of the run between evaluations; 0.25 if `eval_every_steps` is not given either."""
    eval_every_steps: Steps | None = None
    """Steps between evaluations, instead of `eval_every`."""
    save_every: Fraction | None = None
    """Fraction of the run between checkpoints; 0.25 if `save_every_steps` is not given either, but then none that would
    save less than a minute of work."""
    save_every_steps: Steps | None = None
    """Steps between checkpoints, instead of `save_every`."""
    keep_checkpoints: int = Field(2, gt=0)
    """Number of checkpoints to keep; older ones are deleted."""
    best: str | None = None
    """Metric that selects the saved model, such as `stsb/spearman_cosine`: the step with the highest value is saved.
    null = the last step."""
    early_stopping: EarlyStopping | None = None
    """Stop when `best` no longer improves."""

    @model_validator(mode="after")
    def check_exclusive_keys(self) -> Self:
        for first, second in (
            ("epochs", "max_steps"),
            ("warmup_ratio", "warmup_steps"),
            ("eval_every", "eval_every_steps"),
            ("save_every", "save_every_steps"),
            ("mini_batch_size", "mini_batch_tokens"),
        ):
            if getattr(self, first) is not None and getattr(self, second) is not None:
                raise ValueError(
                    f"`{first}` and `{second}` are mutually exclusive: set only one of them; on the command line, "
                    f"`~train.{first}` or `~train.{second}` removes the one of the file"
                )
        if self.shard and self.precision == "float16":
            raise ValueError("`shard` does not support `precision: float16`: use bfloat16")
        if self.early_stopping is not None and self.best is None:
            raise ValueError("`early_stopping` needs `best`, the metric to watch")
        return self

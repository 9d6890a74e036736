"""Where a run can be watched beside its own files: trackers of other makers, one class each.

A tracker gets the hyper-parameters once, by their dotted names in the recipe, and then numbers by theirs: `train/loss`,
`stsb/spearman_cosine`. How it reaches its server, or that it shall stay offline, is its own business: its environment
variables (WANDB_MODE, MLFLOW_TRACKING_URI, TRACKIO_DIR) count.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

from stfit.spec import Choice, Spec

log = logging.getLogger("stfit")

Value = str | int | float | bool
Write = Callable[[int, dict[str, float]], object]
"""Takes a step, and numbers by their names."""


class TrackedRun(NamedTuple):
    """A run as a tracker sees it."""

    folder: Path
    name: str
    id: str
    """Stays the same where a run goes on, and is new for one that starts anew."""
    first_step: int
    settings: dict[str, Value]
    """Hyper-parameters by their dotted names."""


class TensorBoard(Spec):
    """Event files in the run folder; `tensorboard --logdir runs` shows them."""

    package: ClassVar[str] = "tensorboard"

    type: Literal["tensorboard"] = "tensorboard"

    @contextmanager
    def watch(self, run: TrackedRun) -> Iterator[Write]:
        """Open until the block ends."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        with SummaryWriter(run.folder / "tensorboard", purge_step=run.first_step + 1) as writer:
            for summary in hparams(run.settings, {}):
                writer.file_writer.add_summary(summary)

            def write(step: int, numbers: dict[str, float]) -> None:
                for name, value in numbers.items():
                    writer.add_scalar(name, value, step)

            yield write


class WandB(Spec):
    """Weights & Biases; `wandb login` comes first, or WANDB_MODE=offline and later `wandb sync`.

    Offline, a run that goes on has a folder for each part: `wandb sync --id ID` takes them all.
    """

    package: ClassVar[str] = "wandb"

    type: Literal["wandb"] = "wandb"
    project: str = "stfit"
    """Project that the run is filed under."""
    entity: str | None = None
    """User or team that owns the project; null = the account's own default."""

    @contextmanager
    def watch(self, run: TrackedRun) -> Iterator[Write]:
        """Open until the block ends."""
        import wandb

        opened = wandb.init(
            project=self.project,
            entity=self.entity,
            dir=run.folder,
            id=run.id,
            name=run.name,
            config=run.settings,
            resume="allow",
        )
        if opened.offline and run.first_step:
            log.warning(
                "track: wandb can't go on with a run offline, and keeps what follows in a folder of its own. Send all "
                "of the run's folders at once: wandb sync --id %s %s/offline-run-*",
                run.id,
                run.folder / "wandb",
            )
        failed = 1
        try:
            yield lambda step, numbers: opened.log(numbers, step=step)
            failed = 0
        finally:  # its own `with` would print the traceback of whatever ends the run, a signal too
            opened.finish(exit_code=failed)


class Trackio(Spec):
    """Trackio, local as long as no Space is named; `trackio show` shows it."""

    package: ClassVar[str] = "trackio"

    type: Literal["trackio"] = "trackio"
    project: str = "stfit"
    """Project that the run is filed under."""
    space: str | None = None
    """Space on the Hub (`owner/name`) that shows the run; null = this machine."""

    @contextmanager
    def watch(self, run: TrackedRun) -> Iterator[Write]:
        """Open until the block ends."""
        import trackio

        opened = trackio.init(
            project=self.project,
            name=f"{run.name}-{run.id[:8]}",
            space_id=self.space,
            config=dict(run.settings),
            resume="allow",
            embed=False,
        )
        try:
            yield lambda step, numbers: opened.log(numbers, step=step)
        finally:
            opened.finish()


class MLflow(Spec):
    """MLflow, at MLFLOW_TRACKING_URI."""

    package: ClassVar[str] = "mlflow"

    type: Literal["mlflow"] = "mlflow"
    experiment: str = "stfit"
    """Experiment that the run is filed under."""

    @contextmanager
    def watch(self, run: TrackedRun) -> Iterator[Write]:
        """Open until the block ends."""
        import mlflow

        mlflow.set_experiment(self.experiment)
        there = mlflow.search_runs(filter_string=f"tags.stfit_run = '{run.id}'", output_format="list")
        known = there[0].info.run_id if there else None
        with mlflow.start_run(run_id=known, run_name=run.name, tags={"stfit_run": run.id}):
            if not known:  # a parameter can be said once
                mlflow.log_params(run.settings)
            # Its names have no `@`.
            yield lambda step, numbers: mlflow.log_metrics(
                {name.replace("@", "_at_"): value for name, value in numbers.items()}, step=step
            )


Tracker = Annotated[TensorBoard | WandB | Trackio | MLflow, Choice("tracker", "package", "watch")]

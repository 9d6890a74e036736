"""Experiment trackers that a run is logged to, one class each.

A tracker receives the hyperparameters once, by their dotted names in the recipe, and then metrics by name, such as
`train/loss` or `stsb/spearman_cosine`. Its own environment variables set its server or an offline mode (WANDB_MODE,
MLFLOW_TRACKING_URI, TRACKIO_DIR). To add a tracker, write its class and mention it in `Tracker` below.
"""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

from stfit.spec import Choice, Spec

log = logging.getLogger("stfit")

Value = str | int | float | bool
LogMetrics = Callable[[int, dict[str, float]], object]


class TrackedRun(NamedTuple):
    folder: Path
    name: str
    id: str
    """Unchanged when a run resumes; new when it starts again."""
    first_step: int
    settings: dict[str, Value]
    """Hyperparameters by their dotted names."""


class TensorBoard(Spec):
    """Event files in the run folder. View them with `tensorboard --logdir runs`."""

    package: ClassVar[str] = "tensorboard"

    type: Literal["tensorboard"] = "tensorboard"

    @contextmanager
    def start(self, run: TrackedRun) -> Iterator[LogMetrics]:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        with SummaryWriter(run.folder / "tensorboard", purge_step=run.first_step + 1) as writer:
            for summary in hparams(run.settings, {}):
                writer.file_writer.add_summary(summary)

            def log_metrics(step: int, metrics: dict[str, float]) -> None:
                for name, value in metrics.items():
                    writer.add_scalar(name, value, step)

            yield log_metrics


class WandB(Spec):
    """Weights & Biases. Run `wandb login` first, or set WANDB_MODE=offline and run `wandb sync` later.

    An offline run that is resumed has one folder for each part; `wandb sync --id ID` uploads all of them.
    """

    package: ClassVar[str] = "wandb"

    type: Literal["wandb"] = "wandb"
    project: str = "stfit"
    """Project of the run."""
    entity: str | None = None
    """User or team that owns the project; null = the default of the account."""

    @contextmanager
    def start(self, run: TrackedRun) -> Iterator[LogMetrics]:
        import wandb

        session = wandb.init(
            project=self.project,
            entity=self.entity,
            dir=run.folder,
            id=run.id,
            name=run.name,
            config=run.settings,
            resume="allow",
        )
        if session.offline and run.first_step:
            log.warning(
                "track: wandb can't resume a run offline, and logs the remaining steps to a new folder. Upload all "
                "folders of the run together: wandb sync --id %s %s/offline-run-*",
                run.id,
                run.folder / "wandb",
            )
        failed = 1
        try:
            yield lambda step, metrics: session.log(metrics, step=step)
            failed = 0
        finally:  # wandb's own context manager would print a traceback, even for a signal
            session.finish(exit_code=failed)


class Trackio(Spec):
    """Trackio, on this machine unless `space` is set. View the run with `trackio show`."""

    package: ClassVar[str] = "trackio"

    type: Literal["trackio"] = "trackio"
    project: str = "stfit"
    """Project of the run."""
    space: str | None = None
    """Space on the Hub (`owner/name`) that the run is logged to; null = this machine."""

    @contextmanager
    def start(self, run: TrackedRun) -> Iterator[LogMetrics]:
        import trackio

        session = trackio.init(
            project=self.project,
            name=f"{run.name}-{run.id[:8]}",
            space_id=self.space,
            config=dict(run.settings),
            resume="allow",
            embed=False,
        )
        try:
            yield lambda step, metrics: session.log(metrics, step=step)
        finally:
            session.finish()


class MLflow(Spec):
    """MLflow, on the server that MLFLOW_TRACKING_URI names."""

    package: ClassVar[str] = "mlflow"

    type: Literal["mlflow"] = "mlflow"
    experiment: str = "stfit"
    """Experiment of the run."""

    @contextmanager
    def start(self, run: TrackedRun) -> Iterator[LogMetrics]:
        import mlflow

        mlflow.set_experiment(self.experiment)
        earlier = mlflow.search_runs(filter_string=f"tags.stfit_run = '{run.id}'", output_format="list")
        run_id = earlier[0].info.run_id if earlier else None
        with mlflow.start_run(run_id=run_id, run_name=run.name, tags={"stfit_run": run.id}):
            if run_id is None:  # parameters can't be logged again
                mlflow.log_params({_mlflow_name(name): value for name, value in run.settings.items()})
            yield lambda step, metrics: mlflow.log_metrics(
                {_mlflow_name(name): value for name, value in metrics.items()}, step=step
            )


def _mlflow_name(name: str) -> str:
    """MLflow refuses names with other characters than these, and all metrics that come with one."""
    return re.sub(r"[^\w\-. :/]", "_", name.replace("@", "_at_"))


Tracker = Annotated[TensorBoard | WandB | Trackio | MLflow, Choice("tracker", Spec, "package", "start")]

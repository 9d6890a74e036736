"""Log the events of a training to the trackers of its recipe."""

import logging
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from statistics import fmean as mean
from typing import Any

from stfit.distributed import is_rank_zero
from stfit.events import Evaluated, Started, StepInfo
from stfit.io.atomic import atomic_write
from stfit.io.json_files import load_json_object, seal_json
from stfit.io.yaml_text import to_inline_yaml
from stfit.recipe.dump import flatten
from stfit.recipe.recipe import Recipe
from stfit.runtime.run_folder import RunFolder
from stfit.tracking.trackers import LogMetrics, TrackedRun, Tracker, Value

log = logging.getLogger("stfit")


def log_to_trackers(events: Iterable[Any], recipe: Recipe, folder: RunFolder) -> Iterator[Any]:
    """Pass the events on. A tracker that fails, at any time, is dropped with a warning: tracking never ends a run."""
    writers: dict[str, LogMetrics] = {}
    steps: list[StepInfo] = []
    with ExitStack() as opened:
        for event in events:
            if isinstance(event, Started) and is_rank_zero() and recipe.track:
                run = TrackedRun(folder.path, recipe.name, _id_of(folder), event.first_step, _settings_of(recipe))
                started = {tracker.tag(): _start(tracker, run, opened) for tracker in recipe.track}
                writers = {name: write for name, write in started.items() if write}
            if isinstance(event, StepInfo):
                steps.append(event)
            if numbers := _numbers_of(event, recipe.train.log_every_steps, steps):
                for name, write in list(writers.items()):
                    try:
                        write(event.step, numbers)
                    except Exception as error:
                        _warn(name, error)
                        del writers[name]
            yield event


def _start(tracker: Tracker, run: TrackedRun, opened: ExitStack) -> LogMetrics | None:
    try:
        context = tracker.start(run)
        write = context.__enter__()
    except Exception as error:  # whatever a package or its server does
        _warn(tracker.tag(), error)
        return None

    def close(*raised: Any) -> None:
        """The tracker sees how the run ended, but its own errors end nothing."""
        try:
            context.__exit__(*raised)
        except Exception as error:
            if error is not raised[1]:
                _warn(tracker.tag(), error)

    opened.push(close)
    return write


def _warn(name: str, error: Exception) -> None:
    log.warning("track: %s failed and is disabled: %s", name, " ".join(str(error).split()))


def _numbers_of(event: Any, every: int, steps: list[StepInfo]) -> dict[str, float]:
    """`steps`: those since the last one that was logged; they are taken."""
    match event:
        case Evaluated():
            return event.metrics
        case StepInfo() if event.step % every == 0:
            losses = [{"train/loss": step.loss} | _prefixed("train/loss/", step.terms) for step in steps]
            steps.clear()
            names = dict.fromkeys(name for step in losses for name in step)
            return {
                **{name: mean(step[name] for step in losses if name in step) for name in names},
                "train/learning_rate": event.learning_rate,
                "train/grad_norm": event.grad_norm,
                "train/examples_per_second": event.rows / event.seconds,
                "train/tokens_per_second": event.tokens / event.seconds,
            }
    return {}


def _prefixed(prefix: str, numbers: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}{name}": value for name, value in numbers.items()}


def _id_of(folder: RunFolder) -> str:
    if tracked := load_json_object(folder.tracked):
        return str(tracked["id"])
    run_id = uuid.uuid4().hex
    atomic_write(folder.tracked, seal_json({"id": run_id}))
    return run_id


def _settings_of(recipe: Recipe) -> dict[str, Value]:
    values = flatten(recipe.model_dump(mode="json", by_alias=True, exclude={"track"}))
    return {
        name: value if isinstance(value, str | int | float) else to_inline_yaml(value) for name, value in values.items()
    }

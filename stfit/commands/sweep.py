"""`stfit sweep`: train a recipe with every combination of some values, and say which is best over the seeds."""

import itertools
import json
import logging
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from stfit.errors import DataError, HubError, InterruptedRun, ModelError, Problem, RecipeError, did_you_mean
from stfit.evaluation.bootstrap import INTERVAL
from stfit.evaluation.measure import evaluator_of, known_metrics
from stfit.io.atomic import atomic_write
from stfit.io.json_files import seal_json
from stfit.recipe.dump import to_yaml
from stfit.recipe.load import LoadedRecipe, load_recipe
from stfit.recipe.recipe import LONGEST_NAME, Recipe
from stfit.runtime.run_folder import SWEEP_SUMMARY, RunFolder, lock_folder
from stfit.runtime.signals import handle_signals_resumably
from stfit.workflows.check.lint_evaluation import of_worst_slice
from stfit.workflows.report.compare_runs import write_comparison

log = logging.getLogger("stfit")

MAX_RUNS = 1000
SEED = "seed"
BEST = "-best"
INTERRUPTED = (130, 143)


@dataclass(frozen=True)
class Combination:
    """One value for each key that is swept."""

    name: str
    """Of the run."""
    values: dict[str, str]
    overrides: list[str]
    """Of the recipe: what is the same for all, the values, and the name."""
    loaded: LoadedRecipe[Recipe]

    @property
    def setting(self) -> tuple[tuple[str, str], ...]:
        """The values without the seed: combinations that differ in it alone are one setting."""
        return tuple((key, value) for key, value in self.values.items() if key != SEED)


class Measured(NamedTuple):
    """A finished run."""

    metrics: dict[str, float]
    main: list[str]
    """The metrics to show first."""


def split_values(text: str) -> list[str]:
    """The values of `KEY=1,2,3`: commas in brackets, braces and quotes belong to a value."""
    values, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{(":
            depth += 1
        elif character in ")}]":
            depth -= 1
        if character == "," and not depth and not quote:
            values.append("")
        else:
            values[-1] += character
    return values


def combinations(path: Path, arguments: Sequence[str]) -> list[Combination]:
    """Every combination, each loaded and valid. Raises RecipeError with the problems of all."""
    fixed = _fixed(arguments)
    swept = {argument.partition("=")[0]: _values_of(argument) for argument in arguments if argument not in fixed}
    if not swept:
        raise RecipeError("nothing to sweep: write several values of a key, such as train.learning_rate=1e-5,2e-5")
    if twice := next((key for key in swept if sum(each.startswith(f"{key}=") for each in arguments) > 1), None):
        raise RecipeError(f"`{twice}` is given twice: write all of its values behind one key")
    grid = [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]
    if len(grid) > MAX_RUNS:
        raise RecipeError(f"{len(grid)} combinations are more than {MAX_RUNS}: sweep fewer values")
    found: list[Combination] = []
    problems: dict[tuple[str, str | None], Problem] = {}
    for number, values in enumerate(grid):
        overrides = [*fixed, *(f"{key}={value}" for key, value in values.items())]
        try:
            base = load_recipe(path, overrides).recipe.name
            name = _name_of(base, values, number)
            if name in {other.name for other in found}:  # values that differ in signs alone
                name = f"{name[: LONGEST_NAME - 8]}-{number + 1}"
            overrides.append(f"name={json.dumps(name)}")
            loaded = load_recipe(path, overrides)
        except RecipeError as error:
            problems |= {(problem.message, problem.snippet): problem for problem in error.problems}
            continue
        found.append(Combination(name, values, overrides, loaded))
    if problems:
        raise RecipeError(list(problems.values()))
    seeds = Counter((each.setting, each.loaded.recipe.seed) for each in found)
    if repeated := [seed for (_, seed), count in seeds.items() if count > 1]:
        raise RecipeError(f"the seed {repeated[0]} is there twice for one setting: write each value once")
    return found


def _fixed(arguments: Sequence[str]) -> list[str]:
    """The overrides that are the same for all combinations."""
    return [argument for argument in arguments if len(_values_of(argument)) == 1]


def _values_of(argument: str) -> list[str]:
    key, equals, value = argument.partition("=")
    return split_values(value) if equals and not key.startswith("~") else [argument]


def _name_of(base: str, values: dict[str, str], number: int) -> str:
    """The recipe's name and the values, as the name of a run folder."""
    words = [f"{key.rpartition('.')[2]}-{value}" for key, value in values.items()]
    name = "-".join([base, *(re.sub(r"[^A-Za-z0-9.]+", "-", word).strip("-.") for word in words)])
    return name if len(name) <= LONGEST_NAME else f"{base[: LONGEST_NAME - 8]}-{number + 1}"


def sweep(
    path: Path, arguments: Sequence[str], runs: Path, metric: str | None, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Train all combinations in turn; those that have finished are not trained again.

    `tell` is called with a line for each. `error` is there if a run failed.
    """
    planned = combinations(path, arguments)
    recipe = planned[0].loaded.recipe
    _require_known(metric, recipe)
    folder = runs / f"{load_recipe(path, _fixed(arguments)).recipe.name}-sweep"
    finished: dict[str, Measured] = {}
    failed: dict[str, int] = {}
    with lock_folder(folder / "sweep"), handle_signals_resumably(lambda: f"finished runs are kept in {folder}"):
        for number, each in enumerate(planned, start=1):
            tell(f"{number} of {len(planned)}: {', '.join(f'{key}={value}' for key, value in each.values.items())}")
            code = _train(path, each, folder)
            if code in INTERRUPTED:
                raise InterruptedRun("interrupted", code - 128)
            if code:
                failed[each.name] = code
            elif measured := _measured(each, RunFolder(folder / each.name), metric or recipe.train.best):
                finished[each.name] = measured
    return _write_summary(planned, finished, failed, folder, metric or recipe.train.best)


def _require_known(metric: str | None, recipe: Recipe) -> None:
    known = known_metrics(recipe.eval, "end", recipe.matryoshka_dims)
    if metric is not None and of_worst_slice(recipe, metric) not in known:
        raise RecipeError(f"--metric {metric}: no evaluator measures it; {did_you_mean(metric, known)}")


def _train(path: Path, each: Combination, folder: Path) -> int:
    """The exit code of a training in a process of its own, which writes its lines to stderr."""
    command = [sys.executable, "-m", "stfit", "train", str(path), *each.overrides, "--runs", str(folder), "--json"]
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode


def _measured(each: Combination, run: RunFolder, metric: str | None) -> Measured | None:
    """The metrics of a finished run; it is measured again if it finished before the recipe had all its evaluators.

    Raises RecipeError if it has no such metric: its rows alone tell which slices there are.
    """
    finished, recipe = run.read_result(), each.loaded.recipe
    if finished is None:
        return None
    measured = Measured(finished["result"]["metrics"], list(finished["main"]))
    labels = {evaluator.label for evaluator in recipe.eval if "end" in evaluator.when}
    is_missing = metric is not None and metric not in measured.metrics
    if is_missing or not labels <= {evaluator_of(name, labels) for name in measured.metrics}:
        from stfit.workflows.evaluate.evaluate_model import evaluate_model  # loads torch

        evaluation = evaluate_model(str(run.path), recipe.model_copy(update={"gate": []}))
        measured = Measured(evaluation.metrics, evaluation.main)
    if metric is not None and metric not in measured.metrics:
        raise RecipeError(f"{run.path} has no metric `{metric}`: {did_you_mean(metric, list(measured.metrics))}")
    return measured


def _write_summary(
    planned: list[Combination],
    finished: dict[str, Measured],
    failed: dict[str, int],
    folder: Path,
    metric: str | None,
) -> dict[str, Any]:
    result: dict[str, Any] = {"runs": str(folder), "metric": metric, "settings": [], "failed": failed}
    if failed:
        names = ", ".join(failed)
        message = f"{len(failed)} of {len(planned)} runs failed: {names}"
        result["error"] = {"class": "StfitError", "message": message, "exit_code": next(iter(failed.values()))}
    if not finished:
        return result
    metric = metric or next(iter(next(iter(finished.values())).main), None)
    settings = list(_settings(planned, finished, metric))
    best = max(settings, key=lambda each: (not isnan(each["mean"]), each["mean"])) if metric else None
    done = [folder / each.name for each in planned if each.name in finished]
    page = folder / "comparison.html"
    if len(done) > 1:
        write_comparison(done, page)
        result["report"] = str(page)
    if best:
        winner = next(each for each in planned if each.name == best["runs"][0])
        result["best"] = {"values": best["values"], "recipe": str(folder / "best.yaml")}
        alone = winner.loaded.recipe.model_copy(update={"name": f"{folder.name[: LONGEST_NAME - len(BEST)]}{BEST}"})
        atomic_write(folder / "best.yaml", to_yaml(alone))
    result |= {"metric": metric, "settings": settings}
    atomic_write(folder / SWEEP_SUMMARY, seal_json(result))
    if best:
        result = _check_gates([folder / name / "model" for name in best["runs"]], winner.loaded.recipe) | result
        atomic_write(folder / SWEEP_SUMMARY, seal_json(result))
    return result


def _check_gates(models: list[Path], recipe: Recipe) -> dict[str, Any]:
    """The gates over seeds, of the models of one setting; `error` if they can't be decided, such as without a Hub."""
    if not any(gate.over for gate in recipe.gate):
        return {}
    from stfit.workflows.evaluate.check_gates import check_gates_of_sweep  # loads torch

    try:
        return {"gate": [vars(gate) for gate in check_gates_of_sweep(models, recipe)]}
    except (ModelError, HubError, DataError) as error:
        return {"error": {"class": type(error).__name__, "message": str(error), "exit_code": error.exit_code}}


def _settings(
    planned: list[Combination], finished: dict[str, Measured], metric: str | None
) -> Iterator[dict[str, Any]]:
    """Of each setting: its values, runs, and the mean of the metric over the seeds with its interval."""
    settings: dict[tuple[tuple[str, str], ...], list[Combination]] = {}
    for each in planned:
        if each.name in finished:
            settings.setdefault(each.setting, []).append(each)
    for setting, members in settings.items():
        values = [finished[each.name].metrics[metric] for each in members] if metric else []
        yield {
            "values": dict(setting),
            "runs": [each.name for each in members],
            "scores": values,
            "mean": fmean(values) if values else None,
            "half_width": half_width(values),
        }


def half_width(values: Sequence[float]) -> float | None:
    """Of the 95% interval of a mean, by Student's t; None for one value."""
    if len(values) < 2:
        return None
    from scipy.special import stdtrit  # slow to load

    return float(stdtrit(len(values) - 1, (1 + INTERVAL) / 2)) * stdev(values) / len(values) ** 0.5

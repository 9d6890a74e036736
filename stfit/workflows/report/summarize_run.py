"""Summarize a run folder: for its report, for the list of runs and for the model card."""

import re
from datetime import datetime
from typing import Any

from stfit.data.reading.local_files import shown_split
from stfit.errors import RecipeError
from stfit.evaluation.bootstrap import compare_draws
from stfit.evaluation.registry import Evaluator
from stfit.io.atomic import atomic_write
from stfit.io.json_files import load_json_object
from stfit.io.yaml_text import to_inline_yaml
from stfit.recipe.dump import flatten
from stfit.recipe.load import load_recipe
from stfit.recipe.recipe import Recipe
from stfit.report.page import report_page
from stfit.report.run_summary import RunSummary
from stfit.runtime.run_folder import RunFolder, is_folder_locked, list_checkpoints
from stfit.workflows.report.report_data import Stage


def write_report(folder: RunFolder) -> None:
    atomic_write(folder.report, report_page(summarize_run(folder, "finished")))


def summarize_run(folder: RunFolder, state: str | None = None) -> RunSummary:
    lock = folder.read_lock()
    if lock is None or not folder.resolved.is_file():
        lacking = folder.lock.name if lock is None else folder.resolved.name
        raise RecipeError(f"{folder.path} is not a run folder: its {lacking} is missing or damaged")
    recipe = load_recipe(folder.resolved).recipe
    finished = folder.read_result() or {}
    result, log = finished.get("result", {}), folder.read_log()
    first = next((entry for entry in log if entry["event"] == "eval" and entry["step"] == 0), {})
    measured = {name: value for name, value in first.items() if name not in ("step", "event")}
    record = load_json_object(folder.record) or {}
    before, after = result.get("baseline", measured), result.get("metrics", {})
    gated = [gate.metric for gate in recipe.gate if gate.metric in before | after]
    main = list(dict.fromkeys([*gated, *(finished.get("main") or _main_metrics_of(recipe, measured))]))
    return RunSummary(
        name=folder.path.name,
        state=state or _state_of(folder, log, bool(finished)),
        date=f"{last_written(folder):%Y-%m-%d %H:%M}",
        inputs=_inputs(recipe, lock, result),
        recipe={key: to_inline_yaml(value) for key, value in flatten(recipe.model_dump(by_alias=True)).items()},
        resolved=folder.resolved.read_text(encoding="utf-8"),
        lock=folder.lock.read_text(encoding="utf-8"),
        main=main,
        before=before,
        after=after,
        gains=compare_with_start(main, after, before, record),
        log=log,
        record=record,
        seconds=result.get("spent", {}),
        costs=_costs_of(result),
        machine=({"hardware": result["hardware"]} if result else {}) | _versions_of(lock),
    )


def compare_with_start(
    main: list[str], after: dict[str, float], before: dict[str, float], record: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Main metric -> the fields of its Comparison, of a trained model with the model before."""
    compared = compare_metrics(after, record, before, record, "start")
    return {name: compared[name] for name in main if name in compared}


def compare_metrics(
    after: dict[str, float], record: dict[str, Any], before: dict[str, float], other: dict[str, Any], stage: Stage
) -> dict[str, dict[str, Any]]:
    """Metric -> the fields of its Comparison, with the draws at the end of a run and at a stage of the other.

    A metric that was measured on other rows is left out: a difference would say nothing.
    """
    draws = record.get("drawn", {}).get("end", {})
    other_draws = other.get("drawn", {}).get(stage, {})
    rows, other_rows = (
        {_evaluator_in(name): drawn["rows"] for name, drawn in of_run.items()} for of_run in (draws, other_draws)
    )
    differ = {name for name, found in rows.items() if found and other_rows.get(name, found) not in (found, None)}
    return {
        name: vars(compare_draws(after[name], before[name], draws.get(name), other_draws.get(name)))
        for name in after
        if name in before and _evaluator_in(name) not in differ
    }


def _evaluator_in(metric: str) -> str:
    """What stands before the slice, the dimension and the metric."""
    return re.split(r"[/@#\[]", metric, maxsplit=1)[0]


def _state_of(folder: RunFolder, log: list[dict[str, Any]], finished: bool) -> str:
    if finished:
        return "finished"
    if is_folder_locked(folder.path):
        return "in progress"
    saved = max((int(path.name.removeprefix("step-")) for path in list_checkpoints(folder.checkpoints)), default=0)
    step = max([saved, *(entry["step"] for entry in log)])
    return f"stopped at step {step}" if step == saved else f"stopped at step {step}, saved at {saved}"


def last_written(folder: RunFolder) -> datetime:
    newest = next(path for path in (folder.result, folder.metrics, folder.lock) if path.is_file())
    return datetime.fromtimestamp(newest.stat().st_mtime)


def _main_metrics_of(recipe: Recipe, measured: dict[str, float]) -> list[str]:
    """For a run that has not finished and so has not stored its main metrics. Of several similarities, the first."""
    heads = [f"{evaluator.label}/{metric}" for evaluator in recipe.eval for metric in evaluator.main_metrics]
    names = [next((name for name in measured if f"{name}_".startswith(f"{head}_")), None) for head in heads]
    return [name for name in names if name]


def _inputs(recipe: Recipe, lock: dict[str, Any], result: dict[str, Any]) -> list[tuple[str, str]]:
    base = recipe.model.base
    name = base if isinstance(base, str) else base.type
    commit = lock["base"].get("commit")
    lora = recipe.model.lora
    parts = [name, f"commit {commit}" if commit else "", f"LoRA of rank {lora.rank}" if lora else ""]
    facts = [("base", ", ".join(filter(None, parts)))]
    for objective, data in zip(recipe.objectives_by_path.values(), lock["data"], strict=True):
        source = objective.data
        rows = f"{data['rows']} examples" if "rows" in data else "a stream"
        parts = [str(source.dataset), f"split {source.split}", rows, source.format]
        parts += [f"commit {data['commit']}"] if data.get("commit") else []
        facts += [("data", ", ".join(parts)), ("loss", objective.loss_names)]
    train = recipe.train
    length = f"{train.max_steps} steps" if train.max_steps else f"{train.epochs or 1:g} epochs"
    processes = result.get("processes", lock.get("processes", 1))
    share = f" on each of {processes} processes" if processes > 1 else " each"
    facts.append(("batches", f"{train.batch_size} rows{share}, {length}, learning rate {train.learning_rate:g}"))
    facts += [
        ("evaluator", f"{evaluator.label}, {evaluator.type} on {_source_of(evaluator)}") for evaluator in recipe.eval
    ]
    facts.append(("versions", ", ".join(f"{package} {version}" for package, version in _versions_of(lock).items())))
    return facts


def _source_of(evaluator: Evaluator) -> str:
    if evaluator.dataset is None:
        return evaluator.origin or ("data.holdout" if evaluator.from_ == "holdout" else "the dataset of data")
    split = shown_split(evaluator)
    return f"{evaluator.dataset}, split {split}" if split else evaluator.dataset


def _versions_of(lock: dict[str, Any]) -> dict[str, str]:
    return {"Python": lock["python"], **lock["packages"]}


def _costs_of(result: dict[str, Any]) -> dict[str, str]:
    if not result:
        return {}
    speed = result["examples_per_second"]
    costs = {"peak memory": f"{result['peak_rss_mib']:.0f} MiB", "steps": str(result["steps"])}
    return costs | ({"examples per second": f"{speed:.0f}"} if speed else {})

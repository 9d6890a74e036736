"""Collect the data of a model card from a run folder or a model folder."""

from dataclasses import replace
from itertools import zip_longest
from pathlib import Path, PurePath
from typing import Any

from stfit.data.mapping.examples import Examples
from stfit.data.reading.local_files import shown_split
from stfit.data.source import Source, is_remote
from stfit.encoder.folder.inspect import inspect_folder
from stfit.encoder.prompts import with_built_in
from stfit.evaluation.base import Benchmark
from stfit.evaluation.registry import Evaluator
from stfit.io.atomic import atomic_write, wrap_os_errors
from stfit.io.json_files import load_json_object
from stfit.publish.allowlist import CARD, CURVE
from stfit.publish.card import CardData, DatasetFacts, MetricRow, Scores, Training, card_body, card_metadata
from stfit.publish.readme import write_readme
from stfit.recipe.dump import to_yaml
from stfit.recipe.load import load_recipe
from stfit.recipe.recipe import Recipe
from stfit.report.figures import draw_loss_curve
from stfit.report.run_summary import loss_curve
from stfit.runtime.run_folder import RunFolder
from stfit.workflows.report.summarize_run import compare_metrics


def write_card(folder: RunFolder, result: dict[str, Any], main: list[str], training: list[Examples]) -> None:
    recipe = load_recipe(folder.resolved).recipe
    steps, losses = loss_curve(folder.read_log())
    if steps:
        with wrap_os_errors(folder.model / CURVE):
            draw_loss_curve(steps, losses, folder.model / CURVE)
    facts = describe_run(folder, recipe, result, main, recipe.push.repo if recipe.push else recipe.name, training)
    atomic_write(folder.model / CARD, write_readme(card_metadata(facts), card_body(facts)))


def describe_folder(folder: Path, name: str) -> CardData:
    info = inspect_folder(folder)
    prompts = with_built_in(info.prompts)
    return CardData(
        name=name,
        embedding_dim=None,
        max_seq_length=info.max_seq_length,
        parameters=info.parameters,
        modules=[info.st_name, *(info.config.modules() if info.config else [])],
        similarity=info.config.similarity if info.config else "cosine",
        prompts={name: text for name, text in prompts.items() if text},
        is_asymmetric=prompts["query"] != prompts["document"],
    )


def describe_run(
    folder: RunFolder,
    recipe: Recipe,
    result: dict[str, Any],
    main: list[str],
    name: str,
    training: list[Examples] | None,
) -> CardData:
    """`training`: the rows of each objective, if the card shows examples."""
    info = inspect_folder(folder.model)
    dim = info.config.embedding_dim(info.hidden_size or 0) if info.config else 0
    before, after = result["baseline"], result["metrics"]
    record = load_json_object(folder.record) or {}
    compared = compare_metrics(after, record, before, record, "start")
    return replace(
        describe_folder(folder.model, name),
        embedding_dim=min(dim, recipe.model.truncate_dim or dim) or None,
        push=recipe.push,
        training=_describe_training(folder, recipe, result, training),
        scores=[scores for evaluator in recipe.eval for scores in _scores_of(evaluator, recipe, after)],
        metrics=[MetricRow(metric, after[metric], compared.get(metric, {})) for metric in main if metric in after],
    )


def _describe_training(
    folder: RunFolder, recipe: Recipe, result: dict[str, Any], training: list[Examples] | None
) -> Training:
    lock = load_json_object(folder.lock) or {"data": [], "packages": {}, "python": "unknown"}
    base = recipe.model.base
    on_hub = isinstance(base, str) and is_remote(base)
    return Training(
        base=None if not isinstance(base, str) else base if on_hub else PurePath(base).name,
        base_on_hub=on_hub,
        base_commit=recipe.model.revision,
        data=_describe_data(recipe, lock["data"], training or []),
        losses=list(recipe.losses_by_path.values()),
        recipe=to_yaml(recipe, for_others=True),
        steps=result["steps"],
        seconds=result["seconds"],
        examples_per_second=result["examples_per_second"],
        hardware=result["hardware"],
        versions={"Python": lock["python"], **lock["packages"]},
        has_curve=(folder.model / CURVE).is_file(),
    )


def _describe_data(recipe: Recipe, locked: list[dict[str, Any]], training: list[Examples]) -> list[DatasetFacts]:
    shown = recipe.push.samples if recipe.push else 0
    sources = [objective.data for objective in recipe.objectives_by_path.values()]
    datasets = [_describe_dataset(source, "data", source.format) for source in sources]
    return [
        replace(
            dataset,
            rows=facts.get("rows"),
            generated=facts.get("generated", {}),
            samples=first_rows(examples, shown) if examples else [],
        )
        for dataset, facts, examples in zip_longest(datasets, locked, training)
    ]


def _describe_dataset(source: Source | Benchmark, label: str, format: str | None = None) -> DatasetFacts:
    """A dataset without the folders of this machine; `label` if it has no name of its own."""
    hub = source.dataset if source.dataset and is_remote(source.dataset) else None
    name = PurePath(source.dataset).name if source.dataset else label
    columns = dict(source.columns)
    split = shown_split(source) if source.dataset else source.split
    return DatasetFacts(name, hub, source.config, split, source.revision, columns=columns, format=format)


def _scores_of(evaluator: Evaluator, recipe: Recipe, metrics: dict[str, float]) -> list[Scores]:
    """The final scores of an evaluator, one for the whole embedding and for each measured prefix."""
    source = recipe.holdout_source if evaluator.from_ and recipe.holdout_source else evaluator
    dataset = _describe_dataset(source, evaluator.label)
    values_by_head: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        head, _, metric = name.partition("/")
        if head.partition("@")[0] == evaluator.label:
            values_by_head.setdefault(head, {})[metric] = value
    return [Scores(head, evaluator.type, dataset, values) for head, values in values_by_head.items()]


def first_rows(examples: Examples, count: int) -> list[dict[str, Any]]:
    rows = []
    for position in range(min(count, len(examples))):
        row: dict[str, Any] = {role: texts[position] or "" for role, texts in examples.texts.items()}
        rows.append(row if examples.label is None else row | {"label": examples.label[position].item()})
    return rows

"""`stfit train`: recipe -> data -> encoder -> batches -> loss -> optimizer -> steps -> model folder.

`train` is a generator of events; what becomes of them on a screen is its caller's business.
"""

from __future__ import annotations

import json
import logging
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stfit.data.batching.batches import Batch, TokenTable, tokenize_examples
from stfit.data.batching.shuffle_buffer import LazyBatch, StreamingBatches
from stfit.data.checks.compatibility import check_kind
from stfit.data.mapping.examples import Examples, count_dropped
from stfit.distributed import broadcast_tensors, is_rank_zero, on_rank_zero, rank_zero_first, world_size
from stfit.encoder.build import build_encoder
from stfit.encoder.encoder import Encoder
from stfit.errors import HubError, ModelError, RecipeError
from stfit.evaluation.measure import main_metrics
from stfit.io.atomic import atomic_write
from stfit.losses.registry import build_loss, compute_loss
from stfit.publish.commit import preflight
from stfit.recipe.dump import to_yaml
from stfit.recipe.hub_refs import pin
from stfit.recipe.load import LoadedRecipe
from stfit.recipe.lock import (
    LOCK,
    build_lock,
    load_lock,
    lock_to_json,
    require_unchanged,
    training_sections,
    without_local_folders,
)
from stfit.recipe.recipe import Objective, Recipe
from stfit.runtime.device import choose_device, choose_precision, describe_hardware
from stfit.runtime.malloc import configure_malloc
from stfit.runtime.run_folder import RunFolder, lock_folder, open_folder, require_shared
from stfit.runtime.signals import SignalHandler, handle_signals
from stfit.training.batch_schedule import ScheduledBatch
from stfit.training.checkpoint import require_disk_space
from stfit.training.diagnostics import Diagnostics
from stfit.training.gradients import ComputeLoss, choose_splitter
from stfit.training.loop import StepInfo, TrainObjects, build_train_objects, train_steps, trainable_modules
from stfit.training.rng import seed_everything, seed_per_rank
from stfit.training.state import TrainState, build_intervals
from stfit.workflows.card_data import write_card
from stfit.workflows.estimate import plan_problems, plan_run
from stfit.workflows.log_to_trackers import log_to_trackers
from stfit.workflows.report_data import log_exceptions, open_report_data
from stfit.workflows.resume import find_checkpoint, restore_or_start, update_run_recipe, with_earlier_choices
from stfit.workflows.session import Evaluated, Saved, Started, TrainingSession
from stfit.workflows.summarize_run import write_report
from stfit.workflows.teacher import embed_with_teacher
from stfit.workflows.validate import Prepared, load_and_validate

log = logging.getLogger("stfit")


@dataclass(frozen=True)
class Finished:
    """The run is over; `again`: it was so before, and nothing was trained now."""

    result: dict[str, Any]
    main: list[str]
    again: bool = False


Event = Started | StepInfo | Evaluated | Saved | Finished


def train(
    loaded: LoadedRecipe[Recipe], runs: Path, *, fresh: bool = False, resume: bool = False, locked: Path | None = None
) -> Iterator[Event]:
    """Train a recipe in `runs`/<name>, or go on with the run that is there.

    `fresh` starts anew in any case, `resume` refuses to. `locked` is the lock of a training that this one has to equal:
    where anything moved, LockError is raised before a weight is loaded. Raises the errors of stfit.errors;
    InterruptedRun after SIGINT or SIGTERM, once the state is saved.
    """
    path = runs / loaded.recipe.name
    _require_other_base(loaded.recipe, path)
    with lock_folder(path), handle_signals() as stop:
        folder, notes = on_rank_zero(lambda: open_folder(path, training_sections(loaded.recipe), fresh, resume))
        require_shared(path)
        for note in notes:
            log.warning(note)
        if finished := on_rank_zero(folder.read_result):
            if locked:
                require_unchanged(locked, load_lock(locked), load_lock(folder.lock))
            update_run_recipe(folder, loaded)
            yield Finished(**finished, again=True)
        else:
            if loaded.recipe.push:
                on_rank_zero(partial(_require_publishable, loaded.recipe.push.repo))
            yield from log_to_trackers(run(loaded, folder, stop, strict=resume, locked=locked), loaded.recipe, folder)


def run(
    loaded: LoadedRecipe[Recipe], folder: RunFolder, stop: SignalHandler, strict: bool, locked: Path | None = None
) -> Iterator[Event]:
    """From the start, or the newest checkpoint, to the end. `strict`: not if something moved since the checkpoint."""
    begun = time.perf_counter()
    checkpoint = on_rank_zero(partial(find_checkpoint, folder))
    recipe: Recipe = on_rank_zero(
        lambda: pin(with_earlier_choices(loaded.recipe, folder) if checkpoint else loaded.recipe)
    )
    seed_everything(recipe.seed)
    configure_malloc(recipe.train.shard)
    with rank_zero_first():
        prepared = load_and_validate(recipe, loaded.origins)
    lock = on_rank_zero(
        lambda: build_lock(loaded.recipe, recipe, prepared.training, torch.get_num_threads(), world_size())
    )
    if locked:
        require_unchanged(locked, load_lock(locked), lock)
    device = choose_device(recipe.train.device)
    with rank_zero_first():
        encoder = build_encoder(recipe.model, prepared.all_texts, device)
    encoder.precision = choose_precision(recipe.train.precision, device)
    encoder.use_fast_dropout()
    log.info("layout %s: %s", encoder.layout.name, encoder.layout.reason)
    evaluators = list(zip(recipe.eval, prepared.evaluation, strict=True))
    main = main_metrics(evaluators, encoder.config.similarity, recipe.matryoshka_dims)

    objectives = recipe.objectives_by_path.values()
    with rank_zero_first():
        tables = [_tokenize(encoder, each, rows) for each, rows in zip(objectives, prepared.training, strict=True)]
    recipe = _with_choices(recipe, encoder, device)
    began_with = checkpoint.facts["progress"]["processes"] if checkpoint else world_size()
    streams = {
        number: _open_stream(recipe, objective, encoder, began_with, stop)
        for number, objective in enumerate(objectives)
        if objective.data.streaming
    }
    plan = plan_run(recipe, tables, [examples.fingerprint for examples in prepared.training], began_with, streams)
    warnings = [*prepared.warnings, *plan_problems(recipe, tables, plan, encoder.tokenizer.max_seq_length, began_with)]
    for problem in warnings:
        log.warning("%s (%s)", problem, problem.code)
    calendar = build_intervals(recipe.train, plan.total_steps)
    learner = _build_all_weights(recipe, encoder, prepared)
    seed_per_rank(recipe.seed)
    made = {key: value for key, value in lock.items() if key != "eval"}  # evaluators may change without a new training
    made["tokens"] = sha256(encoder.tokenizer.fingerprint.encode()).hexdigest()
    on_rank_zero(partial(require_disk_space, folder.path, learner, recipe.train.keep_checkpoints))
    progress = restore_or_start(folder, checkpoint, learner, made, strict)
    first_step = progress.step
    atomic_write(folder.lock, lock_to_json(lock))  # first: it tells whose folder this is
    atomic_write(folder.recipe, loaded.text)
    atomic_write(folder.resolved, to_yaml(recipe))
    rows = None if streams else sum(map(len, tables))
    yield Started(folder.path, rows, count_dropped(prepared.training), first_step, plan.total_steps, main)

    record = open_report_data(folder, recipe, prepared, evaluators, main)
    under_way = TrainingSession(
        recipe, folder, stop, learner, evaluators, calendar, progress, made, Diagnostics(plan.total_steps), record
    )
    progress.add_seconds("preparing", time.perf_counter() - begun)
    if checkpoint is None:
        record.begin(tables, encoder.tokenizer.max_seq_length, warnings)
        with learner.full_encoder() as untrained:
            progress.baseline = under_way.measure(untrained, "start")
            under_way.look(untrained, "start")
        folder.log({"step": 0, "event": "eval", **progress.baseline})
        yield Evaluated(0, progress.baseline)

    # Without dropout, a text that stands twice in a batch has the same embedding twice: one forward serves both.
    distinct = not encoder.has_dropout
    if streams and first_step:
        log.info("reading the stream again, up to step %d", first_step)
    with progress.timed("preparing"):
        steps = plan.steps(first_step)
    stop.defer_signals()
    if first_step > 0:
        yield from under_way.evaluate()  # a signal may have cut it short
    trained = train_steps(
        learner,
        (
            [(turn.objective, _batch_of(turn, tables, distinct)) for turn in step]
            for step in ([] if under_way.is_over else steps)
        ),
        calendar.learning_rate,
        first_step=first_step,
        split=choose_splitter(recipe.train.mini_batch_size, recipe.train.mini_batch_tokens),
        max_grad_norm=recipe.train.max_grad_norm,
        check_interrupt=stop.interrupt_long_step,
    )
    for info in under_way.saved_where_given_up(trained):
        yield from under_way.after(info, first_step)
        if under_way.is_over:
            log.warning("early stopping: %s no longer improves", recipe.train.best)
            break
    yield from under_way.end()
    result = _summary(folder, progress, device)
    if is_rank_zero():
        write_card(folder, result, main, prepared.training)
        atomic_write(folder.model / LOCK, lock_to_json(without_local_folders(lock)))
        atomic_write(folder.result, json.dumps({"result": result, "main": main}, indent=2) + "\n")
        with log_exceptions("to write report.html (`stfit report` does it again)"):
            write_report(folder)
    yield Finished(result, main)


def _require_publishable(repo: str) -> None:
    """Raise HubError before a training whose model could not be pushed, with a way to train nevertheless."""
    try:
        preflight(repo)
    except HubError as error:
        hint = "; to train without publishing, add `~push` to the command"
        raise HubError([replace(problem, message=problem.message + hint) for problem in error.problems]) from error


def _require_other_base(recipe: Recipe, path: Path) -> None:
    """Refuse to put the run aside that is to be gone on from."""
    base = recipe.model.base
    if isinstance(base, str) and Path(base).is_absolute() and Path(base).resolve().is_relative_to(path.resolve()):
        raise RecipeError(f"model.base is the run in {path}, where this recipe trains too: give it another `name`")


def _tokenize(encoder: Encoder, objective: Objective, examples: Examples) -> TokenTable:
    """The examples of an objective as the encoder's tokens, each text with the prompt of its role before it.

    With the labels that the loss's teacher gives them, and as often as the loss wants to see a text.
    """
    prompts = {role: encoder.role_prompt(role, objective.data.prompts) for role in examples.texts}
    tokens = encoder.tokenizer
    kept_as = None if objective.data.streaming else tokens.fingerprint
    table = embed_with_teacher(
        tokenize_examples(examples, prompts, tokens, kept_as, encoder.prompt_skip), objective, encoder
    )
    if objective.views and not encoder.has_dropout:
        raise ModelError(
            f"loss `{objective.loss.type}` tells the dropouts of a text apart in the format text, and this model has "
            "none: set `model.dropout: 0.1`"
        )
    return table.duplicate_columns(objective.views)


def _open_stream(
    recipe: Recipe, objective: Objective, encoder: Encoder, processes: int, stop: SignalHandler
) -> StreamingBatches:
    """The batches of an objective whose rows are read while it is trained on, those of all processes together."""
    loss = objective.loss
    return StreamingBatches(
        objective.data,
        str(objective.sampler),
        recipe.train.batch_size * processes,
        loss.min_batch_size,
        recipe.seed,
        partial(check_kind, loss.type, loss.fits),
        partial(_tokenize, encoder, objective),
        stop.interrupt_long_step,
    )


def _batch_of(turn: ScheduledBatch, tables: list[TokenTable], distinct: bool) -> Batch:
    """The batch of a turn: rows of its objective's table, or of a chunk of its stream."""
    rows = turn.rows
    return rows.batch(distinct) if isinstance(rows, LazyBatch) else tables[turn.objective].batch(rows, distinct)


def _with_choices(recipe: Recipe, encoder: Encoder, device: str) -> Recipe:
    """The recipe with every automatic value replaced by what was chosen."""
    traits = encoder.config
    model = recipe.model.model_copy(
        update={
            "max_seq_length": encoder.tokenizer.max_seq_length,
            "pooling": list(traits.pooling) or None,
            "token_layers": traits.token_layers,
            "layers": traits.layers,
            "prompts": traits.prompts,
            "default_prompt": traits.default_prompt,
            "similarity": traits.similarity,
            "truncate_dim": traits.truncate_dim,
            "attention": encoder.layout.name,
        }
    )
    chosen: dict[str, Any] = {"device": device, "precision": encoder.precision}
    objectives = list(recipe.objectives_by_path.values())
    if recipe.objectives is None:
        chosen["sampler"] = objectives[0].sampler
    train = recipe.train.model_copy(update=chosen)
    return recipe.model_copy(update={"model": model, "train": train, "objectives": recipe.objectives and objectives})


def _build_all_weights(recipe: Recipe, encoder: Encoder, prepared: Prepared) -> TrainObjects:
    """The losses (with weights of their own, for softmax) and the optimizer over everything that is not frozen."""
    losses: list[ComputeLoss] = []
    for objective, examples in zip(recipe.objectives_by_path.values(), prepared.training, strict=True):
        loss = build_loss(objective.loss, encoder.embedding_dim, examples.num_classes)
        losses.append(loss.to(encoder.device) if isinstance(loss, nn.Module) else partial(compute_loss, loss))
    broadcast_tensors(
        [tensor for module in trainable_modules(encoder, losses) for tensor in module.state_dict().values()]
    )
    train = recipe.train
    return build_train_objects(encoder, losses, train.weight_decay, train.freeze, train.layer_decay, train.shard)


def _summary(folder: RunFolder, progress: TrainState, device: str) -> dict[str, Any]:
    """What `stfit train --json` prints."""
    return {
        "run": str(folder.path),
        "model": str(folder.model),
        "steps": progress.step,
        "seconds": round(progress.seconds, 3),
        "spent": {name: round(seconds, 3) for name, seconds in progress.spent.items()},
        "examples_per_second": progress.examples_per_second,
        "processes": progress.processes,
        "hardware": describe_hardware(device),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "baseline": progress.baseline,
        "metrics": progress.metrics,
    }

"""`stfit train`: recipe -> data -> encoder -> batches -> loss -> optimizer -> steps -> model folder."""

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch

from stfit.data.batching.batches import TokenTable
from stfit.data.mapping.examples import count_dropped
from stfit.distributed import (
    broadcast_tensors,
    collective_timeout,
    on_rank_zero,
    rank_zero_first,
    world_size,
)
from stfit.encoder.build import build_encoder
from stfit.encoder.encoder import Encoder
from stfit.encoder.kernels.packing import LayoutError
from stfit.errors import HubError, LockError, RecipeError
from stfit.evaluation.measure import main_metrics
from stfit.events import Finished, Started, TrainEvent
from stfit.io.unicode import require_text
from stfit.losses.terms import LossTerms
from stfit.progress import task
from stfit.publish.commit import preflight
from stfit.publish.destination import Push
from stfit.recipe.hub_refs import pin
from stfit.recipe.inputs import keyed_paths
from stfit.recipe.load import LoadedRecipe
from stfit.recipe.lock import (
    Lock,
    build_lock,
    load_lock,
    require_unchanged,
    training_sections,
    with_computation_of,
)
from stfit.recipe.recipe import Recipe
from stfit.runtime.device import choose_device, choose_precision
from stfit.runtime.malloc import configure_malloc, limit_kernel_caches
from stfit.runtime.run_folder import (
    RunFolder,
    bring_back_unless_begun,
    load_result,
    lock_folder,
    open_folder,
    put_aside,
    require_shared,
)
from stfit.runtime.signals import SignalHandler, handle_signals
from stfit.training.batch_schedule import BatchSchedule
from stfit.training.checkpoint import newest_checkpoint, require_disk_space
from stfit.training.diagnostics import Diagnostics
from stfit.training.gradients import build_splitter
from stfit.training.loop import TrainObjects, build_train_objects, train_steps, trainable_modules
from stfit.training.rng import seed_everything, seed_per_rank
from stfit.training.state import build_intervals
from stfit.workflows.check.estimate import lint_schedule, measure_footprint
from stfit.workflows.check.memory import lint_memory
from stfit.workflows.check.validate import Prepared, RecipeLocation, load_and_validate
from stfit.workflows.report.report_data import open_report_data
from stfit.workflows.train.batches import batch_of, schedule_batches, tokenize_training
from stfit.workflows.train.finish import finish_training
from stfit.workflows.train.log_to_trackers import log_to_trackers
from stfit.workflows.train.resume import (
    fingerprint_run,
    pin_or_reuse,
    restore_or_start,
    unless_inputs_changed,
    update_run_recipe,
    write_run_recipe,
)
from stfit.workflows.train.session import TrainingSession, log_problem
from stfit.workflows.train.unchanged import changes_of_finished

log = logging.getLogger("stfit")


def train(
    loaded: LoadedRecipe[Recipe], runs: Path, *, fresh: bool = False, resume: bool = False, locked: Path | None = None
) -> Iterator[TrainEvent]:
    """`fresh` always starts a new run, `resume` never does. `locked`: the stfit.lock of a run to reproduce."""
    path = runs / loaded.recipe.name
    require_text(path)
    _require_inputs_outside_run(loaded.recipe, path)
    with lock_folder(path), handle_signals() as signals, bring_back_unless_begun(path):
        folder, notes = on_rank_zero(lambda: open_folder(path, training_sections(loaded.recipe), fresh, resume))
        require_shared(path)
        finished = on_rank_zero(partial(load_result, folder))
        changed = on_rank_zero(partial(_changes_of_finished, loaded, folder, resume, locked)) if finished else []
        if changed:
            notes = on_rank_zero(partial(put_aside, folder, changed))
        for note in notes:
            log.warning(note)
        if finished and not changed:
            finished = on_rank_zero(partial(update_run_recipe, folder, loaded, finished))
            yield Finished(finished["result"], finished["main"], again=True)
        else:
            if loaded.recipe.push:
                on_rank_zero(partial(_require_publishable, loaded.recipe.push))
            events = _run(loaded, folder, signals, strict=resume, locked=locked)
            yield from log_to_trackers(events, loaded.recipe, folder)


def _changes_of_finished(
    loaded: LoadedRecipe[Recipe], folder: RunFolder, resume: bool, locked: Path | None
) -> list[str]:
    """Inputs that changed since the run finished. Raises LockError before anything is put aside."""
    lock = load_lock(folder.lock)
    changed = changes_of_finished(loaded, lock, strict=resume or locked is not None)
    if changed and resume:
        raise LockError(f"--resume: changed since {folder.path} finished:\n  " + "\n  ".join(changed))
    if locked:
        if changed:
            pinned: Recipe = pin(loaded.recipe)
            lock = _describe(loaded.recipe, pinned, load_and_validate(pinned, loaded.origins))
        require_unchanged(locked, load_lock(locked), lock)
    return changed


def _run(
    loaded: LoadedRecipe[Recipe], folder: RunFolder, signals: SignalHandler, strict: bool, locked: Path | None
) -> Iterator[TrainEvent]:
    start = time.perf_counter()
    checkpoint = on_rank_zero(partial(newest_checkpoint, folder.checkpoints))
    pinned: Recipe = on_rank_zero(partial(pin_or_reuse, loaded.recipe, folder, checkpoint))
    if locked:
        pinned = with_computation_of(load_lock(locked), pinned)
    seed_everything(pinned.seed)
    configure_malloc(pinned.train.shard)
    limit_kernel_caches()
    with rank_zero_first():
        prepared = load_and_validate(pinned, loaded.origins)
    lock = _build_lock(loaded.recipe, pinned, prepared, locked)
    device = choose_device(pinned.train.device)
    encoder = _build_encoder(loaded, pinned, prepared, device)
    lock["computation"] = {"attention": encoder.layout.name, "precision": encoder.precision}
    fingerprint = fingerprint_run(lock, encoder.tokenizer.fingerprint)
    # A stream goes on: it may have ended at a wrong row, which is mended now.
    keeps = strict or any(objective.data.streaming for objective in pinned.objectives_by_path.values())
    checkpoint = on_rank_zero(partial(unless_inputs_changed, folder, checkpoint, encoder, fingerprint, keeps))
    resolved = _with_runtime_choices(pinned, encoder, device)
    processes = checkpoint.facts["progress"]["processes"] if checkpoint else world_size()
    evaluators = prepared.evaluators(resolved)
    schedule = schedule_batches(resolved, encoder, prepared.training, processes, signals, evaluators)
    tables = tokenize_training(pinned, encoder, prepared.training, schedule)
    max_seq_length, unknown_id = encoder.tokenizer.max_seq_length, encoder.tokenizer.unknown_id
    warnings = [*prepared.warnings, *lint_schedule(resolved, tables, schedule, max_seq_length, unknown_id, processes)]
    footprint = measure_footprint(resolved, tables, schedule, prepared.base, max_seq_length, evaluators)
    warnings += lint_memory(footprint)
    for problem in warnings:
        log_problem(problem)
    objects = _build_train_objects(resolved, encoder, prepared)
    on_rank_zero(partial(require_disk_space, folder.path, objects, resolved.train.keep_checkpoints))
    state = restore_or_start(folder, checkpoint, objects, fingerprint, strict)
    files = write_run_recipe(folder, loaded.text, resolved, lock)
    main = main_metrics(evaluators, encoder.config.similarity, resolved.matryoshka_dims)
    rows = None if resolved.is_streamed else sum(map(len, tables))
    yield Started(folder.path, rows, count_dropped(prepared.training), state.step, schedule.total_steps, main)

    report_data = open_report_data(folder, resolved, prepared, evaluators, main)
    intervals, diagnostics = build_intervals(resolved.train, schedule.total_steps), Diagnostics(schedule.total_steps)
    session = TrainingSession(
        resolved, folder, signals, objects, evaluators, intervals, state, fingerprint, files, diagnostics, report_data
    )
    state.add_seconds("preparing", time.perf_counter() - start)
    if checkpoint is None:
        report_data.begin(tables, max_seq_length, warnings)
        yield session.measure_untrained()
    with collective_timeout(timedelta(minutes=resolved.train.timeout_minutes)):
        yield from _take_steps(session, schedule, tables)
    yield from session.end()
    yield finish_training(session, device, main, prepared.training, lock)


def _take_steps(session: TrainingSession, schedule: BatchSchedule, tables: list[TokenTable]) -> Iterator[TrainEvent]:
    first_step, settings = session.state.step, session.recipe.train
    if schedule.streams and first_step:
        log.info("reading the stream again up to step %d", first_step)
    with session.state.timed("preparing"):
        steps = schedule.steps(first_step)
    session.signals.defer_signals()
    if first_step > 0:
        yield from session.evaluate()  # a signal may have cut it short
    # Without dropout, equal texts of a batch have equal embeddings: one forward pass serves them all.
    distinct = not session.objects.encoder.has_dropout
    batches = (
        [(scheduled.objective, batch_of(scheduled, tables, distinct)) for scheduled in step]
        for step in ([] if session.is_over else steps)
    )
    trained = train_steps(
        session.objects,
        batches,
        session.intervals.learning_rate,
        first_step=first_step,
        split=build_splitter(settings.mini_batch_size, settings.mini_batch_tokens),
        max_grad_norm=settings.max_grad_norm,
        check_interrupt=session.signals.interrupt_long_step,
    )
    for info in session.checkpoint_on_interrupt(trained):
        yield from session.after(info, first_step)
        if session.is_over:
            log.warning("early stopping: %s no longer improves", settings.best)
            break


def _require_publishable(push: Push) -> None:
    try:
        preflight(push)
    except HubError as error:
        hint = "; to train without publishing, add `~push` to the command"
        raise HubError([replace(problem, message=problem.message + hint) for problem in error.problems]) from error


def _require_inputs_outside_run(recipe: Recipe, folder: Path) -> None:
    """Refuse an input inside the run folder: the folder would be archived before the input is read."""
    for key, path in keyed_paths(recipe):
        if path.resolve().is_relative_to(folder.resolve()):
            raise RecipeError(f"{key} is in {folder}, the run folder of this recipe: choose another `name`")


def _build_lock(given: Recipe, pinned: Recipe, prepared: Prepared, locked: Path | None) -> Lock:
    lock = on_rank_zero(partial(_describe, given, pinned, prepared))
    if locked:
        require_unchanged(locked, load_lock(locked), lock)
    return lock


def _describe(given: Recipe, pinned: Recipe, prepared: Prepared) -> Lock:
    rows, threads = (prepared.training, prepared.evaluation), torch.get_num_threads()
    with task("computing the digest of the rows"):
        return build_lock(given, pinned, *rows, threads, world_size())


def _build_encoder(loaded: LoadedRecipe[Recipe], pinned: Recipe, prepared: Prepared, device: str) -> Encoder:
    try:
        with rank_zero_first(), RecipeLocation(loaded.origins, "model", "base").shown():
            encoder = build_encoder(pinned.model, prepared.all_texts, device)
    except LayoutError as error:
        if loaded.recipe.model.attention == pinned.model.attention:
            raise
        raise LockError(
            f"the run began with `attention: {pinned.model.attention}`, which this machine can't compute: leave out "
            "--locked, or start a new run with --fresh"
        ) from error
    encoder.use_fast_dropout()
    log.info("layout %s: %s", encoder.layout.name, encoder.layout.reason)
    encoder.precision = choose_precision(pinned.train.precision, device)
    return encoder


def _with_runtime_choices(recipe: Recipe, encoder: Encoder, device: str) -> Recipe:
    of_config = ("token_layers", "layers", "prompts", "default_prompt", "similarity", "truncate_dim")
    update = {key: getattr(encoder.config, key) for key in of_config} | {
        "max_seq_length": encoder.tokenizer.max_seq_length,
        "pooling": list(encoder.config.pooling) or None,
        "attention": encoder.layout.name,
    }
    model = recipe.model.model_copy(update=update)
    chosen: dict[str, Any] = {"device": device, "precision": encoder.precision}
    objectives = list(recipe.objectives_by_path.values())
    if recipe.objectives is None:
        chosen["sampler"] = objectives[0].sampler
    train = recipe.train.model_copy(update=chosen)
    return recipe.model_copy(update={"model": model, "train": train, "objectives": recipe.objectives and objectives})


def _build_train_objects(recipe: Recipe, encoder: Encoder, prepared: Prepared) -> TrainObjects:
    """Weights are equal in all processes; from here on, each process draws its own dropout."""
    pairs = zip(recipe.objectives_by_path.values(), prepared.training, strict=True)
    losses = [
        LossTerms(objective.losses, encoder.embedding_dim, examples.num_classes, examples.label_names).to(
            encoder.device
        )
        for objective, examples in pairs
    ]
    modules = trainable_modules(encoder, losses)
    broadcast_tensors([tensor for module in modules for tensor in module.state_dict().values()])
    train = recipe.train
    objects = build_train_objects(encoder, losses, train.weight_decay, train.freeze, train.layer_decay, train.shard)
    seed_per_rank(recipe.seed)
    return objects

"""`stfit push`: files -> gate -> card -> one commit on the Hub."""

import logging
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stfit.encoder.export.quantization import RANGES
from stfit.errors import DataError, HubError, ModelError, Problem, RecipeError
from stfit.hub.client import client
from stfit.io.atomic import atomic_write
from stfit.io.json_files import load_json_object, seal_json
from stfit.publish import commit as hub
from stfit.publish.allowlist import CARD, MANIFEST, files_to_publish
from stfit.publish.card import CardData, card_body, card_metadata
from stfit.publish.destination import Push
from stfit.publish.readme import merge_readme, write_readme
from stfit.recipe.load import load_recipe
from stfit.recipe.recipe import Recipe
from stfit.runtime.run_folder import RunFolder, find_damage
from stfit.workflows.check.validate import load_objective
from stfit.workflows.report.card_data import describe_folder, describe_run

log = logging.getLogger("stfit")


@dataclass(frozen=True)
class PushOptions:
    repo: str | None = None
    private: bool = False
    branch: str = hub.MAIN
    create_pr: bool = False
    tag: str | None = None
    license: str | None = None
    """Instead of the recipe's, as `language`: mends a card without a training."""
    language: tuple[str, ...] = ()
    calibration: Path | None = None
    """Ranges of int8 embeddings to publish with the model."""
    dry_run: bool = False
    force: bool = False


def push(target: str, options: PushOptions) -> dict[str, Any]:
    """Returns what `stfit push --json` prints, with `error` if a gate fails."""
    model = _find_model(Path(target))
    run = _find_run(model)
    recipe = load_recipe(run.resolved).recipe if run else None
    settings = _merge_settings(options, recipe)
    if not model.is_dir():
        raise ModelError(f"{model}: there is no such run or model folder")
    files: dict[str, Path | bytes] = dict(files_to_publish(model))
    file_of_ranges = options.calibration or (model / RANGES if RANGES in files else None)
    ranges = file_of_ranges and _read_ranges(model, file_of_ranges)
    if ranges:
        files[RANGES] = ranges.encode()
    hub.reject_token(files)
    if options.dry_run and client.get_token() is None:
        log.warning("there is no token: `%s` is not looked at, nor a model that is published there", settings.repo)
        repo, head = settings.repo, hub.BranchState(is_known=False)
    else:
        repo = hub.resolve_repository(settings.repo, for_pull_request=options.create_pr)
        head = hub.read_branch(repo, options.branch)
    _require_possible(options, settings, repo, head)

    published_files = sorted({*files, CARD, MANIFEST})
    result: dict[str, Any] = {"repo": repo, "commit": head.commit, "files": published_files, "changed": False}
    if run and recipe and recipe.gate and not _holds_model(files, head):
        result |= _evaluate_gate(model, run, recipe, repo, head, options.force)
        if "error" in result:
            return result
    files[CARD] = _write_card(model, run, recipe, settings, repo, head)
    files[MANIFEST] = "".join(f"{path}\n" for path in sorted(files)).encode()
    change = hub.diff_files(files, head)
    result |= {"add": sorted(change.add), "delete": change.delete}
    if options.dry_run:
        return result
    if options.calibration and ranges:  # the next push publishes them again
        atomic_write(model / RANGES, ranges)
    published = _publish(files, options, settings, repo, head)
    if options.tag:
        hub.create_tag(repo, options.tag, published.commit)
    return result | {
        "commit": published.commit,
        "changed": published.commit != head.commit,
        "pull_request": published.pull_request,
        "tag": options.tag,
    }


def _find_model(target: Path) -> Path:
    run = RunFolder(target)
    if run.model.is_dir():
        return run.model
    if run.resolved.is_file():
        raise ModelError(f"{target} has not finished and has no model yet: resume it with `stfit train`")
    return target


def _find_run(model: Path) -> RunFolder | None:
    run = RunFolder(model.parent)
    if model.name != run.model.name or not run.resolved.is_file():
        return None
    result = run.read_result()
    if result is None:
        raise ModelError(f"{run.path} has not finished, so its gate can't be checked: resume it with `stfit train`")
    if damage := find_damage(run, result.get("weights", {})):
        raise ModelError(f"{damage}: `stfit train` writes it again from the newest checkpoint")
    return run


def _read_ranges(model: Path, path: Path) -> str:
    """Raises DataError for ranges that are not those of this model's embeddings."""
    from stfit.encoder.build import load_encoder  # loads torch
    from stfit.encoder.export.quantization import load_ranges

    encoder = load_encoder(model)
    if load_ranges(path, encoder.output_dim, {"model": encoder.fingerprint}) is None:
        raise DataError(f"{path} does not exist")
    return path.read_text(encoding="utf-8")


def _merge_settings(options: PushOptions, recipe: Recipe | None) -> Push:
    if options.create_pr and options.branch != hub.MAIN:
        raise RecipeError("--create-pr opens a pull request to main: remove --branch")
    given = {"repo": options.repo, "license": options.license, "language": list(options.language)}
    settings = recipe.push.model_dump() if recipe and recipe.push else {}
    settings |= {key: value for key, value in given.items() if value} | ({"private": True} if options.private else {})
    if "repo" not in settings:
        raise RecipeError(
            "no repository to publish to: use `--repo owner/name`, or set `push: {repo: owner/name}` in the recipe"
        )
    try:
        return Push(**settings)
    except ValidationError as error:
        raise RecipeError([Problem(f"--{e['loc'][0]}: {e['msg']}") for e in error.errors()]) from error


def _require_possible(options: PushOptions, settings: Push, repo: str, head: hub.BranchState) -> None:
    if settings.private and head.private is False:
        raise HubError(
            f"`{repo}` is public, but `private` is set: make it private on the Hub, or push to another repository"
        )
    if options.create_pr and head.commit is None:
        raise HubError(f"there is no model `{repo}` to open a pull request for")


def _holds_model(files: hub.Files, head: hub.BranchState) -> bool:
    """Whether the branch has this model already; its card may differ."""
    return all(
        path == CARD or (path in head.files and hub.has_same_content(file, head.files[path]))
        for path, file in files.items()
    )


def _evaluate_gate(
    model: Path, run: RunFolder, recipe: Recipe, repo: str, head: hub.BranchState, force: bool
) -> dict[str, Any]:
    """The result of the gate, without its `error` if forced. It is written to the run if the model may be published."""
    from stfit.workflows.evaluate.evaluate_model import evaluate_gate  # loads torch

    verdict = evaluate_gate(model, recipe, repo, head)
    if "error" not in verdict or force:
        atomic_write(run.verdict, seal_json(verdict))
        verdict.pop("error", None)
    return verdict


def _write_card(
    model: Path, run: RunFolder | None, recipe: Recipe | None, settings: Push, repo: str, head: hub.BranchState
) -> bytes:
    """The README to publish: text that people wrote on the Hub is kept."""
    published = hub.read_remote_file(repo, head, CARD)
    local = model / CARD
    facts = _describe(model, run, recipe, settings, repo)
    generated = write_readme(card_metadata(facts), card_body(facts)).encode()
    if published is None:
        return generated if run or not local.is_file() else local.read_bytes()
    try:
        merged = merge_readme(published.decode("utf-8"), card_metadata(facts), card_body(facts))
    except UnicodeDecodeError:
        merged = None
    if merged is None:
        log.warning("%s on the Hub was written by hand and is kept; the generated card is in %s", CARD, local)
    return published if merged is None else merged.encode()


def _describe(model: Path, run: RunFolder | None, recipe: Recipe | None, settings: Push, repo: str) -> CardData:
    saved = run.read_result() if run else None
    if run is None or recipe is None or saved is None:
        return replace(describe_folder(model, repo), push=settings)
    recipe = recipe.model_copy(update={"push": settings})
    rows = (
        [load_objective(objective, recipe.seed)[0] for objective in recipe.objectives_by_path.values()]
        if settings.samples
        else None
    )
    facts = describe_run(run, recipe, saved["result"], saved["main"], repo, rows)
    verdict = load_json_object(run.verdict) or {}
    if verdict.get("repo") != repo:
        return facts
    metrics = [replace(row, published=verdict["compared"].get(row.metric, {})) for row in facts.metrics]
    forced = [f"Published by force: {verdict['error']['message']}."] if "error" in verdict else []
    return replace(facts, metrics=metrics, notes=forced)


def _publish(
    files: hub.Files, options: PushOptions, settings: Push, repo: str, head: hub.BranchState
) -> hub.PublishedCommit:
    if head.commit is not None and not any(hub.diff_files(files, head)):
        return hub.PublishedCommit(head.commit)
    if options.create_pr and (published := hub.find_published(repo, files, options.branch, options.create_pr)):
        return published
    if head.private is None:
        hub.create_repository(repo, settings.private)
        head = hub.read_branch(repo)
    elif options.tag and hub.find_tag(repo, options.tag) is not None:
        raise HubError(f"`{repo}` already has a tag `{options.tag}`: choose another --tag")
    if options.branch != hub.MAIN and hub.read_branch(repo, options.branch).commit is None:
        hub.create_branch(repo, options.branch)
        head = hub.read_branch(repo, options.branch)
    message = f"Published by stfit {version('stfit')}"
    published = hub.create_commit(repo, files, head, message, options.branch, options.create_pr)
    hub.verify_commit(repo, files, published.commit)
    return published

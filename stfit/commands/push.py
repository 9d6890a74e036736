"""`stfit push`: files -> gate -> card -> one commit on the Hub."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stfit.errors import HubError, ModelError, RecipeError
from stfit.io.atomic import atomic_write
from stfit.publish import commit as hub
from stfit.publish.allowlist import CARD, MANIFEST, files_to_publish
from stfit.publish.card import CardData, card_body, card_metadata
from stfit.publish.destination import Push, validate_repo_name
from stfit.publish.readme import merge_readme, write_readme
from stfit.recipe.load import load_recipe
from stfit.recipe.recipe import Recipe
from stfit.runtime.run_folder import RunFolder
from stfit.workflows.card_data import describe_folder, describe_run
from stfit.workflows.validate import load_objective

log = logging.getLogger("stfit")

Files = dict[str, Path | bytes]
"""Path in the repository -> what is to stand there."""


@dataclass(frozen=True)
class PushOptions:
    """What the command line asks for."""

    repo: str | None = None
    private: bool = False
    branch: str = hub.MAIN
    create_pr: bool = False
    tag: str | None = None
    dry_run: bool = False
    force: bool = False


def push(target: str, wish: PushOptions) -> dict[str, Any]:
    """Publish a run's model, or a model folder. What `stfit push --json` prints; `error` where a gate is not passed.

    Raises RecipeError, ModelError or HubError.
    """
    model = _find_model(Path(target))
    run = _find_run(model)
    recipe = load_recipe(run.resolved).recipe if run else None
    settings = _settings_of(wish, recipe)
    files = _files_of(model)
    hub.reject_token(files)
    repo = hub.resolve_repository(settings.repo, for_pull_request=wish.create_pr)
    head = hub.read_branch(repo, wish.branch)
    _refuse_impossible(wish, settings, repo, head)

    result: dict[str, Any] = {
        "repo": repo,
        "commit": head.commit,
        "files": sorted({*files, CARD, MANIFEST}),
        "changed": False,
    }
    if run and recipe and recipe.gate and not _holds_model(files, head):
        from stfit.workflows.evaluate_model import evaluate_gate  # loads torch

        verdict = evaluate_gate(model, recipe, repo, head)
        result |= verdict
        if "error" in verdict and not wish.force:
            return result
        atomic_write(run.verdict, json.dumps(verdict, indent=2) + "\n")
        result.pop("error", None)
    files[CARD] = _write_card(model, run, recipe, settings, repo, head)
    files = hub.with_manifest(files)
    change = hub.diff_files(files, head)
    result |= {"add": sorted(change.add), "delete": change.delete}
    if wish.dry_run:
        return result
    published = _publish(files, wish, settings, repo, head)
    if wish.tag:
        hub.create_tag(repo, wish.tag, published.commit)
    changed = published.commit != head.commit
    return result | {
        "commit": published.commit,
        "changed": changed,
        "pull_request": published.pull_request,
        "tag": wish.tag,
    }


def _find_model(target: Path) -> Path:
    """The model folder of a run folder, or the folder itself. Raises ModelError for a run that has no model yet."""
    run = RunFolder(target)
    if run.model.is_dir():
        return run.model
    if run.resolved.is_file():
        raise ModelError(f"{target} has not finished, and there is no model yet: `stfit train` goes on with it")
    return target


def _find_run(model: Path) -> RunFolder | None:
    """The run that a model folder is of, if it is of one. Raises ModelError where that has not finished."""
    run = RunFolder(model.parent)
    if model.name != run.model.name or not run.resolved.is_file():
        return None
    if run.read_result() is None:
        raise ModelError(f"{run.path} has not finished, and its gate can't be asked: `stfit train` goes on with it")
    return run


def _settings_of(wish: PushOptions, recipe: Recipe | None) -> Push:
    """What the recipe says about publishing, with what the command line says instead."""
    if wish.create_pr and wish.branch != hub.MAIN:
        raise RecipeError("--create-pr asks to change main: leave out --branch")
    said = recipe.push if recipe else None
    try:
        repo = validate_repo_name(wish.repo) if wish.repo else said.repo if said else None
    except ValueError as error:
        raise RecipeError(f"--repo: {error}") from error
    if repo is None:
        raise RecipeError("say where to publish: `--repo owner/name`, or `push: {repo: owner/name}` in the recipe")
    private = wish.private or (said is not None and said.private)
    return (said or Push(repo=repo)).model_copy(update={"repo": repo, "private": private})


def _files_of(model: Path) -> Files:
    """The model's files."""
    if not model.is_dir():
        raise ModelError(f"{model}: there is no such run or model folder")
    return dict(files_to_publish(model))


def _refuse_impossible(wish: PushOptions, settings: Push, repo: str, head: hub.BranchState) -> None:
    """Raises HubError for what the repository, as it is, does not allow."""
    if settings.private and head.private is False:
        raise HubError(f"`{repo}` is public, but is to be private: change that on the Hub first, or push elsewhere")
    if wish.create_pr and head.commit is None:
        raise HubError(f"the Hub shows no model `{repo}` to open a pull request for")


def _holds_model(files: Files, head: hub.BranchState) -> bool:
    """Whether a head holds this model already; its card may differ."""
    return all(
        path == CARD or (path in head.files and hub.has_same_content(file, head.files[path]))
        for path, file in files.items()
    )


def _write_card(
    model: Path, run: RunFolder | None, recipe: Recipe | None, settings: Push, repo: str, head: hub.BranchState
) -> bytes:
    """The README to publish: what people wrote there stays."""
    there = hub.read_file(repo, head, CARD)
    own = model / CARD
    facts = _describe(model, run, recipe, settings, repo)
    fresh = write_readme(card_metadata(facts), card_body(facts)).encode()
    if there is None:
        return fresh if run or not own.is_file() else own.read_bytes()
    try:
        renewed = merge_readme(there.decode("utf-8"), card_metadata(facts), card_body(facts))
    except UnicodeDecodeError:
        renewed = None
    if renewed is None:
        log.warning("%s on the Hub was written by hand, and is kept: the card is in %s", CARD, own)
    return there if renewed is None else renewed.encode()


def _describe(model: Path, run: RunFolder | None, recipe: Recipe | None, settings: Push, repo: str) -> CardData:
    """The facts of the card, what the gate found included."""
    saved = run.read_result() if run else None
    if run is None or recipe is None or saved is None:
        return replace(describe_folder(model, repo), push=settings)
    recipe = recipe.model_copy(update={"push": settings})
    rows = (
        [load_objective(each, recipe.seed)[0] for each in recipe.objectives_by_path.values()]
        if settings.samples
        else None
    )
    facts = describe_run(run, recipe, saved["result"], saved["main"], repo, rows)
    verdict = run.read_verdict() or {}
    if verdict.get("repo") != repo:
        return facts
    compared = verdict["compared"]
    lines = [
        replace(
            line,
            published=both["other"],
            published_interval=None if both["low"] is None else (both["low"], both["high"]),
        )
        if (both := compared.get(line.metric))
        else line
        for line in facts.metrics
    ]
    forced = [f"Published by force: {verdict['error']['message']}."] if "error" in verdict else []
    return replace(facts, metrics=lines, notes=forced)


def _publish(files: Files, wish: PushOptions, settings: Push, repo: str, head: hub.BranchState) -> hub.PublishedCommit:
    """One commit that holds the files, or the one that holds them already."""
    if head.commit is not None and hub.diff_files(files, head).is_empty:
        return hub.PublishedCommit(head.commit)
    if wish.create_pr and (found := hub.find_published(repo, files, wish.branch, wish.create_pr)):
        return found
    if head.private is None:
        hub.create_repository(repo, settings.private)
        head = hub.read_branch(repo)
    elif wish.tag and hub.find_tag(repo, wish.tag) is not None:
        raise HubError(f"`{repo}` has a tag `{wish.tag}` already: choose another --tag")
    if wish.branch != hub.MAIN and hub.read_branch(repo, wish.branch).commit is None:
        hub.create_branch(repo, wish.branch)
        head = hub.read_branch(repo, wish.branch)
    message = f"Published by stfit {version('stfit')}"
    published = hub.create_commit(repo, files, head, message, wish.branch, wish.create_pr)
    hub.verify_commit(repo, files, published.commit)
    return published

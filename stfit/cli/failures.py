"""Exceptions -> the message, class name and exit code that the user sees."""

import errno
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from typing import Any, NamedTuple

import typer

from stfit.cli.console import log_line, print_json
from stfit.cli.streams import SIGPIPE_EXIT, ReaderLeftError
from stfit.errors import InterruptedRun, RecipeError, ResourceError, StfitError
from stfit.io.display import shorten

OUT_OF_MEMORY = re.compile("can't allocate memory|out of memory")
"""In torch's messages, on a CPU and on a GPU."""
HOPELESS = ("ENOSPC", "EDQUOT", "EROFS", "EFBIG", "EIO", "EMFILE", "ENFILE", "ENAMETOOLONG", "EACCES", "EPERM", "ELOOP")
"""Errors of the operating system that are no bug, wherever they are met: a full disk, a path that can't be used."""
USAGE_ERROR = typer.BadParameter.__base__ or typer.BadParameter
"""click.UsageError, or the copy of it that newer versions of typer bring."""

UNKNOWN_VERB = re.compile("No such command '(.+?)'")
OTHER_VERBS = {
    "compare": "report RUN RUN` or `stfit eval MODEL --compare OTHER",
    "convert": "export",
    "download": "fetch",
    "embed": "encode",
    "evaluate": "eval",
    "finetune": "train",
    "fit": "train",
    "lint": "check",
    "list": "runs",
    "new": "init",
    "predict": "encode",
    "publish": "push",
    "search": "similar",
    "test": "eval",
    "upload": "push",
    "validate": "check",
}
"""What other tools call the verbs."""


class Failure(NamedTuple):
    """Why a command failed; `message` is None if a worker process has printed it already."""

    name: str
    message: str | None
    exit_code: int


def failure_from(error: BaseException) -> Failure:
    if isinstance(error, typer.Abort):
        return Failure(InterruptedRun.__name__, "stopped", 130)
    if isinstance(error, USAGE_ERROR):
        message = error.format_message()  # type: ignore[attr-defined]
        hint = _override_hint(getattr(error, "option_name", None) or "") or _verb_hint(message)
        return Failure("usage", message + hint, 2)
    if isinstance(error, StfitError | InterruptedRun):
        return Failure(type(error).__name__, str(error), error.exit_code)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error))):
        message = "out of memory: lower train.mini_batch_size or train.batch_size"
        return Failure(ResourceError.__name__, message, ResourceError.exit_code)
    if isinstance(error, ReaderLeftError):
        return Failure(ReaderLeftError.__name__, None, SIGPIPE_EXIT)
    if isinstance(error, OSError) and errno.errorcode.get(error.errno or 0) in HOPELESS:
        where = f"{shorten(str(error.filename), 80)}: " if error.filename else ""
        return Failure(ResourceError.__name__, f"{where}{error.strerror}", ResourceError.exit_code)
    from stfit.plugins import package_at_fault  # imports pydantic, which `stfit --help` does not need

    if unmet := _unmet_requirements():
        message = f"this environment does not fit stfit: {'; '.join(unmet)}"
        return Failure(ResourceError.__name__, message, ResourceError.exit_code)
    message = f"{type(error).__name__}: {error}\n"
    if package := package_at_fault(error):
        message += f"This is a bug in the package `{package}`; run again with --debug for a traceback."
        return Failure(RecipeError.__name__, message, RecipeError.exit_code)
    return Failure("bug", f"{message}This is a bug in stfit; run again with --debug for a traceback.", 1)


def _verb_hint(message: str) -> str:
    found = UNKNOWN_VERB.search(message)
    return f" (use `stfit {OTHER_VERBS[found[1]]}`)" if found and found[1] in OTHER_VERBS else ""


def _override_hint(option: str) -> str:
    """For `--epochs`, and for the option of a training script: how to set the key of the recipe."""
    if not option.startswith("--"):
        return ""
    from stfit.recipe.recipe import Recipe  # imports pydantic, which other usage errors do not need
    from stfit.recipe.script_words import ANSWERS, KEYS
    from stfit.recipe.type_tree import key_owners

    word = option.removeprefix("--").replace("-", "_")
    if word in ANSWERS:
        return f" ({ANSWERS[word]})"
    key = KEYS.get(word, word)
    paths = {path for path, _ in key_owners(Recipe).get(key, [])}
    path = next((path for path in ("train", "model", "data", "push", "") if path in paths), None)
    if path is None:
        return ""
    return f" (a value of the recipe is set without dashes: {f'{path}.' if path else ''}{key}=...)"


def _unmet_requirements() -> list[str]:
    """What pyproject.toml asks for and is missing, too old or too new."""
    from packaging.requirements import Requirement

    unmet = []
    for requirement in map(Requirement, _metadata_of("stfit", metadata.requires) or []):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        installed = _metadata_of(requirement.name, metadata.version)
        if installed is None or not requirement.specifier.contains(installed, prereleases=True):
            unmet.append(f"{requirement} is needed, and {requirement.name} is {installed or 'missing'}")
    return unmet


def _metadata_of(package: str, read: Callable[[str], Any]) -> Any:
    with suppress(metadata.PackageNotFoundError):
        return read(package)
    return None


def print_failure(failure: Failure, as_json: bool) -> None:
    if failure.message is None:
        return
    log_line(f"stfit: {failure.message}")
    if as_json:
        error = {"class": failure.name, "message": failure.message, "exit_code": failure.exit_code}
        with suppress(ReaderLeftError, ResourceError):  # stdout may be what failed
            print_json({"error": error})
            sys.stdout.flush()

"""What a recipe says about publishing."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from stfit.spec import Spec

LONGEST_ID = 96


def repo_name(name: str) -> str:
    """A name that the Hub takes, with or without an owner (its own rules: huggingface_hub.utils.validate_repo_id)."""
    part = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
    taken = re.fullmatch(rf"(?:{part}/)?{part}", name) and len(name) <= LONGEST_ID
    if not taken or "--" in name or ".." in name or name.endswith(".git"):
        raise ValueError(
            f"`{name}` can't be the name of a repo: write `name` or `owner/name`, at most {LONGEST_ID} of letters, "
            "digits, `-`, `_` and `.`; no `--` or `..`, no `-` or `.` at an end of either, and no `.git` at the end"
        )
    return name


RepoName = Annotated[str, AfterValidator(repo_name)]


class Push(Spec):
    """Where `stfit push` publishes the model, and what its card says that no training can know."""

    repo: RepoName
    """Repository on the Hub: `owner/name`; without an owner, of the account whose token is used."""
    private: bool = False
    """Create the repository as a private one. A repository that is there already stays as it is."""
    license: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9.-]*$")
    """The card's license, an identifier of the Hub such as `apache-2.0`; null = the card names none."""
    language: list[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]] = []
    """The card's languages: ISO codes such as `[en, de]`."""
    samples: int = Field(0, ge=0, le=20)
    """Training rows that the card shows, the first ones. They are published word by word."""

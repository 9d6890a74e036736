"""The `push` section of a recipe."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from stfit.spec import Spec, TextLike

MAX_ID_LENGTH = 96


def known_licenses() -> list[str]:
    """Those at https://huggingface.co/docs/hub/repositories-licenses. The Hub may know more by now: it decides."""
    return Path(__file__).with_name("licenses.txt").read_text(encoding="utf-8").split()


def validate_repo_name(name: str) -> str:
    """The rules of huggingface_hub.utils.validate_repo_id, with or without an owner."""
    part = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
    valid = re.fullmatch(rf"(?:{part}/)?{part}", name) and len(name) <= MAX_ID_LENGTH
    if not valid or "--" in name or ".." in name or name.endswith(".git"):
        raise ValueError(
            f"`{name}` is not a valid repository name: use `name` or `owner/name` with at most {MAX_ID_LENGTH} "
            "letters, digits, `-`, `_` and `.`. Parts start and end with a letter, digit or `_`; `--`, `..` and "
            "a final `.git` are not allowed"
        )
    return name


RepoName = Annotated[str, AfterValidator(validate_repo_name)]

License = Annotated[
    str, TextLike(r"^[a-z0-9][a-z0-9.+-]*$", "an identifier of the Hub in small letters, such as `apache-2.0`")
]
Language = Annotated[
    str, TextLike(r"^([a-z]{2,3}|multilingual|code)$", "an ISO 639 code such as `en`, or `multilingual` or `code`")
]


class Push(Spec):
    """Where `stfit push` publishes the model, and information for the model card that a run does not record."""

    repo: RepoName
    """Repository on the Hub: `owner/name`. Default owner: the account that the token belongs to."""
    private: bool = False
    """Create the repository as private. The visibility of an existing repository is not changed."""
    license: License | None = None
    """License of the model, as a Hub identifier such as `apache-2.0`; null = not stated."""
    language: list[Language] = []
    """Languages of the model, as ISO 639 codes such as `[en, de]`, or `multilingual` or `code`."""
    samples: int = Field(0, ge=0, le=20)
    """Number of training rows, from the first, to show on the model card. Their texts are published verbatim."""

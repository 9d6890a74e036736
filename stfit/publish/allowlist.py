"""Which files of a model folder may be published: a list of what is allowed, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from stfit.errors import ModelError

CARD = "README.md"
CURVE = "loss_curve.png"
MANIFEST = ".stfit-files"
"""In a repository only: what the newest push put there, a path a line. The next push deletes what it no longer has."""

ALLOWED = re.compile(
    r"""
    README\.md | loss_curve\.png | stfit\.lock
    | modules\.json | config_sentence_transformers\.json | sentence_\w+_config\.json
    | (?:[0-9]+_[A-Za-z]+/)? (?:config\.json | model\.safetensors)
    | model-[0-9]{5}-of-[0-9]{5}\.safetensors | model\.safetensors\.index\.json
    | tokenizer\.json | tokenizer_config\.json | special_tokens_map\.json | added_tokens\.json
    | vocab\.(?:txt|json) | merges\.txt | [a-z]+(?:\.bpe)?\.model | chat_template\.(?:jinja|json)
    """,
    re.VERBOSE,
)
"""Paths that a model of stfit, or of sentence-transformers in safetensors, consists of."""


def is_allowed(path: str) -> bool:
    """Whether a path inside a model folder, or a repository, is one that stfit writes."""
    return ALLOWED.fullmatch(path) is not None


def files_to_publish(folder: Path) -> dict[str, Path]:
    """Path in the repository -> file, of a model folder.

    Raises ModelError for whatever else lies there: links could lead anywhere, and a stray file may be a secret.
    """
    found = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    links = [path for path in found if path.is_symlink()]
    named = {path.relative_to(folder).as_posix(): path for path in found}
    strays = [name for name, path in named.items() if path not in links and not (path.is_file() and is_allowed(name))]
    problems = []
    if links:
        problems.append(f"{folder} holds links, which are not followed: {listed([str(path) for path in links])}")
    if strays:
        problems.append(
            f"{folder} holds files that are no part of a model, so nothing is published: {listed(strays)}. "
            "Move them out of it"
        )
    if problems:
        raise ModelError("\n".join(problems))
    if "modules.json" not in named:
        raise ModelError(f"{folder}: is no model folder (it has no modules.json)")
    return named


def listed(names: list[str]) -> str:
    """The first few names."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

"""A README that stfit and people write together: stfit owns a marked section, and keys of the metadata."""

from __future__ import annotations

from typing import Any

import yaml

BEGIN = "<!-- stfit: this section is generated at every push; what stands outside of it is kept -->"
END = "<!-- stfit: end of the generated section -->"


def write_readme(metadata: dict[str, Any], body: str) -> str:
    """A README of the generated section only."""
    return _joined(metadata, f"{BEGIN}\n\n{body.strip()}\n\n{END}\n")


def merge_readme(old: str, metadata: dict[str, Any], body: str) -> str | None:
    """The README `old` with its section and metadata renewed; None where people wrote it without leaving a section.

    Tags are added to those that are there; other keys that people gave and stfit does not, are kept.
    """
    front, text = parted(old)
    if front is None:
        return None
    if not text.strip():  # the Hub's own form makes a README of metadata only
        return write_readme(_merged(front, metadata), body)
    lines = text.splitlines(keepends=True)
    marks = [line.strip("\r\n") for line in lines]
    if BEGIN not in marks or END not in marks:
        return None
    first, last = marks.index(BEGIN), len(marks) - 1 - marks[::-1].index(END)
    if last < first:
        return None
    section = f"{BEGIN}\n\n{body.strip()}\n\n{END}\n"
    return _joined(_merged(front, metadata), "".join(lines[:first]) + section + "".join(lines[last + 1 :]))


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a README, renewed."""
    given = old.get("tags") or []
    tags = [*(given if isinstance(given, list) else [given]), *new.get("tags", [])]
    kept_tags = [tag for tag in tags if tag in new.get("tags", []) or not str(tag).startswith("loss:")]
    return {**old, **new, "tags": list(dict.fromkeys(kept_tags))}


def parted(readme: str) -> tuple[dict[str, Any] | None, str]:
    """Metadata and text. The metadata is None where it can't be read."""
    lines = readme.lstrip("\ufeff").splitlines(keepends=True)
    ends = [number for number, line in enumerate(lines) if line.rstrip() == "---"]
    if len(ends) < 2 or ends[0] != 0:
        return {}, readme
    try:
        front = yaml.safe_load("".join(lines[1 : ends[1]]))
    except yaml.YAMLError:
        return None, readme
    if front is None:
        front = {}
    return (front if isinstance(front, dict) else None), "".join(lines[ends[1] + 1 :]).lstrip("\n")


def _joined(metadata: dict[str, Any], text: str) -> str:
    """Metadata and text as one file."""
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=10**6)
    return f"---\n{front}---\n\n{text}"

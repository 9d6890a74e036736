"""A README that stfit shares with the owner of a repository.

stfit owns a marked section and some keys of the metadata; the rest of the text and of the metadata is kept.
"""

from typing import Any

import yaml

BEGIN = "<!-- stfit: this section is generated at every push; what stands outside of it is kept -->"
END = "<!-- stfit: end of the generated section -->"


def write_readme(metadata: dict[str, Any], body: str) -> str:
    from huggingface_hub import CardData

    return f"---\n{CardData(**metadata).to_yaml()}\n---\n\n{_section(body)}"


def merge_readme(old: str, metadata: dict[str, Any], body: str) -> str | None:
    """None if `old` was written by hand: it has text but no marked section, or unreadable metadata."""
    from huggingface_hub import CardData, RepoCard

    old = old.removeprefix("\ufeff")
    if not old.startswith("---"):
        old = f"---\n\n---\n{old}"  # without metadata, RepoCard logs a warning
    try:
        card = RepoCard(old)
    except (yaml.YAMLError, ValueError, TypeError):  # TypeError: keys that are not text
        return None
    existing: dict[str, Any] = card.data.to_dict()  # type: ignore[no-untyped-call]
    merged = _merge_metadata(existing, metadata)
    if not card.text.strip():  # the web form of the Hub creates a README of metadata only
        return write_readme(merged, body)
    lines = card.text.splitlines(keepends=True)
    stripped = [line.strip("\r\n") for line in lines]
    if BEGIN not in stripped or END not in stripped:
        return None
    first, last = stripped.index(BEGIN), len(stripped) - 1 - stripped[::-1].index(END)
    if last < first:
        return None
    card.data = CardData(**merged)
    card.text = "".join(lines[:first]) + _section(body) + "".join(lines[last + 1 :])
    return card.content


def _section(body: str) -> str:
    return f"{BEGIN}\n\n{body.strip()}\n\n{END}\n"


def _merge_metadata(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Update the keys that stfit writes. Tags are added, and replace losses and sizes among the existing ones."""
    old_tags = old.get("tags") or []
    tags = [*(old_tags if isinstance(old_tags, list) else [old_tags]), *new.get("tags", [])]
    kept = [tag for tag in tags if tag in new.get("tags", []) or not str(tag).startswith(("loss:", "dataset_size:"))]
    return {**old, **new, "tags": list(dict.fromkeys(kept))}

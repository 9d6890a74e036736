"""Which prompt stands before which text."""

from __future__ import annotations

from collections.abc import Collection, Mapping

ROLE_PROMPTS = {
    "anchor": "query",
    "query": "query",
    "positive": "document",
    "negative": "document",
    "corpus": "document",
}
"""Role -> the prompt its texts take where the model has one of that name; columns of symmetric formats take none."""


def prompt_name(role: str, chosen: Mapping[str, str] | None, known: Collection[str]) -> str | None:
    """The prompt of a role: as `chosen` says, else its usual one where it is known, else None (the default one).

    The roles negative_1, negative_2, ... take what is chosen for `negative`.
    """
    role = role.partition("_")[0]
    usual = ROLE_PROMPTS.get(role)
    return (chosen or {}).get(role) or (usual if usual in known else None)

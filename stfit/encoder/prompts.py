"""Which prompt goes before which text, as in sentence-transformers 6."""

from collections.abc import Mapping

BUILT_IN = {"query": "", "document": ""}
"""Prompts that every model has: empty unless its folder or the recipe sets them."""

ROLE_PROMPTS = {
    "anchor": "query",
    "query": "query",
    "positive": "document",
    "negative": "document",
    "corpus": "document",
}
"""Role -> its prompt; the roles of symmetric formats have none."""

DOCUMENT_ALIASES = ("passage", "corpus")
"""What some models call the prompt of documents. sentence-transformers looks these up after `document`, which every
model has, so it never uses them for a document unless they are named."""


def with_built_in(prompts: Mapping[str, str]) -> dict[str, str]:
    return BUILT_IN | dict(prompts)


def prompt_name(role: str, chosen: Mapping[str, str] | None, default: str | None) -> str | None:
    """The prompt of a role: the one in `chosen`, else the role's own, else none.

    Only a role without one of its own has the model's default prompt, which is mostly that of queries.
    """
    role = role.partition("_")[0]  # negative_1, negative_2, ... use that of `negative`
    return (chosen or {}).get(role) or ROLE_PROMPTS.get(role, default)

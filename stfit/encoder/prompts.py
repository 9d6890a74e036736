"""Which prompt goes before which text."""

from collections.abc import Collection, Mapping

ROLE_PROMPTS = {
    "anchor": "query",
    "query": "query",
    "positive": "document",
    "negative": "document",
    "corpus": "document",
}
"""Role -> its default prompt, if the model has one of that name; columns of symmetric formats have none."""


def prompt_name(role: str, chosen: Mapping[str, str] | None, known: Collection[str]) -> str | None:
    """The prompt of a role: the one in `chosen`, else its default if known, else None for the default one."""
    role = role.partition("_")[0]  # negative_1, negative_2, ... use that of `negative`
    default = ROLE_PROMPTS.get(role)
    return (chosen or {}).get(role) or (default if default in known else None)

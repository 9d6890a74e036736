"""The description of a built package is README.md, whose links and picture must work outside of the repository.

hatchling runs this when it builds. The address of the repository is `project.urls.Repository` in pyproject.toml. While
there is none, the links into the repository become plain text, and its picture is left out.
"""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)\s]+)\)")


class Description(MetadataHookInterface):
    def update(self, metadata: dict) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        address = metadata.get("urls", {}).get("Repository", "")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text, address)}


def absolute(text: str, address: str) -> str:
    """`text` with links that work anywhere."""

    def replace(found: re.Match) -> str:
        is_picture, words, target = found.groups()
        if not address:
            return "" if is_picture else words
        return f"{is_picture}[{words}]({address}/{'raw' if is_picture else 'blob'}/main/{target})"

    return LINK.sub(replace, text)

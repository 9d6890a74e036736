"""The files of a model folder that may be published. All others are refused."""

import re
from pathlib import Path

from stfit.encoder.folder.files import name_some
from stfit.errors import ModelError

CARD = "README.md"
CURVE = "loss_curve.png"
MANIFEST = ".stfit-files"
"""A file of the repository that lists the paths of the latest push, so that the next push can delete stale ones."""

ALLOWED = re.compile(
    r"""
    README\.md | loss_curve\.png | stfit\.lock | softmax_head\.safetensors | int8_ranges\.json
    | modules\.json | config_sentence_transformers\.json | sentence_\w+_config\.json
    | (?:[0-9]+_[A-Za-z]+/)? (?:config\.json | model\.safetensors)
    | model-[0-9]{5}-of-[0-9]{5}\.safetensors | model\.safetensors\.index\.json
    | tokenizer\.json | tokenizer_config\.json | special_tokens_map\.json | added_tokens\.json
    | vocab\.(?:txt|json) | merges\.txt | [a-z]+(?:\.bpe)?\.model | chat_template\.(?:jinja|json)
    """,
    re.VERBOSE,
)
"""Paths of a model that stfit writes, or that sentence-transformers writes with safetensors."""


def is_allowed(path: str) -> bool:
    return ALLOWED.fullmatch(path) is not None


def files_to_publish(folder: Path) -> dict[str, Path]:
    """Refuses all other files: a link could lead anywhere, another file may be a secret."""
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    links = [path for path in paths if path.is_symlink()]
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    refused = [name for name, path in files.items() if path not in links and not (path.is_file() and is_allowed(name))]
    problems = []
    if links:
        problems.append(f"{folder} contains links, which are not followed: {name_some(map(str, links))}")
    if refused:
        problems.append(
            f"{folder} contains files that are not part of a model, so nothing was published: {name_some(refused)}. "
            "Move them to another folder"
        )
    if problems:
        raise ModelError("\n".join(problems))
    if "modules.json" not in files:
        raise ModelError(f"{folder} is not a model folder: modules.json is missing")
    return files

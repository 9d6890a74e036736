"""The fast tokenizer of a transformer."""

from __future__ import annotations

import json
import logging
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Encoding
from tokenizers import Tokenizer as HFTokenizer

from stfit.encoder.folder.files import read_json
from stfit.encoder.tokenizer import FileTokenizer, load_tokenizer_file
from stfit.errors import ModelError
from stfit.io.json_files import write_json
from stfit.lazy import lazy

if TYPE_CHECKING:
    import transformers
    from transformers import PreTrainedTokenizerBase
else:
    transformers = lazy("transformers")

log = logging.getLogger("stfit")

NO_LIMIT = 1_000_000
DEFAULT_LIMIT = 512
CONFIG = "tokenizer_config.json"
VOCABULARIES = ("vocab.txt", "vocab.json")
PORTABLE_KEYS = (
    "clean_up_tokenization_spaces",
    "model_max_length",
    "model_input_names",
    "padding_side",
    "truncation_side",
)
"""Keys of tokenizer_config.json, besides the names of special tokens, that transformers 4 and 5 read alike."""
PROBES = ("Don't stop   twice, naïve Café: ÀÉÎ 東京 123", "two  spaces")


class TransformerTokenizer(FileTokenizer):
    """A tokenizer of transformers, which it needs for saving alone."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_seq_length: int) -> None:
        self.hf_tokenizer = tokenizer
        tokenizer.model_max_length = max_seq_length
        # A copy, since truncation set on the tokenizer's own backend would last longer than this object.
        backend = HFTokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        backend.enable_truncation(max_seq_length, direction=tokenizer.truncation_side)
        backend.encode_special_tokens = tokenizer.split_special_tokens  # tokenizer.json does not hold it
        super().__init__(backend, special_tokens=True)

    @property
    def fingerprint(self) -> str:
        return self._backend.to_str()

    @property
    def ends_texts(self) -> bool:
        """Whether a special token ends every text."""
        return self._ends_specially(self._backend.encode("a").ids)

    def prompt_length(self, prompt: str) -> int:
        """Number of tokens that `prompt` puts before a text, the leading special token included."""
        if not prompt:
            return 0
        ids = self._backend.encode(prompt).ids
        return len(ids) - self._ends_specially(ids)

    def _ends_specially(self, ids: list[int]) -> bool:
        return bool(ids) and ids[-1] in (self.hf_tokenizer.sep_token_id, self.hf_tokenizer.eos_token_id)

    def save(self, folder: Path) -> None:
        """Write the two files that transformers 4 and 5 and the `tokenizers` library read alike.

        Other classes than PreTrainedTokenizerFast rebuild parts of tokenizer.json from their own defaults, and the
        class names of transformers 5 are unknown to transformers 4. The truncation is for runtimes that read
        tokenizer.json alone. A decoder without a padding token pads with its end token, which the mask hides.
        """
        super().save(folder)
        tokenizer = self.hf_tokenizer
        special: dict[str, Any] = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if token}
        if "pad_token" not in special:
            special["pad_token"] = special.get("eos_token") or special.get("unk_token") or self._backend.id_to_token(0)
        portable = {key: getattr(tokenizer, key, None) for key in PORTABLE_KEYS}
        portable["padding_side"] = type(tokenizer).padding_side  # left is right for XLNet alone
        portable["split_special_tokens"] = tokenizer.split_special_tokens or None
        config = special | portable | {"tokenizer_class": "PreTrainedTokenizerFast"}
        write_json(folder / CONFIG, {key: value for key, value in config.items() if value is not None})


def has_tokenizer_files(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.json", *VOCABULARIES)) or any(folder.glob("*.model"))


def untruncated_by_class(folder: Path) -> FileTokenizer:
    """The tokenizer of a folder without tokenizer.json, which a class of transformers makes from other files."""
    backend = load_tokenizer(folder).backend_tokenizer
    backend.no_truncation()
    return FileTokenizer(backend, special_tokens=True)


def load_tokenizer(folder: Path, may_end_texts: bool = True) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint, which reads its tokenizer.json as it is.

    `may_end_texts`: whether `add_eos_token` of its config is followed.

    The classes of transformers 5 rebuild it from their own defaults: with the wrong class, or with none in the folder,
    most words become unknown.
    """
    path = folder / "tokenizer.json"
    if not has_tokenizer_files(folder):
        raise ModelError(f"{folder}: has no tokenizer (tokenizer.json, {', '.join(VOCABULARIES)} or *.model)")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises anything for a class that does not fit the file
        if not path.is_file():
            raise ModelError(
                f"{folder}: its tokenizer can't be loaded: {_sentencepiece_hint(folder) or error}"
            ) from error
        load_tokenizer_file(path)
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    if not tokenizer.is_fast:
        raise ModelError(f"{folder}: has no fast tokenizer (tokenizer.json), which stfit needs")
    if not path.is_file():
        _require_vocabulary(tokenizer, folder)
        return tokenizer
    as_written = _read_as_written(tokenizer, path)
    if may_end_texts and read_json(folder / CONFIG, {}).get("add_eos_token"):
        append_eos(as_written)
    else:
        _compare(as_written, tokenizer, folder)
    return as_written


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, folder: Path) -> Encoding:
    try:
        return tokenizer.backend_tokenizer.encode(text)
    except Exception as error:  # `tokenizers` raises a bare Exception
        raise ModelError(f"{folder}: its tokenizer can't be used: {error}") from error


def _require_vocabulary(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Raise ModelError if a class of transformers has made a tokenizer from the files of another one."""
    ids = _encode(tokenizer, string.ascii_letters + " " + " ".join(string.ascii_lowercase), folder).ids
    if not set(ids) - {tokenizer.unk_token_id, *tokenizer.all_special_ids}:
        raise ModelError(
            f"{folder}: its tokenizer ({type(tokenizer).__name__}) knows no letter, so it does not fit the files of "
            "the folder: correct `tokenizer_class` in tokenizer_config.json, or add the tokenizer.json of the base"
        )


def reject_token_types(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Raise ModelError if tokens of a single text have other types than 0, which the model would not get."""
    if "token_type_ids" in tokenizer.model_input_names and any(_encode(tokenizer, "a", folder).type_ids):
        raise ModelError(
            f"{folder}: its tokenizer gives the tokens of a text several types, which stfit does not support"
        )


def _compare(as_written: PreTrainedTokenizerBase, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Warn if transformers' own class gives a text other ids than the file."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    for text in PROBES:
        ids, other_ids = (list(_encode(one, text, folder).ids) for one in (as_written, tokenizer))
        if ids != other_ids:
            log.warning(
                "%s: transformers' %s reads its tokenizer.json in another way: %r becomes %s, not %s. stfit reads the "
                "file as it is, and so does every version what stfit saves",
                folder,
                type(tokenizer).__name__,
                text,
                other_ids,
                ids,
            )
            return


def _sentencepiece_hint(folder: Path) -> str:
    if not (files := sorted(folder.glob("*.model"))):
        return ""
    return (
        f"it has {files[0].name} and no tokenizer.json. Convert it once with AutoTokenizer.from_pretrained(...)."
        "save_pretrained(...) in an environment with `pip install sentencepiece protobuf`"
    )


def _read_as_written(tokenizer: PreTrainedTokenizerBase, path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of the file, with the settings of `tokenizer`, and with the tokens that other files add to it."""
    backend = load_tokenizer_file(path)
    backend.no_truncation()
    backend.no_padding()
    known, added = backend.get_vocab(), _tokens_beside(path.parent)
    for _, token in sorted(tokenizer.added_tokens_decoder.items()):
        if token.content not in known and token.content in added:
            backend.add_tokens([token])
    special = {name: token for name, token in tokenizer.special_tokens_map.items() if str(token) in {*known, *added}}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        padding_side=type(tokenizer).padding_side,
        truncation_side=tokenizer.truncation_side,
        split_special_tokens=tokenizer.split_special_tokens,
        **special,
    )


def _tokens_beside(folder: Path) -> set[str]:
    """The tokens that the files beside tokenizer.json name; a class has others by default, which the model lacks."""
    named = list(read_json(folder / "added_tokens.json", {}))
    for name in (CONFIG, "special_tokens_map.json"):
        for key, value in read_json(folder / name, {}).items():
            if key.endswith("_token"):
                named.append(value)
            elif key in ("added_tokens_decoder", "extra_special_tokens", "additional_special_tokens") and value:
                named += value.values() if isinstance(value, dict) else value
    return {str(token.get("content") if isinstance(token, dict) else token) for token in named}


def append_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make every sequence end with the end-of-sequence token, also after saving. Raises ModelError if it has none."""
    backend = tokenizer.backend_tokenizer
    token, token_id = tokenizer.eos_token, tokenizer.eos_token_id
    if token is None:
        raise ModelError("append_eos: this tokenizer has no end-of-sequence token; set `model.append_eos: false`")
    if backend.encode("a").ids[-1:] == [token_id]:
        return
    state = json.loads(backend.to_str())
    template = _template(state)
    for name in ("single", "pair"):
        template[name].append({"SpecialToken": {"id": token, "type_id": int(name == "pair")}})
    template["special_tokens"][token] = {"id": token, "ids": [token_id], "tokens": [token]}
    backend.post_processor = HFTokenizer.from_str(json.dumps(state)).post_processor


def _template(state: dict[str, Any]) -> dict[str, Any]:
    """The template of special tokens in the JSON of a tokenizer; an empty one is added if there is none.

    A second template after one that puts a beginning token would put its end token after that as well.
    """
    processor = state["post_processor"] or {"type": "Sequence", "processors": []}
    steps = processor["processors"] if processor["type"] == "Sequence" else [processor]
    templates = [step for step in steps if step["type"] == "TemplateProcessing"]
    if not templates:
        sequence = [{"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB")]
        templates = [{"type": "TemplateProcessing", "single": sequence[:1], "pair": sequence, "special_tokens": {}}]
        steps = [*steps, templates[0]]
    state["post_processor"] = {"type": "Sequence", "processors": steps}
    return templates[0]


def own_limit(tokenizer_limit: int | None, positions: int | None) -> int:
    """The base's own limit in tokens: the smaller of its tokenizer's and its position table's, else 512."""
    limits = [limit for limit in (tokenizer_limit, positions) if limit and 0 < limit < NO_LIMIT]
    return min(limits, default=DEFAULT_LIMIT)

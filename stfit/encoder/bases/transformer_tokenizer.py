"""The fast tokenizer of a transformer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer as HFTokenizer
from tokenizers import processors

from stfit.encoder.tokenizer import FileTokenizer
from stfit.errors import ModelError
from stfit.lazy import lazy

if TYPE_CHECKING:
    import transformers
    from transformers import PreTrainedTokenizerBase
else:
    transformers = lazy("transformers")

NO_LIMIT = 1_000_000
DEFAULT_LIMIT = 512


class TransformerTokenizer(FileTokenizer):
    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_seq_length: int) -> None:
        self.hf_tokenizer = tokenizer
        tokenizer.model_max_length = max_seq_length
        # A copy, since truncation set on the tokenizer's own backend would be saved with it.
        backend = HFTokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        backend.enable_truncation(max_seq_length)
        super().__init__(backend, special_tokens=True)

    @property
    def fingerprint(self) -> str:
        return self._backend.to_str()

    def prompt_length(self, prompt: str) -> int:
        """Number of tokens that `prompt` puts before a text, the leading special token included."""
        if not prompt:
            return 0
        ids = self._backend.encode(prompt).ids
        ends_specially = ids and ids[-1] in (self.hf_tokenizer.sep_token_id, self.hf_tokenizer.eos_token_id)
        return len(ids) - bool(ends_specially)

    def save(self, folder: Path) -> None:
        self.hf_tokenizer.save_pretrained(folder)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise ModelError(f"{folder}: its tokenizer can't be loaded: {error}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"{folder}: has no fast tokenizer (tokenizer.json), which stfit needs")
    return tokenizer


def append_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make every sequence end with the end-of-sequence token, also after saving. Raises ModelError if it has none."""
    backend = tokenizer.backend_tokenizer
    token, token_id = tokenizer.eos_token, tokenizer.eos_token_id
    if token is None:
        raise ModelError("append_eos: this tokenizer has no end-of-sequence token; set `model.append_eos: false`")
    if backend.encode("a").ids[-1:] == [token_id]:
        return
    ending = processors.TemplateProcessing(
        single=f"$A {token}", pair=f"$A {token} $B:1 {token}:1", special_tokens=[(token, token_id)]
    )
    backend.post_processor = (
        ending if backend.post_processor is None else processors.Sequence([backend.post_processor, ending])
    )


def own_limit(tokenizer_limit: int | None, positions: int | None) -> int:
    """The base's own limit in tokens: the smaller of its tokenizer's and its position table's, else 512."""
    limits = [limit for limit in (tokenizer_limit, positions) if limit and 0 < limit < NO_LIMIT]
    return min(limits, default=DEFAULT_LIMIT)

"""A cross-encoder (reranker): it reads a query and a document together and gives one score, the higher the better.

Nogueira and Cho, 2019, https://arxiv.org/abs/1901.04085. stfit learns from cross-encoders and trains none.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from stfit.encoder.folder.inspect import require_cross_encoder
from stfit.encoder.folder.resolve import ALL_FILES, locate
from stfit.encoder.quiet import quiet_transformers
from stfit.errors import ModelError
from stfit.io.hashing import hash_file

LONGEST = 512
"""Tokens of a pair, if neither the tokenizer nor the model says less."""
BATCH = 32
"""Pairs at once, of about the same length."""


@dataclass(frozen=True)
class CrossEncoder:
    folder: Path
    tokenizer: Any
    model: Any
    templates: tuple[str, str] = ("{query}", "{document}")
    max_seq_length: int = LONGEST
    """Tokens of a pair; the longer text of a longer pair is cut first."""

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of its files and settings."""
        files = sorted(path for pattern in ALL_FILES for path in self.folder.glob(pattern))
        digests = [(path.name, hash_file(path)) for path in files]
        return sha256(json.dumps([digests, self.templates, self.max_seq_length]).encode()).hexdigest()

    def score(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        """The logit of each (query, document), float32 [pairs]: no activation is applied."""
        scores = np.empty(len(pairs), dtype=np.float32)
        encoded = [self._tokenize(*pair) for pair in pairs]
        order = sorted(range(len(pairs)), key=lambda i: len(encoded[i]["input_ids"]))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            batch = self.tokenizer.pad([encoded[i] for i in chosen], return_tensors="pt").to(self.model.device)
            with torch.inference_mode():
                scores[chosen] = self.model(**batch).logits[:, 0].float().cpu().numpy()
        return scores

    def _tokenize(self, query: str, document: str) -> dict[str, list[int]]:
        first, second = (
            template.replace(f"{{{name}}}", text)
            for template, name, text in zip(self.templates, ("query", "document"), (query, document), strict=True)
        )
        tokens: dict[str, list[int]] = dict(
            self.tokenizer(first, second, truncation="longest_first", max_length=self.max_seq_length)
        )
        return tokens


def load_cross_encoder(
    base: str,
    revision: str | None = None,
    *,
    templates: tuple[str, str] = ("{query}", "{document}"),
    max_seq_length: int | None = None,
    device: str = "cpu",
) -> CrossEncoder:
    """Raises ModelError for a model with another number of scores than one, HubError if the Hub can't be reached."""
    require_cross_encoder(base, revision)
    folder = locate(base, revision, ALL_FILES)
    try:
        with quiet_transformers():
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
            model = transformers.AutoModelForSequenceClassification.from_pretrained(
                str(folder), use_safetensors=True, dtype=torch.float32
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"{base}: can't be used as a cross-encoder: {str(error).partition(chr(10))[0]}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:  # where a decoder looks for the last token
        model.config.pad_token_id = tokenizer.pad_token_id
    longest = min(tokenizer.model_max_length, max_seq_length or LONGEST)
    return CrossEncoder(folder, tokenizer, model.to(device).eval(), templates, longest)

"""A query generator: a T5-like model that was trained to write the question that a passage answers.

doc2query (https://arxiv.org/abs/1904.08375), GPL (https://arxiv.org/abs/2112.07577).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from stfit.encoder.folder.resolve import ALL_FILES, locate
from stfit.errors import ModelError
from stfit.generation.answers import Answers, key_of
from stfit.generation.base import GeneratorBase, MakePairs, Passage, fill_prompt, from_answers
from stfit.io.hashing import hash_file
from stfit.lazy import lazy, torch
from stfit.paths import looks_like_path
from stfit.runtime.device import choose_device

if TYPE_CHECKING:
    import transformers
else:
    transformers = lazy("transformers")

TOP_P = 0.95
"""Words are drawn from the most probable ones with this probability together."""
MAX_INPUT_TOKENS = 384
"""A longer passage is cut."""


class Seq2Seq(GeneratorBase):
    """A T5-like model writes questions that a passage answers."""

    writes_questions = True
    type: Literal["seq2seq"] = "seq2seq"
    generator: str = Field(min_length=1)
    """Hub id or folder of the model."""
    per_passage: int = Field(3, gt=0)
    """Questions of each passage."""
    prompt: str = "{passage}"
    """What the model reads: {passage} stands for the text, {title} for its title."""
    temperature: float = Field(1.0, gt=0)
    """Higher values give more different questions."""
    max_new_tokens: int = Field(64, gt=0)
    """Of a question."""
    batch_size: int = Field(16, gt=0)
    """Passages at once."""
    device: str = "auto"

    @property
    def made_by(self) -> str:
        name = Path(self.generator).name if looks_like_path(self.generator) else self.generator
        return f"seq2seq {name}"

    def open(self, seed: int, answers: Answers) -> MakePairs:
        folder = locate(self.generator, None, ALL_FILES)
        tokenizer, model = _load(folder)
        model.to(choose_device(self.device)).eval()
        weights = [hash_file(path) for path in sorted(folder.glob("*.safetensors"))]
        settings = [self.model_dump(exclude={"generator", "device"}), TOP_P, MAX_INPUT_TOKENS]

        def key(passage: Passage) -> str:
            return key_of(weights, settings, seed, passage.title, passage.text)

        def write(new: dict[str, Passage]) -> None:
            """Batches go on disk whole, so that after an interruption the others are the same."""
            missing = [*new]
            for start in range(0, len(missing), self.batch_size):
                keys = missing[start : start + self.batch_size]
                batch = [new[own] for own in keys]
                drawn_by = key_of(seed, [passage.text for passage in batch])
                for own, texts in zip(keys, _write(self, tokenizer, model, batch, drawn_by), strict=True):
                    answers.put(own, texts)
                answers.counts["written"] += len(keys)

        return lambda passages: from_answers(passages, key, write, answers)


def _load(folder: Path) -> tuple[Any, Any]:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(str(folder), use_safetensors=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"{folder}: can't be used as a generator (a T5-like model is needed): {reason}") from error
    return tokenizer, model


def _write(settings: Seq2Seq, tokenizer: Any, model: Any, passages: list[Passage], seed: str) -> list[list[str]]:
    """Distinct questions of each passage."""
    read = [fill_prompt(settings.prompt, title=passage.title, passage=passage.text) for passage in passages]
    inputs = tokenizer(read, padding=True, truncation=True, max_length=MAX_INPUT_TOKENS, return_tensors="pt").to(
        model.device
    )
    inputs.pop("token_type_ids", None)
    torch.manual_seed(int(seed[:15], 16))
    try:
        with torch.inference_mode():
            written = model.generate(
                **inputs,
                do_sample=True,
                temperature=settings.temperature,
                top_p=TOP_P,
                max_new_tokens=settings.max_new_tokens,
                num_return_sequences=settings.per_passage,
            )
    except ValueError as error:  # its settings lack something
        raise ModelError(f"{settings.generator}: can't write as a generator: {error}") from error
    texts = [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]
    groups = [texts[start : start + settings.per_passage] for start in range(0, len(texts), settings.per_passage)]
    return [list(dict.fromkeys(filter(None, group))) for group in groups]

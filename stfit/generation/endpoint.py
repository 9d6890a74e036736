"""A language model behind a server that speaks the OpenAI chat protocol writes questions: vLLM, llama.cpp, a provider.

InPars (https://arxiv.org/abs/2202.05144), Promptagator (https://arxiv.org/abs/2209.11755).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from stfit.errors import EndpointError
from stfit.generation.answers import Answers, key_of
from stfit.generation.base import GeneratorBase, MakePairs, Passage, fill_prompt, from_answers
from stfit.generation.chat import Chat, RefusedRequest

CHARACTERS_PER_TOKEN = 4
TOKENS_PER_QUESTION = 20
PROMPT = """Below is a passage of a document. Write {count} different questions or search queries that it answers, as \
people would type them who have not seen it. Do not copy its sentences, and do not mention "the passage". Write in the \
language of the passage. Answer with a JSON list of {count} strings and nothing else.
{examples}
{title}
{passage}"""
AGAIN = "That is no JSON list of strings. Answer with the list alone."
FENCE = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)


class Endpoint(GeneratorBase):
    """A language model on a server writes questions that a passage answers."""

    writes_questions = True
    type: Literal["endpoint"] = "endpoint"
    endpoint: str
    """Address of the server, up to `/v1`. Its key, if it wants one, is read from OPENAI_API_KEY."""
    generator: str = Field(min_length=1)
    """Name of the model on the server."""
    per_passage: int = Field(3, gt=0)
    """Questions of each passage."""
    prompt: str = PROMPT
    """What the model reads: {passage} stands for the text, {title} for its title, {count} for the number of questions,
    {examples} for the examples."""
    examples: list[dict[str, str]] = []
    """Rows with anchor and positive, shown to the model."""
    temperature: float = Field(0.7, ge=0)
    """Higher values give more different questions."""
    max_new_tokens: int = Field(512, gt=0)
    """Of an answer."""
    requests: int = Field(8, gt=0)
    """Requests at once."""
    timeout: float = Field(120.0, gt=0)
    """Seconds for one answer."""

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        try:
            is_address = bool(urlsplit(value).hostname) and urlsplit(value).port != 0
        except ValueError:  # of the port
            is_address = False
        if not is_address or not value.startswith(("http://", "https://")):
            raise ValueError("expected an address, such as http://localhost:8000/v1")
        return value

    @model_validator(mode="after")
    def _shows_the_passage(self) -> Self:
        if "{passage}" not in self.prompt:
            raise ValueError("the prompt must hold {passage}, which stands for the text")
        return self

    @property
    def made_by(self) -> str:
        return f"endpoint {self.generator}"

    def messages(self, passage: Passage) -> list[dict[str, str]]:
        examples = "".join(f"\n{pair['positive']}\n{json.dumps([pair['anchor']])}\n" for pair in self.examples)
        count = str(self.per_passage)
        content = fill_prompt(self.prompt, count=count, examples=examples, title=passage.title, passage=passage.text)
        return [{"role": "user", "content": content}]

    def key(self, passage: Passage, seed: int) -> str:
        asked = self.model_dump(include={"generator", "per_passage", "temperature", "max_new_tokens"})
        return key_of(asked, self.messages(passage), seed)

    def describe_cost(self, passages: Iterable[Passage]) -> str:
        lengths = [len(self.messages(passage)[0]["content"]) for passage in passages]
        sent = sum(lengths) // CHARACTERS_PER_TOKEN
        received = len(lengths) * min(self.max_new_tokens, TOKENS_PER_QUESTION * self.per_passage)
        return (
            f"{len(lengths):,} passages are {len(lengths):,} requests, about {sent:,} tokens sent and {received:,} "
            "received, less those that were answered before; --limit asks for fewer passages"
        )

    def open(self, seed: int, answers: Answers) -> MakePairs:
        ask_for = partial(self._ask_for, seed=seed, answers=answers)
        return lambda passages: from_answers(passages, lambda passage: self.key(passage, seed), ask_for, answers)

    def _ask_for(self, new: dict[str, Passage], seed: int, answers: Answers) -> None:
        """Several requests at once; an answer is kept as soon as it has come. Raises EndpointError."""
        settings = {"temperature": self.temperature, "max_tokens": self.max_new_tokens, "seed": seed}
        body = {"model": self.generator} | settings
        pool = ThreadPoolExecutor(self.requests)
        refused: list[RefusedRequest] = []
        try:
            with Chat(self.endpoint, body, self.timeout, answers.counts) as chat:
                asked = [pool.submit(self._ask, chat, passage, key, answers) for key, passage in new.items()]
                for answer in as_completed(asked):
                    try:
                        answer.result()
                        answers.counts["written"] += 1
                    except RefusedRequest as refusal:
                        refused.append(refusal)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        answers.counts["refused"] += len(refused)
        if refused and not answers.counts["written"]:
            raise EndpointError(f"{self.endpoint} refuses every request: {refused[0]}")

    def _ask(self, chat: Chat, passage: Passage, key: str, answers: Answers) -> None:
        """Keeps the answer before the next request: no more than those under way can be lost."""
        answers.put(key, ask(chat, self.messages(passage))[: self.per_passage])


def ask(chat: Chat, messages: list[dict[str, str]]) -> list[str]:
    """The questions; none if the model answers twice with something else than a list of texts."""
    answer = chat(messages)
    questions = parse(answer)
    if questions is None:
        chat.count("asked again")
        again = [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": AGAIN}]
        questions = parse(chat(again))
    if questions is None:
        chat.count("not a list")
    return questions or []


def parse(answer: str) -> list[str] | None:
    """A JSON list of texts, which may stand in a fence of Markdown; None for anything else."""
    text = answer.strip()
    if fenced := FENCE.fullmatch(text):
        text = fenced[1]
    try:
        found: Any = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        return None
    return list(dict.fromkeys(filter(None, (" ".join(each.split()) for each in found))))

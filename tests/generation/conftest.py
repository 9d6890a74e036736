import gc
import json
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from generation.chat_server import ChatServer, running

from stfit.commands.generate import generate
from stfit.generation.registry import choose_generators
from stfit.options import GenerationOptions
from stfit.recipe.read_options import read_options
from stfit.workflows.generate.passages import corpus_of


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with running() as server:
        yield server
    # A request that is given up leaves its socket to the garbage collector, which would warn within another test.
    for thread in threading.enumerate():
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join(5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Generate from a dataset into pairs.jsonl; the result, with the rows."""

    def run(
        dataset: str | Path,
        *methods: str,
        options: GenerationOptions | None = None,
        limit: int | None = None,
        passage_words: int | None = None,
        overlap: int | None = None,
        not_in: Any = None,
        **settings: Any,
    ) -> dict[str, Any]:
        corpus = corpus_of(str(dataset), None, read_options([]), None, "title", passage_words, overlap, limit)
        output = tmp_path / "pairs.jsonl"
        chosen = choose_generators(list(methods), settings)
        result = generate(corpus, output, chosen, options or GenerationOptions(), not_in=not_in, device="cpu")
        return result | {"pairs": [json.loads(line) for line in output.read_text().splitlines()]}

    return run

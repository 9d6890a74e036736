from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from stfit.data.batching.batches import tokenize_examples
from stfit.data.mapping.examples import Examples
from stfit.encoder.encoder import Encoder
from stfit.losses.ranking import MultipleNegativesRanking
from stfit.losses.terms import LossTerms
from stfit.training.gradients import build_splitter
from stfit.training.loop import build_train_objects, train_steps


@pytest.fixture(scope="session")
def two_steps(sentences) -> Callable[[Encoder], set[str]]:
    """Trains an encoder for two steps; names of the weights that moved."""

    def train(encoder: Encoder) -> set[str]:
        before = {name: weight.detach().clone() for name, weight in encoder.named_parameters()}
        rows = {"anchor": sentences, "positive": [f"{text} And rain, then." for text in sentences]}
        examples = Examples("positive_pair", rows, None, "none", None, np.arange(1, len(sentences) + 1), {})
        prompts = dict.fromkeys(rows, "")
        table = tokenize_examples(
            examples, prompts, encoder.tokenizer, encoder.tokenizer.fingerprint, encoder.prompt_skip
        )
        batch = table.batch(np.arange(len(sentences)), distinct=False)
        encoder.use_fast_dropout()
        learner = build_train_objects(encoder, [LossTerms([MultipleNegativesRanking()], 32)], 0.01, [])
        steps = train_steps(
            learner, [[(0, batch)]] * 2, lambda _: 1e-2, first_step=0, split=build_splitter(), max_grad_norm=None
        )
        assert all(np.isfinite(step.loss) for step in steps)
        return {name for name, weight in encoder.named_parameters() if not torch.equal(weight, before[name])}

    return train


@pytest.fixture(scope="module")
def table(request) -> Iterator[list[dict[str, str]]]:
    """Rows that the tests of a file fill; `pytest -s` shows them as a table."""
    rows: list[dict[str, str]] = []
    yield rows
    if rows:
        lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        request.config.get_terminal_writer().write(f"\n\n{text}\n")

"""The guide answers every loss of sentence-transformers: with the same loss, with a setting, or with the reason."""

import re
from pathlib import Path

import pytest

from stfit.losses.registry import LOSSES

GUIDE = Path(__file__).parents[2] / "recipes" / "guides" / "methods.md"


def test_every_loss_of_the_peer_has_its_answer():
    peer = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    of_peer = {name for name in peer.__all__ if name.endswith(("Loss", "Negatives"))}
    section = GUIDE.read_text(encoding="utf-8").partition("## The losses of sentence-transformers")[2]
    answered = re.findall(r"`(\w+(?:Loss|Negatives))`", section)
    assert set(answered) == of_peer
    assert len(answered) == len(of_peer) == 29


def test_the_losses_of_the_same_name_are_those_that_take_it():
    row = next(
        line for line in GUIDE.read_text(encoding="utf-8").splitlines() if line.endswith("the loss of this name |")
    )
    aliases = {alias for loss in LOSSES for alias in loss.aliases if not alias.startswith("Cached")}
    assert set(re.findall(r"`(\w+Loss)`", row)) == aliases

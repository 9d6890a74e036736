"""Seed, capture and restore the random generators that training uses.

In this room and not in runtime/, because the generator of the encoder's dropout is one of them.
"""

import random
from typing import Any

import numpy as np
import torch

from stfit.distributed import is_rank_zero, rank
from stfit.encoder.kernels.dropout import dropout_bits


def seed_everything(seed: int) -> None:
    """Seed every generator; weights initialized next are the same on all ranks."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries that still draw from the global generator
    torch.manual_seed(seed)
    dropout_bits.seed(seed)


def seed_per_rank(seed: int) -> None:
    """Reseed every rank but 0, so that each has its own dropout masks."""
    if not is_rank_zero():
        (rank_seed,) = np.random.SeedSequence([seed, rank()]).generate_state(1)
        seed_everything(int(rank_seed))


def capture_rng() -> dict[str, torch.Tensor]:
    states = {"torch": torch.get_rng_state(), "dropout": dropout_bits.state()}
    if torch.cuda.is_available():
        states |= {f"cuda{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_rng(states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["torch"])
    dropout_bits.restore(states["dropout"])
    cuda = [states[name] for name in sorted(states) if name.startswith("cuda")]
    if cuda and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(cuda)


def capture_all_rng() -> dict[str, torch.Tensor]:
    """State of every generator of the process, also of those that only a library may draw from."""
    version, words, gauss = random.getstate()
    numpy: Any = np.random.get_state()  # noqa: NPY002
    name, key, position, has_gauss, cached = numpy
    assert (version, name) == (3, "MT19937")
    return capture_rng() | {
        "python": torch.tensor(words),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.tensor([*key.tolist(), position, has_gauss]),
        "numpy_gauss": torch.tensor([cached], dtype=torch.float64),
    }


def restore_all_rng(states: dict[str, torch.Tensor]) -> None:
    restore_rng(states)
    gauss = states["python_gauss"].tolist()
    random.setstate((3, tuple(states["python"].tolist()), gauss[0] if gauss else None))
    *key, position, has_gauss = states["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(key), position, has_gauss, states["numpy_gauss"].item()))  # noqa: NPY002

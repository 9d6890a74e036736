"""Which weights an optimizer moves, and at what share of the learning rate: the lower a layer, the less."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from stfit.errors import RecipeError
from stfit.training.fsdp import is_sharded_tensor

NUMBERED = re.compile(r"backbone\.(?:.*?\.)??(\d+)\.")
"""A weight of a layer of the transformer, with its number."""
TABLE = re.compile(r"backbone\.(.*embed|shared\.)")
"""A weight of what comes before the layers; T5 calls its table of words `shared`."""


def build_param_groups(
    weights: Iterable[tuple[str, nn.Parameter]], weight_decay: float, layer_decay: float | None, num_layers: int
) -> list[dict[str, Any]]:
    """Parameter groups: matrices with `weight_decay`, biases and norms (vectors) without, each with its `lr_scale`.

    Weights that are cut up among processes stand apart: torch's optimizers don't take both in one group.

    Layer i of L has the share layer_decay^(L - i) of the learning rate, i from 0; the embeddings of tokens have
    layer_decay^(L + 1), and what comes after the layers has all of it (ELECTRA, https://arxiv.org/abs/2003.10555).
    Raises RecipeError for a `layer_decay` without layers.
    """
    if layer_decay is not None and not num_layers:
        raise RecipeError("train.layer_decay: this base has no layers whose rates could differ")
    named = list(weights)
    share_of = {name: (layer_decay or 1.0) ** layers_from_top(name, num_layers) for name, _ in named}
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for decays in (True, False):
        for name, weight in named:
            if (weight.ndim >= 2) == decays:
                groups.setdefault((share_of[name], decays, is_sharded_tensor(weight)), []).append(weight)
    return [
        {"params": members, "weight_decay": weight_decay if decays else 0.0, "lr_scale": share}
        for (share, decays, _), members in groups.items()
    ]


def layers_from_top(name: str, num_layers: int) -> int:
    """How many layers lie between a weight and the embedding, itself counted."""
    if layer := NUMBERED.match(name):
        return num_layers - int(layer[1])
    return num_layers + 1 if TABLE.match(name) else 0

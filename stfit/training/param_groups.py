"""Parameter groups of the optimizer: weight decay, and a learning rate that falls from layer to layer."""

import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from stfit.errors import RecipeError
from stfit.training.fsdp import is_sharded

LAYER = re.compile(r"backbone\.(?:.*?\.)??(\d+)\.")
EMBEDDINGS = re.compile(r"backbone\.(.*embed|shared\.)")
"""A weight below the layers; T5 calls its token embeddings `shared`."""


def build_param_groups(
    weights: Iterable[tuple[str, nn.Parameter]], weight_decay: float, layer_decay: float | None, num_layers: int
) -> list[dict[str, Any]]:
    """Parameter groups with their `lr_scale`; matrices get `weight_decay`, biases and norms (vectors) none.

    Sharded weights form groups of their own: checkpoints number the weights in this order.

    The learning rate of layer i of L is scaled by layer_decay^(L - i), with i from 0; that of the token embeddings by
    layer_decay^(L + 1). What follows the layers is not scaled (ELECTRA, https://arxiv.org/abs/2003.10555). Raises
    RecipeError if a `layer_decay` is given and there are no layers.
    """
    if layer_decay is not None and not num_layers:
        raise RecipeError("train.layer_decay: this base has no layers; remove the key")
    named = list(weights)
    lr_scale = {name: (layer_decay or 1.0) ** layers_from_top(name, num_layers) for name, _ in named}
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for decays in (True, False):
        for name, weight in named:
            if (weight.ndim >= 2) == decays:
                groups.setdefault((lr_scale[name], decays, is_sharded(weight)), []).append(weight)
    return [
        {"params": members, "weight_decay": weight_decay if decays else 0.0, "lr_scale": scale}
        for (scale, decays, _), members in groups.items()
    ]


def layers_from_top(name: str, num_layers: int) -> int:
    """Position of a weight counted from the top: 0 above the layers, 1 for the last layer, L + 1 for embeddings."""
    if layer := LAYER.match(name):
        return num_layers - int(layer[1])
    return num_layers + 1 if EMBEDDINGS.match(name) else 0

"""Shard weights, gradients and optimizer state across processes, for models that do not fit into each of them.

FSDP2 (Zhao et al., 2023, https://arxiv.org/abs/2304.11277; torch.distributed.fsdp.fully_shard): every rank keeps a
shard of each weight, gathers the weights of a layer to compute it, and frees them afterwards. Gathering is collective,
so every rank must call the encoder equally often.
"""

import copy
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from stfit.distributed import translate_dist_errors, world_size
from stfit.encoder.encoder import Encoder
from stfit.encoder.kernels.packing import forward_padded
from stfit.errors import RecipeError
from stfit.lazy import lazy
from stfit.training.sparse_tables import values_of

if TYPE_CHECKING:
    from torch.distributed import fsdp, tensor
else:
    fsdp, tensor = lazy("torch.distributed.fsdp"), lazy("torch.distributed.tensor")


def is_sharded(value: Tensor | nn.Module) -> bool:
    return world_size() > 1 and isinstance(value, (fsdp.FSDPModule, tensor.DTensor))


def shard(encoder: Encoder) -> Encoder:
    """Shard the encoder in place, and return an unsharded copy without weights, for `summon_full_params` to fill."""
    if not hasattr(fsdp.FSDPModule, "set_force_sum_reduction_for_comms"):
        raise RecipeError(f"train.shard needs a newer torch than {torch.__version__}: remove it, or update torch")
    unsharded = copy.deepcopy(encoder, {id(encoder.tokenizer): encoder.tokenizer})
    for weight in unsharded.parameters():
        weight.data = weight.new_empty(0)
    if encoder.layout.name == "padded":  # one forward per rectangle would be a different number of calls on each rank
        encoder.layout = replace(encoder.layout, forward=partial(forward_padded, max_tokens=math.inf))
    # A fused layer returns a view. FSDP2 warns that views must not be modified in place, which never happens here.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(encoder.device.type, (world_size(),))
    for module in (*_transformer_layers(encoder.backbone), encoder):
        fsdp.fully_shard(module, mesh=mesh)
    for module in encoder.modules():
        if isinstance(module, fsdp.FSDPModule):
            module.set_gradient_divide_factor(1.0)  # sum gradients, as without sharding
            module.set_force_sum_reduction_for_comms(True)  # gloo does not support the default reduction
    return unsharded


def _transformer_layers(backbone: nn.Module) -> Iterable[nn.Module]:
    lists = (module for module in backbone.modules() if isinstance(module, nn.ModuleList))
    return max(lists, key=len, default=[])


@contextmanager
def summon_full_params(unsharded: Encoder, encoder: Encoder) -> Iterator[Encoder]:
    """Fill `unsharded` with the full weights of the sharded `encoder` during the block. A collective operation."""
    try:
        with translate_dist_errors(), torch.no_grad():
            for empty, weight in zip(unsharded.parameters(), encoder.parameters(), strict=True):
                empty.data = _full(weight).data
        yield unsharded
    finally:
        for weight in unsharded.parameters():
            weight.data = weight.new_empty(0)


def _full(value: Any) -> Tensor:
    """All of a tensor that may be sharded. A collective operation."""
    return value.full_tensor() if is_sharded(value) else value


def local_part(value: Any) -> Tensor:
    """What this process holds of a tensor."""
    return value.to_local() if is_sharded(value) else value


def shard_like(full: Tensor, like: Any) -> Tensor:
    """Shard a full tensor the way `like` is sharded. Every rank has it, so nothing is communicated."""
    if not is_sharded(like):
        return full
    return tensor.distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None)


def total_grad_norm(weights: Sequence[nn.Parameter]) -> Tensor:
    """Norm of all gradients, sharded and full ones, together; 0 after a batch without a known word."""
    norms = []
    for sharded in (True, False):
        held = [weight.grad for weight in weights if weight.grad is not None and is_sharded(weight) is sharded]
        if held:
            norms.append(_full(nn.utils.get_total_norm([values_of(gradient) for gradient in held])))
    return norms[0] if len(norms) == 1 else torch.stack(norms or [torch.zeros(())]).norm()

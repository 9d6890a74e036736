"""Weights, gradients and optimizer state cut up among the processes, for models that don't fit into each.

FSDP2 (Zhao et al., 2023, https://arxiv.org/abs/2304.11277; torch.distributed.fsdp.fully_shard): every process keeps a
part of each weight, gets a layer's weights together when it computes the layer, and lets go of them afterwards. To get
them together is something that all processes do at once, so all have to call the encoder equally often.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from stfit.distributed import translate_dist_errors, world_size
from stfit.encoder.encoder import Encoder
from stfit.encoder.kernels.packing import forward_in_one_rectangle
from stfit.errors import RecipeError


def shard(encoder: Encoder) -> Encoder:
    """Shard the encoder in place (FSDP2), and return an unsharded copy without weights.

    The copy measures, saves and encodes as any other encoder does once `summon_full_params` has filled it. Raises
    RecipeError if torch is too old.
    """
    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise RecipeError(f"train.shard needs a newer torch than {torch.__version__}: leave it out, or update torch")
    unsharded = copy.deepcopy(encoder, {id(encoder.tokenizer): encoder.tokenizer})
    for weight in unsharded.parameters():
        weight.data = weight.new_empty(0)
    if encoder.layout.name == "padded":  # rectangles would be so many calls, in each process other ones
        encoder.layout = replace(encoder.layout, forward=forward_in_one_rectangle)
    # A fused layer gives a view, and FSDP2 warns that nothing may be added to it in place: nothing is.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(encoder.device.type, (world_size(),))
    for module in (*_layers_of(encoder.backbone), encoder):
        fully_shard(module, mesh=mesh)
    for module in encoder.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # gradients are added up, as they are without shards,
            module.set_force_sum_reduction_for_comms(True)  # by a sum that gloo knows
    return unsharded


def _layers_of(backbone: nn.Module) -> Iterable[nn.Module]:
    """The layers of a transformer: its longest list of modules."""
    return max((each for each in backbone.modules() if isinstance(each, nn.ModuleList)), key=len, default=[])


def is_sharded(module: nn.Module) -> bool:
    """Whether this process has a part of the weights only."""
    return isinstance(module, FSDPModule)


@contextmanager
def summon_full_params(unsharded: Encoder, encoder: Encoder) -> Iterator[Encoder]:
    """Fill `unsharded` with all weights of the sharded `encoder` while the block runs. A collective operation."""
    try:
        with translate_dist_errors(), torch.no_grad():
            for empty, weight in zip(unsharded.parameters(), encoder.parameters(), strict=True):
                empty.data = weight.full_tensor() if isinstance(weight, DTensor) else weight.data
        yield unsharded
    finally:
        for weight in unsharded.parameters():
            weight.data = weight.new_empty(0)


def is_sharded_tensor(tensor: Tensor) -> bool:
    """Whether a tensor is cut up among the processes."""
    return isinstance(tensor, DTensor)


def to_local(tensor: Tensor) -> Tensor:
    """What this process has of a tensor: its rows of one that is cut up, else all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, cut up as `like` is. All processes have it whole, so nothing is sent."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def clip_grad_norm(weights: Sequence[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients down to `max_norm` in all, those included of which this process has a part; their norm before."""
    kinds = [[weight for weight in weights if isinstance(weight, DTensor) is cut] for cut in (True, False)]
    norms = []
    for kind in filter(None, kinds):
        norm = nn.utils.get_total_norm([weight.grad for weight in kind if weight.grad is not None])
        norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    total = norms[0] if len(norms) == 1 else torch.stack(norms).norm()
    for kind in filter(None, kinds):
        nn.utils.clip_grads_with_norm_(kind, max_norm, total)
    return total

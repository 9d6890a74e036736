"""Low-rank adapters (LoRA): train a product of two thin matrices beside each linear map, whose own weight is frozen.

The extra `lora` installs peft, which adds the adapters to a transformer. A model folder holds the merged weights, so
that loading it needs no peft; a checkpoint holds only the adapters (Hu et al., 2021, https://arxiv.org/abs/2106.09685).
"""

from __future__ import annotations

import re
import warnings
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from stfit.encoder.folder.files import name_some, not_finite, read_header
from stfit.errors import ModelError
from stfit.lazy import Tensor, nn, torch
from stfit.spec import Spec

WRAPPED = ".base_layer."
ADAPTER = ".lora_"
HEAD = re.compile(r"\b(classifier|score|lm_head|cls|qa_outputs|pooler|modules_to_save|decoder)\b")
"""Parts of a model with a head, or with a decoder, that its encoder alone does not have."""


class Lora(Spec):
    """Trains low-rank matrices alongside the linear layers of a pretrained transformer, whose weights stay frozen.

    A model folder has the merged weights, a checkpoint only the adapters. Adapters need a higher `train.learning_rate`
    than full fine-tuning: 1e-4 to 1e-3. Needs the extra `lora` (Hu et al., 2021,
    https://arxiv.org/abs/2106.09685).
    """

    rank: int = Field(8, gt=0)
    """Rank of the matrices."""
    alpha: int = Field(16, gt=0)
    """The product of the matrices is multiplied by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout rate on the inputs of the adapters during training."""
    target: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of the linear layers that get an adapter, or the ends of their names: `[query, value]`. Default: all linear
    layers of the transformer's blocks."""


def add_adapters(backbone: nn.Module, settings: Lora) -> None:
    """Freeze all weights and add adapters. Raises ModelError without peft, or if a name matches no linear layer."""
    peft = _import_peft("model.lora needs")
    names = _chosen_maps(backbone, settings.target)
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=names,
        fan_in_fan_out=not isinstance(backbone.get_submodule(names[0]), nn.Linear),
    )
    dtype = next(backbone.parameters()).dtype
    peft.inject_adapter_in_model(config, backbone)
    backbone.to(dtype)  # peft creates float32 adapters for a half-precision model


def _import_peft(who_needs: str) -> Any:
    try:
        import peft
    except ImportError as error:
        raise ModelError(f"{who_needs} peft: install the extra `lora` ({error})") from error
    if torch.distributed.is_available():
        import_module("torch.distributed.tensor")  # peft takes for granted that transformers has imported it
    return peft


def _chosen_maps(backbone: nn.Module, target: list[str] | None) -> list[str]:
    """Full names of the linear layers that end in a name of `target`; by default, all in the transformer's blocks."""
    from transformers.pytorch_utils import Conv1D  # the linear layers of GPT-2

    linear = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    if target is None:
        in_blocks = [name for name in linear if any(part.isdigit() for part in name.split("."))]
        if not in_blocks:
            raise ModelError("model.lora: this base has no linear layer to adapt")
        return in_blocks
    for ending in target:
        if not any(f".{name}".endswith(f".{ending}") for name in linear):
            last = sorted({name.rpartition(".")[2] for name in linear})
            raise ModelError(
                f"model.lora.target: `{ending}` matches no linear layer of this base, which has {', '.join(last)}"
            )
    return [name for name in linear if any(f".{name}".endswith(f".{ending}") for ending in target)]


def merge_adapter(backbone: Any, folder: Path) -> Any:
    """The base of a published adapter with the adapter merged in. Raises ModelError without peft."""
    if not (folder / "adapter_model.safetensors").is_file():
        raise ModelError(f"{folder}: its adapter has no adapter_model.safetensors; stfit opens no pickle of an adapter")
    peft = _import_peft(f"{folder} is an adapter, and needs")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft warns of its own calls of transformers
            _grow_table(backbone, folder)
            config = peft.PeftConfig.from_pretrained(str(folder))
            if config.is_prompt_learning:
                raise ModelError(f"it is {config.peft_type.value}, which learns a prompt and can't be merged")
            config.task_type, config.inference_mode = None, False  # its task was that of a head, which is not used
            adapted = peft.get_peft_model(backbone, config).eval()
            weights = peft.load_peft_weights(str(folder), device="cpu")
            weights = _without_head(weights, set(adapted.state_dict()), backbone.base_model_prefix)
            loaded: Any = peft.set_peft_model_state_dict(adapted, weights)
    except Exception as error:  # peft raises anything for a damaged adapter
        raise ModelError(f"{folder}: its adapter can't be read: {error}") from error
    wrong = {
        "missing": [name for name in loaded.missing_keys if re.search(r"\.(lora|loha|hada|ia3)_", name)],
        "of another model": [name for name in loaded.unexpected_keys if not HEAD.search(name)],
        "not finite": not_finite(weights.items()),
    }
    if any(wrong.values()):
        faults = "; ".join(f"{fault}: {name_some(names)}" for fault, names in wrong.items() if names)
        raise ModelError(f"{folder}: its adapter does not fit the base {config.base_model_name_or_path}: {faults}")
    return _merge(adapted, folder).requires_grad_(True)


def _merge(adapted: Any, folder: Path) -> Any:
    try:
        return adapted.merge_and_unload()
    except Exception as error:  # several kinds of adapters can't be merged
        reason = str(error) or type(error).__name__
        raise ModelError(f"{folder}: its adapter can't be merged into the base: {reason}") from error


def _without_head(weights: dict[str, Tensor], own: set[str], prefix: str) -> dict[str, Tensor]:
    """The weights by the names of the bare backbone: under a head, they begin with its prefix, such as `bert.`."""
    modules = {name.partition(".lora_")[0] for name in own}
    outer, inner = "base_model.model.", f"base_model.model.{prefix}."
    return {
        outer + name.removeprefix(inner)
        if name.startswith(inner) and name.partition(".lora_")[0] not in modules
        else name: weight
        for name, weight in weights.items()
    }


def _grow_table(backbone: Any, folder: Path) -> None:
    """Add rows for the tokens that were added to the base before the adapter was trained, whose vectors it holds."""
    table = backbone.get_input_embeddings()
    name = next(name for name, module in backbone.named_modules() if module is table)
    shapes = read_header(folder / "adapter_model.safetensors")
    rows = [entry["shape"][0] for key, entry in shapes.items() if f"{name}." in key and key.endswith("weight")]
    if max(rows, default=0) > len(table.weight):
        backbone.resize_token_embeddings(max(rows), mean_resizing=False)


def adapted_linears(backbone: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in backbone.named_modules() if hasattr(module, "lora_A")}


def merged_weights(backbone: nn.Module) -> dict[str, Tensor] | None:
    """The weights with the adapters merged in, None without adapters. Raises ModelError if that changes no weight."""
    maps = adapted_linears(backbone)
    if not maps:
        return None
    states = backbone.state_dict()
    merged = {name.replace(WRAPPED, "."): weight for name, weight in states.items() if ADAPTER not in name}
    has_changed = False
    with torch.no_grad():
        for name, module in maps.items():
            weight = merged[f"{name}.weight"]
            merged[f"{name}.weight"] = weight + module.get_delta_weight("default").to(weight.dtype)
            has_changed |= not torch.equal(merged[f"{name}.weight"], weight)
    if not has_changed:
        raise ModelError(
            "model.lora: the merged weights equal those of the base, so the adapters learned nothing: train longer"
        )
    return merged

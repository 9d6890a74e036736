"""The config.json of a transformer: what the loaded class does not act on, and what older versions read."""

import inspect
import logging
import re
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import transformers
from transformers import PretrainedConfig, PreTrainedModel

from stfit.errors import ModelError
from stfit.lazy import torch

log = logging.getLogger("stfit")

ARCHITECTURE = re.compile(
    "(?<!max_)(?<!max_2d_)position_embedding|alibi|rotary|rope_|bidirectional|is_causal|attention_type|attn_type|prefix_lm"
)
"""Keys that decide how tokens see each other: a class that ignores one computes another model."""
UNUSED = re.compile(
    "^(_|pooler_|summary_|output_|gradient_checkpointing|directionality|finetuning_task|task_specific_params|auto_map|"
    "torch_dtype|dtype|use_cache|use_return_dict|num_labels|xla_device|n_ctx|n_positions|keys_to_ignore|tie_weights|"
    "sentence_transformers|quantization_config|attn_implementation|model_type|architectures|torchscript|pruned_heads|"
    "tokenizer_class|type_vocab_size|prefix$|classifier|cls_|sep_token|mask_token|unk_token|use_bfloat16|"
    "tf_legacy_loss|net_structure|gap_size|down_scale|num_memory_blocks|embd_pdrop|resid_pdrop|transformers_|vocab_file|name_or_path|language|"
    "sliding_window_pattern)"
)
"""Keys that change no embedding, or that transformers converts to others when it reads the file."""

ROPE = re.compile("rope_|rotary_emb_base|global_rope|local_rope")
FRACTION = re.compile("rotary_pct|partial_rotary")
"""Keys that a class with rotary embeddings reads under other names; of all dimensions, the fraction is 1."""

ROPE_KEYS = {"modernbert": ("global_rope_theta", "local_rope_theta")}
"""Model type -> keys of the base of full and of local rotary embeddings, if they differ from the usual ones."""


def check_unread_keys(content: dict[str, Any], config: PretrainedConfig, encoder: type, folder: Path) -> None:
    """Raise ModelError for keys that would make another architecture and that the class `encoder` does not read.

    Warns of other keys that it does not read. `content`: that of config.json.
    """
    known = {*vars(type(config)()), *config.attribute_map, *vars(transformers.GenerationConfig())}
    source = "".join(inspect.getsource(sys.modules[owner.__module__]) for owner in (type(config), encoder))
    known |= {key for key in content if re.search(rf"\b{re.escape(key)}\b", source)}  # read by getattr
    unread = {key: value for key, value in content.items() if key not in known and not UNUSED.match(key)}
    if "rope_parameters" in known:
        unread = {key: value for key, value in unread.items() if not _is_usual_rope(key, value)}
    architecture = {key: value for key, value in unread.items() if ARCHITECTURE.search(key) and not _is_usual(value)}
    architecture.pop("is_causal", None)  # of no class, and yet many act on it: see check_directions
    if architecture:
        raise ModelError(
            f"{folder}: config.json sets {_listed(architecture)}, which the {config.model_type} model of transformers "
            "does not have: its embeddings would be those of another model. Choose a base that transformers supports"
        )
    rest = {key: value for key, value in unread.items() if not ARCHITECTURE.search(key) and value is not None}
    if rest:
        log.warning("%s: config.json sets %s, which %s ignores", folder, _listed(rest), type(config).__name__)


def _is_usual(value: Any) -> bool:
    """Whether the value of a key of the architecture asks for nothing unusual."""
    return not value or value in ("absolute", "full", "self")


def _is_usual_rope(key: str, value: Any) -> bool:
    return bool(ROPE.match(key) or (FRACTION.match(key) and value in (None, 1)))


@torch.no_grad()
def check_directions(content: dict[str, Any], module: PreTrainedModel, folder: Path) -> None:
    """Raise ModelError if config.json lets tokens see later ones and the model does not, or the other way round."""
    wanted = content.get("use_bidirectional_attention", not content.get("is_causal", True))
    if not {"use_bidirectional_attention", "is_causal"} & set(content) or wanted not in (True, False):
        return
    ids = torch.tensor([[1, 2, 3], [1, 2, 4]], device=module.device)
    was_training = module.training
    module.eval()
    states = module(input_ids=ids).last_hidden_state[:, 0]
    module.train(was_training)
    if torch.allclose(states[0], states[1], atol=1e-6) == wanted:
        raise ModelError(
            f"{folder}: config.json asks for {'bidirectional' if wanted else 'causal'} attention, and "
            f"{type(module).__name__} does not act on it: its embeddings would be those of another model"
        )


def _listed(keys: dict[str, Any]) -> str:
    return ", ".join(f"{key}: {str(value)[:40]}" for key, value in keys.items())


def rope_keys(config: PretrainedConfig) -> dict[str, Any]:
    """The keys of transformers 4 for the rotary embeddings of a config of transformers 5, which reads both.

    A key that would change what transformers 5 reads is left out: `rope_scaling` is that of all layers for some models.
    """
    content = config.to_dict()
    rope: dict[str, Any] = content.get("rope_parameters") or {}
    local, full = rope.get("sliding_attention"), rope.get("full_attention") or rope
    global_key, local_key = ROPE_KEYS.get(config.model_type, ("rope_theta", "rope_local_base_freq"))
    keys = {global_key: full.get("rope_theta"), local_key: local and local.get("rope_theta")}
    if full.get("rope_type", "default") != "default":
        keys["rope_scaling"] = {key: value for key, value in full.items() if key != "rope_theta"}
    return {key: value for key, value in keys.items() if value is not None and _reads_alike(config, key, value)}


def _reads_alike(config: PretrainedConfig, key: str, value: Any) -> bool:
    try:
        read = type(config).from_dict(deepcopy(config.to_dict() | {key: value}))
    except Exception:  # a config raises anything
        return False
    return bool(read.rope_parameters == config.rope_parameters)

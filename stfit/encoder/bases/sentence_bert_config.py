"""sentence_bert_config.json: what sentence-transformers adds to the config of a transformer."""

from pathlib import Path
from typing import Any

from stfit.encoder.folder.files import read_json
from stfit.errors import ModelError
from stfit.io.json_files import write_json

FILE = "sentence_bert_config.json"
FILES = [
    f"sentence_{architecture}_config.json"
    for architecture in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
"""Files with sentence-transformers' max_seq_length; the names after the first are those of its versions 0.x."""

USUAL_VALUES: dict[str, tuple[str, ...]] = {
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "processing_kwargs": (),
    "query_length": (),
    "document_length": (),
    "query_expansion": (),
}
HARMLESS_SETTINGS = (
    "add_pooling_layer",
    "attn_implementation",
    "dtype",
    "low_cpu_mem_usage",
    "padding_side",
    "torch_dtype",
    "trust_remote_code",
    "use_fast",
    "use_safetensors",
)
"""Arguments of transformers' classes, as a folder may store them, that change no embedding."""
TEXT_ALONE = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}


def read_sentence_bert_config(folder: Path) -> dict[str, Any]:
    """Raises ModelError for settings of version 6 that make other embeddings than those of the last layer."""
    contents = (read_json(folder / name, {}) for name in FILES)
    content: dict[str, Any] = next((content for content in contents if content), {})
    settings: dict[str, Any] = {}
    for key in ("tokenizer_args", "processor_kwargs", "model_args", "model_kwargs", "config_args", "config_kwargs"):
        settings |= content.get(key) or {}
    if unknown := sorted(set(settings) - {*HARMLESS_SETTINGS, "model_max_length", "truncation_side"}):
        raise ModelError(f"{folder}: {FILE} sets {', '.join(unknown)}, which stfit does not support")
    if "model_max_length" in settings:
        content["max_seq_length"] = settings["model_max_length"]
    if "truncation_side" in settings:
        content["truncation_side"] = settings["truncation_side"]
    modalities = content.get("modality_config") or TEXT_ALONE
    unusual = [key for key, values in USUAL_VALUES.items() if content.get(key) and content[key] not in values]
    if unusual or modalities != TEXT_ALONE:
        keys = ", ".join(unusual or ["modality_config"])
        raise ModelError(f"{folder}: sets {keys} of sentence-transformers 6 to a value that stfit does not support")
    return content


def write_sentence_bert_config(folder: Path, max_seq_length: int | None) -> None:
    """Versions of sentence-transformers before 6 read the limit here."""
    write_json(folder / FILE, {"max_seq_length": max_seq_length, "do_lower_case": False})

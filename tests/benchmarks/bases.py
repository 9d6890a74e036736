"""Bases of the benchmark: true widths and vocabularies, random weights, some layers left out, MiniLM's tokenizer."""

from pathlib import Path
from typing import Any

from runs import MODEL

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "distilroberta": ("Roberta", {"vocab_size": 50_265, "num_hidden_layers": 6, "max_position_embeddings": 514}),
    "mpnet": ("MPNet", {"vocab_size": 30_527, "num_hidden_layers": 3, "max_position_embeddings": 514}),
    "distilbert": ("DistilBert", {"n_layers": 3}),
    "xlm-roberta": ("XLMRoberta", {"vocab_size": 250_002, "num_hidden_layers": 3, "max_position_embeddings": 514}),
    "modernbert": ("ModernBert", {"num_hidden_layers": 4}),
    "deberta-v3": (
        "DebertaV2",
        {
            "vocab_size": 128_100,
            "hidden_size": 768,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "num_hidden_layers": 3,
            "type_vocab_size": 0,
            "relative_attention": True,
            "position_buckets": 256,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "max_relative_positions": -1,
        },
    ),
    "qwen3": (
        "Qwen3",
        {
            "vocab_size": 151_669,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 3,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
    ),
    "gemma3": (
        "Gemma3Text",
        {
            "vocab_size": 262_144,
            "hidden_size": 768,
            "intermediate_size": 1152,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "use_bidirectional_attention": True,
        },
    ),
}
"""Name -> prefix of the classes of transformers, and settings. Qwen3's are of Qwen3-Embedding-0.6B, Gemma's of
EmbeddingGemma; the others are of the base of that name."""

LAST_TOKEN = ("qwen3",)


def build_base(name: str, shared: Path, folder: Path) -> Path:
    """The folder of a base, in `folder` if it has to be built."""
    if name == "minilm":
        return shared / MODEL
    path = folder / name
    if not path.exists():
        import torch
        import transformers

        torch.manual_seed(0)
        prefix, settings = SHAPES[name]
        special = {
            "pad_token_id": 0,
            "bos_token_id": 101,
            "eos_token_id": 102,
            "cls_token_id": 101,
            "sep_token_id": 102,
        }
        config = getattr(transformers, f"{prefix}Config")(**settings, **special)
        getattr(transformers, f"{prefix}Model")(config).save_pretrained(path)
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(shared / MODEL / "tokenizer.json"),
            pad_token="[PAD]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            unk_token="[UNK]",
            mask_token="[MASK]",
            model_input_names=["input_ids", "attention_mask"],
            model_max_length=512,
        )
        tokenizer.save_pretrained(path)
    return path

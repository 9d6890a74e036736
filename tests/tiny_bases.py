"""Tiny plain checkpoints of many architectures: two layers, random weights."""

SENTENCES = [
    "A man is playing a guitar on stage.",
    "Someone plays an instrument in front of a crowd.",
    "The cat sleeps.",
    "Two children are building a castle of wet sand near the sea while their parents read.",
    "Cat!",
    "It rained all day, so we stayed inside and baked bread, then we read old letters aloud to each other.",
    "rain",
]


def word_pieces():
    from stfit.encoder.bases.bert_scratch import train_tokenizer

    return train_tokenizer(SENTENCES, 300)


def byte_pairs(special: dict[str, str], template: str | None):
    """A byte-level BPE tokenizer as RoBERTa (with a template) and the decoders (without) have."""
    from tokenizers import Tokenizer as HFTokenizer
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = HFTokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special.values()),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(SENTENCES, trainer)
    if template:
        tokens = [(token, backend.token_to_id(token)) for token in special.values()]
        backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=tokens)
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **special)


ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "cls_token": "<s>",
    "sep_token": "</s>",
}

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def bert():
    from transformers import BertConfig, BertModel

    tokenizer = word_pieces()
    return BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **SMALL)), tokenizer


def roberta():
    from transformers import RobertaConfig, RobertaModel

    tokenizer = byte_pairs(ROBERTA_TOKENS, "<s> $A </s>")
    return RobertaModel(RobertaConfig(**of_roberta(tokenizer))), tokenizer


def distilbert():
    from transformers import DistilBertConfig, DistilBertModel

    tokenizer = word_pieces()
    config = DistilBertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, dim=32, n_layers=2, n_heads=4, hidden_dim=64
    )
    return DistilBertModel(config), tokenizer


def xlm_roberta():
    from transformers import XLMRobertaConfig, XLMRobertaModel

    tokenizer = byte_pairs(ROBERTA_TOKENS, "<s> $A </s>")
    return XLMRobertaModel(XLMRobertaConfig(**of_roberta(tokenizer))), tokenizer


def of_roberta(tokenizer):
    """Settings of RoBERTa and its kin, whose positions begin after that of padding."""
    own = {"vocab_size": len(tokenizer), "max_position_embeddings": 66, "pad_token_id": tokenizer.pad_token_id}
    return {**SMALL, **own, "type_vocab_size": 1}


def mpnet():
    from transformers import MPNetConfig, MPNetModel

    tokenizer = byte_pairs(ROBERTA_TOKENS, "<s> $A </s>")
    return MPNetModel(MPNetConfig(**of_roberta(tokenizer))), tokenizer


def albert():
    from transformers import AlbertConfig, AlbertModel

    tokenizer = word_pieces()
    config = AlbertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, embedding_size=16, **SMALL)
    return AlbertModel(config), tokenizer


def electra():
    from transformers import ElectraConfig, ElectraModel

    tokenizer = word_pieces()
    config = ElectraConfig(vocab_size=len(tokenizer), max_position_embeddings=64, embedding_size=16, **SMALL)
    return ElectraModel(config), tokenizer


def deberta_v2():
    from transformers import DebertaV2Config, DebertaV2Model

    tokenizer = word_pieces()
    own = {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"], "share_att_key": True}
    config = DebertaV2Config(
        vocab_size=len(tokenizer),
        max_position_embeddings=64,
        position_biased_input=False,
        type_vocab_size=0,
        **own,
        **SMALL,
    )
    return DebertaV2Model(config), tokenizer


def modernbert():
    from transformers import ModernBertConfig, ModernBertModel

    tokenizer = word_pieces()
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=64,
        local_attention=8,
        global_attn_every_n_layers=2,
        **special,
        **SMALL,
    )
    return ModernBertModel(config), tokenizer


def t5():
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = byte_pairs({"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}, "$A </s>")
    config = T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    return T5ForConditionalGeneration(config), tokenizer


DECODER_TOKENS = {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}


def of_decoder(tokenizer):
    """Settings of decoders with grouped queries."""
    own = {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64}
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    return {**SMALL, **own, **special, "vocab_size": len(tokenizer)}


def gemma3(**own):
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    tokenizer = byte_pairs({"bos_token": "<bos>", "pad_token": "<pad>", "eos_token": "<eos>"}, "<bos> $A")
    special = {"bos_token_id": tokenizer.bos_token_id, "query_pre_attn_scalar": 8, "sliding_window": 8}
    kinds = {"layer_types": ["sliding_attention", "full_attention"]}
    return Gemma3ForCausalLM(Gemma3TextConfig(**of_decoder(tokenizer), **special, **kinds, **own)), tokenizer


def embedding_gemma():
    """Gemma 3 that sees both sides."""
    model, tokenizer = gemma3(use_bidirectional_attention=True)
    return model.model, tokenizer


def qwen3(padding_side="right"):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = byte_pairs(DECODER_TOKENS, None)
    tokenizer.padding_side = padding_side
    return Qwen3ForCausalLM(Qwen3Config(**of_decoder(tokenizer))), tokenizer


def qwen3_bidirectional():
    """Qwen3 whose config says that it sees both sides."""
    from transformers import Qwen3Config, Qwen3Model

    tokenizer = byte_pairs(DECODER_TOKENS, None)
    config = Qwen3Config(**of_decoder(tokenizer))
    config.is_causal = False
    return Qwen3Model(config), tokenizer


BUILDERS = {
    "bert": bert,
    "roberta": roberta,
    "distilbert": distilbert,
    "xlm-roberta": xlm_roberta,
    "mpnet": mpnet,
    "albert": albert,
    "electra": electra,
    "deberta-v2": deberta_v2,
    "modernbert": modernbert,
    "t5": t5,
    "gemma3": gemma3,
    "embedding-gemma": embedding_gemma,
    "qwen3": qwen3,
    "qwen3-left": lambda: qwen3("left"),
    "qwen3-bidirectional": qwen3_bidirectional,
}


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = byte_pairs({"eos_token": "<|endoftext|>"}, None)
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(
        GPT2Config(**sizes(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=64, **ids)
    ), tokenizer


def gpt_neox():
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    tokenizer = byte_pairs({"eos_token": "<|endoftext|>"}, None)
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    return GPTNeoXForCausalLM(GPTNeoXConfig(**sizes(tokenizer), **SMALL, max_position_embeddings=64, **ids)), tokenizer


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    special = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    tokenizer = byte_pairs(special, "<|begin_of_text|> $A")
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    config = LlamaConfig(**sizes(tokenizer), **SMALL, num_key_value_heads=2, max_position_embeddings=64, **ids)
    return LlamaForCausalLM(config), tokenizer


def sizes(tokenizer) -> dict[str, int]:
    return {"vocab_size": len(tokenizer)}


WITHOUT_PADDING = {"gpt2": gpt2, "gpt-neox": gpt_neox, "llama": llama}
"""Decoders without a padding token."""


def reranker(outputs=1):
    """A cross-encoder: it reads two texts together and gives one score."""
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = word_pieces()
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, num_labels=outputs, **SMALL)
    tokenizer.model_max_length = 64
    return BertForSequenceClassification(config), tokenizer


def roberta_reranker():
    from transformers import RobertaConfig, RobertaForSequenceClassification

    tokenizer = byte_pairs(ROBERTA_TOKENS, "<s> $A </s>")
    return RobertaForSequenceClassification(RobertaConfig(**of_roberta(tokenizer), num_labels=1)), tokenizer


def qwen3_reranker():
    """A decoder, whose last token is read: padding has to stay out of it."""
    from transformers import Qwen3Config, Qwen3ForSequenceClassification

    tokenizer = byte_pairs(DECODER_TOKENS, None)
    return Qwen3ForSequenceClassification(Qwen3Config(**of_decoder(tokenizer), num_labels=1)), tokenizer


RERANKERS = {
    "reranker": reranker,
    "reranker-of-two": lambda: reranker(2),
    "roberta-reranker": roberta_reranker,
    "qwen3-reranker": qwen3_reranker,
}

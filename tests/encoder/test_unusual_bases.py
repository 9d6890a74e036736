"""Bases whose config says something unusual are computed as transformers computes each text alone."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from tiny_bases import ROBERTA_TOKENS, SENTENCES, SMALL, byte_pairs, of_decoder, of_roberta, word_pieces
from versions import OLD_MODERNBERT, since

from stfit.encoder.build import build_encoder, load_encoder
from stfit.encoder.config import Model
from stfit.encoder.folder.inspect import inspect_folder
from stfit.encoder.folder.save import save_encoder
from stfit.errors import ModelError

LONG = " ".join(SENTENCES * 4)
TEXTS = [*SENTENCES, "<pad> rain <s> rain", LONG[:150], LONG]
DECODER_TOKENS = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def roberta(**own):
    tokenizer = byte_pairs(ROBERTA_TOKENS, "<s> $A </s>")
    return transformers.RobertaModel(transformers.RobertaConfig(**of_roberta(tokenizer) | own)), tokenizer


def mpnet():
    tokenizer = byte_pairs(ROBERTA_TOKENS, "<s> $A </s>")
    return transformers.MPNetModel(transformers.MPNetConfig(**of_roberta(tokenizer))), tokenizer


def convbert():
    tokenizer = word_pieces()
    own = {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "embedding_size": 32}
    return transformers.ConvBertModel(transformers.ConvBertConfig(**SMALL, **own)), tokenizer


def modernbert(**own):
    tokenizer = word_pieces()
    special = {f"{name}_token_id": tokenizer.pad_token_id for name in ("pad", "cls", "sep", "bos", "eos")}
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 512, "local_attention": 8}
    config = transformers.ModernBertConfig(**SMALL, **sizes, **special, global_attn_every_n_layers=2, **own)
    tokenizer.model_max_length = 512
    return transformers.ModernBertModel(config), tokenizer


def decoder(name, is_causal=True, **own):
    tokenizer = byte_pairs(DECODER_TOKENS, None)
    tokenizer.model_max_length = 512
    config = getattr(transformers, f"{name}Config")(
        **of_decoder(tokenizer) | {"max_position_embeddings": 512, "bos_token_id": 0} | own
    )
    if not is_causal:
        config.is_causal = False
    return getattr(transformers, f"{name}Model")(config), tokenizer


WINDOW = {"sliding_window": 24, "use_sliding_window": True, "max_window_layers": 1}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
LONGROPE = {
    "rope_type": "longrope",
    "long_factor": [2.0, 3.0, 4.0, 5.0],
    "short_factor": [1.0] * 4,
    "factor": 4.0,
    "rope_theta": 1e4,
    "original_max_position_embeddings": 64,
}
BASES = {
    "a padding token in a text has no position": roberta,
    "nor in MPNet": mpnet,
    "the padding of the config is another token": lambda: roberta(pad_token_id=0),
    "convolutions see padding": convbert,
    "a window in the mask alone": lambda: decoder("Qwen2Moe", **WINDOW, **EXPERTS),
    "a window of another width without causality": lambda: decoder("Qwen3", is_causal=False, **WINDOW),
    "a window that attention is told of": lambda: decoder("Qwen3", **WINDOW),
    "narrow windows": modernbert,
    "angles that the longest text changes": lambda: decoder("Llama", rope_parameters=LONGROPE),
}


def write(model, tokenizer, folder):
    torch.manual_seed(1)
    padding = getattr(model.get_input_embeddings(), "padding_idx", None)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4) if weight.ndim == 2 else weight.add_(torch.randn_like(weight) * 0.1)
        if padding is not None:
            model.get_input_embeddings().weight[padding] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


BIDIRECTIONAL = since("transformers", "5.1", "knows no bidirectional Qwen3 before, which is refused")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=BIDIRECTIONAL if "without causality" in kind else ()) for kind in BASES]
)
def test_a_text_is_embedded_as_transformers_embeds_it_alone(kind, tmp_path) -> None:
    encoder = build_encoder(Model(base=str(write(*BASES[kind](), tmp_path / "base")), pooling="mean"))
    plain = transformers.AutoModel.from_pretrained(tmp_path / "base").eval()
    alone = []
    with torch.no_grad():
        for ids in encoder.tokenizer(TEXTS):
            row = torch.from_numpy(ids.astype(np.int64))[None]
            alone.append(plain(input_ids=row, attention_mask=torch.ones_like(row)).last_hidden_state[0].mean(0).numpy())
    np.testing.assert_allclose(encoder.encode(TEXTS), np.array(alone), rtol=0, atol=1e-4)
    with torch.no_grad():
        trained = encoder.eval()(encoder.tokenizer(TEXTS)).numpy()
    np.testing.assert_allclose(trained, np.array(alone), rtol=0, atol=1e-4)


@OLD_MODERNBERT
def test_windows_of_a_base_are_as_they_were_after_the_probe(tmp_path) -> None:
    model, tokenizer = modernbert()
    model.config.local_attention = 31
    encoder = build_encoder(Model(base=str(write(model, tokenizer, tmp_path))))
    assert encoder.backbone.config.local_attention == 31
    assert {layer.attn.sliding_window for layer in encoder.backbone.layers} == {16, None}


@OLD_MODERNBERT
def test_narrow_windows_leave_the_gradients_of_long_texts_finite(tmp_path) -> None:
    write(*modernbert(), tmp_path)
    gradients = []
    for attention in ("fused", "padded"):
        encoder = build_encoder(Model(base=str(tmp_path), attention=attention)).eval()
        encoder(encoder.tokenizer(TEXTS)).pow(2).sum().backward()
        gradients.append({name: weight.grad for name, weight in encoder.named_parameters() if weight.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-3)


def test_a_window_that_attention_is_not_told_of_is_not_packed(tmp_path) -> None:
    write(*BASES["a window in the mask alone"](), tmp_path)
    assert build_encoder(Model(base=str(tmp_path))).layout.name == "padded"
    with pytest.raises(ModelError, match="packed does not work"):
        build_encoder(Model(base=str(tmp_path), attention="packed"))


@since("transformers", "5.1", "reads such a config wrongly before")
@pytest.mark.parametrize("rope", ["linear", "yarn"])
def test_angles_of_one_kind_of_layer_are_saved_as_they_are(rope, tmp_path) -> None:
    full = {"rope_type": rope, "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 64}
    local = {"rope_type": "default", "rope_theta": 10.0}
    write(*modernbert(rope_parameters={"full_attention": full, "sliding_attention": local}), tmp_path / "base")
    encoder = build_encoder(Model(base=str(tmp_path / "base")))
    save_encoder(encoder, tmp_path / "model")
    np.testing.assert_allclose(load_encoder(tmp_path / "model").encode(TEXTS), encoder.encode(TEXTS), atol=1e-5)
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (written["global_rope_theta"], written["local_rope_theta"]) == (1e4, 10.0)


def test_projected_token_embeddings_have_the_size_of_the_projection(tmp_path) -> None:
    tokenizer = byte_pairs(DECODER_TOKENS, None)
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 16, "ffn_dim": 64, "max_position_embeddings": 64}
    config = transformers.OPTConfig(vocab_size=len(tokenizer), num_hidden_layers=2, num_attention_heads=4, **sizes)
    write(transformers.OPTModel(config), tokenizer, tmp_path)
    encoder = build_encoder(Model(base=str(tmp_path), layers=[{"type": "dense", "out_features": 8}]))
    assert encoder.encode(SENTENCES).shape == (len(SENTENCES), 8)
    assert inspect_folder(tmp_path).hidden_size == encoder.base.dim == 16


@pytest.mark.parametrize("read_weights", [True, False], ids=["train", "check"])
@pytest.mark.parametrize(("name", "reason"), [("DPR", "last_hidden_state"), ("Bros", "bbox")])
def test_a_model_without_token_embeddings_of_a_text_is_refused(name, reason, read_weights, tmp_path) -> None:
    tokenizer = word_pieces()
    config = getattr(transformers, f"{name}Config")(vocab_size=len(tokenizer), max_position_embeddings=64, **SMALL)
    config.save_pretrained(tmp_path)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=f"makes no token embeddings from token ids alone .*{reason}"):
        build_encoder(Model(base=str(tmp_path)), read_weights=read_weights)


def test_attention_that_this_machine_may_lack_is_not_asked_for(tiny_base, tmp_path) -> None:
    shutil.copytree(tiny_base("bert"), tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps(config | {"_attn_implementation": "flash_attention_2"}))
    expected = build_encoder(Model(base=str(tiny_base("bert")))).encode(SENTENCES)
    np.testing.assert_allclose(build_encoder(Model(base=str(tmp_path / "base"))).encode(SENTENCES), expected, atol=1e-6)


def test_special_tokens_in_texts_are_split_if_the_folder_says_so(tiny_base, tmp_path) -> None:
    shutil.copytree(tiny_base("bert"), tmp_path / "base")
    path = tmp_path / "base" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"split_special_tokens": True}))
    encoder = build_encoder(Model(base=str(tmp_path / "base")))
    save_encoder(encoder, tmp_path / "model")
    for each in (encoder, load_encoder(tmp_path / "model")):
        assert each.tokenizer.hf_tokenizer.sep_token_id not in each.tokenizer(["rain [SEP] rain"])[0][:-1]
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "model").split_special_tokens

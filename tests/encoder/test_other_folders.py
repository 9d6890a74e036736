"""Folders that people have beside those of sentence-transformers: what is read of them, and what is said."""

import json
import shutil
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from st_reference import largest_error, st_encode
from tiny_bases import SENTENCES, gemma3
from transformers import AutoModel, AutoTokenizer, BertForMaskedLM, BertForSequenceClassification
from versions import since

from stfit.encoder.build import build_encoder, load_encoder
from stfit.encoder.config import Model
from stfit.encoder.folder.inspect import inspect_model
from stfit.encoder.folder.save import save_encoder
from stfit.errors import ModelError


def test_the_head_of_a_cross_encoder_is_said_to_be_dropped(tiny_base, tmp_path, caplog) -> None:
    shutil.copytree(tiny_base("bert"), tmp_path / "cross")
    BertForSequenceClassification.from_pretrained(tiny_base("bert"), num_labels=1).save_pretrained(tmp_path / "cross")
    load_encoder(tmp_path / "cross")
    assert "it is a BertForSequenceClassification, whose head is dropped" in caplog.text
    assert "pooled by mean" in caplog.text


def test_lost_modules_are_said_to_be_unread(tiny_base, tmp_path, caplog) -> None:
    save_encoder(build_encoder(Model(base=str(tiny_base("bert")), pooling="cls")), tmp_path / "model")
    load_encoder(tmp_path / "model")
    assert "modules.json" not in caplog.text
    (tmp_path / "model" / "modules.json").unlink()
    load_encoder(tmp_path / "model")
    assert (
        "it has 1_Pooling, config_sentence_transformers.json, sentence_bert_config.json, but no modules.json"
        in caplog.text
    )


@pytest.mark.parametrize("normalize", [True, False])
def test_model2vec_is_read_without_modules(tmp_path, normalize) -> None:
    from stfit.encoder.bases.bert_scratch import train_tokenizer

    backend = train_tokenizer(SENTENCES, 200).backend_tokenizer
    table = torch.randn(backend.get_vocab_size(), 8, generator=torch.Generator().manual_seed(0))
    (tmp_path / "model").mkdir()
    save_file({"embeddings": table}, tmp_path / "model" / "model.safetensors")
    backend.save(str(tmp_path / "model" / "tokenizer.json"))
    config = {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": normalize}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    ids = backend.encode(SENTENCES[0], add_special_tokens=False).ids
    expected = table[ids].mean(dim=0)
    expected = expected / expected.norm() if normalize else expected
    encoder = load_encoder(tmp_path / "model")
    np.testing.assert_allclose(encoder.encode(SENTENCES[:1])[0], expected.numpy(), atol=1e-6)
    assert inspect_model(Model(base=str(tmp_path / "model"))).output_dim == 8
    save_encoder(encoder, tmp_path / "saved")
    assert largest_error(encoder.encode(SENTENCES), st_encode(tmp_path / "saved", SENTENCES)) < 1e-5


@pytest.mark.parametrize("whole", [True, False])
def test_encoder_of_t5gemma_is_read_as_st_reads_it(tmp_path, whole) -> None:
    from transformers import T5GemmaConfig, T5GemmaEncoderModel, T5GemmaForConditionalGeneration

    decoder, tokenizer = gemma3()
    keys = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
            "intermediate_size", "max_position_embeddings", "query_pre_attn_scalar", "sliding_window", "layer_types",
            "pad_token_id", "vocab_size")  # fmt: skip
    sizes = {key: getattr(decoder.config, key) for key in keys}
    config = T5GemmaConfig(encoder=sizes, decoder=sizes, vocab_size=len(tokenizer), is_encoder_decoder=whole)
    (T5GemmaForConditionalGeneration if whole else T5GemmaEncoderModel)(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    expected = st_encode(tmp_path / "base", SENTENCES)
    encoder = load_encoder(tmp_path / "base")
    assert largest_error(encoder.encode(SENTENCES), expected) < 1e-5
    assert inspect_model(Model(base=str(tmp_path / "base"))).output_dim == encoder.embedding_dim
    save_encoder(encoder, tmp_path / "saved")
    assert largest_error(st_encode(tmp_path / "saved", SENTENCES), expected) < 1e-5


@pytest.fixture
def adapter(tiny_base, tmp_path):
    """A folder of an adapter as it is published, and the embeddings of its base with the adapter merged in."""
    peft = pytest.importorskip("peft", reason="pip install stfit[lora]")
    base = AutoModel.from_pretrained(tiny_base("bert"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns of its own calls of transformers
        model = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"]))
    torch.manual_seed(2)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    save_encoder(build_encoder(Model(base=str(tiny_base("bert")))), tmp_path / "adapter")
    for name in ("model.safetensors", "config.json"):
        (tmp_path / "adapter" / name).unlink()
    model.save_pretrained(tmp_path / "adapter")
    shutil.copytree(tiny_base("bert"), tmp_path / "whole")
    model.merge_and_unload().save_pretrained(tmp_path / "whole")
    return tmp_path / "adapter", load_encoder(tmp_path / "whole").encode(SENTENCES)


@pytest.mark.parametrize("has_modules", [True, False])
def test_a_folder_of_an_adapter_is_its_base_with_the_adapter(adapter, tmp_path, has_modules) -> None:
    folder, expected = adapter
    assert (folder / "adapter_config.json").is_file()
    if not has_modules:  # as peft itself saves
        (folder / "modules.json").unlink()
    encoder = load_encoder(folder)
    assert largest_error(encoder.encode(SENTENCES), expected) < 1e-5
    assert inspect_model(Model(base=str(folder))).hidden_size == 32
    save_encoder(encoder, tmp_path / "merged")
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    assert largest_error(load_encoder(tmp_path / "merged").encode(SENTENCES), expected) < 1e-5


def published(peft, head, tiny_base, folder, kind="bert", targets=("query", "value")):
    """An adapter that was trained under a head, and what its base gives with it."""
    model = head.from_pretrained(tiny_base(kind))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=list(targets)))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    adapted.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_base(kind)).save_pretrained(folder)
    whole = shutil.copytree(tiny_base(kind), folder.parent / "merged")
    (adapted.merge_and_unload().base_model if head is not AutoModel else adapted.merge_and_unload()).save_pretrained(
        whole
    )
    return load_encoder(whole).encode(SENTENCES)


@pytest.mark.parametrize("head", [AutoModel, BertForSequenceClassification, BertForMaskedLM])
def test_an_adapter_trained_under_a_head_is_that_of_its_encoder_and_trains_on(head, tiny_base, tmp_path) -> None:
    peft = pytest.importorskip("peft", reason="pip install stfit[lora]")
    expected = published(peft, head, tiny_base, tmp_path / "adapter")
    encoder = load_encoder(tmp_path / "adapter")
    assert largest_error(encoder.encode(SENTENCES), expected) < 1e-5
    assert all(weight.requires_grad for weight in encoder.parameters())
    build_encoder(Model(base=str(tmp_path / "adapter")), read_weights=False)  # as `check` does


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: dict(list(weights.items())[::2]), "does not fit the base .*missing: "),
        (
            lambda weights: {f"base_model.model.other.{name[17:]}": weight for name, weight in weights.items()},
            "missing: ",
        ),
        (lambda weights: {name: weight * float("nan") for name, weight in weights.items()}, "not finite: "),
        (lambda weights: {}, "missing: "),
    ],
    ids=["half of it", "of another model", "NaN", "empty"],
)
def test_an_adapter_that_does_not_fit_its_base_is_refused(tiny_base, tmp_path, change, message) -> None:
    peft = pytest.importorskip("peft", reason="pip install stfit[lora]")
    published(peft, AutoModel, tiny_base, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=message):
        load_encoder(tmp_path / "adapter")


@pytest.mark.parametrize("kind", ["CrossEncoder", "SparseEncoder"])
def test_the_modules_of_another_kind_of_model_are_not_read(tiny_base, tmp_path, caplog, kind) -> None:
    save_encoder(build_encoder(Model(base=str(tiny_base("bert")), layers=["normalize"])), tmp_path / "model")
    path = tmp_path / "model" / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": kind}))
    assert (
        largest_error(load_encoder(tmp_path / "model").encode(SENTENCES), st_encode(tmp_path / "model", SENTENCES))
        < 1e-5
    )
    assert f"it is a {kind}, whose modules are not read" in caplog.text


def test_layers_of_the_base_of_an_adapter_are_not_read_and_a_warning_says_so(adapter, tiny_base, tmp_path, caplog):
    folder, expected = adapter
    dense = {"type": "dense", "out_features": 4}
    save_encoder(build_encoder(Model(base=str(tiny_base("bert")), layers=[dense])), tmp_path / "base")
    config = json.loads((folder / "adapter_config.json").read_text())
    changed = config | {"base_model_name_or_path": str(tmp_path / "base")}
    (folder / "adapter_config.json").write_text(json.dumps(changed))
    (folder / "modules.json").unlink()
    assert largest_error(load_encoder(folder).encode(SENTENCES), expected) < 1e-5
    assert "has a modules.json, but the adapter has none" in caplog.text
    assert inspect_model(Model(base=str(folder))).dropped is not None


def test_an_adapter_without_its_base_says_so(adapter) -> None:
    folder, _ = adapter
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "/nowhere/base"}))
    with pytest.raises(ModelError, match="/nowhere/base does not exist"):
        load_encoder(folder)


SOFT_PROMPT = {"num_virtual_tokens": 2, "task_type": "FEATURE_EXTRACTION"}
VB_LORA = {"target_modules": ["query"], "num_vectors": 16, "vector_length": 8, "topk": 2}


@since("peft", "0.19", "saves what is not finite before")
def test_an_adapter_with_its_frozen_selection_is_merged_and_one_that_cannot_be_merged_is_refused(tiny_base, tmp_path):
    peft = pytest.importorskip("peft", reason="pip install stfit[lora]")
    configs = {
        "PROMPT_TUNING.* can't be merged": peft.PromptTuningConfig(**SOFT_PROMPT),
        "can't be merged into the base: NotImplementedError": peft.PolyConfig(target_modules=["query"]),
        "": peft.VBLoRAConfig(**VB_LORA, save_only_topk_weights=True),
    }
    for number, (message, config) in enumerate(configs.items()):
        folder = tmp_path / str(number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft warns of its own calls of transformers
            peft.get_peft_model(AutoModel.from_pretrained(tiny_base("bert")), config).save_pretrained(folder)
        with pytest.raises(ModelError, match=message) if message else nullcontext():
            load_encoder(folder)


def test_the_part_of_an_adapter_that_belongs_to_a_decoder_is_not_read(tiny_base, tmp_path) -> None:
    peft = pytest.importorskip("peft", reason="pip install stfit[lora]")
    expected = published(peft, AutoModel, tiny_base, tmp_path / "adapter", "t5", ["q", "v"])
    np.testing.assert_allclose(load_encoder(tmp_path / "adapter").encode(SENTENCES), expected, atol=1e-5)


def test_an_adapter_brings_the_vectors_of_added_tokens(tiny_base, tmp_path) -> None:
    peft = pytest.importorskip("peft", reason="pip install stfit[lora]")
    base, tokenizer = (kind.from_pretrained(tiny_base("bert")) for kind in (AutoModel, AutoTokenizer))
    tokenizer.add_tokens(["<new>"], special_tokens=True)
    base.resize_token_embeddings(len(tokenizer))
    config = peft.LoraConfig(r=4, target_modules=["query"], modules_to_save=["word_embeddings"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns of its own calls of transformers
        model = peft.get_peft_model(base, config)
        model.peft_config["default"].base_model_name_or_path = str(tiny_base("bert"))
        model.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([tokenizer("<new> cat").input_ids])
    with torch.no_grad():
        expected = model(input_ids=ids).last_hidden_state.mean(dim=1).numpy()
    assert largest_error(load_encoder(tmp_path / "adapter").encode(["<new> cat"]), expected) < 1e-5


@pytest.mark.parametrize("target", [None, ["c_attn"]])
def test_adapters_fit_the_linear_layers_of_gpt2(tiny_base, tmp_path, target) -> None:
    pytest.importorskip("peft", reason="pip install stfit[lora]")
    settings = {"base": str(tiny_base("gpt2")), "lora": {"rank": 2, "target": target}}
    encoder = build_encoder(Model.model_validate(settings))
    adapted = {name for name, weight in encoder.named_parameters() if "lora_" in name and weight.requires_grad}
    assert any("c_attn" in name for name in adapted)
    for name, weight in encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    save_encoder(encoder, tmp_path / "model")
    assert largest_error(load_encoder(tmp_path / "model").encode(SENTENCES), encoder.encode(SENTENCES)) < 1e-5
    base = AutoModel.from_pretrained(tiny_base("gpt2")).state_dict()
    merged = AutoModel.from_pretrained(tmp_path / "model").state_dict()
    assert any(not torch.equal(base[name], merged[name]) for name in base)

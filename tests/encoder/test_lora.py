"""Adapters: they alone learn, and a model folder has them merged."""

import numpy as np
import pytest
import torch

from stfit.encoder.build import build_encoder, load_encoder
from stfit.encoder.config import Model
from stfit.encoder.folder.save import save_encoder
from stfit.encoder.lora import Lora, adapted_linears, merged_weights
from stfit.errors import ModelError

KINDS = ["bert", "mpnet", "modernbert", "distilbert", "t5", "qwen3"]


@pytest.fixture
def build(tiny_base):
    """An encoder of a tiny base, with adapters that have learnt something where `moved`."""

    def build_tiny(kind="bert", moved=True, **settings):
        torch.manual_seed(1)
        encoder = build_encoder(Model(base=str(tiny_base(kind)), lora=Lora(**settings)))
        with torch.no_grad():
            for module in adapted_linears(encoder.backbone).values() if moved else ():
                module.lora_B["default"].weight.normal_(std=0.1)
        return encoder

    return build_tiny


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_holds_the_merged_weights_under_the_names_of_the_base(build, tiny_base, tmp_path, sentences, kind):
    encoder = build(kind)
    save_encoder(encoder, tmp_path)
    merged = load_encoder(tmp_path)
    plain = load_encoder(tiny_base(kind))
    assert not adapted_linears(merged.backbone)
    assert merged.backbone.state_dict().keys() == plain.backbone.state_dict().keys()
    embedding = encoder.encode(sentences)
    assert np.abs(merged.encode(sentences) - embedding).max() < 1e-5
    assert np.abs(plain.encode(sentences) - embedding).max() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_packed_layouts_with_adapters_equal_the_padded_one(build, sentences, kind):
    encoder = build(kind).eval()
    tokens = encoder.tokenizer(sentences)
    from stfit.encoder.kernels.packing import Layout, forward_padded

    chosen = encoder(tokens)
    encoder.backbone.set_attn_implementation("sdpa" if kind != "t5" else "eager")
    encoder.layout = Layout("padded", forward_padded, "")
    assert (encoder(tokens) - chosen).abs().max() < 1e-5


def test_only_adapters_and_layers_after_pooling_learn(tiny_base):
    layers = [{"type": "dense", "out_features": 4}]
    encoder = build_encoder(Model.model_validate({"base": str(tiny_base("bert")), "lora": {}, "layers": layers}))
    learning = {name for name, weight in encoder.named_parameters() if weight.requires_grad}
    assert learning == {name for name, _ in encoder.named_parameters() if ".lora_" in name or name[:8] == "layers.0"}
    encoder.train()
    encoder(encoder.tokenizer(["a cat"])).sum().backward()
    moved = {name for name, weight in encoder.named_parameters() if weight.grad is not None}
    assert moved == learning


def test_a_target_is_the_end_of_a_name(build):
    names = list(adapted_linears(build(target=["query", "output.dense"]).backbone))
    assert len(names) == 2 * 3  # two layers of a query and the two maps called output.dense
    with pytest.raises(ModelError, match=r"`kwery` matches no linear layer .* has dense, key, query, value"):
        build(target=["kwery"])


def test_adapters_that_have_learnt_nothing_make_no_model(build, tmp_path):
    with pytest.raises(ModelError, match="the merged weights equal those of the base"):
        save_encoder(build(moved=False), tmp_path)
    assert merged_weights(torch.nn.Linear(2, 2)) is None


def test_a_base_from_nothing_is_refused():
    with pytest.raises(ValueError, match="adapts pretrained weights"):
        Model.model_validate({"base": {"type": "scratch"}, "lora": {}})

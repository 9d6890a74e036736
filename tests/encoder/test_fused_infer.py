"""The fused forward gives the embeddings of the layout it stands in for, with the weights of the moment."""

import numpy as np
import pytest
import torch
from versions import OLD_MODERNBERT

from stfit.encoder.build import build_encoder
from stfit.encoder.config import Model
from stfit.encoder.kernels.fused_infer import fused_supports, fused_works


@pytest.mark.parametrize(
    ("kind", "fused"),
    [
        ("bert", True),
        ("roberta", True),
        ("distilbert", True),
        ("mpnet", True),
        pytest.param("modernbert", True, marks=OLD_MODERNBERT),
        ("deberta-v2", True),
        ("qwen3", False),
    ],
)
def test_fused_is_chosen_where_it_equals_the_layout(tiny_base, sentences, kind, fused) -> None:
    encoder = build_encoder(Model(base=str(tiny_base(kind))))
    assert encoder.fused == fused
    with torch.no_grad():
        expected = encoder.eval()(encoder.tokenizer(sentences)).numpy()
    np.testing.assert_allclose(encoder.encode(sentences), expected, rtol=0, atol=1e-5)


def test_fused_equals_the_padded_forward_of_a_real_model(minilm, sentences) -> None:
    fused = build_encoder(Model(base=str(minilm)))
    padded = build_encoder(Model(base=str(minilm), attention="padded"))
    assert (fused.fused, padded.fused) == (True, False)
    texts = [*sentences, " ".join(sentences * 9)]
    np.testing.assert_allclose(
        fused.encode(texts, normalize=True), padded.encode(texts, normalize=True), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("name", ["encoder.layer.1.attention.self.key.bias", "embeddings.LayerNorm.weight"])
def test_encode_sees_weights_that_have_moved(tiny_base, sentences, name) -> None:
    encoder = build_encoder(Model(base=str(tiny_base("bert"))))
    before = encoder.encode(sentences)
    with torch.no_grad():
        encoder.backbone.get_parameter(name).add_(torch.linspace(0, 1, 32))
        expected = encoder.eval()(encoder.tokenizer(sentences)).numpy()
    after = encoder.encode(sentences)
    np.testing.assert_allclose(after, expected, rtol=0, atol=1e-5)
    assert name.endswith("key.bias") or np.abs(after - before).max() > 1e-2  # a key's bias moves every score alike


def test_a_model_that_computes_otherwise_is_not_fused(tiny_base) -> None:
    encoder = build_encoder(Model(base=str(tiny_base("bert")), attention="padded"))
    assert fused_works(encoder.backbone, encoder.layout.forward)
    encoder.backbone.encoder.layer[1].output.dense.register_forward_hook(lambda module, inputs, output: output * 1.001)
    assert not fused_works(encoder.backbone, encoder.layout.forward)


@pytest.mark.parametrize(
    "kind", ["bert", "distilbert", "mpnet", pytest.param("modernbert", marks=OLD_MODERNBERT), "deberta-v2"]
)
def test_fast_is_close_and_not_the_same(tiny_base, sentences, kind) -> None:
    encoder = build_encoder(Model(base=str(tiny_base(kind))))
    exact = encoder.embed(encoder.tokenizer(sentences), normalize=True)
    fast = encoder.embed(encoder.tokenizer(sentences), normalize=True, fast=True)
    assert 0.99 < (exact * fast).sum(axis=1).min() < 1 - 1e-7


def test_a_cpu_whose_products_lack_the_data_type_takes_the_layout(tiny_base, sentences, monkeypatch) -> None:
    encoder = build_encoder(Model(base=str(tiny_base("bert"))))
    reorder = torch.ops.mkldnn._reorder_linear_weight

    def refuse(weight, *args):
        if weight.dtype == torch.bfloat16:
            raise RuntimeError("bf16 path needs the cpu support")
        return reorder(weight, *args)

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", refuse)
    fused_supports.cache_clear()
    try:
        exact, fast = (
            encoder.embed(encoder.tokenizer(sentences), normalize=True, fast=is_fast) for is_fast in (False, True)
        )
        assert (fused_supports(torch.float32), fused_supports(torch.bfloat16)) == (True, False)
    finally:
        fused_supports.cache_clear()
    assert 0.99 < (exact * fast).sum(axis=1).min() < 1 - 1e-7


def test_cores_do_not_change_embeddings_and_are_left_as_they_were(tiny_base, sentences) -> None:
    encoder = build_encoder(Model(base=str(tiny_base("bert"))))
    cores = torch.get_num_threads()
    try:
        found = {}
        for count in (1, 3):
            torch.set_num_threads(count)
            found[count] = encoder.encode(sentences)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(cores)
    np.testing.assert_allclose(found[1], found[3], rtol=0, atol=1e-5)

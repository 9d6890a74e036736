"""Every layout gives the same embeddings and gradients, whatever the lengths."""

import numpy as np
import pytest
import torch
from versions import OLD_MODERNBERT

from stfit.encoder.build import build_encoder
from stfit.encoder.config import Model
from stfit.encoder.kernels.packing import RECTANGLE_TOKENS, cut_rectangles
from stfit.errors import ModelError

MODERNBERT = pytest.param("modernbert", marks=OLD_MODERNBERT)
FUSED = ["bert", "roberta", "electra", "distilbert", "mpnet", MODERNBERT, "deberta-v2"]
PACKED = ["bert", "roberta", "distilbert", "qwen3"]
CASES = [("packed", kind) for kind in PACKED] + [("fused", kind) for kind in FUSED if kind != MODERNBERT]
CASES += [pytest.param("fused", "modernbert", marks=OLD_MODERNBERT)]


def encoders(base, attention):
    return [build_encoder(Model(base=str(base), attention=chosen)) for chosen in (attention, "padded")]


@pytest.mark.parametrize(("attention", "kind"), CASES)
def test_every_layout_gives_the_padded_embeddings(tiny_base, sentences, attention, kind) -> None:
    encoder, padded = encoders(tiny_base(kind), attention)
    assert (encoder.layout.name, padded.layout.name) == (attention, "padded")
    one, other = (each(each.tokenizer(sentences)).detach().numpy() for each in (encoder.eval(), padded.eval()))
    assert (np.linalg.norm(one - other, axis=1) / np.linalg.norm(other, axis=1).clip(min=1)).max() < 1e-5


@pytest.mark.parametrize(("attention", "kind"), CASES)
def test_every_layout_gives_the_padded_gradients(tiny_base, sentences, attention, kind) -> None:
    gradients = []
    for encoder in encoders(tiny_base(kind), attention):
        encoder.double().eval()
        embedding = encoder(encoder.tokenizer(sentences))
        (embedding * torch.linspace(-1, 1, embedding.numel(), dtype=torch.float64).view_as(embedding)).sum().backward()
        gradients.append({name: weight.grad for name, weight in encoder.named_parameters() if weight.grad is not None})
    one, other = gradients
    assert one.keys() == other.keys()
    is_rough = kind in ("modernbert", "deberta-v2")  # transformers rotates, and takes a root, in float32
    tolerance = {"rtol": 1e-5, "atol": 1e-7} if is_rough else {"rtol": 1e-9, "atol": 1e-11}
    for name in one:
        torch.testing.assert_close(one[name], other[name], **tolerance)


@pytest.mark.parametrize("kind", FUSED)
def test_fused_layers_run_in_bfloat16(tiny_base, sentences, kind) -> None:
    embeddings = []
    for encoder in encoders(tiny_base(kind), "fused"):
        encoder.eval().precision = "bfloat16"
        embeddings.append(encoder(encoder.tokenizer(sentences)))
    (encoder, padded), nodes = embeddings, [embeddings[0].grad_fn]
    for node in nodes:
        nodes += [parent for parent, _ in node.next_functions if parent]
    assert any(type(node).__name__ == "FusedLayerBackward" for node in nodes)
    apart = (encoder - padded).norm(dim=1) / padded.norm(dim=1)
    assert 0 < apart.max() < 0.03


@pytest.mark.parametrize(
    ("attention", "kind"), [*(case for case in CASES if "packed" not in case), ("packed", "qwen3"), ("padded", "t5")]
)
def test_auto_takes_the_fastest_layout_that_a_base_can_do(tiny_base, attention, kind) -> None:
    assert build_encoder(Model(base=str(tiny_base(kind)))).layout.name == attention


def test_a_torch_without_the_product_of_the_fused_layers_packs(tiny_base, monkeypatch) -> None:
    def missing(*_) -> None:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", missing)
    assert build_encoder(Model(base=str(tiny_base("bert")))).layout.name == "packed"
    with pytest.raises(ModelError, match=r"fused does not work for this base .*_linear_pointwise"):
        build_encoder(Model(base=str(tiny_base("bert")), attention="fused"))


def test_a_layout_that_a_base_can_not_do_is_refused_when_wanted(tiny_base) -> None:
    with pytest.raises(ModelError, match="its layers are not built like those of BERT"):
        build_encoder(Model(base=str(tiny_base("qwen3")), attention="fused"))


@pytest.mark.parametrize("attention", ["packed", "padded"])
def test_an_embedding_does_not_depend_on_its_neighbours(tiny_base, sentences, attention) -> None:
    encoder = build_encoder(Model(base=str(tiny_base("bert")), attention=attention))
    together = encoder.encode(sentences)
    alone = np.concatenate([encoder.encode([sentence]) for sentence in sentences])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


def test_rectangles_hold_everything_once_and_stay_small() -> None:
    lengths = np.sort(np.random.default_rng(0).integers(1, 512, 300))
    rectangles = cut_rectangles(lengths)
    assert [i for rectangle in rectangles for i in range(len(lengths))[rectangle]] == list(range(len(lengths)))
    assert all((r.stop - r.start) * lengths[r.stop - 1] <= RECTANGLE_TOKENS for r in rectangles)
    assert cut_rectangles(np.array([RECTANGLE_TOKENS * 2])) == [slice(0, 1)]

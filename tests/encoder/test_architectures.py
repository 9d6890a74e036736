"""Every architecture trains, is saved, and means the same to sentence-transformers.

`pytest -s tests/encoder/test_architectures.py` prints the table.
"""

import pytest
from draws import every
from st_reference import largest_error, st_encode
from tiny_bases import WITHOUT_PADDING
from transformers import (
    BartConfig,
    CLIPConfig,
    CLIPTextConfig,
    CLIPVisionConfig,
    ViTConfig,
)

from stfit.encoder.build import build_encoder, load_encoder
from stfit.encoder.config import Model
from stfit.encoder.folder.save import save_encoder
from stfit.errors import ModelError

pytest.importorskip("sentence_transformers", reason="pip install stfit[sentence-transformers]")

LAYOUTS = {
    "bert": "fused",
    "roberta": "fused",
    "distilbert": "fused",
    "xlm-roberta": "fused",
    "mpnet": "fused",
    "albert": "packed",
    "electra": "fused",
    "deberta-v2": "fused",
    "modernbert": "fused",
    "t5": "padded",
    "gemma3": "packed",
    "embedding-gemma": "packed",
    "qwen3": "packed",
    "qwen3-left": "packed",
    "qwen3-bidirectional": "packed",
}
"""Architecture -> how its batches are laid out: MPNet, DeBERTa and T5 add biases of their own to the attention."""

CAUSAL = {"gemma3", "qwen3", "qwen3-left"}


@pytest.mark.parametrize("kind", every(2, LAYOUTS))
def test_an_architecture_trains_and_its_folder_agrees_with_st(kind, tiny_base, two_steps, sentences, tmp_path, table):
    encoder = build_encoder(Model(base=str(tiny_base(kind))))
    assert encoder.layout.name == LAYOUTS[kind]
    assert encoder.config.pooling == ("last_token" if kind in CAUSAL else "mean",)
    untrained = encoder.encode(sentences)
    moved = two_steps(encoder)
    save_encoder(encoder, tmp_path / "model")
    ours, theirs = encoder.encode(sentences), st_encode(tmp_path / "model", sentences)
    assert largest_error(ours, untrained) > 1e-2
    assert largest_error(load_encoder(tmp_path / "model").encode(sentences), ours) < 1e-6
    error = largest_error(ours, theirs)
    table.append(
        {
            "architecture": kind,
            "trains": f"{len(moved)} of {len(list(encoder.parameters()))} weights move",
            "saves": "yes, and loads again",
            "error": f"{error:.0e}",
            "layout": encoder.layout.name,
            "pooling": ", ".join(encoder.config.pooling),
        }
    )
    assert error < 1e-5


@pytest.mark.parametrize("attention", ["packed", "padded"])
@pytest.mark.parametrize("kind", ["qwen3-bidirectional", "embedding-gemma", "qwen3"])
def test_a_decoder_sees_both_sides_where_its_config_says_so(kind, attention, tiny_base) -> None:
    encoder = build_encoder(Model(base=str(tiny_base(kind)), pooling="cls", attention=attention))
    one, other = encoder.encode(["rain then bread", "rain then crowd"])
    assert (one != other).any() == (kind != "qwen3")


@pytest.mark.parametrize("kind", ["gemma3", "qwen3", "qwen3-left"])
def test_a_causal_decoder_ends_every_text_with_eos_also_when_loaded_again(kind, tiny_base, sentences, tmp_path) -> None:
    encoder = build_encoder(Model(base=str(tiny_base(kind)), max_seq_length=8))
    save_encoder(encoder, tmp_path / "model")
    for each in (encoder, load_encoder(tmp_path / "model")):
        assert {sequence[-1] for sequence in each.tokenizer([*sentences, ""])} == {
            each.tokenizer.hf_tokenizer.eos_token_id
        }
    texts = [*sentences, ""]
    assert largest_error(encoder.encode(texts), st_encode(tmp_path / "model", texts)) < 1e-5
    without = build_encoder(Model(base=str(tiny_base(kind)), append_eos=False))
    assert largest_error(without.encode(sentences), encoder.encode(sentences)) > 1e-2


@pytest.mark.parametrize("pooling", ["last_token", "mean"])
@pytest.mark.parametrize("kind", WITHOUT_PADDING)
def test_a_decoder_without_a_padding_token_is_saved_with_one(kind, pooling, tiny_base, sentences, tmp_path) -> None:
    encoder = build_encoder(Model(base=str(tiny_base(kind)), pooling=pooling))
    save_encoder(encoder, tmp_path / "model")
    assert largest_error(encoder.encode(sentences), st_encode(tmp_path / "model", sentences)) < 1e-5


@pytest.mark.parametrize("kind", WITHOUT_PADDING)
def test_a_plain_decoder_is_pooled_by_its_last_token_which_ends_the_text(kind, tiny_base) -> None:
    encoder = build_encoder(Model(base=str(tiny_base(kind))))
    assert encoder.config.pooling == ("last_token",)
    assert encoder.tokenizer.ends_texts


def clip() -> CLIPConfig:
    return CLIPConfig(text_config=CLIPTextConfig().to_dict(), vision_config=CLIPVisionConfig().to_dict())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (BartConfig, "a `bart` model is an encoder-decoder"),
        (ViTConfig, "a `vit` model reads pixel_values, not text"),
        (clip, "a `clip` model is not a text-only model: it has a vision_config"),
    ],
)
def test_a_base_without_a_text_encoder_says_what_it_is(make, reason, tmp_path) -> None:
    make().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=reason) as caught:
        build_encoder(Model(base=str(tmp_path)))
    assert caught.value.exit_code == 4


def test_an_unknown_model_type_is_named(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}')
    with pytest.raises(ModelError, match="nonsense"):
        build_encoder(Model(base=str(tmp_path)))


def test_a_base_without_a_fast_tokenizer_is_refused(tiny_base, tmp_path) -> None:
    import shutil

    shutil.copytree(tiny_base("bert"), tmp_path / "base")
    (tmp_path / "base" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        build_encoder(Model(base=str(tmp_path / "base")))

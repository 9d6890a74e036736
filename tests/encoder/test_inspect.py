"""What is known of a base from its small files is true of the built encoder."""

import json

import pytest

from stfit.encoder.bases.transformer import count_positions
from stfit.encoder.build import build_encoder
from stfit.encoder.config import Model
from stfit.encoder.folder.inspect import inspect_model
from stfit.encoder.folder.save import save_encoder
from stfit.errors import ModelError


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_a_checkpoint_is_described_as_the_encoder_is(kind, tiny_base):
    model = Model(base=str(tiny_base(kind)))
    info, encoder = inspect_model(model), build_encoder(model)
    assert info.max_seq_length == encoder.tokenizer.max_seq_length
    assert info.positions == count_positions(encoder.backbone.config.to_dict())
    assert info.hidden_size == encoder.embedding_dim
    assert info.num_layers == 2
    assert info.parameters == sum(weight.numel() for weight in encoder.backbone.parameters())
    untruncated, truncated = (
        tokenize(["a cat", "rain " * 99]) for tokenize in (info.load_tokenizer(), encoder.tokenizer)
    )
    assert list(untruncated[0]) == list(truncated[0])
    assert len(untruncated[1]) > len(truncated[1])
    assert info.config is None


def test_a_sentence_transformers_model_has_modules_and_prompts(tiny_base, tmp_path):
    model = Model.model_validate(
        {
            "base": str(tiny_base("bert")),
            "max_seq_length": 20,
            "pooling": ["cls", "mean_sqrt_len"],
            "layers": [{"type": "layer_norm"}, {"type": "normalize"}],
            "prompts": {"query": "query: "},
            "default_prompt": "query",
        }
    )
    save_encoder(build_encoder(model), tmp_path)
    info = inspect_model(Model(base=str(tmp_path)))
    assert (info.max_seq_length, info.config.pooling) == (20, ("cls", "mean_sqrt_len"))
    assert info.config.layers == model.layers
    assert (info.prompts, info.default_prompt) == ({"query": "query: "}, "query")


def test_a_folder_without_a_model_and_a_damaged_one_are_refused(tmp_path):
    for content, reason in ((None, "is not a model folder"), ("{", "can't be read as JSON")):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(ModelError, match=reason):
            inspect_model(Model(base=str(tmp_path)))


def test_weights_with_a_damaged_header_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8}))
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(ModelError, match="its header can't be read"):
        inspect_model(Model(base=str(tmp_path)))

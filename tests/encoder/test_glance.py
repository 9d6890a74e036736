"""What a glance at a base's small files tells is what the built encoder has."""

import json

import pytest

from stfit.encoder.bases.transformer import position_limit
from stfit.encoder.build import build_encoder
from stfit.encoder.config import Model
from stfit.encoder.folder.inspect import inspect_model
from stfit.encoder.folder.save import save_encoder
from stfit.errors import ModelError


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_a_glance_at_a_checkpoint_tells_what_the_encoder_has(kind, tiny_base):
    settings = Model(base=str(tiny_base(kind)))
    glance, encoder = inspect_model(settings), build_encoder(settings)
    assert glance.max_seq_length == encoder.tokenizer.max_seq_length
    assert glance.positions == position_limit(encoder.backbone.config)
    assert glance.hidden_size == encoder.embedding_dim
    assert glance.num_layers == 2
    assert glance.parameters == sum(weight.numel() for weight in encoder.backbone.parameters())
    counted, own = (tokens(["a cat", "rain " * 99]) for tokens in (glance.load_tokenizer(), encoder.tokenizer))
    assert (list(counted[0]), len(counted[1]) > len(own[1])) == (list(own[0]), True)
    assert glance.config is None


def test_a_glance_at_a_sentence_model_tells_modules_and_prompts(tiny_base, tmp_path):
    wanted = Model.model_validate(
        {
            "base": str(tiny_base("bert")),
            "max_seq_length": 20,
            "pooling": ["cls", "mean_sqrt_len"],
            "layers": [{"type": "layer_norm"}, {"type": "normalize"}],
            "prompts": {"query": "query: "},
            "default_prompt": "query",
        }
    )
    save_encoder(build_encoder(wanted), tmp_path)
    glance = inspect_model(Model(base=str(tmp_path)))
    assert (glance.max_seq_length, glance.config.pooling) == (20, ("cls", "mean_sqrt_len"))
    assert glance.config.layers == wanted.layers
    assert (glance.prompts, glance.default_prompt) == ({"query": "query: "}, "query")


def test_a_folder_without_a_model_and_a_damaged_one_are_refused(tmp_path):
    for content, reason in ((None, "is no model folder"), ("{", "can't be read as JSON")):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(ModelError, match=reason):
            inspect_model(Model(base=str(tmp_path)))


def test_weights_that_are_cut_off_are_not_counted(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8}))
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    assert inspect_model(Model(base=str(tmp_path))).parameters is None

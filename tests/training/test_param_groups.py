"""Learning rates of layers: the lower, the less, and all the same where nothing is said."""

import pytest

from stfit.errors import RecipeError
from stfit.training.param_groups import build_param_groups, layers_from_top


def rates(encoder, layer_decay):
    """Name of each weight -> its share of the learning rate and its decay."""
    groups = build_param_groups(encoder.named_parameters(), 0.1, layer_decay, encoder.base.num_layers)
    settings = {
        id(weight): (group["lr_scale"], group["weight_decay"]) for group in groups for weight in group["params"]
    }
    return {name: settings[id(weight)] for name, weight in encoder.named_parameters()}


@pytest.mark.parametrize(
    ("kind", "layer", "table"),
    [
        ("bert", "backbone.encoder.layer.{}.output.dense.weight", "backbone.embeddings.word_embeddings.weight"),
        ("distilbert", "backbone.transformer.layer.{}.ffn.lin1.weight", "backbone.embeddings.word_embeddings.weight"),
        ("modernbert", "backbone.layers.{}.mlp.Wi.weight", "backbone.embeddings.tok_embeddings.weight"),
        ("qwen3", "backbone.layers.{}.mlp.up_proj.weight", "backbone.embed_tokens.weight"),
        ("t5", "backbone.encoder.block.{}.layer.0.SelfAttention.q.weight", "backbone.shared.weight"),
    ],
)
def test_a_layer_has_a_share_of_the_rate_of_the_one_above(build, kind, layer, table):
    share_of = rates(build(kind, layers=[{"type": "dense", "out_features": 4}]), 0.5)
    assert share_of[layer.format(1)] == (0.5, 0.1)
    assert share_of[layer.format(0)] == (0.25, 0.1)
    assert share_of[table] == (0.125, 0.1)
    assert share_of["layers.0.linear.weight"] == (1.0, 0.1)
    assert share_of["layers.0.linear.bias"] == (1.0, 0.0)


def test_without_a_decay_every_rate_is_the_same(build):
    assert {share for share, _ in rates(build(), None).values()} == {1.0}
    assert len(build_param_groups(build().named_parameters(), 0.1, None, 2)) == 2


def test_norms_after_the_last_layer_have_the_whole_rate():
    assert layers_from_top("backbone.final_norm.weight", 2) == 0


def test_a_table_has_no_layers_whose_rates_could_differ():
    with pytest.raises(RecipeError, match="has no layers"):
        build_param_groups([], 0.1, 0.9, 0)

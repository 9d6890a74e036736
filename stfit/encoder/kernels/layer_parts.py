"""Where a transformer that can be fused keeps its parts: one function for each family of architectures.

A family can be fused if its layers are self-attention and a feed-forward pass, each with a residual and a layer norm:
after the residual, as in BERT (Devlin et al., 2018, https://arxiv.org/abs/1810.04805), or before the branch, as in
ModernBERT (Warner et al., 2024, https://arxiv.org/abs/2412.13663). To add a family, write a function like `_find_bert`
and name it in FAMILIES. The probes of the layouts compare the result with the model's own forward pass, so a family
that computes something else is found out and not fused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LayerParts:
    layer: nn.Module
    projections: tuple[nn.Linear, ...]
    """Query, key and value, or one map with all three side by side."""
    attention_output: nn.Linear
    up: nn.Linear
    down: nn.Linear
    activation: nn.Module
    norms: tuple[nn.Module, nn.Module]
    """Of attention and of the feed-forward pass: LayerNorm, or Identity for none."""
    num_heads: int
    scale: float
    attention_dropout: float
    hidden_dropouts: tuple[float, float]
    """Dropout before the residual of attention, and before that of the feed-forward pass."""
    norm_first: bool = False
    """Whether the norms come before attention and the feed-forward pass, instead of after the residuals."""
    gated: bool = False
    """Whether `up` has two halves: the activation of the first is multiplied with the second."""
    relation: str | None = None
    """Key of `BackboneParts.relations`: how the positions of two tokens enter their attention."""

    @property
    def linears(self) -> tuple[nn.Linear, ...]:
        return *self.projections, self.attention_output, self.up, self.down

    @property
    def is_plain(self) -> bool:
        """Whether no part was replaced, for example by the wrapper of an adapter, which adds something."""
        return all(type(linear) is nn.Linear for linear in self.linears) and all(
            type(norm) in (nn.LayerNorm, nn.Identity) for norm in self.norms
        )


@dataclass(frozen=True)
class Relation:
    """How the positions of two tokens enter their attention."""

    bias: Callable[[int], Tensor | None] | None = None
    """Length l -> what is added to the scores, [heads or 1, l, l]; None if nothing is at this length."""
    distances: Callable[[int], Tensor] | None = None
    """Length l -> states of the distances 1 - l to l - 1, [2 l - 1, w]; their queries and keys take part in scores."""
    rotation: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    """Positions [t] -> cosines and sines, both [t, d / 2], by which halves of query and key are rotated."""


@dataclass(frozen=True)
class BackboneParts:
    """The parts of a whole transformer."""

    embed: Callable[[Tensor, Tensor], Tensor]
    """Token ids and positions, both [1, t] -> states [1, t, w] before the first layer."""
    layers: list[LayerParts]
    relations: dict[str, Relation]
    final_norm: nn.Module | None = None


def _bert_embeddings(backbone: Any) -> Callable[[Tensor, Tensor], Tensor]:
    def embed(token_ids: Tensor, positions: Tensor) -> Tensor:
        states: Tensor = backbone.embeddings(input_ids=token_ids, position_ids=positions)
        projection = getattr(backbone, "embeddings_project", None)  # ELECTRA
        return states if projection is None else projection(states)

    return embed


def _find_bert(backbone: Any) -> BackboneParts:
    """BERT, RoBERTa, XLM-RoBERTa, ELECTRA, CamemBERT and others."""
    layers = [
        LayerParts(
            layer=layer,
            projections=(layer.attention.self.query, layer.attention.self.key, layer.attention.self.value),
            attention_output=layer.attention.output.dense,
            up=layer.intermediate.dense,
            down=layer.output.dense,
            activation=layer.intermediate.intermediate_act_fn,
            norms=(layer.attention.output.LayerNorm, layer.output.LayerNorm),
            num_heads=layer.attention.self.num_attention_heads,
            scale=layer.attention.self.scaling,
            attention_dropout=layer.attention.self.dropout.p,
            hidden_dropouts=(layer.attention.output.dropout.p, layer.output.dropout.p),
        )
        for layer in backbone.encoder.layer
    ]
    return BackboneParts(_bert_embeddings(backbone), layers, {})


def _find_distilbert(backbone: Any) -> BackboneParts:
    """DistilBERT has no dropout after the attention output."""
    layers = [
        LayerParts(
            layer=layer,
            projections=(layer.attention.q_lin, layer.attention.k_lin, layer.attention.v_lin),
            attention_output=layer.attention.out_lin,
            up=layer.ffn.lin1,
            down=layer.ffn.lin2,
            activation=layer.ffn.activation,
            norms=(layer.sa_layer_norm, layer.output_layer_norm),
            num_heads=layer.attention.n_heads,
            scale=layer.attention.scaling,
            attention_dropout=layer.attention.dropout.p,
            hidden_dropouts=(0.0, layer.ffn.dropout.p),
        )
        for layer in backbone.transformer.layer
    ]
    return BackboneParts(_bert_embeddings(backbone), layers, {})


def _find_mpnet(backbone: Any) -> BackboneParts:
    """All layers of MPNet share a bias for the distance between two tokens."""
    encoder = backbone.encoder

    def bias(length: int) -> Tensor:
        positions = torch.empty(1, length, 0, device=backbone.device)  # only its shape is read
        bias_hll: Tensor = encoder.compute_position_bias(positions)[0]
        return bias_hll

    layers = [
        LayerParts(
            layer=layer,
            projections=(layer.attention.attn.q, layer.attention.attn.k, layer.attention.attn.v),
            attention_output=layer.attention.attn.o,
            up=layer.intermediate.dense,
            down=layer.output.dense,
            activation=layer.intermediate.intermediate_act_fn,
            norms=(layer.attention.LayerNorm, layer.output.LayerNorm),
            num_heads=layer.attention.attn.num_attention_heads,
            scale=layer.attention.attn.attention_head_size**-0.5,
            attention_dropout=layer.attention.attn.dropout.p,
            hidden_dropouts=(layer.attention.dropout.p, layer.output.dropout.p),
            relation="distance",
        )
        for layer in encoder.layer
    ]
    return BackboneParts(_bert_embeddings(backbone), layers, {"distance": Relation(bias=bias)})


def _find_deberta(backbone: Any) -> BackboneParts:
    """DeBERTa-v2 and v3, if queries and keys of distances come from the projections of the tokens."""
    encoder = backbone.encoder
    attentions = [layer.attention.self for layer in encoder.layer]
    if encoder.conv or not all(
        attention.share_att_key and sorted(attention.pos_att_type) == ["c2p", "p2c"] for attention in attentions
    ):
        raise AttributeError("another kind of disentangled attention")
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    def distances(attention: Any, length: int) -> Tensor:
        position = torch.arange(2 * length - 1, device=backbone.device) - length + 1
        bucket = position
        if attention.position_buckets > 0:
            bucket = make_log_bucket_position(position, attention.position_buckets, attention.max_relative_positions)
        span = attention.pos_ebd_size
        rows = (bucket.long() + span).clamp(0, 2 * span - 1)
        states: Tensor = attention.pos_dropout(encoder.get_rel_embedding())[rows]
        return states

    layers = [
        LayerParts(
            layer=layer,
            projections=(attention.query_proj, attention.key_proj, attention.value_proj),
            attention_output=layer.attention.output.dense,
            up=layer.intermediate.dense,
            down=layer.output.dense,
            activation=layer.intermediate.intermediate_act_fn,
            norms=(layer.attention.output.LayerNorm, layer.output.LayerNorm),
            num_heads=attention.num_attention_heads,
            scale=(3 * attention.attention_head_size) ** -0.5,
            attention_dropout=attention.dropout.p,
            hidden_dropouts=(layer.attention.output.dropout.p, layer.output.dropout.p),
            relation=f"layer {number}",
        )
        for number, (layer, attention) in enumerate(zip(encoder.layer, attentions, strict=True))
    ]
    relations = {
        f"layer {number}": Relation(distances=partial(distances, attention))
        for number, attention in enumerate(attentions)
    }
    return BackboneParts(_bert_embeddings(backbone), layers, relations)


def _find_modernbert(backbone: Any) -> BackboneParts:
    """ModernBERT: norms first, gated, rotary positions, and a window in most layers."""
    rotary, config = backbone.rotary_emb, backbone.config
    if config.mlp_dropout:
        raise AttributeError("dropout within the feed-forward pass")

    def relation(kind: str, attention: Any) -> Relation:
        def rotation(positions: Tensor) -> tuple[Tensor, Tensor]:
            cosines, sines = rotary(torch.empty(0, device=positions.device), positions[None], kind)
            half = cosines.shape[-1] // 2  # the second half repeats the first
            return cosines[0, :, :half], sines[0, :, :half]

        def bias(length: int) -> Tensor | None:
            window = attention.sliding_window  # read here, since the probe narrows it
            if window is None or length <= window:
                return None
            position = torch.arange(length)
            is_near = (position[:, None] - position).abs() < window
            return torch.zeros(1, length, length).masked_fill(~is_near, -torch.inf)

        return Relation(bias=bias, rotation=rotation)

    layers = [
        LayerParts(
            layer=layer,
            projections=(layer.attn.Wqkv,),
            attention_output=layer.attn.Wo,
            up=layer.mlp.Wi,
            down=layer.mlp.Wo,
            activation=layer.mlp.act,
            norms=(layer.attn_norm, layer.mlp_norm),
            num_heads=config.num_attention_heads,
            scale=layer.attn.head_dim**-0.5,
            attention_dropout=layer.attn.attention_dropout,
            hidden_dropouts=(getattr(layer.attn.out_drop, "p", 0.0), 0.0),
            norm_first=True,
            gated=True,
            relation=layer.attention_type,
        )
        for layer in backbone.layers
    ]
    attentions = {layer.attention_type: layer.attn for layer in backbone.layers}
    relations = {kind: relation(kind, attention) for kind, attention in attentions.items()}
    return BackboneParts(
        lambda token_ids, _: backbone.embeddings(token_ids), layers, relations, final_norm=backbone.final_norm
    )


FAMILIES: tuple[Callable[[Any], BackboneParts], ...] = (
    _find_bert,
    _find_distilbert,
    _find_mpnet,
    _find_deberta,
    _find_modernbert,
)
"""Each finds the parts of a backbone, or raises AttributeError if it is of another family."""


def find_parts(backbone: Any) -> BackboneParts | None:
    for find_family_parts in FAMILIES:
        try:
            parts = find_family_parts(backbone)
        except AttributeError:
            continue
        complete = len(parts.layers) == backbone.config.num_hidden_layers
        return parts if complete and all(layer.is_plain for layer in parts.layers) else None
    return None

"""Where a transformer that can be fused keeps its parts: one function for each family of architectures.

A family can be fused if its layers are those of BERT (Devlin et al., 2018, https://arxiv.org/abs/1810.04805):
self-attention and a feed-forward pass, each followed by dropout, a residual and a layer norm. To add one, write a
function like `_find_bert` and name it in FAMILIES. The probes of the layouts compare the result with the model's own
forward pass, so a family that computes something else is found out and not fused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LayerParts:
    layer: nn.Module
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    attention_output: nn.Linear
    attention_norm: nn.LayerNorm
    up: nn.Linear
    activation: nn.Module
    down: nn.Linear
    output_norm: nn.LayerNorm
    num_heads: int
    scale: float
    attention_dropout: float
    hidden_dropouts: tuple[float, float]
    """Dropout before the residual of attention, and before that of the feed-forward pass."""

    @property
    def linears(self) -> tuple[nn.Linear, ...]:
        return self.query, self.key, self.value, self.attention_output, self.up, self.down

    @property
    def norms(self) -> tuple[nn.LayerNorm, nn.LayerNorm]:
        return self.attention_norm, self.output_norm

    @property
    def is_plain(self) -> bool:
        """Whether no part was replaced, for example by the wrapper of an adapter, which adds something."""
        return all(type(linear) is nn.Linear and linear.bias is not None for linear in self.linears) and all(
            type(norm) is nn.LayerNorm for norm in self.norms
        )


@dataclass(frozen=True)
class BackboneParts:
    """The parts of a whole transformer: embeddings that are summed and normalized, then layers."""

    word_embeddings: nn.Embedding
    position_embeddings: nn.Embedding | None
    token_type_embeddings: nn.Embedding | None
    embedding_norm: nn.LayerNorm
    layers: list[LayerParts]
    relative_bias: Callable[[int], Tensor] | None = None
    """Number of positions l -> what all layers add to the scores of attention, [heads, l, l]."""


def _find_bert(backbone: Any) -> BackboneParts:
    """BERT, RoBERTa, XLM-RoBERTa, ELECTRA, CamemBERT and others."""
    embeddings = backbone.embeddings
    return BackboneParts(
        word_embeddings=embeddings.word_embeddings,
        position_embeddings=getattr(embeddings, "position_embeddings", None),
        token_type_embeddings=getattr(embeddings, "token_type_embeddings", None),
        embedding_norm=embeddings.LayerNorm,
        layers=[
            LayerParts(
                layer=layer,
                query=layer.attention.self.query,
                key=layer.attention.self.key,
                value=layer.attention.self.value,
                attention_output=layer.attention.output.dense,
                attention_norm=layer.attention.output.LayerNorm,
                up=layer.intermediate.dense,
                activation=layer.intermediate.intermediate_act_fn,
                down=layer.output.dense,
                output_norm=layer.output.LayerNorm,
                num_heads=layer.attention.self.num_attention_heads,
                scale=layer.attention.self.scaling,
                attention_dropout=layer.attention.self.dropout.p,
                hidden_dropouts=(layer.attention.output.dropout.p, layer.output.dropout.p),
            )
            for layer in backbone.encoder.layer
        ],
    )


def _find_distilbert(backbone: Any) -> BackboneParts:
    """DistilBERT: no token types, no dropout after the attention output."""
    embeddings = backbone.embeddings
    return BackboneParts(
        word_embeddings=embeddings.word_embeddings,
        position_embeddings=embeddings.position_embeddings,
        token_type_embeddings=None,
        embedding_norm=embeddings.LayerNorm,
        layers=[
            LayerParts(
                layer=layer,
                query=layer.attention.q_lin,
                key=layer.attention.k_lin,
                value=layer.attention.v_lin,
                attention_output=layer.attention.out_lin,
                attention_norm=layer.sa_layer_norm,
                up=layer.ffn.lin1,
                activation=layer.ffn.activation,
                down=layer.ffn.lin2,
                output_norm=layer.output_layer_norm,
                num_heads=layer.attention.n_heads,
                scale=layer.attention.scaling,
                attention_dropout=layer.attention.dropout.p,
                hidden_dropouts=(0.0, layer.ffn.dropout.p),
            )
            for layer in backbone.transformer.layer
        ],
    )


def _find_mpnet(backbone: Any) -> BackboneParts:
    """MPNet: all layers share a bias for the distance between two tokens."""
    embeddings, encoder = backbone.embeddings, backbone.encoder

    def relative_bias(length: int) -> Tensor:
        positions = torch.empty(1, length, 0, device=backbone.device)  # only its shape is read
        bias: Tensor = encoder.compute_position_bias(positions)[0]
        return bias

    return BackboneParts(
        word_embeddings=embeddings.word_embeddings,
        position_embeddings=embeddings.position_embeddings,
        token_type_embeddings=None,
        embedding_norm=embeddings.LayerNorm,
        layers=[
            LayerParts(
                layer=layer,
                query=layer.attention.attn.q,
                key=layer.attention.attn.k,
                value=layer.attention.attn.v,
                attention_output=layer.attention.attn.o,
                attention_norm=layer.attention.LayerNorm,
                up=layer.intermediate.dense,
                activation=layer.intermediate.intermediate_act_fn,
                down=layer.output.dense,
                output_norm=layer.output.LayerNorm,
                num_heads=layer.attention.attn.num_attention_heads,
                scale=layer.attention.attn.attention_head_size**-0.5,
                attention_dropout=layer.attention.attn.dropout.p,
                hidden_dropouts=(layer.attention.dropout.p, layer.output.dropout.p),
            )
            for layer in encoder.layer
        ],
        relative_bias=relative_bias,
    )


FAMILIES: tuple[Callable[[Any], BackboneParts], ...] = (_find_bert, _find_distilbert, _find_mpnet)
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

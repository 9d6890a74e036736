"""Modules of a model besides the transformer, with the weight names of sentence-transformers.

Tensor names: t = tokens of all sequences, r = sequences, d = dim, v = entries of a vocabulary.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn
from transformers import PreTrainedModel

from stfit.encoder.pooling import TokenStates
from stfit.similarity import normalize


class UnitLength(nn.Module):
    def forward(self, embedding_rd: Tensor) -> Tensor:
        return normalize(embedding_rd)


class Convolutions(nn.Module):
    """Convolutions of several odd widths over each sequence, side by side."""

    def __init__(self, dim: int, out_channels: int, kernel_sizes: list[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(dim, out_channels, size, padding=size // 2) for size in kernel_sizes)
        self.gap = max(kernel_sizes) // 2

    def forward(self, tokens: TokenStates) -> TokenStates:
        """One convolution over all sequences in a row, with zeros between them as padding."""
        column_t = torch.arange(len(tokens.owner_t), device=tokens.owner_t.device) + tokens.owner_t * self.gap
        row_length = len(column_t) + (len(tokens.lengths_r) - 1) * self.gap
        states_td = tokens.states
        row_td = states_td.new_zeros(row_length, states_td.shape[1]).index_copy(0, column_t, states_td)
        channels_ct = torch.cat([conv(row_td.T[None])[0] for conv in self.convs])
        return replace(tokens, states=channels_ct.T[column_t])


class Recurrence(nn.Module):
    def __init__(self, dim: int, hidden_dim: int, num_layers: int, dropout: float, bidirectional: bool) -> None:
        super().__init__()
        self.encoder = nn.LSTM(dim, hidden_dim, num_layers, dropout=dropout, bidirectional=bidirectional)

    def forward(self, tokens: TokenStates) -> TokenStates:
        sequences = tokens.states.split(tokens.lengths_r.tolist())
        packed, _ = self.encoder(rnn.pack_sequence(sequences, enforce_sorted=False))
        return replace(tokens, states=torch.cat(rnn.unpack_sequence(packed)))


class TokenWeights(nn.Module):
    """Multiplies each token's embedding by the weight of its token id; a mean then divides by the weights."""

    def __init__(self, vocabulary: list[str], weight_v: Tensor) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.emb_layer = nn.Embedding.from_pretrained(weight_v[:, None], freeze=False)

    def forward(self, tokens: TokenStates) -> TokenStates:
        weight_t1 = self.emb_layer(tokens.ids_t)
        weight_sum_r = tokens.total(weight_t1)[:, 0]
        return replace(tokens, states=tokens.states * weight_t1, weight_sum_r=weight_sum_r)


class LayerMix(nn.Module):
    """A learned average of the outputs of a transformer's layers; 0 is the embedding layer."""

    def __init__(self, first: int, num_layers: int) -> None:
        super().__init__()
        self.first = first
        self.layer_weights = nn.Parameter(torch.ones(num_layers + 1 - first))

    def attach_hook(self, backbone: PreTrainedModel) -> None:
        backbone.config.output_hidden_states = True
        backbone.register_forward_hook(self.mix)

    def mix(self, backbone: nn.Module, _: tuple[Any, ...], output: Any) -> Any:
        states = torch.stack(output.hidden_states[self.first :])
        weights = self.layer_weights.view(-1, *[1] * (states.ndim - 1))
        output.last_hidden_state = (weights * states).sum(0) / self.layer_weights.sum()
        return output

    def forward(self, tokens: TokenStates) -> TokenStates:
        """Returns its input: the hook has done the work."""
        return tokens


class WordCounts(nn.Module):
    """One dimension per word: its weight times its count. Nothing is trained."""

    weight: Tensor

    def __init__(self, weight_v: Tensor, cumulative: bool) -> None:
        super().__init__()
        self.cumulative = cumulative
        self.register_buffer("weight", weight_v)

    def forward(self, ids_t: Tensor, starts_r: Tensor) -> Tensor:
        """[tokens], [sequences] -> [sequences, vocabulary]."""
        lengths_r = torch.diff(starts_r, append=starts_r.new_tensor([len(ids_t)]))
        owner_t = torch.arange(len(starts_r), device=ids_t.device).repeat_interleave(lengths_r)
        counts_rv = self.weight.new_zeros(len(starts_r), len(self.weight))
        return counts_rv.index_put((owner_t, ids_t), self.weight[ids_t], accumulate=self.cumulative)

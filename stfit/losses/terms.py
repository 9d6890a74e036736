"""The losses of a batch as the terms of a sum. Imported only when they are built: it needs torch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stfit.errors import RecipeError
from stfit.losses.base import Columns, LossBase
from stfit.losses.registry import build_loss, compute_loss
from stfit.losses.softmax_classifier import NamedHead, SoftmaxHead

Labels = Sequence[Tensor | None]
"""The label of each loss; None for one that needs none."""


class LossTerms(nn.Module):
    """One or more losses of the same embeddings, each with its weight."""

    def __init__(
        self,
        losses: Sequence[LossBase],
        embedding_dim: int,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.losses = list(losses)
        self.built = [build_loss(loss, embedding_dim, num_classes) for loss in losses]
        self.class_names = list(class_names or [])
        self.with_weights = nn.ModuleList(built for built in self.built if isinstance(built, nn.Module))

    @property
    def head(self) -> NamedHead | None:
        """The classifier of a softmax loss, if there is one."""
        heads = [built for built in self.built if isinstance(built, SoftmaxHead)]
        return NamedHead(heads[0], self.class_names) if heads else None

    @property
    def names(self) -> list[str]:
        """The type of each loss; a type that occurs again is numbered: cosent, cosent_2."""
        types = [loss.type for loss in self.losses]  # type: ignore[attr-defined]
        repeated = [types[: number + 1].count(name) for number, name in enumerate(types)]
        return [name if count == 1 else f"{name}_{count}" for name, count in zip(types, repeated, strict=True)]

    def forward(self, columns: Columns, labels: Labels, seed: int = 0) -> Tensor:
        """The terms of the sum, [losses]; `columns` [rows, dim] each. `seed`: see `compute_loss`."""
        terms = []
        for loss, built, label in zip(self.losses, self.built, labels, strict=True):
            value = compute_loss(built, loss.select(columns), label, seed)
            if not isinstance(value, Tensor) or value.ndim:
                shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise RecipeError(f"a loss must return a tensor of one number, and this one returns {shape}")
            terms.append(loss.weight * value)
        return torch.stack(terms)

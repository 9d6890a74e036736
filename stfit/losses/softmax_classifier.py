"""The classifier of the softmax loss: the one loss with weights. Imported when it is built (it needs torch)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stfit.errors import DataError
from stfit.losses.base import Columns, require_columns
from stfit.losses.pairs import Softmax


class SoftmaxHead(nn.Module):
    """Cross-entropy of a linear layer over a pair; its weights have PyTorch's own initialisation of a linear layer."""

    def __init__(self, spec: Softmax, embedding_dim: int, num_classes: int) -> None:
        super().__init__()
        self.spec = spec
        parts = 2 * spec.concatenate_embeddings + spec.concatenate_difference + spec.concatenate_product
        self.classifier = nn.Linear(parts * embedding_dim, num_classes)

    def forward(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss; `label` holds class numbers [rows], or the probability of each class [rows, classes]."""
        one_rd, other_rd = require_columns(self.spec.tag(), columns, None, "sentence1", "sentence2")
        target = self.check_target(label, len(one_rd))
        parts = []
        if self.spec.concatenate_embeddings:
            parts += [one_rd, other_rd]
        if self.spec.concatenate_difference:
            parts += [(one_rd - other_rd).abs()]
        if self.spec.concatenate_product:
            parts += [one_rd * other_rd]
        return F.cross_entropy(self.classifier(torch.cat(parts, dim=1)), target)

    def check_target(self, label: Tensor | None, rows: int) -> Tensor:
        """The label itself, or DataError: a GPU would answer a wrong class number by taking the whole process down."""
        classes = self.classifier.out_features
        if label is not None and label.is_floating_point() and label.shape == (rows, classes):
            return label
        if label is None or label.is_floating_point() or label.shape != (rows,):
            found = "none" if label is None else f"{label.dtype} of shape {list(label.shape)}"
            raise DataError(f"loss `softmax` needs a whole class number for each of {rows} rows; its label is {found}")
        wrong = (label < 0) | (label >= classes)
        if wrong.any():
            row = int(wrong.int().argmax())
            raise DataError(
                f"label {int(label[row])} in row {row} of the batch: the {classes} classes are 0..{classes - 1}"
            )
        return label

"""The classifier of the softmax loss, the one loss with weights. Imported only when it is built: it needs torch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stfit.errors import DataError
from stfit.losses.base import Columns, require_columns


class SoftmaxHead(nn.Module):
    """Cross-entropy of a linear layer over a pair; its weights have PyTorch's default initialization."""

    def __init__(
        self, embedding_dim: int, num_classes: int, *, embeddings: bool, difference: bool, product: bool
    ) -> None:
        super().__init__()
        self.embeddings, self.difference, self.product = embeddings, difference, product
        self.classifier = nn.Linear((2 * embeddings + difference + product) * embedding_dim, num_classes)

    def forward(self, columns: Columns, label: Tensor | None) -> Tensor:
        """Scalar loss; `label` holds class numbers [rows], or the probability of each class [rows, classes]."""
        first_rd, second_rd = require_columns("softmax", columns, None, "sentence1", "sentence2")
        target = self._require_target(label, len(first_rd))
        inputs = [first_rd, second_rd] if self.embeddings else []
        if self.difference:
            inputs.append((first_rd - second_rd).abs())
        if self.product:
            inputs.append(first_rd * second_rd)
        return F.cross_entropy(self.classifier(torch.cat(inputs, dim=1)), target)

    def _require_target(self, label: Tensor | None, rows: int) -> Tensor:
        """The label, or DataError: on a GPU, a class number out of range would abort the whole process."""
        classes = self.classifier.out_features
        if label is not None and label.is_floating_point() and label.shape == (rows, classes):
            return label
        if label is None or label.is_floating_point() or label.shape != (rows,):
            kind = "missing" if label is None else f"{label.dtype} of shape {list(label.shape)}"
            raise DataError(f"loss `softmax` needs an integer class for each of {rows} rows; the label is {kind}")
        invalid = (label < 0) | (label >= classes)
        if invalid.any():
            row = int(invalid.int().argmax())
            raise DataError(
                f"label {int(label[row])} in row {row} of the batch: the {classes} classes are 0..{classes - 1}"
            )
        return label

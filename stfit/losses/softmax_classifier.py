"""The classifier of the softmax loss, the one loss with weights. Imported only when it is built: it needs torch.

It is saved beside the model that it was trained with, in a file that sentence-transformers passes over.
"""

import json
from pathlib import Path
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stfit.errors import DataError, ModelError
from stfit.losses.base import Columns, require_columns

FILE = "softmax_head.safetensors"


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
        return F.cross_entropy(self.logits(first_rd, second_rd), target)

    def logits(self, first_rd: Tensor, second_rd: Tensor) -> Tensor:
        """[rows, classes]."""
        inputs = [first_rd, second_rd] if self.embeddings else []
        if self.difference:
            inputs.append((first_rd - second_rd).abs())
        if self.product:
            inputs.append(first_rd * second_rd)
        return self.classifier(torch.cat(inputs, dim=1))

    @property
    def embedding_dim(self) -> int:
        return self.classifier.in_features // (2 * self.embeddings + self.difference + self.product)

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


class NamedHead(NamedTuple):
    head: SoftmaxHead
    classes: list[str]
    """Names of the classes; empty if the data has numbers for them."""


def save_head(folder: Path, named: NamedHead) -> None:
    head = named.head
    inputs = {"embeddings": head.embeddings, "difference": head.difference, "product": head.product}
    weights = {name: weight.detach().cpu().contiguous() for name, weight in head.state_dict().items()}
    about = json.dumps(inputs | {"classes": named.classes})
    safetensors.torch.save_file(weights, folder / FILE, {"head": about})


def load_head(folder: Path) -> NamedHead | None:
    """The head that lies beside a model; None if there is none. Raises ModelError for a damaged file."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            inputs = json.loads((file.metadata() or {})["head"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        classes, parts = inputs.pop("classes"), 2 * inputs["embeddings"] + inputs["difference"] + inputs["product"]
        outputs, width = weights["classifier.weight"].shape
        head = SoftmaxHead(width // parts, outputs, **inputs)
        head.load_state_dict(weights)
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path} can't be read: {error}") from error
    return NamedHead(head, classes)

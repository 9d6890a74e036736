"""Does the classifier of the softmax loss give pairs their class?"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from stfit.data.mapping.examples import Examples
from stfit.errors import DataError, ModelError
from stfit.evaluation.base import Embed, EvaluatorBase
from stfit.evaluation.statistic import Statistic, mean_of
from stfit.lazy import torch

if TYPE_CHECKING:
    from stfit.losses.softmax_classifier import NamedHead

UNKNOWN = -1


class LabelAccuracy(EvaluatorBase):
    """Share of pairs whose class the classifier of the `softmax` loss predicts.

    The classifier is saved beside the model, as softmax_head.safetensors. A class that it does not know counts as
    wrong.
    """

    aliases = ("LabelAccuracyEvaluator",)
    type: Literal["label_accuracy"] = "label_accuracy"
    format = "labeled_pair"
    per_similarity = False
    allowed = ("class-labels", "one-label")
    needs_head = True
    main_metric = "accuracy"
    metrics: ClassVar[list[str]] = ["accuracy"]

    def measure(
        self, rows: Examples, embed: Embed, similarity: str, head: NamedHead | None = None
    ) -> dict[str, Statistic]:
        """`accuracy`. Raises ModelError without a classifier, DataError for labels that are no classes."""
        if head is None:
            raise ModelError(f"evaluator `{self.label}` needs a model that was trained with loss `softmax`")
        label_r = self._classes_of(rows, head.classes)
        first, second = (_at_full_size(embed(role, rows.column(role)), head) for role in ("sentence1", "sentence2"))
        device = head.head.classifier.weight.device
        with torch.no_grad():
            logits = head.head.logits(torch.from_numpy(first).to(device), torch.from_numpy(second).to(device))
        return {"accuracy": mean_of(logits.argmax(dim=1).cpu().numpy() == label_r)}

    def _classes_of(self, rows: Examples, known: list[str]) -> np.ndarray:
        """The number of each row's class in training."""
        if rows.label is None or rows.label_kind == "score":
            raise DataError(f"evaluator `{self.label}` needs classes, and these labels are scores")
        if bool(rows.label_names) != bool(known):
            own, others = ("names", "numbers") if rows.label_names else ("numbers", "names")
            raise DataError(
                f"evaluator `{self.label}`: these rows have {own} of classes, and the classifier was trained on "
                f"{others}: write the same with `label_map`"
            )
        if not rows.label_names:
            return rows.label
        number_of = {name: number for number, name in enumerate(known)}
        of_own = np.array([number_of.get(name, UNKNOWN) for name in rows.label_names])
        return of_own[rows.label.astype(np.int64)]


def _at_full_size(embedding_rd: np.ndarray, head: NamedHead) -> np.ndarray:
    """A prefix with zeros for the dimensions that it leaves out, as the classifier reads whole embeddings."""
    return np.pad(embedding_rd, ((0, 0), (0, head.head.embedding_dim - embedding_rd.shape[1])))

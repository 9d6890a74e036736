"""A package beside stfit that adds two losses, one with weights, an evaluator and a pooling."""

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from stfit.data.mapping.examples import Examples
from stfit.evaluation.base import EvaluatorBase
from stfit.evaluation.statistic import mean_of
from stfit.losses.base import Accepts, LossBase, require_columns


class AlignAndUniform(LossBase):
    """Positives near each other, all texts spread over the sphere (Wang and Isola, 2020)."""

    fits = (Accepts("positive_pair", "none"),)
    sampler = "no_duplicates"
    min_batch_size = 2

    type: Literal["align_and_uniform"] = "align_and_uniform"
    uniformity: float = Field(1.0, ge=0)
    """Weight of the spread."""

    def __call__(self, columns, label):
        anchor, positive = (
            functional.normalize(each) for each in require_columns(self.type, columns, label, "anchor", "positive")
        )
        spread = sum(torch.pdist(each).square().mul(-2).exp().mean().log() for each in (anchor, positive)) / 2
        return (anchor - positive).square().sum(1).mean() + self.uniformity * spread


class Prototypes(LossBase):
    """Texts near the learnt centre of their class."""

    fits = (Accepts("labeled_text", "class"),)

    type: Literal["prototypes"] = "prototypes"

    def build(self, embedding_dim, num_classes):
        return Centres(embedding_dim, num_classes)


class Centres(nn.Module):
    """Cross-entropy of the cosines to one vector a class."""

    def __init__(self, embedding_dim, num_classes):
        super().__init__()
        self.centres = nn.Parameter(torch.randn(num_classes, embedding_dim))

    def forward(self, columns, label):
        texts, label = require_columns("prototypes", columns, label, "text", "label")
        cosines = functional.normalize(texts) @ functional.normalize(self.centres).T
        return functional.cross_entropy(20 * cosines, label)


def pool_top_two(tokens):
    """Mean of the two largest values of each dimension."""
    parts = tokens.states.split(tokens.lengths_r.tolist())
    return torch.stack([part.topk(min(2, len(part)), dim=0).values.mean(0) for part in parts])


class Alignment(EvaluatorBase):
    """How near positives are."""

    type: Literal["alignment"] = "alignment"
    format = "positive_pair"
    per_similarity = False
    main_metric = "alignment"
    metrics: ClassVar = ["alignment"]

    def measure(self, rows: Examples, embed, similarity):
        anchor, positive = (embed(role, rows.column(role)) for role in ("anchor", "positive"))
        lengths = np.linalg.norm(anchor, axis=1) * np.linalg.norm(positive, axis=1)
        return {"alignment": mean_of((anchor * positive).sum(1) / lengths)}

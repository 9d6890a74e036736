"""A function of columns and label as a loss of its own."""

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from stfit.losses.base import LossBase
from stfit.losses.terms import LossTerms


class Own(LossBase):
    fits = ()
    type: Literal["own"] = "own"
    function: Callable[[dict[str, Tensor], Tensor | None], Any]

    def __call__(self, columns, label):
        return self.function(columns, label)


def own_loss(function) -> LossTerms:
    return LossTerms([Own(function=function)], embedding_dim=1)

"""How far are a student's embeddings from a teacher's?"""

from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, ValidationInfo

from stfit.data.cache.teacher import load_embeddings
from stfit.data.mapping.examples import Examples
from stfit.errors import ModelError
from stfit.evaluation.base import Embed, EvaluatorBase
from stfit.evaluation.statistic import Statistic, mean_of
from stfit.paths import Location
from stfit.runtime.device import choose_device

SCALE = -100
"""Higher is better in every metric, and the scale is that of sentence-transformers."""


def _only_on_hub(revision: str | None, others: ValidationInfo) -> str | None:
    if revision is not None and Path(others.data.get("teacher") or "/").is_absolute():
        raise ValueError("selects a version on the Hub, but the teacher is not on the Hub")
    return revision


@lru_cache(maxsize=4)  # the same in every evaluation of a training, and at every dimension
def _embed_with_teacher(base: str, revision: str | None, texts: tuple[str, ...]) -> np.ndarray:
    from stfit.encoder.build import build_encoder
    from stfit.encoder.config import Model

    teacher = build_encoder(Model(base=base, revision=revision), device=choose_device("auto"))
    number_of = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    prompt = teacher.prompt(None)
    embed = partial(teacher.encode, prompt=prompt)
    embeddings = load_embeddings(list(number_of), embed, f"{teacher.fingerprint} {prompt}")
    return embeddings[np.array([number_of[text] for text in texts])]


class MSEToTeacher(EvaluatorBase):
    """Mean squared error of the embeddings of `positive` to a teacher's of `anchor`, times -100: higher is better.

    For a student of another language, the anchors are the texts that the teacher knows, and the positives their
    translations. For a student of the same language, both columns are the same: `columns: {anchor: text, positive:
    text}`. A Matryoshka prefix is compared with the same prefix of the teacher's embeddings.
    """

    aliases = ("MSEEvaluator",)
    type: Literal["mse"] = "mse"
    format = "positive_pair"
    symmetric = True
    allowed = ("same-column",)
    per_similarity = False
    main_metric = "negative_mse"
    metrics: ClassVar[list[str]] = ["negative_mse"]

    teacher: Location
    """Hub id or folder of the teacher. Its embeddings are cached on disk."""
    teacher_revision: Annotated[str | None, AfterValidator(_only_on_hub)] = None
    """Branch, tag or commit of a teacher on the Hub."""

    def require_teacher_dim(self, model_dim: int, teacher_dim: int) -> None:
        if model_dim > teacher_dim:
            raise ModelError(
                f"evaluator `{self.label}` needs a teacher with as many dimensions, but it has {teacher_dim} and the "
                f"model {model_dim}"
            )

    def measure(self, rows: Examples, embed: Embed, similarity: str) -> dict[str, Statistic]:
        """`negative_mse`, a mean over rows and dimensions; 0 for embeddings that are equal."""
        student_rd = embed("positive", rows.column("positive"))
        teacher_rd = _embed_with_teacher(self.teacher, self.teacher_revision, tuple(rows.column("anchor")))
        self.require_teacher_dim(student_rd.shape[1], teacher_rd.shape[1])
        error_rd = student_rd.astype(np.float64) - teacher_rd[:, : student_rd.shape[1]]
        return {"negative_mse": mean_of(SCALE * (error_rd**2).mean(axis=1))}

    def columns_of(self, rows: Any) -> dict[str, Any]:
        """The texts of the student."""
        return {"positive": super().columns_of(rows)["positive"]}

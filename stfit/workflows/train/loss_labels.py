"""What each loss learns from: labels, scores or embeddings in the data, or what a teacher says of its texts."""

from functools import partial

import numpy as np

from stfit.data.batching.batches import MISSING, Label, TokenTable
from stfit.data.cache.teacher import TeacherEmbeddings, load_embeddings
from stfit.encoder.build import build_encoder
from stfit.encoder.config import Model
from stfit.encoder.encoder import Encoder
from stfit.losses.base import CrossEncoderTeacher, TeacherLoss, role_of
from stfit.recipe.recipe import Objective
from stfit.workflows.mine.rerank import open_cross_encoder


def labels_of_losses(table: TokenTable, objective: Objective, encoder: Encoder) -> tuple[Label | None, ...]:
    """The label of each loss, None for one that needs none. A teacher embeds its texts first."""
    labels: list[Label | None] = []
    for loss, teacher, need in zip(objective.losses, objective.teachers, objective.needs, strict=True):
        match need.source(table.examples):
            case "teacher" if isinstance(teacher, CrossEncoderTeacher):
                labels.append(_score_with_teacher(table, teacher, str(encoder.device)))
            case "teacher" if isinstance(teacher, Model) and isinstance(loss, TeacherLoss):
                labels.append(_embed_with_teacher(table, objective, loss, teacher, encoder))
            case "embedding" if isinstance(loss, TeacherLoss) and table.examples.embedding is not None:
                loss.require_teacher_dim(encoder.embedding_dim, table.examples.embedding.shape[1])
                labels.append(table.examples.embedding[:, None])
            case "scores":
                labels.append(table.examples.scores)
            case "label":
                labels.append(table.examples.label)
            case _:
                labels.append(None)
    return tuple(labels)


def _score_with_teacher(table: TokenTable, teacher: CrossEncoderTeacher, device: str) -> np.ndarray:
    """Scores of each anchor's candidates [rows, candidates], NaN for a missing one."""
    anchors, *columns = (table.examples.column(role) for role in table.text_ids)
    present_rn = np.stack([table.text_ids[role] != MISSING for role in table.text_ids], axis=1)[:, 1:]
    rows, candidates = np.nonzero(present_rn)
    pairs = [(anchors[row], columns[n][row]) for row, n in zip(rows.tolist(), candidates.tolist(), strict=True)]
    score_rn = np.full(present_rn.shape, np.nan)
    score_rn[rows, candidates] = open_cross_encoder(teacher, device)(pairs)
    return score_rn


def _embed_with_teacher(
    table: TokenTable, objective: Objective, loss: TeacherLoss, model: Model, encoder: Encoder
) -> TeacherEmbeddings:
    teacher = build_encoder(model, device=str(encoder.device))
    loss.require_teacher_dim(encoder.embedding_dim, teacher.output_dim)
    roles = list(objective.views) or list(table.text_ids)
    taught = loss.taught_roles([role for role in roles if loss.columns is None or role_of(role) in loss.columns])
    return _embed_roles(teacher, table, ["text"] * len(taught) if objective.views else taught)


def _embed_roles(teacher: Encoder, table: TokenTable, roles: list[str]) -> TeacherEmbeddings:
    prompts = {role: teacher.role_prompt(role, None) for role in roles}
    places = {role: np.full(len(table), MISSING) for role in roles}
    embeddings = {}
    for prompt in set(prompts.values()):
        numbers: dict[str, int] = {}
        for role in (role for role in places if prompts[role] == prompt):
            texts = table.examples.column(role)
            for row in np.flatnonzero(table.text_ids[role] != MISSING).tolist():
                places[role][row] = numbers.setdefault(texts[row], len(numbers))
        embed = partial(teacher.encode, prompt=prompt)
        embeddings[prompt] = load_embeddings(list(numbers), embed, f"{teacher.fingerprint} {prompt}")
    return TeacherEmbeddings([(embeddings[prompts[role]], places[role]) for role in roles])

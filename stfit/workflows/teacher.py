"""What each loss learns from: labels and scores in the data, or the embeddings of a teacher."""

from functools import partial

import numpy as np

from stfit.data.batching.batches import MISSING, Label, TokenTable
from stfit.data.cache.teacher import TeacherEmbeddings, load_embeddings
from stfit.encoder.build import build_encoder
from stfit.encoder.config import Model
from stfit.encoder.encoder import Encoder
from stfit.losses.base import TeacherLoss, role_of
from stfit.recipe.recipe import Objective


def labels_of_losses(table: TokenTable, objective: Objective, encoder: Encoder) -> tuple[Label | None, ...]:
    """The label of each loss, None for one that needs none. A teacher embeds its texts first."""
    labels: list[Label | None] = []
    for loss, teacher, need in zip(objective.losses, objective.teachers, objective.needs, strict=True):
        match need.source(table.examples):
            case "teacher" if teacher is not None and isinstance(loss, TeacherLoss):
                labels.append(_embed_with_teacher(table, objective, loss, teacher, encoder))
            case "scores":
                labels.append(table.examples.scores)
            case "label":
                labels.append(table.examples.label)
            case _:
                labels.append(None)
    return tuple(labels)


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

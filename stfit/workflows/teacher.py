"""The embeddings of a teacher, computed before the first step and used as the label of the rows."""

from dataclasses import replace
from functools import partial

import numpy as np

from stfit.data.batching.batches import MISSING, TokenTable
from stfit.data.cache.teacher import TeacherEmbeddings, load_embeddings
from stfit.encoder.build import build_encoder
from stfit.encoder.encoder import Encoder
from stfit.losses.base import TeacherLoss
from stfit.recipe.recipe import Objective


def embed_with_teacher(table: TokenTable, objective: Objective, encoder: Encoder) -> TokenTable:
    loss = objective.loss
    if objective.teacher is None or not isinstance(loss, TeacherLoss):
        return table
    teacher = build_encoder(objective.teacher, device=str(encoder.device))
    loss.require_teacher_dim(encoder.embedding_dim, teacher.output_dim)
    roles = loss.taught_roles(list(table.text_ids))
    return replace(table, label=_embed_roles(teacher, table, roles))


def _embed_roles(teacher: Encoder, table: TokenTable, roles: list[str]) -> TeacherEmbeddings:
    prompts = {role: teacher.role_prompt(role, None) for role in roles}
    places = {role: np.full(len(table), MISSING) for role in roles}
    embeddings = {}
    for prompt in set(prompts.values()):
        numbers: dict[str, int] = {}
        for role in (role for role in roles if prompts[role] == prompt):
            texts = table.examples.column(role)
            for row in np.flatnonzero(table.text_ids[role] != MISSING).tolist():
                places[role][row] = numbers.setdefault(texts[row], len(numbers))
        embed = partial(teacher.encode, prompt=prompt)
        embeddings[prompt] = load_embeddings(list(numbers), embed, f"{teacher.fingerprint} {prompt}")
    return TeacherEmbeddings([(embeddings[prompts[role]], places[role]) for role in roles])

"""Which examples stand together in a batch: a pure function of the data, the seed and the epoch.

Nothing here depends on hashing, on threads or on what was drawn before, so any epoch can be made again, alone.
"""

from __future__ import annotations

from collections import deque
from hashlib import sha256
from typing import Literal

import numpy as np

from stfit.errors import DataError, RecipeError

Sampler = Literal["shuffle", "no_duplicates", "group_by_label"]


def sample_batches(
    sampler: str,
    text_ids: np.ndarray,
    label: np.ndarray | None,
    batch_size: int,
    seed: int,
    fingerprint: str,
    min_batch_size: int,
    epoch: int,
) -> list[np.ndarray]:
    """Batches of example indices for one epoch; no index twice.

    `text_ids` is an integer matrix [examples, columns], -1 where a text is missing. Batches smaller than
    `min_batch_size` are left out: count what is in none with `unused`. Raises DataError when no batch is left.
    """
    digest = sha256(f"{fingerprint}:{seed}:{epoch}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest))
    if sampler == "no_duplicates":
        made = no_duplicates(text_ids, batch_size, random)
    elif sampler == "group_by_label":
        if label is None:
            raise RecipeError("`sampler: group_by_label` needs a format with labels")
        made = group_by_label(label, batch_size, random)
    else:
        made = shuffle(len(text_ids), batch_size, random)
    made = [batch for batch in made if len(batch) >= min_batch_size]
    if not made:
        raise DataError(
            f"no batch of {min_batch_size} rows or more, as the loss needs, can be made of {len(text_ids)} examples "
            f"(sampler {sampler}, {batch_size} rows at most)"
        )
    return made


def count_unused(made: list[np.ndarray], examples: int) -> int:
    """How many examples stand in no batch of an epoch."""
    return examples - sum(len(batch) for batch in made)


def shuffle(examples: int, batch_size: int, random: np.random.Generator) -> list[np.ndarray]:
    """A permutation cut into batches; the last one may be smaller."""
    return np.split(random.permutation(examples), range(batch_size, examples, batch_size))


def no_duplicates(text_ids: np.ndarray, batch_size: int, random: np.random.Generator) -> list[np.ndarray]:
    """Batches in which no two examples share a text, in any column: a shared one would be a negative that is right.

    An example that can't join a batch waits for one without the text it shares. As a batch closes, one example per text
    it holds stops waiting, since the next batch can take no more than one. So every example is moved a few times only,
    however often texts repeat, and a frequent text is spread over the epoch, one example a batch.
    """
    texts_of = [[text for text in texts if text >= 0] for texts in text_ids.tolist()]
    queue = deque(random.permutation(len(text_ids)).tolist())
    waiting: dict[int, deque[int]] = {}
    made: list[np.ndarray] = []
    while queue:
        batch: list[int] = []
        held: dict[int, None] = {}
        while queue and len(batch) < batch_size:
            example = queue.popleft()
            shared = next((text for text in texts_of[example] if text in held), None)
            if shared is None:
                batch.append(example)
                held.update(dict.fromkeys(texts_of[example]))
            else:
                waiting.setdefault(shared, deque()).append(example)
        made.append(np.array(batch))
        queue.extendleft(waiting[text].popleft() for text in held if waiting.get(text))
    return made


def group_by_label(label: np.ndarray, batch_size: int, random: np.random.Generator) -> list[np.ndarray]:
    """Batches that hold at least two labels, one of them at least twice: what triplets are mined from.

    Rows of a label are dealt out in pairs. The largest label comes last, to where there is most room, so that it is
    spread over the epoch, and fills no batch alone while others have rows left. A label with one row is never used.
    """
    if batch_size < 4:
        raise RecipeError("`sampler: group_by_label` needs room for pairs of two labels: `batch_size` of at least 4")
    rows = random.permutation(len(label))
    _, classes, counts = np.unique(label[rows], return_inverse=True, return_counts=True)
    rows, classes = rows[counts[classes] > 1], classes[counts[classes] > 1]
    largest = classes == np.argmax(counts)
    pairs, singles = _cut_into_pairs(rows[~largest], classes[~largest], random)
    filler_pairs, filler_singles = _cut_into_pairs(rows[largest], classes[largest], random)
    fillers = np.concatenate([filler_pairs.reshape(-1), filler_singles])

    others = 2 * len(pairs) + len(singles)
    count = max(-(-len(rows) // batch_size), -(-len(pairs) // (batch_size // 2)))
    count = min(count, others)  # every batch needs a row that is not of the largest label
    if not count:
        return []
    split = max(0, count - len(pairs) - len(singles))  # pairs to part, so that there is one for every batch
    singles = np.concatenate([singles, pairs[len(pairs) - split :].reshape(-1)])
    pairs = pairs[: len(pairs) - split]

    batch_of = np.full(len(label), -1)
    filled = np.zeros(count, dtype=np.int64)
    for units in (pairs, singles[:, None], fillers[: len(fillers) // 2 * 2].reshape(-1, 2)):
        _round_robin(units, batch_of, filled, batch_size)
    _round_robin(fillers[batch_of[fillers] < 0][:, None], batch_of, filled, batch_size)

    used = np.flatnonzero(batch_of >= 0)
    used = used[np.argsort(batch_of[used], kind="stable")]
    made = np.split(used, np.cumsum(filled)[:-1])
    return [made[i] for i in random.permutation(count) if _has_triplet(label[made[i]])]


def _cut_into_pairs(
    rows: np.ndarray, classes: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows as pairs of one class [pairs, 2], classes in random order, and the odd one of each class that has one."""
    place = random.permutation(int(classes.max(initial=0)) + 1)[classes]
    order = np.argsort(place, kind="stable")
    rows, place = rows[order], place[order]
    sizes = np.bincount(place)
    last = np.cumsum(sizes)[sizes % 2 == 1] - 1
    return np.delete(rows, last).reshape(-1, 2), rows[last]


def _round_robin(units: np.ndarray, batch_of: np.ndarray, filled: np.ndarray, batch_size: int) -> None:
    """Put units (rows [units, rows of a unit]) one by one into the emptiest batch, as long as one has room."""
    width = units.shape[1]
    room = (batch_size - filled) // width
    batch = np.repeat(np.arange(len(filled)), room)
    nth = np.arange(len(batch)) - np.repeat(np.cumsum(room) - room, room)
    order = np.argsort(filled[batch] + width * nth, kind="stable")[: len(units)]
    batch_of[units[: len(order)]] = batch[order][:, None]
    filled += width * np.bincount(batch[order], minlength=len(filled))


def _has_triplet(label: np.ndarray) -> bool:
    """Whether an anchor, a positive and a negative can be found among rows with these labels."""
    counts = np.unique(label, return_counts=True)[1]
    return len(counts) > 1 and bool(counts.max() > 1)

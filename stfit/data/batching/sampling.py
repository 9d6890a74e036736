"""Which examples form a batch: a pure function of the data, the seed and the epoch.

Independent of hash seeds, threads and earlier draws, so any epoch can be sampled again on its own.
"""

from collections import deque
from hashlib import sha256
from typing import Literal

import numpy as np

from stfit.errors import DataError, RecipeError
from stfit.progress import task

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
    """Batches of example indices for one epoch, none smaller than `min_batch_size`; no index twice.

    `text_ids`: [examples, columns], -1 for a missing text. Raises DataError if there is no batch.
    """
    digest = sha256(f"{fingerprint}:{seed}:{epoch}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest))
    with task(f"forming batches of {len(text_ids):,} examples"):
        if sampler == "no_duplicates":
            batches = no_duplicates(text_ids, batch_size, random)
        elif sampler == "group_by_label":
            if label is None:
                raise RecipeError("`sampler: group_by_label` needs a format with labels")
            batches = group_by_label(label, batch_size, random)
        else:
            batches = shuffle(len(text_ids), batch_size, random)
    batches = [batch for batch in batches if len(batch) >= min_batch_size]
    if not batches:
        raise DataError(
            f"{len(text_ids)} examples do not form a batch of at least {min_batch_size} rows, which the loss needs "
            f"(sampler {sampler}, at most {batch_size} rows)"
        )
    return batches


def shuffle(examples: int, batch_size: int, random: np.random.Generator) -> list[np.ndarray]:
    return np.split(random.permutation(examples), range(batch_size, examples, batch_size))


def no_duplicates(text_ids: np.ndarray, batch_size: int, random: np.random.Generator) -> list[np.ndarray]:
    """Batches in which no two examples share a text in any column: a shared text would be a false negative.

    An example that shares a text with the current batch waits. When the batch is full, one waiting example per text of
    the batch returns to the queue, since the next batch can hold at most one. So each example moves only a few times,
    however often texts repeat, and the examples of a frequent text are spread over the epoch, one per batch.
    """
    texts_of = text_ids.tolist()
    if (text_ids < 0).any():
        texts_of = [[text for text in texts if text >= 0] for texts in texts_of]
    queue = deque(random.permutation(len(text_ids)).tolist())
    waiting: dict[int, deque[int]] = {}
    batches: list[np.ndarray] = []
    while queue:
        batch: list[int] = []
        batch_texts: dict[int, None] = {}  # ordered, unlike a set
        while queue and len(batch) < batch_size:
            example = queue.popleft()
            texts = texts_of[example]
            if batch_texts.keys().isdisjoint(texts):
                batch.append(example)
                batch_texts.update(dict.fromkeys(texts))
            else:
                shared = next(text for text in texts if text in batch_texts)
                waiting.setdefault(shared, deque()).append(example)
        batches.append(np.array(batch))
        queue.extendleft(waiting[text].popleft() for text in batch_texts if waiting.get(text))
    return batches


def group_by_label(label: np.ndarray, batch_size: int, random: np.random.Generator) -> list[np.ndarray]:
    """Batches with at least two labels, one of them at least twice, so that triplets can be mined.

    Rows of a label are distributed in pairs. The largest label comes last and fills the emptiest batches, so that it is
    spread over the epoch and no batch holds it alone while other labels have rows left. Labels with one row are unused.
    """
    if batch_size < 4:
        raise RecipeError("`sampler: group_by_label` needs a `batch_size` of at least 4, for pairs of two labels")
    rows = random.permutation(len(label))
    _, classes, counts = np.unique(label[rows], return_inverse=True, return_counts=True)
    rows, classes = rows[counts[classes] > 1], classes[counts[classes] > 1]
    largest = classes == np.argmax(counts)
    pairs, singles = _split_into_pairs(rows[~largest], classes[~largest], random)
    filler_pairs, filler_singles = _split_into_pairs(rows[largest], classes[largest], random)
    fillers = np.concatenate([filler_pairs.reshape(-1), filler_singles])

    not_largest = 2 * len(pairs) + len(singles)
    count = max(-(-len(rows) // batch_size), -(-len(pairs) // (batch_size // 2)))
    count = min(count, not_largest)  # every batch needs a row of another label than the largest
    if not count:
        return []
    split = max(0, count - len(pairs) - len(singles))  # pairs to split, so that every batch gets a row
    singles = np.concatenate([singles, pairs[len(pairs) - split :].reshape(-1)])
    pairs = pairs[: len(pairs) - split]

    batch_of = np.full(len(label), -1)
    filled = np.zeros(count, dtype=np.int64)
    for units in (pairs, singles[:, None], fillers[: len(fillers) // 2 * 2].reshape(-1, 2)):
        _round_robin(units, batch_of, filled, batch_size)
    _round_robin(fillers[batch_of[fillers] < 0][:, None], batch_of, filled, batch_size)

    used = np.flatnonzero(batch_of >= 0)
    used = used[np.argsort(batch_of[used], kind="stable")]
    batches = np.split(used, np.cumsum(filled)[:-1])
    return [batches[i] for i in random.permutation(count) if _has_triplet(label[batches[i]])]


def _split_into_pairs(
    rows: np.ndarray, classes: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows of one class [pairs, 2], classes in random order, and the last row of each class of odd size."""
    place = random.permutation(int(classes.max(initial=0)) + 1)[classes]
    order = np.argsort(place, kind="stable")
    rows, place = rows[order], place[order]
    sizes = np.bincount(place)
    last = np.cumsum(sizes)[sizes % 2 == 1] - 1
    return np.delete(rows, last).reshape(-1, 2), rows[last]


def _round_robin(units: np.ndarray, batch_of: np.ndarray, filled: np.ndarray, batch_size: int) -> None:
    """Put units [units, rows per unit] one by one into the emptiest batch with room; updates `batch_of`, `filled`."""
    width = units.shape[1]
    room = (batch_size - filled) // width
    batch = np.repeat(np.arange(len(filled)), room)
    nth = np.arange(len(batch)) - np.repeat(np.cumsum(room) - room, room)
    order = np.argsort(filled[batch] + width * nth, kind="stable")[: len(units)]
    batch_of[units[: len(order)]] = batch[order][:, None]
    filled += width * np.bincount(batch[order], minlength=len(filled))


def _has_triplet(label: np.ndarray) -> bool:
    counts = np.unique(label, return_counts=True)[1]
    return len(counts) > 1 and bool(counts.max() > 1)

"""Which texts say the same as the positive of a row, so that they are no negatives of it."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stfit.data.mapping.examples import Examples
from stfit.data.mapping.plain_text import plain
from stfit.data.table import Table
from stfit.workflows.mine.candidates import Candidates

IsKnown: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Rows [b] and candidates [b, k] -> whether the text says the same as the row's, [b, k]."""


def find_known_positives(pairs: Examples, table: Table, candidates: Candidates) -> IsKnown:
    """`table`: the rows that the pairs come from; with `document_id`, they are judgments of queries."""
    return _is_judged(pairs, table, candidates) if "document_id" in table.columns else _is_linked(pairs, candidates)


def _is_linked(pairs: Examples, candidates: Candidates) -> IsKnown:
    """Whether a text says the same as a row's: linked by pairs, even indirectly, or `plain`-equal."""
    numbers: dict[str, int] = {}
    anchor, positive, text = (
        np.array([numbers.setdefault(plain(text), len(numbers)) for text in column], dtype=np.int64)
        for column in (pairs.column("anchor"), pairs.column("positive"), candidates.texts)
    )
    links = coo_array((np.ones(len(anchor)), (anchor, positive)), shape=(len(numbers), len(numbers)))
    _, cluster = connected_components(links, directed=False)
    return lambda rows, index_bk: cluster[anchor[rows], None] == cluster[text[index_bk]]


def _is_judged(pairs: Examples, table: Table, candidates: Candidates) -> IsKnown:
    """The same for judgments, where a document answers many queries: what is relevant to the query, by id or by text.

    Judgments that are not trained (`where`, `limit`) count too.
    """
    numbers: dict[str, int] = {}
    text_c = np.array([numbers.setdefault(plain(text), len(numbers)) for text in candidates.texts], dtype=np.int64)
    number_of = {id: number for number, ids in zip(text_c.tolist(), candidates.ids, strict=True) for id in ids}
    relevant: dict[str, set[int]] = {}
    for query, id, text in zip(*(table.columns[name] for name in ("anchor", "document_id", "positive")), strict=True):
        relevant.setdefault(plain(query or ""), set()).update(
            {number_of.get(id, -1), numbers.get(plain(text or ""), -1)}
        )
    known = [
        list(relevant.get(plain(anchor), set()) | {numbers.get(plain(text), -1) for text in (anchor, positive)})
        for anchor, positive in zip(pairs.column("anchor"), pairs.column("positive"), strict=True)
    ]
    return lambda rows, index_bk: np.stack(
        [np.isin(text_c[index_k], known[row]) for row, index_k in zip(rows.tolist(), index_bk, strict=True)]
    )

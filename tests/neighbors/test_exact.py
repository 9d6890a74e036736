"""The k nearest are those of a full sort, whatever is equal or no number."""

import numpy as np
import pytest
import torch

from stfit.neighbors.exact import GROUP, _sort_top_k, _top_k, nearest

SHAPES = [(7, 5000, 10), (3, GROUP * 20, 10), (3, GROUP * 20 + 13, 10), (2, 100_003, 100), (2, 70, 100), (1, 640, 5)]


@pytest.mark.parametrize("kind", ["random", "equal", "no numbers", "nothing finite"])
@pytest.mark.parametrize(("queries", "columns", "k"), SHAPES)
def test_best_of_groups_are_the_best_of_all(kind, queries, columns, k) -> None:
    score_qc = torch.randn(queries, columns, generator=torch.Generator().manual_seed(columns))
    if kind == "equal":
        score_qc = (3 * score_qc).round()
    if kind == "no numbers":
        score_qc[score_qc > 1] = torch.nan
    if kind == "nothing finite":
        score_qc.fill_(-torch.inf)
    found, expected = _top_k(score_qc, k), _sort_top_k(score_qc, k)
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(np.sort(found[1]), np.sort(expected[1]))


def test_equally_near_rows_come_in_their_order_across_chunks() -> None:
    corpus = np.tile(np.eye(2, dtype=np.float32), (3000, 1))
    score, index = nearest(np.eye(2, dtype=np.float32)[:1], [corpus[:2501], corpus[2501:]], 30, "dot")
    assert index[0].tolist() == list(range(0, 60, 2))
    assert set(score[0].tolist()) == {1.0}

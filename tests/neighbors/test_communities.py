"""Communities are those of sentence-transformers, whichever way the pairs are found."""

import numpy as np
import pytest
import torch

from stfit.data.embeddings.matrix import EmbeddingMatrix
from stfit.errors import DataError
from stfit.neighbors import communities as room
from stfit.neighbors.communities import find_communities

generator = np.random.default_rng(0)


def clustered(rows: int, dim: int, centers: int) -> np.ndarray:
    """Embeddings around some centers, of different lengths, some of them equal."""
    center_cd = generator.standard_normal((centers, dim))
    spread = generator.uniform(0.2, 1.5, (rows, 1))
    embeddings = center_cd[generator.integers(0, centers, rows)] + spread * generator.standard_normal((rows, dim))
    embeddings[5:8] = embeddings[4]
    return (embeddings * generator.uniform(0.5, 2, (rows, 1))).astype(np.float32)


def as_sets(communities: list[list[int]]) -> list[tuple[int, set[int]]]:
    """Center and members: equally similar members have no order."""
    return [(community[0], set(community)) for community in communities]


@pytest.mark.parametrize("projections", [(), (8, 32), (3,)])
@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("min_size", [2, 5, 10])
def test_communities_equal_those_of_sentence_transformers(monkeypatch, projections, threshold, min_size) -> None:
    monkeypatch.setattr(room, "BLOCK", 64)
    monkeypatch.setattr(room, "PROJECTIONS", projections)
    embeddings = clustered(500, 64, 12)
    util = pytest.importorskip("sentence_transformers.util", reason="pip install stfit[sentence-transformers]")
    found = find_communities(EmbeddingMatrix([embeddings[:123], embeddings[123:]]), threshold, min_size)
    expected = util.community_detection(torch.from_numpy(embeddings), threshold, min_size)
    assert as_sets([member.tolist() for member, _ in found]) == as_sets(expected)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for member, score in found:
        np.testing.assert_allclose(score, unit[member] @ unit[member[0]], atol=1e-6)
        assert (np.diff(score[1:]) <= 0).all()


def test_the_projection_that_is_chosen_is_the_cheapest(monkeypatch) -> None:
    monkeypatch.setattr(room, "PROJECTIONS", (8, 32))
    few_dims = np.zeros((300, 64), dtype=np.float32)
    few_dims[:, :8] = generator.standard_normal((300, 8))
    few_dims /= np.linalg.norm(few_dims, axis=1, keepdims=True)
    basis = room._choose_basis(torch.from_numpy(few_dims), 0.95)
    assert basis is not None
    assert basis.shape == (64, 8)
    in_all = torch.nn.functional.normalize(torch.from_numpy(generator.standard_normal((300, 64))))
    assert room._choose_basis(in_all, 0.1) is None


def test_nothing_similar_is_no_community() -> None:
    assert find_communities(EmbeddingMatrix([np.eye(12, dtype=np.float32)]), 0.5, 2) == []
    alone = find_communities(EmbeddingMatrix([np.eye(3, dtype=np.float32)]), 0.5, 1)
    assert [member.tolist() for member, _ in alone] == [[0], [1], [2]]


def test_too_many_pairs_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(room, "MAX_PAIRS", 100)
    with pytest.raises(DataError, match="set a higher --clusters"):
        find_communities(EmbeddingMatrix([np.ones((50, 4), dtype=np.float32)]), 0.5, 2)

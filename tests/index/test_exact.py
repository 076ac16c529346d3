"""Exact search against sorting everything with numpy; stable ties; tiles that change nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embattle.errors import InputError, ModelError
from embattle.index import ExactIndex
from embattle.similarity import Cosine, Euclidean


def gallery(m, d=5, seed=0):
    return torch.randn(m, d, generator=torch.Generator().manual_seed(seed))


def slow_order(query, items, similarity):
    """All positions by falling similarity, ties by position."""
    scores = []
    for item in items.double().numpy():
        q = query.double().numpy()
        if similarity.name == "cosine":
            scores.append(q @ item / (np.linalg.norm(q) * np.linalg.norm(item)))
        else:
            scores.append(-np.linalg.norm(q - item))
    return sorted(range(len(items)), key=lambda i: -scores[i]), scores


@pytest.mark.parametrize("similarity", [Cosine(), Euclidean()], ids=lambda s: s.name)
@pytest.mark.parametrize("tile", [1, 7, 16_384])
def test_finds_what_sorting_everything_finds(similarity, tile):
    items, queries = gallery(60), gallery(4, seed=1)
    index = ExactIndex(items, [f"i{n}" for n in range(60)], similarity, column_tile=tile)
    for query, found in zip(queries, index.search(queries, 9), strict=True):
        order, scores = slow_order(query, items, similarity)
        assert found.items == tuple(f"i{n}" for n in order[:9])
        np.testing.assert_allclose(found.similarities, [scores[n] for n in order[:9]], atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.integers(0, 3), min_size=1, max_size=20), tile=st.integers(1, 8), data=st.data())
def test_ties_keep_the_gallerys_order(values, tile, data):
    k = data.draw(st.integers(1, len(values)))
    items = torch.tensor(values, dtype=torch.float32)[:, None]
    index = ExactIndex(items, [str(n) for n in range(len(values))], Euclidean(), column_tile=tile)
    found = index.search(torch.tensor([[0.0]]), k)[0]
    expected = sorted(range(len(values)), key=lambda n: values[n])
    assert found.items == tuple(str(n) for n in expected[:k])


def test_names_queries_and_keeps_the_gallery():
    items = gallery(5)
    before = items.clone()
    index = ExactIndex(items, "abcde", Cosine())
    assert [found.query for found in index.search(items[:2], 1, query_ids=["p", "q"])] == ["p", "q"]
    assert [found.items for found in index.search(items, 1)] == [("a",), ("b",), ("c",), ("d",), ("e",)]
    assert torch.equal(items, before)
    assert len(index) == 5


@pytest.mark.parametrize("k", [0, 6, True, 2.0])
def test_k_outside_the_gallery_is_a_sentence(k):
    with pytest.raises(InputError, match="gallery of 5 items: k must be from 1 to 5"):
        ExactIndex(gallery(5), "abcde", Cosine()).search(gallery(1), k)


def test_bad_galleries_and_queries_are_sentences():
    with pytest.raises(InputError, match="ids must be unique"):
        ExactIndex(gallery(3), "aba", Cosine())
    with pytest.raises(InputError, match="one id for each"):
        ExactIndex(gallery(3), "ab", Cosine())
    with pytest.raises(InputError, match="allowed are floats"):
        ExactIndex(torch.empty(0, 4), "", Cosine())
    with pytest.raises(InputError, match="column_tile=0"):
        ExactIndex(gallery(3), "abc", Cosine(), column_tile=0)
    broken = gallery(3)
    broken[1, 0] = torch.nan
    with pytest.raises(ModelError, match="1 of 3 gallery embeddings are NaN"):
        ExactIndex(broken, "abc", Cosine())
    index = ExactIndex(gallery(3), "abc", Cosine())
    with pytest.raises(ModelError, match="queries are NaN"):
        index.search(broken, 1)
    with pytest.raises(InputError, match="dimension 4"):
        index.search(gallery(1, d=4), 1)
    with pytest.raises(InputError, match="query ids"):
        index.search(gallery(2), 1, query_ids=["one"])

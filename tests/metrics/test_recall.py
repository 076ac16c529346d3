"""Recall@k and MAP@R against sorting one query at a time; ties, lonely classes, unusable embeddings."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embattle.errors import InputError, ModelError
from embattle.metrics import map_at_r, recall, recall_at_k
from embattle.similarity import Cosine, Euclidean

BOTH = pytest.mark.parametrize("similarity", [Cosine(), Euclidean()], ids=lambda s: s.name)


def drawn(n=60, d=3, classes=6, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=rng), torch.randint(0, classes, (n,), generator=rng)


def slow_list(z, query, similarity):
    """Positions of all other pictures, nearest first, ties by position."""
    z = z.double().numpy()
    if similarity.name == "cosine":
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
    far = [np.linalg.norm(z[query] - other) for other in z]
    return sorted((n for n in range(len(z)) if n != query), key=lambda n: far[n])


def slow_recall(z, labels, similarity, k):
    values = []
    for query in range(len(z)):
        found = [bool(labels[n] == labels[query]) for n in slow_list(z, query, similarity)]
        values.append(float(any(found[:k])) if any(found) else math.nan)
    return values


def slow_map_at_r(z, labels, similarity):
    values = []
    for query in range(len(z)):
        found = [bool(labels[n] == labels[query]) for n in slow_list(z, query, similarity)]
        relevant = sum(found)
        total = sum(sum(found[: i + 1]) / (i + 1) for i in range(relevant) if found[i])
        values.append(total / relevant if relevant else math.nan)
    return values


@BOTH
@pytest.mark.parametrize("k", [1, 2, 5])
def test_recall_is_what_sorting_gives(similarity, k):
    z, labels = drawn()
    expected = slow_recall(z, labels, similarity, k)
    assert 0 < np.mean(expected) < 1
    found = recall_at_k(z, labels, similarity, k)
    assert found.values.tolist() == expected
    assert found.figure.value == pytest.approx(np.mean(expected))
    assert (found.figure.n, found.figure.undefined, found.figure.unit) == (60, 0, "share")


@BOTH
def test_map_at_r_is_what_sorting_gives(similarity):
    z, labels = drawn()
    expected = slow_map_at_r(z, labels, similarity)
    found = map_at_r(z, labels, similarity)
    np.testing.assert_allclose(found.values.numpy(), expected, atol=1e-12)
    low, high = found.figure.ci
    assert found.figure.value == pytest.approx(np.mean(expected))
    assert low < found.figure.value < high


def test_map_at_r_of_the_papers_toy_lists():
    # Musgrave et al., figure 3 in words: R = 10; all ten found gives 1, only the first gives 1/10, only the tenth 1/100.
    far = torch.arange(1, 41, dtype=torch.float32)
    z = torch.cat([torch.zeros(1), far])[:, None]

    def value(relevant):
        labels = torch.tensor([0] + [0 if n in relevant else 1 for n in range(40)])
        return map_at_r(z, labels, Euclidean()).values[0].item()

    assert value(range(10)) == 1.0
    assert value([0, *range(20, 29)]) == pytest.approx(0.1)
    assert value([9, *range(20, 29)]) == pytest.approx(0.01)


@given(
    places=st.lists(st.integers(0, 2), min_size=2, max_size=12).filter(lambda v: len(set(v)) > 1),
    data=st.data(),
)
def test_ties_are_broken_by_position(places, data):
    labels = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=len(places), max_size=len(places))))
    k = data.draw(st.integers(1, len(places) - 1))
    # At the corners of an equilateral triangle all distances are 0 or equal, and exactly so in every order of summation.
    z = torch.eye(3)[torch.tensor(places)]
    for similarity in (Cosine(), Euclidean()):
        expected = torch.tensor(slow_recall(z, labels, similarity, k), dtype=torch.float64)
        assert torch.equal(recall_at_k(z, labels, similarity, k).values.nan_to_num(-1), expected.nan_to_num(-1))
        expected = torch.tensor(slow_map_at_r(z, labels, similarity), dtype=torch.float64)
        torch.testing.assert_close(map_at_r(z, labels, similarity).values, expected, equal_nan=True)


@given(seed=st.integers(0, 50), k=st.integers(1, 19))
def test_recall_rises_with_k_and_ignores_scale_and_order(seed, k):
    z, labels = drawn(20, 3, 4, seed)
    now = recall_at_k(z, labels, Cosine(), k).values
    later = recall_at_k(z, labels, Cosine(), min(19, k + 1)).values
    assert bool(((later >= now) | now.isnan()).all())
    shuffled = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(
        recall_at_k(4 * z[shuffled], labels[shuffled], Cosine(), k).values.nan_to_num(-1), now[shuffled].nan_to_num(-1)
    )


def test_a_query_never_finds_itself_and_a_lonely_one_is_undefined():
    z = torch.tensor([[0.0], [0.1], [5.0]])
    found = recall_at_k(z, torch.tensor([0, 1, 0]), Euclidean(), 1)
    assert found.values.nan_to_num(-1).tolist() == [0.0, -1.0, 0.0]
    assert (found.figure.value, found.figure.n, found.figure.undefined) == (0.0, 2, 1)
    assert map_at_r(z, torch.tensor([0, 1, 0]), Euclidean()).figure.undefined == 1


@BOTH
def test_row_tiles_change_nothing(similarity, monkeypatch):
    z, labels = drawn()
    before = recall_at_k(z, labels, similarity, 2).values, map_at_r(z, labels, similarity).values
    monkeypatch.setattr(recall, "_ROWS", 7)
    after = recall_at_k(z, labels, similarity, 2).values, map_at_r(z, labels, similarity).values
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize("metric", [recall_at_k, map_at_r], ids=lambda metric: metric.__name__)
def test_unusable_embeddings_are_sentences(metric):
    z, labels = drawn(10)
    with pytest.raises(ModelError, match="all 10 embeddings are equal: the model has collapsed"):
        metric(torch.ones(10, 3), labels, Euclidean())
    with pytest.raises(ModelError, match="collapsed"):
        metric(torch.ones(10, 3) * torch.rand(10, 1).add(0.1), labels, Cosine())
    holed = z.clone()
    holed[4, 1] = torch.nan
    with pytest.raises(ModelError, match=r"1 of 10 embeddings are NaN or infinite \(the first is number 4\)"):
        metric(holed, labels, Cosine())
    holed[4] = 0
    with pytest.raises(ModelError, match="1 of 10 embeddings are all zeros"):
        metric(holed, labels, Cosine())
    assert metric(holed, labels, Euclidean()).figure.n > 0
    with pytest.raises(InputError, match=r"labels of type torch\.float32"):
        metric(z, labels.float(), Cosine())
    with pytest.raises(InputError, match="for 10 embeddings"):
        metric(z, labels[:9], Cosine())
    with pytest.raises(InputError, match="at least 2"):
        metric(z[:1], labels[:1], Cosine())


@pytest.mark.parametrize("k", [0, 10, 1.0, True])
def test_k_outside_the_others_is_a_sentence(k):
    z, labels = drawn(10)
    with pytest.raises(InputError, match="k must be a whole number from 1 to 9"):
        recall_at_k(z, labels, Cosine(), k)

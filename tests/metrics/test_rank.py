"""Ranks against counting one by one in float64; ties, own copies, exclusions and tiles."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embattle.errors import InputError, ModelError
from embattle.metrics import normalised_rank, rank, ranks, success_at_rank
from embattle.similarity import Cosine, Euclidean

BOTH = pytest.mark.parametrize("similarity", [Cosine(), Euclidean()], ids=lambda s: s.name)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_closeness(a, b, similarity):
    a, b = a.double().numpy(), b.double().numpy()
    if similarity.name == "cosine":
        return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    return -np.sqrt(((a - b) ** 2).sum())


def slow_ranks(query, items, gallery, similarity, exclude=()):
    """One comparison at a time: how many gallery rows are strictly closer to each row's query than its items."""
    counts = np.zeros(items.shape[:2], dtype=int)
    for row in range(len(query)):
        for column in range(items.shape[1]):
            own = slow_closeness(query[row], items[row, column], similarity)
            for position, other in enumerate(gallery):
                if exclude and position in exclude[row]:
                    continue
                counts[row, column] += slow_closeness(query[row], other, similarity) > own + 1e-11
    return counts


@BOTH
def test_counts_what_counting_one_by_one_counts(similarity):
    query, items, gallery = drawn(5, 8), drawn(5, 3, 8, seed=1), drawn(70, 8, seed=2)
    expected = slow_ranks(query, items, gallery, similarity)
    assert expected.min() < 20 < 50 < expected.max()
    found = ranks(query, items, gallery, similarity)
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found.numpy(), expected)


@BOTH
def test_several_queries_of_one_item(similarity):
    queries, item, gallery = drawn(4, 3, 8), drawn(4, 8, seed=1), drawn(50, 8, seed=2)
    expected = np.concatenate([slow_ranks(queries[:, w], item[:, None], gallery, similarity) for w in range(3)], axis=1)
    np.testing.assert_array_equal(ranks(queries, item, gallery, similarity).numpy(), expected)
    alone = ranks(queries[:, 0], item, gallery, similarity)
    assert alone.tolist() == expected[:, :1].tolist()


@BOTH
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_items_of_the_gallery_have_the_rank_of_their_place(similarity, scale):
    # Far from the origin and close together: where a float32 matrix product rounds worst.
    gallery = (drawn(300, 64) * 0.01 + 1) * scale
    query = (drawn(3, 64, seed=1) * 0.01 + 1) * scale
    for row in range(3):
        scores = torch.stack([similarity.pair(query[row].double(), item.double()) for item in gallery])
        place = scores.argsort(descending=True).argsort()
        found = ranks(query[row : row + 1].expand(300, -1), gallery, gallery, similarity)
        assert found.flatten().tolist() == place.tolist()


@BOTH
def test_an_items_own_copy_ties_and_does_not_count(similarity):
    gallery = drawn(200, 32)
    itself = ranks(gallery, gallery, gallery, similarity)
    assert itself.unique().tolist() == [0]
    # The nearest other item, with every gallery item there twice: only the query's own two copies are closer.
    doubled = torch.cat([gallery, gallery])
    nearest = similarity.cross(gallery, gallery).fill_diagonal_(-torch.inf).argmax(1)
    assert ranks(gallery, gallery[nearest], doubled, similarity).unique().tolist() == [2]


def test_kept_and_replaced_differ_by_the_own_clean_copy():
    gallery = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    attacked = torch.tensor([[2.5]])  # the attacked copy of item 1, pushed down; its clean copy is still in the gallery
    query = torch.tensor([[0.0]])
    assert ranks(query, attacked, gallery, Euclidean()).tolist() == [[3]]
    assert ranks(query, attacked, gallery, Euclidean(), exclude=torch.tensor([1])).tolist() == [[2]]
    assert ranks(query, attacked, gallery, Euclidean(), exclude=torch.tensor([[1, 1, 0]])).tolist() == [[1]]
    assert ranks(query, attacked, gallery, Euclidean(), exclude=torch.tensor([-1])).tolist() == [[3]]


@given(
    grid=st.lists(st.integers(-2, 2), min_size=2, max_size=25).filter(lambda v: len(set(v)) > 1),
    asked=st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=1, max_size=6),
    data=st.data(),
)
def test_ties_on_a_grid(grid, asked, data):
    out = [data.draw(st.sets(st.integers(0, len(grid) - 1), max_size=3)) for _ in asked]
    exclude = torch.tensor([[*places, -1, -1, -1][:3] for places in out])
    gallery = torch.tensor(grid, dtype=torch.float32)[:, None]
    query, item = (torch.tensor(column, dtype=torch.float32)[:, None] for column in zip(*asked, strict=True))
    found = ranks(query, item, gallery, Euclidean(), exclude=exclude)
    for (q, i), places, value in zip(asked, out, found.flatten().tolist(), strict=True):
        assert value == sum(abs(g - q) < abs(i - q) for n, g in enumerate(grid) if n not in places)


@BOTH
def test_tiles_change_nothing(similarity, monkeypatch):
    query, items, gallery = drawn(9, 8), drawn(9, 2, 8, seed=1), drawn(40, 8, seed=2)
    exclude = torch.arange(9)[:, None] + torch.tensor([[0, 30]])
    whole = ranks(query, items, gallery, similarity, exclude=exclude)
    expected = slow_ranks(query, items, gallery, similarity, [set(row) for row in exclude.tolist()])
    np.testing.assert_array_equal(whole.numpy(), expected)
    monkeypatch.setattr(rank, "_ROWS", 2)
    monkeypatch.setattr(rank, "_COLUMNS", 7)
    assert torch.equal(ranks(query, items, gallery, similarity, exclude=exclude), whole)


@BOTH
def test_a_row_does_not_depend_on_its_company(similarity):
    query, items, gallery = drawn(20, 16), drawn(20, 2, 16, seed=1), drawn(90, 16, seed=2)
    together = ranks(query, items, gallery, similarity)
    alone = torch.cat([ranks(query[n : n + 1], items[n : n + 1], gallery, similarity) for n in range(20)])
    assert torch.equal(together, alone)


def test_a_similarity_we_do_not_know_is_counted_exactly():
    class Inner:
        name = "inner"

        def pair(self, a, b):
            return (a * b).sum(-1)

        def cross(self, a, gallery):
            return a @ gallery.T

        def distance(self, similarity):
            return -similarity

    query, items, gallery = drawn(3, 4), drawn(3, 2, 4, seed=1), drawn(30, 4, seed=2)
    expected = [[int((gallery @ query[r] > items[r, w] @ query[r]).sum()) for w in range(2)] for r in range(3)]
    assert ranks(query, items, gallery, Inner()).tolist() == expected


def test_normalised_rank_is_a_percentage_of_the_gallery():
    assert normalised_rank(torch.tensor([[0, 50], [100, 200]]), 200).tolist() == [[0, 25], [50, 100]]
    assert normalised_rank(torch.tensor([1]), 3).dtype == torch.float64
    with pytest.raises(InputError, match="at least 1"):
        normalised_rank(torch.tensor([0]), 0)
    with pytest.raises(InputError, match="ranks from -1 to 4 in a gallery of 3"):
        normalised_rank(torch.tensor([-1, 4]), 3)


def test_success_at_rank_counts_rows_whose_items_are_all_on_the_page():
    found = success_at_rank(torch.tensor([[0, 3], [0, 4], [3, 3], [9, 0]]), 4, gallery_size=10)
    assert found.values.tolist() == [1, 0, 1, 0]
    assert (found.figure.value, found.figure.n, found.figure.higher_is_better) == (0.5, 4, False)
    assert found.figure.ci == pytest.approx((0.150, 0.850), abs=1e-3)  # Wilson, 2 of 4
    begun = torch.tensor([True, False, False, False])
    left = success_at_rank(torch.tensor([0, 0, 9, 9]), 4, gallery_size=10, already=begun).figure
    assert (left.n, left.undefined, left.value) == (3, 1, pytest.approx(1 / 3))


@pytest.mark.parametrize("k", [0, 11, 1.5, True])
def test_success_needs_a_page_within_the_gallery(k):
    with pytest.raises(InputError, match="from 1 to 10"):
        success_at_rank(torch.tensor([0]), k, gallery_size=10)


def test_bad_input_is_a_sentence():
    query, items, gallery = drawn(3, 4), drawn(3, 2, 4), drawn(6, 4)
    with pytest.raises(InputError, match=r"query \(3, 4\), items \(2, 2, 4\)"):
        ranks(query, items[:2], gallery, Cosine())
    with pytest.raises(InputError, match=r"allowed are query \(n, D\)"):
        ranks(query, items, drawn(6, 5), Cosine())
    with pytest.raises(InputError, match="gallery of 6: allowed are -1"):
        ranks(query, items, gallery, Cosine(), exclude=torch.tensor([0, 6, 1]))
    with pytest.raises(InputError, match="integers"):
        ranks(query, items, gallery, Cosine(), exclude=torch.tensor([0.0, 1.0, 1.0]))
    with pytest.raises(ModelError, match="all 6 gallery embeddings are equal"):
        ranks(query, items, torch.ones(6, 4), Cosine())
    broken = items.clone()
    broken[1, 0, 0] = torch.inf
    with pytest.raises(ModelError, match=r"1 of 6 item embeddings are NaN or infinite \(the first is number 2\)"):
        ranks(query, broken, gallery, Cosine())


def test_multiples_of_one_embedding_tie_under_the_cosine():
    """Integer embeddings and their multiples have equal cosines, which float64 does not always give to the last bit."""
    z = torch.randint(-9, 10, (50, 7), generator=torch.Generator().manual_seed(3)).float()
    z = z[z.abs().sum(1) > 0]
    gallery = torch.cat([3 * z, 5 * z, 7 * z])
    query = torch.randint(-9, 10, (1, 7), generator=torch.Generator().manual_seed(4)).float().expand(len(z), -1)
    found = ranks(query, z.unsqueeze(1), gallery, Cosine())
    # Only other directions can be strictly closer: their number comes in threes, and the copies never count.
    cosines = torch.nn.functional.cosine_similarity(query.double(), z.double())
    expected = 3 * (cosines.unsqueeze(0) > cosines.unsqueeze(1) + 1e-9).sum(1)
    assert torch.equal(found[:, 0], expected)

"""Similarities agree with float64 and with themselves; draws depend on their keys and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from embattle import similarity as similarity_module
from embattle.errors import ConfigError
from embattle.rng import Rows, generator, normal, signs, uniform
from embattle.similarity import Cosine, Euclidean, Similarity, by_name


def vectors(rows, size=5, low=-10, high=10):
    return nps.arrays(np.float32, (rows, size), elements=st.floats(low, high, width=32)).map(torch.from_numpy)


def exact(name, a, b):
    """Similarity of every row with every row, in float64 and numpy."""
    a, b = a.double().numpy(), b.double().numpy()
    if name == "euclidean":
        return -np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    lengths = np.sqrt((a**2).sum(-1))[:, None] * np.sqrt((b**2).sum(-1))[None]
    return (a @ b.T) / np.maximum(lengths, 1e-30)


@given(vectors(3), vectors(7))
def test_euclidean_pair_and_cross_agree_with_float64(a, b):
    expected = exact("euclidean", a, b)
    np.testing.assert_allclose(Euclidean().pair(a[:, None], b), expected, rtol=1e-5, atol=2e-6)
    # The product form measures squared distances: what it may lose is relative to the size of the embeddings.
    size = float(((a - b.mean(0)) ** 2).sum(1).max() + ((b - b.mean(0)) ** 2).sum(1).max())
    np.testing.assert_allclose(Euclidean().cross(a, b).numpy() ** 2, expected**2, atol=2e-6 * size + 1e-10, rtol=1e-6)


@given(vectors(3), vectors(7))
def test_cosine_pair_and_cross_agree_with_float64(a, b):
    lengths = torch.cat([a, b]).double().norm(dim=1)
    # Below 1e-3 float32 squares of tiny entries vanish; a zero embedding is caught before any figure is computed.
    keep = lengths >= 1e-3
    a, b = a[keep[:3]], b[keep[3:]]
    expected = exact("cosine", a, b)
    np.testing.assert_allclose(Cosine().pair(a[:, None], b), expected, atol=2e-6)
    if len(b):
        np.testing.assert_allclose(Cosine().cross(a, b), expected, atol=2e-6)


@pytest.mark.parametrize("name", ["cosine", "euclidean"])
def test_far_from_the_origin_distances_keep_their_digits(name):
    # |a|^2 - 2ab + |b|^2 without centring would leave nothing of distances of 0.1 at 1000.
    drawn = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    a, b = 1000 + drawn[:10] * 0.1, 1000 + drawn[10:] * 0.1
    similarity = by_name(name)
    np.testing.assert_allclose(similarity.cross(a, b), exact(name, a, b), rtol=2e-3 if name == "euclidean" else 1e-6)


@pytest.mark.parametrize("name", ["cosine", "euclidean"])
def test_galleries_are_compared_in_tiles_of_a_fixed_width(name, monkeypatch):
    monkeypatch.setattr(similarity_module, "COLUMN_TILE", 8)
    drawn = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    found = by_name(name).cross(drawn[:5], drawn[5:])
    assert found.shape == (5, 35)
    np.testing.assert_allclose(found, exact(name, drawn[:5], drawn[5:]), atol=1e-4)


@pytest.mark.parametrize("similarity", [Cosine(), Euclidean()], ids=lambda s: s.name)
def test_higher_is_closer_and_distance_turns_it_round(similarity):
    near, far = torch.tensor([1.0, 0.1]), torch.tensor([-1.0, 3.0])
    me = torch.tensor([1.0, 0.0])
    assert similarity.pair(me, near) > similarity.pair(me, far)
    assert similarity.distance(similarity.pair(me, near)) < similarity.distance(similarity.pair(me, far))
    assert float(similarity.distance(similarity.pair(me, me))) == pytest.approx(0, abs=1e-5)
    assert isinstance(similarity, Similarity)


def test_the_euclidean_slope_at_the_same_point_is_finite():
    a = torch.ones(2, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(Euclidean().pair(a, torch.ones(2, 3)).sum(), a)
    assert torch.equal(grad, torch.zeros(2, 3))


def test_similarities_have_names():
    assert by_name("cosine") == Cosine()
    assert by_name(Euclidean()) == Euclidean()
    with pytest.raises(ConfigError, match=r"'dot' is not known; write one of: cosine, euclidean"):
        by_name("dot")


NAMES = st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=6, unique=True)
FILLS = st.sampled_from([None, uniform(-2, 3), signs, normal])


@given(st.integers(0, 2**63), NAMES, st.randoms(use_true_random=False), FILLS)
@settings(max_examples=60)
def test_a_draw_does_not_depend_on_position_or_company(seed, names, shuffler, fill):
    steps = {name: i for i, name in enumerate(names)}
    order = list(names)
    shuffler.shuffle(order)

    def draw(some):
        rows = Rows(seed=seed, ids=tuple(some), step=tuple(steps[name] for name in some))
        return rows.draw("noise", (2, 3), fill)

    together = draw(names)
    assert together.dtype == torch.float32
    assert together.shape == (len(names), 2, 3)
    for i, name in enumerate(names):
        assert torch.equal(draw([name])[0], together[i])
        assert torch.equal(draw(order)[order.index(name)], together[i])


def test_every_part_of_the_key_matters():
    base = Rows(seed=1, ids=("a",), step=(0,))
    others = [
        Rows(seed=2, ids=("a",), step=(0,)).draw("noise", (8,)),
        Rows(seed=1, ids=("b",), step=(0,)).draw("noise", (8,)),
        Rows(seed=1, ids=("a",), step=(1,)).draw("noise", (8,)),
        base.draw("other", (8,)),
    ]
    draws = [base.draw("noise", (8,)), *others]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[i + 1 :])
    assert torch.equal(draws[0], Rows(seed=1, ids=("a",), step=(0,), live=False).draw("noise", (8,)))


def test_keys_that_read_alike_are_different_keys():
    first = [generator(0, *key).integers(2**62) for key in (("a", "b"), ("ab",), ("a", 1), ("a", "1"), (1, "a"), ("a",))]
    assert len(set(first)) == len(first)
    assert generator(12, "a").integers(2**62) != generator(1, "2a").integers(2**62)


def test_draws_leave_the_global_generators_alone():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    Rows(seed=1, ids=("a",), step=(0,)).draw("noise", (8,))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_the_stream_is_the_one_that_old_results_were_made_with():
    # A change here changes every published number with a random start: it must be deliberate.
    assert generator(0, "start", 0).integers(0, 1000, 4).tolist() == [601, 770, 849, 341]


def test_draws_are_distributed_as_they_say():
    rows = Rows(seed=0, ids=tuple(map(str, range(500))), step=(0,) * 500)
    assert float(rows.draw("u", (8,)).mean()) == pytest.approx(0.5, abs=0.02)
    assert float(rows.draw("n", (8,), normal).std()) == pytest.approx(1, abs=0.03)
    drawn = rows.draw("s", (8,), signs)
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    assert float(drawn.mean()) == pytest.approx(0, abs=0.05)
    assert Rows(seed=0, ids=(), step=()).draw("u", (2, 3)).shape == (0, 2, 3)


def test_somebody_elses_similarity_with_a_fixed_gallery_of_its_own_serves_an_objective():
    """It may know `against` without the weighted sum that ours offer."""
    from embattle.similarity import Cosine, against

    class Own(Cosine):
        def against(self, gallery):
            return lambda a: self.cross_slowly(a, gallery)

        def cross_slowly(self, a, gallery):
            return Cosine().cross(a, gallery)

        def cross(self, a, gallery):
            return Cosine().cross(a, gallery)

    a, gallery, weights = torch.randn(3, 4), torch.randn(5, 4), torch.randn(3, 5)
    found, plain = against(Own(), gallery), against(Cosine(), gallery)
    assert torch.allclose(found.weighted(a, plain(a), weights), plain.weighted(a, plain(a), weights), atol=1e-6)


def test_a_gallery_that_is_only_nearly_normalised_is_normalised():
    """Norms off by 1e-4 are far within a picture's pixel step and far beyond float32's rounding."""
    from embattle.similarity import Cosine, against

    draw = torch.Generator().manual_seed(0)
    gallery = torch.nn.functional.normalize(torch.randn(20, 8, generator=draw), dim=1)
    gallery = gallery * (1 + 1e-4 * torch.linspace(-1, 1, 20).unsqueeze(1))
    a = torch.randn(5, 8, generator=draw)
    exact = torch.nn.functional.cosine_similarity(a.double().unsqueeze(1), gallery.double().unsqueeze(0), dim=2)
    assert torch.allclose(against(Cosine(), gallery)(a).double(), exact, atol=1e-6)


def test_a_gallery_item_has_no_slope_at_itself():
    from embattle.similarity import Euclidean, against

    gallery = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    a = gallery[:1].clone().requires_grad_(True)
    fixed = against(Euclidean(), gallery)
    with torch.no_grad():
        similarities = fixed(a)
    (grad,) = torch.autograd.grad(fixed.weighted(a, similarities, torch.ones(1, 2)).sum(), a)
    # Of its own copy at distance 0 nothing, of the other one the unit vector towards it.
    assert torch.allclose(grad, torch.tensor([[0.6, 0.8]]), atol=1e-5)

"""What large galleries and many candidates bring: block sums, bytes that must not run over, ties among thousands."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from embattle.attacks.objectives import CandidateRank, QueryRank
from embattle.closer import Closer, above, count
from embattle.embedders import EMBEDDING, Embedder
from embattle.metrics import ranks
from embattle.similarity import Cosine, Euclidean, against

BOTH = pytest.mark.parametrize("similarity", [Cosine(), Euclidean()], ids=lambda s: s.name)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def member(similarity):
    return Embedder(nn.Flatten(), channels=1, similarity=similarity)


def exact(similarity, a, b):
    """Float64 similarities (n, M) that autograd knows."""
    if similarity.name == "cosine":
        return torch.nn.functional.normalize(a, dim=-1) @ torch.nn.functional.normalize(b, dim=-1).T
    return -(a[:, None] - b[None]).norm(dim=-1)


def slope(loss, z):
    leaf = z.clone().requires_grad_(True)
    values = loss(leaf)
    return values.detach(), torch.autograd.grad(values.sum(), leaf)[0]


@BOTH
@pytest.mark.parametrize("size", [255, 256, 257, 10_000, 100_000])
@pytest.mark.parametrize("direction", ["raise", "lower"])
def test_candidate_rank_is_the_brute_force_hinge(similarity, size, direction):
    z, queries, gallery = drawn(3, 16), drawn(3, 16, seed=1), drawn(size, 16, seed=2)
    bound = CandidateRank(queries=queries, gallery=gallery, direction=direction).bind(member(similarity))
    rows = bound.prepare(torch.arange(3))
    to_gallery = exact(similarity, queries.double(), gallery.double())

    def brute(leaf):
        own = torch.stack([exact(similarity, leaf[i : i + 1], queries[i : i + 1].double())[0, 0] for i in range(3)])
        above_own = to_gallery - own[:, None]
        return -(above_own if direction == "raise" else -above_own).clamp_min(0).mean(1)

    value, gradient = slope(lambda leaf: bound.loss({EMBEDDING: leaf}, rows, member(similarity)), z)
    expected, expected_gradient = slope(brute, z.double())
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-9)
    assert torch.equal(gradient.sign().double(), expected_gradient.sign())


@BOTH
@pytest.mark.parametrize("width", [1, 254, 255, 256, 600])
@pytest.mark.parametrize("own", [None, torch.tensor([5, 0])])
def test_query_rank_of_very_many_candidates(similarity, width, own):
    z, candidates, gallery = drawn(2, 8), drawn(2, width, 8, seed=1), drawn(1_100, 8, seed=2)
    bound = QueryRank(candidates=candidates, gallery=gallery, own=own).bind(member(similarity))
    rows = bound.prepare(torch.arange(2))

    def brute(leaf):
        losses = []
        for i in range(2):
            kept = gallery if own is None else torch.cat([gallery[: own[i]], gallery[own[i] + 1 :]])
            theirs = exact(similarity, leaf[i : i + 1], candidates[i].double())[0]
            others = exact(similarity, leaf[i : i + 1], kept.double())[0]
            losses.append(-(others[None] - theirs[:, None]).clamp_min(0).mean())
        return torch.stack(losses)

    value, gradient = slope(lambda leaf: bound.loss({EMBEDDING: leaf}, rows, member(similarity)), z)
    expected, expected_gradient = slope(brute, z.double())
    torch.testing.assert_close(value.double(), expected, rtol=2e-5, atol=1e-7)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-3, atol=1e-5)


@BOTH
def test_loss_and_success_together_are_loss_and_success(similarity):
    z, items, gallery = drawn(4, 8), drawn(4, 3, 8, seed=1), drawn(300, 8, seed=2)
    objective = QueryRank(candidates=items, preserve=drawn(4, 2, 8, seed=3), gallery=gallery, k=150, own=torch.arange(4))
    whole = member(similarity)
    bound = objective.bind(whole)
    rows = bound.prepare(torch.arange(4))
    loss, success = bound.loss_and_success({EMBEDDING: z}, rows, whole)
    assert torch.equal(loss, bound.loss({EMBEDDING: z}, rows, whole))
    assert torch.equal(success, bound.success({EMBEDDING: z}, rows))
    assert 0 < int(success.sum()) < 4, "all or none succeeded: the test shows nothing"


@pytest.mark.parametrize("width", [1, 7, 8, 1023, 1024, 1025, 300_000])
def test_booleans_are_counted_whatever_the_width(width):
    values, limits = drawn(3, width), torch.tensor([-9.0, 0.0, 9.0])
    mask = above(values, limits)
    np.testing.assert_array_equal(count(mask), (values > limits[:, None]).sum(1))
    assert torch.equal(mask[:, :width], values > limits[:, None])
    assert not mask[:, width:].any()


@BOTH
def test_copies_of_an_item_never_count_wherever_they_lie(similarity):
    gallery = drawn(5_000, 24, seed=2)
    item = gallery[7].clone()
    gallery[[1, 8, 4_096, 4_999]] = item
    query = drawn(1, 24)
    alone = ranks(query, item[None], torch.cat([gallery[:1], gallery[9:4_096], gallery[4_097:4_999]]), similarity)
    others = ranks(query, item[None], gallery[2:7], similarity)
    assert ranks(query, item[None], gallery, similarity) == alone + others


class Manhattan:
    name = "manhattan"

    def pair(self, a, b):
        return -(a - b).abs().sum(-1)

    def cross(self, a, gallery):
        return -(a[:, None] - gallery[None]).abs().sum(-1)

    def distance(self, similarity):
        return -similarity


@pytest.mark.parametrize("similarity", [Cosine(), Euclidean(), Manhattan()], ids=lambda s: s.name)
def test_weighted_sums_of_similarities_and_their_slopes(similarity):
    a, gallery, weights = drawn(4, 6), drawn(40, 6, seed=1), drawn(4, 40, seed=2).abs()
    fixed = against(similarity, gallery)
    value, gradient = slope(lambda leaf: fixed.weighted(leaf, fixed(leaf.detach()), weights), a)
    expected, expected_gradient = slope(lambda leaf: (similarity.cross(leaf, gallery) * weights).sum(1), a)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-4)


def test_an_unknown_similarity_is_counted_exactly_and_leaves_out_what_is_left_out():
    query, gallery = drawn(2, 6), drawn(50, 6, seed=1)
    similarity = Manhattan()
    approximate = similarity.cross(query, gallery)
    approximate[:, 3] = -torch.inf
    own = similarity.pair(query.double(), gallery[9].double())
    found = Closer(gallery, similarity).count(query, approximate, own)
    exactly = similarity.cross(query.double(), gallery.double())
    exactly[:, 3] = -torch.inf
    assert found.tolist() == (exactly > own[:, None] + 1e-9).sum(1).tolist()

"""CandidateRank and QueryRank against the sums they stand for, term by term in float64, and their slopes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from embattle.attacks.objectives import CandidateRank, QueryRank
from embattle.embedders import EMBEDDING, Embedder

N, M, D = 4, 23, 6


def embedder(similarity):
    return Embedder(nn.Flatten(), channels=1, similarity=similarity)


def drawn(*shape, seed):
    return torch.from_numpy(np.random.default_rng(seed).uniform(0.05, 1, shape).astype(np.float32))


def nearness(name, a, b):
    """Similarity of two float64 vectors."""
    if name == "euclidean":
        return -np.sqrt(((a - b) ** 2).sum())
    return (a @ b) / np.sqrt((a @ a) * (b @ b))


def candidate_loss(name, z, queries, gallery, direction, left_out):
    """Minus the mean over queries and gallery of the hinge, one term after the other."""
    kept = [c for c in range(len(gallery)) if c != left_out]
    total = 0.0
    for query in queries:
        own = nearness(name, query, z)
        for c in kept:
            other = nearness(name, query, gallery[c])
            total += max(other - own, 0.0) if direction == "raise" else max(own - other, 0.0)
    return -total / (len(queries) * len(kept))


def query_loss(name, z, candidates, gallery, direction, left_out, preserve=None, xi=0.0):
    """Minus the mean hinge of the candidates, minus xi times the mean hinge that keeps the preserved items near."""
    kept = [c for c in range(len(gallery)) if c != left_out]

    def mean_hinge(items, direction):
        total = 0.0
        for item in items:
            own = nearness(name, z, item)
            for c in kept:
                other = nearness(name, z, gallery[c])
                total += max(other - own, 0.0) if direction == "raise" else max(own - other, 0.0)
        return total / (len(items) * len(kept))

    loss = -mean_hinge(candidates, direction)
    return loss if preserve is None else loss - xi * mean_hinge(preserve, "raise")


def rank_of(name, query, item, gallery, left_out):
    own = nearness(name, query, item)
    return sum(nearness(name, query, gallery[c]) > own + 1e-12 for c in range(len(gallery)) if c != left_out)


def evaluated(objective, member, z):
    """Loss, gradient and success of embeddings z, through the bound objective."""
    whole = objective.bind(member)
    rows = whole.prepare(torch.arange(len(z)))
    leaf = z.clone().requires_grad_(True)
    loss = whole.loss({EMBEDDING: leaf}, rows, member)
    (grad,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), grad, whole.success({EMBEDDING: z}, rows)


def slopes(function, z, h=1e-5):
    """Central differences of a float64 function of one vector."""
    found = np.zeros_like(z)
    for i in range(len(z)):
        step = np.zeros_like(z)
        step[i] = h
        found[i] = (function(z + step) - function(z - step)) / (2 * h)
    return found


def check(objective, member, z, reference):
    """Value and gradient of every row equal those of the float64 reference."""
    loss, grad, _ = evaluated(objective, member, z)
    for row in range(len(z)):
        at = z[row].double().numpy()
        np.testing.assert_allclose(loss[row].item(), reference(row, at), rtol=1e-4, atol=2e-6)
        np.testing.assert_allclose(grad[row].numpy(), slopes(lambda v, r=row: reference(r, v), at), rtol=1e-3, atol=2e-4)
    assert (grad.abs().amax(1) > 1e-4).sum() >= 3, "a flat loss would agree with anything"


SIMILARITIES = pytest.mark.parametrize("name", ["cosine", "euclidean"])
DIRECTIONS = pytest.mark.parametrize("direction", ["raise", "lower"])
OWN = pytest.mark.parametrize("own", [None, [3, 0, 22, 9]], ids=["kept", "left out"])


@SIMILARITIES
@DIRECTIONS
@OWN
@pytest.mark.parametrize("width", [1, 3])
def test_candidate_rank_is_the_sum_of_its_hinges(name, direction, own, width):
    z, queries, gallery = drawn(N, D, seed=1), drawn(N, width, D, seed=2), drawn(M, D, seed=3)
    if own is not None:
        gallery[own] = z
    objective = CandidateRank(
        queries=queries, gallery=gallery, direction=direction, own=None if own is None else torch.tensor(own)
    )

    def reference(row, at):
        left_out = None if own is None else own[row]
        return candidate_loss(name, at, queries[row].double().numpy(), gallery.double().numpy(), direction, left_out)

    check(objective, embedder(name), z, reference)


@SIMILARITIES
@DIRECTIONS
@OWN
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("xi", [None, 0.0, 2.5], ids=["plain", "xi=0", "xi=2.5"])
def test_query_rank_is_the_sum_of_its_hinges(name, direction, own, width, xi):
    z, candidates, gallery = drawn(N, D, seed=1), drawn(N, width, D, seed=2), drawn(M, D, seed=3)
    preserve = None if xi is None else drawn(N, 4, D, seed=4)
    if own is not None:
        gallery[own] = z + 0.01
    objective = QueryRank(
        candidates=candidates, gallery=gallery, direction=direction, preserve=preserve, xi=xi,
        own=None if own is None else torch.tensor(own),
    )  # fmt: skip

    def reference(row, at):
        return query_loss(
            name, at, candidates[row].double().numpy(), gallery.double().numpy(), direction,
            None if own is None else own[row], None if preserve is None else preserve[row].double().numpy(), xi or 0.0,
        )  # fmt: skip

    check(objective, embedder(name), z, reference)


@DIRECTIONS
def test_the_paper_s_balance_is_the_default(direction):
    z, candidates, gallery, preserve = (drawn(*s, seed=i) for i, s in enumerate([(N, D), (N, 2, D), (M, D), (N, 3, D)]))
    given = {"candidates": candidates, "gallery": gallery, "direction": direction, "preserve": preserve}
    expected = evaluated(QueryRank(**given, xi={"raise": 1.0, "lower": 100.0}[direction]), embedder("cosine"), z)
    assert torch.equal(evaluated(QueryRank(**given), embedder("cosine"), z)[0], expected[0])


@SIMILARITIES
def test_the_slope_is_the_rank(name):
    # d(loss)/d(similarity to the query) is the share of the gallery that is closer.
    z, query, gallery = drawn(N, D, seed=1), drawn(N, D, seed=2), drawn(M, D, seed=3)
    member = embedder(name)
    _, grad, _ = evaluated(CandidateRank(queries=query, gallery=gallery), member, z)
    leaf = z.clone().requires_grad_(True)
    (direction,) = torch.autograd.grad(member.similarity.pair(leaf, query).sum(), leaf)
    for row in range(N):
        rank = rank_of(name, *(t.double().numpy() for t in (query[row], z[row], gallery)), None)
        torch.testing.assert_close(grad[row], direction[row] * rank / M, rtol=1e-5, atol=1e-7)


@SIMILARITIES
@DIRECTIONS
@pytest.mark.parametrize("side", ["candidate", "query"])
def test_ties_add_nothing(name, direction, side):
    # Five copies of the item itself: equally near, so neither closer nor farther; the loss is that of the rest.
    z, other, rest = drawn(N, D, seed=1), drawn(N, D, seed=2), drawn(M, D, seed=3)
    tied = z[:1] if side == "candidate" else other[:1]
    gallery = torch.cat([rest, tied.expand(5, -1)])
    given = {"queries" if side == "candidate" else "candidates": other}
    kind = CandidateRank if side == "candidate" else QueryRank
    loss, _, _ = evaluated(kind(**given, gallery=gallery, direction=direction), embedder(name), z)
    reference = candidate_loss if side == "candidate" else query_loss
    at, near = z[0].double().numpy(), other[:1].double().numpy()
    alone = reference(name, at, near, rest.double().numpy(), direction, None)
    np.testing.assert_allclose(loss[0].item(), alone * M / (M + 5), rtol=1e-4, atol=2e-5)


@SIMILARITIES
@DIRECTIONS
@OWN
@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("side", ["candidate", "query"])
def test_success_is_a_rank_within_or_outside_the_first_k(name, direction, own, k, side):
    rows = 40
    z, gallery = drawn(rows, D, seed=5), drawn(M, D, seed=6)
    # The usual case for a query's candidates: they are items of the gallery, and tie with themselves.
    others = gallery[torch.randint(0, M, (rows, 2), generator=torch.Generator().manual_seed(7))]
    left_out = None if own is None else torch.randint(0, M, (rows,), generator=torch.Generator().manual_seed(8))
    given = {"gallery": gallery, "direction": direction, "k": k, "own": left_out}
    objective = CandidateRank(queries=others, **given) if side == "candidate" else QueryRank(candidates=others, **given)
    _, _, success = evaluated(objective, embedder(name), z)
    wide = gallery.double().numpy()
    seen = set()
    for row in range(rows):
        ranks = []
        for other in others[row].double().numpy():
            query, item = (other, z[row].double().numpy()) if side == "candidate" else (z[row].double().numpy(), other)
            ranks.append(rank_of(name, query, item, wide, None if own is None else int(left_out[row])))
        expected = all(r < k for r in ranks) if direction == "raise" else all(r >= k for r in ranks)
        seen.add(expected)
        assert bool(success[row]) == expected, f"row {row}: ranks {ranks}, k {k}"
    assert k != 5 or seen == {True, False} or side == "candidate"


@SIMILARITIES
def test_a_candidate_of_the_gallery_can_be_first(name):
    # Its own copy in the list is no closer than itself, whatever rounding says.
    generator = torch.Generator().manual_seed(9)
    gallery = torch.randn(300, 64, generator=generator) + 3
    near = torch.arange(100)
    z = gallery[near] + 0.05 * torch.randn(100, 64, generator=generator)
    objective = QueryRank(candidates=gallery[near], gallery=gallery, k=1)
    _, _, success = evaluated(objective, embedder(name), z)
    expected = [rank_of(name, *(t.double().numpy() for t in (z[i], gallery[i], gallery)), None) == 0 for i in range(100)]
    assert sum(expected) > 90
    assert success.tolist() == expected


def test_without_k_there_is_no_criterion():
    z, other, gallery = drawn(N, D, seed=1), drawn(N, D, seed=2), drawn(M, D, seed=3)
    assert evaluated(CandidateRank(queries=other, gallery=gallery), embedder("cosine"), z)[2] is None
    assert evaluated(QueryRank(candidates=other, gallery=gallery), embedder("cosine"), z)[2] is None

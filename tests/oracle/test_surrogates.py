"""Ensembles and random surrogates against what they stand for, written out."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from embattle.attacks import Surrogate, pgd
from embattle.attacks.objectives import CandidateRank, Match
from embattle.budget import Linf
from embattle.embedders import EMBEDDING, Embedder
from embattle.errors import ConfigError

N, SHAPE = 4, (1, 8, 8)


def network(side, seed, dimension):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * (side - 2) ** 2, dimension))


@dataclass(frozen=True)
class Ensemble:
    """Two embedders with their weights."""

    members: tuple
    weights: tuple
    stochastic: bool = False

    @contextmanager
    def opened(self, rows):
        with ExitStack() as stack:
            for member in self.members:
                stack.enter_context(member.frozen())
            yield


def scene():
    big = Embedder(network(8, 1, 6), channels=1, mean=(0.5,), std=(0.25,), name="big")
    small = Embedder(network(6, 2, 3), channels=1, size=6, similarity="euclidean", name="small")
    x = torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(3))
    return Ensemble((big, small), (0.3, 2.0)), x


def ranking(direction="raise", k=None):
    drawn = torch.rand(30, *SHAPE, generator=torch.Generator().manual_seed(4))
    return CandidateRank(queries=drawn[: 2 * N].view(N, 2, *SHAPE), gallery=drawn[2 * N :], direction=direction, k=k)


def by_hand(member, objective, x):
    """Loss and success in one member's own space: its own gallery, its own input size, its own similarity."""
    z = member.module(member._prepared(x))
    queries = torch.stack([member.module(member._prepared(q)) for q in objective.queries])
    gallery = member.module(member._prepared(objective.gallery))
    if member.similarity.name == "cosine":
        z, queries, gallery = (v / v.norm(dim=-1, keepdim=True) for v in (z, queries, gallery))
        own, others = (queries * z[:, None]).sum(-1), queries @ gallery.T
    else:
        own = -(queries - z[:, None]).norm(dim=-1)
        others = -(queries[:, :, None] - gallery).norm(dim=-1)
    gap = others - own[:, :, None] if objective.direction == "raise" else own[:, :, None] - others
    ranks = (others > own[:, :, None]).sum(-1)
    within = (ranks < (objective.k or 1)).all(1) if objective.direction == "raise" else (ranks >= (objective.k or 1)).all(1)
    return -gap.clamp_min(0).mean((1, 2)), within


@pytest.mark.parametrize("direction", ["raise", "lower"])
def test_an_ensemble_s_loss_is_the_weighted_sum_in_each_member_s_own_space(direction):
    ensemble, x = scene()
    assert isinstance(ensemble, Surrogate)
    objective, budget, size, steps = ranking(direction), Linf(0.1), 0.03, 6
    result = pgd(budget=budget, steps=steps, step_size=size, keep="last")(ensemble, x, objective)

    def loss_of(picture):
        return sum(w * by_hand(m, objective, picture)[0] for m, w in zip(ensemble.members, ensemble.weights, strict=True))

    at = x
    for _ in range(steps):
        leaf = at.clone().requires_grad_(True)
        (grad,) = torch.autograd.grad(loss_of(leaf).sum(), leaf)
        at = (x + (at + size * grad.sign() - x).clamp(-budget.eps, budget.eps)).clamp(0, 1)
    assert ((result.x_adv - at).abs() < 1e-5).float().mean() > 0.999
    torch.testing.assert_close(result.loss, loss_of(result.x_adv).detach(), rtol=1e-4, atol=1e-5)
    each = [by_hand(m, objective, result.x_adv)[0] for m in ensemble.members]
    assert not torch.allclose(each[0], each[1]), "both members say the same: the test shows nothing"


def test_an_ensemble_succeeds_only_where_every_member_is_fooled():
    ensemble, x = scene()
    agreed, single = [], []
    for k in (2, 4, 8):
        objective = ranking(k=k)
        result = pgd(budget=Linf(0.2), steps=10)(ensemble, x, objective)
        each = torch.stack([by_hand(m, objective, result.x_adv)[1] for m in ensemble.members])
        assert torch.equal(result.success, each.all(0))
        agreed += each.all(0).tolist()
        single += each.any(0).tolist()
    assert any(agreed)
    assert any(one and not both for one, both in zip(single, agreed, strict=True)), "the members never disagreed"


def test_each_member_ranks_in_its_own_gallery():
    # RobRank compared the surrogate's embeddings with the target's gallery.
    ensemble, _ = scene()
    bounds = [ranking().bind(member) for member in ensemble.members]
    assert [bound.gallery.shape[1] for bound in bounds] == [6, 3]
    assert [bound.fingerprint for bound in bounds] == [member.fingerprint for member in ensemble.members]


def test_embeddings_as_targets_belong_to_one_model():
    ensemble, x = scene()
    for objective in (Match(target=torch.rand(N, 6)), CandidateRank(queries=x, gallery=torch.rand(9, 6))):
        with pytest.raises(ConfigError, match="2 members; give the targets as pictures"):
            pgd(budget=Linf(0.1))(ensemble, x, objective)


def test_bound_objectives_must_be_in_the_members_order():
    ensemble, x = scene()
    bounds = [ranking().bind(member) for member in ensemble.members]
    pgd(budget=Linf(0.1), steps=1)(ensemble, x, bounds)
    with pytest.raises(ConfigError, match="bound to another model than big"):
        pgd(budget=Linf(0.1), steps=1)(ensemble, x, bounds[::-1])


class Recorder(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.seen = network(8, 1, 6), []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.net(x)


class Dropping(Embedder):
    """Dropout masks on the embedding, drawn anew for every row and step; off while judging."""

    stochastic = True
    rows = None

    @contextmanager
    def opened(self, rows):
        self.rows = rows if rows.live else None
        with self.frozen():
            yield
        self.rows = None

    def outputs(self, x, taps=(EMBEDDING,)):
        found = dict(super().outputs(x, taps))
        if self.rows is not None:
            found[EMBEDDING] = found[EMBEDDING] * (self.rows.draw("mask", (6,)) > 0.5).float() * 2
        return found


def test_the_best_iterate_of_a_random_surrogate_is_the_best_on_the_plain_model():
    member = Dropping(Recorder(), channels=1)
    x = torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(3))
    whole = Match(target=1 - x.roll(1, 0)).bind(member)
    steps = 12
    lucky = 0
    for row in range(N):
        member.module.seen.clear()
        result = pgd(budget=Linf(0.1), steps=steps)(member, x[row : row + 1], [_only(whole, row)], tile=1, ids=[str(row)])
        shown = torch.cat(member.module.seen)
        # Every iterate is shown twice: to the random model for the gradient, to the plain one for the verdict.
        assert torch.equal(shown[0::2], shown[1::2])
        iterates = shown[1::2]
        assert len(iterates) == steps + 1
        with torch.no_grad():
            z, goal = member.module.net(iterates), member.module.net(1 - x.roll(1, 0)[row : row + 1])
            plain = nn.functional.cosine_similarity(z, goal)
        torch.testing.assert_close(result.loss[0], plain.max(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(result.x_adv[0], iterates[plain.argmax()])
        last = pgd(budget=Linf(0.1), steps=steps, keep="last")(
            member, x[row : row + 1], [_only(whole, row)], tile=1, ids=[str(row)]
        )
        torch.testing.assert_close(last.x_adv[0], iterates[-1])
        lucky += int(plain.argmax() != steps)
    assert lucky > 0, "the last was always the best: the test shows nothing"


def _only(whole, row):
    """One row of a bound objective."""
    one = type("One", (), {"taps": whole.taps, "stationary_at_clean": False, "count": 1})()
    one.fingerprint = whole.fingerprint
    one.prepare = lambda index: whole.prepare(torch.full_like(index, row))
    one.loss, one.success = whole.loss, whole.success
    return one

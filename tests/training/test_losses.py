"""Losses against loops in numpy, their gradients against finite differences."""

import numpy as np
import pytest
import torch

from embattle.errors import ConfigError
from embattle.similarity import Cosine, Euclidean
from embattle.training import LOSSES, MARGINS, in_batch_triplets
from embattle.training.losses.contrastive import Contrastive
from embattle.training.losses.triplet import Triplet
from embattle.training.losses.triplet_sphere import TripletOnSphere

CASES = pytest.mark.parametrize(
    ("similarity", "margin"), [(Cosine(), 0.2), (Euclidean(), 1.0)], ids=["cosine", "euclidean"]
)


def batch(n=24, d=6, classes=4):
    rng = torch.Generator().manual_seed(3)
    return torch.randn(n, d, generator=rng, dtype=torch.float64), torch.arange(n) % classes


def slow_distance(a, b, similarity):
    a, b = a.detach().numpy(), b.detach().numpy()
    if similarity.name == "cosine":
        return 1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    return np.linalg.norm(a - b)


@CASES
def test_triplet_is_the_mean_hinge_over_its_triplets(similarity, margin):
    z, labels = batch()
    drawn = in_batch_triplets(labels, np.random.default_rng(0))
    terms = [
        max(0.0, slow_distance(z[a], z[p], similarity) - slow_distance(z[a], z[n], similarity) + margin)
        for a, p, n in zip(drawn.anchors, drawn.positives, drawn.negatives, strict=True)
    ]
    assert 0 < sum(term == 0 for term in terms) < len(terms)
    loss = Triplet(similarity=similarity, margin=margin)(z, labels, np.random.default_rng(0))
    # An anchor that is its own positive has distance 1e-6 and not 0: the square root's clamp.
    assert loss.item() == pytest.approx(np.mean(terms), abs=1e-6)


def test_triplet_sphere_is_the_triplet_loss_of_normalised_embeddings():
    z, labels = batch()
    unit = z / z.norm(dim=1, keepdim=True)
    on_sphere = TripletOnSphere(similarity=Cosine(), margin=0.2)(z, labels, np.random.default_rng(0))
    plain = Triplet(similarity=Euclidean(), margin=0.2)(unit, labels, np.random.default_rng(0))
    assert on_sphere.item() == pytest.approx(plain.item(), abs=1e-6)
    assert on_sphere.item() != pytest.approx(Triplet(similarity=Cosine(), margin=0.2)(z, labels, np.random.default_rng(0)))


def test_triplet_sphere_needs_the_cosine():
    with pytest.raises(ConfigError, match="is for models searched by the cosine, not by 'euclidean'"):
        TripletOnSphere(similarity=Euclidean(), margin=0.2)


@CASES
def test_contrastive_is_the_mean_over_all_ordered_pairs(similarity, margin):
    z, labels = batch()
    z = z / 4 if similarity.name == "euclidean" else z
    terms = []
    for i in range(len(z)):
        for j in range(len(z)):
            far = slow_distance(z[i], z[j], similarity)
            terms.append(0.0 if i == j else far if labels[i] == labels[j] else max(0.0, margin - far))
    loss = Contrastive(similarity=similarity, margin=margin)(z, labels, np.random.default_rng(0))
    assert loss.item() == pytest.approx(np.mean(terms), abs=1e-9)


@CASES
@pytest.mark.parametrize("kind", [Triplet, Contrastive])
def test_gradients_are_those_of_finite_differences(kind, similarity, margin):
    z, labels = batch(8, 3, 2)
    loss = kind(similarity=similarity, margin=margin)
    assert torch.autograd.gradcheck(
        lambda e: loss(e, labels, np.random.default_rng(0)), z.requires_grad_(True), eps=1e-7, atol=1e-5
    )


@CASES
@pytest.mark.parametrize("kind", [Triplet, Contrastive])
def test_equal_embeddings_have_a_finite_gradient(kind, similarity, margin):
    z = torch.ones(8, 3, requires_grad=True)
    loss = kind(similarity=similarity, margin=margin)(z, torch.arange(8) % 2, np.random.default_rng(0))
    (gradient,) = torch.autograd.grad(loss, z)
    assert bool(gradient.isfinite().all())
    if kind is Triplet:
        assert loss.item() == pytest.approx(margin, abs=1e-5)


def test_margins_are_the_papers_and_every_loss_builds():
    assert MARGINS == {"cosine": 0.2, "euclidean": 1.0}
    z, labels = batch()
    assert {entry.name for entry in LOSSES} == {"triplet", "triplet-sphere", "contrastive"}
    for entry in LOSSES:
        assert entry.example()(z, labels, np.random.default_rng(0)).shape == ()
        assert entry.paper

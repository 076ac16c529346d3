"""Misrank against a loop over the gallery in float64: what it pulls and pushes, its value, its slope, its success."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from embattle.attacks import pgd
from embattle.attacks.objectives import Misrank
from embattle.budget import Linf
from embattle.embedders import EMBEDDING, Embedder
from embattle.errors import ConfigError

N, M, D = 5, 24, 6
CLASSES = np.random.default_rng(4).permutation(np.arange(M) % 4)
OWN = [3, 0, 22, 9, 14]

SIMILARITIES = pytest.mark.parametrize("name", ["cosine", "euclidean"])


def embedder(name):
    return Embedder(nn.Flatten(), channels=1, similarity=name)


def drawn(*shape, seed):
    return torch.from_numpy(np.random.default_rng(seed).uniform(0.05, 1, shape).astype(np.float32))


def distance(name, a, b):
    if name == "cosine":
        a, b = a / np.sqrt(a @ a), b / np.sqrt(b @ b)
    return np.sqrt(((a - b) ** 2).sum())


def reference(name, z, gallery, labels, label, left_out):
    """Minus the hinge, and the two gallery positions it is about, one item after the other."""
    far, far_at, near, near_at = -np.inf, None, np.inf, None
    for place, item in enumerate(gallery):
        d = distance(name, z, item)
        if labels[place] != label and d > far:
            far, far_at = d, place
        if labels[place] == label and place != left_out and d < near:
            near, near_at = d, place
    push = near if near_at is not None else 0.0
    return -max(far - push, 0.0), far_at, near_at


def evaluated(objective, member, z):
    bound = objective.bind(member)
    rows = bound.prepare(torch.arange(len(z)))
    leaf = z.clone().requires_grad_(True)
    loss = bound.loss({EMBEDDING: leaf}, rows, member)
    (grad,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), grad, bound.success({EMBEDDING: z}, rows)


def slopes(function, z, h=1e-5):
    found = np.zeros_like(z)
    for i in range(len(z)):
        step = np.zeros_like(z)
        step[i] = h
        found[i] = (function(z + step) - function(z - step)) / (2 * h)
    return found


@SIMILARITIES
@pytest.mark.parametrize("own", [None, OWN], ids=["kept", "left out"])
def test_value_and_slope(name, own):
    gallery, z = drawn(M, D, seed=3), drawn(N, D, seed=1)
    # Each picture stands close to its clean copy: whether that one counts decides which item is the nearest of the class.
    z = gallery[OWN] + 0.05 * z
    classes = CLASSES[OWN]
    objective = Misrank(
        gallery=gallery, labels=torch.from_numpy(CLASSES), classes=torch.from_numpy(classes),
        own=None if own is None else torch.tensor(own),
    )  # fmt: skip
    loss, grad, _ = evaluated(objective, embedder(name), z)
    wide = gallery.double().numpy()
    for row in range(N):
        left_out = None if own is None else own[row]

        def of(v, row=row, left_out=left_out):
            return reference(name, v, wide, CLASSES, classes[row], left_out)[0]

        at = z[row].double().numpy()
        _, _, near = reference(name, at, wide, CLASSES, classes[row], left_out)
        assert (near == OWN[row]) == (own is None), "the mask decides the nearest item of the class"
        assert of(at) < -0.1
        np.testing.assert_allclose(loss[row].item(), of(at), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(grad[row].numpy(), slopes(of, at), rtol=1e-3, atol=2e-4)


@SIMILARITIES
def test_equal_distances_pull_one_of_the_equal(name):
    gallery = drawn(M, D, seed=3)
    _, far, near = reference(name, gallery[3].double().numpy(), gallery.double().numpy(), CLASSES, CLASSES[3], 3)
    twins = torch.cat([gallery, gallery[[far, near]]])
    labels = torch.from_numpy(np.append(CLASSES, CLASSES[[far, near]]))
    given = {"classes": labels[3:4], "own": torch.tensor([3])}
    alone = evaluated(Misrank(gallery=gallery, labels=labels[:M], **given), embedder(name), gallery[3:4])
    doubled = evaluated(Misrank(gallery=twins, labels=labels, **given), embedder(name), gallery[3:4])
    torch.testing.assert_close(doubled[0], alone[0])
    torch.testing.assert_close(doubled[1], alone[1])


@SIMILARITIES
def test_a_class_with_one_member_is_only_pulled_away(name):
    gallery = drawn(M, D, seed=3)
    labels = torch.from_numpy(CLASSES).clone()
    labels[7] = 9
    z = gallery[7:8] + 0.1
    loss, grad, success = evaluated(
        Misrank(gallery=gallery, labels=labels, classes=labels[7:8], own=torch.tensor([7]), k=1), embedder(name), z
    )
    expected, far, near = reference(name, z[0].double().numpy(), gallery.double().numpy(), labels.numpy(), 9, 7)
    assert near is None
    np.testing.assert_allclose(loss[0].item(), expected, rtol=1e-5)
    assert loss[0] < 0
    assert torch.isfinite(grad).all()
    assert success.tolist() == [True], "there is nothing of its class to be found"
    pulled = evaluated(Misrank(gallery=gallery, labels=labels, classes=labels[7:8], own=torch.tensor([7])),
                       embedder(name), z - 0.01 * (z - gallery[far]))[0]  # fmt: skip
    assert pulled[0] > loss[0]


@SIMILARITIES
def test_nothing_is_left_to_gain_once_all_others_come_first(name):
    """One class far away, one of the others close by: the hinge is closed, and its slope is zero."""
    gallery = torch.cat([drawn(4, D, seed=1) * 0.01 + torch.eye(D)[0], drawn(4, D, seed=2) * 0.01 - torch.eye(D)[0]])
    labels = torch.arange(8) // 4
    loss, grad, success = evaluated(
        Misrank(gallery=gallery, labels=labels, classes=torch.tensor([0]), k=4), embedder(name), -torch.eye(D)[:1]
    )
    assert loss.tolist() == [0.0]
    assert not grad.any()
    assert success.tolist() == [True]


@SIMILARITIES
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("own", [False, True], ids=["kept", "left out"])
def test_success_is_k_items_of_other_classes_in_front(name, k, own):
    rows = 40
    gallery = drawn(M, D, seed=6)
    places = torch.randint(0, M, (rows,), generator=torch.Generator().manual_seed(2))
    z = 0.5 * gallery[places] + 0.5 * drawn(rows, D, seed=5)
    labels = torch.from_numpy(CLASSES)
    objective = Misrank(gallery=gallery, labels=labels, classes=labels[places], own=places if own else None, k=k)
    _, _, success = evaluated(objective, embedder(name), z)
    seen = set()
    for row in range(rows):
        near = [distance(name, z[row].double().numpy(), item) for item in gallery.double().numpy()]
        order = [i for i in np.argsort(near, kind="stable") if not (own and i == int(places[row]))]
        expected = all(CLASSES[i] != CLASSES[places[row]] for i in order[:k])
        seen.add(expected)
        assert bool(success[row]) == expected
    assert seen == {True, False}


def test_an_attack_with_the_mask_misranks_more_than_without():
    """What the missing mask costs: pushed off its own copy only, a picture keeps its class as neighbours."""
    draw = torch.Generator().manual_seed(5)
    labels = torch.arange(60) % 3
    centres = torch.randn(3, 1, 4, 4, generator=draw)
    x = (0.5 + 0.06 * centres[labels] + 0.02 * torch.randn(60, 1, 4, 4, generator=draw)).clamp(0, 1)
    member = embedder("euclidean")
    gallery = member.embed(x)
    hits = {}
    for masked in (True, False):
        own = torch.arange(20) if masked else None
        objective = Misrank(gallery=gallery, labels=labels, classes=labels[:20], own=own)
        result = pgd(budget=Linf(0.05), steps=20)(member, x[:20], objective)
        found = torch.cdist(member.embed(result.x_adv), gallery)
        found[torch.arange(20), torch.arange(20)] = torch.inf
        hits[masked] = int((labels[found.argmin(1)] == labels[:20]).sum())
    assert hits[True] <= hits[False]
    assert hits[True] < 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": torch.zeros(M)}, "labels must be whole numbers, 24 of them"),
        ({"labels": torch.zeros(M - 1, dtype=torch.long)}, "labels must be whole numbers, 24 of them"),
        ({"classes": torch.zeros(2, 2, dtype=torch.long)}, "classes must be whole numbers, one for each attacked"),
        ({"labels": torch.zeros(M, dtype=torch.long), "classes": torch.tensor([0])}, "at least two"),
        ({"own": torch.tensor([1, 2])}, "own must be 1 whole"),
        ({"k": M + 1}, "k = 25 does not fit"),
    ],
)
def test_arguments_that_do_not_fit(change, words):
    given = {"gallery": drawn(M, D, seed=1), "labels": torch.from_numpy(CLASSES), "classes": torch.tensor([1])}
    with pytest.raises(ConfigError, match=words):
        Misrank(**{**given, **change}).bind(embedder("cosine"))

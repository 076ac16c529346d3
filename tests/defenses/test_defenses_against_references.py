"""Each defense against what it says it is: a slow reference, a closed form, or finite differences."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from embattle.attacks.objectives import Shift
from embattle.defenses import InnerAttack
from embattle.defenses.training.act import Collapse
from embattle.defenses.training.hm import Harden, gradual_hardness
from embattle.defenses.training.madry import Hardest
from embattle.defenses.training.tuples import apart, stacked, tall_embedder
from embattle.embedders import EMBEDDING, Embedder
from embattle.similarity import Cosine, Euclidean
from embattle.training import Batch, Triplet, in_batch_triplets, soft_hard
from embattle.training.losses.triplet_sphere import TripletOnSphere


def unit(z):
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def cosine_distance(a, b):
    return 1 - (unit(a) * unit(b)).sum(1)


def embedded(embedder, x):
    return embedder.embed(x).double().numpy()


def spied(defense, monkeypatch):
    """Keeps what the attack inside returned."""
    kept = []
    attack = InnerAttack.__call__

    def spy(self, *arguments):
        kept.append(attack(self, *arguments))
        return kept[-1]

    monkeypatch.setattr(InnerAttack, "__call__", spy)
    return kept


def triplet_loss(anchors, positives, negatives, margin=0.2):
    return np.maximum(cosine_distance(anchors, positives) - cosine_distance(anchors, negatives) + margin, 0).mean()


def test_a_tall_picture_embeds_as_its_parts(embedder, make_batch):
    x = make_batch().x
    places = (torch.tensor([0, 3, 5]), torch.tensor([7, 1, 2]), torch.tensor([4, 4, 8]))
    tall = stacked(x, places)
    assert tall.shape == (3, 1, 15, 5)
    z = tall_embedder(embedder, 3)(tall)
    for part, place, picture in zip(z.chunk(3, dim=1), places, apart(tall, 3), strict=True):
        assert torch.equal(picture, x[place])
        assert torch.allclose(part, embedder(x[place]), atol=1e-6)


def test_est_is_the_triplet_loss_of_pictures_moved_away_from_themselves(embedder, make_batch, make_defense, monkeypatch):
    batch, defense = make_batch(), make_defense("est", steps=6, step_size=0.03)
    kept = spied(defense, monkeypatch)
    loss = defense.loss(embedder, batch)
    (moved,) = kept
    drawn = in_batch_triplets(batch.labels, batch.rng())
    z = embedded(embedder, moved)
    expected = triplet_loss(z[drawn.anchors], z[drawn.positives], z[drawn.negatives])
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-5)
    assert float((moved - batch.x).abs().max()) == pytest.approx(0.1, abs=1e-5)
    clean = embedded(embedder, batch.x)
    # Random corners of the same budget move embeddings less than the attack does.
    corners = batch.x + 0.1 * torch.sign(torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(5)))
    assert (cosine_distance(clean, z) > cosine_distance(clean, embedded(embedder, corners))).mean() > 0.9


def test_the_attack_inside_is_still_that_of_its_version():
    """Where this fails, other pictures are trained on: raise the version in `inner.py`, and keep the new ones here."""
    draw = np.random.default_rng(7)
    module = nn.Sequential(nn.Flatten(), nn.Linear(25, 4, bias=False))
    module[1].weight.data = torch.from_numpy(draw.normal(size=(4, 25))).float()
    x = torch.from_numpy(draw.uniform(0.3, 0.7, size=(6, 1, 5, 5))).float()
    batch = Batch(x=x, labels=None, ids=tuple("abcdef"), seed=0, epoch=1, number=0, previous_loss=None)
    member = Embedder(module, channels=1)
    attack = InnerAttack(eps=0.1, steps=3, step_size=0.05)
    moved = attack(member, x, Shift(anchor=member.embed(x)), batch, batch.ids) - x
    grid = (moved / 0.05).round().to(torch.int8)
    assert torch.allclose(grid * 0.05, moved, atol=1e-3)
    known = hashlib.sha256(grid.numpy().tobytes()).hexdigest()[:16]
    assert (attack.settings.get("attack", 1), known) == (1, "5081dded7d444779")


def test_est_reaches_the_largest_shift_of_a_linear_model(make_batch, make_defense, monkeypatch):
    weights = torch.randn(25, generator=torch.Generator().manual_seed(1))

    class Projection(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = nn.Parameter(weights.clone())

        def forward(self, x):
            return (x.flatten(1) @ self.weights).unsqueeze(1)

    line = Embedder(Projection(), similarity="euclidean", channels=1)
    # Under the draws of batch 0 one nudge moves this one number by less than 1e-6, where the distance has no slope.
    batch = make_batch(number=1)
    defense = make_defense("est", eps=0.05, steps=4, step_size=0.02, similarity=Euclidean(), margin=1.0)
    kept = spied(defense, monkeypatch)
    defense.loss(line, batch)
    shift = (line(kept[0]) - line(batch.x)).abs().squeeze(1)
    assert torch.allclose(shift, 0.05 * weights.abs().sum().expand(len(shift)), rtol=1e-4)


def test_act_pulls_positive_and_negative_together_and_leaves_the_anchor(embedder, make_batch, make_defense, monkeypatch):
    batch, defense = make_batch(), make_defense("act", steps=6, step_size=0.03)
    kept = spied(defense, monkeypatch)
    loss = defense.loss(embedder, batch)
    drawn = in_batch_triplets(batch.labels, batch.rng())
    positives, negatives = (embedded(embedder, part) for part in apart(kept[0], 2))
    clean = embedded(embedder, batch.x)
    before = cosine_distance(clean[drawn.positives], clean[drawn.negatives])
    assert (cosine_distance(positives, negatives) < before).all()
    assert float(loss.detach()) == pytest.approx(triplet_loss(clean[drawn.anchors], positives, negatives), abs=1e-5)


TRIPLETS = (
    Triplet(similarity=Cosine(), margin=0.2),
    Triplet(similarity=Euclidean(), margin=1.0),
    TripletOnSphere(similarity=Cosine(), margin=0.2),
)


@pytest.mark.parametrize("triplet", TRIPLETS, ids=lambda triplet: f"{type(triplet).__name__}-{triplet.similarity.name}")
def test_gains_of_tuples_are_what_their_names_say(triplet):
    similarity = triplet.similarity
    a, p, n = (torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2, 3))
    member = Embedder(nn.Flatten(), similarity=similarity, channels=1)

    def distance(u, v):
        if similarity.name == "cosine":
            far = torch.from_numpy(cosine_distance(u.double().numpy(), v.double().numpy()))
            return (2 * far).sqrt() if isinstance(triplet, TripletOnSphere) else far
        return (u.double() - v.double()).norm(dim=1)

    hardness = distance(a, p) - distance(a, n)
    assert torch.allclose(Hardest(tuples=5, triplet=triplet).gain((a, p, n), member).double(), hardness, atol=1e-5)
    aim = float(hardness.median())
    lacking = (aim - hardness).clamp_min(0)
    softened = Harden(tuples=5, triplet=triplet, hardness=aim).gain((a, p, n), member)
    assert torch.allclose(softened.double(), -(lacking**2), atol=1e-5)
    closer = Collapse(tuples=5).gain((p, n), member)
    assert torch.equal(closer.argsort(), (-distance(p, n)).argsort())


def test_gains_of_tuples_have_the_gradient_of_finite_differences(embedder, make_batch):
    x = make_batch().x.double()
    double = Embedder(embedder.module.double(), channels=1)
    places = (torch.tensor([0, 1]), torch.tensor([3, 4]), torch.tensor([7, 8]))
    tall, member = stacked(x, places), tall_embedder(double, 3)
    objective = Harden(tuples=2, triplet=TRIPLETS[2], hardness=2.0).bind(member)

    def gain(pictures):
        parts = member.outputs(pictures)[EMBEDDING].chunk(3, dim=1)
        return Harden(tuples=2, triplet=TRIPLETS[2], hardness=2.0).gain(parts, member).sum()

    leaf = tall.clone().requires_grad_(True)
    (grad,) = torch.autograd.grad(objective.loss(member.outputs(leaf), {}, member).sum(), leaf)
    for place in [(0, 0, 0, 0), (0, 0, 7, 2), (1, 0, 13, 4)]:
        step = torch.zeros_like(tall)
        step[place] = 1e-4
        numeric = (gain(tall + step) - gain(tall - step)) / 2e-4
        # Objectives compute in float32, whatever the model does.
        assert float(grad[place]) == pytest.approx(float(numeric.detach()), rel=2e-2, abs=1e-4)


def test_hm_raises_hardness_to_its_aim_and_no_further(embedder, make_batch, make_defense, monkeypatch):
    batch = make_batch(previous_loss=0.05)
    defense = make_defense("hm", eps=0.3, steps=40, step_size=0.004)
    kept = spied(defense, monkeypatch)
    loss = defense.loss(embedder, batch)
    anchors, positives, negatives = (embedded(embedder, part) for part in apart(kept[0], 3))
    hardness = cosine_distance(anchors, positives) - cosine_distance(anchors, negatives)
    aim = gradual_hardness(0.05, 0.2)
    clean = apart(stacked_clean(defense, embedder, batch), 3)
    before = [embedded(embedder, part) for part in clean]
    already = cosine_distance(before[0], before[1]) - cosine_distance(before[0], before[2])
    assert (hardness < np.maximum(already, aim) + 0.05).all()
    assert (hardness > np.minimum(already, aim) - 1e-4).all()
    assert (hardness[already < aim] > already[already < aim]).all()
    assert float(loss.detach()) == pytest.approx(triplet_loss(anchors, positives, negatives), abs=1e-5)


def stacked_clean(defense, embedder, batch):
    drawn = defense._drawn(embedder, batch, Triplet(similarity=Cosine(), margin=0.2))
    return stacked(batch.x, (drawn.anchors, drawn.positives, drawn.negatives))


@pytest.mark.parametrize(("loss", "aim"), [(None, -0.2), (0.5, -0.2), (0.2, -0.2), (0.1, -0.1), (0.0, 0.0), (-1.0, 0.0)])
def test_the_gradual_adversary_is_linear_in_the_loss(loss, aim):
    assert gradual_hardness(loss, 0.2) == pytest.approx(aim)


def test_hm_attacks_less_while_the_loss_is_high(embedder, make_batch, make_defense, monkeypatch):
    kept = spied(None, monkeypatch)
    for previous in (0.2, 0.0):
        make_defense("hm", eps=0.3, steps=30, step_size=0.01).loss(embedder, make_batch(previous_loss=previous))
    hardness = []
    for tall in kept:
        a, p, n = (embedded(embedder, part) for part in apart(tall, 3))
        hardness.append((cosine_distance(a, p) - cosine_distance(a, n)).mean())
    assert hardness[0] < hardness[1]


def test_a_constant_aim_takes_no_notice_of_the_loss(embedder, make_batch, make_defense, monkeypatch):
    kept = spied(None, monkeypatch)
    for previous in (None, 0.2, 0.0):
        make_defense("hm-constant", eps=0.3, steps=40, step_size=0.004).loss(embedder, make_batch(previous_loss=previous))
    make_defense("hm", eps=0.3, steps=40, step_size=0.004).loss(embedder, make_batch(previous_loss=0.0))
    # Where the loss is 0 the gradual adversary aims there, too.
    assert all(torch.equal(tall, kept[-1]) for tall in kept)


def test_hm_ics_adds_the_pull_of_attacked_anchors_to_their_own_pictures(embedder, make_batch, make_defense, monkeypatch):
    # Harder than training ever asks for, so that anchors move past their positives.
    monkeypatch.setattr("embattle.defenses.training.hm.gradual_hardness", lambda loss, margin: 1.5)
    batch, defense = make_batch(), make_defense("hm-ics", eps=0.5, steps=10, step_size=0.1)
    kept = spied(defense, monkeypatch)
    parameters = list(embedder.module.parameters())
    loss = defense.loss(embedder, batch)
    found = torch.autograd.grad(loss, parameters)

    drawn = defense._drawn(embedder, batch, Triplet(similarity=Cosine(), margin=0.2))
    parts = [embedder.outputs(part)[EMBEDDING] for part in apart(kept[0], 3)]
    anchors, positives = (embedder.outputs(batch.x[place])[EMBEDDING] for place in (drawn.anchors, drawn.positives))

    def distance(a, b):
        return 1 - torch.nn.functional.cosine_similarity(a, b)

    own = (distance(parts[0], parts[1]) - distance(parts[0], parts[2]) + 0.2).relu().mean()
    structure = (distance(anchors, parts[0]) - distance(anchors, positives)).relu().mean()
    assert structure.item() > 0.001
    # What is reported, and sets the next hardness, is the triplet loss alone.
    assert float(loss.detach()) == pytest.approx(float(own.detach()), abs=1e-6)
    for grad, expected in zip(found, torch.autograd.grad(own + 0.5 * structure, parameters), strict=True):
        assert torch.allclose(grad, expected, atol=1e-6)


def test_soft_hard_triplets_overlap_the_other_class_and_are_drawn_evenly():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(12, 2))
    labels = np.arange(12) % 3
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    tensors = torch.from_numpy(distance), torch.from_numpy(labels)
    chosen = {"positives": {}, "negatives": {}}
    for seed in range(300):
        drawn = in_batch_triplets(tensors[1], np.random.default_rng(seed))
        found = soft_hard(drawn, *tensors, np.random.default_rng(1000 + seed))
        assert torch.equal(found.anchors, drawn.anchors)
        for row, anchor in enumerate(drawn.anchors.tolist()):
            same, other = np.flatnonzero(labels == labels[anchor]), np.flatnonzero(labels != labels[anchor])
            hard = {
                "positives": [i for i in same if distance[anchor, i] > distance[anchor, other].min()],
                "negatives": [i for i in other if distance[anchor, i] < distance[anchor, same].max()],
            }
            for kind, allowed in hard.items():
                place = int(getattr(found, kind)[row])
                if allowed:
                    assert place in allowed
                    chosen[kind].setdefault((anchor, tuple(allowed)), []).append(place)
                else:
                    assert place == int(getattr(drawn, kind)[row])
    for kind in chosen.values():
        (_, allowed), places = max(kind.items(), key=lambda item: len(item[0][1]))
        counts = np.bincount(places, minlength=12)[list(allowed)]
        assert len(allowed) > 1
        assert counts.min() > 0.5 * len(places) / len(allowed)


def test_madry_makes_triplets_harder_than_hm_lets_them_be(embedder, make_batch, make_defense, monkeypatch):
    kept = spied(None, monkeypatch)
    make_defense("madry", eps=0.3, steps=30, step_size=0.02).loss(embedder, make_batch())
    a, p, n = (embedded(embedder, part) for part in apart(kept[0], 3))
    assert (cosine_distance(a, p) - cosine_distance(a, n)).mean() > 0.2


def test_fare_is_the_squared_distance_of_attacked_to_original_clean_embeddings(
    make_embedder, make_batch, make_defense, monkeypatch
):
    original, learner, batch = make_embedder(seed=2), make_embedder(seed=3), make_batch(labels=False)
    defense = make_defense("fare", original=original)
    kept = spied(defense, monkeypatch)
    loss = defense.loss(learner, batch)
    clean = embedded(original, batch.x)
    expected = ((embedded(learner, kept[0]) - clean) ** 2).sum(1)
    assert float(loss.detach()) == pytest.approx(expected.mean(), rel=1e-4)
    untouched = ((embedded(learner, batch.x) - clean) ** 2).sum(1)
    assert (expected > untouched).all()


def test_fare_leaves_a_model_alone_that_nobody_can_attack(make_embedder, make_batch, make_defense):
    model = make_embedder()
    loss = make_defense("fare", original=make_embedder(), eps=1e-7, steps=1, step_size=1e-7).loss(model, make_batch())
    assert float(loss.detach()) < 1e-8

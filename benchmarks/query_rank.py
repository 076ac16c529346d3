"""QueryRank in one batched product against the plain way: one sample at a time, its (m, M) hinges in autograd.

``python benchmarks/query_rank.py --out results/bench-query-rank.json``
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import harness
import torch
from torch import Tensor

from embattle import networks
from embattle.attacks import objectives, pgd
from embattle.budget import Linf
from embattle.embedders import EMBEDDING, Embedder

# Gallery M, candidates m, the objective's direction, and numbers of an embedding.
SHAPES = ((1_000, 1, "raise", 128), (10_000, 5, "lower", 128), (60_000, 10, "raise", 128), (10_000, 5, "lower", 1024))
PICTURES, ATTACKED, STEPS, EPS, STEP = 64, 16, 1, 0.1, 0.02
PLAIN = {
    "cosine": lambda one, others: torch.cosine_similarity(one, others),
    "euclidean": lambda one, others: -(one - others).norm(dim=1),
}


def gallery_side(name: str, gallery: Tensor) -> Callable[[Tensor], Tensor]:
    """One embedding against the gallery; for the cosine a product with the gallery normalised once."""
    if name == "cosine":
        unit = torch.nn.functional.normalize(gallery)
        return lambda one: (torch.nn.functional.normalize(one) @ unit.T)[0]
    return lambda one: PLAIN[name](one, gallery)


def one_by_one(z: Tensor, candidates: Tensor, name: str, to_gallery: Callable[[Tensor], Tensor], raising: bool) -> Tensor:
    """The attacker's loss, (n,): for each sample the mean over all (m, M) hinges (Zhou et al. 2020, Eq. 9 and 11)."""
    losses = []
    for one, items in zip(z, candidates, strict=True):
        gallery, own = to_gallery(one[None]), PLAIN[name](one[None], items)
        difference = gallery[None, :] - own[:, None] if raising else own[:, None] - gallery[None, :]
        losses.append(-difference.clamp_min(0).mean())
    return torch.stack(losses)


def slope(loss: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Values, and gradients with respect to the embeddings."""
    leaf = z.clone().requires_grad_(True)
    values = loss(leaf)
    return values.detach(), torch.autograd.grad(values.sum(), leaf)[0]


def plain_attack(embedder: Embedder, x: Tensor, candidates: Tensor, gallery: Tensor, raising: bool) -> Tensor:
    """PGD over pictures one at a time, as the objective's plain form comes with."""
    done = []
    name = embedder.similarity.name
    to_gallery = gallery_side(name, gallery)
    with embedder.frozen():
        for picture, items in zip(x.split(1), candidates.split(1), strict=True):
            x_adv = picture
            for step in range(STEPS + 1):
                leaf = x_adv.detach().requires_grad_(True)
                loss = one_by_one(embedder.module(leaf), items, name, to_gallery, raising)
                if step < STEPS:
                    sign = torch.autograd.grad(loss.sum(), leaf)[0].sign()
                    x_adv = (picture + (x_adv + STEP * sign - picture).clamp(-EPS, EPS)).clamp(0, 1)
            done.append(x_adv)
    return torch.cat(done)


def compared(size: int, width: int, direction: str, dimension: int, name: str, repeats: int) -> dict[str, Any]:
    """Objective alone and whole attack, both ways, at one shape."""
    embedder = Embedder(networks.build("c2f1", dimension=dimension), channels=1, similarity=name)
    x = torch.rand(PICTURES, 1, 28, 28)
    candidates, gallery = torch.randn(PICTURES, width, dimension), torch.randn(size, dimension)
    z = embedder.embed(x)
    objective = objectives.QueryRank(candidates=candidates, gallery=gallery, direction=direction)
    bound, raising = objective.bind(embedder), direction == "raise"
    rows, to_gallery = bound.prepare(torch.arange(PICTURES)), gallery_side(name, gallery)
    some = x[:ATTACKED]
    fewer = objectives.QueryRank(candidates=candidates[:ATTACKED], gallery=gallery, direction=direction)
    attack = pgd(budget=Linf(EPS), steps=STEPS, step_size=STEP, keep="last")

    def ours(leaf: Tensor) -> Tensor:
        return bound.loss({EMBEDDING: leaf}, rows, embedder)

    def plain(leaf: Tensor) -> Tensor:
        return one_by_one(leaf, candidates, name, to_gallery, raising)

    (value, gradient), (expected, expected_gradient) = slope(ours, z), slope(plain, z)
    weights = torch.rand(PICTURES, size)
    alone = harness.alternate(
        {
            "ours": lambda: slope(ours, z),
            "one by one": lambda: slope(plain, z),
            # No batched form can be faster than the two products it needs: similarities, and their slope.
            "bare products": lambda: (z @ gallery.T, weights @ gallery),
        },
        repeats,
    )
    whole = harness.alternate(
        {
            "ours": lambda: attack(embedder, some, fewer, tile=ATTACKED),
            "one by one": lambda: plain_attack(embedder, some, candidates[:ATTACKED], gallery, raising),
        },
        max(1, repeats // 3),
    )
    return {
        "gallery": size, "candidates": width, "direction": direction, "dimension": dimension,
        "similarity": name,
        "objective_median_seconds": harness.medians(alone), "objective_ratio": harness.ratio(alone, "one by one", "ours"),
        "objective_ratio_of_bare_products": harness.ratio(alone, "one by one", "bare products"),
        "attack_median_seconds": harness.medians(whole), "attack_ratio": harness.ratio(whole, "one by one", "ours"),
        "largest_relative_difference_of_values": float(((value - expected) / expected).abs().max()),
        "largest_difference_of_gradients": float(
            (gradient - expected_gradient).abs().max() / expected_gradient.abs().max()
        ),
    }  # fmt: skip


def main() -> None:
    """Three shapes and a longer embedding, for both similarities."""
    given = harness.arguments(__doc__, repeats=9)
    shapes = [compared(*shape, name, given.repeats) for name in PLAIN for shape in SHAPES]
    harness.publish(
        "query-rank", "seconds of the per-sample loop over ours; the whole attack includes the network's passes", given,
        {"pictures": PICTURES, "attacked_pictures": ATTACKED, "attack_steps": STEPS, "shapes": shapes},
    )  # fmt: skip


if __name__ == "__main__":
    main()

"""The same PGD in Embattle and in four classifier libraries, side by side in one process.

A module gives similarities to the pictures of a gallery as logits, and every library raises the cross-entropy of one item
of it, drawn for each picture, so that the item falls in the picture's list: Linf, equal steps and step size, clean start.
``make bench-peers`` installs the libraries of benchmarks/peers.txt into an environment of their own and runs this.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import harness
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embattle import networks
from embattle.attacks import pgd
from embattle.attacks.objective import embedding_of
from embattle.budget import Linf
from embattle.embedders import EMBEDDING, Embedder

EPS, STEP, BATCH, GALLERY, SCALE = 0.05, 0.01, 32, 1_000, 10.0
# What torchattacks and foolbox do unless they are told otherwise.
STEPS = (10, 40)
SUBJECTS: dict[str, dict[str, Any]] = {
    "c2f1": {"network": lambda: networks.build("c2f1"), "shape": (1, 28, 28)},
    "resnet18": {"network": lambda: networks.build("resnet18"), "shape": (3, 64, 64)},
}
Attack = Callable[[Tensor, Tensor], Tensor]


class Logits(nn.Module):
    """Scaled cosines of a picture's embedding to those of a gallery, which a classifier library takes for class scores."""

    def __init__(self, network: nn.Module, gallery: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("gallery", F.normalize(gallery))
        self.rows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return SCALE * F.normalize(self.network(x)) @ self.gallery.T


@dataclass(frozen=True, kw_only=True, eq=False)
class CrossEntropy:
    """The libraries' loss as an objective: rises as the picture moves away from one item of the gallery."""

    labels: Tensor
    taps = (EMBEDDING,)
    stationary_at_clean = False
    holds_embeddings = False

    def bind(self, member: Embedder, *, tile: int = 256) -> BoundCrossEntropy:
        return BoundCrossEntropy(self.labels, member)


class BoundCrossEntropy:
    """CrossEntropy for one embedder."""

    taps = (EMBEDDING,)
    stationary_at_clean = False

    def __init__(self, labels: Tensor, member: Embedder) -> None:
        self.labels, self.count, self.fingerprint = labels, len(labels), member.fingerprint

    def prepare(self, index: Tensor) -> dict[str, Any]:
        return {"labels": self.labels[index]}

    def loss(self, out: Any, rows: Any, member: Embedder) -> Tensor:
        return F.cross_entropy(embedding_of(out), rows["labels"], reduction="none")

    def success(self, out: Any, rows: Any) -> None:
        return None


def ours(module: Logits, shape: tuple[int, ...], steps: int, precision: str) -> Attack:
    embedder = Embedder(module, channels=shape[0])
    attack = pgd(budget=Linf(EPS), steps=steps, step_size=STEP, keep="last", precision=precision)
    return lambda x, y: attack(embedder, x, CrossEntropy(labels=y), tile=len(x)).x_adv


def foolbox(module: Logits, shape: tuple[int, ...], steps: int) -> Attack:
    import foolbox

    model = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=steps, random_start=False)
    return lambda x, y: attack(model, x, foolbox.criteria.Misclassification(y), epsilons=EPS)[1]


def torchattacks(module: Logits, shape: tuple[int, ...], steps: int) -> Attack:
    import torchattacks

    return torchattacks.PGD(module, eps=EPS, alpha=STEP, steps=steps, random_start=False)


def secml_torch(module: Logits, shape: tuple[int, ...], steps: int) -> Attack:
    from secmlt.adv.backends import Backends
    from secmlt.adv.evasion.perturbation_models import LpPerturbationModels
    from secmlt.adv.evasion.pgd import PGD
    from secmlt.models.pytorch.base_pytorch_nn import BasePyTorchClassifier
    from torch.utils.data import DataLoader, TensorDataset

    model = BasePyTorchClassifier(module)
    attack = PGD(
        perturbation_model=LpPerturbationModels.LINF, epsilon=EPS, num_steps=steps, step_size=STEP, random_start=False,
        backend=Backends.NATIVE,
    )  # fmt: skip

    def run(x: Tensor, y: Tensor) -> Tensor:
        found = attack(model, DataLoader(TensorDataset(x, y), batch_size=len(x)))
        return torch.cat([pictures for pictures, _ in found])

    return run


def toolbox(module: Logits, shape: tuple[int, ...], steps: int) -> Attack:
    logging.getLogger("art").setLevel(logging.ERROR)
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    model = PyTorchClassifier(
        module, loss=nn.CrossEntropyLoss(), input_shape=shape, nb_classes=GALLERY, clip_values=(0.0, 1.0), device_type="cpu"
    )
    attack = ProjectedGradientDescentPyTorch(
        model, norm=np.inf, eps=EPS, eps_step=STEP, max_iter=steps, num_random_init=0, batch_size=BATCH, verbose=False
    )
    return lambda x, y: torch.from_numpy(attack.generate(x.numpy(), np.eye(GALLERY, dtype=np.float32)[y.numpy()]))


PEERS: dict[str, Callable[[Logits, tuple[int, ...], int], Attack]] = {
    "foolbox": foolbox, "torchattacks": torchattacks, "secml-torch": secml_torch,
    "adversarial-robustness-toolbox": toolbox,
}  # fmt: skip


def compared(network: nn.Module, shape: tuple[int, ...], steps: int, repeats: int) -> dict[str, Any]:
    """All libraries on one network: seconds, forwards of a sample, and how far they drove the pictures."""
    network.eval().requires_grad_(False)
    x, others = torch.rand(BATCH, *shape), torch.rand(GALLERY - BATCH, *shape)
    y = torch.randint(BATCH, GALLERY, (BATCH,))
    with torch.no_grad():
        gallery = torch.cat([network(part) for part in torch.cat([x, others]).split(100)])
    module = Logits(network, gallery).eval()
    sides: dict[str, Attack] = {
        "embattle": ours(module, shape, steps, "float32"),
        "embattle bfloat16": ours(module, shape, steps, "bfloat16"),
        **{name: build(module, shape, steps) for name, build in PEERS.items()},
    }
    found: dict[str, dict[str, float]] = {}
    for name, attack in sides.items():
        module.rows = 0
        x_adv = attack(x, y).detach()
        passes = module.rows / BATCH
        with torch.no_grad():
            logits = module(x_adv)
        rank = (logits > logits.gather(1, y[:, None])).sum(1)
        found[name] = {
            "forwards_of_a_sample": passes, "largest_change": round(float((x_adv - x).abs().max()), 6),
            "mean_cross_entropy": float(F.cross_entropy(logits, y)),
            "mean_rank_percent": float(rank.double().mean()) / GALLERY * 100,
        }  # fmt: skip
    # The bfloat16 twin counts its own passes; the module itself was asked once, for the score.
    found["embattle bfloat16"]["forwards_of_a_sample"] = steps + 2
    seconds = harness.alternate({name: (lambda run=run: run(x, y)) for name, run in sides.items()}, repeats)
    medians = harness.medians(seconds)
    fastest = min(PEERS, key=lambda name: medians[name])
    return {
        "pictures": BATCH, "shape": shape, "steps": steps, "median_seconds": medians, "found": found,
        "fastest_peer": fastest, "float32_ratio_over_the_fastest_peer": harness.ratio(seconds, "embattle", fastest),
        "bfloat16_times_as_fast_as_the_fastest_peer": harness.ratio(seconds, fastest, "embattle bfloat16"),
    }  # fmt: skip


def main() -> None:
    """Both networks, untrained: what is timed does not depend on their weights."""
    given = harness.arguments(__doc__)
    results = {
        f"{name}, {steps} steps": compared(part["network"](), part["shape"], steps, given.repeats)
        for name, part in SUBJECTS.items()
        for steps in STEPS
    }
    versions = {name: importlib.metadata.version(name) for name in PEERS}
    harness.publish(
        "peers", "the same PGD in five libraries, one process, sides alternating", given,
        {"gallery": GALLERY, "eps": EPS, "step_size": STEP, "versions": versions, "networks": results},
    )  # fmt: skip


if __name__ == "__main__":
    main()

"""Adversarial Ranking Attack and Defense (Zhou et al., ECCV 2020), findings without a table: what of a model matters.

The paper tells them in a sentence each (sections 4.1 and 5.1) and prints no figures, so nothing here is judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from embattle.protocols.adversarial_ranking import DEFENDED, DIFFERS_OF_RANKS, IN_SHORT, PAPER, QUICK, SCALES
from embattle.protocols.protocol import PROTOCOLS, Column, Model, Protocol

_SCENARIOS = ("ca+.w1", "ca-.w1", "sp-qa+.m1", "sp-qa-.m1")
_VARIANTS: Mapping[str, Model] = {
    "triplet cosine": Model(network="c2f1"),
    "triplet Euclidean": Model(network="c2f1", training={"similarity": "euclidean"}),
    "contrastive cosine": Model(network="c2f1", training={"loss": "contrastive"}),
    "contrastive Euclidean": Model(network="c2f1", training={"loss": "contrastive", "similarity": "euclidean"}),
    "margin 0.1": Model(network="c2f1", training={"margin": 0.1}),
    "margin 0.4": Model(network="c2f1", training={"margin": 0.4}),
    "dimension 128": Model(network="c2f1", training={"network_args": {"dimension": 128}}),
    "dimension 512": Model(network="c2f1", training={"network_args": {"dimension": 512}}),
}
_NO_FIGURES = "The paper says this in a sentence and prints no figures."


def _on(model: str, judge: str) -> list[Column]:
    return [
        Column(scenario=scenario, rises=scenario.partition(".")[0].endswith("-"), crafted_on=model, judged_on=judge)
        for scenario in _SCENARIOS
    ]


def _unprinted(name: str, title: str, where: str, models: Mapping[str, Model], columns: Sequence[Column]) -> Protocol:
    return Protocol(
        name=name, title=title, paper=f"{PAPER}, {where}", data="mnist", models=models, columns=tuple(columns),
        eps=(0.03, 0.3), published={}, differs=(*DIFFERS_OF_RANKS, _NO_FIGURES),
        scales={
            "smoke": replace(SCALES["smoke"], hardening={**QUICK, "steps": 2, "step_size": 0.15}, takes="some minutes"),
            "cpu": replace(
                SCALES["cpu"], seeds=(0,), hardening={**QUICK, "epochs": 5}, takes="about an hour on two cores"
            ),
            "paper": replace(SCALES["paper"], takes="about a week on two cores"),
        },
    )  # fmt: skip


@PROTOCOLS.register("ranking-ablations", paper=f"{PAPER}, section 4.1, last paragraph", access="gradient", differs=IN_SHORT)
def ablations() -> Protocol:
    """What loss, distance, margin and dimension of the embedding matter, MNIST."""
    columns = [column for name in _VARIANTS for column in _on(name, name)]
    title = "Loss, distance, margin and dimension under ranking attacks, MNIST"
    return _unprinted("ranking-ablations", title, "section 4.1, last paragraph", _VARIANTS, columns)


@PROTOCOLS.register("ranking-transfer", paper=f"{PAPER}, section 5.1, last paragraph", access="gradient", differs=IN_SHORT)
def transfer() -> Protocol:
    """Pictures crafted on one C2F1 and judged on others, MNIST."""
    vanilla = "triplet cosine"
    models = {
        vanilla: _VARIANTS[vanilla],
        "another seed": Model(network="c2f1", shift=1),
        **{name: _VARIANTS[name] for name in ("triplet Euclidean", "contrastive cosine")},
        "defended": Model(network="c2f1", training=DEFENDED),
    }
    columns = [column for name in models for column in _on(vanilla, name)]
    columns += [column for name in models if name != vanilla for column in _on(name, vanilla)]
    title = "Transfer to another seed, loss and distance and to a defended model, MNIST"
    return _unprinted("ranking-transfer", title, "section 5.1, last paragraph", models, columns)

"""Adversarial Ranking Attack and Defense (Zhou et al., ECCV 2020), section 5: transfer and universal perturbations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from embattle.protocols.adversarial_ranking import DIFFERS_OF_RANKS, IN_SHORT, PAPER, SCALES, VANILLA
from embattle.protocols.protocol import PROTOCOLS, Column, Model, Protocol

_EPS = 0.3
_NETWORKS = ("lenet", "c2f1", "resnet18")
# Table 5: rows crafted on, columns judged on, in the order of _NETWORKS; before them what the clean picture gets.
_TABLE_5 = {
    "ca+.w1": """
50    50    50
16.6  35.1  34.3
28.6  2.1   31.3
24.4  27.0  2.2
""",
    "ca-.w1": """
2.5   2.1   2.1
63.7  10.0  9.1
9.1   93.9  9.3
9.9   11.8  66.7
""",
    "sp-qa+.m1": """
50    50    50
20.5  43.0  45.8
43.5  6.3   45.4
41.4  40.4  14.1
""",
    "sp-qa-.m1": """
0.5   0.5   0.5
7.0   1.6   1.8
1.0   8.6   1.9
0.8   1.2   6.9
""",
}
# Table 6: rank before and after, in %.
_TABLE_6 = {
    "ca+.w1": (50, 2.1), "ca-.w1": (2.1, 93.9), "qa+.m1": (50, 0.2), "qa-.m1": (0.5, 94.1),
    "i-ca+ seen": (50, 18.1), "i-ca- seen": (0.6, 9.5), "i-qa+ seen": (50, 20.5), "i-qa- seen": (2.1, 7.6),
    "i-ca+ unseen": (50, 18.5), "i-ca- unseen": (0.7, 9.4), "i-qa+ unseen": (50, 21.0), "i-qa- unseen": (2.2, 7.4),
}  # fmt: skip


def _crossings() -> Iterator[tuple[Column, float, float]]:
    """A column for every pair of networks and scenario, with the paper's figures without and with an attack."""
    for scenario, text in _TABLE_5.items():
        clean, *rows = [list(map(float, line.split())) for line in text.strip().splitlines()]
        for source, row in zip(_NETWORKS, rows, strict=True):
            for judge, before, after in zip(_NETWORKS, clean, row, strict=True):
                rises = "-" in scenario.removeprefix("sp-")
                yield Column(scenario=scenario, rises=rises, crafted_on=source, judged_on=judge), before, after


def _perturbed() -> Iterator[Column]:
    for name in _TABLE_6:
        scenario, _, which = name.partition(" ")
        metric = "seen_rank" if which == "seen" else "rank"
        yield Column(scenario=scenario, metric=metric, rises="-" in scenario.removeprefix("i-"), label=name)


@PROTOCOLS.register("ranking-table-5", paper=f"{PAPER}, Table 5", access="gradient", differs=IN_SHORT)
def table_5() -> Protocol:
    """Transfer of four ranking attacks between LeNet, C2F1 and ResNet-18, MNIST."""
    crossings = list(_crossings())
    published: Mapping[tuple[str, float], float] = {
        (column.name, eps): value for column, *values in crossings for eps, value in zip((0.0, _EPS), values, strict=True)
    }
    return Protocol(
        name="ranking-table-5", title="Transfer between architectures, vanilla models, MNIST", paper=f"{PAPER}, Table 5",
        data="mnist", models={name: Model(network=name) for name in _NETWORKS},
        columns=tuple(column for column, *_ in crossings), eps=(_EPS,), published=published, adaptive=False,
        scales={
            "smoke": replace(SCALES["smoke"], takes="a few minutes"),
            "cpu": replace(SCALES["cpu"], takes="about two hours on two cores"),
            "paper": replace(SCALES["paper"], takes="about a week on two cores"),
        },
        differs=(
            *DIFFERS_OF_RANKS,
            "The table does not print its ε; its diagonal of C2F1 is that of ε = 0.3 in Table 1.",
            "The paper prints no Recall@1 of LeNet and ResNet-18, and the clean ranks of raising attacks only for the "
            "diagonal: 50 stands for every judging model.",
            "Each pair is attacked for itself, also where one attack would serve three judging models: equal pictures.",
        ),
    )  # fmt: skip


@PROTOCOLS.register("ranking-table-6", paper=f"{PAPER}, Table 6", access="gradient", differs=IN_SHORT)
def table_6() -> Protocol:
    """Four ranking attacks with one perturbation for seen and unseen pictures, MNIST."""
    return Protocol(
        name="ranking-table-6", title="Universal perturbations, vanilla model, MNIST", paper=f"{PAPER}, Table 6",
        data="mnist", models=VANILLA, columns=tuple(_perturbed()), eps=(_EPS,),
        published={(name, eps): pair[eps > 0] for name, pair in _TABLE_6.items() for eps in (0.0, _EPS)},
        scales={
            "smoke": SCALES["smoke"],
            "cpu": replace(SCALES["cpu"], targets=2, takes="about three hours on two cores"),
            "paper": replace(SCALES["paper"], targets=100, takes="some weeks on two cores"),
        },
        differs=(
            *DIFFERS_OF_RANKS,
            "A universal figure is a mean over random targets, one perturbation each: n, interval, forwards and seconds "
            "are of perturbations, each learnt from 5 % of the gallery.",
            "Steps look at pictures clipped to [0, 1], and a perturbation is clipped to the range of the seen pictures "
            "alone; the authors' code embeds unclipped ones in its steps, and clips to the range of unseen ones too.",
            "The adaptive attack makes as many steps with a perturbation that has the whole ball: pictures are clipped "
            "where it is put on them, and it is never averaged.",
        ),
    )  # fmt: skip

"""What a protocol is: a published experiment with its figures, at scales from a minute to the paper's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from embattle.errors import ConfigError
from embattle.registry import Registry

PROTOCOLS: Registry = Registry("protocol", "embattle.protocols")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of an experiment is run.

    Args:
        attacked: pictures attacked for each seed, >= 1.
        epochs: of training, >= 1.
        seeds: one model is trained, and other pictures are attacked, for each.
        targets: random targets of universal scenarios for each seed, one perturbation each.
        training_pictures: how many of the training pictures are used; None: all.
        gallery: how many of the test pictures are searched, >= 4; None: all.
        size: side in pixels to which all pictures are brought; None: they stay as they are.
        hardening: further settings of defensive training at this scale, such as fewer epochs or steps of the attack inside.
        judged: whether figures at this scale can be compared with the paper's. A smoke test's cannot.
        takes: how long it takes, and on what, for people.

    Raises:
        ConfigError: nothing to attack, to train or to repeat.
    """

    attacked: int
    epochs: int
    seeds: tuple[int, ...]
    targets: int = 1
    training_pictures: int | None = None
    gallery: int | None = None
    size: int | None = None
    hardening: Mapping[str, Any] = field(default_factory=dict)
    judged: bool = True
    takes: str = ""

    def __post_init__(self) -> None:
        for name in ("attacked", "epochs", "targets", "training_pictures", "gallery", "size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds must be different whole numbers of at least 0, not {self.seeds}")


@dataclass(frozen=True, kw_only=True)
class Model:
    """What a protocol trains for each seed.

    Args:
        network: a name of `NETWORKS`.
        training: settings of `TrainConfig`, or with a "defense" of `HardenConfig`, where they are not the defaults.
        start: another model of the protocol, whose weights the training goes on from; unset: fresh weights.
        shift: added to the seed: the same training gives another model.
        recall: the paper's Recall@1, in %; None where it prints none.
    """

    network: str
    training: Mapping[str, Any] = field(default_factory=dict)
    start: str = ""
    shift: int = 0
    recall: float | None = None


@dataclass(frozen=True, kw_only=True)
class SignSteps:
    """A paper's attack: projected sign steps, alike at every ε.

    Args:
        steps: how many, >= 1.
        step_size: α in pixel units of [0, 1].
    """

    steps: int
    step_size: float


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a published table: a scenario, and which of its metrics the paper prints.

    Args:
        scenario: a name of `scenarios.SCENARIOS`, such as "ca+.w1".
        metric: of the scenario.
        unit: "%" for ranks, "distance".
        rises: whether a stronger attack makes the metric larger.
        tolerance: difference from the paper that says nothing, in the metric's unit.
        width: targets of a picture; above 1 the best that any embedding could reach is worked out beside.
        xi: ξ of a semantics-preserving attack; None: the paper's 1 (raise) and 100 (lower).
        crafted_on, judged_on: models by their names in the protocol; unset: its first.
        label: what tables call the column; unset: the attack's name.
    """

    scenario: str
    metric: str = "rank"
    unit: str = "%"
    rises: bool
    tolerance: float = 3.0
    width: int = 1
    xi: float | None = None
    crafted_on: str = ""
    judged_on: str = ""
    label: str = ""

    @property
    def attack(self) -> str:
        """What is attacked; columns of other metrics of the same attack share it.

        >>> Column(scenario="sp-qa+.m1", xi=100, rises=False).attack
        'sp-qa+.m1 ξ 100'
        """
        one = self.crafted_on == self.judged_on
        pair = "" if one and not self.judged_on else f" {'' if one else f'{self.crafted_on}→'}{self.judged_on}"
        return f"{self.scenario}{pair}" if self.xi is None else f"{self.scenario}{pair} ξ {self.xi:g}"

    @property
    def name(self) -> str:
        """What tables call the column."""
        return self.label or self.attack


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A published experiment on a ranking model.

    Args:
        name: as in `embattle reproduce NAME`.
        title: for people.
        paper: where it was published.
        data: a named data set with a train and a test split.
        models: what is trained, by name; columns that name none are of the first.
        columns: what is measured.
        eps: budgets in pixel units of [0, 1], without 0.
        published: the paper's figures by column name and ε (0 included where the paper has it), in the metric's unit.
        scales: by name: "smoke", "cpu", "paper".
        differs: where ours departs from the paper, in sentences.
        adaptive: whether the audit's default attack runs beside the paper's, on the same pictures with equal forwards.
        steps: of the paper's attack; None: the ranking paper's rule, which depends on ε.
        scores: the paper's robustness scores by model, as published (legacy), for models whose columns have all its parts.
        original: the same experiment on the paper's own data, which runs instead where that lies in the data root; None:
            nothing stands in for anything.
    """

    name: str
    title: str
    paper: str
    data: str
    models: Mapping[str, Model]
    columns: tuple[Column, ...]
    eps: tuple[float, ...]
    published: Mapping[tuple[str, float], float]
    scales: Mapping[str, Scale]
    differs: tuple[str, ...]
    adaptive: bool = True
    steps: SignSteps | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)
    original: Protocol | None = None

    def __post_init__(self) -> None:
        named = {name for column in self.columns for name in (column.crafted_on, column.judged_on)} | set(self.scores)
        named |= {model.start for model in self.models.values()}
        if unknown := sorted(named - {"", *self.models}):
            raise ConfigError(f"{self.name} names models that it does not train: {', '.join(unknown)}")
        if off := [name for name in self.scores if self.models[name].training.get("similarity", "cosine") != "cosine"]:
            raise ConfigError(f"{self.name} scores {', '.join(off)}: robustness scores are defined for the cosine only")

    @property
    def first(self) -> str:
        """The model of columns that name none."""
        return next(iter(self.models))

    def at(self, scale: str, *, attacked: int | None = None, seeds: tuple[int, ...] | None = None) -> Scale:
        """The scale called `scale`, with another number of pictures or other seeds where given.

        Raises:
            ConfigError: no such scale, or settings out of range.
        """
        if scale not in self.scales:
            raise ConfigError(f"{self.name} has no scale {scale!r}; write one of {', '.join(self.scales)}")
        found = self.scales[scale]
        seeds = found.seeds if seeds is None else seeds
        return replace(found, attacked=found.attacked if attacked is None else attacked, seeds=seeds)


def protocol(name: str) -> Protocol:
    """The protocol called `name`.

    Raises:
        ConfigError: no such protocol; the message has the nearest names.
    """
    found: Protocol = PROTOCOLS[name].build()
    return found

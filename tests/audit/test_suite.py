"""The suite of the robustness score: what it sets, what it plans, what its summary says, and masked gradients caught."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import embattle as eb
from embattle.audit import AuditConfig, audit
from embattle.audit.attack_unit import build_attack
from embattle.audit.config import SUITES
from embattle.audit.describe import out_of_reach
from embattle.audit.masking import probe_cell, probes
from embattle.data import ImageSet
from embattle.errors import ConfigError
from embattle.records import LocalStore, canonical_json, judge, load_summary
from embattle.records.robustness import NEEDED
from embattle.report import render_markdown
from embattle.scenarios.scenario import SCENARIOS
from embattle.scenarios.subject import Subject

SMALL = {"suite": "ers", "attacked": 10, "k": 4, "tile": 10}


@pytest.fixture
def run(tmp_path: Path, make_gallery, make_model) -> Callable[..., dict[str, Any]]:
    """Runs an audit and gives its summary."""

    def run(
        name: str = "run", *, model: eb.Embedder | None = None, images: ImageSet | None = None, **settings: object
    ) -> dict[str, Any]:
        config = AuditConfig.parse({**SMALL, **settings})
        made, _ = audit(config, images or make_gallery(), model or make_model(), out=tmp_path / name)
        return load_summary(made.path)

    return run


# --- settings -------------------------------------------------------------------------------------------------------


def test_the_suite_is_the_published_setting() -> None:
    config = AuditConfig(suite="ers")
    assert (config.eps, config.attack, config.steps, config.step_size) == ((77 / 255,), "pgd", 32, 3 / 255)
    assert set(config.scenarios) == set(NEEDED) == set(SUITES["ers"]["scenarios"])
    attack = build_attack(config, config.eps[0])
    assert (attack.steps, attack.update.step_size, attack.start, attack.restarts) == (32, 3 / 255, "clean", 1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"eps": "8/255"}, {"eps": (8 / 255,), "steps": 32}),
        # Five steps of 3/255 would not reach ε: another number of steps has its own size, unless one is given.
        ({"steps": 5}, {"steps": 5, "step_size": None}),
        ({"steps": 5, "step_size": "3/255"}, {"steps": 5, "step_size": 3 / 255}),
        ({"steps": 32}, {"steps": 32, "step_size": 3 / 255}),
        ({"step_size": "1/255"}, {"steps": 32, "step_size": 1 / 255}),
        ({"scenarios": ["tma"]}, {"scenarios": ("tma",), "eps": (77 / 255,)}),
        ({"attack": "pgd"}, {"attack": "pgd", "steps": 32}),
        # Steps belong to their attack: another one has its own.
        ({"attack": "apgd"}, {"attack": "apgd", "steps": None, "step_size": None, "eps": (77 / 255,)}),
        ({"attack": "apgd", "steps": 7}, {"attack": "apgd", "steps": 7, "step_size": None}),
        ({"rule": "ranking"}, {"attack": "pgd", "rule": "ranking", "steps": None, "step_size": None}),
    ],
)
def test_what_is_given_wins(given: dict[str, Any], expected: dict[str, Any]) -> None:
    config = AuditConfig.parse({"suite": "ers", **given})
    assert {name: getattr(config, name) for name in expected} == expected
    build_attack(config, 0.1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"suite": "all"}, "suite: input should be '' or 'ers'"),
        ({"suite": "ers", "step_size": "3/x"}, "step_size '3/x' is not a number"),
        ({"step_size": 0}, "step_size: input should be greater than 0"),
        ({"step_size": 3}, "step_size: input should be less than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        AuditConfig.parse(given)


def test_an_attack_without_a_step_size_says_so() -> None:
    with pytest.raises(ConfigError, match=r"'apgd' has no setting 'step_size'.* mi-fgsm, pgd"):
        build_attack(AuditConfig.parse({"step_size": 0.01}), 0.1)


def test_runs_of_an_earlier_version_keep_their_hash() -> None:
    """What came later is recorded where it is used: this is the digest of the settings before there were suites."""
    digest = hashlib.sha256(canonical_json(AuditConfig().recorded()).encode()).hexdigest()
    assert digest == "bac9102cafbe73c6a8acbebd19c4b9626081a166d802a738b13fce505061778e"
    recorded = AuditConfig.parse({"suite": "ers", "steps": 5}).recorded()
    assert (recorded["suite"], recorded["steps"], "step_size" in recorded) == ("ers", 5, False)
    assert AuditConfig.parse(recorded) == AuditConfig.parse({"suite": "ers", "steps": 5})
    recorded = AuditConfig.parse({"suite": "ers"}).recorded()
    assert (recorded["step_size"], recorded["steps"]) == (3 / 255, 32)
    assert AuditConfig.parse(recorded) == AuditConfig.parse({"suite": "ers"})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, None),
        ({"steps": 26, "step_size": "3/255"}, None),
        ({"steps": 25, "step_size": "3/255"}, r"25 steps of 0.01176 reach 0.2941 of ε = 0.302.* set steps to 26 or more"),
        (
            {"suite": "", "attack": "pgd", "eps": 0.1, "step_size": 0.001},
            r"reach 0.02 of ε = 0.1.* set steps to 100 or more",
        ),
        ({"steps": 1}, None),
    ],
)
def test_steps_that_cannot_reach_eps_are_warned_of(given: dict[str, Any], told: str | None) -> None:
    warned = out_of_reach(AuditConfig.parse({"suite": "ers", **given}))
    assert [bool(re.search(told or "", text)) for text in warned] == ([True] if told else [])


def test_departures_from_the_published_setting_are_named() -> None:
    assert AuditConfig.parse({"suite": "ers"}).departures == {}
    assert AuditConfig.parse({"eps": 0.1, "steps": 3}).departures == {}, "no suite, nothing to depart from"
    found = AuditConfig.parse({"suite": "ers", "eps": "8/255", "steps": 4}).departures
    assert found == {"eps": ((8 / 255,), (77 / 255,)), "steps": (4, 32), "step_size": (None, 3 / 255)}


def test_the_probes_of_an_eps_below_one_grey_level_have_it_as_their_largest() -> None:
    tried = probes(AuditConfig.parse({"suite": "ers", "eps": 0.003}))
    assert {probe.eps for probe in tried if probe.role == "white"} == {0.003, 1.0}
    assert {probe.eps for probe in tried if probe.role == "black"} == {0.003}


# --- the run --------------------------------------------------------------------------------------------------------


def test_a_suite_has_its_score_and_its_checks(run, tmp_path: Path) -> None:
    summary = run(steps=4)
    plan = json.loads((tmp_path / "run" / "config.json").read_text())["plan"]
    # Describe; eleven scenarios, clean and attacked; four ε, two other numbers of steps, and guessing.
    assert len(plan) == len(set(plan)) == 1 + 11 * 2 + 7
    assert summary["complete"]
    told = summary["robustness"]
    (point,) = told["curve"]
    assert point["eps"] == 77 / 255
    scores = {name: point["figures"][name] for name in ("ers", "ers-legacy")}
    for name, score in scores.items():
        parts = [row[name]["score"]["value"] for row in point["parts"]]
        assert score["value"] == pytest.approx(sum(parts) / 10)
        assert score["ci"][0] < score["value"] < score["ci"][1]
        assert point["missing"][name] == []
    assert len(told["masking"]) == 5
    curves = {threat["threat"]: threat["curve"][-1]["figures"] for threat in summary["threats"]}
    for row in point["parts"]:
        for name in ("ers", "ers-legacy"):
            assert row[name]["measured"]["value"] in [figure["value"] for figure in curves[row[name]["threat"]].values()]
    text = render_markdown(summary)
    told = "steps = 4 (the suite has 32), step_size = the attack's own (the suite has 0.01176)"
    assert any(told in note for note in summary["notes"])
    assert "Robustness score" in text
    assert f"{scores['ers']['value']:.1f} [" in text
    assert f"{scores['ers-legacy']['value']:.1f} [" in text


def test_a_killed_suite_goes_on_and_its_checks_are_units_like_others(run, tmp_path: Path, monkeypatch) -> None:
    from embattle.audit import run as run_module

    whole = run("whole", steps=2)

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run_module, "probe_cell", broken)
        with pytest.raises(eb.errors.RunIncomplete, match="masking"):
            run("killed", steps=2)
    run("killed", steps=2)
    folders = [tmp_path / name for name in ("whole", "killed")]
    units = [{path.name: path.read_bytes() for path in folder.glob("units/*.jsonl")} for folder in folders]
    assert units[0] == units[1]
    rows = [row for unit in LocalStore(folders[0]).done() for row in LocalStore(folders[0]).rows(unit)]
    probed = [row for row in rows if row["row"] == "masking"]
    assert len(probed) == 7 * 10
    assert {(row["role"], round(row["eps"], 3), row["steps"]) for row in probed} == {
        ("white", 0.075, 2), ("white", 0.151, 2), ("white", 0.302, 2), ("white", 1.0, 2), ("white", 0.302, 1),
        ("white", 0.302, 4), ("black", 0.302, 96),
    }  # fmt: skip
    assert whole["robustness"]["masking"] == judge(probed)


def test_a_plain_audit_has_none_of_it(run) -> None:
    assert "robustness" not in run(suite="", scenarios=("tma",), eps=(0.1,), steps=2)


def test_a_suite_without_labels_says_what_is_missing(run, make_gallery) -> None:
    summary = run(images=make_gallery(labelled=False), steps=2)
    (point,) = summary["robustness"]["curve"]
    assert point["figures"]["ers"]["value"] is None
    assert point["missing"]["ers"] == ["ES:D", "ES:R", "LTM", "GTM"]
    text = render_markdown(summary)
    assert "ERS has no value: ES:D, ES:R, LTM, GTM were not measured." in text


class Normalised(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.inner(x))


def test_a_euclidean_model_has_a_score_on_the_unit_sphere_only(run, make_model) -> None:
    loose = run("loose", model=make_model("euclidean"), steps=4)["robustness"]
    assert "unit sphere" in loose["refused"]
    assert loose["curve"][0]["figures"]["ers"]["value"] is None
    scored = [row["part"] for row in loose["curve"][0]["parts"] if row["ers"]["score"] is not None]
    assert len(scored) == 8
    module = Normalised(make_model().module)
    sphere = run("sphere", model=eb.Embedder(module, similarity="euclidean", channels=1), steps=4)["robustness"]
    cosine = run("cosine", model=eb.Embedder(module, similarity="cosine", channels=1), steps=4)["robustness"]
    assert sphere["refused"] is None
    # The same lists, and nearly the same attacks: hinges of distances weigh pairs otherwise than hinges of cosines.
    values = [told["curve"][0]["figures"]["ers"]["value"] for told in (sphere, cosine)]
    assert values[0] == pytest.approx(values[1], abs=5)


def test_the_scenarios_of_the_score_are_registered() -> None:
    assert {name.partition(".")[0] for name in NEEDED} <= {entry.name for entry in SCENARIOS}


# --- masked gradients -----------------------------------------------------------------------------------------------


class Quantised(nn.Module):
    """Rounds its input: the picture matters, its gradient is zero everywhere."""

    def __init__(self, inner: nn.Module, levels: int) -> None:
        super().__init__()
        self.inner, self.levels = inner, levels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner((x * self.levels).round() / self.levels)


class Steep(nn.Module):
    """A sigmoid so steep that its slope vanishes nearly everywhere, before or behind the network."""

    def __init__(self, inner: nn.Module, slope: float, *, before: bool) -> None:
        super().__init__()
        self.inner, self.slope, self.before = inner, slope, before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.before:
            return self.inner(torch.sigmoid(self.slope * (x - 0.5)))
        return torch.sigmoid(self.slope * self.inner(x))


def checked(module: nn.Module, images: ImageSet, similarity: str) -> dict[str, str]:
    subject = Subject.of(eb.Embedder(module, similarity=similarity, channels=1), images, k=4, keep_own=True)
    config = AuditConfig.parse({"suite": "ers", "attacked": 16, "k": 4, "tile": 16})
    rows = [row for probe in probes(config) for row in probe_cell(subject, probe, images.ids[:16], config).rows]
    return {check["check"]: check["status"] for check in judge(rows)}


MASKED = {
    "rounded to 5 levels": lambda inner: Quantised(inner, 4),
    "rounded to 31 levels": lambda inner: Quantised(inner, 30),
    "steep sigmoid behind": lambda inner: Steep(inner, 1000.0, before=False),
    "steep sigmoid before": lambda inner: Steep(inner, 1000.0, before=True),
}


@pytest.mark.parametrize("how", MASKED)
def test_masked_gradients_are_caught(similarity: str, how: str, make_model, make_gallery) -> None:
    found = checked(MASKED[how](make_model().module), make_gallery(), similarity)
    for check in ("ε = 1 wins at least 95 %", "black box never beats white box", "the loss is not flat"):
        assert found[check] == "FAIL"


def test_gradients_that_exist_and_mislead_are_caught_by_guessing(make_model, make_gallery) -> None:
    """Slopes that are tiny and not zero: every step has a gradient, and a search that sees none does better."""
    found = checked(Steep(make_model().module, 100.0, before=True), make_gallery(), "cosine")
    assert found["the loss is not flat"] == "ok"
    assert found["black box never beats white box"] == "FAIL"


def trained(images: ImageSet) -> nn.Module:
    """A small network that has learned the gallery's classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(200, 16), nn.ReLU(), nn.Linear(16, 4)
        )
    x, labels = images.pixels(range(len(images))), images.labels
    optimiser = torch.optim.Adam(module.parameters(), lr=5e-3)
    for _ in range(120):
        loss = nn.functional.cross_entropy(module(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (module(x).argmax(1) == labels).double().mean() > 0.9
    return module


def test_a_plain_trained_model_passes(make_gallery) -> None:
    images = make_gallery()
    assert set(checked(trained(images), images, "cosine").values()) == {"ok"}


def test_the_report_warns_of_a_score_that_is_not_to_be_believed(run, make_model) -> None:
    masked = run(model=eb.Embedder(Quantised(make_model().module, 4), channels=1), steps=4)
    assert masked["robustness"]["curve"][0]["figures"]["ers"]["value"] > 50, "it would look like a robust model"
    text = render_markdown(masked)
    assert "gradients of this model look masked" in text
    assert "black box never beats white box" in text

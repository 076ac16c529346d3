"""One perturbation for many pictures: what it is learnt from and judged on, and that its file is what was judged."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import embattle as eb
from embattle.audit import AuditConfig, Subject, audit, universal_unit
from embattle.audit.universal_unit import SharedCell, shared_cell
from embattle.budget import Linf, grey_levels
from embattle.errors import ConfigError, RunIncomplete
from embattle.images import decode
from embattle.records import LocalStore
from embattle.scenarios.scenario import SCENARIOS, named
from embattle.scenarios.universal import is_universal, learnt_from

NAMES = ["i-ca+", "i-ca-", "i-qa+", "i-qa-"]
EPS, COUNT, SEED = 0.2, 8, 7


def config(**settings: object) -> AuditConfig:
    given = {"scenarios": tuple(NAMES), "eps": (EPS,), "attacked": COUNT, "targets": 3, "steps": 6, "tile": 4, "k": 4}
    return AuditConfig.parse({**given, "seed": SEED, **settings})


def cell(name: str, eps: float = EPS, number: int = 0, findings: int = 0) -> SharedCell:
    scenario = named(name)
    assert is_universal(scenario)
    return SharedCell(scenario=scenario, eps=eps, number=number, findings=findings)


def test_all_four_are_there_and_take_no_number() -> None:
    assert [entry.name for entry in SCENARIOS if is_universal(entry.build())] == NAMES
    for name in NAMES:
        assert named(name).name == name
        with pytest.raises(ConfigError, match=f"{name!r} takes no number".replace("+", r"\+")):
            named(f"{name}.w2")


# --- draws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_what_is_judged_was_not_learnt_from(subject, oracle, name: str) -> None:
    scenario = named(name)
    for number in range(20):
        draw = scenario.draw(subject, SEED, number, COUNT)
        learnt, seen, unseen = (set(rows.tolist()) for rows in (draw.learnt, draw.seen, draw.unseen))
        assert len(learnt) == COUNT
        assert seen <= learnt
        assert not unseen & learnt
        assert draw.target not in learnt | unseen
        page = set(oracle.nearest(draw.target)[: subject.page])
        if name.endswith("+"):
            assert (seen, len(unseen)) == (learnt, COUNT)
        else:
            assert (seen, unseen) == (learnt & page, page - learnt)


def test_targets_and_pictures_are_random_and_no_target_comes_twice(subject) -> None:
    scenario = named("i-ca+")
    targets = [scenario.drawn(subject, SEED, number) for number in range(len(subject.images))]
    assert sorted(targets) == list(range(len(subject.images)))
    assert targets != [scenario.drawn(subject, SEED + 1, number) for number in range(len(subject.images))]
    counts = torch.zeros(len(subject.images))
    for number in range(len(subject.images)):
        counts[scenario.draw(subject, SEED, number, COUNT).learnt] += 1
    # 40 draws of 8 of 40: each picture is learnt from about 8 times.
    assert counts.mean().item() == pytest.approx(COUNT)
    assert counts.min() >= 1
    assert counts.max() <= 18


def test_a_small_gallery_is_halved(make_subject) -> None:
    subject = make_subject()
    draw = named("i-qa+").draw(subject, SEED, 0, 500)
    assert learnt_from(40, 500) == len(draw.learnt) == len(draw.unseen) == 19


# --- the unit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("name", NAMES)
def test_rows_are_true_of_the_file_of_the_perturbation(make_subject, make_oracle, name: str, number: int) -> None:
    """The array is read from its blob, put on the unseen pictures, and everything is counted anew in numpy."""
    subject = make_subject()
    draw = named(name).draw(subject, SEED, number, COUNT)
    output = shared_cell(subject, cell(name, number=number, findings=3), config())
    row, *findings = output.rows
    levels = np.load(io.BytesIO(output.blobs[row["perturbation"]["array"]]), allow_pickle=False)
    assert levels.dtype == np.int16
    assert levels.shape == (1, 5, 5)
    assert 0 < np.abs(levels).max() == row["perturbation"]["levels"] <= math.floor(255 * EPS)
    oracle = make_oracle(subject)
    means = {}
    for which, rows in (("seen_rank", draw.seen), ("rank", draw.unseen)):
        saved = np.clip(subject.images.images[rows].numpy().astype(int) + levels, 0, 255).astype(np.uint8)
        z = subject.embedder.embed(torch.from_numpy(saved), tile=4).double().numpy() if len(rows) else []
        target = oracle.z[draw.target]
        found = [oracle.rank(target, each, None) if "ca" in name else oracle.rank(each, target, None) for each in z]
        means[which] = 100 * np.mean(found) / len(subject.images) if len(rows) else None
    for which, mean in means.items():
        assert row["metrics"][which] == (None if mean is None else pytest.approx(mean, abs=1e-6))
    assert row["pictures"] == {"seen": len(draw.seen), "unseen": len(draw.unseen)}
    assert row["sample"] == subject.images.ids[draw.target]
    assert row["cost"] == {"forwards": COUNT * 7, "backwards": COUNT * 6}
    assert (row["success"], row["status"] == "success") == (row["metrics"]["carried"] >= 0.5,) * 2
    shown = decode(output.blobs[row["perturbation"]["picture"]], mode="L")[..., 0].astype(int)
    assert (np.sign(shown - 127) == np.sign(levels[0])).all()
    for finding in findings:
        place = subject.images.ids.index(finding["sample"])
        assert place in draw.unseen.tolist()
        saved = decode(output.blobs[finding["adversarial"]], mode="L")[..., 0].astype(int)
        assert (saved == np.clip(subject.images.images[place, 0].numpy().astype(int) + levels[0], 0, 255)).all()


@pytest.mark.parametrize("name", NAMES)
def test_carried_counts_pictures_that_the_goal_did_not_hold_for_anyway(subject, name: str) -> None:
    draw = named(name).draw(subject, SEED, 1, COUNT)
    row, *_ = shared_cell(subject, cell(name, number=1), config()).rows
    clean, *_ = shared_cell(subject, cell(name, eps=0.0, number=1), config()).rows
    scenario, z = named(name), subject.z[draw.unseen]
    aims = scenario.aims_at(draw.unseen, draw.target)
    before = scenario.measure(subject, draw.unseen, aims, z)
    assert clean["metrics"]["rank"] == pytest.approx(float(before.metrics["rank"].mean()))
    assert clean["metrics"]["carried"] in (0.0, None)
    assert clean["status"] == "scored"
    assert clean["cost"] == {"forwards": 0, "backwards": 0}
    assert "perturbation" not in clean
    if before.goal.all():
        assert (row["success"], row["metrics"]["carried"]) == (None, None)
    else:
        assert 0 <= row["metrics"]["carried"] <= 1


@pytest.mark.parametrize("name", NAMES)
def test_what_was_learnt_beats_noise_of_the_same_size(make_subject, name: str) -> None:
    """Learnt on other pictures, it moves the unseen ones in the wanted direction, and random signs do not."""
    subject = make_subject()
    for number in range(3):
        draw = named(name).draw(subject, SEED, number, 16)
        settings = config(attacked=16, steps=15)
        row, *_ = shared_cell(subject, cell(name, number=number), settings).rows
        signs = torch.randint(0, 2, (8, 1, 1, 5, 5), generator=torch.Generator().manual_seed(1)) * 2 - 1
        noisy = []
        for noise in signs:
            saved = (subject.images.images[draw.unseen].int() + 51 * noise).clamp(0, 255).to(torch.uint8)
            z = subject.embedder.embed(saved, tile=4)
            aims = named(name).aims_at(draw.unseen, draw.target)
            noisy.append(float(named(name).measure(subject, draw.unseen, aims, z).metrics["rank"].mean()))
        if name.endswith("+"):
            assert row["metrics"]["rank"] < np.mean(noisy)
        else:
            assert row["metrics"]["rank"] > np.mean(noisy)


def test_a_stored_perturbation_is_what_the_budget_makes_of_the_pictures() -> None:
    """In whole levels or picture by picture, rounding towards the clean picture is the same."""
    draw = torch.Generator().manual_seed(3)
    x = torch.randint(0, 256, (50, 1, 6, 6), generator=draw)
    for eps in (8 / 255, 0.031, 0.3, 1.0):
        delta = (torch.rand(1, 6, 6, generator=draw) * 2 - 1) * eps
        delta[0, 0], delta[0, 1] = eps, -eps
        budget = Linf(eps)
        wanted = budget.eight_bit(x.float() / 255, (x.float() / 255 + delta).clamp(0, 1))
        assert torch.equal((x.int() + grey_levels(delta)).clamp(0, 255).to(torch.uint8), wanted)
        assert grey_levels(delta).abs().max() == math.floor(255 * eps + 1e-6)


def test_a_model_that_breaks_down_is_told_and_never_averaged_in(make_gallery) -> None:
    class Brittle(torch.nn.Module):
        """NaN for every picture that is not in the gallery; its gradient is that of a healthy one."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(25, 6))
            self.known = {tuple(image.flatten().tolist()) for image in make_gallery().images}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            levels = (x * 255).round().to(torch.uint8)
            new = [tuple(image.flatten().tolist()) not in self.known for image in levels]
            return torch.where(torch.tensor(new).unsqueeze(1), torch.nan, self.inner(x))

    subject = Subject.of(eb.Embedder(Brittle(), channels=1), make_gallery(), k=4, keep_own=True)
    (row,) = shared_cell(subject, cell("i-ca+"), config()).rows
    assert row["status"] == "non_finite"
    assert set(row["metrics"].values()) == {None}
    assert row["success"] is False


# --- the audit ------------------------------------------------------------------------------------------------------


def run(tmp_path: Path, make_gallery: Any, make_model: Any, name: str = "run", **settings: object) -> tuple[Path, Any]:
    made, summary = audit(config(**settings), make_gallery(), make_model(), out=tmp_path / name)
    return made.path, summary


def samples(folder: Path) -> list[dict[str, Any]]:
    store = LocalStore(folder)
    plan = json.loads((folder / "config.json").read_text())["plan"]
    return [row for unit in plan for row in store.rows(unit) if row["row"] == "sample"]


def test_a_perturbation_counts_once_whatever_the_number_of_pictures(tmp_path: Path, make_gallery, make_model) -> None:
    folder, summary = run(tmp_path, make_gallery, make_model, scenarios=("i-ca+", "shift"))
    threat = next(threat for threat in summary["threats"] if threat["threat"] == "i-ca+")
    assert threat["attack"] == {"name": "apgd", "steps": 6, "perturbations": 3, "learnt_from": COUNT, "seed": SEED}
    for point in threat["curve"]:
        mine = [row for row in samples(folder) if (row["threat"], row["eps"]) == ("i-ca+", point["eps"])]
        assert len(mine) == 3
        rank = point["figures"]["rank"]
        assert rank["n"] == 3
        assert rank["value"] == pytest.approx(np.mean([row["metrics"]["rank"] for row in mine]))
        values = sorted(row["metrics"]["rank"] for row in mine)
        assert values[0] - 1e-9 <= rank["ci"][0] <= rank["ci"][1] <= values[-1] + 1e-9
    page = eb.report.write_report(folder).read_text(encoding="utf-8")
    assert "56 forwards" in page
    assert "for one perturbation" in page
    assert "perturbations 3" in page


def test_targets_are_units_of_their_own(tmp_path: Path, make_gallery, make_model, monkeypatch) -> None:
    first, _ = run(tmp_path, make_gallery, make_model, "first", scenarios=("i-qa-",))
    rows = samples(first)
    assert [(row["eps"], row["sample"]) for row in rows] == [
        (
            eps,
            make_gallery().ids[named("i-qa-").drawn(Subject.of(make_model(), make_gallery(), k=4, keep_own=True), SEED, n)],
        )
        for eps in (0.0, EPS)
        for n in range(3)
    ]
    learn, calls = universal_unit._learn, []

    def stop(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return learn(*given)

    monkeypatch.setattr(universal_unit, "_learn", stop)
    with pytest.raises(RunIncomplete, match="interrupted"):
        run(tmp_path, make_gallery, make_model, "second", scenarios=("i-qa-",))
    monkeypatch.undo()
    second, _ = run(tmp_path, make_gallery, make_model, "second", scenarios=("i-qa-",))
    files = [
        {
            path.name: path.read_bytes()
            for path in (folder / "units").rglob("*")
            if path.suffix in (".jsonl", ".npy", ".png")
        }
        for folder in (first, second)
    ]
    assert files[0] == files[1]
    assert any(name.endswith(".npy") for name in files[0])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"attack": "universal", "scenarios": ("ca+", "i-ca+")},
            r"'universal' learns one perturbation .* ca\+.w1 attacks each",
        ),
        ({"attack": "universal", "scenarios": ("shift",)}, "--only i-ca"),
        ({"targets": 41}, "41 targets were asked for, and shelf has 40 pictures"),
        ({"targets": 0}, "targets"),
    ],
)
def test_settings_that_make_no_sense(
    tmp_path: Path, make_gallery, make_model, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        run(tmp_path, make_gallery, make_model, **settings)
    assert list(tmp_path.iterdir()) == []


def test_the_attack_universal_is_for_universal_scenarios(tmp_path: Path, make_gallery, make_model) -> None:
    _, summary = run(tmp_path, make_gallery, make_model, scenarios=("i-ca+",), attack="universal", targets=1)
    (threat,) = summary["threats"]
    assert threat["attack"]["name"] == "universal"
    assert threat["curve"][-1]["cost"]["forwards"] == COUNT * 7


def test_a_transfer_refuses_them(make_gallery, make_model) -> None:
    from embattle.audit import TransferConfig, transfer

    with pytest.raises(ConfigError, match="i-ca\\+ learns one perturbation for many pictures, and a transfer"):
        transfer(
            TransferConfig.parse({"scenarios": ["i-ca+", "ca+"], "k": 4}), make_gallery(),
            {"a": make_model(), "b": make_model("euclidean")},
        )  # fmt: skip

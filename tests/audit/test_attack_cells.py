"""A unit of an audit: what its rows claim is true of the pictures it saved."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import embattle as eb
from embattle.audit import AuditConfig, Subject
from embattle.audit.attack_unit import Cell, attack_cell
from embattle.images import decode
from embattle.scenarios.scenario import named

EPS = 0.2
NAMES = ["ca+.w1", "ca-.w1", "sp-qa+.m1", "sp-qa-.m2", "qa+.m1", "shift", "class", "es", "tma", "ltm", "gtm", "gtt"]


def cell_of(subject: Subject, name: str, eps: float, rows: list[int], findings: int = 0) -> Cell:
    samples = tuple(subject.images.ids[row] for row in rows)
    return Cell(scenario=named(name), eps=eps, samples=samples, findings=findings)


def config(**settings: object) -> AuditConfig:
    return AuditConfig(**{"scenarios": ("ca+.w1",), "eps": (EPS,), "steps": 8, "tile": 4, "k": 4, "seed": 7, **settings})


@pytest.mark.parametrize("name", NAMES)
def test_the_clean_cell_is_the_measure_of_the_clean_pictures(subject, name: str) -> None:
    rows = [5, 0, 12, 39]
    output = attack_cell(subject, cell_of(subject, name, 0.0, rows), config())
    places = torch.tensor(rows)
    clean = named(name).measure(subject, places, named(name).aims(subject, places, 7), subject.z[places])
    assert [row["sample"] for row in output.rows] == [subject.images.ids[row] for row in rows]
    for i, row in enumerate(output.rows):
        assert (row["row"], row["threat"], row["eps"], row["status"]) == ("sample", name, 0.0, "scored")
        assert row["metrics"] == {key: float(values[i]) for key, values in clean.metrics.items()}
        # What holds without an attack is nobody's success.
        assert row["success"] is (None if clean.goal[i] else False)
        assert row["cost"] == {"forwards": 0, "backwards": 0}


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_true_of_the_saved_pictures(make_subject, name: str) -> None:
    subject = make_subject(own="replaced")
    rows = list(range(20))
    output = attack_cell(subject, cell_of(subject, name, EPS, rows, findings=4), config())
    samples = {row["sample"]: row for row in output.rows if row["row"] == "sample"}
    findings = [row for row in output.rows if row["row"] == "finding"]
    assert list(samples) == [subject.images.ids[row] for row in rows]
    assert 1 <= len(findings) <= 4
    assert {row["cost"]["forwards"] for row in samples.values()} <= {9, 10}
    for finding in findings:
        row = subject.images.ids.index(finding["sample"])
        clean = subject.images.images[row]
        pixels = {key: decode(output.blobs[finding[key]], mode="L") for key in ("original", "adversarial", "difference")}
        saved = torch.from_numpy(pixels["adversarial"]).permute(2, 0, 1)
        assert torch.equal(torch.from_numpy(pixels["original"]).permute(2, 0, 1), clean)
        change = saved.int() - clean.int()
        assert 0 < change.abs().max() <= math.floor(255 * EPS)
        assert finding["linf"] == int(change.abs().max()) / 255
        assert finding["l2"] == pytest.approx(float((change.double() / 255).norm()))
        shown = pixels["difference"][..., 0].astype(int)
        assert (shown == np.clip(127 + 10 * change[0].numpy(), 0, 255)).all()
        # The picture as anybody would read it again from its file.
        place = torch.tensor([row])
        aims = named(name).aims(subject, place, 7)
        z = subject.embedder.embed(saved.unsqueeze(0), tile=4)
        again = named(name).measure(subject, place, aims, z)
        sample = samples[finding["sample"]]
        assert sample["status"] == "success"
        assert sample["success"] is True
        assert again.goal.tolist() == [True]
        for key, value in sample["metrics"].items():
            assert float(again.metrics[key][0]) == pytest.approx(value, abs=1e-4)
        names = {item["blob"] for shown in finding["lists"] for item in shown["items"]}
        assert names <= set(output.blobs)
        assert finding["forwards"] == sample["cost"]["forwards"]
        assert [item["rank"] for item in finding["lists"][1]["items"] if item["framed"]] == [finding["rank_after"]]
    assert set(output.blobs) == {
        name
        for finding in findings
        for name in [
            *(finding[key] for key in ("original", "adversarial", "difference")),
            *([finding["anchor"]["blob"]] if finding["anchor"] else []),
            *(item["blob"] for shown in finding["lists"] for item in shown["items"]),
        ]
    }


def test_findings_are_the_most_telling_successes(make_subject) -> None:
    subject = make_subject()
    rows = list(range(24))
    cells = [attack_cell(subject, cell_of(subject, "ca+.w1", eps, rows, findings=3), config()).rows for eps in (0.0, EPS)]
    before = {row["sample"]: row["metrics"]["rank"] for row in cells[0]}
    moved = {
        row["sample"]: abs(row["metrics"]["rank"] - before[row["sample"]])
        for row in cells[1]
        if row["row"] == "sample" and row["success"]
    }
    shown = [moved[row["sample"]] for row in cells[1] if row["row"] == "finding"]
    assert len(moved) > 3
    assert shown == sorted(moved.values(), reverse=True)[:3]


def test_rows_do_not_depend_on_their_shard_or_order(subject) -> None:
    rows = [9, 2, 30, 4, 17, 25, 11]
    whole = attack_cell(subject, cell_of(subject, "sp-qa+.m1", EPS, rows), config()).rows
    for parts in ([rows[:1], rows[1:]], [rows[:5], rows[5:]], [rows[::-1]]):
        pieces = [
            row for part in parts for row in attack_cell(subject, cell_of(subject, "sp-qa+.m1", EPS, part), config()).rows
        ]
        assert sorted(pieces, key=lambda row: row["sample"]) == sorted(whole, key=lambda row: row["sample"])


def test_a_stronger_attack_is_stronger(make_subject) -> None:
    """Not a proof, but a measure that ran the wrong way would fail it: the rank of raised items falls with ε."""
    subject = make_subject()
    ranks = []
    for eps in (0.0, 0.02, 0.1, 0.3):
        rows = attack_cell(subject, cell_of(subject, "ca+.w1", eps, list(range(30))), config()).rows
        ranks.append(np.mean([row["metrics"]["rank"] for row in rows]))
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[-1] < ranks[0] / 3


def test_bfloat16_steps_cost_one_forward_more_and_move_ranks_alike(make_subject) -> None:
    subject = make_subject()
    cell, ranks = cell_of(subject, "ca+.w1", EPS, list(range(30))), {}
    for precision, forwards in (("float32", 9), ("bfloat16", 10)):
        rows = attack_cell(subject, cell, config(precision=precision)).rows
        assert {row["cost"]["forwards"] for row in rows} == {forwards}
        ranks[precision] = np.mean([row["metrics"]["rank"] for row in rows])
    assert abs(ranks["bfloat16"] - ranks["float32"]) <= 0.01 * len(subject.images)


class Fragile(torch.nn.Module):
    """NaN for every picture that has a pixel of exactly 255."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(25, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        white = (x >= 1).flatten(1).any(1, keepdim=True)
        return torch.where(white, torch.nan, self.inner(x))


@pytest.mark.parametrize("name", NAMES)
def test_a_nan_on_the_way_does_not_hide_what_was_saved(make_gallery, name: str) -> None:
    embedder = eb.Embedder(Fragile(), channels=1)
    images = make_gallery()
    assert images.images.max() < 240
    subject = Subject.of(embedder, images, k=4, keep_own=True)
    rows = attack_cell(subject, cell_of(subject, name, 1.0, list(range(12))), config(eps=(1.0,), steps=4)).rows
    assert len(rows) == 12
    # A picture that found nothing better than the clean one among its NaN has failed; all others are measured.
    measured = [row for row in rows if row["status"] != "non_finite"]
    assert len(measured) >= 10
    assert all(math.isfinite(value) for row in measured for value in row["metrics"].values())


def test_saved_pictures_that_break_the_model_are_counted_apart(make_gallery) -> None:
    class Lattice(torch.nn.Module):
        """NaN for 8-bit pictures that are not in the gallery: an attack sees nothing of it before its result is saved."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(25, 6))
            self.known = {tuple(image.flatten().tolist()) for image in make_gallery().images}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            levels = x * 255
            saved = ((levels - levels.round()).abs() < 1e-3).flatten(1).all(1)
            new = [tuple(image.flatten().tolist()) not in self.known for image in levels.round().to(torch.uint8)]
            return torch.where((saved & torch.tensor(new)).unsqueeze(1), torch.nan, self.inner(x))

    subject = Subject.of(eb.Embedder(Lattice(), channels=1), make_gallery(), k=4, keep_own=True)
    output = attack_cell(subject, cell_of(subject, "shift", 0.0417, list(range(8)), findings=3), config(steps=3))
    assert {row["status"] for row in output.rows} == {"non_finite"}
    assert not any(row["success"] for row in output.rows)
    assert {value for row in output.rows for value in row["metrics"].values()} == {None}


def test_a_model_that_always_breaks_has_no_success(make_gallery) -> None:
    class Brittle(torch.nn.Module):
        """NaN for every picture that is not in the gallery."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(25, 6))
            self.known = {tuple(image.flatten().tolist()) for image in make_gallery().images}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            levels = (x * 255).round().to(torch.uint8)
            new = [tuple(image.flatten().tolist()) not in self.known for image in levels]
            return torch.where(torch.tensor(new).unsqueeze(1), torch.nan, self.inner(x))

    subject = Subject.of(eb.Embedder(Brittle(), channels=1), make_gallery(), k=4, keep_own=True)
    output = attack_cell(subject, cell_of(subject, "shift", EPS, list(range(8)), findings=3), config(steps=3))
    assert [row["row"] for row in output.rows] == ["sample"] * 8
    assert not any(row["success"] for row in output.rows)
    assert {row["status"] for row in output.rows} <= {"non_finite", "failed", "zero_gradient"}

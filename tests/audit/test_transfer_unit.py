"""A unit of a transfer: what is crafted for whom, and that every judge reads its own gallery."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import embattle as eb
from embattle.audit import Subject, TransferConfig, transfer_unit
from embattle.audit.attack_unit import Cell, attack_cell
from embattle.audit.transfer_unit import Crossing, cross
from embattle.images import decode
from embattle.scenarios.scenario import named

EPS, SEED = 0.2, 7
ROWS = list(range(0, 24, 2))
Subjects = dict[str, Subject]


class Wider(torch.nn.Module):
    """Another architecture with another length of the embedding, which takes pictures of 10x10."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.conv, self.last = torch.nn.Conv2d(1, 4, 3), torch.nn.Linear(4 * 64, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.conv(x)).flatten(1))


@pytest.fixture
def subjects(make_model, make_gallery) -> Subjects:
    """Three models that differ in size, preprocessing, similarity and length."""
    models = [
        make_model("cosine"),
        eb.Embedder(Wider(), channels=1, size=10, mean=(0.4,), std=(0.2,), similarity="euclidean", name="wider"),
        make_model("euclidean"),
    ]
    gallery = make_gallery()
    return {model.fingerprint: Subject.of(model, gallery, k=4, keep_own=True, preserve=3) for model in models}


def config() -> TransferConfig:
    return TransferConfig(eps=(EPS,), steps=6, tile=4, k=4, preserve=3, seed=SEED, findings=2)


def cell(subjects: Subjects, name: str, eps: float = EPS, findings: int = 0) -> Cell:
    ids = next(iter(subjects.values())).images.ids
    return Cell(scenario=named(name), eps=eps, samples=tuple(ids[row] for row in ROWS), findings=findings)


NAMES = ["ca+.w1", "ca-.w2", "sp-qa+.m1", "sp-qa-.m1", "qa+.m2", "shift", "class"]


@pytest.mark.parametrize("name", NAMES)
def test_the_diagonal_is_the_audit_of_each_model(subjects: Subjects, name: str) -> None:
    for source, subject in subjects.items():
        audited = attack_cell(subject, cell(subjects, name), config()).rows
        crossed = cross(subjects, Crossing(cell=cell(subjects, name), source=source), config()).rows
        mine = [row for row in crossed if row["target"] == source]
        extra = {"source", "target", "attack"}
        assert [{key: value for key, value in row.items() if key not in extra} for row in mine] == audited


@pytest.mark.parametrize("name", NAMES)
def test_every_judge_ranks_in_its_own_gallery_what_the_source_made(
    subjects: Subjects, make_oracle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The saved pictures are taken on their way and embedded anew by every judge; ranks are recounted in numpy."""
    made = []
    craft = transfer_unit.craft
    monkeypatch.setattr(transfer_unit, "craft", lambda *given: made.append(craft(*given)) or made[-1])
    source = list(subjects)[1]
    output = cross(subjects, Crossing(cell=cell(subjects, name), source=source), config())
    assert {row["attack"] for row in output.rows} == set(range(len(made)))
    for target, subject in subjects.items():
        rows = [row for row in output.rows if row["target"] == target]
        assert [row["sample"] for row in rows] == [subject.images.ids[place] for place in ROWS]
        z = subject.embedder.embed(made[rows[0]["attack"]].saved, tile=4)
        aims = named(name).aims(subject, torch.tensor(ROWS), SEED)
        oracle = make_oracle(subject)
        for i, row in enumerate(rows):
            if name.startswith("ca"):
                found = [oracle.rank(oracle.z[query], z[i].double().numpy(), None) for query in aims["queries"][i].tolist()]
            elif "qa" in name:
                found = [
                    oracle.rank(z[i].double().numpy(), oracle.z[item], None) for item in aims["candidates"][i].tolist()
                ]
            else:
                continue
            assert row["metrics"]["rank"] == pytest.approx(100 * sum(found) / len(found) / len(subject.images), abs=1e-6)
        again = named(name).measure(subject, torch.tensor(ROWS), aims, z)
        assert [row["success"] for row in rows if row["success"] is not None] == [
            bool(again.goal[i]) for i, row in enumerate(rows) if row["success"] is not None
        ]


@pytest.mark.parametrize(
    ("name", "attacks"),
    [("ca+.w1", 1), ("qa+.m2", 1), ("sp-qa+.m1", 1), ("shift", 1), ("class", 1), ("ca-.w1", 3), ("sp-qa-.m1", 3)],
)
def test_one_attack_serves_all_where_the_goals_are_the_same(
    subjects: Subjects, name: str, attacks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    aims = []
    craft = transfer_unit.craft
    monkeypatch.setattr(transfer_unit, "craft", lambda *given: aims.append((given[0], given[3])) or craft(*given))
    for source in subjects:
        aims.clear()
        output = cross(subjects, Crossing(cell=cell(subjects, name), source=source), config())
        assert len(aims) == attacks
        assert {subject.embedder.fingerprint for subject, _ in aims} == {source}
        assert {key.partition(":")[2] for key in output.cost} == set(subjects)
        by_target = {row["target"]: row["attack"] for row in output.rows}
        for target, number in by_target.items():
            wanted = named(name).aims(subjects[target], torch.tensor(ROWS), SEED)
            goals = [key for key in wanted if key != "kept"]
            assert all(torch.equal(aims[number][1][key], wanted[key]) for key in goals)
    if name == "sp-qa+.m1":
        near = named(name).aims(subjects[source], torch.tensor(ROWS), SEED)["kept"]
        assert torch.equal(aims[0][1]["kept"], near), "an attacker keeps what their own model calls near"


def test_targets_of_lowering_attacks_are_on_the_judges_first_page(subjects: Subjects) -> None:
    clean = cross(subjects, Crossing(cell=cell(subjects, "sp-qa-.m1", 0.0), source=None), config())
    assert not clean.cost
    for target, subject in subjects.items():
        rows = [row for row in clean.rows if row["target"] == target]
        assert {row["source"] for row in rows} == {None}
        assert max(row["metrics"]["rank"] for row in rows) <= 100 * subject.page / len(subject.images)
        assert {(row["status"], row["cost"]["forwards"]) for row in rows} == {("scored", 0)}


def test_findings_are_of_other_models_and_true(subjects: Subjects) -> None:
    source = next(iter(subjects))
    output = cross(subjects, Crossing(cell=cell(subjects, "ca-.w1", findings=2), source=source), config())
    findings = [row for row in output.rows if row["row"] == "finding"]
    assert findings
    assert source not in {row["target"] for row in findings}
    for finding in findings:
        subject = subjects[finding["target"]]
        row = subject.images.ids.index(finding["sample"])
        saved = torch.from_numpy(decode(output.blobs[finding["adversarial"]], mode="L")).permute(2, 0, 1)
        aims = named("ca-.w1").aims(subject, torch.tensor([row]), SEED)
        again = named("ca-.w1").measure(subject, torch.tensor([row]), aims, subject.embedder.embed(saved[None], tile=4))
        assert again.goal.tolist() == [True]
        assert (saved.int() - subject.images.images[row].int()).abs().max() <= 51


def test_a_judge_that_breaks_down_costs_only_itself(subjects: Subjects, make_gallery) -> None:
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

    brittle = eb.Embedder(Brittle(), channels=1)
    both = {**subjects, brittle.fingerprint: Subject.of(brittle, make_gallery(), k=4, keep_own=True, preserve=3)}
    source = next(iter(subjects))
    alone, together = (
        cross(given, Crossing(cell=cell(subjects, "ca+.w1"), source=source), config()).rows for given in (subjects, both)
    )
    assert [row for row in together if row["target"] in subjects] == alone
    broken = [row for row in together if row["target"] == brittle.fingerprint]
    assert {row["status"] for row in broken} == {"non_finite"}
    assert {row["metrics"]["rank"] for row in broken} == {None}


@pytest.mark.parametrize("name", ["ca-.w1", "sp-qa-.m1", "sp-qa+.m1"])
def test_pictures_do_not_depend_on_their_shard(subjects: Subjects, name: str) -> None:
    whole = cell(subjects, name)
    source = list(subjects)[2]
    rows = cross(subjects, Crossing(cell=whole, source=source), config()).rows
    parts = [
        row
        for samples in (*((sample,) for sample in whole.samples[:4]), whole.samples[4:])
        for row in cross(subjects, Crossing(cell=replace(whole, samples=samples), source=source), config()).rows
    ]

    def sorted_rows(rows):
        # Which attack of its unit a picture was made by does depend on its company: equal ones are made once.
        told = [{key: value for key, value in row.items() if key != "attack"} for row in rows]
        return sorted(told, key=lambda row: (row["target"], row["sample"]))

    assert sorted_rows(parts) == sorted_rows(rows)

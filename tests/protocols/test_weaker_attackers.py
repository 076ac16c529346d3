"""Columns that cross models, and columns of universal perturbations, each recounted from the models a run has trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import embattle as eb
from embattle import data
from embattle.embedders import load_checkpoint
from embattle.protocols import Column, Model, Protocol, Scale, reproduce
from embattle.protocols.cells import attack_of
from embattle.records import LocalStore
from embattle.scenarios import Subject, named

EPS, GALLERY, ATTACKED = 0.2, 120, 5
COLUMNS = (
    Column(scenario="ca+.w1", rises=False, crafted_on="small", judged_on="c2f1"),
    Column(scenario="ca-.w1", rises=True, crafted_on="c2f1", judged_on="small"),
    Column(scenario="sp-qa+.m1", rises=False, crafted_on="small", judged_on="c2f1"),
    Column(scenario="i-ca+", rises=False, metric="seen_rank", label="i-ca+ seen"),
    Column(scenario="i-qa-", rises=True, label="i-qa- unseen"),
    Column(scenario="i-ca+", rises=False, label="i-ca+ unseen"),
)
Finished = tuple[Path, dict[str, Any], dict[str, Subject]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Run folder, result, and the trained systems by network."""
    protocol = Protocol(
        name="crossed", title="Weaker attackers on the digits", paper="none", data="digits",
        models={name: Model(network=name) for name in ("small", "c2f1")}, columns=COLUMNS, eps=(EPS,), differs=(),
        adaptive=False,
        published={("ca+.w1 small→c2f1", EPS): 50.0, ("i-ca+ seen", EPS): 50.0, ("i-ca+ unseen", 0.0): 50.0},
        scales={"cpu": Scale(attacked=ATTACKED, epochs=1, seeds=(3,), training_pictures=200, gallery=GALLERY, targets=2)},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("crossed")
    run, result = reproduce(protocol, "cpu", models=folder / "models", out=folder / "run")
    gallery = data.load("digits", split="test").some(GALLERY)
    subjects = {
        network: Subject.of(load_checkpoint(path), gallery, k=10, keep_own=True)
        for network in ("small", "c2f1")
        for path in (folder / "models").glob(f"*-{network}-*.safetensors")
    }
    return run.path, result, subjects


def rows_of(run: Path, column: str, role: str) -> list[dict[str, Any]]:
    store = LocalStore(run)
    rows = [row for unit in store.done() for row in store.rows(unit) if row["row"] == "sample"]
    return [row for row in rows if (row["column"], row["role"]) == (column, role)]


def cell(result: dict[str, Any], column: str, eps: float) -> dict[str, Any]:
    return next(each for each in result["cells"] if (each["column"], each["eps"]) == (column, eps))


def rank_in(subject: Subject, query: torch.Tensor, item: torch.Tensor) -> float:
    """As a percentage, counted in float64."""
    z, query, item = (each.double().numpy() for each in (subject.z, query, item))
    assert subject.similarity.name == "cosine"
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    own = query @ item / np.linalg.norm(query) / np.linalg.norm(item)
    return 100 * float(np.sum(unit @ query / np.linalg.norm(query) > own + 1e-9)) / len(z)


def test_a_model_for_every_network_is_trained_and_told(finished: Finished) -> None:
    run, result, subjects = finished
    assert set(subjects) == {"small", "c2f1"}
    assert [model["name"] for model in result["models"]] == ["small", "c2f1"]
    text = (run / "result.md").read_text(encoding="utf-8")
    assert "(c2f1, seed 3)" in text
    assert "paper" not in text.partition("Recall@1")[2].partition("\n")[0]
    assert result["network"] == "small, c2f1"


@pytest.mark.parametrize(("column", "source", "judge"), [(c.attack, c.crafted_on, c.judged_on) for c in COLUMNS[:3]])
def test_crossed_columns_are_crafted_on_one_model_and_ranked_by_the_other(
    finished: Finished, column: str, source: str, judge: str
) -> None:
    run, result, subjects = finished
    crafting, judging = subjects[source], subjects[judge]
    scenario = named(column.partition(" ")[0])
    rows = rows_of(run, column, "paper")
    samples = tuple(row["sample"] for row in rows)
    places = judging.images.positions(samples)
    aims, own = (scenario.aims(subject, places, 3) for subject in (judging, crafting))
    if scenario.name.endswith("+.m1"):
        # Candidates are everybody's; the neighbours that stay are the crafting model's.
        assert torch.equal(aims["candidates"], own["candidates"])
        assert not torch.equal(aims["kept"], own["kept"])
    from embattle.protocols.cells import without_criterion

    crafted = {**aims, "kept": own["kept"]} if scenario.name.endswith("+.m1") else aims
    objective = without_criterion(scenario.objective(crafting, places, crafted))
    x = judging.images.pixels(places)
    made = attack_of("paper", EPS)(crafting.embedder, x, objective, seed=3, ids=samples, tile=ATTACKED).x_adv
    z = judging.embedder.embed(made, tile=ATTACKED)
    for i, row in enumerate(rows):
        if scenario.name.startswith("ca"):
            wanted = rank_in(judging, judging.z[aims["queries"][i, 0]], z[i])
        else:
            wanted = rank_in(judging, z[i], judging.z[aims["candidates"][i, 0]])
        assert row["metrics"]["rank"] == pytest.approx(wanted, abs=100.1 / GALLERY)
    assert cell(result, column, EPS)["ours"]["value"] == pytest.approx(np.mean([row["metrics"]["rank"] for row in rows]))
    clean = rows_of(run, column, "clean")
    assert [row["sample"] for row in clean] == list(samples)


def test_two_columns_of_one_perturbation_are_measured_once(finished: Finished) -> None:
    run, result, _ = finished
    rows = rows_of(run, "i-ca+", "paper")
    assert [row["sample"] for row in rows] == ["0", "1"]
    for column, metric in (("i-ca+ seen", "seen_rank"), ("i-ca+ unseen", "rank")):
        found = cell(result, column, EPS)
        assert found["ours"]["n"] == 2
        assert found["ours"]["value"] == pytest.approx(np.mean([row["metrics"][metric] for row in rows]))
        assert found["eight_bit"]["value"] == pytest.approx(np.mean([row["eight_bit"][metric] for row in rows]))
    assert cell(result, "i-ca+ seen", EPS)["difference"] is not None
    assert cell(result, "i-ca+ unseen", 0.0)["difference"] is not None
    # 6 of 120 pictures are learnt from, in 100 steps.
    assert {row["forwards"] for row in rows} == {6 * 101}
    assert cell(result, "i-ca+ unseen", EPS)["cost"]["paper"]["seconds"] > 0


@pytest.mark.parametrize("name", ["i-ca+", "i-qa-"])
def test_a_perturbation_is_learnt_and_judged_as_in_the_paper(finished: Finished, name: str) -> None:
    run, _, subjects = finished
    subject, scenario = subjects["small"], named(name)
    for number, row in enumerate(rows_of(run, name, "paper")):
        draw = scenario.draw(subject, 3, number, 6, nearest=0.01)
        assert len(draw.learnt) == 6
        assert len(draw.seen) == len(draw.unseen) == (6 if name.endswith("+") else 1)
        aims = scenario.aims_at(draw.learnt, draw.target)
        result = eb.attacks.universal(budget=eb.Linf(EPS))(
            subject.embedder, subject.images.pixels(draw.learnt), scenario.objective(subject, draw.learnt, aims), seed=3,
            ids=[subject.images.ids[i] for i in draw.learnt.tolist()], tile=32,
        )  # fmt: skip
        for metric, rows in (("rank", draw.unseen), ("seen_rank", draw.seen)):
            z = subject.embedder.embed((subject.images.pixels(rows) + result.perturbation).clamp(0, 1), tile=32)
            target = subject.z[draw.target]
            found = [rank_in(subject, target, each) if "ca" in name else rank_in(subject, each, target) for each in z]
            assert row["metrics"][metric] == pytest.approx(np.mean(found), abs=100.1 / GALLERY)


def test_lowering_is_judged_on_the_pictures_nearest_to_the_target(finished: Finished) -> None:
    _, _, subjects = finished
    subject = subjects["small"]
    for number in range(10):
        draw = named("i-ca-").draw(subject, 3, number, 50, nearest=0.1)
        similarities = subject.similarity.cross(subject.z[draw.target][None], subject.z)[0]
        assert len(draw.seen) == len(draw.unseen) == 5
        rest = [i for i in draw.learnt.tolist() if i not in draw.seen.tolist()]
        assert similarities[draw.seen].min() >= similarities[rest].max()
        assert not set(draw.unseen.tolist()) & set(draw.learnt.tolist())

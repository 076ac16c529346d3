"""A whole transfer: what its hash depends on, that it goes on, what its record says."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import embattle as eb
from embattle.audit import TransferConfig, transfer
from embattle.errors import ConfigError, DataError, InputError, ModelError, RunMismatch
from embattle.records import LocalStore, build_transfer

BASE = {"scenarios": ("ca+.w1", "ca-.w1"), "eps": (0.1, 0.2), "steps": 2, "attacked": 6, "shard": 4, "tile": 4, "k": 4}
Run = Callable[..., tuple[Path, dict[str, Any]]]


def unit_files(folder: Path) -> dict[str, bytes]:
    files = (path for path in (folder / "units").rglob("*") if path.suffix in (".jsonl", ".png"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def samples(folder: Path) -> list[dict[str, Any]]:
    store = LocalStore(folder)
    plan = json.loads((folder / "config.json").read_text())["plan"]
    return [row for unit in plan for row in store.rows(unit) if row["row"] == "sample"]


@pytest.fixture
def models(make_model) -> dict[str, eb.Embedder]:
    return {"plain": make_model(), "other": make_model("euclidean")}


@pytest.fixture
def run(tmp_path: Path, make_gallery, models) -> Run:
    """Runs a transfer and gives its folder and record."""

    def run(
        name: str = "run", given: dict[str, eb.Embedder] | None = None, images: Any = None, progress: Any = None,
        **settings: object,
    ) -> tuple[Path, dict[str, Any]]:  # fmt: skip
        config = TransferConfig.parse({**BASE, **settings})
        made, record = transfer(config, images or make_gallery(), given or models, out=tmp_path / name, progress=progress)
        return made.path, record

    return run


def test_settings_are_an_audits_with_other_defaults() -> None:
    assert TransferConfig().scenarios == ("ca+.w1", "ca-.w1", "sp-qa+.m1", "sp-qa-.m1")
    assert TransferConfig().eps == (0.03, 0.1, 0.3)
    with pytest.raises(ConfigError, match="the transfer has no setting 'epsilon'; it has: attack, "):
        TransferConfig.parse({"epsilon": 0.1})
    with pytest.raises(ConfigError, match="the audit has no setting 'epsilon'"):
        eb.audit.AuditConfig.parse({"epsilon": 0.1})
    with pytest.raises(ConfigError, match="targets = 9 is for universal scenarios"):
        TransferConfig.parse({"targets": 9})


def test_the_record_is_the_mean_of_its_rows(run: Run) -> None:
    folder, record = run()
    rows = samples(folder)
    prints = {model["name"]: model["fingerprint"] for model in record["models"]}
    assert [model["name"] for model in record["models"]] == ["plain", "other"]
    assert [model["similarity"] for model in record["models"]] == ["cosine", "euclidean"]
    for threat in record["threats"]:
        assert [matrix["eps"] for matrix in threat["matrices"]] == [0.1, 0.2]
        for matrix in threat["matrices"]:
            pairs = [(cell["source"], cell["target"]) for cell in matrix["cells"]]
            assert pairs == [(a, b) for a in prints for b in prints]
            for cell in matrix["cells"]:
                assert cell["white_box"] == (cell["source"] == cell["target"])
                mine = [
                    row for row in rows
                    if (row["threat"], row["eps"], row["source"], row["target"])
                    == (threat["threat"], matrix["eps"], prints[cell["source"]], prints[cell["target"]])
                ]  # fmt: skip
                assert cell["figures"]["rank"]["n"] == len(mine) == 6
                assert cell["figures"]["rank"]["value"] == pytest.approx(np.mean([row["metrics"]["rank"] for row in mine]))
                told = [row["success"] for row in mine if row["success"] is not None]
                assert cell["figures"]["success"]["n"] == len(told)
                assert cell["figures"]["success"]["undefined"] == 6 - len(told)
                assert cell["cost"]["forwards"] == 3
                assert cell["cost"]["seconds"] > 0
        clean = {cell["target"]: cell["figures"]["rank"]["value"] for cell in threat["clean"]}
        for target, value in clean.items():
            mine = [
                row for row in rows if (row["threat"], row["eps"], row["target"]) == (threat["threat"], 0.0, prints[target])
            ]
            assert value == pytest.approx(np.mean([row["metrics"]["rank"] for row in mine]))
    assert record["complete"]
    assert record["schema"] == "embattle.transfer/1"


def test_an_attack_by_which_several_models_are_judged_is_paid_once(run: Run) -> None:
    _, shared = run("shared", scenarios=("ca+.w1",), shard=6)
    _, apart = run("apart", scenarios=("ca-.w1",), shard=6)
    # 6 pictures at 2 ε on 2 models; the lowering attack is made for each judge anew.
    assert shared["cost"]["attacks"] == 24
    assert apart["cost"]["attacks"] == 48
    assert shared["cost"]["forwards"] == 24 * 3
    assert apart["cost"]["backwards"] == 48 * 2
    assert shared["cost"]["seconds"] > 0


def test_names_and_order_of_models_cost_no_attack(run: Run, models) -> None:
    folder, first = run()
    before = unit_files(folder)
    renamed = {"b": models["other"], "a": models["plain"]}
    told: list[str] = []
    _, again = run(given=renamed, progress=lambda title, *rest: told.append(title))
    assert told == ["done"]
    assert unit_files(folder) == before
    assert [model["name"] for model in again["models"]] == ["b", "a"]
    renaming = {"plain": "a", "other": "b"}
    values = {
        (threat["threat"], matrix["eps"], cell["source"], cell["target"]): cell["figures"]
        for threat in again["threats"] for matrix in threat["matrices"] for cell in matrix["cells"]
    }  # fmt: skip
    for threat in first["threats"]:
        for matrix in threat["matrices"]:
            for cell in matrix["cells"]:
                place = (threat["threat"], matrix["eps"], renaming[cell["source"]], renaming[cell["target"]])
                assert values[place] == cell["figures"]


def test_a_killed_transfer_goes_on_and_its_units_are_byte_identical(run: Run) -> None:
    whole, _ = run("whole")

    class Killed(BaseException):
        pass

    def kill_at(share: float) -> Callable[..., None]:
        def progress(title: str, done: float, total: float, *rest: Any) -> None:
            if done >= share * total:
                raise Killed

        return progress

    for share in (0.0, 0.3, 0.6, 0.9):
        with pytest.raises(Killed):
            run("killed", progress=kill_at(share))
    folder = whole.with_name("killed")
    assert 0 < len(unit_files(folder)) < len(unit_files(whole))
    unfinished = build_transfer(folder)
    assert not unfinished["complete"]
    assert unfinished["units"]["done"] < unfinished["units"]["planned"]
    _, record = run("killed")
    assert record["complete"]
    assert unit_files(folder) == unit_files(whole)


def test_a_model_that_answers_otherwise_with_the_same_weights_is_refused(run: Run, models, make_model) -> None:
    """A hook is in no fingerprint: results of two models are never mixed in one matrix."""
    run("kept")
    run("kept", given={"plain": make_model(), "other": make_model("euclidean")})  # the same ones go on
    changed = make_model("euclidean")
    changed.module[1].register_forward_hook(lambda layer, given, out: out * 3)
    with pytest.raises(RunMismatch, match="answers otherwise"):
        run("kept", given={"plain": make_model(), "other": changed})


def test_what_changes_a_number_changes_the_hash(run: Run, models, make_gallery) -> None:
    run()
    changed = copy.deepcopy(models["other"])
    with torch.no_grad():
        next(changed.module.parameters())[0, 0] += 1e-3
    third = {**models, "third": changed}
    changes: list[dict[str, Any]] = [
        {"seed": 1}, {"eps": (0.1,)}, {"steps": 3}, {"attacked": 5}, {"k": 5}, {"own": "replaced"}, {"findings": 0},
        {"given": third}, {"given": {"plain": models["plain"], "other": changed}},
        {"images": make_gallery().take(range(39))},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(RunMismatch, match="another configuration"):
            run(**change)
    run()


def test_the_record_is_built_again_without_torch(run: Run) -> None:
    folder, record = run()
    code = (
        "import sys, json, pathlib; from embattle.records import build_transfer; "
        "from embattle.report import write_transfer; run = pathlib.Path(sys.argv[1]); record = build_transfer(run); "
        "write_transfer(run, record); assert 'torch' not in sys.modules; print(json.dumps(record))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == record
    assert json.loads((folder / "summary.json").read_text()) == record
    assert "crafted on" in (folder / "report.html").read_text(encoding="utf-8")
    assert "| crafted on | plain | other |" in (folder / "result.md").read_text(encoding="utf-8")


def test_what_cannot_be_crossed_leaves_nothing_behind(run: Run, models, make_model, make_gallery, tmp_path: Path) -> None:
    colour = eb.Embedder(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(75, 6)), channels=3)
    mute = copy.deepcopy(models["other"])
    mute.access = "embedding"  # type: ignore[misc]
    silent = {name: copy.deepcopy(model) for name, model in models.items()}
    for model in silent.values():
        model.access = "embedding"  # type: ignore[misc]
    broken = make_model()
    with torch.no_grad():
        next(broken.module.parameters()).fill_(torch.nan)
    unlabelled = make_gallery(labelled=False)
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ConfigError, "at least two models, not 1", {"given": {"plain": models["plain"]}}),
        (ConfigError, "plain and twin are the same model", {"given": {**models, "twin": make_model()}}),
        (ModelError, "colour takes pictures of 3 channel", {"given": {**models, "colour": colour}}),
        (ModelError, "none of plain, other gives gradients", {"given": silent}),
        (ModelError, "NaN", {"given": {**models, "broken": broken}}),
        (ConfigError, "k = 40", {"k": 40}),
        (ConfigError, "ca-.w5 needs 5 targets", {"scenarios": ("ca-.w5",)}),
        (DataError, "no labels", {"images": unlabelled, "scenarios": ("class",)}),
        (DataError, "at least 4", {"images": make_gallery(count=3), "k": 1}),
    ]
    for kind, words, settings in cases:
        with pytest.raises(kind, match=words):
            run(**settings)
        assert list(tmp_path.iterdir()) == []
    _, record = run(
        "mute", given={"plain": models["plain"], "mute": mute}, scenarios=("ca+.w1", "class"), images=unlabelled
    )
    assert [row["scenario"] for row in record["skipped"]] == ["class"]
    (threat,) = record["threats"]
    assert {cell["source"] for matrix in threat["matrices"] for cell in matrix["cells"]} == {"plain"}
    assert {cell["target"] for matrix in threat["matrices"] for cell in matrix["cells"]} == {"plain", "mute"}


def test_a_damaged_transfer_is_told(run: Run) -> None:
    folder, _ = run()
    (folder / "models.json").unlink()
    with pytest.raises(InputError, match=r"models\.json does not exist"):
        build_transfer(folder)

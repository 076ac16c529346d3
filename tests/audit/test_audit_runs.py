"""A whole audit: what its configuration's hash depends on, what its folder holds, what its summary says."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import embattle as eb
from embattle.audit import SCENARIOS, AuditConfig, Trained, audit
from embattle.audit import run as run_module
from embattle.data import ImageSet
from embattle.errors import ConfigError, DataError, ModelError, RunMismatch
from embattle.records import LocalStore
from embattle.scenarios.scenario import named
from embattle.training import TrainConfig

BASE = {"scenarios": ("ca+.w1", "shift"), "eps": (0.1, 0.2), "steps": 3, "attacked": 10, "shard": 4, "tile": 4, "k": 4}


def config(**settings: object) -> AuditConfig:
    return AuditConfig.parse({**BASE, **settings})


def units(folder: Path) -> dict[str, bytes]:
    files = (path for path in (folder / "units").rglob("*") if path.suffix in (".jsonl", ".png"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def samples(folder: Path) -> list[dict[str, Any]]:
    store = LocalStore(folder)
    plan = json.loads((folder / "config.json").read_text())["plan"]
    return [row for unit in plan for row in store.rows(unit) if row["row"] == "sample"]


@pytest.fixture
def run(tmp_path: Path, make_gallery, make_model) -> Callable[..., Path]:
    """Runs an audit and gives its folder."""

    def run(
        name: str = "run", images: ImageSet | None = None, model: eb.Embedder | Trained | None = None, **settings: object
    ) -> Path:
        made, _ = audit(config(**settings), images or make_gallery(), model or make_model(), out=tmp_path / name)
        return made.path

    return run


# --- settings -------------------------------------------------------------------------------------------------------


def test_settings_have_one_form() -> None:
    assert config(scenarios=["shift", "ca+"], eps=[0.2, 0.1, 0.2]) == config()
    assert AuditConfig(scenarios=tuple(reversed(AuditConfig().scenarios))) == AuditConfig()
    assert {named(name).name for name in AuditConfig().scenarios} == set(AuditConfig().scenarios)
    assert {name.partition(".")[0] for name in AuditConfig().scenarios} <= {entry.name for entry in SCENARIOS}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epsilon": 0.1}, "no setting 'epsilon'; it has: attack, "),
        ({"eps": ()}, "no ε"),
        ({"eps": (0.1, -0.1)}, "ε = -0.1"),
        ({"eps": (float("nan"),)}, "ε = nan"),
        ({"eps": (8,)}, "n/255"),
        ({"attacked": 0}, "attacked"),
        ({"attacked": 1.5}, "attacked"),
        ({"tile": 0}, "tile"),
        ({"shard": -1}, "shard"),
        ({"seed": -1}, "seed"),
        ({"xi": float("inf")}, "xi"),
        ({"own": "gone"}, "'kept' or 'replaced'"),
        ({"attack": "none"}, "no attack is called 'none'"),
        ({"scenarios": ("ca*",)}, "'ca\\*' is not understood"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config(**settings)


# --- the hash -------------------------------------------------------------------------------------------------------


def test_what_changes_no_number_changes_no_hash(
    run, tmp_path: Path, make_gallery, make_model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Current folder, run folder, the name of the model and the order of the scenarios."""
    first = run("first")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    second = run("elsewhere/second", scenarios=("shift", "ca+"))
    assert (first / "config.json").read_bytes() == (second / "config.json").read_bytes()
    assert sorted(units(first)) == sorted(units(second))


def test_threads_change_last_digits_and_therefore_the_hash(run) -> None:
    first = run("first")
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        second = run("second")
    finally:
        torch.set_num_threads(threads)
    hashes = [json.loads((folder / "config.json").read_text())["hash"] for folder in (first, second)]
    assert hashes[0] != hashes[1]


def test_a_folder_of_pictures_may_move(tmp_path: Path, make_model, run) -> None:
    from PIL import Image

    for index in range(20):
        pixels = torch.randint(0, 255, (5, 5), dtype=torch.uint8).numpy()
        (tmp_path / "here").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "here" / f"{index:02d}.png")
    (tmp_path / "there").mkdir()
    shutil.copytree(tmp_path / "here", tmp_path / "there" / "here")
    runs = [run(f"run{i}", images=eb.data.load(tmp_path / at)) for i, at in enumerate(("here", "there/here"))]
    assert (runs[0] / "config.json").read_bytes() == (runs[1] / "config.json").read_bytes()
    assert units(runs[0]) == units(runs[1])
    for file in runs[0].rglob("*.json*"):
        if file.name not in ("env.json", "summary.json"):
            assert str(tmp_path) not in file.read_text(), f"{file.name} holds a path of this machine"


def test_what_changes_a_number_changes_the_hash(run) -> None:
    changes: list[dict[str, Any]] = [
        {"seed": 1}, {"eps": (0.1,)}, {"steps": 4}, {"attacked": 9}, {"k": 5}, {"own": "replaced"}, {"tile": 8},
        {"attack": "pgd"}, {"findings": 1}, {"preserve": 4}, {"xi": 2.0}, {"scenarios": ("shift",)},
        {"precision": "bfloat16"},
    ]  # fmt: skip
    run()
    for change in changes:
        with pytest.raises(RunMismatch, match="another configuration"):
            run(**change)
    run()


def test_another_model_or_gallery_is_another_run(run, make_gallery, make_model) -> None:
    run()
    images = make_gallery()
    for other in ({"images": images.take(range(39))}, {"images": make_gallery(labelled=False)}):
        with pytest.raises(RunMismatch):
            run(**other)
    model = make_model()
    with torch.no_grad():
        next(model.module.parameters())[0, 0] += 1e-3
    for other in (model, make_model("euclidean")):
        with pytest.raises(RunMismatch):
            run(model=other)


def test_a_trained_model_is_named_by_how_it_is_trained(run, make_gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "execute", lambda *_: None)
    monkeypatch.setattr(run_module, "build_summary", lambda _: {})
    images = make_gallery()
    base = {"network": "lenet", "epochs": 2, "batch_size": 20, "threads": 1}
    hashes = set()
    for number, change in enumerate([{}, {"threads": 2}, {"epochs": 3}, {"seed": 1}, {"lr": 2e-3}]):
        folder = run(f"run{number}", model=Trained(config=TrainConfig.parse({**base, **change}), pictures=images))
        hashes.add(json.loads((folder / "config.json").read_text())["hash"])
    other = run("other", model=Trained(config=TrainConfig.parse(base), pictures=images.take(range(30))))
    hashes.add(json.loads((other / "config.json").read_text())["hash"])
    assert len(hashes) == 6


# --- results --------------------------------------------------------------------------------------------------------


def test_shards_and_tiles_of_work_change_no_figure(run) -> None:
    """Shards are another configuration, whose rows and figures are the same."""
    folders = [run(f"shard{shard}", shard=shard, findings=0) for shard in (1, 4, 64)]
    assert samples(folders[0]) == samples(folders[1]) == samples(folders[2])
    summaries = [eb.records.load_summary(folder)["threats"] for folder in folders]
    for threats in summaries[1:]:
        for one, other in zip(summaries[0], threats, strict=True):
            for here, there in zip(one["curve"], other["curve"], strict=True):
                assert here["figures"] == there["figures"]


def test_twice_is_byte_identical(run) -> None:
    assert units(run("one")) == units(run("two"))


def test_the_plan_is_what_is_done(run) -> None:
    folder = run()
    store = LocalStore(folder)
    plan = json.loads((folder / "config.json").read_text())["plan"]
    assert len(plan) == len(set(plan)) == 1 + 2 * 3 * 3  # describe, then scenarios x (clean and two ε) x shards
    assert store.done() == set(plan)
    summary = eb.records.load_summary(folder)
    assert summary["complete"] is True
    assert summary["units"] == {"planned": 19, "done": 19, "quarantined": 0}
    cells = {(row["threat"], row["eps"], row["sample"]) for row in samples(folder)}
    attacked = {sample for _, _, sample in cells}
    assert len(attacked) == 10
    assert cells == {(name, eps, sample) for name in ("ca+.w1", "shift") for eps in (0.0, 0.1, 0.2) for sample in attacked}


def test_the_summary_counts_what_the_rows_say(run) -> None:
    folder = run()
    rows = samples(folder)
    for threat in eb.records.load_summary(folder)["threats"]:
        assert [point["eps"] for point in threat["curve"]] == [0.0, 0.1, 0.2]
        for point in threat["curve"]:
            mine = [row for row in rows if row["threat"] == threat["threat"] and row["eps"] == point["eps"]]
            told = [row["success"] for row in mine if row["success"] is not None]
            success = point["figures"]["success"]
            assert (success["n"], success["undefined"]) == (len(told), 10 - len(told))
            assert success["value"] == (pytest.approx(sum(told) / len(told)) if told else None)
            for name in threat["metrics"]:
                mean = sum(row["metrics"][name] for row in mine) / 10
                assert point["figures"][name]["value"] == pytest.approx(mean)


def test_the_subject_is_told(run, make_model, make_gallery) -> None:
    summary = eb.records.load_summary(run())
    subject = summary["subject"]
    assert subject["fingerprint"] == make_model().fingerprint
    assert (subject["gallery"], subject["dimension"], subject["classes"], subject["page"]) == (40, 6, 4, 4)
    assert set(summary["clean"]) == {"recall@1", "recall@4", "map@r"}
    z = make_model().embed(make_gallery().images).double()
    lengths, apart = (rows.square().sum(1).mean().sqrt() for rows in (z, z - z.mean(0)))
    assert subject["spread"] == pytest.approx(float(apart / lengths))
    z = z / z.norm(dim=1, keepdim=True)
    near = (z @ z.T).fill_diagonal_(-2).argmax(1)
    labels = make_gallery().labels
    assert summary["clean"]["recall@1"]["value"] == pytest.approx(float((labels[near] == labels).double().mean()))


def test_the_owner_is_told_of_budgets_that_cannot_change_a_picture(run) -> None:
    notes = eb.records.load_summary(run(eps=(0.001, 0.1)))["notes"]
    assert any("0.001" in note and "less than one grey level" in note for note in notes)


def test_without_labels_what_needs_them_is_skipped(run, make_gallery) -> None:
    summary = eb.records.load_summary(run(images=make_gallery(labelled=False), scenarios=("class", "shift")))
    assert [threat["threat"] for threat in summary["threats"]] == ["shift"]
    assert [row["scenario"] for row in summary["skipped"]] == ["class", "clean recall@1 and mAP@R"]
    assert summary["clean"] == {}


def test_without_a_second_class_what_needs_it_is_skipped(run, make_gallery) -> None:
    from dataclasses import replace

    images = make_gallery()
    one = replace(images, labels=images.labels * 0)
    summary = eb.records.load_summary(run(images=one, scenarios=("class", "ltm", "gtm")))
    assert [threat["threat"] for threat in summary["threats"]] == ["class"]
    assert [row["scenario"] for row in summary["skipped"]] == ["gtm", "ltm"]
    assert all("of one class" in row["reason"] for row in summary["skipped"])


def test_who_is_alone_in_a_class_is_counted_and_not_averaged_in(run, make_gallery) -> None:
    from dataclasses import replace

    images = make_gallery()
    labels = torch.cat([torch.arange(20), images.labels[20:] + 20])
    lonely = replace(images, labels=labels, classes=None)
    folder = run(images=lonely, scenarios=("ltm",), attacked=40, eps=(0.1,))
    for point in eb.records.load_summary(folder)["threats"][0]["curve"]:
        recall = point["figures"]["recall@1"]
        assert (recall["n"], recall["undefined"]) == (20, 20)


def test_what_cannot_be_audited_leaves_no_folder(run, tmp_path: Path, make_gallery, make_model) -> None:
    unlabelled = make_gallery(labelled=False)
    trained = Trained(config=TrainConfig.parse({"network": "small", "epochs": 1, "threads": 1}), pictures=make_gallery())
    broken = make_model()
    with torch.no_grad():
        next(broken.module.parameters()).fill_(torch.nan)
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ConfigError, "k = 40", {"k": 40}),
        (ConfigError, "k = 40", {"k": 40, "model": trained}),
        (ConfigError, "ca-.w5 needs 5 targets", {"scenarios": ("ca-.w5",), "model": trained}),
        (DataError, "at least 4", {"images": make_gallery(count=3), "k": 1}),
        (DataError, "no labels", {"images": unlabelled, "scenarios": ("class",)}),
        (ModelError, "NaN", {"model": broken}),
        (ConfigError, "has no setting 'rule'", {"rule": "ranking"}),
    ]
    for kind, words, settings in cases:
        with pytest.raises(kind, match=words):
            run(**settings)
        assert list(tmp_path.iterdir()) == []


def test_the_caller_is_left_as_it_was(run, make_model) -> None:
    model = make_model()
    model.module.train()
    torch.manual_seed(123)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    run(model=model)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert model.module.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.module.parameters())


def test_what_an_attack_consists_of_is_part_of_the_hash(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe that changes under its name must not go on with the units of the old one."""
    from embattle.attacks.updates.adaptive import Adaptive

    before = json.loads((run("old") / "config.json").read_text())
    build = run_module.build_attack

    def published(settings: AuditConfig, eps: float) -> Any:
        return dataclasses.replace(build(settings, eps), update=Adaptive(first=2.0))

    monkeypatch.setattr(run_module, "build_attack", published)
    after = json.loads((run("new") / "config.json").read_text())
    assert before["hash"] != after["hash"]
    assert not set(before["plan"]) & set(after["plan"])


def test_a_model_that_answers_otherwise_with_the_same_weights_is_refused(run, make_model) -> None:
    """Neither a plain attribute nor a hook is in a fingerprint."""
    scaled = make_model()
    run("kept", model=scaled)
    run("kept", model=make_model())  # the same one goes on
    changed = make_model()
    changed.module[1].register_forward_hook(lambda layer, given, out: out * 3)
    with pytest.raises(RunMismatch, match="answers otherwise"):
        run("kept", model=changed)

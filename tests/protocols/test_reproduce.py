"""A whole reproduction: killed and continued, measured against numpy, judged, written in three forms."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from embattle import data
from embattle.cli.app import run as main
from embattle.embedders import load_checkpoint
from embattle.errors import ConfigError, RunMismatch
from embattle.protocols import PROTOCOLS, Protocol, Scale, execution, reproduce
from embattle.protocols.cells import Cell, attack_of, measure_cell
from embattle.protocols.study import Study
from embattle.records import LocalStore
from embattle.report import reproduction_table
from embattle.scenarios import Subject

from .conftest import COLUMNS, EPS

Finished = tuple[Path, dict[str, Any]]


def rows_of(run: Path, role: str, column: str = "ca+.w1") -> list[dict[str, Any]]:
    store = LocalStore(run)
    rows = [row for unit in sorted(store.done()) for row in store.rows(unit) if row["row"] == "sample"]
    return [row for row in rows if (row["role"], row["column"]) == (role, column)]


def cell(result: dict[str, Any], column: str, eps: float) -> dict[str, Any]:
    return next(each for each in result["cells"] if (each["column"], each["eps"]) == (column, eps))


def unit_files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "units").glob("*.jsonl")}


def test_a_killed_reproduction_goes_on_and_its_units_are_byte_identical(
    tiny: Protocol, models: Path, finished: Finished, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def kill_at(share: float) -> Callable[..., None]:
        def progress(title: str, done: float, total: float, *rest: Any) -> None:
            if done >= share * total:
                raise Killed

        return progress

    for share in (0.2, 0.5, 0.8):
        with pytest.raises(Killed):
            reproduce(tiny, "cpu", models=models, out=tmp_path / "run", progress=kill_at(share))
    assert 0 < len(unit_files(tmp_path / "run")) < len(unit_files(finished[0]))
    reproduce(tiny, "cpu", models=models, out=tmp_path / "run")
    assert unit_files(tmp_path / "run") == unit_files(finished[0])


def test_a_training_that_was_stopped_says_where_it_goes_on(tiny_as: Callable[..., Protocol], tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    longer = tiny_as(scales={"cpu": Scale(attacked=2, epochs=3, seeds=(0,), training_pictures=60, gallery=20)})
    said: list[str] = []
    told: list[float] = []

    def progress(title: str, done: float, total: float, *rest: Any) -> None:
        told.append(done)
        if len(told) == 3:  # the beginning, the first epoch, the second
            raise Killed

    for expected in ([], ["seed 0: training: going on after epoch 1 of 3"]):
        told.clear()
        said.clear()
        with pytest.raises(Killed):
            reproduce(longer, "cpu", models=tmp_path, out=tmp_path / "run", progress=progress, tell=said.append)
        assert said == expected
        assert told[1] == pytest.approx(told[2] / 2)  # where it goes on is as far as the first start came


def test_the_result_is_the_mean_of_its_rows(finished: Finished) -> None:
    run, result = finished
    found = cell(result, "ca+.w1", EPS)
    rows = rows_of(run, "paper")
    by_seed = {seed: np.mean([row["metrics"]["rank"] for row in rows if row["seed"] == seed]) for seed in (0, 1)}
    assert found["ours"]["n"] == len(rows) == 12
    assert found["ours"]["value"] == pytest.approx(np.mean([row["metrics"]["rank"] for row in rows]))
    assert found["by_seed"] == {str(seed): pytest.approx(value) for seed, value in by_seed.items()}
    assert found["seed_deviation"] == pytest.approx(np.std(list(by_seed.values()), ddof=1))
    assert found["difference"] == pytest.approx(found["ours"]["value"] - 100.0)
    adaptive = {(row["seed"], row["sample"]): row["loss"] for row in rows_of(run, "adaptive")}
    gains = [adaptive[row["seed"], row["sample"]] - row["loss"] for row in rows]
    assert found["gain"]["loss"]["value"] == pytest.approx(np.mean(gains))
    assert found["gain"]["at_least"] == pytest.approx(np.mean(np.array(gains) >= 0))
    assert result["complete"]
    assert [model["seed"] for model in result["models"]] == [0, 1]


def test_the_paper_weaker_than_ours_is_stronger_and_the_other_way_round(finished: Finished) -> None:
    result = finished[1]
    assert cell(result, "ca+.w1", EPS)["verdict"] == "stronger"  # the paper's rank of 100 % is easily fallen below
    assert cell(result, "sp-qa-.m2", EPS)["verdict"] == "weaker"  # and one of 100 % is never reached
    assert cell(result, "sp-qa-.m2", 0.0)["verdict"] is None  # nothing was published
    assert cell(result, "ca+.w1", 0.0)["verdict"] is None  # nobody attacked
    assert cell(result, "ca+.w1", 0.0)["difference"] is not None
    assert result["verdicts"]["weaker"] == 1


def test_ranks_are_those_of_the_float_pictures(tiny: Protocol, models: Path, finished: Finished) -> None:
    """Recounted in numpy from the pictures of the same attack."""
    pictures = data.load("digits", split="test")
    names = sorted({row["sample"] for row in rows_of(finished[0], "paper") if row["seed"] == 0})
    embedder = load_checkpoint(next(models.glob("*seed0.safetensors")))
    # The gallery is the protocol's own draw of 80 pictures: the attacked ones are in it.
    gallery = pictures.some(80)
    subject = Subject.of(embedder, gallery, k=10, keep_own=True)
    samples = tuple(name for name in gallery.ids if name in names)
    attacked = Cell(column=COLUMNS[0], eps=EPS, role="paper", seed=0, samples=samples)
    rows = {row["sample"]: row for row in measure_cell(subject, attacked).rows}
    assert rows == {row["sample"]: row for row in rows_of(finished[0], "paper") if row["seed"] == 0}

    from embattle.attacks.objectives import CandidateRank

    places = gallery.positions(samples)
    queries = subject.random_others(places, 1, seed=0, stream="ca+.w1")
    objective = CandidateRank(queries=subject.z[queries], gallery=subject.z, direction="raise")
    x = gallery.pixels(places)
    x_adv = attack_of("paper", EPS)(embedder, x, objective, seed=0, ids=samples, tile=6).x_adv
    z, all_z = embedder.embed(x_adv, tile=6).double().numpy(), subject.z.double().numpy()
    unit = all_z / np.linalg.norm(all_z, axis=1, keepdims=True)
    for i, name in enumerate(samples):
        query = unit[queries[i, 0]]
        own = query @ (z[i] / np.linalg.norm(z[i]))
        assert rows[name]["metrics"]["rank"] == pytest.approx(100 * np.sum(unit @ query > own + 1e-9) / 80, abs=100.1 / 80)
    assert float((x_adv - x).abs().max()) <= EPS + 1e-6


def test_both_attacks_cost_the_same_and_follow_the_papers_steps(finished: Finished) -> None:
    assert [attack_of("paper", eps).steps for eps in (0.01, 0.03, 0.1, 0.3)] == [10, 15, 20, 30]
    for role in ("paper", "adaptive"):
        assert {row["forwards"] for row in rows_of(finished[0], role)} == {21}
    cost = cell(finished[1], "ca+.w1", EPS)["cost"]
    assert [cost[role]["forwards"] for role in ("paper", "adaptive")] == [21, 21]
    assert all(cost[role]["seconds"] > 0 for role in cost)


def test_the_adaptive_attack_and_the_papers_share_pictures_and_targets(finished: Finished) -> None:
    samples = {role: [(row["seed"], row["sample"]) for row in rows_of(finished[0], role)] for role in ("clean", "paper")}
    assert sorted(samples["clean"]) == sorted(samples["paper"])
    seeds = {seed: {sample for s, sample in samples["clean"] if s == seed} for seed in (0, 1)}
    assert seeds[0] != seeds[1]


def test_what_is_saved_and_what_could_be_reached_stand_beside_it(finished: Finished) -> None:
    run, result = finished
    found = cell(result, "sp-qa-.m2", EPS)
    rows = rows_of(run, "paper", "sp-qa-.m2")
    assert found["eight_bit"]["value"] == pytest.approx(np.mean([row["eight_bit"]["rank"] for row in rows]))
    assert any(row["eight_bit"]["rank"] != row["metrics"]["rank"] for row in rows)
    free = [row["metrics"]["rank"] for row in rows_of(run, "free", "sp-qa-.m2")]
    assert found["attainable"]["value"] == pytest.approx(np.mean(free))
    assert np.mean(free) > found["ours"]["value"]
    assert cell(result, "ca+.w1", EPS)["attainable"] is None  # one query: rank 0, and nothing to work out


def test_a_report_is_built_again_from_the_folder(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished[0], tmp_path / "run")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in ("result.json", "result.md", "result.csv")}
    for name in before:
        (tmp_path / "run" / name).unlink()
    assert main(["report", str(tmp_path / "run")]) == 1  # its weaker figure
    assert {name: (tmp_path / "run" / name).read_bytes() for name in before} == before
    assert main(["report", str(tmp_path / "run"), "--gate", "recall@1 > 0"]) == 2


def test_a_smoke_test_judges_nothing(tiny: Protocol, models: Path, finished: Finished, tmp_path: Path) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    said: list[str] = []
    run, result = reproduce(tiny, "smoke", seeds=(0,), attacked=1000, models=models, out=tmp_path / "run", tell=said.append)
    assert {each["verdict"] for each in result["cells"]} == {None}
    text = (run.path / "result.md").read_text()
    assert "smoke test" in text
    assert "weaker |" not in text
    assert "80 attacked pictures for each in a gallery of 80" in text  # no more than there are
    note = "attacked = 1,000 is more than the 80 pictures searched: all of them are."
    assert said == result["notes"] == [note]
    assert f"- {note}" in text
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_the_terminals_table_is_explained_below_it_in_80_columns(finished: Finished) -> None:
    stream = io.StringIO()
    Console(file=stream, width=80).print(reproduction_table(finished[1]))
    lines = stream.getvalue().rstrip().splitlines()
    assert max(map(len, lines)) <= 80
    last = max(number for number, line in enumerate(lines) if line.strip().startswith("sp-qa-.m2"))
    legend = " ".join(line.strip() for line in lines[last + 1 :])
    for words in ("95 %: of ours, over pictures", "same within tol.", "stronger or weaker as an attack", "– not judged",
                  "adaptive: Auto-PGD, equally many forwards"):  # fmt: skip
        assert words in legend


def test_an_unfinished_reproduction_is_shown_as_one(finished: Finished, tmp_path: Path, capfd: Any) -> None:
    shutil.copytree(finished[0], tmp_path / "run")
    plan = json.loads((tmp_path / "run" / "config.json").read_text())["plan"]
    (tmp_path / "run" / "units" / f"{plan[-1][:16]}.jsonl").unlink()
    assert main(["report", str(tmp_path / "run")]) == 0
    told = f"unfinished: {len(plan) - 1} of {len(plan)} units; the same reproduce command goes on"
    assert told in capfd.readouterr().out


def test_files_say_the_same(finished: Finished) -> None:
    run, result = finished
    assert result["notes"] == []
    assert json.loads((run / "result.json").read_text()) == json.loads(json.dumps(result))
    with (run / "result.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["column"], float(line["eps"])) for line in lines] == [(c["column"], c["eps"]) for c in result["cells"]]
    for line, found in zip(lines, result["cells"], strict=True):
        assert float(line["ours"]) == pytest.approx(found["ours"]["value"])
        assert line["verdict"] == (found["verdict"] or "")
    text = (run / "result.md").read_text()
    assert text.count("\n| ca+.w1 |") == 2
    assert "1 stronger, 1 weaker" in text
    assert result["environment"]["cpu"] in text


def test_models_are_shared_and_a_foreign_one_is_refused(
    tiny: Protocol, models: Path, finished: Finished, tmp_path: Path
) -> None:
    shutil.copytree(finished[0], tmp_path / "run")
    shutil.copytree(models, tmp_path / "models")
    first, second = sorted((tmp_path / "models").glob("*.safetensors"))
    (tmp_path / "run" / "result.json").unlink()
    for file in (tmp_path / "run" / "units").glob("*.jsonl"):
        header = json.loads(file.read_text().splitlines()[0])
        if header["unit"]["kind"] == "attack" and header["unit"]["params"]["seed"] == 0:
            file.unlink()
            break
    second.replace(first)
    with pytest.raises(RunMismatch, match="is not the model"):
        reproduce(tiny, "cpu", models=tmp_path / "models", out=tmp_path / "run")


def test_other_settings_are_another_run(tiny: Protocol, models: Path, finished: Finished) -> None:
    with pytest.raises(RunMismatch):
        reproduce(tiny, "cpu", attacked=5, models=models, out=finished[0])


def test_a_device_is_part_of_a_run_and_its_models_are_its_own(
    tiny: Protocol, models: Path, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = reproduce(tiny, "cpu", models=models, out=finished[0], device="cpu")
    assert run.found == run.planned  # naming the processor changes nothing

    class Planned(Exception):
        pass

    def opened(name: str, config: dict[str, Any], plan: Any, **rest: Any) -> None:
        training = [unit.params["train"]["device"] for unit in plan if unit.kind == "train"]
        raise Planned(rest["device"], config["numerics"]["device"], training)

    # No accelerator is needed to see what would be run on one.
    monkeypatch.setattr(execution, "open_run", opened)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "card")
    with pytest.raises(Planned) as caught:
        reproduce(tiny, "cpu", models=models, out=tmp_path / "run", device="cuda:1")
    assert caught.value.args == ("cuda (card)", "cuda (card)", ["cuda (card)"] * 2)
    parts = {
        "protocol": tiny,
        "scale": tiny.scales["cpu"],
        "pictures": data.load("digits"),
        "models": tmp_path,
        "folder": None,
    }
    names = {
        place: Study(**parts, gallery=parts["pictures"], device=torch.device(place)).checkpoint("small", 0)
        for place in ("cpu", "cuda:0")
    }  # fmt: skip
    assert names["cuda:0"].name.replace("-cuda0-", "-") == names["cpu"].name != names["cuda:0"].name


def test_the_command_says_on_stderr_what_it_does_otherwise_and_what_was_there(
    tiny: Protocol, models: Path, finished: Finished, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROTOCOLS._entries, "tiny", replace(PROTOCOLS["ranking-table-1"], build=lambda: tiny))
    where = ["--models", str(models), "--out", str(finished[0])]
    assert main(["reproduce", "tiny", *where]) == 1  # its weaker figure
    assert f"finished before: all {finished[1]['units']['planned']} units were there" in capfd.readouterr().err
    assert main(["reproduce", "tiny", "-n", "99", *where]) == 2  # another run's folder
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "attacked = 99 is more than the 80 pictures searched: all of them are."
    assert "scale.attacked is 6 there and 80 here" in lines[1]


def test_sigterm_leaves_a_report_and_names_the_folder(
    tiny: Protocol, models: Path, finished: Finished, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def terminate(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(execution, "measure_cell", terminate)
    monkeypatch.setitem(PROTOCOLS._entries, "tiny", replace(PROTOCOLS["ranking-table-1"], build=lambda: tiny))
    out = tmp_path / "run"
    assert main(["reproduce", "tiny", "--models", str(models), "--out", str(out)]) == 143
    told = capfd.readouterr().err.strip()
    assert told.endswith(f"the same command goes on. Folder: {out}, with a report of what is done")
    assert f"**Unfinished: 1 of {finished[1]['units']['planned']} units.**" in (out / "result.md").read_text()


def test_a_device_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "ranking-table-1", "--scale", "smoke", "--device", "cuda:77"]) == 2
    assert "--device 'cuda:77' cannot be used" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_unknown_scales_and_empty_ones_are_refused(tiny: Protocol) -> None:
    with pytest.raises(ConfigError, match="write one of smoke, cpu"):
        tiny.at("laptop")
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        tiny.at("cpu", attacked=0)
    with pytest.raises(ConfigError, match="different whole numbers"):
        tiny.at("cpu", seeds=(1, 1))
    with pytest.raises(ConfigError, match="different whole numbers"):
        tiny.at("cpu", seeds=())


def test_a_cell_says_whether_it_tells_anything(tiny_as: Callable[..., Protocol], finished: Finished) -> None:
    """A paper's figure within the tolerance of the untouched system is met without any attack."""
    result = finished[1]
    assert cell(result, "ca+.w1", EPS)["telling"]  # a published rank of 100 % is far from the clean one
    assert cell(result, "sp-qa-.m2", 0.0)["telling"] is None  # nothing was published
    assert result["untelling"] == 0


def test_units_name_their_attack_and_not_which_card_computes_them(tiny: Protocol, models: Path, tmp_path: Path) -> None:
    reproduce(tiny, "smoke", models=models, out=tmp_path / "one", attacked=2, seeds=(0,))
    ids = {path.name for path in (tmp_path / "one" / "units").glob("*.jsonl")}
    reproduce(tiny, "smoke", models=models, out=tmp_path / "two", attacked=2, seeds=(0,), device="cpu:0")
    assert {path.name for path in (tmp_path / "two" / "units").glob("*.jsonl")} == ids
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "attack_names", lambda eps, columns, steps: dict.fromkeys(attack_keys(eps), "another"))
        reproduce(tiny, "smoke", models=models, out=tmp_path / "three", attacked=2, seeds=(0,))
    other = {path.name for path in (tmp_path / "three" / "units").glob("*.jsonl")}
    assert other & ids  # training and the clean system
    assert len(other - ids) >= 4  # and every attack


def attack_keys(eps) -> list[str]:
    return ["free", *(f"{role} {each:g}" for role in ("paper", "adaptive") for each in eps)]


def test_names_from_a_run_folder_are_text_and_no_markup(finished: Finished) -> None:
    result = json.loads(json.dumps(finished[1]))
    result["protocol"] = "[/x]\x1b[31m"
    result["cells"][0]["column"] = "[/b]"
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(reproduction_table(result))
    told = console.export_text()
    assert "[/x]" in told
    assert "[/b]" in told
    assert "\x1b" not in told


def test_a_model_that_was_deleted_is_trained_again(
    tiny: Protocol, models: Path, finished: Finished, tmp_path: Path
) -> None:
    shutil.copytree(finished[0], tmp_path / "run")
    shutil.copytree(models, tmp_path / "models")
    store = LocalStore(tmp_path / "run")
    lost = next(
        path for path in sorted((tmp_path / "run" / "units").glob("*.jsonl"))
        if any(unit.startswith(path.stem) and store.unit(unit).kind == "attack" for unit in store.done())
    )  # fmt: skip
    content = lost.read_bytes()
    lost.unlink()
    for checkpoint in (tmp_path / "models").glob("*.safetensors"):
        checkpoint.unlink()
    _, result = reproduce(tiny, "cpu", models=tmp_path / "models", out=tmp_path / "run")
    assert result["complete"]
    assert lost.read_bytes() == content

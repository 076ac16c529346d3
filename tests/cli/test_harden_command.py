"""`embattle harden`: what it leaves and prints, that it goes on, and what it refuses before anything is computed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import embattle as eb
from embattle.audit import attack_unit, hardening, run
from embattle.defenses.training.est import EmbeddingShifted
from embattle.embedders import load
from embattle.records import LocalStore


@pytest.fixture
def harden(call, shop: Path):
    """A small hardening; of flags given twice the last one counts."""

    def harden(*arguments: object, data: object = shop, model: str = "good", defense: str = "est"):
        what = ["--data", data, *(["--model", model if ":" in model else f"module:little_models:{model}"] if model else [])]
        training = ["--eps", "16/255", "--steps", 2, "--epochs", 2, "--batch-size", 16, "--lr", 0.01]
        audits = ["--only", "ca+,shift", "--audit-eps", 0.1, "-n", 4, "--k", 3]
        return call("harden", "--defense", defense, *what, *training, *audits, "--threads", 1, *arguments)

    return harden


def training_units(folder: str) -> list[dict[str, object]]:
    store = LocalStore(Path(folder))
    return [row for unit in store.done() for row in store.rows(unit)]


def kept(folder: str) -> dict[str, bytes]:
    """Everything that the byte promise covers: units without their costs, and the model."""
    files = [path for path in Path(folder).rglob("*") if path.suffix == ".jsonl" and path.parent.name == "units"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in [*files, Path(folder, "hardened.safetensors")]}


def test_a_model_two_audits_and_a_comparison(harden, call) -> None:
    said = harden("--out", "run")
    assert said.code == 0, said.words
    for told in (
        "1 of 3: auditing the model as it is",
        "2 of 3: training it with est",
        "3 of 3: auditing the hardened model",
    ):
        assert told in said.err
    assert {"hardened.safetensors", "hardened.history.jsonl", "before", "after", "report.html", "comparison.md",
            "comparison.json", "config.json", "env.json", "units"} <= set(os.listdir("run"))  # fmt: skip
    assert not Path("run/hardened.state.safetensors").exists()
    found = json.loads(Path("run/comparison.json").read_text())
    assert (found["schema"], found["names"], found["paired"], found["complete"]) == (
        "embattle.comparison/1", ["before", "after"], True, True,
    )  # fmt: skip
    assert found["settings"] == []
    for number, name in enumerate(found["names"]):
        summary = eb.records.load_summary(Path("run", name))
        assert summary["complete"]
        assert found["runs"][number]["config_hash"] == summary["config_hash"]
        figures = {threat["threat"]: threat["curve"][-1]["figures"] for threat in summary["threats"]}
        for threat in found["threats"]:
            (point,) = [point for point in threat["points"] if point["eps"] == 0.1]
            cell = point["figures"][threat["metric"]]
            assert cell[("first", "second")[number]] == figures[threat["threat"]][threat["metric"]]
            assert cell["difference"]["n"] == 4
    (row,) = training_units("run")
    assert len(row["losses"]) == 2
    assert (row["audited"], found["notes"]) == (0, [])
    told = found["training"]
    assert told["Loss by epoch"] == ", ".join(f"{loss:.4f}" for loss in row["losses"])
    assert told["Defense"] == "est"
    assert told["Attack inside"].startswith("Linf, ε = 0.06275, 2 steps of 0.0784")
    assert told["Trained on"].endswith(" pictures of shop/train")
    assert told["Command"].startswith("embattle harden --defense est")
    page = Path("run/report.html").read_text()
    assert "before" in page
    assert "after" in page
    assert said.out.strip().splitlines()[-1].split(maxsplit=1) == [
        "model", "weights:run/hardened.safetensors@module:little_models:good",
    ]  # fmt: skip


def test_what_was_audited_afterwards_is_the_model_that_the_last_line_names(harden, call, shop: Path) -> None:
    said = harden("--out", "run")
    spec = said.out.strip().splitlines()[-1].split(maxsplit=1)[1]
    model, original = load(spec), load("module:little_models:good")
    assert model.fingerprint == training_units("run")[0]["model"] != original.fingerprint
    config = json.loads(Path("run/after/config.json").read_text())["config"]
    assert config["model"] == {"fingerprint": model.fingerprint}
    pictures = eb.data.load(str(shop), split="test")
    assert not torch.equal(model.embed(pictures.images), original.embed(pictures.images))
    again = call(
        "audit", "--data", shop, "--model", spec, "--only", "ca+", "--eps", 0.1, "-n", 4, "--k", 3, "--out", "more"
    )
    assert again.code == 0, again.words


def test_a_finished_hardening_is_not_trained_again(harden, monkeypatch: pytest.MonkeyPatch) -> None:
    first = harden("--out", "run")
    before = kept("run")
    monkeypatch.setattr(hardening, "harden", None)
    monkeypatch.setattr(run, "attack_cell", None)
    again = harden("--out", "run")
    assert again.code == 0, again.words
    assert again.out == first.out
    assert again.err.count("finished before: all") == 1
    assert kept("run") == before


def test_without_out_the_folder_is_found_by_its_configuration(harden) -> None:
    assert harden().code == 0
    (folder,) = Path("runs").iterdir()
    assert "-harden-" in folder.name
    assert harden("--seed", 1).code == 0
    assert len(list(Path("runs").iterdir())) == 2
    assert harden().code == 0
    assert len(list(Path("runs").iterdir())) == 2


def test_a_hardening_killed_in_its_training_goes_on_bit_equal(harden, monkeypatch: pytest.MonkeyPatch) -> None:
    assert harden("--out", "whole").code == 0
    loss, epochs = EmbeddingShifted.loss, []

    def stop(self, embedder, batch):
        epochs.append(batch.epoch)
        if (batch.epoch, batch.number) == (2, 1):
            signal.raise_signal(signal.SIGTERM)
        return loss(self, embedder, batch)

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingShifted, "loss", stop)
        said = harden("--out", "run")
        assert said.code == 143
        assert said.err.strip().endswith("Folder: run")
        assert "goes on" in said.words
        assert not Path("run/hardened.safetensors").exists()
        assert not Path("run/after").exists()
        epochs.clear()
        patch.setattr(EmbeddingShifted, "loss", lambda self, embedder, batch: epochs.append(batch.epoch) or loss(
            self, embedder, batch))  # fmt: skip
        said = harden("--out", "run")
    assert said.code == 0, said.words
    assert "training: going on after epoch 1 of 2" in said.err.splitlines()
    after = said.err.partition("2 of 3: training it with est")[2].split(" %")
    assert [share.split()[-1] for share in after[:2]] == ["0", "50"]
    assert set(epochs) == {2}
    assert kept("run") == kept("whole")


def test_a_hardening_killed_in_its_second_audit_has_a_report(harden, call, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def stop(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 6:  # two threats, clean and attacked, are the first audit
            signal.raise_signal(signal.SIGTERM)
        return attack_unit.attack_cell(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(run, "attack_cell", stop)
        said = harden("--out", "run")
    assert said.code == 143
    monkeypatch.setattr(hardening, "harden", None)
    said = harden("--out", "run")
    assert said.code == 0, said.words
    assert json.loads(Path("run/comparison.json").read_text())["complete"]


def test_a_deleted_model_is_trained_again_and_another_one_refused(harden) -> None:
    assert harden("--out", "run").code == 0
    before = kept("run")
    model = Path("run/hardened.safetensors")
    model.unlink()
    assert harden("--out", "run").code == 0
    assert kept("run") == before
    assert harden("--out", "other", "--seed", 3).code == 0
    model.write_bytes(Path("other/hardened.safetensors").read_bytes())
    said = harden("--out", "run")
    assert said.code == 2
    assert "is not the model that this run trained" in said.words
    assert json.loads(Path("run/comparison.json").read_text())["complete"]


def test_a_report_is_built_again_without_torch(harden, call) -> None:
    assert harden("--out", "run").code == 0
    before = {name: Path("run", name).read_bytes() for name in ("comparison.json", "comparison.md", "report.html")}
    for name in before:
        Path("run", name).unlink()
    code = (
        "import sys; from embattle.cli.app import run; code = run(['report', 'run']); "
        "heavy = {'torch', 'sklearn', 'transformers'} & set(sys.modules); assert not heavy, heavy; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert {name: Path("run", name).read_bytes() for name in before} == before
    said = call("report", "run", "--gate", "ca+.w1 > 3")
    assert said.code == 2
    assert "run/after" in said.words
    (unit,) = Path("run/units").glob("*.jsonl")
    unit.write_bytes(unit.read_bytes().replace(b'"losses"', b'"lasses"'))
    said = call("report", "run")
    assert said.code == 2, said.words
    assert "Traceback" not in said.err


def test_pictures_without_labels(harden, refused, unlabelled: Path) -> None:
    refused(harden("--out", "run", data=unlabelled), "no labels", "one folder per class")
    assert not Path("run").exists()
    refused(harden("--out", "run", data=unlabelled, model="", defense="fare"), "no labels", "--model")
    said = harden("--out", "run", data=unlabelled, defense="fare")
    assert said.code == 0, said.words
    assert "is trained on the pictures it is audited on" in said.words
    found = json.loads(Path("run/comparison.json").read_text())
    assert found["clean"] == {}
    (row,) = training_units("run")
    assert row["audited"] == row["pictures"] > 0
    assert any(f"{row['pictures']} of the {row['pictures']} pictures" in note for note in found["notes"])
    assert "looks better than on pictures it has not seen" in Path("run/report.html").read_text()


def test_a_stand_in_is_trained_afresh(call, shop: Path) -> None:
    said = call(
        "harden", "--defense", "act", "--data", shop, "--fresh", "--steps", 1, "--epochs", 1, "--only", "shift",
        "--audit-eps", 0.1, "-n", 2, "--k", 2, "--threads", 1, "--out", "run",
    )  # fmt: skip
    assert said.code == 0, said.words
    spec = said.out.strip().splitlines()[-1].split(maxsplit=1)[1]
    assert spec == "checkpoint:run/hardened.safetensors"
    assert load(spec).fingerprint == training_units("run")[0]["model"]
    told = json.loads(Path("run/comparison.json").read_text())["training"]
    assert told["Begun with"] == "fresh weights"
    assert told["Batch norm"].startswith("learns")


def test_a_checkpoint_stays_one_and_a_hardened_model_is_hardened_again(harden, call) -> None:
    arguments = {"in_channels": 3, "size": 16, "width": 4, "dimension": 8}
    eb.embedders.save_checkpoint(
        Path("m.safetensors"), eb.networks.build("small", **arguments), network="small", network_args=arguments,
        similarity="euclidean", channels=3, size=16,
    )  # fmt: skip
    said = harden("--epochs", 1, "--out", "first", model="checkpoint:m.safetensors")
    assert said.code == 0, said.words
    assert said.out.strip().endswith("model   checkpoint:first/hardened.safetensors")
    assert harden("--epochs", 1, "--out", "linear").code == 0
    said = harden("--epochs", 1, "--out", "second", model="weights:linear/hardened.safetensors@module:little_models:good")
    assert said.code == 0, said.words
    spec = said.out.strip().splitlines()[-1].split(maxsplit=1)[1]
    assert spec == "weights:second/hardened.safetensors@module:little_models:good"
    assert load(spec).fingerprint == training_units("second")[0]["model"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--defense", "esst"], ["'esst'", "did you mean est"]),
        (["--eps", "0"], ["ε = 0 is outside (0, 1]", "n/255"]),
        (["--eps", "2"], ["ε = 2 is outside (0, 1]", "n/255"]),
        (["--eps", "nan"], ["eps", "nan"]),
        (["--eps", "small"], ["eps 'small'", "8/255"]),
        (["--eps", "8/0"], ["eps '8/0'", "fraction"]),
        (["--audit-eps", "0"], ["(0, 1]"]),
        (["--audit-eps", "wide"], ["'wide'", "decimal"]),
        (["--steps", "0"], ["steps", "0"]),
        (["--step-size", "-1"], ["step_size", "-1"]),
        (["--step-size", "x"], ["step_size 'x'"]),
        (["--precision", "half"], ["precision", "'half'", "bfloat16"]),
        (["--batch-norm", "off"], ["batch_norm", "'off'", "frozen"]),
        (["--epochs", "0"], ["epochs", "0"]),
        (["--batch-size", "1"], ["batch_size", "1"]),
        (["--lr", "0"], ["lr", "0"]),
        (["--lr", "inf"], ["lr", "inf"]),
        (["--lr", "1e38"], ["lr", "less than or equal to 1000000"]),
        (["--loss", "hinge"], ["'hinge'", "triplet"]),
        (["--defense", "act", "--loss", "contrastive"], ["'act'", "attacks triplets", "--loss triplet", "--defense est"]),
        (["--margin", "0"], ["margin", "0"]),
        (["--pictures", "1"], ["--pictures", "at least 2"]),
        (["--seed", "-1"], ["seed", "-1"]),
        (["--only", "ca*"], ["'ca*'"]),
        (["--attacked", "0"], ["attacked"]),
        (["--k", "99"], ["k = 99", "--k below"]),
        (["--fresh"], ["fresh weights need a network", "leave fresh out"]),
        (["--model", "resnet50"], ["'resnet50' is not understood"]),
        (["--model", "module:little_models:nan"], ["NaN"]),
        (["--model", "module:little_models:constant"], ["equal"]),
        (["--model", "module:little_models:too_wide"], ["failed on pictures of 3x12x12"]),
        (["--data", "minst"], ["Did you mean mnist"]),
        (["--device", "gpu"], ["--device 'gpu'"]),
        (["--threads", "0"], ["--threads", "at least 1"]),
        (["--gate", "ca+.w1 > 3"], ["--gate"]),
    ],
)  # fmt: skip
def test_flags(harden, refused, flags: list[str], words: list[str]) -> None:
    refused(harden("--out", "run", *flags), *words)


def test_a_defense_is_asked_for(call, refused, shop: Path) -> None:
    refused(call("harden", "--data", shop, "--out", "run"), "--defense")


def test_a_run_of_something_else_is_refused(harden, audit, call) -> None:
    assert audit("--out", "run").code == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    said = harden("--out", "run")
    assert said.code == 2
    assert "it is one of audit, and this is harden" in said.words
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before
    Path("thesis").mkdir()
    Path("thesis/chapter1.tex").write_text("mine")
    said = harden("--out", "thesis")
    assert said.code == 2
    assert "chapter1.tex" in said.words
    assert harden("--out", "hard").code == 0
    said = harden("--out", "hard", "--eps", "8/255")
    assert said.code == 2
    assert "harden.eps is 0.0627" in said.words
    assert audit("--out", "hard").code == 2


def test_a_collapse_is_told_as_one(harden, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = EmbeddingShifted.loss

    def collapse(self, embedder, batch):
        if batch.epoch == 1:
            return loss(self, embedder, batch)
        linear = embedder.module[1]
        linear.weight.data.zero_()
        linear.bias.data.fill_(1.0)
        # Without a gradient the optimiser leaves a weight alone, which else went on with the momentum of epoch 1.
        linear.weight.requires_grad_(False)
        return 0 * linear.bias.sum()

    monkeypatch.setattr(EmbeddingShifted, "loss", collapse)
    for _ in range(2):  # a second try finds the same
        said = harden("--out", "run")
        assert said.code == 2
        assert "Traceback" not in said.err
        assert "after epoch 2 of training" in said.words
        assert "equal" in said.words
        assert "state after epoch 1 is kept in run/hardened.state.safetensors" in said.words
        assert "--no-resume" not in said.words, "a flag that harden does not have"
        assert not Path("run/hardened.safetensors").exists()
        assert not Path("run/after").exists()


def test_a_loss_that_is_no_number_is_told(harden, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = EmbeddingShifted.loss
    monkeypatch.setattr(EmbeddingShifted, "loss", lambda *given: loss(*given) * float("nan"))
    said = harden("--out", "run")
    assert said.code == 2
    assert "the loss became nan in batch 1 of epoch 1; lower the learning rate (it is 0.01)" in said.words
    assert "nothing was kept" in said.words
    assert not Path("run/hardened.safetensors").exists()


def test_names_of_the_last_line_can_be_typed() -> None:
    from embattle.cli.hardening import spec_of

    path = Path("two words/hardened.safetensors")
    assert shlex.quote(spec_of(path, None)) == "'checkpoint:two words/hardened.safetensors'"
    assert spec_of(path, "checkpoint:a@b.safetensors") == "checkpoint:two words/hardened.safetensors"


def test_a_hardening_can_be_judged_by_the_robustness_score(call, shop: Path) -> None:
    said = call(
        "harden", "--defense", "est", "--data", shop, "--model", "module:little_models:good", "--steps", 1, "--epochs", 1,
        "--suite", "ers", "-n", 4, "--k", 3, "--threads", 1, "--out", "run",
    )  # fmt: skip
    assert said.code == 0, said.words
    for name in ("before", "after"):
        assert "Robustness score" in Path("run", name, "report.html").read_text()
        config = json.loads(Path("run", name, "config.json").read_text())["config"]["audit"]
        assert (config["suite"], config["eps"], config["steps"]) == ("ers", [77 / 255], 32)
    page = Path("run/report.html").read_text()
    for told in (
        "Robustness score at",
        "ERS-legacy",
        "GTM, as published",
        'href="before/report.html"',
        'href="after/report.html"',
    ):
        assert told in page
    assert "ERS" in said.out

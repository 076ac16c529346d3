"""`embattle transfer`: what it prints and writes, what it refuses, and that it goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embattle.audit import transfer_run
from embattle.cli.transfer import _named
from embattle.errors import ConfigError


@pytest.fixture
def transfer(call, labelled: Path):
    """A small transfer; models by their names in little_models."""

    def transfer(*arguments: object, models: tuple[str, ...] = ("good", "b=another"), only: str = "ca+,ca-"):
        given = []
        for model in models:
            name, equals, factory = model.rpartition("=")
            given += ["--model", f"{name}{equals}module:little_models:{factory}"]
        what = ["--data", labelled, "--only", only, "--eps", "0.1,16/255", "-n", 4, "--k", 3, "--steps", 2, "--threads", 1]
        return call("transfer", *given, *what, *arguments)

    return transfer


def test_models_of_every_kind_are_crossed(transfer, call) -> None:
    said = transfer("--out", "run", models=("good", "b=another", "c=small_and_euclidean"))
    assert said.code == 0, said.words
    assert "ca-.w1 at ε 0.1" in said.out
    assert "no attack" in said.out
    assert "Strongest transfer" in said.words
    assert "run/report.html" in said.words
    record = json.loads(Path("run/summary.json").read_text())
    assert record["schema"] == "embattle.transfer/1"
    assert [model["name"] for model in record["models"]] == ["good", "b", "c"]
    assert [(model["similarity"], model["dimension"], model["size"]) for model in record["models"]] == [
        ("cosine", 8, None), ("cosine", 5, None), ("euclidean", 7, [6, 6])
    ]  # fmt: skip
    assert record["command"].startswith("embattle transfer --model module:little_models:good")
    again = transfer("--out", "run", models=("third=small_and_euclidean", "first=good", "b=another"))
    assert again.code == 0
    assert "finished before: all" in again.err
    assert [model["name"] for model in json.loads(Path("run/summary.json").read_text())["models"]] == [
        "third",
        "first",
        "b",
    ]
    assert "third" in Path("run/result.md").read_text()


def test_a_report_is_built_again_without_torch(transfer, call) -> None:
    assert transfer("--out", "run").code == 0
    before = {name: Path("run", name).read_bytes() for name in ("summary.json", "report.html", "result.md")}
    for name in before:
        Path("run", name).unlink()
    code = (
        "import sys; from embattle.cli.app import run; code = run(['report', 'run']); "
        "heavy = {'torch', 'sklearn', 'transformers'} & set(sys.modules); assert not heavy, heavy; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert {name: Path("run", name).read_bytes() for name in before} == before
    said = call("report", "run", "--markdown")
    assert said.out.startswith("# Embattle transfer: good, b on shop")
    assert said.out == Path("run/result.md").read_text()
    assert call("report", "run", "--gate", "ca+.w1 > 3").code == 2
    assert "which has no gates" in call("report", "run", "--gate", "ca+.w1 > 3").words
    unit = sorted(Path("run/units").glob("*.jsonl"))[0]
    unit.write_bytes(unit.read_bytes()[:-20])
    said = call("report", "run")
    assert said.code == 2
    assert unit.name in said.words


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ((), ["at least two models, not 0"]),
        (("good",), ["at least two models, not 1", "--model KIND:PATH"]),
        (("good", "good"), ["'good'", "a name of its own"]),
        (("a=good", "b=good"), ["a and b are the same model", "leave one out"]),
        (("good", "g=grey"), ["g takes pictures of 1 channel", "3"]),
        (("good", "n=nan"), ["NaN"]),
        (("good", "w=too_wide"), ["failed on pictures of 3x12x12", "doctor"]),
        (("good", "x=absent"), ["has no 'absent'"]),
    ],
)
def test_models_that_cannot_be_crossed(transfer, refused, models: tuple[str, ...], words: list[str]) -> None:
    refused(transfer("--out", "run", models=models), *words)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--eps", "8"], ["(0, 1]", "n/255"]),
        (["--only", "ca*"], ["'ca*'"]),
        (["--attack", "pdg"], ["did you mean pgd"]),
        (["--k", "24"], ["k = 24"]),
        (["--attacked", "0"], ["attacked"]),
        (["--device", "gpu"], ["--device 'gpu'"]),
        (["--model", "resnet50"], ["'resnet50' is not understood", "NAME=KIND:PATH"]),
        (["--data", "minst"], ["Did you mean mnist"]),
        (["--gate", "ca+.w1 > 3"], ["--gate"]),
    ],
)
def test_flags(transfer, refused, flags: list[str], words: list[str]) -> None:
    refused(transfer("--out", "run", *flags), *words)


def test_pictures_without_labels(transfer, refused, unlabelled: Path) -> None:
    refused(transfer("--out", "run", "--data", unlabelled, only="class"), "no labels", "class")
    said = transfer("--out", "run", "--data", unlabelled, only="class,ca+")
    assert said.code == 0, said.words
    assert "class was skipped" in Path("run/report.html").read_text().replace("<b>", "").replace("</b>", "")


def test_a_run_of_something_else_is_refused(transfer, audit) -> None:
    assert audit("--out", "run").code == 0
    said = transfer("--out", "run")
    assert said.code == 2
    assert "it is one of audit, and this is transfer" in said.words


def test_a_stopped_transfer_leaves_a_report_and_goes_on(transfer, call, monkeypatch: pytest.MonkeyPatch) -> None:
    cross, calls = transfer_run.cross, []

    def stop(*given: object) -> object:
        calls.append(given)
        if len(calls) > 2:
            signal.raise_signal(signal.SIGTERM)
        return cross(*given)

    with monkeypatch.context() as patch:
        patch.setattr(transfer_run, "cross", stop)
        said = transfer("--out", "run")
    assert said.code == 143
    assert said.err.strip().endswith("Folder: run, with a report of what is done")
    assert "unfinished: 3 of 11 units" in Path("run/report.html").read_text()
    said = call("report", "run")
    assert said.code == 0
    assert "unfinished: 3 of 11 units; the same transfer command goes on" in said.words
    said = transfer("--out", "run")
    assert said.code == 0
    assert "resumed: 3 of 11 units were there" in said.err


@pytest.mark.parametrize(
    ("text", "name", "spec"),
    [
        ("checkpoint:a=b.safetensors", None, "checkpoint:a=b.safetensors"),
        ("mine=checkpoint:/x/y.safetensors", "mine", "checkpoint:/x/y.safetensors"),
        ("two words=module:a.b:c", "two words", "module:a.b:c"),
    ],
)
def test_names_before_models(text: str, name: str | None, spec: str) -> None:
    assert _named(text) == (name, spec)
    with pytest.raises(ConfigError, match="NAME=KIND:PATH"):
        _named(f"a=b={spec}")

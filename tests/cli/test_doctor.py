"""`embattle doctor`: a healthy model passes, and each bad habit is found by the check that is there for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import embattle as eb
from embattle.audit import checkup
from embattle.audit.checkup import Check, examine
from embattle.audit.first_layer import first_sight
from embattle.errors import DataError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "_TIMED_SECONDS", 0.001)


@pytest.fixture
def looked(model_folder: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch):
    """The checks of one of the little models, by name."""
    monkeypatch.syspath_prepend(model_folder)
    pictures = eb.data.load(str(labelled), split="all")

    def looked(name: str, **preprocessing: object) -> dict[str, Check]:
        embedder = eb.embedders.load(f"module:little_models:{name}", **preprocessing)
        checks = list(examine(embedder, pictures.images))
        assert len({check.name for check in checks}) == len(checks)
        return {check.name: check for check in checks}

    return looked


def test_a_healthy_model(looked) -> None:
    checks = looked("good", mean=[0.5] * 3, std=[0.25] * 3)
    assert {check.status for check in checks.values()} == {"ok"}
    assert list(checks) == [
        "model", "input", "output", "finite", "not collapsed", "gradient", "determinism", "batch", "modes", "speed",
        "left as found",
    ]  # fmt: skip
    assert "8 numbers" in checks["output"].finding
    assert "100 %" in checks["gradient"].finding
    assert "3,464 parameters" in checks["model"].finding


@pytest.mark.parametrize(
    ("model", "check", "status", "words"),
    [
        ("nan", "finite", "FAIL", "16 of 16"),
        ("constant", "not collapsed", "FAIL", "equal"),
        ("zero", "not collapsed", "FAIL", "zero"),
        ("pair", "forward pass", "FAIL", "tuple"),
        ("wrong_rank", "forward pass", "FAIL", "(16, 2, 4)"),
        ("too_wide", "forward pass", "FAIL", "RuntimeError"),
        ("two_lengths", "gradient", "FAIL", "7 and then of 6"),
        ("detached", "gradient", "FAIL", "does not depend"),
        ("rounded", "gradient", "FAIL", "zero at every pixel"),
        ("cropping", "gradient", "warn", "6 %"),
        ("restless", "determinism", "FAIL", "differ by"),
        ("sociable", "batch", "FAIL", "other pictures"),
        ("counting", "left as found", "FAIL", "buffers"),
        ("dropping", "modes", "warn", "1 dropout"),
        ("fresh_norm", "modes", "warn", "never saw a picture"),
        ("loud", "input", "warn", "Linear inner.1 sees"),
    ],
)
def test_bad_habits(looked, model: str, check: str, status: str, words: str) -> None:
    found = looked(model)[check]
    assert found.status == status, found
    assert words in found.finding
    if status != "ok" and check != "not collapsed":
        assert len(found.advice) > 20


def test_one_bad_habit_does_not_hide_the_others(looked) -> None:
    checks = looked("restless")
    assert checks["gradient"].status == "ok"
    assert checks["left as found"].status == "ok"
    assert list(looked("nan"))[-1] == "left as found"


def test_normalising_twice_is_seen_by_the_first_layer(looked) -> None:
    mean, std = list(eb.IMAGENET_MEAN), list(eb.IMAGENET_STD)
    once = looked("good", mean=mean, std=std)["input"]
    assert once.status == "ok"
    twice = looked("good", mean=[m + s * m for m, s in zip(mean, std, strict=True)], std=[s * s for s in std])["input"]
    assert twice.status == "warn"
    assert "normalised twice" in twice.advice


def test_what_the_first_layer_sees() -> None:
    module = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    with first_sight(module) as sights:
        module(torch.tensor([[-1.0, 3.0]]))
    (seen,) = sights
    assert (seen.layer, seen.low, seen.high, seen.mean, seen.shape) == ("Linear 1", -1.0, 3.0, 1.0, (1, 2))
    assert not any(layer._forward_pre_hooks for layer in module)
    with pytest.raises(RuntimeError), first_sight(module):
        module(torch.ones(1, 3))
    assert not any(layer._forward_pre_hooks for layer in module)


def test_the_model_is_left_as_it_was(looked, model_folder: Path) -> None:
    looked("good")
    module = sys.modules["little_models"].dropping()
    module.train()
    module[2].weight.requires_grad_(False)
    embedder = eb.Embedder(module)
    pictures = torch.randint(0, 256, (8, 3, 12, 12), dtype=torch.uint8)
    state = torch.random.get_rng_state()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert len(list(examine(embedder, pictures))) == 11
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(part.training for part in module.modules())
    assert [p.requires_grad for p in module.parameters()] == [False, True]
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())


def test_one_picture_is_too_few() -> None:
    with pytest.raises(DataError, match="at least 2"):
        list(examine(eb.Embedder(torch.nn.Flatten()), torch.zeros(1, 3, 4, 4, dtype=torch.uint8)))


# --- the command ----------------------------------------------------------------------------------------------------


def test_without_a_model(call) -> None:
    said = call("doctor", "--threads", 1)
    assert said.code == 0, said.words
    for words in ("Machine", "torch 2", "transformers", "digits/test: 500", "small, untrained", "0 FAIL, 0 warn"):
        assert words in said.words
    assert list(Path.cwd().iterdir()) == []


def test_with_a_model(call, labelled: Path) -> None:
    said = call("doctor", "--data", labelled, "--model", "module:little_models:good", "--similarity", "euclidean")
    assert said.code == 0, said.words
    assert "euclidean" in said.words
    assert "3 classes" in said.words


def test_a_finding_is_exit_code_1(call, unlabelled: Path) -> None:
    said = call("doctor", "--data", unlabelled, "--model", "module:little_models:detached")
    assert said.code == 1
    assert "FAIL gradient" in said.words
    assert "1 FAIL, 1 warn" in said.words  # no labels
    assert "Traceback" not in said.err


def test_more_threads_than_cores(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    said = call("doctor", "--threads", 2)
    assert said.code == 0
    assert "warn processor" in said.words


def test_the_model_is_examined_on_the_device_asked_for(call, labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def examined(embedder: eb.Embedder, pictures: torch.Tensor) -> list[Check]:
        seen.append(embedder.device.type)
        return []

    # The only other device of a machine without an accelerator is one that holds no numbers.
    monkeypatch.setattr("embattle.cli.auditing.usable_device", lambda name: torch.device(name))
    monkeypatch.setattr(checkup, "examine", examined)
    for source in ([], ["--data", labelled, "--model", "module:little_models:good"]):
        assert call("doctor", "--device", "meta", *source).code == 0
        assert call("doctor", *source).code == 0
    assert seen == ["meta", "cpu"] * 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--size", "8"], ["--size", "--model"]),
        (["--model", "module:little_models:absent"], ["absent"]),
        (["--model", "nonsense"], ["checkpoint:..."]),
        (["--threads", "0"], ["at least 1"]),
        (["--data", "nowhere"], ["nowhere"]),
        (["--mean", "x"], ["numbers"]),
        (["--device", "cuda:77"], ["--device 'cuda:77'", "this machine has: cpu"]),
    ],
)
def test_bad_input(call, flags: list[str], words: list[str]) -> None:
    said = call("doctor", *flags)
    assert said.code == 2
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err

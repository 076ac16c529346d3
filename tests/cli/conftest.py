"""A command line in this process, little models of every bad habit, and little folders of pictures."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from embattle.cli.app import run

MODELS = '''
"""Models that tests name as module:little_models:NAME; pictures are 3x12x12."""

import torch
from torch import nn


def another():
    """Another length of the embedding."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return nn.Sequential(nn.Flatten(), nn.Linear(432, 5))


def small_and_euclidean():
    """Sees 6x6 pixels."""
    import embattle

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        module = nn.Sequential(nn.Flatten(), nn.Linear(108, 7))
    return embattle.Embedder(module, similarity="euclidean", size=6)


def grey():
    import embattle

    return embattle.Embedder(nn.Sequential(nn.Flatten(), nn.Linear(144, 7)), channels=1)


class Wrapped(nn.Module):
    def __init__(self, after):
        super().__init__()
        self.inner = good()
        self.after = after

    def forward(self, x):
        return self.after(self.inner(x))


def good():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Flatten(), nn.Linear(432, 8))


def nan():
    return Wrapped(lambda z: z * float("nan"))


def wrong_rank():
    return Wrapped(lambda z: z.view(len(z), 2, 4))


def constant():
    return Wrapped(lambda z: torch.ones_like(z))


def one_for_all():
    return Wrapped(lambda z: z[0])


class Shrinking(nn.Module):
    """Other embeddings' length at every call."""

    def __init__(self):
        super().__init__()
        self.inner, self.calls = good(), 0

    def forward(self, x):
        self.calls += 1
        return self.inner(x)[:, : 8 - self.calls]


def two_lengths():
    return Shrinking()


def pair():
    return Wrapped(lambda z: (z, z))


def zero():
    return Wrapped(torch.zeros_like)


def whole_numbers():
    return Wrapped(lambda z: z.long())


def too_wide():
    return nn.Sequential(nn.Flatten(), nn.Linear(433, 8))


def not_built():
    raise FileNotFoundError("weights.pt is not here")


def no_model():
    return "a string"


def detached():
    return Wrapped(lambda z: z.detach())


def rounded():
    return Wrapped(lambda z: (100 * z).round())


class Restless(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = good()

    def forward(self, x):
        return self.inner(x) + torch.randn(len(x), 8)


def restless():
    return Restless()


class Sociable(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = good()

    def forward(self, x):
        z = self.inner(x)
        return z - z.mean(0)


def sociable():
    return Sociable()


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = good()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += len(x)
        return self.inner(x)


def counting():
    return Counting()


def dropping():
    return nn.Sequential(nn.Dropout(0.5), *good())


def fresh_norm():
    return nn.Sequential(nn.BatchNorm2d(3), *good())


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = good()

    def forward(self, x):
        return self.inner((x * 255 - 120) / 60 * 4)


def loud():
    return Twice()


def cropping():
    class Cropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Flatten(), nn.Linear(27, 8))

        def forward(self, x):
            return self.inner(x[:, :, :3, :3])

    return Cropping()


SETTINGS = "not a function"
'''


@dataclass(frozen=True)
class Said:
    """What a command line left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Everything printed, in one line."""
        return re.sub(r"\s+", " ", self.out + " " + self.err)


Call = Callable[..., Said]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "little_models.py").write_text(MODELS)
    (folder / "broken_models.py").write_text("def good(:\n")
    return folder


@pytest.fixture
def call(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Runs a command line in an empty folder."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(model_folder)
    monkeypatch.setenv("COLUMNS", "100")
    threads = torch.get_num_threads()

    def call(*arguments: object) -> Said:
        capfd.readouterr()
        try:
            code = run([str(argument) for argument in arguments])
        finally:
            torch.set_num_threads(threads)
        out, err = capfd.readouterr()
        return Said(code, out, err)

    return call


def write_pictures(folder: Path, classes: int, each: int = 8, side: int = 12) -> Path:
    """Noise around one picture a class; `classes` = 0 puts them into the folder itself."""
    draw = np.random.default_rng(5)
    for number in range(max(classes, 1)):
        home = folder / f"class{number}" if classes else folder
        home.mkdir(parents=True, exist_ok=True)
        middle = draw.integers(40, 215, (side, side, 3))
        for index in range(each if classes else 3 * each):
            pixels = np.clip(middle + draw.integers(-40, 41, middle.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(home / f"{index:02d}.png")
    return folder


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures of 3 classes."""
    return write_pictures(tmp_path_factory.mktemp("labelled") / "shop", classes=3)


@pytest.fixture(scope="session")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures without classes."""
    return write_pictures(tmp_path_factory.mktemp("unlabelled") / "heap", classes=0)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures of 3 classes, which split into 80 % to train on and 20 % to search."""
    return write_pictures(tmp_path_factory.mktemp("split") / "shop", classes=3, each=20)


@pytest.fixture
def audit(call: Call, labelled: Path) -> Call:
    """A small audit; of flags given twice the last one counts."""

    def audit(
        *arguments: object, data: object = labelled, only: str = "ca+,shift", model: str = "good", eps: object = 0.1
    ) -> Said:
        what = ["--data", data, "--model", model if ":" in model else f"module:little_models:{model}", "--only", only]
        return call("audit", *what, "--eps", eps, "-n", 4, "--k", 3, "--steps", 2, "--threads", 1, *arguments)

    return audit


def results_in(folder: Path) -> list[str]:
    """Files by which a run looks begun or finished."""
    names = {"config.json", "summary.json", "report.html"}
    return sorted(str(path) for path in folder.rglob("*") if path.name in names or path.suffix == ".jsonl")


@pytest.fixture
def refused() -> Callable[..., None]:
    """Asserts exit code 2, a sentence that holds given words, no stack trace, and no run in the current folder."""

    def refused(said: Said, *words: str) -> None:
        assert said.code == 2, said.words
        assert said.out == ""
        assert "Traceback" not in said.err
        assert len(said.err.strip()) > 30
        for word in words:
            assert word in said.words, said.words
        assert results_in(Path.cwd()) == []

    return refused

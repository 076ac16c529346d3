"""A protocol small enough for tests: two columns at one ε on the digits, with figures of no paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embattle.protocols import Column, Model, Protocol, Scale, reproduce

EPS = 0.1
COLUMNS = (
    Column(scenario="ca+.w1", rises=False),
    Column(scenario="sp-qa-.m2", rises=True, width=2),
)


@pytest.fixture(scope="session")
def tiny() -> Protocol:
    return Protocol(
        name="tiny", title="Two columns on the digits", paper="none", data="digits", columns=COLUMNS,
        models={"small": Model(network="small", recall=99.0)}, eps=(EPS,), differs=("It is a test.",),
        published={("ca+.w1", 0.0): 50.0, ("ca+.w1", EPS): 100.0, ("sp-qa-.m2", EPS): 100.0},
        scales={
            "smoke": Scale(attacked=6, epochs=1, seeds=(0, 1), training_pictures=300, gallery=80, judged=False),
            "cpu": Scale(attacked=6, epochs=1, seeds=(0, 1), training_pictures=300, gallery=80),
        },
    )  # fmt: skip


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def finished(tiny: Protocol, models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    run, result = reproduce(tiny, "cpu", models=models, out=tmp_path_factory.mktemp("runs") / "tiny")
    return run.path, result


@pytest.fixture
def tiny_as(tiny: Protocol) -> Callable[..., Protocol]:
    return lambda **changes: replace(tiny, **changes)

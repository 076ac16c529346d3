"""Gives the tests the invented run of example_run.py, which is no package and so is loaded from its file."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_name("example_run.py")


@pytest.fixture(scope="session")
def write_example_run() -> Callable[..., Path]:
    spec = importlib.util.spec_from_file_location("embattle_example_run", _SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_example_run

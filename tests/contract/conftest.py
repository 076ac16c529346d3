"""Gives the contract suite its workbench, which is no package and so is loaded from its file."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_NAME = "embattle_contract_bench"


def _load() -> None:
    spec = importlib.util.spec_from_file_location(_NAME, Path(__file__).with_name("bench.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    spec.loader.exec_module(module)


# Test files of this folder are collected after their conftest, so they can import the bench by its name.
if _NAME not in sys.modules:
    _load()

"""What `embattle doctor` says about the machine: versions, processor, optional packages, data sets, disk."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from embattle.audit.checkup import Check
from embattle.data import DATASETS, data_root, folder_of

_REQUIRED = ("numpy", "pillow", "safetensors", "scikit-learn", "pydantic", "typer", "rich", "jinja2", "matplotlib")
# Optional package: what it is for.
# Package: what it is needed for, and the extra that brings it.
_OPTIONAL = {
    "transformers": ("hf: models", "hf"),
    "timm": ("timm: models", "timm"),
    "onnx2torch": ("onnx: models", "onnx"),
    "tensorboard": ("embattle train --tensorboard", "tensorboard"),
}
_FEW_GB = 1.0


def examine_machine(environment: Mapping[str, Any], root: Path | None) -> Iterator[Check]:
    """One check per property of the machine.

    Args:
        environment: as `embattle.runs.describe_environment` gives it.
        root: the data root given on the command line.
    """
    commit = f", commit {environment['commit']}" if environment["commit"] else ""
    versions = f"embattle {environment['embattle']}{commit}, Python {environment['python']}, torch {environment['torch']}"
    yield Check(name="versions", status="ok", finding=versions)
    yield _packages()
    yield _processor(environment)
    for package in _OPTIONAL:
        yield _optional(package)
    yield _data_sets(root)
    yield _disk()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> Check:
    found = {package: _version(package) for package in _REQUIRED}
    missing = [package for package, version in found.items() if version is None]
    if missing:
        advice = "install embattle again with pip, into the environment that runs it"
        return Check(name="packages", status="FAIL", finding=f"missing: {', '.join(missing)}", advice=advice)
    return Check(name="packages", status="ok", finding=", ".join(f"{name} {version}" for name, version in found.items()))


def _processor(environment: Mapping[str, Any]) -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    finding = f"{environment['cpu']}: {threads} thread(s) on {usable} usable core(s)"
    if torch.cuda.is_available():
        finding += "; there is a GPU too: embattle audit --device cuda"
    if threads > usable:
        return Check(name="processor", status="warn", finding=finding, advice=f"give --threads {usable}: more only wait")
    return Check(name="processor", status="ok", finding=finding)


def _optional(package: str) -> Check:
    version = _version(package)
    if version is not None:
        return Check(name=package, status="ok", finding=version)
    purpose, extra = _OPTIONAL[package]
    finding = f"not installed, needed only for {purpose}"
    return Check(name=package, status="ok", finding=finding, advice=f"pip install 'embattle[{extra}]'")


def _data_sets(root: Path | None) -> Check:
    folder = data_root(root)
    found = [entry.name for entry in DATASETS if folder_of(entry.name, folder) is not None]
    if found:
        return Check(name="data root", status="ok", finding=f"{folder}: {', '.join(found)}")
    finding = f"{folder} holds no data set yet; mnist and fashion_mnist are fetched there on first use"
    return Check(name="data root", status="ok", finding=finding, advice="another folder: --data-root or $EMBATTLE_DATA")


def _disk() -> Check:
    here = Path.cwd()
    free = shutil.disk_usage(here).free / 1e9
    finding = f"{free:,.1f} GB free in {here}"
    if not os.access(here, os.W_OK):
        advice = "runs/ cannot be made here: choose a folder with --out"
        return Check(name="disk", status="warn", finding=f"{here} cannot be written", advice=advice)
    if free < _FEW_GB:
        return Check(name="disk", status="warn", finding=finding, advice="free some space, or choose a folder with --out")
    return Check(name="disk", status="ok", finding=finding)

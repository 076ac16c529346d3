"""Run folders: made once per configuration, found again by its hash, never shared by two configurations."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embattle.errors import InputError, RunMismatch
from embattle.records import LocalStore, Unit, canonical_json, write_atomic, write_json_atomic
from embattle.records.atomic import remove_leftovers
from embattle.records.difference import differences
from embattle.runs.environment import describe_environment

# What an interrupted start may have left in a folder before its configuration was written.
_OF_A_RUN = {
    "env.json", "units", "summary.json", "report.html", "paper.json", "result.json", "result.md", "result.csv",
    "models.json", "xi.svg",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A run on disk.

    Args:
        path: the folder.
        store: its finished units.
        resumed: whether the folder was there before.
        planned: how many units the run has.
        found: how many of them were finished before.
    """

    path: Path
    store: LocalStore
    resumed: bool
    planned: int
    found: int


def configuration_hash(config: Mapping[str, Any]) -> str:
    """sha256 over the canonical JSON of everything that changes a number."""
    return hashlib.sha256(canonical_json(config).encode()).hexdigest()


def open_run(
    name: str, config: Mapping[str, Any], plan: Sequence[Unit], *, command: str, out: Path | None = None,
    parent: Path = Path("runs"), device: str = "cpu",
) -> RunFolder:  # fmt: skip
    """The folder of this configuration: the unfinished one when there is one, a new one otherwise.

    Args:
        name: of the verb that makes the run.
        config: everything that changes a number; its hash names the folder.
        plan: the units of the run, in order.
        command: the command line, kept in env.json.
        out: the folder to use; None: `parent`/<date>-<name>-<hash8>.
        parent: where runs without `out` live.
        device: what the model runs on, kept in env.json.

    Raises:
        RunMismatch: `out` holds a run of another configuration, whose message names what differs, or something that is
            no run.
        InputError: the folder cannot be written.
    """
    digest = configuration_hash(config)
    path = Path(out) if out is not None else _find(parent, name, digest)
    try:
        # Every look at a folder below one that may not be entered fails, not only making it.
        resumed = (path / "config.json").is_file()
        if resumed:
            _check_same(path, name, config, digest)
        elif path.exists():
            _check_adoptable(path)
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the run folder {path} cannot be used ({error.strerror}); choose another with --out") from error
    _check_writable(path)
    # What a killed start left of the files beside the units: the state of a training run may be large.
    remove_leftovers(path)
    write_json_atomic(path / "env.json", _environment(path / "env.json", describe_environment(command, device)))
    if not resumed:
        content = {"hash": digest, "name": name, "config": config, "plan": [unit.id for unit in plan]}
        write_json_atomic(path / "config.json", content)
    store = LocalStore(path)
    found = len(store.done() & {unit.id for unit in plan})
    return RunFolder(path=path, store=store, resumed=resumed, planned=len(plan), found=found)


def _environment(file: Path, now: dict[str, Any]) -> dict[str, Any]:
    """What the run was made on: its first start, with the commits of later starts where they are others."""
    try:
        first: dict[str, Any] = json.loads(file.read_bytes())
        known = [first["commit"], *first.get("resumed_at", [])]
    except (OSError, ValueError, KeyError, TypeError):
        return now
    if now["commit"] in known:
        return first
    return {**first, "resumed_at": [*known[1:], now["commit"]]}


def _find(parent: Path, name: str, digest: str) -> Path:
    suffix = f"-{name}-{digest[:8]}"
    earlier = sorted(parent.glob(f"*{suffix}")) if parent.is_dir() else []
    if earlier:
        return earlier[-1]
    return parent / f"{datetime.date.today().isoformat()}{suffix}"


def _check_same(path: Path, name: str, config: Mapping[str, Any], digest: str) -> None:
    try:
        found = json.loads((path / "config.json").read_bytes())
        there = found.get("hash")
    except (OSError, ValueError, AttributeError):
        found, there = {}, None
    if there != digest:
        raise RunMismatch(
            f"{path} holds a run of another configuration: {_what_differs(found, name, config, digest)}. Results of two "
            f"configurations are never mixed: choose another --out, or delete that folder"
        )


def _what_differs(found: Mapping[str, Any], name: str, config: Mapping[str, Any], digest: str) -> str:
    if isinstance(found.get("name"), str) and found["name"] != name:
        return f"it is one of {found['name']}, and this is {name}"
    settings = found.get("config")
    told = differences(settings, config) if isinstance(settings, Mapping) else []
    return "; ".join(told) or f"its hash is {str(found.get('hash'))[:8]}, this one's is {digest[:8]}"


def _check_adoptable(path: Path) -> None:
    if not path.is_dir():
        raise RunMismatch(f"{path} is a file; --out names a folder for the run")
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in _OF_A_RUN and entry.name[0] != ".")
    if foreign:
        raise RunMismatch(f"{path} is not empty and holds no run (it has {foreign[0]}); choose a new or empty --out")


def _check_writable(path: Path) -> None:
    probe = path / ".unfinished"
    write_atomic(probe, b"")
    probe.unlink()

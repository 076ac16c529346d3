"""The folder of a hardening: its two audits beside each other, with what the training was and cost. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embattle.errors import InputError
from embattle.records.comparison import build_comparison
from embattle.records.store import LocalStore
from embattle.records.summary import read_run

# Sub-folders of a hardening, each the run of an audit.
NAMES = ("before", "after")


def build_hardening(run: Path) -> dict[str, Any]:
    """The comparison of a hardening, from its run folder.

    Returns:
        As `build_comparison`, with "training", what the training was and cost by label.

    Raises:
        InputError: no hardening, one whose audits have no results yet, or a damaged file.
    """
    config, environment = read_run(run)
    settings = config["config"].get("harden")
    if not isinstance(settings, dict):
        raise InputError(f"{run} is no hardening; name a folder that embattle harden printed")
    for name in NAMES:
        if not (run / name / "config.json").is_file():
            raise InputError(f"{run} has no audit {name} yet; the same embattle harden command goes on")
    comparison = build_comparison(run / NAMES[0], run / NAMES[1], names=NAMES)
    # Both audits were made in this run: its command, and not two, says how.
    told = {"Command": environment["command"], **_training(settings, LocalStore(run), environment)}
    reports = {name: f"{name}/report.html" for name in NAMES if (run / name / "report.html").is_file()}
    return {**comparison, "training": told, "notes": _notes(LocalStore(run)), "reports": reports}


def _notes(store: LocalStore) -> list[str]:
    """What makes the audit after look better than it is; trainings of an earlier version do not say."""
    seen = [row for unit in sorted(store.done()) for row in store.rows(unit) if row.get("audited")]
    return [
        f"{row['audited']:,} of the {row['pictures']:,} pictures that the model was trained on are among those it was "
        f"audited on: the audit after looks better than on pictures it has not seen."
        for row in seen
    ]


def _training(settings: Mapping[str, Any], store: LocalStore, environment: Mapping[str, Any]) -> dict[str, str]:
    """What the hardening was, for people."""
    told = {
        "Defense": str(settings["defense"]),
        "Attack inside": f"Linf, ε = {settings['eps']:.4g}, {settings['steps']} steps of {settings['step_size']:.4g}, "
        f"{settings['precision']}",
        "Begun with": "fresh weights" if settings["fresh"] else "the weights of the model before",
        "Training": f"{settings['epochs']} epochs, batches of {settings['batch_size']}, learning rate {settings['lr']:g}, "
        f"seed {settings['seed']}",
        "Batch norm": "learns from the attacked pictures" if settings["batch_norm"] == "train" else "frozen",
    }
    for unit in sorted(store.done()):
        for row in store.rows(unit):
            told["Trained on"] = f"{row['pictures']:,} pictures of {row['data']}"
            told["Loss by epoch"] = ", ".join(f"{loss:.4f}" for loss in row["losses"])
        seconds = store.cost(unit).get("epochs_seconds")
        if seconds is not None:
            told["Time"] = f"{seconds:,.0f} s on {environment.get('cpu', 'an unknown processor')}, {environment['device']}"
    return told

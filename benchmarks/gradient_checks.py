"""Can gradients of defended models be trusted? The checks of the robustness suite, on more pictures than an audit takes.

``python benchmarks/gradient_checks.py --out results/bench-gradient-checks.json``

The models are those that ``embattle reproduce robustness-scores --scale cpu`` trains, in the folder ``checkpoints``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import harness
import torch

from embattle import data, rng
from embattle.audit import AuditConfig
from embattle.audit.masking import probe_cell, probes
from embattle.data import ImageSet
from embattle.embedders import load_checkpoint
from embattle.protocols import PROTOCOLS
from embattle.protocols.study import Study
from embattle.records import LocalStore, judge
from embattle.scenarios import Subject


def checked(checkpoint: Path, gallery: ImageSet, eps: float, count: int, seed: int) -> list[dict[str, Any]]:
    """Every check of one model, on `count` pictures of its gallery."""
    subject = Subject.of(load_checkpoint(checkpoint), gallery, k=10, keep_own=True)
    config = AuditConfig.parse({"suite": "ers", "attacked": count, "eps": [eps], "seed": seed})
    chosen = rng.generator(seed, "gradient checks").choice(len(gallery), count, replace=False)
    samples = tuple(gallery.ids[place] for place in chosen)
    return judge([row for probe in probes(config) for row in probe_cell(subject, probe, samples, config).rows])


def main() -> None:
    """Every model of the protocol."""
    given = harness.arguments(__doc__, repeats=1, pictures=64)
    protocol = PROTOCOLS["robustness-scores"].build()
    study = Study(
        protocol=protocol, scale=protocol.scales["cpu"], pictures=data.load(protocol.data, split="train"),
        gallery=data.load(protocol.data, split="test"), models=Path("checkpoints"), device=torch.device("cpu"),
        folder=lambda: LocalStore(Path("unused")),
    )  # fmt: skip
    paths = {name: study.checkpoint(name, 0) for name in protocol.models}
    if missing := [name for name, path in paths.items() if not path.is_file()]:
        raise SystemExit(f"no model of: {', '.join(missing)}; run: embattle reproduce robustness-scores --scale cpu")
    (eps,) = protocol.eps
    found = {name: checked(path, study.gallery, eps, given.pictures, given.seed) for name, path in paths.items()}
    harness.publish(
        "gradient-checks", "checks for masked gradients of defended models", given,
        {"network": "c2f2", "data": protocol.data, "eps": eps, "models": found},
    )  # fmt: skip


if __name__ == "__main__":
    main()

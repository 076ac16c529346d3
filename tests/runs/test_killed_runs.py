"""A run killed with SIGKILL, at random moments and at its writes, and continued, has the bytes of one that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("killed_run.py")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def results(folder: Path) -> dict[str, bytes]:
    """Every file under the promise: units, pictures, weights, configuration."""
    files = (path for path in folder.rglob("*") if path.is_file())
    outside = {"env.json", "summary.json", "model.history.jsonl"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if path.name not in outside and not path.name.endswith(".cost.json")
    }


def summary(folder: Path) -> dict[str, Any]:
    """The summary without what may differ: time, cost in seconds, environment."""
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    for name in ("created", "environment"):
        del content[name]
    for threat in content["threats"]:
        for point in threat["curve"]:
            del point["cost"]["seconds"]
    return content


@pytest.mark.parametrize("how", ["times", "writes"])
def test_killed_and_continued(tmp_path: Path, how: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), how, str(tmp_path), "1"], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])["seen"]
    assert len(seen) >= 10
    assert len(set(seen)) >= 2, f"all kills met the same moment: {seen}"
    if how == "writes":  # these moments are the same on every machine
        assert {"starting", "training"} <= set(seen)
        assert any("units" in state for state in seen)
    whole, killed = results(tmp_path / "whole"), results(tmp_path / "killed")
    assert sorted(killed) == sorted(whole)
    assert [name for name in whole if killed[name] != whole[name]] == []
    assert summary(tmp_path / "killed") == summary(tmp_path / "whole")
    units = [name for name in whole if name.endswith(".jsonl")]
    plan = json.loads(whole["config.json"])["plan"]
    assert sorted(units) == sorted(f"units/{unit[:16]}.jsonl" for unit in plan)
    assert any(name.endswith(".png") for name in whole)
    assert "model.safetensors" in whole

"""Every example runs as its readme says, and ends in a report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_runs(script, tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(FOLDER / script)], cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    command = next(line for line in done.stdout.splitlines() if line.startswith("embattle audit"))
    assert f"--model {script.partition('_')[0]}:" in command
    assert "ca+.w1" in done.stdout.partition(command)[2], "no table of results"


def test_the_readme_names_every_example():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert {"module_audit.py", "hf_audit.py", "timm_audit.py", "onnx_audit.py"} == set(SCRIPTS)
    assert not [script for script in SCRIPTS if f"python examples/{script}" not in text or f"| `{script}` |" not in text]

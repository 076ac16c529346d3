"""Every example runs as its readme says, and ends in a report."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
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


def test_the_readmes_installation_brings_what_the_examples_need():
    """Extras alone: a package named beside them is one that somebody following another page lacks."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    extras = re.search(r"^pip install -e '\.\[([\w,]+)\]'$", text, re.MULTILINE)[1].split(",")
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    brought = {requirement for extra in extras for requirement in project["optional-dependencies"][extra]}
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in brought}
    # torch's exporter imports onnxscript, which nothing else here would install.
    assert {"transformers", "timm", "onnx", "onnx2torch", "onnxscript"} <= names

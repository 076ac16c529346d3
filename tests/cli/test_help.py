"""The first thing anybody sees: quick, readable in 80 columns, and without loading what it does not need."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import embattle

VERBS = ("audit", "report", "train", "harden", "compare", "transfer", "reproduce", "doctor", "list", "show")


def test_help_starts_in_half_a_second() -> None:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "embattle", "--help"], capture_output=True, text=True, timeout=60)
        seconds.append(time.perf_counter() - started)
        assert done.returncode == 0
        assert done.stdout.startswith("Usage: embattle")
    assert min(seconds) < 0.5


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_loads_nothing_heavy(verb: str) -> None:
    code = (
        f"import sys; from embattle.cli.app import run; code = run(['{verb}', '--help']); "
        "heavy = {'torch', 'numpy', 'matplotlib', 'sklearn', 'PIL', 'jinja2'} & set(sys.modules); "
        "assert not heavy, heavy; sys.exit(code)"
    )
    environment = {**os.environ, "COLUMNS": "80", "TERM": "dumb"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_readable_in_80_columns(call, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = call(*([verb] if verb else []), "--help")
    assert said.code == 0
    lines = said.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "..." not in said.out.replace("[ARGS]...", ""), "a summary is cut off"
    for name in VERBS if not verb else ():
        assert re.search(rf"^  {name} +[A-Z].*\.$", said.out, re.MULTILINE)


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_is_explained(call, verb: str) -> None:
    text = re.sub(r"\s+", " ", call(verb, "--help").out)
    for flag in re.findall(r" (--[a-z][a-z-]*)", text):
        assert re.search(rf"{flag}\b[^.]*?[A-Za-z].*?\.", text), flag


def test_the_version(call) -> None:
    assert call("--version").out == f"embattle {embattle.__version__}\n"


def test_no_command_shows_what_there_is(call) -> None:
    said = call()
    assert all(verb in said.words for verb in VERBS)
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("verb", ["audit", "train", "harden", "transfer", "reproduce", "doctor"])
def test_verbs_that_run_a_model_take_a_device(call, verb: str) -> None:
    assert "--device NAME" in call(verb, "--help").out


def test_every_flag_of_an_audit_changes_something() -> None:
    """A flag that is read and never used is worse than none."""
    import ast
    import inspect

    from embattle.cli import audit, compare, doctor, harden, report, reproduce, train, transfer

    for module in (audit, compare, doctor, harden, report, reproduce, train, transfer):
        name = module.__name__.rpartition(".")[2]
        tree = ast.parse(inspect.getsource(module))
        function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
        used = {node.id for part in function.body for node in ast.walk(part) if isinstance(node, ast.Name)}
        assert {argument.arg for argument in function.args.args} <= used

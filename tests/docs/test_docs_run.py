"""Every code block of the README and the docs runs, and every docstring example holds."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import embattle

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
_BLOCK = re.compile(r"(?P<note><!-- not executed: [^>]+ -->\n)?```(?P<kind>\w+)\n(?P<code>.*?)```", re.DOTALL)
BLOCKS = [
    pytest.param(found["kind"], found["code"], bool(found["note"]), id=f"{page.name}-{number}")
    for page in PAGES
    for number, found in enumerate(_BLOCK.finditer(page.read_text(encoding="utf-8")))
    if found["kind"] in ("bash", "python")
]


@pytest.mark.parametrize(("kind", "code", "skipped"), BLOCKS)
def test_code_blocks_run(kind: str, code: str, skipped: bool, tmp_path: Path) -> None:
    environment = {**os.environ, "EMBATTLE_COLOUR": "never"}
    if kind == "python":
        assert not skipped, "python blocks are always executed"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return
    for line in code.replace("\\\n", " ").strip().splitlines():
        words = shlex.split(line)
        if words[0] == "embattle" and skipped:
            flags = [word for word in words if word.startswith("--")]
            known = subprocess.run(
                [sys.executable, "-m", "embattle", words[1], "--help"], capture_output=True, text=True,
                env={**environment, "COLUMNS": "300"}, timeout=120,
            )  # fmt: skip
            assert known.returncode == 0
            assert not [flag for flag in flags if flag not in known.stdout], "a flag that does not exist"
        elif words[0] == "embattle":
            done = subprocess.run(
                [sys.executable, "-m", "embattle", *words[1:]], cwd=tmp_path, capture_output=True, text=True,
                env=environment, timeout=600,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
        else:
            assert words[0] == "make"
            target = words[1].partition("=")[0]
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_there_are_blocks_to_run() -> None:
    executed = [block for block in BLOCKS if not block.values[2]]
    assert len(executed) >= 2
    assert {block.values[0] for block in executed} == {"bash", "python"}


def modules() -> list[str]:
    return [
        found.name for found in pkgutil.walk_packages(embattle.__path__, "embattle.") if found.name != "embattle.__main__"
    ]


@pytest.mark.parametrize("name", modules())
def test_docstring_examples_hold(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_links_in_the_docs_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"

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
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml
from code_blocks import Block, blocks, lines, run_page

import embattle

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
KINDS = {"bash", "python", "text", "toml", "yaml"}
ALL = [block for page in PAGES for block in blocks(page)]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def place(block: Block) -> str:
    return f"{name(Path(block.page))}:{block.line}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name)
def test_code_blocks_run(page: Path, tmp_path: Path) -> None:
    done = run_page(blocks(page), tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_block_that_fails_fails_its_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for wrong, said in {
        "```python\nfirst = 1\n```\n\n```python\nassert first == 2\n```\n": 'page.md", line 6',
        "```bash\nembattle report nowhere\n```\n": "embattle report nowhere",
        "```bash\nembattle list  # exit code 1\n```\n": "embattle list",
        '```python title="part.py"\nvalue = 3\n```\n\n```python\nimport part\nassert part.value > 3\n```\n': "line 7",
    }.items():
        page.write_text(wrong)
        done = run_page(blocks(page), tmp_path)
        assert done.returncode, wrong
        assert said in done.stderr


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_block_escapes(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    # An indented fence, one with tildes or without a language would be shown to readers and seen by no test.
    fences = re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE)
    assert len(fences) == 2 * len(blocks(page))
    for block in blocks(page):
        assert block.kind in KINDS, place(block)
        assert block.kind != "python" or not block.skipped, f"{place(block)}: python blocks are always executed"


@pytest.mark.parametrize("block", [block for block in ALL if block.kind in ("toml", "yaml")], ids=place)
def test_settings_are_well_formed(block: Block) -> None:
    assert tomllib.loads(block.code) if block.kind == "toml" else yaml.safe_load(block.code)


def commands() -> list[tuple[str, list[str], bool]]:
    """Every command line a reader may copy: where it stands, its words, whether it is executed."""
    found = [(place(block), words, not block.skipped) for block in ALL if block.kind == "bash" for words, _ in lines(block)]
    for block in ALL:
        if block.kind == "yaml":
            found += [(place(block), shlex.split(line), False) for line in re.findall(r"- run: (.+)", block.code)]
    return found


@cache
def help_of(verb: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "embattle", verb, "--help"], capture_output=True, text=True, timeout=120,
        env={**os.environ, "EMBATTLE_COLOUR": "never", "COLUMNS": "300"},
    )  # fmt: skip
    assert done.returncode == 0, f"there is no verb {verb}"
    return done.stdout


@pytest.mark.parametrize(("where", "words", "executed"), commands())
def test_commands_exist(where: str, words: list[str], executed: bool) -> None:
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    elif words[0] == "embattle":
        assert not [flag for flag in words[2:] if flag.startswith("--") and flag not in help_of(words[1])]
    else:
        assert words[0] == "python" if executed else words[0] in ("pip", "python")


def test_there_are_blocks_to_run() -> None:
    executed = {(block.kind, Path(block.page).name) for block in ALL if not block.skipped}
    guides = {"index.md", "quickstart.md", "models.md", "attacks.md", "figures.md", "parts.md", "README.md"}
    assert {page for kind, page in executed if kind == "python"} >= guides
    assert {page for kind, page in executed if kind == "bash"} >= {"README.md", "quickstart.md", "models.md", "parts.md"}


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

"""The code blocks of a page, and what runs them: one process per page, so that blocks may continue one another.

A python block runs in the page's namespace; a block of any kind with a title is written to the file of that name instead,
for later blocks to use. `embattle ...` and `python ...` lines of a bash block run as they stand and must exit with 0, or
with what a comment "# exit code N" says. What cannot run is marked `<!-- not executed: reason -->`: then its flags must
exist.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

_BLOCK = re.compile(
    r'^(?P<note><!-- not executed: [^>]+ -->\n)?```(?P<kind>\w+)(?: title="(?P<title>[\w.]+)")?\n(?P<code>.*?)^```$',
    re.DOTALL | re.MULTILINE,
)
_EXIT = re.compile(r"# exit code (\d+)$")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, the file it stands for, its text, where it starts, and whether it can run here."""

    page: str
    line: int
    kind: str
    title: str
    code: str
    skipped: bool


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page=str(page),
            line=text.count("\n", 0, found.start("code")),
            kind=found["kind"],
            title=found["title"] or "",
            code=found["code"],
            skipped=bool(found["note"]),
        )
        for found in _BLOCK.finditer(text)
    ]


def lines(block: Block) -> Iterator[tuple[list[str], int]]:
    """The commands of a bash block as words, each with its exit code."""
    for line in block.code.replace("\\\n", " ").strip().splitlines():
        code = _EXIT.search(line)
        yield shlex.split(line, comments=True), int(code[1]) if code else 0


def run_page(found: list[Block], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs what can run, in a fresh process in `folder`."""
    runnable = [asdict(block) for block in found if not block.skipped and (block.title or block.kind in ("python", "bash"))]
    return subprocess.run(
        [sys.executable, __file__], input=json.dumps(runnable), cwd=folder, capture_output=True, text=True, timeout=500,
        env={**os.environ, "EMBATTLE_COLOUR": "never", "PYTHONPATH": str(folder)},
    )  # fmt: skip


def _main() -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in (Block(**row) for row in json.load(sys.stdin)):
        if block.title:
            Path(block.title).write_text(block.code, encoding="utf-8")
        elif block.kind == "python":
            # Empty lines in front: a traceback names the line of the page.
            exec(compile("\n" * block.line + block.code, block.page, "exec"), namespace)
        else:
            for words, wanted in lines(block):
                _command(block, words, wanted)


def _command(block: Block, words: list[str], wanted: int) -> None:
    if words[0] == "make":
        return
    module = ["-m", "embattle"] if words[0] == "embattle" else []
    done = subprocess.run([sys.executable, *module, *words[1:]], capture_output=True, text=True)
    if done.returncode != wanted:
        sys.exit(f"{block.page}, block at line {block.line}: {shlex.join(words)}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    _main()

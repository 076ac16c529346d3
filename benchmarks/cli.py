"""How long a person waits: `embattle --help`, and `embattle report` on a run with a thousand findings.

``python benchmarks/cli.py --out results/bench-cli.json``
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import harness

from embattle.records import LocalStore, load_summary

_MAKER = Path(__file__).parents[1] / "tests" / "records" / "example_run.py"


def make_run(folder: Path, findings: int) -> int:
    """Writes an invented run and returns how many findings its units hold."""
    spec = importlib.util.spec_from_file_location("example_run", _MAKER)
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    sys.modules["example_run"] = maker
    spec.loader.exec_module(maker)
    maker.write_example_run(folder, samples=findings // 3 + 1, findings=findings)
    store = LocalStore(folder)
    written = sum(row["row"] == "finding" for unit in store.done() for row in store.rows(unit))
    assert written == findings, f"{written} findings were written, not {findings}"
    return written


def main() -> None:
    """Both commands as processes of their own, start of Python included."""
    given = harness.arguments(__doc__, repeats=5, findings=1_000)
    embattle = [sys.executable, "-m", "embattle"]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        written = make_run(run, given.findings)

        def call(*arguments: str) -> None:
            subprocess.run([*embattle, *arguments], check=True, capture_output=True)

        seconds = harness.alternate(
            {"--help": lambda: call("--help"), "report": lambda: call("report", str(run))}, given.repeats
        )
        page, shown = (run / "report.html").stat().st_size, len(load_summary(run).get("findings", []))
        assert shown == written, f"the summary has {shown} of {written} findings"
        shutil.rmtree(run)
    harness.publish(
        "cli", "seconds of a command from its start to its end", given,
        {
            "median_seconds": harness.medians(seconds), "findings_written": written, "findings_in_the_summary": shown,
            "megabytes_of_the_page": round(page / 1e6, 2),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()

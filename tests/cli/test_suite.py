"""`embattle audit --suite ers` from the command line: what it prints, its gates, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

import embattle as eb


@pytest.fixture
def suite(call, labelled: Path):
    def suite(*arguments: object, data: object = labelled):
        what = ["--data", data, "--model", "module:little_models:good", "--suite", "ers"]
        return call("audit", *what, "-n", 4, "--k", 3, "--steps", 2, "--threads", 1, *arguments)

    return suite


def test_a_suite_prints_its_score_and_keeps_its_gates(suite, call) -> None:
    said = suite("--out", "run", "--gate", "ers >= 0", "--gate", "ers-legacy@77/255 > 100")
    assert said.code == 1, said.words
    for word in ("Robustness score at ε 0.302 (77/255)", "gradient checks ok", "pass ers >= 0", "FAIL ers-legacy@77/255"):
        assert word in said.words
    summary = eb.records.load_summary(Path("run"))
    assert summary["robustness"]["curve"][0]["figures"]["ers"]["value"] is not None
    again = call("report", "run", "--markdown")
    assert "## Robustness score" in again.out
    assert "Robustness score" in Path("run/report.html").read_text(encoding="utf-8")


def test_flags_and_the_file_win_over_the_suite(tmp_path: Path) -> None:
    from embattle.cli.audit import _settings

    (tmp_path / "audit.toml").write_text('suite = "ers"\nsteps = 5\nstep_size = "2/255"\n')
    config = _settings(tmp_path / "audit.toml", {"eps": ["8/255"]})
    assert (config.suite, config.steps, config.step_size, config.eps) == ("ers", 5, 2 / 255, (8 / 255,))
    assert _settings(None, {"suite": "ers", "step_size": "1/255"}).step_size == 1 / 255


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--suite", "all"), ["suite", "'ers'", "'all'"]),
        (("--attack", "apgd", "--step-size", "3/255"), ["'apgd' has no setting 'step_size'", "pgd"]),
        (("--step-size", "much"), ["step_size 'much' is not a number"]),
        (("--rule", "ranking"), ["leave both out"]),
        (("--gate", "robustness > 3"), ["no figure 'robustness'", "ers"]),
    ],
)
def test_what_does_not_fit_is_refused(suite, refused, arguments: tuple[str, ...], words: list[str]) -> None:
    refused(suite("--out", "run", *arguments), *words)


def test_a_gate_on_the_score_needs_the_suite(audit, refused) -> None:
    refused(audit("--out", "run", "--gate", "ers >= 30"), "no figure 'ers'")

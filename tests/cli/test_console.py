"""How wide tables are where stdout is no terminal."""

from __future__ import annotations

import os

import pytest

from embattle.cli.console import stdout


@pytest.fixture(autouse=True)
def narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stdin or stderr are a terminal of 50 columns; stdout is what pytest catches."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda *descriptor: os.terminal_size((50, 24)))


def test_a_pipe_is_as_wide_as_its_reader_says_and_never_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stdout().width == 80
    assert stdout(piped=120).width == 120
    for given, width in (("100", 100), ("40", 80), ("wide", 120)):
        monkeypatch.setenv("COLUMNS", given)
        assert stdout(piped=120).width == width


def test_a_terminal_keeps_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert stdout(piped=120).width == 50


def test_a_piped_list_is_not_squeezed(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = call("list", "defenses").out.splitlines()
    assert 80 <= max(map(len, lines)) <= 120

"""From the records of a run to something people read: one HTML page, a short Markdown text, a table in the terminal.

Reads plain records and needs no torch, so a run can be shown again on any laptop. jinja2, matplotlib and rich load when
something is rendered, never on import.
"""

from __future__ import annotations

from embattle.report.comparison import comparison_markdown, comparison_table, write_comparison
from embattle.report.html import render_html, write_report
from embattle.report.markdown import render_markdown
from embattle.report.reproduction import (
    render_reproduction,
    reproduction_headline,
    reproduction_table,
    write_reproduction,
)
from embattle.report.terminal import terminal_table
from embattle.report.transfer import render_transfer, render_transfer_markdown, transfer_tables, write_transfer

__all__ = [
    "comparison_markdown",
    "comparison_table",
    "render_html",
    "render_markdown",
    "render_reproduction",
    "render_transfer",
    "render_transfer_markdown",
    "reproduction_headline",
    "reproduction_table",
    "terminal_table",
    "transfer_tables",
    "write_comparison",
    "write_report",
    "write_reproduction",
    "write_transfer",
]

"""Which data an experiment runs on: its paper's own where that is at hand, else what stands in for it."""

from __future__ import annotations

from pathlib import Path

from embattle import data
from embattle.protocols.protocol import Protocol


def on_data_at_hand(protocol: Protocol, root: Path | None) -> tuple[Protocol, list[str]]:
    """The protocol to run, and what a result says about the choice.

    Args:
        protocol: which may have an `original` on the paper's own data.
        root: where named data sets lie; see `data.data_root`.
    """
    original = protocol.original
    if original is None:
        return protocol, []
    if data.folder_of(original.data, root) is not None:
        return original, [f"The paper's own data, {original.data}, lies in the data root and is used."]
    return protocol, [
        f"The paper's own data, {original.data}, does not lie in the data root: {protocol.data} stands in for it."
    ]

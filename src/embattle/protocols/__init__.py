"""Protocols: published experiments, run again and laid beside the paper's own figures; one file per paper."""

from __future__ import annotations

from embattle.protocols.execution import reproduce
from embattle.protocols.protocol import PROTOCOLS, Column, Model, Protocol, Scale, SignSteps, protocol

__all__ = ["PROTOCOLS", "Column", "Model", "Protocol", "Scale", "SignSteps", "protocol", "reproduce"]

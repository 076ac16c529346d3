"""The audit: what an owner of an embedding system asks for, from a model and a gallery to a run folder with its report."""

from __future__ import annotations

from embattle.audit.config import DEFAULT_EPS, DEFAULT_SCENARIOS, AuditConfig
from embattle.audit.describe import all_attacked, prospect
from embattle.audit.hardening import Hardening
from embattle.audit.run import Trained, audit
from embattle.audit.transfer_config import TRANSFER_EPS, TRANSFER_SCENARIOS, TransferConfig
from embattle.audit.transfer_run import transfer
from embattle.scenarios.scenario import SCENARIOS
from embattle.scenarios.subject import Subject

__all__ = [
    "DEFAULT_EPS",
    "DEFAULT_SCENARIOS",
    "SCENARIOS",
    "TRANSFER_EPS",
    "TRANSFER_SCENARIOS",
    "AuditConfig",
    "Hardening",
    "Subject",
    "Trained",
    "TransferConfig",
    "all_attacked",
    "audit",
    "prospect",
    "transfer",
]

"""What a transfer is: the settings of an audit, with defaults for several models."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from embattle.audit.config import AuditConfig
from embattle.errors import ConfigError

TRANSFER_SCENARIOS = ("ca+.w1", "ca-.w1", "sp-qa+.m1", "sp-qa-.m1")
# Every pair of models is an audit of its own: the smallest of the audit's budgets is left out.
TRANSFER_EPS = (0.03, 0.1, 0.3)


class TransferConfig(AuditConfig):
    """Settings of a transfer; those of an audit with other defaults.

    Args:
        suite: none; a suite scores one model.
        scenarios: what the attacker tries.
        eps: Linf budgets in pixel units of [0, 1].
        findings: how many examples with pictures are kept for each scenario, ε and pair of two different models.

    >>> TransferConfig.parse({"eps": "8/255"}).eps == (8 / 255,)
    True
    """

    noun: ClassVar[str] = "transfer"

    suite: Literal[""] = ""
    scenarios: tuple[str, ...] = TRANSFER_SCENARIOS
    eps: tuple[float, ...] = TRANSFER_EPS
    findings: int = Field(default=1, ge=0)

    @model_validator(mode="after")
    def _without_targets(self) -> Self:
        if self.targets != AuditConfig.model_fields["targets"].default:
            raise ConfigError(f"targets = {self.targets} is for universal scenarios, and a transfer has none; leave it out")
        return self

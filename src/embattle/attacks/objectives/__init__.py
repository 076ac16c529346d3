"""What an attacker may want; one file per idea, found by the registry."""

from __future__ import annotations

from embattle.registry import Registry

OBJECTIVES: Registry = Registry("objective", "embattle.attacks.objectives")

from embattle.attacks.objectives.candidate_rank import CandidateRank  # noqa: E402
from embattle.attacks.objectives.misrank import Misrank  # noqa: E402
from embattle.attacks.objectives.query_rank import QueryRank  # noqa: E402
from embattle.attacks.objectives.shift import Shift  # noqa: E402
from embattle.attacks.objectives.verification import Avoid, Match  # noqa: E402

__all__ = ["OBJECTIVES", "Avoid", "CandidateRank", "Match", "Misrank", "QueryRank", "Shift"]

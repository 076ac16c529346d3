"""A run knows its models again by their answers: what weights and code do not tell."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from embattle.errors import RunMismatch
from embattle.runs import RunFolder
from embattle.scenarios.subject import Subject

# Pictures, and numbers of each embedding, that a run keeps.
_LOOKED_AT, _PROBED = 4, 16
# Embeddings of one model on one machine differ by rounding at most, whatever the number of threads.
_SAME = 1e-4


def probe(subject: Subject) -> list[list[float]]:
    """Embeddings of the first pictures, by which a run knows its model again: weights alone do not say what it computes."""
    rows: list[list[float]] = subject.z[:_LOOKED_AT, :_PROBED].double().tolist()
    return rows


def check_same_models(run: RunFolder, subjects: Iterable[Subject]) -> None:
    """Checks that models answer as they did when the run was begun.

    A fingerprint holds weights and forward code; plain attributes and helper functions change figures as well.

    Args:
        run: the run; nothing is checked before its models are described.
        subjects: its models.

    Raises:
        RunMismatch: one answers otherwise.
    """
    finished = [unit for unit in run.store.done() if run.store.unit(unit).kind == "evaluate"]
    rows = [row for unit in finished for row in run.store.rows(unit)]
    known = {row["fingerprint"]: row["probe"] for row in rows if "probe" in row}
    for subject in subjects:
        before = known.get(subject.embedder.fingerprint)
        if before is not None and not _equal(before, probe(subject)):
            raise RunMismatch(
                f"{run.path} was begun with a model that answers otherwise: weights and code of {subject.embedder.name} "
                f"are the same, its embeddings are not (an attribute, a hook or a helper function changed). Results of two "
                f"models are never mixed: choose another --out, or delete that folder"
            )


def _equal(before: list[list[float]], now: list[list[float]]) -> bool:
    first, second = torch.tensor(before, dtype=torch.float64), torch.tensor(now, dtype=torch.float64)
    return first.shape == second.shape and torch.allclose(first, second, rtol=_SAME, atol=_SAME * float(first.abs().max()))

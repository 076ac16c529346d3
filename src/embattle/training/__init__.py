"""Training of embedding networks: what a run is, its losses, and the trainer."""

from __future__ import annotations

from embattle.training.config import TrainConfig
from embattle.training.losses import LOSSES, MARGINS
from embattle.training.sampling import Triplets, in_batch_triplets
from embattle.training.trainer import Progress, TrainResult, train

__all__ = ["LOSSES", "MARGINS", "Progress", "TrainConfig", "TrainResult", "Triplets", "in_batch_triplets", "train"]

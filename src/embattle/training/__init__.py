"""Training of embedding networks: what a run is, its losses, and the trainer."""

from __future__ import annotations

from embattle.training.config import TrainConfig
from embattle.training.losses import LOSSES, MARGINS
from embattle.training.losses.triplet import Triplet
from embattle.training.model_file import ModelFile, NetworkFile, WeightsFile
from embattle.training.sampling import Triplets, in_batch_triplets, semi_hard, soft_hard
from embattle.training.scalars import read_history
from embattle.training.state import epochs_done, going_on
from embattle.training.step import Batch, MetricLearning, TrainStep, metric_loss
from embattle.training.trainer import Progress, TrainResult, check_labels, train

__all__ = [
    "LOSSES",
    "MARGINS",
    "Batch",
    "MetricLearning",
    "ModelFile",
    "NetworkFile",
    "Progress",
    "TrainConfig",
    "TrainResult",
    "TrainStep",
    "Triplet",
    "Triplets",
    "WeightsFile",
    "check_labels",
    "epochs_done",
    "going_on",
    "in_batch_triplets",
    "metric_loss",
    "read_history",
    "semi_hard",
    "soft_hard",
    "train",
]

"""The triplet loss on the unit sphere: angles decide, and the Euclidean distance says how much."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from embattle.errors import ConfigError
from embattle.similarity import Cosine, euclidean_distance
from embattle.training.losses import LOSSES
from embattle.training.losses.triplet import Triplet


@LOSSES.register(
    "triplet-sphere",
    example=lambda: TripletOnSphere(similarity=Cosine(), margin=0.2),
    paper="Schroff et al., FaceNet (CVPR 2015), eq. 3; Zhou et al., Adversarial Attack and Defense in Deep Ranking (TPAMI "
    "2024), with whose loss robustness scores are published",
    differs="FaceNet squares the distance; the published robustness scores' code, which we follow, does not",
)
@dataclass(frozen=True, kw_only=True)
class TripletOnSphere(Triplet):
    """The triplet loss with d = √(2 - 2 cosine), the Euclidean distance of embeddings of length 1.

    It ranks as the cosine does, but near by it is steeper: with a margin of 0.2 classes that are 0.02 apart by 1 - cosine
    cost nothing, so a model may fold its embeddings into a narrow cone.

    Raises:
        ConfigError: a model that is not searched by the cosine.
    """

    def __post_init__(self) -> None:
        if self.similarity.name != "cosine":
            raise ConfigError(
                f"the loss 'triplet-sphere' is for models searched by the cosine, not by {self.similarity.name!r}; write "
                f"--similarity cosine, or --loss triplet"
            )

    def distance(self, values: Tensor) -> Tensor:
        """Of cosines: the Euclidean distance on the unit sphere, in [0, 2]."""
        return euclidean_distance(self.similarity, values)

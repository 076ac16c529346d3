"""C2F1: two convolutions and one fully connected layer, the main model of the ranking attacks on 28×28 pictures."""

from __future__ import annotations

from torch import Tensor, nn

from embattle.errors import ConfigError
from embattle.networks import NETWORKS, check_count


@NETWORKS.register("c2f1", paper="Adversarial Ranking Attack and Defense (ECCV 2020), section 4.1")
class C2F1(nn.Module):
    """Conv 5×5 (32), max pool, conv 5×5 (64), max pool, one linear layer; 3,264,384 parameters as in the paper.

    There is no ReLU after the linear layer, as in the authors' code.

    Args:
        in_channels: planes of a picture, 1 (grey) or 3 (RGB).
        size: side of the square picture in pixels, a multiple of 4.
        dimension: length D of the embedding.

    Raises:
        ConfigError: an argument outside these ranges.
    """

    def __init__(self, in_channels: int = 1, size: int = 28, dimension: int = 1024) -> None:
        super().__init__()
        check_count("c2f1", "in_channels", in_channels, (1, 3))
        check_count("c2f1", "size", size)
        check_count("c2f1", "dimension", dimension)
        if size % 4:
            raise ConfigError(f"c2f1: size must be a multiple of 4 (two poolings halve it twice), not {size}")
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.embedding = nn.Linear(64 * (size // 4) ** 2, dimension)

    def forward(self, x: Tensor) -> Tensor:
        """Embeds (n, in_channels, size, size) in [0, 1] -> (n, dimension)."""
        embedding: Tensor = self.embedding(self.features(x).flatten(1))
        return embedding

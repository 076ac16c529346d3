"""LeNet in its Caffe form, a second architecture for transfer between models on 28×28 pictures."""

from __future__ import annotations

from torch import Tensor, nn

from embattle.errors import ConfigError
from embattle.networks import NETWORKS, check_count


@NETWORKS.register("lenet", paper="Adversarial Ranking Attack and Defense (ECCV 2020), table 5")
class LeNet(nn.Module):
    """Conv 5×5 (20), max pool, conv 5×5 (50), max pool, linear 500, ReLU; the classifier layer is left out.

    Only the linear layer has a ReLU, as in the authors' code and in Caffe's LeNet.

    Args:
        in_channels: planes of a picture, 1 (grey) or 3 (RGB).
        size: side of the square picture in pixels, a multiple of 4 of at least 16.
        dimension: length D of the embedding.

    Raises:
        ConfigError: an argument outside these ranges.
    """

    def __init__(self, in_channels: int = 1, size: int = 28, dimension: int = 500) -> None:
        super().__init__()
        check_count("lenet", "in_channels", in_channels, (1, 3))
        check_count("lenet", "size", size)
        check_count("lenet", "dimension", dimension)
        if size % 4 or size < 16:
            raise ConfigError(f"lenet: size must be a multiple of 4 of at least 16, not {size}")
        side = ((size - 4) // 2 - 4) // 2
        self.features = nn.Sequential(nn.Conv2d(in_channels, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2))
        self.embedding = nn.Sequential(nn.Linear(50 * side**2, dimension), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Embeds (n, in_channels, size, size) in [0, 1] -> (n, dimension), no entry negative."""
        embedding: Tensor = self.embedding(self.features(x).flatten(1))
        return embedding

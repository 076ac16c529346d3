"""A small convolutional network for 32×32 pictures that two processor cores train in seconds."""

from __future__ import annotations

from torch import Tensor, nn

from embattle.errors import ConfigError
from embattle.networks import NETWORKS, check_count


@NETWORKS.register("small", paper="ours: the demonstration model of `embattle audit` on the digits")
class SmallConvNet(nn.Module):
    """Three 3×3 convolutions with max pooling and one linear layer.

    It has no batch normalisation, so a picture's embedding never depends on others in the batch, in any mode.

    Args:
        in_channels: planes of a picture, 1 (grey) or 3 (RGB).
        size: side of the square picture in pixels, a multiple of 8.
        width: channels of the first convolution; the next ones have two and four times as many.
        dimension: length D of the embedding.

    Raises:
        ConfigError: an argument outside these ranges.
    """

    def __init__(self, in_channels: int = 1, size: int = 32, width: int = 16, dimension: int = 64) -> None:
        super().__init__()
        check_count("small", "in_channels", in_channels, (1, 3))
        for argument, value in (("size", size), ("width", width), ("dimension", dimension)):
            check_count("small", argument, value)
        if size % 8:
            raise ConfigError(f"small: size must be a multiple of 8 (three poolings halve it), not {size}")
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(2 * width, 4 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.embedding = nn.Linear(4 * width * (size // 8) ** 2, dimension)

    def forward(self, x: Tensor) -> Tensor:
        """Embeds (n, in_channels, size, size) in [0, 1] -> (n, dimension)."""
        embedding: Tensor = self.embedding(self.features(x).flatten(1))
        return embedding

"""C2F2: C2F1 with a second fully connected layer, the small network of published robustness scores."""

from __future__ import annotations

from torch import Tensor, nn

from embattle.networks import NETWORKS, check_count
from embattle.networks.c2f1 import C2F1


@NETWORKS.register(
    "c2f2", paper="Adversarial Attack and Defense in Deep Ranking (TPAMI 2024), its public implementation's network"
)
class C2F2(nn.Module):
    """C2F1, ReLU, and a linear layer; 3,789,184 parameters.

    Args:
        in_channels: planes of a picture, 1 (grey) or 3 (RGB).
        size: side of the square picture in pixels, a multiple of 4.
        hidden: width between the two linear layers.
        dimension: length D of the embedding.

    Raises:
        ConfigError: an argument outside these ranges.
    """

    def __init__(self, in_channels: int = 1, size: int = 28, hidden: int = 1024, dimension: int = 512) -> None:
        super().__init__()
        check_count("c2f2", "hidden", hidden)
        check_count("c2f2", "dimension", dimension)
        self.body = C2F1(in_channels, size, hidden)
        self.embedding = nn.Linear(hidden, dimension)

    def forward(self, x: Tensor) -> Tensor:
        """Embeds (n, in_channels, size, size) in [0, 1] -> (n, dimension)."""
        embedding: Tensor = self.embedding(self.body(x).relu())
        return embedding

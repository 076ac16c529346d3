"""ResNet-18, with the layer names of the widely shared ImageNet weights so that those load as they are."""

from __future__ import annotations

from torch import Tensor, nn

from embattle.errors import ConfigError
from embattle.networks import NETWORKS, check_count

STEMS = ("standard", "small")


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut; the shortcut is a strided 1×1 convolution where the shape changes.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        stride: 1, or 2 to halve the side.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, H, W) -> (n, outputs, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.relu(self.bn2(self.conv2(x)) + shortcut)
        return out


@NETWORKS.register(
    "resnet18",
    paper="Adversarial Ranking Attack and Defense (ECCV 2020), tables 4 and 5; He et al. (CVPR 2016), table 1",
)
class ResNet18(nn.Module):
    """ResNet-18 whose embedding is the average-pooled last feature map (512 numbers), or a linear map of it.

    Args:
        in_channels: planes of a picture, 1 (grey) or 3 (RGB).
        stem: "standard" (7×7 convolution, stride 2, max pool) or "small" (3×3, stride 1, no pool, for pictures of
            about 32 pixels). The ranking paper uses the standard one on 28×28 pictures too.
        dimension: length D of the embedding; None keeps the 512 pooled features without a linear layer.

    Raises:
        ConfigError: an argument outside these ranges.
    """

    def __init__(self, in_channels: int = 3, stem: str = "standard", dimension: int | None = None) -> None:
        super().__init__()
        check_count("resnet18", "in_channels", in_channels, (1, 3))
        if stem not in STEMS:
            raise ConfigError(f"resnet18: stem must be one of {', '.join(STEMS)}, not {stem!r}")
        if dimension is not None:
            check_count("resnet18", "dimension", dimension)
        standard = stem == "standard"
        self.conv1 = nn.Conv2d(
            in_channels, 64, 7 if standard else 3, stride=2 if standard else 1, padding=3 if standard else 1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if standard else nn.Identity()
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Identity() if dimension is None else nn.Linear(512, dimension)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Embeds (n, in_channels, H, W) in [0, 1] -> (n, 512) or (n, dimension)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        embedding: Tensor = self.fc(self.avgpool(x).flatten(1))
        return embedding

"""Libraries of models that some sources need, imported the way the sources do, and never allowed to fetch."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from embattle.embedders.torchvision_shim import make_torchvision_importable


@pytest.fixture(scope="session")
def _offline():
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_HUB_OFFLINE", "1")
    make_torchvision_importable()
    yield
    patch.undo()


@pytest.fixture(scope="session")
def transformers(_offline):
    return importlib.import_module("transformers")


@pytest.fixture(scope="session")
def timm(_offline):
    return importlib.import_module("timm")


@pytest.fixture(scope="session")
def onnx(_offline):
    return importlib.import_module("onnx")


@pytest.fixture(scope="session")
def photo():
    """A smooth uint8 picture with two sharp edges and other sides than any model's input, (37, 53, 3)."""
    y, x = np.mgrid[0:37, 0:53]
    channels = [127 + 100 * np.sin(x / (4 + c) + y / 9) for c in range(3)]
    pixels = np.stack(channels, axis=2)
    pixels[10:20, 12:30] = (250, 5, 120)
    return pixels.clip(0, 255).astype(np.uint8)

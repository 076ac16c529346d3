"""Libraries of models that some sources need, imported the way the sources do, and never allowed to fetch."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from embattle.embedders.torchvision_shim import make_torchvision_importable


@pytest.fixture(autouse=True)
def _one_thread():
    """Models this small have no work for two threads, which on a busy machine wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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

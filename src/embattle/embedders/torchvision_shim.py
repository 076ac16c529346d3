"""Lets torchvision be imported beside a processor-only torch, which its usual build is not made for.

timm and onnx2torch import torchvision, and transformers does where it finds it. The build that registries carry brings a
compiled part that needs an accelerator's libraries; without them the import ends at the first operator that this part
would have declared. Declaring the two operators is enough for all of torchvision that is written in Python.
"""

from __future__ import annotations

import importlib
import importlib.util

import torch

# What torchvision's Python code refers to on import. They have no kernels here: calling them stays an error.
_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# A library's declarations live as long as the object does.
_declared: list[torch.library.Library] = []


def make_torchvision_importable() -> None:
    """Imports torchvision, declaring its missing operators where its compiled part cannot be loaded.

    Does nothing where torchvision is not installed, and nothing more than the import where that works by itself. To be
    called before the first import of timm, onnx2torch or transformers.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if _declared or "torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for operator in _OPERATORS:
            library.define(operator)
        _declared.append(library)
        importlib.import_module("torchvision")

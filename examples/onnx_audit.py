"""Audits an ONNX file: the graph is converted to a torch module, so that gradients reach the pixels.

A small network with random weights is exported with an open batch axis, which is what an audit needs. The graph says its
input's size and channels, but not how its pictures were normalised: --mean and --std do.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

import torch
from torch import nn


def export(path: str) -> None:
    """A network without batch statistics, written by torch's exporter."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.GELU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.GELU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 32), nn.LayerNorm(32),
    ).eval()  # fmt: skip
    axes = ({0: torch.export.Dim("n")},)
    torch.onnx.export(model, (torch.rand(2, 1, 32, 32),), path, dynamo=True, dynamic_shapes=axes, verbose=False)


def main() -> None:
    """Runs: embattle audit --model onnx:FILE --mean 0.5 --std 0.5 ..."""
    with tempfile.TemporaryDirectory() as folder:
        export(f"{folder}/model.onnx")
        settings = ["--only", "ca+.w1", "--eps", "8/255", "--attacked", "8", "--steps", "5", "--threads", "1"]
        model = ["--model", f"onnx:{folder}/model.onnx", "--mean", "0.5", "--std", "0.5"]
        command = ["audit", "--data", "digits", *model, *settings, "--out", f"{folder}/run"]
        print("embattle", *command, flush=True)
        subprocess.run([sys.executable, "-m", "embattle", *command], check=True)


if __name__ == "__main__":
    main()

"""Audits any PyTorch module you can import: here an eigen-image embedding of digits, fitted in a moment.

The function below is what --model module:module_audit:build_model names. It returns an Embedder, so that the preprocessing
is written once, beside the model; returning the bare module and giving --size, --mean and --std works as well.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

import embattle as eb

DIMENSION = 24


def build_model() -> eb.Embedder:
    """The digits of the train split, projected onto their main directions."""
    pictures = eb.data.load("digits", split="train")
    pixels = pictures.images.flatten(1).float() / 255
    mean = pixels.mean(0)
    _, _, directions = torch.linalg.svd(pixels - mean, full_matrices=False)
    project = nn.Linear(pixels.shape[1], DIMENSION)
    with torch.no_grad():
        project.weight.copy_(directions[:DIMENSION])
        project.bias.copy_(-directions[:DIMENSION] @ mean)
    return eb.Embedder(nn.Sequential(nn.Flatten(), project), channels=1, size=32, similarity="cosine", name="eigen-digits")


def main() -> None:
    """Runs: embattle audit --model module:module_audit:build_model ..."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ["--only", "ca+.w1,sp-qa-.m1", "--eps", "8/255,0.1", "--attacked", "8", "--steps", "5"]
        settings += ["--threads", "1"]  # so small a model has no work for more
        model, out = "module:module_audit:build_model", f"{folder}/run"
        command = ["audit", "--data", "digits", "--model", model, *settings, "--out", out]
        print("embattle", *command, flush=True)
        # A module: model is imported from the current folder, as `python -m` would.
        subprocess.run([sys.executable, "-m", "embattle", *command], check=True, cwd=Path(__file__).parent)


if __name__ == "__main__":
    main()

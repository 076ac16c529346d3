"""Audits a timm model: a small network is fitted to digits for a moment, saved as timm shares models, and audited.

`timm.models.save_for_hf` writes the architecture, the weights and the preprocessing; `embattle audit --model timm:FOLDER`
takes the pooled features before the classifier as the embedding.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

import torch
from torch import nn

import embattle as eb
from embattle.embedders.torchvision_shim import make_torchvision_importable

make_torchvision_importable()

import timm  # noqa: E402  after torchvision was made importable where its build does not fit torch's
import timm.models  # noqa: E402

SIDE, STEPS, BATCH = 32, 10, 64


def fitted() -> nn.Module:
    """A classifier of digits after a few steps: far from good, but no longer random."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so small a model has no work for more
    pictures = eb.data.load("digits", split="train")
    model = timm.create_model("test_vit", num_classes=10, in_chans=1, img_size=SIDE)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(STEPS):
        rows = [(step * BATCH + offset) % len(pictures) for offset in range(BATCH)]
        logits = model((pictures.pixels(rows) - 0.5) / 0.5)
        loss = nn.functional.cross_entropy(logits, pictures.labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


def main() -> None:
    """Runs: embattle audit --model timm:FOLDER ..."""
    with tempfile.TemporaryDirectory() as folder:
        model = fitted()
        model.pretrained_cfg |= {"input_size": (1, SIDE, SIDE), "crop_pct": 1.0, "mean": (0.5,), "std": (0.5,)}
        timm.models.save_for_hf(model, f"{folder}/vit", safe_serialization=True)
        settings = ["--only", "ca+.w1", "--eps", "8/255", "--attacked", "8", "--steps", "5", "--threads", "1"]
        command = ["audit", "--data", "digits", "--model", f"timm:{folder}/vit", *settings, "--out", f"{folder}/run"]
        print("embattle", *command, flush=True)
        subprocess.run([sys.executable, "-m", "embattle", *command], check=True)


if __name__ == "__main__":
    main()

"""Audits a vision model saved by transformers, with its own processor's resize, crop and normalisation.

A tiny CLIP image tower with random weights stands in for yours: save_pretrained wrote the folder, and
`embattle audit --model hf:FOLDER` is all that is needed. Random weights say nothing about CLIP; your folder does.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

import torch

from embattle.embedders.torchvision_shim import make_torchvision_importable

make_torchvision_importable()

import transformers  # noqa: E402  after torchvision was made importable where its build does not fit torch's


def save(folder: str) -> None:
    """The image tower and its processor, as anybody's training script would leave them."""
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8,
        projection_dim=16,
    )  # fmt: skip
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(folder)
    sides = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
    transformers.CLIPImageProcessor(**sides).save_pretrained(folder)


def main() -> None:
    """Runs: embattle audit --model hf:FOLDER ..."""
    with tempfile.TemporaryDirectory() as folder:
        save(f"{folder}/clip")
        settings = ["--only", "ca+.w1", "--eps", "8/255", "--attacked", "8", "--steps", "5", "--threads", "1"]
        command = ["audit", "--data", "digits", "--model", f"hf:{folder}/clip", *settings, "--out", f"{folder}/run"]
        print("embattle", *command, flush=True)
        subprocess.run([sys.executable, "-m", "embattle", *command], check=True)


if __name__ == "__main__":
    main()

"""`hf:PATH` — a vision model saved by the transformers library, with the preprocessing of its own configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from embattle.embedders.adapters import ADAPTERS
from embattle.embedders.embedder import Embedder
from embattle.errors import MissingDependency, ModelError

# AutoModel would drop CLIP's projection into the space in which its embeddings are compared.
_CLIP = {"clip", "clip_vision_model"}
# What transformers calls weights that the file does not have, or has in another shape.
_GAPS = ("missing_keys", "mismatched_keys")


@ADAPTERS.register("hf", access="gradient", differs="resizes to the input size without the centre crop some models use")
def hf(path: str, **preprocessing: Any) -> Embedder:
    """A local folder written by `save_pretrained`: safetensors weights, its processor's preprocessing.

    Raises:
        MissingDependency: transformers is not installed.
        ModelError: no such folder, no safetensors weights, or a model without a vision embedding.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise ModelError(f"hf:{path} is no folder with a config.json; write one with model.save_pretrained(PATH)")
    try:
        import transformers
    except ImportError as error:
        raise MissingDependency("hf: models need transformers; install it with: pip install 'embattle[hf]'") from error
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        vision = getattr(config, "vision_config", config)
        if config.model_type == "clip":
            # The length of the shared space is written beside the vision part, not in it.
            vision.projection_dim = config.projection_dim
        family: Any = transformers.CLIPVisionModelWithProjection if config.model_type in _CLIP else transformers.AutoModel
        model, report = family.from_pretrained(
            folder, config=vision if config.model_type in _CLIP else config, local_files_only=True, use_safetensors=True,
            output_loading_info=True,
        )  # fmt: skip
        settings = {**_from_processor(folder, vision), **preprocessing}
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"hf:{path} could not be loaded: {(str(error).splitlines() or [repr(error)])[0]}") from error
    outputs = _trained_outputs(path, report)
    return Embedder(_Pooled(model, outputs), name=f"{config.model_type} ({folder.name})", **settings)


def _trained_outputs(path: str, report: dict[str, Any]) -> tuple[str, ...]:
    """The outputs that may be used. transformers fills weights a file lacks with random numbers, and only warns.

    A classifier's file has no pooler: its embedding is the first token. Any other gap makes the model unusable.
    """
    lacking = sorted(str(name[0] if isinstance(name, tuple) else name) for key in _GAPS for name in report.get(key, ()))
    rest = [name for name in lacking if not name.startswith("pooler.")]
    if rest:
        raise ModelError(
            f"hf:{path} lacks {len(rest)} weight(s) of the model its config.json describes, or has them in another shape "
            f"(first: {rest[0]}); save the whole model with model.save_pretrained(PATH)"
        )
    return ("image_embeds",) if lacking else ("image_embeds", "pooler_output")


class _Pooled(nn.Module):
    """Reduces a transformers output to one vector per picture: projected, else pooled, else the first token."""

    def __init__(self, model: nn.Module, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self._outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        output = self.model(pixel_values=x)
        for name in self._outputs:
            found = getattr(output, name, None)
            if isinstance(found, Tensor):
                return found.flatten(1)
        hidden = getattr(output, "last_hidden_state", None)
        if not isinstance(hidden, Tensor):
            raise ModelError(f"{type(self.model).__name__} gives no image embedding; wrap it and use module:")
        return hidden[:, 0] if hidden.ndim == 3 else hidden.mean((2, 3))


def _from_processor(folder: Path, config: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"channels": getattr(config, "num_channels", 3)}
    size = getattr(config, "image_size", None)
    file = folder / "preprocessor_config.json"
    if file.is_file():
        processor = json.loads(file.read_text())
        if processor.get("do_normalize", True) and "image_mean" in processor:
            settings |= {"mean": processor["image_mean"], "std": processor["image_std"]}
        wanted = processor.get("crop_size") or processor.get("size") or size
        if isinstance(wanted, dict):
            edge = wanted.get("shortest_edge")
            height, width = wanted.get("height", edge), wanted.get("width", edge)
            wanted = (height, width) if height and width else None
        size = wanted or size
    if size is not None:
        settings["size"] = tuple(size) if isinstance(size, list | tuple) else int(size)
    return settings

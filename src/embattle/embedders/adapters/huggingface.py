"""`hf:PATH` — a vision model saved by the transformers library, with the preprocessing of its own configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from embattle.embedders.adapters import ADAPTERS
from embattle.embedders.embedder import Embedder
from embattle.errors import MissingDependency, ModelError

# AutoModel would drop CLIP's projection into the space in which its embeddings are compared.
_CLIP = {"clip", "clip_vision_model"}


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
        family = transformers.CLIPVisionModelWithProjection if config.model_type in _CLIP else transformers.AutoModel
        model = family.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"hf:{path} could not be loaded: {str(error).splitlines()[0]}") from error
    settings = {**_from_processor(folder, getattr(config, "vision_config", config)), **preprocessing}
    return Embedder(_Pooled(model), name=f"{config.model_type} ({folder.name})", **settings)


class _Pooled(nn.Module):
    """Reduces a transformers output to one vector per picture: projected, else pooled, else the first token."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        output = self.model(pixel_values=x)
        for name in ("image_embeds", "pooler_output"):
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
            wanted = (wanted.get("height", edge), wanted.get("width", edge))
        size = wanted or size
    if size is not None:
        settings["size"] = tuple(size) if isinstance(size, list | tuple) else int(size)
    return settings

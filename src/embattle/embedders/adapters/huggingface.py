"""`hf:PATH` — a vision model saved by the transformers library, with the preprocessing of its own configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from embattle.embedders.adapters import ADAPTERS
from embattle.embedders.embedder import Embedder
from embattle.embedders.image_processor import understand
from embattle.embedders.preparation import Fit, prepared
from embattle.embedders.torchvision_shim import make_torchvision_importable
from embattle.embedders.weight_files import check_weights
from embattle.errors import EmbattleError, MissingDependency, ModelError

# Models of pictures and text: the class of their vision half. AutoModel would want text as well, and drop CLIP's
# projection into the space in which its embeddings are compared.
_VISION = {
    "clip": "CLIPVisionModelWithProjection",
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
}
# What transformers calls weights that the file does not have, or has in another shape.
_GAPS = ("missing_keys", "mismatched_keys")
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_DESCRIBED = {"size", "mean", "std"}


@ADAPTERS.register(
    "hf", access="gradient", differs="resized pixels are not rounded to 8 bits; a Lanczos filter becomes bicubic"
)
def hf(path: str, **preprocessing: Any) -> Embedder:
    """A local folder written by `save_pretrained`: safetensors weights, its processor's resize, crop and normalisation.

    The embedding is CLIP's projection, else the model's pooled output, else its first token. What is understood of the
    processor is compared with the processor itself on one picture. Preprocessing that is given takes the place of the
    processor's; a size is then a plain resize without crop. Code in the folder is never executed.

    Raises:
        MissingDependency: transformers is not installed.
        ModelError: no such folder, no safetensors weights, weights that lie outside it, a quantised model, a model without
            a vision embedding, or a processor that does something else than resize, crop and normalise.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise ModelError(f"hf:{path} is no folder with a config.json; write one with model.save_pretrained(PATH)")
    make_torchvision_importable()
    try:
        import transformers
    except ImportError as error:
        raise MissingDependency("hf: models need transformers; install it with: pip install 'embattle[hf]'") from error
    try:
        check_weights(folder)
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        vision = _vision(config)
        # Before the model: a size that cannot be is refused before anything of that size is built.
        fit, settings = _preparation(transformers, folder, vision, preprocessing)
        model, outputs = _loaded(transformers, folder, config.model_type, vision)
        return prepared(
            _Pooled(model, outputs).eval(),
            fit,
            **{"name": f"{config.model_type} ({folder.name})", **settings, **preprocessing},
        )
    except EmbattleError as error:
        raise ModelError(f"hf:{path}: {error}") from error
    except Exception as error:  # the folder is the user's, and so is whatever it makes transformers raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"hf:{path} could not be loaded: {reason}") from error


def _vision(config: Any) -> Any:
    """The configuration of the part that sees pictures, when nothing in the whole stands against loading it."""
    for part in _parts(config.to_dict()):
        if part.get("quantization_config") is not None:
            raise ModelError("the model is quantised; save it with float weights, from which gradients can be computed")
        if part.get("transformers_weights") is not None:
            raise ModelError(
                f"its config.json names a weights file of its own ({part['transformers_weights']!r}); the weights are read "
                f"from model.safetensors or its index: take transformers_weights out"
            )
    vision = getattr(config, "vision_config", config)
    if config.model_type == "clip":
        # The length of the shared space is written beside the vision part, not in it.
        vision.projection_dim = config.projection_dim
    if config.model_type not in _VISION and vision is not config:
        raise ModelError(
            f"{config.model_type} is a model of pictures and more; of these clip and siglip are known. Wrap its vision "
            f"part as module:package.module:factory"
        )
    # A configuration may name attention kernels, which are code from elsewhere.
    vision._attn_implementation = None
    return vision


def _parts(told: object) -> Iterator[dict[str, Any]]:
    """A configuration and all those inside it."""
    if isinstance(told, dict):
        yield told
    if isinstance(told, dict | list):
        for inner in told.values() if isinstance(told, dict) else told:
            yield from _parts(inner)


def _loaded(transformers: Any, folder: Path, kind: str, vision: Any) -> tuple[nn.Module, tuple[str, ...]]:
    """The vision model in float32, and those of its outputs that may be used."""
    family = getattr(transformers, _VISION.get(kind, "AutoModel"))
    remote = {"trust_remote_code": False} if family is transformers.AutoModel else {}
    model, report = family.from_pretrained(
        folder, config=vision, local_files_only=True, use_safetensors=True, output_loading_info=True, **remote
    )
    return model.float().eval(), _trained_outputs(report)


def _trained_outputs(report: dict[str, Any]) -> tuple[str, ...]:
    """The outputs that may be used. transformers fills weights a file lacks with random numbers, and only warns.

    A classifier's file has no pooler: its embedding is the first token. Any other gap makes the model unusable.
    """
    lacking = sorted(str(name[0] if isinstance(name, tuple) else name) for key in _GAPS for name in report.get(key, ()))
    rest = [name for name in lacking if not name.startswith("pooler.")]
    if rest:
        raise ModelError(
            f"the folder lacks {len(rest)} weight(s) of the model its config.json describes, or has them in another shape "
            f"(first: {rest[0]}); save the whole model with model.save_pretrained(PATH)"
        )
    return ("image_embeds",) if lacking else ("image_embeds", "pooler_output")


class _Pooled(nn.Module):
    """Reduces a transformers output to one vector per picture: projected, else pooled, else the first token."""

    def __init__(self, model: nn.Module, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self._outputs = outputs

    def extra_repr(self) -> str:
        return ", ".join(self._outputs)

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


def _preparation(transformers: Any, folder: Path, config: Any, given: dict[str, Any]) -> tuple[Fit, dict[str, Any]]:
    """From the processor; without one, or where everything is given, from the model's input size alone."""
    channels = getattr(config, "num_channels", 3)
    if given.keys() >= _DESCRIBED or not any((folder / name).is_file() for name in _PROCESSORS):
        size = getattr(config, "image_size", None)
        pair = (size, size) if isinstance(size, int) else size and tuple(size)
        return Fit(resize=None if "size" in given else pair), {"channels": channels}
    processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    fit, settings = understand(processor, channels)
    return fit, {"channels": channels, **settings}

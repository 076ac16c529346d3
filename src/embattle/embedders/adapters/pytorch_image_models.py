"""`timm:PATH`, `timm:NAME@WEIGHTS.safetensors`, `timm:NAME` — a model of the timm library, never with random weights."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from embattle.embedders.adapters import ADAPTERS
from embattle.embedders.embedder import Embedder
from embattle.embedders.preparation import Filter, Fit, prepared
from embattle.embedders.torchvision_shim import make_torchvision_importable
from embattle.embedders.weight_files import within
from embattle.errors import EmbattleError, MissingDependency, ModelError

_WEIGHTS = "model.safetensors"
_FILTERS: dict[str, Filter] = {"bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "bicubic"}
# Arguments that fetch or read other files, or make another kind of model; a folder's config.json has no use for them.
_FORBIDDEN = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "features_only"}


@ADAPTERS.register("timm", access="gradient", differs="resized pixels are not rounded to 8 bits; lanczos becomes bicubic")
def timm(source: str, **preprocessing: Any) -> Embedder:
    """A timm model's pooled features, with the resize, crop and normalisation of its own configuration.

    `timm:PATH` is a folder written by `timm.models.save_for_hf(model, PATH, safe_serialization=True)`;
    `timm:NAME@WEIGHTS.safetensors` an architecture and its weights; `timm:NAME` the pretrained weights if they are in
    the local cache. Nothing is fetched. Preprocessing that is given takes the place of the configuration's; a size is
    then a plain resize without crop.

    Raises:
        MissingDependency: timm is not installed.
        ModelError: no such folder, architecture or weights, weights of another model, or preprocessing that is not
            resize, centre crop and normalise.
    """
    make_torchvision_importable()
    try:
        library = importlib.import_module("timm")
    except ImportError as error:
        raise MissingDependency("timm: models need timm; install it with: pip install 'embattle[timm]'") from error
    try:
        name, arguments, config, weights = _found(library, source)
        module = _built(library, name, arguments, weights)
        fit, settings = _preparation(library, config, arguments)
        label = f"{name} ({Path(weights).parent.name if Path(source).is_dir() else Path(weights).name})"
        return prepared(module, fit, **{"name": label, **settings, **preprocessing})
    except EmbattleError as error:
        raise ModelError(f"timm:{source}: {error}") from error
    except Exception as error:  # the files are the user's, and so is whatever they make timm raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"timm:{source} could not be loaded: {reason}") from error


def _found(library: Any, source: str) -> tuple[str, dict[str, Any], dict[str, Any], str]:
    """The architecture, its arguments, its pretrained configuration and the file with its weights."""
    if Path(source).is_dir():
        return _from_folder(library, Path(source))
    name, at, file = source.partition("@")
    _check_architecture(library, name)
    config = library.get_pretrained_cfg(name, allow_unregistered=True)
    settings = config.to_dict() if config is not None else {}
    if at:
        if not Path(file).is_file():
            raise ModelError(f"there is no weights file {file}; write one with safetensors.torch.save_file")
        return name, {}, settings, file
    cached = _cached(settings.get("hf_hub_id"))
    if cached is None:
        raise ModelError(
            f"it names an architecture, and the local cache has no weights for it; random ones would be audited as if they "
            f"were yours. Write timm:{name}@WEIGHTS.safetensors, or the folder that timm.models.save_for_hf(model, PATH, "
            f"safe_serialization=True) wrote"
        )
    return name, {}, settings, cached


def _from_folder(library: Any, folder: Path) -> tuple[str, dict[str, Any], dict[str, Any], str]:
    how = "write one with timm.models.save_for_hf(model, PATH, safe_serialization=True)"
    if not (folder / "config.json").is_file() or not (folder / _WEIGHTS).is_file():
        raise ModelError(f"the folder lacks config.json or {_WEIGHTS}; {how}")
    if not within(folder, _WEIGHTS):
        raise ModelError(f"its {_WEIGHTS} is a link to a file outside the folder; put that file there")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise ModelError(f"its config.json names no architecture of timm; {how}")
    _check_architecture(library, config["architecture"])
    arguments, settings = config.get("model_args") or {}, config.get("pretrained_cfg") or {}
    if not isinstance(arguments, dict) or not isinstance(settings, dict):
        raise ModelError(f"model_args and pretrained_cfg of its config.json must be objects; {how}")
    if forbidden := sorted(_FORBIDDEN & arguments.keys()):
        raise ModelError(f"model_args of its config.json may not hold {', '.join(forbidden)}; take that out")
    return config["architecture"], arguments, settings, str(folder / _WEIGHTS)


def _check_architecture(library: Any, name: str) -> None:
    # Names with a scheme would make timm read other places.
    if ":" in name or "/" in name or not library.is_model(name):
        near = ", ".join(library.list_models(f"*{name}*")[:4]) if name.isidentifier() else ""
        hint = f"did you mean {near}?" if near else "timm.list_models() has them all"
        raise ModelError(f"{name!r} is neither a folder nor an architecture of timm; {hint}")


def _cached(hub_id: str | None) -> str | None:
    if not hub_id:
        return None
    hub = importlib.import_module("huggingface_hub")
    repository, _, revision = hub_id.partition("@")
    found = hub.try_to_load_from_cache(repository, _WEIGHTS, revision=revision or None)
    return found if isinstance(found, str) else None


def _built(library: Any, name: str, arguments: dict[str, Any], weights: str) -> nn.Module:
    """The model without its classifier, and with every weight out of the file."""
    settings = {**arguments, "num_classes": 0}
    state = safetensors.torch.load_file(weights)
    # On the meta device nothing is allocated: what is claimed is held against what the file brings before memory is.
    with torch.device("meta"):
        claimed = library.create_model(name, pretrained=False, **settings)
    expected = claimed.state_dict()
    head = claimed.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{part}." for part in ([head] if isinstance(head, str) else head))
    strange = [key for key in state if key not in expected and not (heads and key.startswith(heads))]
    lacking = [key for key, value in expected.items() if key not in state or state[key].shape != value.shape]
    if strange or lacking:
        what = f"{len(lacking)} of its weights are not there or have another shape" if lacking else "it holds others"
        raise ModelError(f"the weights in {weights} are not those of {name}: {what} (first: {(lacking or strange)[0]})")
    # Building draws first weights, which the stored ones replace: the caller's random numbers must not notice.
    with torch.random.fork_rng(devices=[]):
        module: nn.Module = library.create_model(name, pretrained=False, **settings)
    module.load_state_dict({key: state[key] for key in expected})
    return module.float().eval()


def _preparation(library: Any, config: dict[str, Any], arguments: dict[str, Any]) -> tuple[Fit, dict[str, Any]]:
    """What timm does to a picture in evaluation: resize to the input size over crop_pct, then cut out the middle."""
    data = importlib.import_module("timm.data").resolve_data_config(pretrained_cfg=config)
    channels = int(arguments.get("in_chans", data["input_size"][0]))
    # A model built for another size than its pretrained ancestor says so in its arguments only.
    size = arguments.get("img_size", data["input_size"][1:])
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    mode, kind = data["crop_mode"], data["interpolation"]
    if kind not in _FILTERS or mode not in ("center", "squash") or (mode == "center" and height != width):
        raise ModelError(
            f"its preprocessing (crop_mode {mode!r}, interpolation {kind!r}, {height}x{width}) is not understood; wrap the "
            f"model as module:package.module:factory"
        )
    scaled = (math.floor(height / data["crop_pct"]), math.floor(width / data["crop_pct"]))
    fit = Fit(
        resize=scaled[0] if mode == "center" else scaled, crop=(height, width), filter=_FILTERS[kind], rounding="even"
    )
    mean, std = (_channels(data[key], channels) for key in ("mean", "std"))
    return fit, {"channels": channels, "mean": mean, "std": std}


def _channels(values: Any, channels: int) -> tuple[float, ...]:
    # timm keeps colour numbers for grey models; their mean is what its own loader normalises with.
    numbers = Tensor(values).mean().repeat(channels) if len(values) != channels else Tensor(values)
    return tuple(numbers.double().tolist())

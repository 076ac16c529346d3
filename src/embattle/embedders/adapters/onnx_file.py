"""`onnx:PATH` — an ONNX graph, converted to a torch module so that gradients reach the pixels."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from embattle.embedders.adapters import ADAPTERS
from embattle.embedders.embedder import Embedder
from embattle.embedders.onnx_graph import PictureGraph, read_graph
from embattle.embedders.onnx_operators import to_torch
from embattle.embedders.torchvision_shim import make_torchvision_importable
from embattle.errors import ConfigError, EmbattleError, MissingDependency, ModelError
from embattle.rng import generator

# Where a graph takes pictures of any size and none is given, the comparison needs one.
_TRIED = 224
_TOLERANCE = 1e-3


@ADAPTERS.register("onnx", access="gradient", differs="run by torch after conversion, not by the runtime you serve with")
def onnx(path: str, **preprocessing: Any) -> Embedder:
    """An ONNX file with one picture input and an open batch axis; its first output is the embedding.

    The converted module is compared with ONNX's own reference on one picture. Size and channels are read from the
    graph's input. Nothing in a graph says how its pictures were normalised: give mean and std unless it takes pixels in
    [0, 1].

    Raises:
        MissingDependency: onnx or onnx2torch is not installed.
        ModelError: no such file, a damaged one, an input or output of another kind, operators without gradients, or a
            conversion that computes something else.
        ConfigError: a size or number of channels that the graph does not take.
    """
    make_torchvision_importable()
    try:
        importlib.import_module("onnx")
        importlib.import_module("onnx2torch")
    except ImportError as error:
        raise MissingDependency("onnx: models need onnx2torch; install it with: pip install 'embattle[onnx]'") from error
    try:
        graph = read_graph(Path(path))
        settings = _settings(graph, preprocessing)
        module = to_torch(graph.proto)
        _compare(graph, module, settings)
        return Embedder(module, **{"name": f"onnx ({Path(path).stem})", **settings})
    except ConfigError:
        raise
    except EmbattleError as error:
        raise ModelError(f"onnx:{path}: {error}") from error
    except Exception as error:  # the file is the user's, and so is whatever it makes the converter raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"onnx:{path} could not be converted to torch ({type(error).__name__}: {reason}); give the model it was "
            f"exported from as module:package.module:factory"
        ) from error


def _settings(graph: PictureGraph, given: dict[str, Any]) -> dict[str, Any]:
    """The preprocessing, where what was given agrees with the graph's input."""
    size = given.get("size")
    pair = (size, size) if isinstance(size, int) else size
    if graph.height is not None and graph.width is not None:
        fixed = (graph.height, graph.width)
        if pair is not None and tuple(pair) != fixed:
            raise ConfigError(f"size {size} does not fit: the graph takes pictures of {graph.height}x{graph.width}")
        pair = fixed
    channels = graph.channels or given.get("channels", 3)
    if given.get("channels", channels) != channels:
        raise ConfigError(f"channels {given['channels']} does not fit: the graph takes {channels}")
    return {**given, "size": pair, "channels": channels}


def _compare(graph: PictureGraph, module: nn.Module, settings: dict[str, Any]) -> None:
    """Runs the module on two pictures, and ONNX's reference on one of them."""
    height, width = settings["size"] or (_TRIED, _TRIED)
    draw = generator(0, "onnx").uniform(-1, 1, (2, settings["channels"], height, width))
    x = torch.from_numpy(draw).float()
    with torch.no_grad(), warnings.catch_warnings():
        # Said once in a process, and of the converter's code, not the user's.
        warnings.filterwarnings("ignore", category=UserWarning, module="onnx2torch")
        z = module(x)
    if not isinstance(z, Tensor) or z.ndim != 2 or len(z) != 2 or not z.is_floating_point():
        shape = f"a tensor of shape {tuple(z.shape)}" if isinstance(z, Tensor) else f"a {type(z).__name__}"
        raise ModelError(
            f"its first output is {shape} for 2 pictures of {height}x{width}; an embedder's is (2, D), in floats: export "
            f"the model with a flat embedding as its first output and an open first axis"
        )
    reference: Any = importlib.import_module("onnx.reference")
    expected = torch.as_tensor(reference.ReferenceEvaluator(graph.proto).run(None, {graph.input_name: x[:1].numpy()})[0])
    apart = float((z[:1] - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    if not apart <= _TOLERANCE:
        raise ModelError(
            f"the converted model computes something else than ONNX's own reference (difference {apart:.1g} of the largest "
            f"number); give the model it was exported from as module:package.module:factory"
        )

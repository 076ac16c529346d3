"""`module:package.module:factory` — any PyTorch model the user can import."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

from torch import nn

from embattle.embedders.adapters import ADAPTERS
from embattle.embedders.embedder import Embedder
from embattle.embedders.torchvision_shim import make_torchvision_importable
from embattle.errors import ConfigError, EmbattleError, ModelError


@ADAPTERS.register("module", access="gradient")
def module(path: str, **preprocessing: Any) -> Embedder:
    """Calls a factory without arguments; it returns a torch module, or an Embedder with its preprocessing set.

    The current folder is importable, as it is for `python -m`.

    Raises:
        ModelError: no such module or factory, or what it returned is no model.
    """
    package, colon, factory = path.rpartition(":")
    if not colon or not package or not factory:
        raise ModelError(f"module:{path} names no factory; write module:package.module:factory")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    model = _built(package, factory)
    if isinstance(model, Embedder):
        if preprocessing:
            given = ", ".join(sorted(preprocessing))
            raise ConfigError(f"{factory} returns an Embedder, which owns its preprocessing; leave out: {given}")
        return model
    if not isinstance(model, nn.Module):
        raise ModelError(f"module:{path} returned a {type(model).__name__}; return a torch.nn.Module or an Embedder")
    return Embedder(model, **{"name": factory, **preprocessing})


def _built(package: str, factory: str) -> object:
    what = f"module:{package}:{factory}"
    try:
        home = _imported(package)
        if not hasattr(home, factory):
            raise ModelError(f"{what}: {package} has no {factory!r}")
        return getattr(home, factory)()
    except EmbattleError:
        raise
    except ModuleNotFoundError as error:
        raise ModelError(f"{what}: Python cannot import {error.name!r} from here ({os.getcwd()})") from error
    except Exception as error:  # the file is the user's, and so is whatever it raises
        reason = str(error).strip().split("\n", 1)[0]
        raise ModelError(
            f"{what} failed ({type(error).__name__}: {reason}); try it alone: "
            f"python -c 'import {package}; {package}.{factory}()'"
        ) from error


def _imported(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        # The user's file imports timm or torchvision, whose usual build does not load beside a processor-only torch.
        make_torchvision_importable()
        return importlib.import_module(package)

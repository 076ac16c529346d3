"""`module:package.module:factory` — any PyTorch model the user can import."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from torch import nn

from embattle.embedders.adapters import ADAPTERS
from embattle.embedders.embedder import Embedder
from embattle.errors import ConfigError, ModelError


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
    try:
        build = getattr(importlib.import_module(package), factory)
    except ModuleNotFoundError as error:
        raise ModelError(f"module:{path}: Python cannot import {error.name!r} from here ({os.getcwd()})") from error
    except AttributeError as error:
        raise ModelError(f"module:{path}: {package} has no {factory!r}") from error
    model = build()
    if isinstance(model, Embedder):
        if preprocessing:
            given = ", ".join(sorted(preprocessing))
            raise ConfigError(f"{factory} returns an Embedder, which owns its preprocessing; leave out: {given}")
        return model
    if not isinstance(model, nn.Module):
        raise ModelError(f"module:{path} returned a {type(model).__name__}; return a torch.nn.Module or an Embedder")
    return Embedder(model, **{"name": factory, **preprocessing})

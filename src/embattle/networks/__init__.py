"""The networks that the papers name and that no library we depend on ships; one file each.

A network maps pictures (n, C, H, W) in [0, 1] to raw embeddings (n, D). It normalises neither its input nor its output:
the Embedder owns the one, the similarity the other. Its constructor takes plain numbers and strings only, so that a
checkpoint can hold them.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from embattle.errors import ConfigError
from embattle.registry import Registry

__all__ = ["NETWORKS", "arguments_for", "build"]

NETWORKS: Registry = Registry("network", "embattle.networks")


def build(name: str, **arguments: Any) -> nn.Module:
    """Builds the network called `name` with freshly drawn weights (torch's global generator).

    Args:
        name: a name of the registry `NETWORKS`, for example "c2f1".
        arguments: the network's own constructor arguments.

    Raises:
        ConfigError: no network has that name, or it has no such argument.

    >>> sum(weight.numel() for weight in build("c2f1").parameters())
    3264384
    """
    network = NETWORKS[name].build
    allowed = list(inspect.signature(network).parameters)
    unknown = sorted(set(arguments) - set(allowed))
    if unknown:
        raise ConfigError(
            f"network {name!r} has no argument {', '.join(map(repr, unknown))}; it takes: {', '.join(allowed)}"
        )
    module: nn.Module = network(**arguments)
    return module


def arguments_for(name: str, channels: int, side: int) -> dict[str, Any]:
    """The constructor arguments with which a network takes square pictures, as far as its defaults do not fit them.

    Args:
        name: a name of the registry `NETWORKS`.
        channels: planes of the pictures.
        side: their side in pixels.

    Raises:
        ConfigError: no network has that name.

    >>> arguments_for("c2f1", 1, 28), arguments_for("c2f1", 3, 32)
    ({}, {'in_channels': 3, 'size': 32})
    """
    parameters = inspect.signature(NETWORKS[name].build).parameters
    wanted = {"in_channels": channels, "size": side}
    return {key: value for key, value in wanted.items() if key in parameters and parameters[key].default != value}


def check_count(network: str, argument: str, value: object, allowed: tuple[int, ...] | None = None) -> None:
    """Checks a constructor argument that must be a positive whole number, or one of `allowed`.

    Raises:
        ConfigError: it is not.
    """
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not whole or (allowed is not None and value not in allowed):
        choice = "a whole number of at least 1" if allowed is None else " or ".join(map(str, allowed))
        raise ConfigError(f"{network}: {argument} must be {choice}, not {value!r}")

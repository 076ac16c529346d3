"""Reading hidden layers by module name, with hooks that live only as long as one forward pass."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from embattle.errors import ConfigError, ModelError


@contextmanager
def captured(module: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Yields a dictionary that the next forward pass fills with the output of each named layer.

    Args:
        module: any module.
        layers: names as in `module.named_modules()`.

    Raises:
        ConfigError: a name that is no layer; the message lists the nearest.
        ModelError: a layer whose output is not one tensor.
    """
    known = dict(module.named_modules())
    found: dict[str, Tensor] = {}
    handles = []
    try:
        for layer in layers:
            if layer not in known:
                near = difflib.get_close_matches(layer, known, n=3) or sorted(n for n in known if n)[:8]
                raise ConfigError(f"the model has no layer {layer!r}; it has, for instance: {', '.join(near)}")
            handles.append(known[layer].register_forward_hook(_keep(layer, found)))
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _keep(layer: str, found: dict[str, Tensor]):  # type: ignore[no-untyped-def]  # torch's hook type is private
    def hook(_module: nn.Module, _inputs: object, output: object) -> None:
        if not isinstance(output, Tensor):
            raise ModelError(f"layer {layer!r} returns a {type(output).__name__}, not one tensor; tap another layer")
        found[layer] = output

    return hook

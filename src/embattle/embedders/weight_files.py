"""Weights of a model's folder lie in that folder: neither a path in an index nor a link leads elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

from embattle.errors import ModelError

_INDEX = "model.safetensors.index.json"
_HOW = "save the whole model again with model.save_pretrained(PATH)"
# A cache of the model hub keeps a repository's files under their hashes, and links to them from snapshots/REVISION.
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def within(folder: Path, name: str) -> bool:
    """Whether `name`, links followed, is a file in `folder` or below, or the hub cache's own blob of this snapshot.

    Args:
        folder: the model's folder.
        name: a path in it, as something that was read from outside says.

    >>> within(Path("."), "../weights.safetensors")
    False
    """
    try:
        home, target = folder.resolve(), (folder / name).resolve()
        if not name or not target.is_file():
            return False
    except (OSError, ValueError, RuntimeError):  # names that no file can have, and links in a circle
        return False
    cached = home.parent.name == "snapshots" and target.parent == home.parent.parent / "blobs"
    return target.is_relative_to(home) or (cached and _BLOB.fullmatch(target.name) is not None)


def check_weights(folder: Path) -> None:
    """Refuses a folder of transformers whose weights are not all its own.

    Raises:
        ModelError: an index that is damaged or names a file outside the folder, a link that leads out of it, an adapter.
    """
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            "the folder holds an adapter (adapter_config.json), which names a model elsewhere; merge it into its model and "
            "save that: model.merge_and_unload().save_pretrained(PATH)"
        )
    names = {file.name for file in folder.iterdir() if file.name.endswith(".safetensors")}
    if (folder / _INDEX).exists():
        names |= _indexed(folder / _INDEX)
    for name in sorted(names):
        if not within(folder, name):
            raise ModelError(f"it wants weights from {name!r}, which is no file in its own folder; put that file there")


def _indexed(index: Path) -> set[str]:
    """The files that an index names."""
    try:
        told = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"its {_INDEX} cannot be read as JSON; it may be cut off or damaged: {_HOW}") from error
    weights = told.get("weight_map") if isinstance(told, dict) else None
    if not isinstance(weights, dict) or not weights or not isinstance(told.get("metadata"), dict):
        raise ModelError(f"its {_INDEX} is damaged: it lacks a weight_map from weights to files, or metadata; {_HOW}")
    for name in weights.values():
        if not isinstance(name, str) or not name.endswith(".safetensors"):
            raise ModelError(f"its {_INDEX} names {name!r}, which is no .safetensors file; {_HOW}")
    return set(weights.values())

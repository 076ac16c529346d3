"""What tells one model from another: a sha256 of everything it computes with, and a cheap sign that it has not changed.

Hashing the weights takes as long as a step of an attack, so an Embedder keeps its hash as long as the sign stays the same.
The sign is made from the weights themselves at the speed of reading them, because a write through `.data` or numpy leaves
no trace anywhere else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from types import CodeType

import torch
from torch import Tensor, nn

# Weights are summed as a table of 64-bit words with this many columns.
_COLUMNS = 1024


def tensors_of(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name, sorted; buffers that are not saved with the model belong to it all the same."""
    return sorted([*module.named_parameters(), *module.named_buffers()], key=lambda pair: pair[0])


def structure(module: nn.Module) -> str:
    """What a module computes apart from its numbers: every part's class, printed settings and forward code."""
    parts: list[object] = [repr(module)]
    for place, part in module.named_modules():
        code = getattr(type(part).forward, "__code__", None)
        parts.append((place, type(part).__qualname__, code and _code(code)))
    # Memory addresses differ from process to process.
    return re.sub(r"0x[0-9a-f]+", "0x", repr(parts))


def _code(code: CodeType) -> tuple[object, ...]:
    """Instructions, names and constants, those of functions inside included."""
    constants = tuple(_code(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts)
    return code.co_code.hex(), code.co_names, constants


def fingerprint(described: str, tensors: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 over a description and every byte of the tensors."""
    digest = hashlib.sha256(described.encode())
    for key, tensor in tensors:
        digest.update(f"{key}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor).cpu().numpy().tobytes())
    return digest.hexdigest()


def sign(described: str, tensors: Iterable[tuple[str, Tensor]]) -> bytes:
    """Changes whenever the fingerprint does, short of a write past autograd made to keep every sum of rows and columns."""
    digest = hashlib.blake2b(described.encode(), digest_size=32)
    for key, tensor in tensors:
        version = -1 if tensor.is_inference() else tensor._version
        digest.update(f"{key}:{tensor.dtype}:{tuple(tensor.shape)}:{version}".encode())
        raw = _bytes(tensor)
        whole = len(raw) // (8 * _COLUMNS) * 8 * _COLUMNS
        if whole:
            table = raw[:whole].view(torch.int64).view(-1, _COLUMNS)
            # Sums wrap around at 64 bits, where an even number of changed signs is no change: half a word down it is one.
            digest.update(torch.cat([table.sum(0), (table >> 31).sum(1)]).cpu().numpy().tobytes())
        digest.update(raw[whole:].cpu().numpy().tobytes())
    return digest.digest()


def _bytes(tensor: Tensor) -> Tensor:
    raw = tensor.detach().contiguous().flatten().view(torch.uint8)
    # A parameter that is a window into a larger tensor may start between two words.
    return raw.clone() if raw.storage_offset() % 8 else raw

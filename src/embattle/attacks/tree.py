"""State is a tree of tensors whose first axis is the row; `take` and `join` are the only verbs the loop needs.

Compaction, refill and sharding never index a part's state by hand, so a part may keep whatever state it likes: a leaf that
is no tensor is indexed by rows and has a method `joined`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Tree = Mapping[str, Any]


def take(tree: Tree, rows: Tensor) -> dict[str, Any]:
    """The given rows of every tensor.

    >>> take({"a": torch.tensor([5, 6, 7])}, torch.tensor([2, 0]))["a"].tolist()
    [7, 5]
    """
    return {k: take(v, rows) if isinstance(v, Mapping) else v[rows] for k, v in tree.items()}


def join(first: Tree | None, second: Tree) -> dict[str, Any]:
    """The rows of `first`, then the rows of `second`.

    >>> join({"a": torch.tensor([5])}, {"a": torch.tensor([6])})["a"].tolist()
    [5, 6]
    """
    if first is None:
        return dict(second)
    return {key: _joined(first[key], value) for key, value in second.items()}


def _joined(first: Any, second: Any) -> Any:
    if isinstance(second, Mapping):
        return join(first, second)
    return torch.cat([first, second]) if isinstance(second, Tensor) else first.joined(second)


def where(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Row by row: `yes` where the (n,) mask holds, else `no`.

    >>> where(torch.tensor([True, False]), torch.ones(2, 2), torch.zeros(2, 2)).tolist()
    [[1.0, 1.0], [0.0, 0.0]]
    """
    return torch.where(mask.view(-1, *[1] * (yes.ndim - 1)), yes, no)

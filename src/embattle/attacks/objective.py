"""What an attacker wants: the protocol between the loop and the objectives, and what every objective does alike.

An objective is a value a user writes, in pictures or embeddings. `bind` turns it into per-row constants in the space of ONE
embedder, so an ensemble binds once per member and a transfer judge binds to the target. Losses are differentiable and
attacker-signed (higher = better for the attacker); figures for reports are computed elsewhere and share no code with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from embattle.attacks.tree import Tree
from embattle.embedders import EMBEDDING, Embedder
from embattle.errors import ConfigError, InputError

Direction = Literal["raise", "lower"]
Outputs = Mapping[str, Tensor]


@runtime_checkable
class Objective(Protocol):
    """The value a user writes."""

    @property
    def taps(self) -> tuple[str, ...]:
        """Which of a model's outputs the loss reads."""
        ...

    @property
    def stationary_at_clean(self) -> bool:
        """Whether the loss has no gradient at the clean picture, so that an attack must be nudged off it."""
        ...

    @property
    def holds_embeddings(self) -> bool:
        """Whether any target was given as embeddings, which belong to one embedder's space only."""
        ...

    def bind(self, member: Embedder, *, tile: int = 256) -> Bound:
        """Embeds the constants once, in this member's space."""
        ...


@runtime_checkable
class Bound(Protocol):
    """An objective in one embedder's space; reusable over shards of the same rows."""

    fingerprint: str
    count: int

    @property
    def taps(self) -> tuple[str, ...]:
        """Which of a model's outputs the loss reads."""
        ...

    @property
    def stationary_at_clean(self) -> bool:
        """Whether the loss has no gradient at the clean picture, so that an attack must be nudged off it."""
        ...

    def prepare(self, index: Tensor) -> Tree:
        """Constants of the given rows, computed one row at a time so that they do not depend on their company."""
        ...

    def loss(self, out: Outputs, rows: Tree, member: Embedder) -> Tensor:
        """(n,), higher = better for the attacker."""
        ...

    def success(self, out: Outputs, rows: Tree) -> Tensor | None:
        """(n,) booleans, or None where no criterion was given."""
        ...


@runtime_checkable
class Joint(Protocol):
    """What a bound objective may offer besides: loss and success from one look at what both need."""

    def loss_and_success(self, out: Outputs, rows: Tree, member: Embedder) -> tuple[Tensor, Tensor | None]:
        """As `loss` and `success`, the second without gradient."""
        ...


def judged(bound: Bound, out: Outputs, rows: Tree, member: Embedder) -> tuple[Tensor, Tensor | None]:
    """Loss and success of (n,) rows, together where the objective can."""
    if isinstance(bound, Joint):
        return bound.loss_and_success(out, rows, member)
    loss = bound.loss(out, rows, member)
    with torch.no_grad():
        return loss, bound.success(out, rows)


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Targets as a user may give them, brought to embeddings of shape (N, W, D)."""

    given: Tensor
    what: str

    @property
    def are_embeddings(self) -> bool:
        """Embeddings have two or three axes, pictures four or five."""
        return self.given.ndim <= 3

    def embedded(self, member: Embedder, tile: int) -> Tensor:
        """(N, W, D) float32 in the member's space.

        Raises:
            ConfigError: neither pictures nor embeddings, or embeddings of another length than the member's.
        """
        given = self.given
        if given.ndim not in (2, 3, 4, 5):
            raise ConfigError(
                f"{self.what} must be pictures (N, C, H, W) or (N, W, C, H, W), or embeddings (N, D) or (N, W, D); "
                f"not a tensor of shape {tuple(given.shape)}"
            )
        if self.are_embeddings:
            embeddings = in_space(finite(given.detach().float(), self.what), member, self.what)
            return embeddings if given.ndim == 3 else embeddings.unsqueeze(1)
        grouped = given if given.ndim == 5 else given.unsqueeze(1)
        n, width = grouped.shape[:2]
        return member.embed(grouped.flatten(0, 1), tile=tile).view(n, width, -1).to(member.device)

    def single(self, member: Embedder, tile: int) -> Tensor:
        """(N, D) float32 where an objective knows one target per row.

        Raises:
            ConfigError: as `embedded`, or several targets per row.
        """
        embeddings = self.embedded(member, tile)
        if embeddings.shape[1] != 1:
            raise ConfigError(f"{self.what} has {embeddings.shape[1]} targets per row; this objective takes one per row")
        return embeddings.squeeze(1)


def gallery_embeddings(gallery: Tensor, member: Embedder, tile: int) -> Tensor:
    """The gallery (M, D) in the member's space: embeddings as they are, pictures (M, C, H, W) embedded once.

    Raises:
        ConfigError: another shape, or embeddings of another length than the member's.
    """
    if gallery.ndim == 2:
        return in_space(finite(gallery.detach().float(), "gallery"), member, "gallery")
    if gallery.ndim == 4:
        return member.embed(gallery, tile=tile).to(member.device)
    raise ConfigError(f"gallery must be (M, D) embeddings or (M, C, H, W) pictures, not of shape {tuple(gallery.shape)}")


def finite(values: Tensor, what: str) -> Tensor:
    """Returns `values` if all are finite, an InputError otherwise."""
    # One NaN makes the sum NaN: a large gallery is not looked at number by number unless something is wrong.
    if not torch.isfinite(values.sum()) and not torch.isfinite(values).all():
        raise InputError(
            f"{what} has {int((~torch.isfinite(values)).sum())} NaN or infinite value(s); leave those rows out"
        )
    return values


def in_space(embeddings: Tensor, member: Embedder, what: str) -> Tensor:
    """Returns the embeddings on the member's device, a ConfigError if they are not of its length."""
    if member.dimension not in (None, embeddings.shape[-1]):
        raise ConfigError(
            f"{what} holds embeddings of {embeddings.shape[-1]} numbers, {member.name} gives {member.dimension}; "
            f"embed them with the attacked model, or give pictures"
        )
    return embeddings.to(member.device)


def check_direction(direction: str) -> None:
    """ConfigError unless "raise" (towards rank 0) or "lower"."""
    if direction not in ("raise", "lower"):
        raise ConfigError(f"direction must be 'raise' (the rank number falls) or 'lower', not {direction!r}")


def per_row(value: float | Tensor | None, count: int, what: str, device: torch.device) -> Tensor | None:
    """A scalar or (N,) criterion as (N,) float32, or None.

    Raises:
        ConfigError: another number of values than rows.
    """
    if value is None:
        return None
    values = torch.as_tensor(value, dtype=torch.float32, device=device)
    if values.ndim not in (0, 1) or (values.ndim == 1 and len(values) != count):
        raise ConfigError(f"{what} must be one number or {count} numbers, one per row; not of shape {tuple(values.shape)}")
    return values.expand(count).clone()


def embedding_of(out: Outputs) -> Tensor:
    """The embedding among a member's outputs, float32 whatever precision it was computed in."""
    return out[EMBEDDING].float()

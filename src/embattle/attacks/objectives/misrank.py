"""LTM: every item of another class is to stand before the items of the attacked picture's own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from embattle.attacks.objective import Outputs, embedding_of, gallery_embeddings
from embattle.attacks.objectives import OBJECTIVES
from embattle.attacks.objectives.candidate_rank import check_k
from embattle.attacks.objectives.own_copy import check_own
from embattle.attacks.tree import Tree
from embattle.closer import Closer
from embattle.embedders import EMBEDDING, Embedder
from embattle.errors import ConfigError
from embattle.similarity import against, euclidean_distance


@dataclass(frozen=True, kw_only=True, eq=False)
class Misrank:
    """Brings the farthest item of another class nearer than the nearest item of the row's class (Wang et al. 2020, Eq. 1).

    The loss is −[max d(x, other class) − min d(x, own class)]₊ over the gallery. d is the Euclidean distance; under the
    cosine it is that between embeddings of length 1. Where a class has no other member, only the farthest item is pulled.

    Args:
        gallery: (M, C, H, W) pictures or (M, D) embeddings.
        labels: (M,) whole numbers, the classes of the gallery's items.
        classes: (N,) whole numbers, the classes of the attacked pictures.
        own: (N,) gallery positions of the attacked pictures' own clean copies, to leave them out; None keeps them, as the
            public implementation does: its nearest item of the own class is then the picture itself.
        k: success when none of the first k items is of the row's class.

    Raises:
        ConfigError: shapes that do not fit, a row without an item of another class, k outside 1..M.
    """

    gallery: Tensor
    labels: Tensor
    classes: Tensor
    own: Tensor | None = None
    k: int | None = None

    taps = (EMBEDDING,)
    stationary_at_clean = False

    @property
    def holds_embeddings(self) -> bool:
        """Whether the gallery is embeddings."""
        return self.gallery.ndim == 2

    def bind(self, member: Embedder, *, tile: int = 256) -> BoundMisrank:
        """Embeds the gallery in the member's space."""
        return BoundMisrank(self, member, tile)


class BoundMisrank:
    """Misrank in one embedder's space."""

    taps = (EMBEDDING,)
    stationary_at_clean = False

    def __init__(self, objective: Misrank, member: Embedder, tile: int) -> None:
        self.gallery = gallery_embeddings(objective.gallery, member, tile)
        self.labels = _whole(objective.labels, "labels", len(self.gallery)).to(member.device)
        self.classes = _whole(objective.classes, "classes", None).to(member.device)
        self.count = len(self.classes)
        own = check_own(objective.own, self.count, len(self.gallery))
        self.own = own if own is None else own.to(member.device)
        _check_others(self.labels, self.classes)
        self.k = check_k(objective.k, len(self.gallery) - (self.own is not None))
        self.fingerprint = member.fingerprint
        self._similarity = member.similarity
        self._against_gallery = against(member.similarity, self.gallery)
        self._closer = Closer(self.gallery, member.similarity)

    def prepare(self, index: Tensor) -> Tree:
        """Each row's class (n,) and own gallery position (n,)."""
        rows = {"class": self.classes[index]}
        return rows if self.own is None else rows | {"own": self.own[index]}

    def loss(self, out: Outputs, rows: Tree, member: Embedder) -> Tensor:
        """Minus the hinge, (n,)."""
        z = embedding_of(out)
        same, mates = self._masks(rows)
        with torch.no_grad():
            gallery = self._against_gallery(z.detach())
            far = torch.where(same, torch.inf, gallery).argmin(1)
            near = torch.where(mates, gallery, -torch.inf).argmax(1)
        pull = self._distance(z, far)
        push = torch.where(mates.any(1), self._distance(z, near), torch.zeros_like(pull))
        return -(pull - push).clamp_min(0)

    def success(self, out: Outputs, rows: Tree) -> Tensor | None:
        """Whether at least k items of other classes are closer than the nearest item of the row's class."""
        if self.k is None:
            return None
        z = embedding_of(out)
        same, mates = self._masks(rows)
        gallery = self._against_gallery(z.detach())
        near = torch.where(mates, gallery, -torch.inf).argmax(1)
        nearest = self._similarity.pair(z.double(), self.gallery[near].double())
        nearest = torch.where(mates.any(1), nearest, -torch.inf)
        return self._closer.count(z, torch.where(same, -torch.inf, gallery), nearest) >= self.k

    def _masks(self, rows: Tree) -> tuple[Tensor, Tensor]:
        """(n, M): which items are of the row's class, and which of them are not its own copy."""
        same = self.labels == rows["class"].unsqueeze(1)
        return same, same if "own" not in rows else same.scatter(1, rows["own"].unsqueeze(1), False)

    def _distance(self, z: Tensor, items: Tensor) -> Tensor:
        return euclidean_distance(self._similarity, self._similarity.pair(z, self.gallery[items]))


def _whole(values: Tensor, what: str, count: int | None) -> Tensor:
    values = torch.as_tensor(values)
    if values.ndim != 1 or values.is_floating_point() or (count is not None and len(values) != count):
        wanted = "one for each attacked picture" if count is None else f"{count} of them, one for each gallery item"
        raise ConfigError(f"{what} must be whole numbers, {wanted}; not {values.dtype} of {tuple(values.shape)}")
    return values.long()


def _check_others(labels: Tensor, classes: Tensor) -> None:
    present = labels.unique()
    if len(classes) and len(present) == 1 and bool((classes == present).any()):
        raise ConfigError("every item of the gallery is of one class; misranking needs items of at least two")


def _example() -> Misrank:
    pictures = torch.linspace(0, 1, 12 * 64).view(12, 1, 8, 8).flip(0)
    return Misrank(gallery=pictures.sqrt(), labels=torch.arange(12) // 4, classes=torch.arange(6) // 4, k=1)


OBJECTIVES.register(
    "misrank",
    example=_example,
    paper="Wang et al. 2020, Transferable, Controllable, and Inconspicuous Adversarial Attacks on Person "
    "Re-identification With Deep Mis-Ranking, Eq. 1",
    access="gradient",
    differs="the whole gallery instead of a mini-batch, plain instead of squared distances, no margin, no generator",
)(Misrank)

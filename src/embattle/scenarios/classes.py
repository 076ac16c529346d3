"""Scenarios that read the gallery's labels: whose nearest neighbour is right, and who is the nearest of another class."""

from __future__ import annotations

import torch
from torch import Tensor

from embattle.data import ImageSet
from embattle.errors import ConfigError
from embattle.scenarios.subject import Subject
from embattle.similarity import against


def class_count(images: ImageSet) -> int:
    """How many classes the labels of a set tell apart; 0 without labels."""
    return 0 if images.labels is None else len(images.labels.unique())


def labels_of(subject: Subject, wanted: int) -> Tensor:
    """(M,) classes of the gallery's items.

    Raises:
        ConfigError: no labels, or fewer than `wanted` classes.
    """
    labels = subject.images.labels
    if labels is None:
        raise ConfigError(f"this scenario needs labels, and {subject.images.name} has none")
    if class_count(subject.images) < wanted:
        raise ConfigError(
            f"this scenario needs items of {wanted} classes, and all of {subject.images.name} are of one class"
        )
    return labels


def recalled(subject: Subject, rows: Tensor, z: Tensor) -> Tensor:
    """Per picture 100 where the nearest item, the picture itself left out, has its class, and 0 where it has not.

    NaN for a picture that is alone in its class: there is nothing to find.
    """
    labels = labels_of(subject, 1)
    _, places = subject.index.nearest(z, 2)
    nearest = torch.where(places[:, 0] == rows, places[:, 1], places[:, 0])
    right = (labels[nearest] == labels[rows]).double() * 100
    return torch.where(labels.bincount()[labels[rows]] > 1, right, torch.nan)


def nearest_of_another_class(subject: Subject, rows: Tensor) -> Tensor:
    """(n,) gallery positions of the nearest item that does not have the picture's class; of equal ones the first."""
    labels = labels_of(subject, 2)
    cross = against(subject.similarity, subject.z)
    # One picture at a time: a product rounds differently in other company.
    found = [torch.where(labels == labels[row], -torch.inf, cross(subject.z[row : row + 1])[0]) for row in rows.tolist()]
    return torch.stack([_first_highest(similarities) for similarities in found])


def compressed_place(subject: Subject, rows: Tensor) -> Tensor:
    """(n,) positions that the public implementation of GTM takes for the nearest item of another class.

    It keeps of each row the items that differ from the class of the picture's nearest neighbour, finds the best of them,
    and uses its place among those kept as a place in the gallery. Usually that is another item, of any class.
    """
    labels = labels_of(subject, 2)
    cross = against(subject.similarity, subject.z)
    places = []
    for row in rows.tolist():
        similarities = cross(subject.z[row : row + 1])[0].clone()
        similarities[row] = -torch.inf
        kept = labels != labels[_first_highest(similarities)]
        places.append(_first_highest(similarities[kept]))
    return torch.stack(places)


def _first_highest(values: Tensor) -> Tensor:
    """Position of the largest value; of equal ones the first, which argmax does not promise."""
    return (values == values.max()).nonzero()[0, 0]

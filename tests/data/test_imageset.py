"""ImageSet: what it refuses, what its fingerprint depends on, and that taking and finding are inverse."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from embattle.data import ImageSet
from embattle.errors import DataError


def small(n: int = 5) -> ImageSet:
    images = torch.arange(n * 3 * 2 * 4).reshape(n, 3, 2, 4).remainder(256).to(torch.uint8)
    return ImageSet(
        name="small", images=images, labels=torch.arange(n) % 2, classes=("a", "b"), ids=tuple(f"s/{i}" for i in range(n))
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"images": torch.zeros(5, 3, 2, 4)}, r"must be a uint8 tensor .* not torch.float32 \(5, 3, 2, 4\)"),
        ({"images": torch.zeros(3, 2, 4, dtype=torch.uint8)}, r"not torch.uint8 \(3, 2, 4\)"),
        ({"images": torch.zeros(5, 2, 2, 4, dtype=torch.uint8)}, r"allowed is \(N, C, H, W\) with C = 1"),
        ({"images": torch.zeros(0, 3, 2, 4, dtype=torch.uint8), "ids": ()}, "no side of length 0"),
        ({"ids": ("s/0",)}, "5 images came with 1 ids"),
        ({"ids": ("a", "b", "c", "b", "d")}, "the id 'b' is given to two images; ids must be unique"),
        (
            {"labels": torch.zeros(4, dtype=torch.int64)},
            r"labels must be int64 of the shape \(5,\), not torch.int64 \(4,\)",
        ),
        ({"labels": torch.zeros(5)}, "not torch.float32"),
        ({"labels": torch.tensor([0, 1, 2, 0, 0])}, "labels lie between 0 and 2; allowed are 0 to 1"),
        ({"labels": torch.tensor([0, -1, 0, 0, 0]), "classes": None}, "allowed are 0 and above"),
        ({"labels": None}, "class names were given without labels"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict, sentence: str) -> None:
    with pytest.raises(DataError, match=f"^small: .*{sentence}"):
        replace(small(), **change)


def test_take_and_positions_are_inverse() -> None:
    data = small()
    taken = data.take([4, 1, 2])
    assert taken.ids == ("s/4", "s/1", "s/2")
    assert torch.equal(taken.images, data.images[[4, 1, 2]])
    assert taken.labels is not None
    assert taken.labels.tolist() == [0, 1, 0]
    assert taken.classes == data.classes
    assert data.positions(taken.ids).tolist() == [4, 1, 2]
    assert data.take(data.positions(taken.ids)).fingerprint == taken.fingerprint


@pytest.mark.parametrize(
    ("indices", "sentence"),
    [
        ([], "no image was asked for"),
        ([0, 5], r"positions 0 to 5 were asked for, but it has 5 images \(0 to 4\)"),
        ([-1], "positions -1 to -1 were asked for"),
        ([1, 1], "the id 's/1' is given to two images"),
        (torch.tensor([True] * 5), "must be a list of whole numbers"),
        ([0.5], "must be a list of whole numbers"),
    ],
)
def test_positions_that_cannot_be_taken(indices, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        small().take(indices)


def test_an_unknown_id_is_named() -> None:
    with pytest.raises(DataError, match=r"no image has the id 'x' \(1 unknown in all\); ids here look like 's/0'"):
        small().positions(["s/1", "x"])


def test_pixels_are_exact_255ths() -> None:
    data = small()
    assert data.pixels().dtype == torch.float32
    assert torch.equal((data.pixels() * 255).round().to(torch.uint8), data.images)
    assert torch.equal(data.pixels([3, 3]), torch.stack([data.images[3].float() / 255] * 2))
    assert data.pixels(torch.tensor([2])).shape == (1, 3, 2, 4)


def test_the_fingerprint_follows_content_and_nothing_else() -> None:
    data = small()
    assert len(data.fingerprint) == 64
    assert data.fingerprint == small().fingerprint
    assert data.fingerprint == replace(data, name="other", notes=("n",)).fingerprint
    assert data.labels is not None
    pixel = data.images.clone()
    pixel[4, 2, 1, 3] ^= 1
    others = [
        replace(data, images=pixel),
        replace(data, images=data.images.transpose(2, 3).contiguous()),
        replace(data, labels=1 - data.labels),
        replace(data, labels=None, classes=None),
        replace(data, classes=("b", "a")),
        replace(data, ids=("t/0", *data.ids[1:])),
        data.take([0, 1, 2, 3]),
        data.take([1, 0, 2, 3, 4]),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)
    # A view with other strides holds the same pictures.
    strided = data.images.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)
    assert replace(data, images=strided).fingerprint == data.fingerprint


def test_what_it_says_about_itself() -> None:
    assert repr(small()) == "ImageSet('small': 5 images 3x2x4, 2 classes)"
    assert "unlabelled" in repr(replace(small(), labels=None, classes=None))
    assert (len(small()), small().channels, small().size, small().labelled) == (5, 3, (2, 4), True)

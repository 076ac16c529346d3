"""PNG round trip, resizing with its geometry, the difference picture and thumbnails."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embattle.errors import PixelError
from embattle.images import decode, difference, encode_png, from_tensor, resize, thumbnail, to_tensor

PICTURES = st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3])).flatmap(
    lambda shape: arrays(np.uint8, shape)
)


@given(image=PICTURES)
def test_png_gives_back_every_pixel_and_the_same_bytes_twice(image: np.ndarray) -> None:
    content = encode_png(image)
    assert np.array_equal(decode(content, mode="L" if image.shape[2] == 1 else "RGB"), image)
    assert encode_png(np.asfortranarray(image)) == content


@given(image=PICTURES)
def test_tensor_and_picture_are_each_others_inverse(image: np.ndarray) -> None:
    tensor = to_tensor(image)
    assert tensor.shape == (image.shape[2], *image.shape[:2])
    assert np.array_equal(from_tensor(tensor), image)
    tensor.zero_()
    assert from_tensor(tensor).max() == 0


@pytest.mark.parametrize("fit", ["pad", "stretch", "crop"])
@given(image=PICTURES, height=st.integers(1, 12), width=st.integers(1, 12))
@settings(max_examples=40)
def test_resize_has_the_asked_size_and_keeps_a_constant(fit: str, image: np.ndarray, height: int, width: int) -> None:
    resized = resize(image, (height, width), fit=fit)
    assert resized.shape == (height, width, image.shape[2])
    flat = resize(np.full_like(image, 77), (height, width), fit=fit, fill=77)
    assert (flat == 77).all()


def test_the_three_fits_differ_where_they_should() -> None:
    # Left half black, right half white, twice as wide as high.
    image = np.zeros((16, 32, 3), dtype=np.uint8)
    image[:, 16:] = 255
    padded = resize(image, 16, fill=100)
    assert (padded[:4] == 100).all()
    assert (padded[12:] == 100).all()
    assert padded[8, 1].tolist() == [0, 0, 0]
    assert padded[8, 14].tolist() == [255, 255, 255]
    cropped = resize(image, 16, fit="crop")
    assert (cropped[:, :6] == 0).all()
    assert (cropped[:, 10:] == 255).all()
    stretched = resize(image, 16, fit="stretch")
    assert (stretched[:, :5] == 0).all()
    assert (stretched[:, 11:] == 255).all()
    # The middle of a picture with marked ends: only "crop" loses the ends.
    image[:, :8] = 180
    assert (resize(image, 16, fit="crop")[:, 0] == 0).all()
    assert (resize(image, 16, fit="stretch")[:, 0] == 180).all()


def test_reduction_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 1), dtype=np.uint8)
    stripes[:, ::2] = 255
    middle = resize(stripes, 16)[4:12, 4:12].astype(int)
    assert np.abs(middle - 127.5).max() < 6


def test_same_size_is_a_copy() -> None:
    image = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    same = resize(image, 3)
    assert np.array_equal(same, image)
    assert not np.shares_memory(same, image)


def test_difference_is_grey_where_equal_and_enlarged_and_clipped_elsewhere() -> None:
    a = np.array([100, 100, 100, 100, 0], dtype=np.uint8).reshape(1, 5, 1)
    b = np.array([100, 103, 97, 0, 255], dtype=np.uint8).reshape(1, 5, 1)
    assert difference(a, b)[0, :, 0].tolist() == [127, 157, 97, 0, 255]
    assert difference(a, b, gain=1)[0, :, 0].tolist() == [127, 130, 124, 27, 255]


@given(height=st.integers(1, 300), width=st.integers(1, 300), side=st.integers(1, 130))
@settings(max_examples=60)
def test_thumbnail_fits_and_keeps_the_aspect_ratio(height: int, width: int, side: int) -> None:
    small = thumbnail(np.zeros((height, width, 1), dtype=np.uint8), side)
    longest = max(small.shape[:2])
    assert longest <= side
    assert longest * 2 > side
    ratio = longest / max(height, width)
    assert abs(small.shape[0] - max(1, height * ratio)) <= 1
    assert abs(small.shape[1] - max(1, width * ratio)) <= 1


def test_small_pictures_are_enlarged_pixel_by_pixel() -> None:
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    big = thumbnail(image, 96)
    assert big.shape == (84, 84, 3)
    assert np.array_equal(big[::3, ::3], image)
    assert np.array_equal(big[2::3, 1::3], image)


PICTURE = np.zeros((4, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: encode_png(PICTURE.astype(np.float32)),
            r"must be a numpy array of uint8, not float32; write \(x \* 255\)",
        ),
        (lambda: encode_png(PICTURE[:, :, 0]), r"must have the shape \(H, W, 1\) or \(H, W, 3\), not \(4, 4\)"),
        (lambda: encode_png(PICTURE[:0]), r"not \(0, 4, 3\)"),
        (lambda: encode_png(torch.zeros(1, 4, 4, dtype=torch.uint8)), "must be a numpy array of uint8"),
        (lambda: resize(PICTURE, 0), "cannot be resized to 0 x 0; its sides must lie between 1 and 8192"),
        (lambda: resize(PICTURE, 4, fit="squeeze"), "fit='squeeze' is unknown; write fit='pad'"),
        (lambda: resize(PICTURE, 4, fill=256), "fill=256 is no grey value"),
        (lambda: difference(PICTURE, PICTURE[:2]), r"shapes \(4, 4, 3\) and \(2, 4, 3\) have no difference"),
        (lambda: difference(PICTURE, PICTURE, gain=0), "gain=0 is not allowed"),
        (lambda: thumbnail(PICTURE, 0), "a thumbnail of side 0 is not possible"),
        (lambda: from_tensor(torch.zeros(3, 4, 4)), r"must be uint8, not torch.float32; round the pixels"),
        (lambda: from_tensor(torch.zeros(4, 4, 3, dtype=torch.uint8)), r"\(1, H, W\) or \(3, H, W\), not \(4, 4, 3\)"),
    ],
)
def test_wrong_input_is_a_sentence(call, sentence: str) -> None:
    with pytest.raises(PixelError, match=sentence):
        call()

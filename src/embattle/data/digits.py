"""The handwritten digits that come with scikit-learn: the default data, with nothing to download."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from embattle.data.catalogue import DATASETS, Progress, load
from embattle.data.imageset import ImageSet, Split

SIDE = 32
TEST_IMAGES = 500


def _test_rows(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Row numbers of the test split: each class gives its share, largest remainders first.

    Within a class the rows with the smallest sha256 of their number go: a fixed draw that depends on no random number
    generator, so that no library's next version can move a picture from the training set into the test set.
    """
    share = np.bincount(labels) * TEST_IMAGES / len(labels)
    counts = np.floor(share).astype(np.int64)
    for label in np.argsort(counts - share, kind="stable")[: TEST_IMAGES - int(counts.sum())]:
        counts[label] += 1
    chosen: list[int] = []
    for label, count in enumerate(counts):
        rows = np.flatnonzero(labels == label).tolist()
        rows.sort(key=lambda row: hashlib.sha256(f"digits/{row}".encode()).digest())
        chosen += rows[:count]
    return np.array(sorted(chosen), dtype=np.int64)


def _enlarged(image: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    # The originals count ink from 0 to 16 in 8 x 8 cells.
    grey = np.rint(image * (255 / 16)).astype(np.uint8)
    return np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


@DATASETS.register(
    "digits",
    example=lambda: load("digits"),
    paper="UCI ML hand-written digits (Alpaydin and Kaynak 1998), test part, as shipped with scikit-learn",
    differs="8 x 8 cells enlarged once to 32 x 32 pixels (bicubic), held as uint8",
)
def digits(split: Split, *, root: Path, progress: Progress | None = None) -> ImageSet:
    """1,797 handwritten digits, 32 x 32 grey: 500 for testing, 1,297 for training, nothing to download.

    Args:
        split: "train" or "test"; fixed and stratified by class.
        root: not used, the pictures come with scikit-learn.
        progress: not used.
    """
    # Imported here: scikit-learn takes a second to import, and other data sets do without it.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    in_test = np.zeros(len(labels), dtype=bool)
    in_test[_test_rows(labels)] = True
    rows = np.flatnonzero(in_test if split == "test" else ~in_test)
    images = np.stack([_enlarged(bunch.images[row]) for row in rows])[:, None]
    return ImageSet(
        name=f"digits/{split}",
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels[rows]),
        classes=tuple("0123456789"),
        ids=tuple(f"digits/{split}/{row:05d}" for row in rows),
    )

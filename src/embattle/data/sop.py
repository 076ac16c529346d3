"""Stanford Online Products under its name, from the data root."""

from __future__ import annotations

from pathlib import Path

from embattle.data.catalogue import DATASETS, Progress, folder_of, load
from embattle.data.folder import OnError
from embattle.data.imageset import ImageSet, Split
from embattle.data.online_products import load_sop
from embattle.errors import DataError


@DATASETS.register(
    "sop",
    example=lambda: load("sop", size=32).take(range(16)),
    paper="Song, Xiang, Jegelka and Savarese 2016, Deep Metric Learning via Lifted Structured Feature Embedding, CVPR",
    differs="each picture is fitted once into a square with white borders; the split is the official one",
)
def sop(
    split: Split, *, root: Path, progress: Progress | None = None, size: int | None = None, on_error: OnError = "raise"
) -> ImageSet:
    """Stanford Online Products: 120,053 pictures of 22,634 products, 59,551 for training, other products for testing.

    Args:
        split: "train" or "test", by the official lists; no product is in both.
        root: the data root; the unpacked archive is looked for in `root`/sop or `root`/Stanford_Online_Products.
        progress: not used: the archive (2.9 GB, for research only) is to be fetched by hand.
        size: side length in pixels; None: 128.
        on_error: "raise" at a picture that is missing or damaged, or "skip" such pictures with a note.

    Raises:
        DataError: the folder is not there, or its lists are broken.
        ImageFileError: a picture is missing or damaged, under on_error="raise".
    """
    folder = folder_of("sop", root)
    if folder is None:
        raise DataError(
            f"{root} holds neither sop/ nor Stanford_Online_Products/; get Stanford_Online_Products.zip from "
            "https://cvgl.stanford.edu/projects/lifted_struct/ and unpack it there, or give the folder above it as "
            "--data-root or EMBATTLE_DATA"
        )
    return load_sop(folder, split, size=size, on_error=on_error)

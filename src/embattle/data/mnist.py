"""MNIST and Fashion-MNIST from their four gzip-packed idx files, each checked by its sha256."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from embattle.data.catalogue import DATASETS, Progress, load
from embattle.data.fetch import Remote, fetch
from embattle.data.idx import read_idx
from embattle.data.imageset import ImageSet, Split
from embattle.errors import DataError

_PREFIX = {"train": "train", "test": "t10k"}


@dataclass(frozen=True, kw_only=True)
class _Source:
    name: str
    address: str
    classes: tuple[str, ...]
    files: Mapping[str, tuple[int, str]]


_MNIST = _Source(
    name="mnist",
    address="https://ossci-datasets.s3.amazonaws.com/mnist/",
    classes=tuple("0123456789"),
    files={
        "train-images-idx3-ubyte.gz": (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        "train-labels-idx1-ubyte.gz": (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        "t10k-images-idx3-ubyte.gz": (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        "t10k-labels-idx1-ubyte.gz": (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    },
)

_FASHION_MNIST = _Source(
    name="fashion_mnist",
    # The authors serve it over plain http only; the sha256 below is what is trusted, not the connection.
    address="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    files={
        "train-images-idx3-ubyte.gz": (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        "train-labels-idx1-ubyte.gz": (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        "t10k-images-idx3-ubyte.gz": (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        "t10k-labels-idx1-ubyte.gz": (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    },
)


def _load(source: _Source, split: Split, root: Path, progress: Progress | None) -> ImageSet:
    names = [f"{_PREFIX[split]}-images-idx3-ubyte.gz", f"{_PREFIX[split]}-labels-idx1-ubyte.gz"]
    remotes = [
        Remote(name=name, address=source.address + name, size=source.files[name][0], sha256=source.files[name][1])
        for name in names
    ]
    images_file, labels_file = fetch(remotes, root / source.name, progress=progress)
    images = read_idx(images_file, axes=3)
    labels = read_idx(labels_file, axes=1)
    if len(images) != len(labels):
        raise DataError(f"{images_file} has {len(images)} images, {labels_file} {len(labels)} labels; they must be equal")
    return ImageSet(
        name=f"{source.name}/{split}",
        images=torch.from_numpy(images)[:, None],
        labels=torch.from_numpy(labels).to(torch.int64),
        classes=source.classes,
        ids=tuple(f"{source.name}/{split}/{row:05d}" for row in range(len(images))),
    )


@DATASETS.register(
    "mnist",
    example=lambda: load("mnist").take(range(16)),
    paper="LeCun, Bottou, Bengio and Haffner 1998, Gradient-based learning applied to document recognition",
)
def mnist(split: Split, *, root: Path, progress: Progress | None = None) -> ImageSet:
    """MNIST: handwritten digits, 28 x 28 grey, 60,000 for training and 10,000 for testing.

    Args:
        split: "train" or "test".
        root: the data root; the files are looked for in `root`/mnist and downloaded there when missing.
        progress: called as progress(file name, bytes so far, bytes in all) during a download.

    Raises:
        DataError: a file is missing and cannot be downloaded, or is not the original.
    """
    return _load(_MNIST, split, root, progress)


@DATASETS.register(
    "fashion_mnist",
    example=lambda: load("fashion_mnist").take(range(16)),
    paper="Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747",
)
def fashion_mnist(split: Split, *, root: Path, progress: Progress | None = None) -> ImageSet:
    """Fashion-MNIST: articles of clothing, 28 x 28 grey, 60,000 for training and 10,000 for testing.

    Args:
        split: "train" or "test".
        root: the data root; the files are looked for in `root`/fashion_mnist and downloaded there when missing.
        progress: called as progress(file name, bytes so far, bytes in all) during a download.

    Raises:
        DataError: a file is missing and cannot be downloaded, or is not the original.
    """
    return _load(_FASHION_MNIST, split, root, progress)

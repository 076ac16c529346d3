"""digits, MNIST and Fashion-MNIST, and how `load` finds named sets and brings them to size and channels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from embattle.data import DATASETS, data_root, load
from embattle.errors import DataError


def test_digits_are_split_once_and_for_all() -> None:
    train, test = load("digits", split="train"), load("digits", split="test")
    assert (len(train), len(test)) == (1297, 500)
    assert train.images.shape[1:] == test.images.shape[1:] == (1, 32, 32)
    rows = [int(name.rsplit("/", 1)[1]) for name in train.ids + test.ids]
    assert sorted(rows) == list(range(1797))
    assert test.ids[0].startswith("digits/test/")
    assert train.classes == tuple("0123456789")
    assert train.labels is not None
    assert test.labels is not None
    share = torch.bincount(test.labels) / (torch.bincount(test.labels) + torch.bincount(train.labels))
    assert (share - 500 / 1797).abs().max() < 0.005
    # A change here moves every number that was ever measured on the default data.
    assert [int(name[-5:]) for name in test.ids[:12]] == [0, 1, 2, 4, 5, 8, 10, 11, 14, 24, 25, 32]
    assert test.labels[:12].tolist() == [0, 1, 2, 4, 5, 8, 0, 1, 4, 4, 5, 5]


def test_digits_are_the_originals_enlarged() -> None:
    from sklearn.datasets import load_digits

    bunch, test = load_digits(), load("digits")
    for position in (0, 17, 499):
        row = int(test.ids[position].rsplit("/", 1)[1])
        assert test.labels is not None
        assert int(test.labels[position]) == bunch.target[row]
        grey = np.rint(bunch.images[row] * 255 / 16).astype(np.uint8)
        expected = np.asarray(Image.fromarray(grey).resize((32, 32), Image.Resampling.BICUBIC))
        assert np.array_equal(test.images[position, 0].numpy(), expected)


def test_all_joins_both_splits() -> None:
    whole = load("digits", split="all")
    assert whole.name == "digits/all"
    assert whole.ids == load("digits", split="train").ids + load("digits", split="test").ids
    assert torch.equal(whole.images[1297:], load("digits").images)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "total", "counts"),
    [
        ("mnist", 10_000, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
        ("fashion_mnist", 10_000, [1000] * 10),
        ("mnist", 60_000, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        ("fashion_mnist", 60_000, [6000] * 10),
    ],
)
def test_the_original_files_have_the_known_counts(data_root: Path, name: str, total: int, counts: list[int]) -> None:
    split = "test" if total == 10_000 else "train"
    data = load(name, split=split, root=data_root)
    assert data.images.shape == (total, 1, 28, 28)
    assert data.labels is not None
    assert torch.bincount(data.labels).tolist() == counts
    assert data.ids[17] == f"{name}/{split}/00017"
    assert data.ids[-1] == f"{name}/{split}/{total - 1:05d}"


@pytest.mark.real_data
def test_the_first_mnist_test_image_is_the_seven_everybody_knows(data_root: Path) -> None:
    data = load("mnist", root=data_root)
    assert data.labels is not None
    assert data.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    # Its top bar: rows 7 to 9 are inked from column 6 on, row 6 is empty; the arrays are (row, column), not turned.
    assert int(data.images[0, 0, 6].max()) == 0
    assert data.images[0, 0, 7, 6:12].tolist() == [84, 185, 159, 151, 60, 36]


@pytest.mark.real_data
def test_a_file_that_is_not_the_original_is_refused_and_left_alone(data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root / "mnist", tmp_path / "mnist")
    labels = tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz"
    labels.chmod(0o644)
    content = bytearray(labels.read_bytes())
    content[2000] ^= 1
    labels.write_bytes(content)
    with pytest.raises(DataError, match=r"t10k-labels.*gz is not the original file: its sha256 is .*; expected .*f7ae60f9"):
        load("mnist", root=tmp_path)
    assert labels.read_bytes() == content
    labels.write_bytes(content[:-1])
    with pytest.raises(DataError, match="its length is 4,541 bytes, not 4,542"):
        load("mnist", root=tmp_path)


def test_size_and_channels_are_changed_once(tmp_path: Path) -> None:
    data, small = load("digits"), load("digits", size=16, channels=3)
    assert small.images.shape == (500, 3, 16, 16)
    assert torch.equal(small.images[:, 0], small.images[:, 2])
    expected = np.asarray(Image.fromarray(data.images[3, 0].numpy()).resize((16, 16), Image.Resampling.LANCZOS))
    assert np.array_equal(small.images[3, 1].numpy(), expected)
    assert small.ids == data.ids


def test_where_data_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("EMBATTLE_DATA", raising=False)
    assert data_root() == tmp_path / ".cache" / "embattle" / "data"
    monkeypatch.setenv("EMBATTLE_DATA", "")
    assert data_root() == tmp_path / ".cache" / "embattle" / "data"
    monkeypatch.setenv("EMBATTLE_DATA", "~/pictures")
    assert data_root() == tmp_path / "pictures"
    assert data_root(Path("here")) == Path("here")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"spec": "minst"},
            r"no data set and no folder called 'minst'\. Did you mean mnist\? Data sets: clothing, digits, fash",
        ),
        ({"spec": "no/such\0folder"}, "no data set and no folder called"),
        ({"spec": "x" * 5000}, "no data set and no folder called"),
        ({"spec": "digits", "split": "validation"}, "split='validation' is unknown; write one of train, test, all"),
        ({"spec": "digits", "channels": 4}, "channels=4 is not possible"),
        ({"spec": "digits", "size": 0}, "size=0 is not possible; the side of a picture must lie between 1 and 4096"),
        ({"spec": "digits", "size": 4096, "channels": 3}, r"500 pictures of 4096 x 4096 with 3 channels need 23\.4 GiB"),
    ],
)
def test_what_load_cannot_do_is_a_sentence(arguments: dict, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        load(**arguments)


def test_the_catalogue_describes_itself() -> None:
    assert [entry.name for entry in DATASETS] == ["clothing", "digits", "fashion_mnist", "mnist", "sop"]
    assert all(entry.summary and entry.paper for entry in DATASETS)
    assert len(DATASETS["digits"].example()) == 500

"""Stanford Online Products: a small folder with the archive's own layout, as it should be and broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from embattle.data import folder_of, has_size, has_split, load
from embattle.data.online_products import COLUMNS, LISTS, is_sop, read_list
from embattle.errors import DataError, ImageFileError

HEADING = " ".join(COLUMNS)
# Lines of a list: image, product, kind, path. Products 1 to 3 are for training, 4 and 7 for testing; 5 and 6 do not exist.
TRAIN = (
    "1 1 1 bicycle_final/111085122871_0.JPG",
    "2 1 1 bicycle_final/111085122871_1.JPG",
    "3 2 1 bicycle_final/111265328556_0.JPG",
    "4 2 1 bicycle_final/111265328556_1.JPG",
    "5 3 12 toaster_final/151021163200_0.JPG",
)
TEST = (
    "6 7 12 toaster_final/171000000000_0.JPG",
    "7 7 12 toaster_final/171000000000_1.JPG",
    "8 4 2 cabinet_final/121000000000_0.JPG",
)


def grey_of(line: str) -> int:
    return 20 * int(line.split()[0])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with the unpacked archive; every picture has a grey of its own, and its own width."""
    folder = tmp_path / "Stanford_Online_Products"
    for name, lines in zip(LISTS.values(), (TRAIN, TEST), strict=True):
        for line in lines:
            path = folder / line.split()[3]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (10 + int(line.split()[0]), 10), (grey_of(line),) * 3).save(path, "JPEG")
        (folder / name).write_text("\n".join((HEADING, *lines)) + "\n")
    # The archive has more lists beside the two; they are not read.
    (folder / "Ebay_info.txt").write_text("not a list of pictures")
    return tmp_path


@pytest.fixture
def folder(root: Path) -> Path:
    return root / "Stanford_Online_Products"


@pytest.mark.parametrize(("split", "lines", "labels"), [("train", TRAIN, [0, 0, 1, 1, 2]), ("test", TEST, [4, 4, 3])])
def test_a_split_is_what_its_list_says(root: Path, split: str, lines: tuple[str, ...], labels: list[int]) -> None:
    data = load("sop", split=split, root=root, size=8)
    assert data.name == f"sop/{split}"
    assert data.ids == tuple(f"sop/{line.split()[3]}" for line in lines)
    assert data.images.shape == (len(lines), 3, 8, 8)
    assert [int(image[0, 4, 4]) for image in data.images] == pytest.approx([grey_of(line) for line in lines], abs=2)
    assert data.labels is not None
    assert data.labels.tolist() == labels
    assert data.classes == ("1", "2", "3", "4", "7")
    assert data.notes == ()


def test_splits_share_no_product_and_join_to_the_whole(root: Path) -> None:
    train, test, whole = (load("sop", split=split, root=root, size=8) for split in ("train", "test", "all"))
    assert train.labels is not None
    assert test.labels is not None
    assert not set(train.labels.tolist()) & set(test.labels.tolist())
    assert whole.ids == train.ids + test.ids
    assert whole.labels is not None
    assert whole.labels.tolist() == [0, 0, 1, 1, 2, 4, 4, 3]
    # Three products with two pictures each: what leave-one-out recall is about.
    assert torch.bincount(whole.labels).tolist() == [2, 2, 1, 1, 2]


def test_a_path_to_the_folder_is_the_same_set(root: Path, folder: Path) -> None:
    assert is_sop(folder)
    assert has_split(folder)
    for split in ("train", "test", "all"):
        assert load(folder, split=split, size=8).fingerprint == load("sop", split=split, root=root, size=8).fingerprint
    assert load(folder, size=8, channels=1).channels == 1
    assert load(str(folder)).size == load("sop", root=root).size == (128, 128)


def test_the_folder_may_have_the_short_name_too(root: Path, folder: Path) -> None:
    assert folder_of("sop", root) == folder
    folder.rename(root / "sop")
    assert folder_of("sop", root) == root / "sop"
    assert len(load("sop", root=root, size=8)) == 3
    assert not has_size("sop")
    with pytest.raises(
        DataError, match=r"holds neither sop/ nor Stanford_Online_Products/; get Stanford_Online_Products\.z"
    ):
        load("sop", root=root / "elsewhere")


def test_pictures_keep_their_aspect_ratio(folder: Path) -> None:
    Image.fromarray(np.zeros((10, 40, 3), dtype=np.uint8)).save(folder / TEST[0].split()[3], "JPEG")
    first = load(folder, size=16).images[0, 0]
    assert first[:, 8].tolist() == [255] * 6 + [0] * 4 + [255] * 6


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (("image_id,class_id", *TEST), r"begins with 'image_id,class_id'; its first line must be image_id class_id super"),
        (TEST, r"begins with '6 7 12 toaster_final.*'; its first line must be"),
        (
            (HEADING, TEST[0], "7 7 toaster_final/x.JPG"),
            r"line 3 is '7 7 toaster_final/x\.JPG'; a line must hold three whole",
        ),
        ((HEADING, "7 seven 12 toaster_final/x.JPG"), "line 2 is '7 seven 12 .*'; a line must hold three whole numbers"),
        ((HEADING, "7 ٣ 12 toaster_final/x.JPG"), "line 2 is .*; a line must hold three whole numbers"),
        ((HEADING, "7 7 12 a b.JPG"), "line 2 is '7 7 12 a b.JPG'; a line must hold three whole numbers and a path"),
        ((HEADING, "7 7 12 ../secret.JPG"), r"line 2: '\.\./secret\.JPG' leads out of the folder"),
        ((HEADING, "7 7 12 /etc/passwd"), "line 2: '/etc/passwd' leads out of the folder; paths must lie below it"),
        ((HEADING, TEST[0], TEST[0]), r"line 3: toaster_final/171000000000_0\.JPG is listed twice"),
        ((HEADING,), "lists no picture; put the original list there"),
        ((), "lists no picture"),
        (
            (HEADING, TEST[0], TRAIN[4]),
            "1 products are in both lists, the first is 3; the official split keeps every product",
        ),
    ],
)
def test_a_broken_list_is_a_sentence(folder: Path, lines: tuple[str, ...], sentence: str) -> None:
    (folder / LISTS["test"]).write_text("\n".join(lines), encoding="utf-8")
    # Whichever split is asked for: a leak between them concerns both.
    for split in ("train", "test"):
        with pytest.raises(DataError, match=sentence):
            load(folder, split=split, size=8)


def test_lists_that_are_missing_or_no_text_are_sentences(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / LISTS["test"]).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"Ebay_test\.txt cannot be read as text"):
        load(folder, size=8)
    (folder / LISTS["test"]).unlink()
    # Not silently taken for a folder of twelve classes.
    with pytest.raises(DataError, match=r"Ebay_test\.txt does not exist; .*Ebay_train\.txt and Ebay_test\.txt beside"):
        load(folder, size=8)
    monkeypatch.setattr("embattle.data.online_products.LARGEST_LIST", 100)
    with pytest.raises(DataError, match=r"Ebay_train\.txt is longer than 100 bytes"):
        load(folder, size=8)


def test_windows_line_ends_and_empty_lines_are_read(folder: Path) -> None:
    before = read_list(folder / LISTS["test"])
    (folder / LISTS["test"]).write_bytes("\r\n".join((HEADING, *TEST, "", "")).encode())
    assert read_list(folder / LISTS["test"]) == before
    assert [each.product for each in before] == [7, 7, 4]


def test_pictures_that_are_missing_damaged_or_elsewhere_are_named_or_left_out(root: Path, folder: Path) -> None:
    first, second = (folder / line.split()[3] for line in TRAIN[:2])
    first.unlink()
    second.write_bytes(second.read_bytes()[:200])
    third = folder / TRAIN[2].split()[3]
    third.rename(root / "outside.JPG")
    third.symlink_to(root / "outside.JPG")
    for path, sentence in (
        (first, "does not exist"),
        (second, "is damaged or cut short"),
        (third, "link to a file outside"),
    ):
        with pytest.raises(
            ImageFileError, match=rf"{path.name} .*{sentence}.*\(--on-error skip, in Python on_error='skip'"
        ):
            load("sop", split="train", root=root, size=8)
        path.unlink(missing_ok=True)
        Image.new("RGB", (8, 8)).save(path, "JPEG")
    first.unlink()
    data = load("sop", split="train", root=root, size=8, on_error="skip")
    assert data.ids == tuple(f"sop/{line.split()[3]}" for line in TRAIN[1:])
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 1, 2]
    assert len(data.notes) == 1
    assert data.notes[0].startswith(f"pictures that could not be read were left out: 1, the first is {first}")
    for line in TRAIN[1:4]:
        (folder / line.split()[3]).unlink()
    with pytest.raises(DataError, match="has 1 readable pictures of its train split; at least 2 are needed"):
        load("sop", split="train", root=root, size=8, on_error="skip")
    with pytest.raises(DataError, match="on_error='ignore' is unknown"):
        load("sop", root=root, on_error="ignore")


def test_memory_is_bounded_before_a_picture_is_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embattle.data.fitting.LARGEST_SET", 3 * 3 * 8 * 8)
    assert len(load(folder, size=8)) == 3
    with pytest.raises(DataError, match=r"sop/test: 3 pictures of 9 x 9 with 3 channels need .* GiB"):
        load(folder, size=9)
    with pytest.raises(DataError, match="size=0 is not possible"):
        load(folder, size=0)

"""Folders of pictures: how labels are found, what is left out, what is refused, and that order and split are fixed."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from embattle.data import load, load_folder
from embattle.errors import DataError, ImageFileError


def put(path: Path, size: tuple[int, int] = (8, 8), colour: int | tuple[int, int, int] = (10, 20, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(path)


def test_an_empty_folder_and_one_image_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no picture; at least 2 images are needed, as files ending in \.jpg"):
        load(str(tmp_path))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"no picture \(files without .* were left out: 1, the first is notes\.txt\)"):
        load(str(tmp_path))
    put(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"holds only one picture .*; at least 2 images are needed"):
        load(str(tmp_path))


def test_no_folder_and_a_file_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*gone; give the path of a folder of pictures"):
        load_folder(tmp_path / "gone")
    put(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png is a file, not a folder"):
        load(tmp_path / "a.png")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DataError, match=r"there is no folder .*loop"):
        load(tmp_path / "loop")


def test_a_flat_folder_has_no_labels_and_is_not_split(tmp_path: Path) -> None:
    for index in range(4):
        put(tmp_path / f"{index}.png", colour=(index, 0, 0))
    data = load(tmp_path, split="test")
    assert data.ids == ("0.png", "1.png", "2.png", "3.png")
    assert data.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert (data.labels, data.classes, data.notes) == (None, None, ())
    assert data.fingerprint == load(tmp_path, split="train").fingerprint


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    for name in ("shoe/a.png", "shoe/deep/b.JPG", "bag/a.png", "bag/c.webp"):
        put(tmp_path / name)
    (tmp_path / "README.md").write_text("not a picture")
    put(tmp_path / ".thumbnails" / "x.png")
    put(tmp_path / "bag" / "._c.png")
    data = load_folder(tmp_path)
    assert data.ids == ("bag/a.png", "bag/c.webp", "shoe/a.png", "shoe/deep/b.JPG")
    assert data.classes == ("bag", "shoe")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert data.notes == ("files without the extension of a picture were left out: 1, the first is README.md",)


def test_a_mixed_folder_and_a_single_sub_folder_have_no_labels_and_say_so(tmp_path: Path) -> None:
    for name in ("one/a.png", "one/b.png"):
        put(tmp_path / name)
    data = load_folder(tmp_path)
    assert data.labels is None
    assert data.notes == ("all pictures lie in one sub-folder, 'one'; one class is no labelling: the set has no labels",)
    put(tmp_path / "two" / "c.png")
    assert load_folder(tmp_path).labelled
    put(tmp_path / "d.png")
    data = load_folder(tmp_path)
    assert data.labels is None
    assert len(data) == 4
    assert data.notes[0].startswith("some pictures lie in sub-folders (3) and some do not (1), so sub-folders are not")


def test_the_split_depends_on_the_id_alone(tmp_path: Path) -> None:
    for index in range(60):
        put(tmp_path / f"class{index % 3}" / f"{index:03d}.png", colour=index)
    train, test, whole = (load_folder(tmp_path, split=split) for split in ("train", "test", "all"))
    assert sorted(train.ids + test.ids) == list(whole.ids)
    for data, expected in ((train, False), (test, True)):
        for name in data.ids:
            share = int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 2**64
            assert (share < 0.2) == expected
    assert 4 <= len(test) <= 20
    assert train.classes == test.classes == ("class0", "class1", "class2")
    assert (train.name, whole.name) == (f"{tmp_path.name}/train", tmp_path.name)
    # Taking pictures away moves no other one across.
    (tmp_path / train.ids[0]).unlink()
    (tmp_path / test.ids[0]).unlink()
    assert load_folder(tmp_path, split="test").ids == test.ids[1:]
    assert load_folder(tmp_path, split="train").ids == train.ids[1:]


def test_a_split_that_is_too_small_is_a_sentence(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png"):
        put(tmp_path / name)
    with pytest.raises(
        DataError, match=r"the test split of .* has \d of its 2 pictures, at least 2 are needed; add pic.*'all'"
    ):
        load(tmp_path, split="test")
    assert len(load(tmp_path, split="all")) == 2


def test_equal_sizes_are_kept_and_others_are_fitted_once(tmp_path: Path) -> None:
    put(tmp_path / "a.png", size=(30, 20), colour=0)
    put(tmp_path / "b.png", size=(30, 20), colour=0)
    assert load_folder(tmp_path).images.shape == (2, 1, 20, 30)
    put(tmp_path / "c.png", size=(40, 20), colour=0)
    data = load_folder(tmp_path)
    assert data.images.shape == (3, 1, 128, 128)
    assert data.notes == (
        "the pictures have 2 different sizes; each was fitted once into 128 x 128 with white borders "
        "(--size, in Python size=, chooses another side)",
    )
    # 40 x 20 into a square: a quarter of white above and below.
    assert data.images[2, 0, :, 64].tolist() == [255] * 32 + [0] * 64 + [255] * 32
    assert load_folder(tmp_path, size=16).images.shape == (3, 1, 16, 16)
    assert load_folder(tmp_path, size=16).notes == ()


def test_size_and_channels_are_those_of_the_whole_folder_in_both_splits(tmp_path: Path) -> None:
    names = [f"c{index % 2}/{index}.png" for index in range(40)]
    test_ids = [n for n in names if int(hashlib.sha256(n.encode()).hexdigest()[:16], 16) / 2**64 < 0.2]
    for name in names:
        # Only one picture of the test split is in colour, and of another size.
        put(tmp_path / name, *(((9, 9), (1, 2, 3)) if name == test_ids[0] else ((8, 8), 5)))
    train, test = load_folder(tmp_path, split="train"), load_folder(tmp_path, split="test")
    assert train.images.shape[1:] == test.images.shape[1:] == (3, 128, 128)


def test_channels_follow_the_pictures_or_the_wish(tmp_path: Path) -> None:
    put(tmp_path / "a.png", colour=9)
    put(tmp_path / "b.png", colour=200)
    assert load_folder(tmp_path).channels == 1
    assert load_folder(tmp_path, channels=3).images[1, :, 0, 0].tolist() == [200, 200, 200]
    put(tmp_path / "c.png", colour=(255, 0, 0))
    assert load_folder(tmp_path).channels == 3
    assert load_folder(tmp_path, channels=1).images[2, 0, 0, 0].item() == 76
    with pytest.raises(DataError, match=r"channels=2 is not possible; pictures are loaded with 1 \(grey\) or 3"):
        load_folder(tmp_path, channels=2)


@pytest.mark.parametrize("name", ["truncated.jpg", "bomb.png", "zero.png", "text.jpg", "truncated.png", "float.tiff"])
def test_a_damaged_file_is_named_or_skipped_with_a_note(hostile_images: Path, tmp_path: Path, name: str) -> None:
    put(tmp_path / "a.png", size=(32, 24))
    put(tmp_path / "z.png", size=(32, 24))
    shutil.copy(hostile_images / "bad" / name, tmp_path / name)
    with pytest.raises(
        ImageFileError, match=rf"{tmp_path}/{name} .*\(--on-error skip, in Python on_error='skip', leaves such files out\)"
    ):
        load(tmp_path)
    data = load(tmp_path, on_error="skip")
    assert data.ids == ("a.png", "z.png")
    assert data.images.shape == (2, 3, 24, 32)
    assert data.images[1, :, 0, 0].tolist() == [10, 20, 30]
    assert len(data.notes) == 1
    assert data.notes[0].startswith(f"files that could not be read were left out: 1, the first is {tmp_path}/{name} ")


def test_if_too_few_are_left_after_skipping_the_reason_is_told(hostile_images: Path) -> None:
    with pytest.raises(DataError, match=r"holds no picture \(files that could not be read were left out: \d, the first is"):
        load(hostile_images / "bad", on_error="skip")
    with pytest.raises(DataError, match="on_error='ignore' is unknown"):
        load(hostile_images / "bad", on_error="ignore")


def test_the_odd_ones_all_load_and_frames_are_noted(hostile_images: Path) -> None:
    data = load(hostile_images / "odd")
    assert data.ids == tuple(sorted(path.name for path in (hostile_images / "odd").iterdir()))
    assert data.images.shape == (len(data.ids), 3, 24, 32)
    assert len(data.notes) == 1
    assert data.notes[0].startswith("pictures used in part: 2, the first is ")
    assert "animated.gif holds several frames or pages; only the first is used" in data.notes[0]
    grey = data.images[data.positions(["sixteen.png"])][0, 0].numpy()
    assert grey[0].tolist() == [x * 255 // 31 for x in range(32)]


def test_links_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "outside.png")
    inside = tmp_path / "set"
    put(inside / "a.png", colour=(1, 1, 1))
    put(inside / "b.png", colour=(2, 2, 2))
    (inside / "c.png").symlink_to("a.png")
    assert load(inside).ids == ("a.png", "b.png", "c.png")
    (inside / "d.png").symlink_to("../outside.png")
    with pytest.raises(
        ImageFileError, match=r"set/d\.png is a link to a file outside .*set; copy the picture into the folder"
    ):
        load(inside)
    skipped = load(inside, on_error="skip")
    assert skipped.ids == ("a.png", "b.png", "c.png")
    assert "d.png is a link to a file outside" in skipped.notes[0]


def test_links_to_folders_are_not_followed_and_broken_links_are_named(tmp_path: Path) -> None:
    put(tmp_path / "other" / "x.png")
    inside = tmp_path / "set"
    put(inside / "a.png")
    put(inside / "b.png")
    (inside / "link").symlink_to(tmp_path / "other")
    (inside / "round").symlink_to(inside)
    data = load(inside)
    assert data.ids == ("a.png", "b.png")
    assert data.notes == ("links to folders are not followed: 2, the first is link",)
    (inside / "broken.png").symlink_to("nothing.png")
    with pytest.raises(ImageFileError, match=r"broken\.png does not exist"):
        load(inside)
    # The folder itself may be a link: the user named it.
    (inside / "broken.png").unlink()
    (tmp_path / "alias").symlink_to(inside)
    assert load(tmp_path / "alias").fingerprint == data.fingerprint


def test_order_does_not_depend_on_the_order_of_creation(tmp_path: Path) -> None:
    names = ["b.png", "a-1.png", "a/1.png", "a.png", "B.png", "a/0.png", "ä.png"]
    for folder, order in (("x", names), ("y", names[::-1])):
        for name in order:
            put(tmp_path / folder / name, colour=(len(name), 0, 0))
    first, second = load_folder(tmp_path / "x"), load_folder(tmp_path / "y")
    assert first.ids == second.ids == tuple(sorted(names))
    assert first.fingerprint == second.fingerprint


def test_file_names_that_are_no_text_get_an_id_all_the_same(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "<b>&\n.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff\xfe.png")
    data = load(tmp_path)
    assert data.ids == ("<b>&\n.png", "\\xff\\xfe.png")
    assert len(data.fingerprint) == 64


def test_more_than_fits_into_memory_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embattle.data.fitting.LARGEST_SET", 1000)
    put(tmp_path / "a.png", size=(20, 20))
    put(tmp_path / "b.png", size=(20, 20))
    with pytest.raises(DataError, match=r"2 pictures of 20 x 20 with 3 channels need .* GiB; .* Give a smaller size"):
        load(tmp_path)
    assert load(tmp_path, size=8).images.shape == (2, 3, 8, 8)


def test_pixels_are_those_of_the_files(tmp_path: Path) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (3, 6, 7, 3), dtype=np.uint8)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    assert torch.equal(load(tmp_path).images, torch.from_numpy(pictures).permute(0, 3, 1, 2))

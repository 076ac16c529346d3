from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from embattle.errors import InputError, RunIncomplete, RunMismatch
from embattle.records import LocalStore, Unit, write_atomic

ROWS = [{"row": "sample", "x": 1.5}, {"row": "sample", "x": None}]
BLOBS = {"a.png": b"\x89PNG one", "b.png": b"\x89PNG two"}
COST = {"seconds": 1.25}


@pytest.fixture
def unit() -> Unit:
    return Unit(kind="attack", params={"eps": 0.03}, samples=("a", "b"), needs=())


@pytest.fixture
def full(tmp_path: Path, unit: Unit) -> LocalStore:
    store = LocalStore(tmp_path / "run")
    store.put(unit, ROWS, BLOBS, COST)
    return store


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_file(store: LocalStore, unit: Unit) -> Path:
    return store.folder / "units" / f"{unit.id[:16]}.jsonl"


def test_what_is_put_comes_back_also_through_a_second_store(full: LocalStore, unit: Unit) -> None:
    for store in (full, LocalStore(full.folder)):
        assert store.done() == {unit.id}
        assert list(store.rows(unit.id)) == ROWS
        assert store.unit(unit.id) == unit
        assert {name: store.blob(unit.id, name) for name in BLOBS} == BLOBS
        assert store.cost(unit.id) == COST


def test_layout_is_the_documented_one(full: LocalStore, unit: Unit) -> None:
    short = unit.id[:16]
    expected = {f"units/{short}.jsonl", f"units/{short}.cost.json", f"units/{short}/a.png", f"units/{short}/b.png"}
    assert set(files(full.folder)) == expected
    header, *rows = rows_file(full, unit).read_text().splitlines()
    assert json.loads(header)["schema"] == "embattle.unit/1"
    assert rows == ['{"row":"sample","x":1.5}', '{"row":"sample","x":null}']


def test_a_unit_without_rows_or_blobs_is_a_unit(tmp_path: Path, unit: Unit) -> None:
    store = LocalStore(tmp_path)
    store.put(unit, [])
    assert list(store.rows(unit.id)) == []
    assert store.cost(unit.id) == {}


def test_nothing_is_done_in_a_folder_that_does_not_exist_and_looking_makes_none(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "none")
    assert store.done() == frozenset()
    assert store.quarantined() == {}
    assert not (tmp_path / "none").exists()


def test_putting_the_same_again_changes_no_byte_and_no_time(full: LocalStore, unit: Unit) -> None:
    before = {name: (full.folder / name).stat().st_mtime_ns for name in files(full.folder)}
    full.put(unit, ROWS, BLOBS, {"seconds": 99.0})
    assert {name: (full.folder / name).stat().st_mtime_ns for name in files(full.folder)} == before
    assert full.cost(unit.id) == COST


@pytest.mark.parametrize(
    ("rows", "blobs"), [(ROWS[:1], BLOBS), (ROWS[::-1], BLOBS), (ROWS, {**BLOBS, "a.png": b"other"}), (ROWS, {})]
)
def test_putting_something_else_is_an_error_and_changes_nothing(
    full: LocalStore, unit: Unit, rows: list[Any], blobs: dict[str, bytes]
) -> None:
    before = files(full.folder)
    with pytest.raises(RunMismatch, match="another result of the same unit"):
        full.put(unit, rows, blobs)
    assert files(full.folder) == before


def test_the_same_put_heals_a_blob_that_was_lost(full: LocalStore, unit: Unit) -> None:
    before = files(full.folder)
    (full.folder / "units" / unit.id[:16] / "a.png").unlink()
    full.put(unit, ROWS, BLOBS, COST)
    assert files(full.folder) == before


@pytest.mark.parametrize("killed_at", range(1, 5))
def test_a_crash_between_any_two_files_leaves_nothing_that_looks_finished(
    tmp_path: Path, unit: Unit, full: LocalStore, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """Four files are renamed into place: two blobs, the cost, the rows. The process dies before one of them."""
    store = LocalStore(tmp_path / "killed")
    renamed = 0
    real = os.replace

    def dying(source: Path, target: Path) -> None:
        nonlocal renamed
        renamed += 1
        if renamed == killed_at:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        store.put(unit, ROWS, BLOBS, COST)
    monkeypatch.setattr(os, "replace", real)
    again = LocalStore(tmp_path / "killed")
    assert again.done() == frozenset()
    with pytest.raises(InputError, match="not finished"):
        again.rows(unit.id)
    again.put(unit, ROWS, BLOBS, COST)
    assert files(again.folder) == files(full.folder)


def test_blobs_of_a_killed_attempt_do_not_stay(tmp_path: Path, unit: Unit, full: LocalStore) -> None:
    folder = tmp_path / "killed" / "units" / unit.id[:16]
    folder.mkdir(parents=True)
    (folder / "older.png").write_bytes(b"of another attempt")
    (folder / "a.png").write_bytes(b"half")
    store = LocalStore(tmp_path / "killed")
    store.put(unit, ROWS, BLOBS, COST)
    assert files(store.folder) == files(full.folder)


def test_a_process_killed_inside_a_write_is_cleaned_up_after(tmp_path: Path, unit: Unit) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from embattle.records import LocalStore, Unit;"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL);"
        "unit = Unit(kind='attack', params={'eps': 0.03}, samples=('a', 'b'), needs=());"
        "LocalStore(Path(sys.argv[1])).put(unit, [{'x': 1}])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert done.returncode == -9
    assert len(list((tmp_path / "units").glob(".*.tmp"))) == 1
    store = LocalStore(tmp_path)
    assert store.done() == frozenset()
    assert list((tmp_path / "units").iterdir()) == []


def test_the_unfinished_file_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "units").mkdir()
    alive = tmp_path / "units" / f".x.jsonl.{os.getppid()}-0011aabb.tmp"
    reused = tmp_path / "units" / f".x.jsonl.{os.getpid()}-0011aabb.tmp"  # our number, but another process had it
    foreign = tmp_path / "units" / ".notes.tmp"
    for path in (alive, reused, foreign):
        path.write_bytes(b"")
    LocalStore(tmp_path)
    assert (alive.exists(), reused.exists(), foreign.exists()) == (True, False, True)


def test_opening_the_run_while_it_is_written_to_does_not_disturb_the_write(
    tmp_path: Path, unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    real = os.replace

    def looked_at(source: Path, target: Path) -> None:
        LocalStore(tmp_path)
        real(source, target)

    monkeypatch.setattr(os, "replace", looked_at)
    store.put(unit, ROWS, BLOBS, COST)
    assert list(store.rows(unit.id)) == ROWS


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[: data.rindex(b'{"row"')], "truncated: 1 of 2 rows"),
        (lambda data: data[:-1], "changed after it was written"),
        (lambda data: data[:-9] + b"\n", "changed after it was written"),
        (lambda data: data.replace(b"1.5", b"2.5"), "changed after it was written"),
        (lambda data: data + b'{"row":"sample"}\n', "3 of 2 rows"),
        (lambda data: b"", "does not begin with a JSON record"),
        (lambda data: data[:40], "does not begin with a JSON record"),
        (lambda data: data.split(b"\n")[0], "its header has no end"),
        (lambda data: data.replace(b"embattle.unit/1", b"embattle.unit/9"), "embattle.unit/9"),
        (lambda data: data.replace(b'"eps":0.03', b'"eps":0.04'), "its header describes unit"),
        (lambda data: data.replace(b'"rows":2', b'"rows":"2"'), "its header has no rows"),
        (lambda data: b"[" * 100_000 + b"\n", "does not begin with a JSON record"),
        (lambda data: b"\x00\xff\n" + data, "does not begin with a JSON record"),
    ],
)
def test_damage_is_noticed_and_the_sentence_says_what_to_do(full: LocalStore, unit: Unit, damage: Any, says: str) -> None:
    path = rows_file(full, unit)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError) as caught:
        LocalStore(full.folder).rows(unit.id)
    assert says in str(caught.value)
    assert path.name in str(caught.value)
    assert "delete it and start the same command again" in str(caught.value)


def test_a_unit_file_under_another_name_is_noticed(full: LocalStore, unit: Unit) -> None:
    other = Unit(kind="embed", params={}, samples=(), needs=())
    rows_file(full, unit).rename(rows_file(full, other))
    with pytest.raises(InputError, match="its header describes unit"):
        LocalStore(full.folder).done()


def test_a_tampered_or_lost_blob_is_noticed(full: LocalStore, unit: Unit) -> None:
    path = full.folder / "units" / unit.id[:16] / "a.png"
    path.write_bytes(b"tampered")
    with pytest.raises(InputError, match="changed after it was written"):
        full.blob(unit.id, "a.png")
    path.unlink()
    with pytest.raises(InputError, match="missing"):
        full.blob(unit.id, "a.png")


HOSTILE = [
    "", ".", "..", "../x.png", "a/b.png", "a\\b.png", "/etc/passwd", "a..png", ".hidden", "x.png\n", "x\0.png", "é.png",
    "C:x.png", "a b.png", "x.", "-rf", "a" * 101, "<img>.png", "%2e%2e%2fx",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_blob_names_are_refused_and_nothing_is_written(tmp_path: Path, unit: Unit, name: str) -> None:
    store = LocalStore(tmp_path / "run")
    with pytest.raises(InputError, match="blob name"):
        store.put(unit, ROWS, {name: b"x"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_blob_names_are_refused_on_reading(full: LocalStore, unit: Unit, name: str) -> None:
    with pytest.raises(InputError, match="blob name"):
        full.blob(unit.id, name)


def test_blob_names_that_some_systems_take_for_one_are_refused(tmp_path: Path, unit: Unit) -> None:
    with pytest.raises(InputError, match="more than case"):
        LocalStore(tmp_path).put(unit, ROWS, {"a.png": b"1", "A.png": b"2"})


def test_an_unknown_blob_or_unit_is_a_sentence(full: LocalStore, unit: Unit) -> None:
    with pytest.raises(InputError, match=r"it has a\.png, b\.png"):
        full.blob(unit.id, "c.png")
    with pytest.raises(InputError, match="not finished"):
        full.rows("0" * 64)
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        full.rows("../../etc/passwd")


@pytest.mark.parametrize("rows", [[{"x": float("nan")}], [{1: 2}], [{"x": b"raw"}]])
def test_rows_that_are_no_json_are_refused_and_nothing_is_written(tmp_path: Path, unit: Unit, rows: Any) -> None:
    with pytest.raises(InputError):
        LocalStore(tmp_path / "run").put(unit, rows, BLOBS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["open", "replace", "fsync"])
@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.ENOSPC, RunIncomplete, "free some space"),
        (errno.EDQUOT, RunIncomplete, "free some space"),
        (errno.EROFS, InputError, "--out"),
        (errno.EACCES, InputError, "--out"),
        (errno.EIO, RunIncomplete, "start the same command again"),
    ],
)
def test_a_failing_disk_is_a_sentence_and_leaves_nothing_half_written(
    tmp_path: Path, unit: Unit, monkeypatch: pytest.MonkeyPatch, call: str, number: int, kind: type, says: str
) -> None:
    store = LocalStore(tmp_path / "run")
    (tmp_path / "run" / "units").mkdir(parents=True)

    def failing(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(kind) as caught:
            store.put(unit, ROWS)
    assert says in str(caught.value)
    assert files(tmp_path) == {}
    assert caught.value.exit_code == (3 if kind is RunIncomplete else 2)
    store.put(unit, ROWS)  # the same command goes on
    assert list(store.rows(unit.id)) == ROWS


def test_a_run_folder_that_is_a_file_is_a_sentence(tmp_path: Path, unit: Unit) -> None:
    (tmp_path / "run").write_text("not a folder")
    with pytest.raises(InputError, match="--out"):
        LocalStore(tmp_path / "run").put(unit, ROWS)


def test_a_run_folder_that_may_only_be_read_can_be_read(
    full: LocalStore, unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    (full.folder / "units" / ".x.jsonl.99999999-0011aabb.tmp").write_bytes(b"")

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refused)
    store = LocalStore(full.folder)
    assert list(store.rows(unit.id)) == ROWS
    assert store.done() == {unit.id}


def test_write_atomic_keeps_the_old_file_when_the_new_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "report.html", b"old")

    def failing(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(RunIncomplete):
        write_atomic(tmp_path / "report.html", b"new")
    assert files(tmp_path) == {"report.html": b"old"}


def test_quarantine_is_noted_and_cleared_by_success(tmp_path: Path, unit: Unit) -> None:
    store = LocalStore(tmp_path)
    store.quarantine(unit, "ModelError: NaN")
    assert LocalStore(tmp_path).quarantined() == {unit.id: "ModelError: NaN"}
    assert store.done() == frozenset()
    store.put(unit, ROWS)
    assert store.quarantined() == {}
    assert not list((tmp_path / "units").glob("*.quarantine.json"))


def test_a_note_beside_a_finished_unit_does_not_count(full: LocalStore, unit: Unit) -> None:
    full.quarantine(unit, "another process failed at it")
    assert full.quarantined() == {}


def test_a_damaged_quarantine_note_is_a_sentence(tmp_path: Path, unit: Unit) -> None:
    store = LocalStore(tmp_path)
    store.quarantine(unit, "x")
    (tmp_path / "units" / f"{unit.id[:16]}.quarantine.json").write_text('{"id": "../.."}')
    with pytest.raises(InputError, match="names no unit"):
        store.quarantined()


def test_bytes_do_not_depend_on_the_order_of_keys_or_blobs(full: LocalStore, unit: Unit, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "other")
    rows = [dict(reversed(row.items())) for row in ROWS]
    store.put(unit, rows, dict(reversed(BLOBS.items())), COST)
    assert files(store.folder) == files(full.folder)

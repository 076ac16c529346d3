"""The finished units of a run, one immutable file each, in the run folder.

::

    units/<id16>.jsonl               header line, then one canonical-JSON row a line; its presence IS completeness
    units/<id16>/NAME                blobs the rows speak of (PNG pictures); the header has their sha256
    units/<id16>.cost.json           seconds and memory: differ from run to run, so outside the byte promise
    units/<id16>.quarantine.json     the error of a unit that could not be finished

`id16` is the first 16 digits of the unit's id. Blobs and cost are written first, the rows last and atomically.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from embattle.errors import InputError, RunMismatch
from embattle.records.atomic import remove_leftovers, write_atomic
from embattle.records.unit import Unit, canonical_json

SCHEMA = "embattle.unit/1"
_ROWS = re.compile(r"[0-9a-f]{16}\.jsonl")
_BLOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_AGAIN = "delete it and start the same command again, then it is computed anew"


class LocalStore:
    """Units in a local run folder.

    Args:
        folder: the run folder; it need not exist before the first `put`. Half-written files of killed runs go away.

    >>> import tempfile
    >>> unit = Unit(kind="embed", params={}, samples=("a",), needs=())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = LocalStore(Path(folder))
    ...     store.put(unit, [{"x": 1}])
    ...     list(store.rows(unit.id)), store.done() == {unit.id}
    ([{'x': 1}], True)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._units = self.folder / "units"
        self._headers: dict[str, dict[str, Any]] = {}
        remove_leftovers(self._units)

    def done(self) -> frozenset[str]:
        """The ids of all finished units.

        Raises:
            InputError: a unit file whose header is damaged.
        """
        try:
            names = sorted(path.name for path in self._units.iterdir() if _ROWS.fullmatch(path.name))
        except FileNotFoundError:
            return frozenset()
        except OSError as error:
            raise InputError(f"Cannot list {self._units} ({error.strerror}); it must be a readable folder.") from None
        return frozenset(Unit.from_json(self._header(name[:16])["unit"]).id for name in names)

    def put(
        self,
        unit: Unit,
        rows: Sequence[Mapping[str, Any]],
        blobs: Mapping[str, bytes] | None = None,
        cost: Mapping[str, float] | None = None,
    ) -> None:
        """Keeps a finished unit; keeping the same one again changes nothing.

        Args:
            unit: what was computed.
            rows: the result, JSON values only.
            blobs: files the rows speak of, by name: letters, digits, ".", "_" and "-", at most 100.
            cost: seconds, memory and the like; not part of the byte promise.

        Raises:
            InputError: a blob name that is not allowed, rows that are no JSON, a folder that cannot be written.
            RunMismatch: the unit was kept before with another content.
            RunIncomplete: the disk is full.
        """
        blobs = dict(blobs or {})
        _check_blob_names(blobs)
        content = _serialised(unit, rows, blobs)
        path = self._path(unit.id)
        if path.exists():
            if self._read(path) != content:
                raise RunMismatch(
                    f"{path} already holds another result of the same unit; results of a unit never change on one "
                    f"machine with the same libraries. If the file is old or damaged, {_AGAIN}."
                )
            if not [name for name, data in blobs.items() if not _same(self._blob_path(unit.id, name), data)]:
                return
        folder = self._blob_folder(unit.id)
        if folder.is_dir():
            self._drop_foreign(folder, blobs)
        for name in sorted(blobs):
            write_atomic(self._blob_path(unit.id, name), blobs[name])
        write_atomic(path.with_suffix(".cost.json"), canonical_json(dict(cost or {})).encode() + b"\n")
        write_atomic(path, content)
        self._headers.pop(path.stem, None)
        with contextlib.suppress(OSError):
            self._quarantine_path(unit.id).unlink()

    def rows(self, unit_id: str) -> Iterator[dict[str, Any]]:
        """The rows of a finished unit, checked against its header before the first one is given out.

        Args:
            unit_id: the full id, 64 hexadecimal digits.

        Raises:
            InputError: no such unit, or its file is truncated or was changed.
        """
        path = self._path(unit_id)
        header = self._header(path.stem, unit_id)
        body = self._read(path).partition(b"\n")[2]
        lines = body.split(b"\n")[:-1] if body.endswith(b"\n") else body.split(b"\n") if body else []
        if len(lines) != header["rows"]:
            raise InputError(f"{path} is truncated: {len(lines)} of {header['rows']} rows are there; {_AGAIN}.")
        if hashlib.sha256(body).hexdigest() != header["sha256"]:
            raise InputError(f"{path} was changed after it was written (its sha256 differs); {_AGAIN}.")
        try:
            rows: list[dict[str, Any]] = json.loads(b"[" + b",".join(lines) + b"]")
        except (ValueError, RecursionError):
            rows = []
        if len(rows) != len(lines) or not all(isinstance(row, dict) for row in rows):
            raise InputError(f"{path} is damaged: its rows are no JSON records; {_AGAIN}.")
        return iter(rows)

    def unit(self, unit_id: str) -> Unit:
        """The description of a finished unit.

        Raises:
            InputError: no such unit, or its header is damaged.
        """
        return Unit.from_json(self._header(self._path(unit_id).stem, unit_id)["unit"])

    def blob(self, unit_id: str, name: str) -> bytes:
        """A blob of a finished unit, checked against the sha256 in its header.

        Raises:
            InputError: no such unit or blob, a name that is not allowed, or the file was changed.
        """
        _check_blob_names([name])
        known = self._header(self._path(unit_id).stem, unit_id)["blobs"]
        if name not in known:
            raise InputError(f"unit {unit_id[:16]} has no blob {name!r}; it has {', '.join(sorted(known)) or 'none'}.")
        path = self._blob_path(unit_id, name)
        data = self._read(path)
        if hashlib.sha256(data).hexdigest() != known[name]:
            raise InputError(
                f"{path} was changed after it was written (its sha256 differs); delete {self._path(unit_id).name} and "
                "start the same command again, then the unit is computed anew."
            )
        return data

    def cost(self, unit_id: str) -> dict[str, float]:
        """The cost of a finished unit; empty when nothing was kept.

        Raises:
            InputError: no such unit, or the file is damaged.
        """
        path = self._path(unit_id)
        self._header(path.stem, unit_id)
        side = path.with_suffix(".cost.json")
        return _mapping(side, self._read(side)) if side.exists() else {}

    def quarantine(self, unit: Unit, error: str) -> None:
        """Notes that a unit could not be finished, and why; a later `put` of the unit clears the note.

        Raises:
            InputError: the folder cannot be written.
            RunIncomplete: the disk is full.
        """
        note = {"schema": SCHEMA, "id": unit.id, "unit": unit.to_json(), "error": error}
        write_atomic(self._quarantine_path(unit.id), canonical_json(note).encode() + b"\n")

    def quarantined(self) -> dict[str, str]:
        """The errors of the units that could not be finished, by unit id.

        Raises:
            InputError: a note that is damaged.
        """
        errors = {}
        for path in sorted(self._units.glob("*.quarantine.json")):
            note = _mapping(path, self._read(path))
            unit_id = str(note.get("id"))
            if not re.fullmatch(r"[0-9a-f]{64}", unit_id):
                raise InputError(f"{path} is damaged: it names no unit; delete it.")
            if not self._path(unit_id).exists():
                errors[unit_id] = str(note.get("error"))
        return errors

    def _path(self, unit_id: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", unit_id):
            raise InputError(f"{unit_id!r} is no unit id: write 64 hexadecimal digits.")
        return self._units / f"{unit_id[:16]}.jsonl"

    def _blob_folder(self, unit_id: str) -> Path:
        return self._units / unit_id[:16]

    def _blob_path(self, unit_id: str, name: str) -> Path:
        return self._blob_folder(unit_id) / name

    def _quarantine_path(self, unit_id: str) -> Path:
        return self._units / f"{unit_id[:16]}.quarantine.json"

    def _drop_foreign(self, folder: Path, blobs: Mapping[str, bytes]) -> None:
        # Blobs of an attempt that was killed; the folder of a finished unit holds what its header names.
        for path in folder.iterdir():
            if path.name not in blobs and _BLOB.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise InputError(f"{path} is missing: the unit it belongs to is not finished, or it was deleted.") from None
        except OSError as error:
            raise InputError(f"Cannot read {path} ({error.strerror}).") from None

    def _header(self, stem: str, unit_id: str | None = None) -> dict[str, Any]:
        if stem not in self._headers:
            path = self._units / f"{stem}.jsonl"
            try:
                with path.open("rb") as file:
                    line = file.readline()
            except FileNotFoundError:
                raise InputError(f"unit {unit_id or stem} is not finished: {path} does not exist.") from None
            except OSError as error:
                raise InputError(f"Cannot read {path} ({error.strerror}).") from None
            self._headers[stem] = _checked_header(path, line)
        header = self._headers[stem]
        if unit_id is not None and header["id"] != unit_id:
            raise InputError(f"{self._units / stem}.jsonl holds unit {header['id']}, not {unit_id}.")
        return header


def _serialised(unit: Unit, rows: Sequence[Mapping[str, Any]], blobs: Mapping[str, bytes]) -> bytes:
    body = "".join(canonical_json(dict(row)) + "\n" for row in rows).encode("ascii")
    header = {
        "schema": SCHEMA,
        "unit": unit.to_json(),
        "rows": len(rows),
        "sha256": hashlib.sha256(body).hexdigest(),
        "blobs": {name: hashlib.sha256(data).hexdigest() for name, data in blobs.items()},
    }
    return canonical_json(header).encode("ascii") + b"\n" + body


def _checked_header(path: Path, line: bytes) -> dict[str, Any]:
    header = _mapping(path, line)
    if header.get("schema") != SCHEMA:
        raise InputError(f"{path} has the schema {header.get('schema')!r}; this version reads {SCHEMA!r}; {_AGAIN}.")
    kinds = {"unit": dict, "rows": int, "sha256": str, "blobs": dict}
    missing = [name for name, kind in kinds.items() if not isinstance(header.get(name), kind)]
    if missing or not line.endswith(b"\n"):
        raise InputError(f"{path} is damaged: its header has no {', '.join(missing) or 'end'}; {_AGAIN}.")
    header["id"] = Unit.from_json(header["unit"]).id
    if header["id"][:16] != path.stem:
        raise InputError(f"{path} is damaged: its header describes unit {header['id'][:16]}; {_AGAIN}.")
    return header


def _mapping(path: Path, text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged: it does not begin with a JSON record; {_AGAIN}.")
    return value


def _same(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False


def _check_blob_names(names: Sequence[str] | Mapping[str, bytes]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not _BLOB.fullmatch(name) or ".." in name or name.endswith("."):
            raise InputError(
                f"blob name {name!r}: allowed are letters, digits, '.', '_' and '-' (at most 100, beginning with a "
                "letter or digit, no '..'); write for example 'original-0.png'."
            )
        if name.casefold() in seen:
            raise InputError(f"blobs {seen[name.casefold()]!r} and {name!r}: names must differ in more than case.")
        seen[name.casefold()] = name

"""Get a data set's files into their folder: whole, checked by sha256, or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from embattle.errors import DataError

SILENCE_SECONDS = 20.0
WHOLE_SECONDS = 900.0
_CHUNK = 2**18


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file and where it comes from.

    Args:
        name: file name, without a folder.
        address: http or https address of the original.
        size: its length in bytes; not one byte more is read.
        sha256: 64 hexadecimal digits.
    """

    name: str
    address: str
    size: int
    sha256: str


class _DownloadError(Exception):
    """Why one download did not give the file; becomes part of the DataError that names folder and files."""


def fetch(
    remotes: Sequence[Remote],
    folder: Path,
    *,
    progress: Callable[[str, int, int], None] | None = None,
    silence: float = SILENCE_SECONDS,
    whole: float = WHOLE_SECONDS,
) -> list[Path]:
    """The files' paths in `folder`; missing ones are downloaded first, those that are there are only checked.

    A download goes to a temporary name, is checked, and then takes its real name in one step: a file under its real
    name is always whole. A file that is there already is never written to, not even when it is the wrong one.

    Args:
        remotes: the files needed.
        folder: where they belong; made when the first byte of a missing file has come.
        progress: called as progress(file name, bytes so far, bytes in all).
        silence: most seconds the server may send nothing.
        whole: most seconds for one file.

    Raises:
        DataError: a file that is there is not the original; or one is missing and could not be had, in which case the
            message names the folder, the files it must hold, and their addresses.
    """
    missing = []
    for remote in remotes:
        path = folder / remote.name
        if os.path.lexists(path):
            _check(path, remote)
        else:
            missing.append(remote)
    for remote in missing:
        try:
            _download(remote, folder, progress, silence, whole)
        except _DownloadError as unfit:
            raise DataError(_missing(missing, folder, remote, str(unfit))) from unfit
    return [folder / remote.name for remote in remotes]


def _missing(missing: Sequence[Remote], folder: Path, failed: Remote, why: str) -> str:
    names = ", ".join(remote.name for remote in missing)
    there = f"{folder} does not hold" if folder.is_dir() else f"the folder {folder} does not exist; it must hold"
    return (
        f"{there} {names}, and {failed.address} could not be downloaded: {why}. Connect to the network and start "
        f"again, or put the files there by hand, or give the folder above {folder.name}/ as --data-root or "
        "EMBATTLE_DATA."
    )


def _check(path: Path, remote: Remote) -> None:
    try:
        size = path.stat().st_size
        digest = "" if size != remote.size or not path.is_file() else _sha256(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}; make it readable, or remove it to download it"
        ) from error
    if digest != remote.sha256:
        what = f"its length is {size:,} bytes, not {remote.size:,}" if not digest else f"its sha256 is {digest}"
        raise DataError(
            f"{path} is not the original file: {what}; expected is the sha256 {remote.sha256}. "
            "Remove it and start again to download it, or put the original there."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(
    remote: Remote, folder: Path, progress: Callable[[str, int, int], None] | None, silence: float, whole: float
) -> None:
    if not remote.address.startswith(("http://", "https://")):
        raise _DownloadError("only http and https addresses are fetched")
    temporary: Path | None = None
    try:
        with closing(_received(remote, progress, silence, time.monotonic() + whole)) as chunks:
            # Nothing is made before the first byte is there to be written: a mistyped data root leaves no empty folder.
            first = next(chunks, b"")
            folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{remote.name}.", suffix=".part", dir=folder)
            temporary = Path(name)
            with os.fdopen(handle, "wb") as target:
                target.write(first)
                target.writelines(chunks)
                target.flush()
                os.fsync(target.fileno())
        # mkstemp makes files that only their owner reads; a data root is often shared.
        temporary.chmod(0o644)
        os.replace(temporary, folder / remote.name)
    except (OSError, http.client.HTTPException) as error:
        # urllib's and the sockets' errors are OSErrors, like those of a full disk or a read-only folder.
        status = f"status {error.code}, " if isinstance(error, urllib.error.HTTPError) else ""
        raise _DownloadError(f"{status}{getattr(error, 'reason', None) or error or type(error).__name__}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _received(
    remote: Remote, progress: Callable[[str, int, int], None] | None, silence: float, end: float
) -> Generator[bytes, None, None]:
    """The file's content, chunk by chunk; that it was the original is known when the last chunk has been asked for."""
    digest, received = hashlib.sha256(), 0
    request = urllib.request.Request(remote.address, headers={"User-Agent": "embattle"})
    with urllib.request.urlopen(request, timeout=silence) as response:
        # One byte more than expected is asked for, so that a file that is too long is noticed.
        while chunk := response.read1(min(_CHUNK, remote.size + 1 - received)):
            received += len(chunk)
            if received > remote.size:
                raise _DownloadError(f"the server sends more than the {remote.size:,} bytes of the original")
            if time.monotonic() > end:
                raise _DownloadError(f"it took too long, {received:,} of {remote.size:,} bytes had come")
            digest.update(chunk)
            yield chunk
            if progress is not None:
                progress(remote.name, received, remote.size)
    if received < remote.size:
        raise _DownloadError(f"the connection ended after {received:,} of {remote.size:,} bytes")
    if digest.hexdigest() != remote.sha256:
        raise _DownloadError(f"what came has the sha256 {digest.hexdigest()}, the original has {remote.sha256}")

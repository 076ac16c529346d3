"""Files that are either complete or absent: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from pathlib import Path

from embattle.errors import EmbattleError, InputError, RunIncomplete

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}
# Tells our own unfinished files from those a killed process left behind, also when the process id is used again.
_TOKEN = f"{os.getpid()}-{secrets.token_hex(4)}"
_LEFTOVER = re.compile(r"\..+\.(?P<token>(?P<pid>[0-9]{1,10})-[0-9a-f]{8})\.tmp")


def write_atomic(path: Path, data: bytes) -> None:
    """Writes `data` to `path`; whoever looks sees the old file or the whole new one.

    Args:
        path: the file; its folder is made when missing.
        data: the content.

    Raises:
        RunIncomplete: the disk is full or failed.
        InputError: the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{_token()}.tmp")
    try:
        make_folder(path.parent)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error


def make_folder(folder: Path) -> None:
    """Makes a folder and its parents durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable; only POSIX systems can open a folder."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(path: Path, error: OSError) -> EmbattleError:
    """The sentence for a failed write: who must do what."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return RunIncomplete(
            f"No space left to write {path} ({reason}). What is finished is kept: free some space and start the same "
            "command again."
        )
    if error.errno in _FORBIDDEN:
        return InputError(f"Cannot write {path} ({reason}). Name a folder that you may write to with --out.")
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        return InputError(f"Cannot write {path} ({reason}): something else has that name. Name another folder with --out.")
    return RunIncomplete(f"Writing {path} failed ({reason}). What is finished is kept: start the same command again.")


def remove_leftovers(folder: Path) -> None:
    """Removes unfinished files of processes that no longer live; those of living ones may still be renamed."""
    if not folder.is_dir():
        return
    for path in folder.rglob(".*.tmp"):
        match = _LEFTOVER.fullmatch(path.name)
        if match and match["token"] != _token() and not _alive(int(match["pid"])):
            with contextlib.suppress(OSError):  # a folder that may only be read can still be read
                path.unlink()


def _token() -> str:
    pid, random = _TOKEN.split("-")
    return f"{os.getpid()}-{random}" if str(os.getpid()) != pid else _TOKEN  # after a fork


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return False  # our number, another token: an earlier process
    if os.name != "posix":
        return True  # asking would interrupt it there
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True

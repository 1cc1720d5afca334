"""Files that only this user can have written, such as machine code that will be run.

Whoever may write to a folder on the way to a file can put another file in its place. So the whole way is walked from
the root, each folder by the handle of the one before it, and every look is at an open file, never at a path.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # not blocked by a pipe
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class NotPrivate(PermissionError):
    """An error for a folder in which others could replace a file; its words name the folder and the remedy."""


def read_private(folder: Path | str, name: str, largest: int) -> bytes | None:
    """Return the content of a file that only this user can have written; None for another file, or where it is missing.

    largest  bytes that are read at most; a larger file counts as missing.

    Raises NotPrivate for a folder in which others could replace the file, OSError where the file cannot be opened.
    """
    try:
        with _opened(folder, make=False) as place:
            handle = os.open(name, _FILE, dir_fd=place)
    except FileNotFoundError:
        return None
    with open(handle, "rb") as file:
        state = os.fstat(handle)
        ours = stat.S_ISREG(state.st_mode) and _is_only_ours(state) and state.st_nlink <= 1  # 0: just replaced
        return file.read() if ours and state.st_size <= largest else None


def write_private(folder: Path | str, name: str, content: bytes) -> None:
    """Write a file, whole or not at all, that only this user may read and write; missing folders are made likewise.

    Raises NotPrivate for a folder in which others could replace the file, OSError where it cannot be written.
    """
    with _opened(folder, make=True) as place:
        temporary = f".{name}.{secrets.token_hex(8)}"
        handle = os.open(temporary, _NEW, 0o600, dir_fd=place)
        try:
            with open(handle, "wb") as file:
                file.write(content)
            os.replace(temporary, name, src_dir_fd=place, dst_dir_fd=place)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=place)
            raise


@contextlib.contextmanager
def _opened(folder: Path | str, *, make: bool) -> Iterator[int]:
    """Give a handle of a folder that is ours and that nobody else can write to or replace.

    make  make the missing folders, for this user alone.
    """
    if str(folder).startswith("~"):  # what platformdirs gives where nothing says where the user's home is
        raise NotPrivate(f"no home folder is known for {folder}: set HOME, or name a folder")
    first, *names = Path(os.path.realpath(folder)).parts
    handle, path = os.open(first, _FOLDER), Path(first)
    try:
        for name in names:
            _check_parent(handle, path)
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=handle)
            inner = os.open(name, _FOLDER, dir_fd=handle)
            os.close(handle)
            handle, path = inner, path / name
        if not _is_only_ours(os.fstat(handle)):
            raise NotPrivate(f"{path} must belong to you and be writable for you alone: chmod go-w, or another folder")
        yield handle
    finally:
        os.close(handle)


def _check_parent(handle: int, path: Path) -> None:
    """Raise NotPrivate for a folder in which others than this user and root could replace a folder of this user."""
    state = os.fstat(handle)
    shared = state.st_mode & _OTHERS_WRITE and not state.st_mode & stat.S_ISVTX  # in /tmp, each renames only their own
    if state.st_uid not in (0, os.geteuid()) or shared:
        raise NotPrivate(f"others may replace what lies in {path}: chmod go-w, or name a folder elsewhere")


def _is_only_ours(state: os.stat_result) -> bool:
    """Return whether a file or folder belongs to this user and nobody else may write to it."""
    return state.st_uid == os.geteuid() and not state.st_mode & _OTHERS_WRITE

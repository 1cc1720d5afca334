"""Files and folders on disk: written whole or not at all, hashed, and swept up after writers that were killed.

A writer works in a hidden folder beside its target, ``.NAME.gradlab-HOST-RANDOM``, and holds the lock on a file in it
as long as it lives. The next writer in the same place removes such a folder once nobody holds that lock.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from gradlab.checks import input_file

Content = bytes | str | Callable[[str], object]  # a function writes to the file name that it is given
AGE = 60  # seconds after which another machine's temporary folder may be abandoned: its locks may not be seen here
_LOCK = ".gradlab"  # in each temporary folder; its writer holds a lock on it
_NOTE = ".gradlab-renames"  # there where several files are to be renamed
_FORMER = ".former"  # ends the name under which a folder that is being replaced waits for its successor
_TEMPORARY = re.compile(r"\..+\.gradlab-([0-9a-f]{6})-[a-z0-9_]{8}")
_looked: dict[Path, float] = {}  # when this process last looked for leftovers in a folder


def write_whole(files: Mapping[Path, Content]) -> None:
    """Write files so that each is the old one or the new one, never a part: to temporary files, then renamed.

    files  the content of each path: bytes, text, or a function that writes to the file name that it is given.

    All contents are written, in the mapping's order and down to the disk, before the first file is renamed: a fault
    while writing (a full disk, a function that raises, Ctrl-C) leaves every path as it was, and no temporary file. The
    renames follow in reverse order, so that a file that describes those before it is there first. A process killed
    between two of them leaves the last files new, the rest old; ``remove_leftovers`` does the renames that are missing.
    Folders that are missing are made. Who may read a file stays as it was; for a new file the umask decides. OSError
    names the file that could not be written; ValueError names a path that is given twice, or lies inside another.
    """
    _check_apart(files)
    with contextlib.ExitStack() as stack:
        places: dict[Path, Path] = {}
        staged: dict[Path, Path] = {}
        for target, content in files.items():
            with naming(target):
                if target.parent not in places:
                    places[target.parent] = stack.enter_context(_workplace(target))
                staged[target] = places[target.parent] / target.name
                _write_through(staged[target], content)
                _take_permissions(staged[target], target)
        for parent, place in places.items():
            with naming(parent):
                _note(place, [target for target in staged if target.parent == parent])
        try:
            for target, new in reversed(staged.items()):
                with naming(target):
                    os.replace(new, target)
        except KeyboardInterrupt:  # not between two renames
            for place in places.values():
                _complete(place)
            raise


def write_once(files: Mapping[Path, str]) -> None:
    """Write texts as ``write_whole`` does; FileExistsError, and nothing written, where another content is in a file."""
    for file, text in files.items():
        if os.path.lexists(file) and not (file.is_file() and file.read_bytes() == text.encode()):
            raise FileExistsError(f"{file} is there already, with other content; out must be another folder")
    write_whole(dict(files))


def write_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Write a folder so that it is the old one or the new one, never a part or a mixture.

    fill  a function that writes the files into the empty folder that it is given.

    All files are on the disk before the former folder gives way; what was in it is then removed. A fault while writing
    leaves the former folder as it was, and no temporary file. A link to a folder stays, and leads to the new one.
    OSError names the folder that could not be written; NotADirectoryError where something else is in its place.
    """
    target = Path(os.path.realpath(folder))
    if os.path.lexists(target) and not target.is_dir():
        raise NotADirectoryError(f"{folder} is there and is no folder")
    with naming(folder), _workplace(target) as place:
        new = place / target.name
        new.mkdir()
        fill(new)
        _take_permissions(new, target)
        for path in (*new.rglob("*"), new):
            sync(path)
        _put(new, target)


def file_hash(path: Path | str) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    with open(input_file("file", path), "rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def is_marked(file: Path, mark: str) -> bool:
    """Return whether a plain file, and no link to one, holds the words by which its writer marks it as ours."""
    return not file.is_symlink() and file.is_file() and mark in file.read_text("utf-8", "replace")


def sync(path: Path | str) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(handle: int, data: bytes, *, durable: bool = False) -> None:
    """Write all of ``data`` at the end of an open file; else leave the file as long as it was, and raise OSError.

    A disk that is nearly full takes a part of what it is given, and says so only by a number.

    durable  wait until the data are on the disk.
    """
    before = os.fstat(handle).st_size
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(handle, rest) :]
        if durable:
            os.fsync(handle)
    except BaseException:
        os.ftruncate(handle, before)
        raise


@contextlib.contextmanager
def naming(target: Path | str) -> Iterator[None]:
    """Name the target in an OSError that names no file, as at a full disk, or one of our temporary files."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # only a text, which a name would hide
            raise OSError(f"{target} could not be written: {error}") from error
        if not error.filename or _is_temporary(error.filename):
            error.filename = str(target)
        raise


def remove_leftovers(folder: Path | str) -> None:
    """Remove what writers that were killed have left in a folder, and do the renames that they were still to do.

    That is done only where all was written, and only over files that are as the writer saw them.

    Only hidden folders under a name of ``write_whole`` and ``write_folder`` whose lock nobody holds are removed; if
    another machine made them, only after ``AGE`` seconds without a change. What cannot be removed stays.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name = _TEMPORARY.fullmatch(entry.name)
            if name and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _remove_if_abandoned(Path(entry.path), at_once=name[1] == _host())


def _check_apart(paths: Iterable[Path]) -> None:
    """Raise ValueError where two paths are one, or one would be a folder of the other."""
    places = [Path(os.path.abspath(path)) for path in paths]
    for number, place in enumerate(places):
        others = {*places[:number], *places[number + 1 :]}
        if others & {place, *place.parents}:
            raise ValueError(f"files must be different paths, none inside another, got {place} and another like it")


def _write_through(file: Path, content: Content) -> None:
    """Write the content to the new file, and wait until it is on the disk."""
    if callable(content):
        content(str(file))
    else:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            write_all(handle, content.encode() if isinstance(content, str) else content)
        finally:
            os.close(handle)
    sync(file)


def _take_permissions(new: Path, former: Path) -> None:
    """Give what replaces a file or folder its permissions; a link's are not looked at."""
    with contextlib.suppress(FileNotFoundError):
        state = former.lstat()
        if not stat.S_ISLNK(state.st_mode):
            needed = stat.S_IRWXU if new.is_dir() else 0  # else the folder could not be moved to its place
            os.chmod(new, stat.S_IMODE(state.st_mode) | needed)


@contextlib.contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    """Make a temporary folder beside ``target``, locked; remove it at the end with what is left in it."""
    parent = Path(os.path.abspath(target.parent))
    parent.mkdir(parents=True, exist_ok=True)
    if time.monotonic() - _looked.get(parent, -AGE) >= AGE:
        remove_leftovers(parent)
        _looked[parent] = time.monotonic()
    place, lock = _locked_folder(parent, target.name)
    try:
        yield place
    finally:
        with contextlib.suppress(OSError):
            _remove(place)
        os.close(lock)


def _locked_folder(parent: Path, name: str) -> tuple[Path, int]:
    """Return a new temporary folder and the open file that locks it, until it is closed or the process ends."""
    while True:
        place = Path(tempfile.mkdtemp(prefix=f".{name[:40]}.gradlab-{_host()}-", dir=parent))
        with contextlib.suppress(FileNotFoundError):  # removed by another process before it was locked
            lock = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            try:
                with contextlib.suppress(OSError):  # a file system without locks: then nobody can remove it
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(lock, place / _LOCK):
                    return place, lock
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)


def _remove_if_abandoned(place: Path, *, at_once: bool) -> None:
    """Remove a temporary folder unless its writer lives; OSError where it does, or where that cannot be known."""
    if not at_once and time.time() - max(file.lstat().st_mtime for file in (place, *place.rglob("*"))) < AGE:
        return
    try:
        lock = os.open(place / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:  # its writer was killed before it could lock, or at the end; or else it tries again
        place.rmdir()
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(lock, place / _LOCK):
            _complete(place)
            _remove(place)
    finally:
        os.close(lock)


def _is_at(handle: int, path: Path) -> bool:
    """Return whether the open file is the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _remove(place: Path) -> None:
    """Remove a temporary folder, its lock last, so that whoever is killed here leaves a folder that can be removed."""
    for file in place.iterdir():
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        elif file.name != _LOCK:
            file.unlink()
    (place / _LOCK).unlink(missing_ok=True)
    place.rmdir()


def _put(new: Path, target: Path) -> None:
    """Rename the folder ``new`` to ``target``; a former folder there is moved beside ``new``."""
    if os.path.lexists(target):
        if _exchanged(new, target):
            return
        os.rename(target, new.with_name(target.name + _FORMER))
    os.rename(new, target)


def _note(place: Path, targets: Sequence[Path]) -> None:
    """Note what is at each target before the first is replaced, in case that this process is killed on the way."""
    if len(targets) > 1:  # a single rename is done or not
        seen = {target.name: _seen(target) for target in targets}
        (place / _NOTE).write_text(json.dumps(seen), encoding="utf-8")


def _seen(path: Path) -> list[int] | None:
    """Return numbers that change whenever a file is replaced or written to; None for a missing file."""
    try:
        state = path.lstat()
    except FileNotFoundError:
        return None
    return [state.st_ino, state.st_size, state.st_mtime_ns]


def _complete(place: Path) -> None:
    """Do the renames that a killed writer had begun, or was about to begin, when all was written."""
    for former in place.glob(f"*{_FORMER}"):  # of a folder
        name = former.name.removesuffix(_FORMER)
        if (place / name).is_dir() and not os.path.lexists(place.parent / name):
            os.rename(place / name, place.parent / name)
    for name, seen in reversed(_noted(place).items()):
        new, target = place / name, place.parent / name
        if new.is_file() and not new.is_symlink() and _seen(target) == seen:
            os.replace(new, target)


def _noted(place: Path) -> dict[str, object]:
    """Return what ``_note`` has noted of each name, none of them a path that leads elsewhere; {} for any other note.

    A folder from elsewhere, such as an unpacked archive, may hold a note that nobody here has written.
    """
    try:
        noted = json.loads(input_file("note", place / _NOTE).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):  # not all was written, or only one file
        return {}
    ours = isinstance(noted, dict) and all(Path(name).parts == (name,) and "\0" not in name for name in noted)
    return noted if ours else {}


def _exchanged(first: Path, second: Path) -> bool:
    """Exchange two paths in one step; return False where the system or file system cannot."""
    try:
        rename, here = ctypes.CDLL(None).renameat2, -100  # Linux: AT_FDCWD
    except (OSError, AttributeError):
        return False
    return rename(here, os.fsencode(first), here, os.fsencode(second), 2) == 0  # RENAME_EXCHANGE


def _is_temporary(name: object) -> bool:
    """Return whether a path lies in a temporary folder."""
    return isinstance(name, str | os.PathLike) and any(map(_TEMPORARY.fullmatch, Path(name).parts))


@functools.cache
def _host() -> str:
    """Return a short name of this machine."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]

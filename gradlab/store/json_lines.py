"""JSON lines on disk: one object per line, appended whole; a last line that was cut short is recognised."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from gradlab.checks import input_file, utf8
from gradlab.store.files import naming, write_all, write_whole


def append_line(path: Path | str, record: Mapping[str, Any], *, durable: bool = False) -> None:
    """Append one object as one line, whole, after cutting off what a killed process left of its last line.

    Several processes may append to one file. Raises ValueError where the file ends in text that is not an object;
    OSError, such as for a full disk, leaves the lines that were there, and names the file.

    Numbers that JSON does not have are written as the strings "NaN", "Infinity" and "-Infinity".

    durable  wait until the line is on the disk.
    """
    line = _line(record)
    if os.path.exists(path):
        input_file("log", path)  # a pipe or a device would take the line, and keep nothing
    with _lock(path), naming(path):  # else one writer would take another's half-written line for a torn one
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            _cut_torn_end(handle, path)
            write_all(handle, line, durable=durable)
        finally:
            os.close(handle)


def start_lines(path: Path | str, record: Mapping[str, Any]) -> None:
    """Write a file of one object, whole or not at all; FileExistsError where there is a file already."""
    line = _line(record)
    with _lock(path):
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "there is a file already", str(path))
        write_whole({Path(path): line})


Numbered = list[tuple[int, dict[str, Any]]]  # objects, each with its line's number


def read_lines(path: Path | str, kind: str) -> tuple[Numbered, bool]:
    """Return the objects in a file, each with its line's number, and whether a torn last line was left out.

    kind  what the file should be, for the error: ValueError names the file and the line that is not an object.
    """
    return _parsed(input_file("file", path).read_bytes(), 1, path, kind)


class GrowingLines:
    """A reader of a file to which others append: each ``read`` parses only what came since the last.

    What was read before is compared by a checksum, so that a file that was edited, cut short or replaced is noticed:
    it costs a hundredth of parsing it again.
    """

    def __init__(self, path: Path | str, kind: str) -> None:
        """Read ``path``, which need not exist yet; ``kind`` as for ``read_lines``."""
        self._path, self._kind = Path(path), kind
        self._start_again()

    def _start_again(self) -> None:
        self._bytes = self._checksum = self._lines = 0  # what was read: its length, its checksum, its line breaks

    def read(self) -> tuple[Numbered, bool]:
        """Return the new objects, and whether they follow those of former calls; if not, they are all there are.

        A torn last line counts as not written. Errors as in ``read_lines``.
        """
        content = input_file("file", self._path).read_bytes() if self._path.exists() else b""
        follows = zlib.crc32(content[: self._bytes]) == self._checksum and len(content) >= self._bytes
        if not follows:
            self._start_again()
        new = content[self._bytes :]
        records, torn = _parsed(new, self._lines + 1, self._path, self._kind)
        kept = new[: new.rfind(b"\n") + 1] if torn else new
        self._bytes, self._lines = self._bytes + len(kept), self._lines + kept.count(b"\n")
        self._checksum = zlib.crc32(kept, self._checksum)
        return records, follows


def stream_lines(
    path: Path | str, kind: str, when_torn: Callable[[int], object]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield what ``read_lines`` returns, line by line, so that a long file need not fit into the memory.

    when_torn  is called with the number of the last line where that was left out because it is torn.
    """
    with open(path, "rb") as file:
        yield from _objects(file, 1, path, kind, when_torn)


def _parsed(content: bytes, first: int, path: Path | str, kind: str) -> tuple[Numbered, bool]:
    """Return the objects in lines of a file from its line number ``first`` on, see ``read_lines``."""
    torn: list[int] = []
    return list(_objects(io.BytesIO(content), first, path, kind, torn.append)), bool(torn)


def _objects(
    lines: Iterable[bytes], first: int, path: Path | str, kind: str, when_torn: Callable[[int], object]
) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, first):
        if number == 1:
            utf8(path, line)
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except (ValueError, RecursionError):
            if number > 1 and line.startswith(b"{") and not line.endswith(b"\n"):  # its writer was killed
                when_torn(number)
                return
            record = None
        if not isinstance(record, dict):
            raise ValueError(f"{path}, line {number}, is no JSON object; {kind}")
        yield number, record


def keep_lines(path: Path | str, number: int) -> None:
    """Shorten a file to its first ``number`` lines, in one step that needs no room on the disk."""
    with _lock(path):
        content = input_file("file", path).read_bytes()
        kept = sum(len(line) + 1 for line in content.split(b"\n")[:number])
        if kept < len(content):  # truncation to more than there is would add zeros
            os.truncate(path, kept)


def _lock(path: Path | str) -> FileLock:
    """Return the lock that all writers of the file share, in a hidden file beside it."""
    path = Path(path)
    return FileLock(path.with_name(f".{path.name}.lock"))


def _cut_torn_end(handle: int, path: Path | str) -> None:
    """Shorten the file to its last whole line, or end that line where only the line break is missing."""
    size = os.fstat(handle).st_size
    if size == 0 or os.pread(handle, 1, size - 1) == b"\n":
        return
    last = _last_line(handle, size)
    try:
        record = json.loads(last.decode("utf-8-sig"))
    except ValueError:
        record = last
    if isinstance(record, dict):
        write_all(handle, b"\n")
    elif record is last and last.startswith(b"{"):
        os.ftruncate(handle, size - len(last))
    else:
        raise ValueError(f"{path} ends in something that is no JSON object; nothing is appended to it")


def _last_line(handle: int, size: int, step: int = 2**16) -> bytes:
    """Return what follows the last line break in an open file, which is read from its end."""
    last, start = b"", size
    while start and b"\n" not in last:
        width = min(step, start)
        start -= width
        last = os.pread(handle, width, start) + last
    return last.rpartition(b"\n")[2]


def _line(record: Mapping[str, Any]) -> bytes:
    """Return an object as a line of JSON."""
    plain = {key: _plain(value) for key, value in record.items()}
    return json.dumps(plain, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value

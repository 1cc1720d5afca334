"""Folders that gradlab may write anew: a sealed list in each says what was written into it, by hash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gradlab.store.files import file_hash, write_folder, write_whole
from gradlab.store.sealed import Damaged, read_sealed, sealed

LIST = "files.json"


def write_listed_folder(folder: Path, kind: str, fill: Callable[[Path], object]) -> None:
    """Write a folder with a list of its files, whole or not at all, over nothing but a former one of its kind.

    kind  what the folder is, in words, such as ``report``. fill: as in ``write_folder``.

    FileExistsError as in ``check_listed``; all else is as in ``write_folder``.
    """
    check_listed(folder, kind)

    def listed(part: Path) -> None:
        fill(part)
        hashes = {str(file.relative_to(part)): file_hash(file) for file in _files(part)}
        write_whole({part / LIST: sealed({"kind": kind, "files": hashes})})

    write_folder(folder, listed)


def check_listed(folder: Path, kind: str) -> None:
    """Raise FileExistsError where a folder holds a file that its writer did not write, or that was changed since.

    A folder that is not there, or has no file in it, passes. The error names one such file.
    """
    there = _files(folder) if folder.exists() else []
    wrote = _wrote(folder / LIST, kind)
    for file in there:
        name = str(file.relative_to(folder))
        if file.is_symlink() or (name != LIST and wrote.get(name) != file_hash(file)) or not wrote:
            raise FileExistsError(
                f"{folder} must be empty, a former {kind} as it was written, or not there; it holds something else: "
                f"{name}"
            )


def _wrote(file: Path, kind: str) -> dict[str, str]:
    """Return the hashes in a folder's list by file, {} where there is no list of this kind."""
    try:
        page = read_sealed(file)
    except (OSError, Damaged):
        return {}
    return page["files"] if page.get("kind") == kind else {}


def _files(folder: Path) -> list[Path]:
    """Return all that is in a folder and is no folder itself, links too, by name."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is there and is no folder")
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())

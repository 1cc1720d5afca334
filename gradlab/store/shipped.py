"""Files that travel with the package besides code: the notebooks, and the figures with the claims report."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from gradlab.store.files import write_whole

_RECORD = ".gradlab-notebooks.json"


def shipped(name: str) -> Path:
    """Return the folder ``notebooks`` or ``figures``: inside an installed package, or beside it in a checkout.

    Raises FileNotFoundError where it is in neither.
    """
    package = Path(__file__).resolve().parents[1]
    for place in (package / name, package.parent / name):
        if place.is_dir():
            return place
    raise FileNotFoundError(f"this installation of gradlab lacks its {name}; install it again, or work in a checkout")


def copy_notebooks(folder: Path) -> list[str]:
    """Copy the notebooks into ``folder``, new or existing; files that were changed there since the last copy are kept.

    Returns the names of the files that were kept although there is a newer version. A file that is as it was copied is
    replaced by the newer one. The hashes of all copies are in a hidden file of the folder.
    """
    source = shipped("notebooks")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder must be a folder, or not yet exist, got the file {str(folder)!r}")
    if folder.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"folder must lie outside of {source}, got {str(folder)!r}")
    record = _record(folder)
    kept = []
    try:
        for name, content in _files(source):
            target, newest = folder / name, _hash(content)
            there = _hash(target.read_bytes()) if target.is_file() else None
            if target.is_dir() or there not in (None, newest, record.get(name)):  # not ours, or changed
                if record.get(name) != newest:
                    kept.append(name)
                continue
            if there != newest:
                write_whole({target: content})
            record[name] = newest
    finally:  # also when stopped on the way: the files that were written must be known as ours
        write_whole({folder / _RECORD: json.dumps(record, indent=1) + "\n"})
    return kept


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each file that is shipped, but no hidden one, such as an editor's checkpoints."""
    for file in sorted(source.rglob("*")):
        parts = file.relative_to(source).parts
        if file.suffix in (".ipynb", ".png") and file.is_file() and not any(part.startswith(".") for part in parts):
            yield "/".join(parts), file.read_bytes()


def _record(folder: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        record = json.loads((folder / _RECORD).read_text("utf-8"))
        if isinstance(record, dict):
            return record
    return {}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

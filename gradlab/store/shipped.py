"""Files that travel with the package besides code: the notebooks, and the figures with the claims report."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from gradlab.checks import input_file, output_folder, resolved
from gradlab.store.files import file_hash, remove_leftovers, write_whole

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
    replaced by the newer one. The hashes of all copies, and of those that they replaced, are in a hidden file of the
    folder.
    """
    source, folder = shipped("notebooks"), output_folder("folder", folder)
    if resolved("folder", folder).is_relative_to(source.resolve()):
        raise ValueError(f"folder must lie outside of {source}, got {str(folder)!r}")
    remove_leftovers(folder)
    record = _record(folder)
    kept: list[str] = []
    files: dict[Path, bytes] = {}
    for name, content in _files(source):
        target, newest = folder / name, hashlib.sha256(content).hexdigest()
        copied = record.get(name, [])
        there = file_hash(target) if target.is_file() and not target.is_symlink() else None
        if there not in (*copied, newest) and os.path.lexists(target):  # not ours, or changed
            if newest not in copied[-1:]:
                kept.append(name)
            continue
        if there != newest:
            files[target] = content
        if newest not in copied[-1:]:
            record[name] = [*(known for known in (there,) if known in copied and known != newest), newest]
    page = json.dumps(record, indent=1) + "\n"
    write_whole({**files, folder / _RECORD: page})  # the record is renamed first: all that is there is known as ours
    return kept


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each file that is shipped, but no hidden one, such as an editor's checkpoints."""
    for file in sorted(source.rglob("*")):
        parts = file.relative_to(source).parts
        if file.suffix in (".ipynb", ".png") and file.is_file() and not any(part.startswith(".") for part in parts):
            yield "/".join(parts), file.read_bytes()


def _record(folder: Path) -> dict[str, list[str]]:
    """Return the hashes of each file's copies, by name: of the newest, and before it of the copy that it replaced."""
    with contextlib.suppress(OSError, ValueError):
        record = json.loads(input_file("record", folder / _RECORD).read_text("utf-8"))
        if isinstance(record, dict):
            return {name: hashes if isinstance(hashes, list) else [hashes] for name, hashes in record.items()}
    return {}

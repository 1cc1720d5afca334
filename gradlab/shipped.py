"""What travels with the package besides code: the notebooks, and the figures with the claims report."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from gradlab.artifacts import write_whole

_RECORD = ".gradlab-notebooks.json"


def shipped(name: str) -> Path:
    """The folder ``notebooks`` or ``figures``: inside an installed package, or beside it in a checkout.

    Raises FileNotFoundError where it is in neither.
    """
    package = Path(__file__).resolve().parent
    for place in (package / name, package.parent / name):
        if place.is_dir():
            return place
    raise FileNotFoundError(f"this installation of gradlab lacks its {name}; install it again, or work in a checkout")


def copy_notebooks(folder: Path) -> list[str]:
    """Bring the notebooks into ``folder``, new or existing; what was changed there since the last copy is kept.

    Returns the names of the files that were kept and differ. A file that is as it was copied gives way to the
    newer one; the hashes of all copies are in a hidden file of the folder.
    """
    source = shipped("notebooks")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder must be a folder, or not yet exist, got the file {str(folder)!r}")
    record = _record(folder)
    kept = []
    for file in sorted(file for file in source.rglob("*") if file.is_file() and not file.name.startswith(".")):
        name = file.relative_to(source).as_posix()
        if "checkpoints" in name:
            continue
        target, content = folder / name, file.read_bytes()
        if target.exists() and _hash(target.read_bytes()) not in (_hash(content), record.get(name)):
            kept.append(name)
            continue
        if not target.exists() or target.read_bytes() != content:
            write_whole(target, content)
        record[name] = _hash(content)
    write_whole(folder / _RECORD, json.dumps(record, indent=1) + "\n")
    return kept


def _record(folder: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / _RECORD).read_text("utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

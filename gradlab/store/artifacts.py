"""Results on disk: Parquet frames with a manifest beside each, written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from gradlab.checks import input_file
from gradlab.store.files import file_hash, remove_leftovers, write_whole
from gradlab.store.provenance import commit, versions

FORMAT = 1  # of the files this version writes and reads
STAMP = frozenset({"format", "versions", "commit", "sha256"})  # what ``save_frame`` adds to every manifest


def save_frame(frame: pd.DataFrame, path: Path | str, manifest: dict[str, Any], *, overwrite: bool = False) -> Path:
    """Write ``frame`` as Parquet to ``path``, and its manifest beside it as ``.json``; each whole or not at all.

    manifest  settings, seeds and whatever else explains the frame, as JSON-able data; the format, the versions, the
              commit and the SHA-256 of the data are added here.
    Equal frames give equal bytes. Returns the path of the frame. Raises FileExistsError where ``path`` holds another
    result, unless ``overwrite``, or anything that is not ours (see ``check_ours``); OSError, such as for a full disk,
    leaves what was there before.
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise ValueError(f"path must end in .parquet, got {str(path)!r}")
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    data = buffer.getvalue()
    check_ours(path)
    if not overwrite and path.exists() and input_file("path", path).read_bytes() != data:
        raise FileExistsError(f"{path} holds another result; name another file, or allow overwriting")
    write_whole({path: data, path.with_suffix(".json"): _page(manifest, hashlib.sha256(data).hexdigest())})
    return path


def merge_frames(files: Sequence[Path], path: Path, manifest: dict[str, Any]) -> Path:
    """Write the frames in ``files``, of equal columns, as one to ``path``, never all of them in memory.

    The manifest, the path that is returned and what is raised are as in ``save_frame``, with ``overwrite``.
    """
    check_ours(path)
    digest = ""

    def write(name: str) -> None:
        nonlocal digest
        with pq.ParquetWriter(name, pq.read_schema(files[0]), compression="zstd") as writer:
            for file in files:
                writer.write_table(pq.read_table(file))
        digest = file_hash(name)

    def describe(name: str) -> None:  # after the data, so that their digest is known
        Path(name).write_text(_page(manifest, digest), encoding="utf-8")

    write_whole({path: write, path.with_suffix(".json"): describe})
    return path


def holds(path: Path, key: str) -> bool:
    """Return whether the frame at ``path`` is there and whole, and has this ``key`` in its manifest."""
    with contextlib.suppress(OSError, ValueError):
        manifest = load_manifest(path)
        return manifest.get("key") == key and manifest.get("sha256") == file_hash(path)
    return False


def is_ours(path: Path) -> bool:
    """Return whether a manifest of ours proves the frame at ``path``, by format and hash, or neither file is there.

    A manifest without its frame is ours too: its writer was killed before the frame was there, or while removing both.
    """
    return foreign(path) is None


def foreign(path: Path) -> Path | None:
    """Return the frame at ``path``, or its manifest, if it is there and no manifest proves it ours; else None.

    A link is never ours: this package makes none. What a killed writer was about to rename is renamed first.
    """
    if _unproven(path) is not None:
        remove_leftovers(path.parent)
    return _unproven(path)


def _unproven(path: Path) -> Path | None:
    page = path.with_suffix(".json")
    manifest = our_manifest(path)
    if manifest is None:
        return next(filter(os.path.lexists, (page, path)), None)
    if not os.path.lexists(path):
        return None
    proven = path.is_file() and not path.is_symlink() and file_hash(path) == manifest["sha256"]
    return None if proven else path


def our_manifest(path: Path) -> dict[str, Any] | None:
    """Return the manifest of the frame at ``path``, by this version or another; None where there is none of ours.

    The frame itself may be damaged or missing.
    """
    page = path.with_suffix(".json")
    try:
        manifest = None if page.is_symlink() else json.loads(input_file("manifest", page).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(manifest, dict) and manifest.keys() >= STAMP and type(manifest["format"]) is int
    return manifest if ours else None


def check_ours(path: Path) -> None:
    """Raise FileExistsError, which names the file, where ``path`` or its manifest's is there and not ours."""
    if (file := foreign(path)) is not None:
        raise FileExistsError(
            f"{file} is there and is no result that gradlab wrote, or is damaged; name another file, or move it away"
        )


def make_way(path: Path) -> None:
    """Move what is at ``path`` and not ours, such as a damaged frame, to a free name beside it, with a warning."""
    while (file := foreign(path)) is not None:
        names = (file.with_name(f"{file.name}.kept-{number}") for number in itertools.count(1))
        aside = next(name for name in names if not os.path.lexists(name))
        os.rename(file, aside)
        warnings.warn(f"{file} is no result that gradlab wrote, or is damaged: kept as {aside.name}", stacklevel=2)


def remove_frames(folder: Path, names: str = "*") -> None:
    """Remove the frames in a folder that are ours, and then the folder, unless it holds something else.

    names  a pattern for the frames' names without their ending.
    """
    remove_leftovers(folder)
    for page in sorted(folder.glob(f"{names}.json")):
        path = page.with_suffix(".parquet")
        if is_ours(path):
            path.unlink(missing_ok=True)  # the manifest last: as long as it is there, all is known as ours
            page.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it is not there, or holds something else
        folder.rmdir()


def load_frame(path: Path | str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read a frame and its manifest as ``save_frame`` wrote them.

    Raises FileNotFoundError where either is missing, ValueError where the manifest has another format or describes
    other data.
    """
    path = Path(path)
    manifest = load_manifest(path)
    data = input_file("frame", path).read_bytes()
    if hashlib.sha256(data).hexdigest() != manifest.get("sha256"):
        raise ValueError(f"{path} is not the data that its manifest describes; regenerate both")
    return pd.read_parquet(io.BytesIO(data)), manifest


def load_manifest(path: Path | str) -> dict[str, Any]:
    """Read the manifest of the frame at ``path``; errors as in ``load_frame``."""
    path = Path(path).with_suffix(".json")
    try:
        manifest = json.loads(input_file("manifest", path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not a manifest: {error}") from None
    number = manifest.get("format") if isinstance(manifest, dict) else None
    if number != FORMAT:
        raise ValueError(f"{path} has format {number!r}; this version of gradlab reads format {FORMAT}: regenerate it")
    return manifest


def between_markers(page: str, name: str, content: str) -> str:
    """Return ``page`` with ``content`` between its lines ``<!-- name -->`` and ``<!-- /name -->``.

    Raises ValueError where one of the lines is missing.
    """
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, opening, rest = page.partition(first)
    _, closing, after = rest.partition(last)
    if not (opening and closing):
        raise ValueError(f"the page needs the lines {first} and {last}")
    return f"{before}{first}\n{content.strip()}\n{last}{after}"


def _page(manifest: dict[str, Any], digest: str) -> str:
    """Return the manifest's text, for data of this SHA-256."""
    stamp = {"format": FORMAT, "versions": versions(), "commit": commit(), "sha256": digest}
    return json.dumps({**manifest, **stamp}, indent=1, ensure_ascii=False) + "\n"

"""Results on disk: Parquet frames with a manifest beside each, written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from gradlab.store.files import file_hash, write_whole
from gradlab.store.provenance import commit, versions

FORMAT = 1  # of the files this version writes and reads


def save_frame(frame: pd.DataFrame, path: Path | str, manifest: dict[str, Any], *, overwrite: bool = False) -> Path:
    """Write ``frame`` as Parquet to ``path``, and its manifest beside it as ``.json``; each whole or not at all.

    manifest  settings, seeds and whatever else explains the frame, as JSON-able data; the format, the versions, the
              commit and the SHA-256 of the data are added here.
    Equal frames give equal bytes. Returns the path of the frame. Raises FileExistsError where ``path`` holds other
    data, unless ``overwrite``; OSError, such as for a full disk, leaves what was there before.
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise ValueError(f"path must end in .parquet, got {str(path)!r}")
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    data = buffer.getvalue()
    page = path.with_suffix(".json")
    if not overwrite and (
        (path.exists() and path.read_bytes() != data) or (page.exists() and '"sha256"' not in page.read_text("utf-8"))
    ):
        raise FileExistsError(f"{path} or its manifest holds something else; name another file, or allow overwriting")
    write_whole({path: data, page: _page(manifest, hashlib.sha256(data).hexdigest())})
    return path


def merge_frames(files: Sequence[Path], path: Path, manifest: dict[str, Any]) -> Path:
    """Write the frames in ``files``, of equal columns, as one to ``path``, never all of them in memory.

    The manifest, the path that is returned and what is raised are as in ``save_frame``, with ``overwrite``.
    """
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


def load_frame(path: Path | str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read a frame and its manifest as ``save_frame`` wrote them.

    Raises FileNotFoundError where either is missing, ValueError where the manifest has another format or describes
    other data.
    """
    path = Path(path)
    manifest = load_manifest(path)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != manifest.get("sha256"):
        raise ValueError(f"{path} is not the data that its manifest describes; regenerate both")
    return pd.read_parquet(io.BytesIO(data)), manifest


def load_manifest(path: Path | str) -> dict[str, Any]:
    """Read the manifest of the frame at ``path``; errors as in ``load_frame``."""
    path = Path(path).with_suffix(".json")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
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

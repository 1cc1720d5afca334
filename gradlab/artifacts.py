"""Results on disk: Parquet frames with a manifest beside each, written whole or not at all."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

FORMAT = 1  # of the files this version writes and reads
_LIBRARIES = ("numpy", "pandas", "scipy", "torch")


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
    write_whole(path, data, page, _page(manifest, hashlib.sha256(data).hexdigest()))
    return path


def merge_frames(files: Sequence[Path], path: Path, manifest: dict[str, Any]) -> Path:
    """Write the frames in ``files``, of equal columns, as one to ``path``, never all of them in memory."""

    def write(name: str) -> None:
        with pq.ParquetWriter(name, pq.read_schema(files[0]), compression="zstd") as writer:
            for file in files:
                writer.write_table(pq.read_table(file))

    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        merged = Path(scratch) / path.name
        write(str(merged))
        with open(merged, "rb") as data:
            digest = hashlib.file_digest(data, "sha256").hexdigest()
        write_whole(
            path, lambda name: shutil.copyfile(merged, name), path.with_suffix(".json"), _page(manifest, digest)
        )
    return path


def load_frame(path: Path | str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read a frame and its manifest as ``save_frame`` wrote them.

    Raises FileNotFoundError where either is missing, ValueError where the manifest is of another format, or the data
    are not the ones that it describes.
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
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not a manifest: {error}") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path} has format {found!r}; this version of gradlab reads format {FORMAT}: regenerate it")
    return manifest


def write_whole(path: Path | str, content: bytes | str | Callable[[str], object], *more: Any) -> None:
    """Write a file so that it is the old one or the new one, never a part: to a temporary file, then renamed.

    content  bytes, text, or a function that writes to the file name that it is given.
    more     further paths and contents, in turn; nothing is renamed before all of them are written.
    """
    pairs = [(path, content), *zip(more[::2], more[1::2], strict=True)]
    staged: list[tuple[str, Path]] = []
    try:
        for target, inside in pairs:
            target = Path(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent)
            os.close(handle)
            staged.append((name, target))
            if callable(inside):
                inside(name)
            else:
                Path(name).write_bytes(inside.encode() if isinstance(inside, str) else inside)
            with open(name, "rb") as written:
                os.fsync(written.fileno())
            os.chmod(name, 0o644)
        for name, target in staged:
            os.replace(name, target)
    finally:
        for name, _ in staged:
            Path(name).unlink(missing_ok=True)


def text_at_head(path: Path | str) -> str | None:
    """What a text file holds in the last commit of the git checkout that it lies in.

    None where it is in no checkout, or not in that commit, or git is not there. The file itself need not exist.
    """
    path = Path(path)
    return _git(path.parent, "show", f"HEAD:./{path.name}")


def between_markers(page: str, name: str, content: str) -> str:
    """``page`` with ``content`` between its lines ``<!-- name -->`` and ``<!-- /name -->``; ValueError without them."""
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = page.partition(first)
    _, closed, after = rest.partition(last)
    if not (found and closed):
        raise ValueError(f"the page needs the lines {first} and {last}")
    return f"{before}{first}\n{content.strip()}\n{last}{after}"


def versions(libraries: Iterable[str] = _LIBRARIES) -> dict[str, str]:
    """Versions of the libraries that numbers depend on, without local build tags."""
    return {name: metadata.version(name).split("+")[0] for name in libraries}


def fingerprint(*parts: Any) -> str:
    """A short hash of JSON-able parts, the same on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def source_hash(module: str, *, without: Iterable[str] = ()) -> str:
    """A hash of the sources that ``module`` of gradlab imports, directly or not, itself not included.

    without  modules to leave out, with what only they import: those that cannot change the numbers.
    """
    todo, seen = set(_imports(module)), set(without) | {module}
    sources = []
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        sources.append((name, _source(name)))
        todo |= _imports(name)
    return fingerprint(sorted(sources))


def definitions_hash(module: str, roots: Iterable[str]) -> str:
    """A hash of the definitions of ``module`` that ``roots`` lead to; comments and layout do not count.

    roots  names that the module defines at its top level; what they use there, directly or not, is included.
    """
    definitions: dict[str, str] = {}
    uses: dict[str, set[str]] = {}
    for node in ast.parse(_source(module)).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        inside = [inner for target in filter(None, targets) for inner in ast.walk(target)]
        names = [inner.id for inner in inside if isinstance(inner, ast.Name)] + [getattr(node, "name", "")]
        for name in filter(None, names):
            definitions[name] = ast.unparse(node)
            uses[name] = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    todo, reached = list(roots), set()
    while todo:
        name = todo.pop()
        if name in definitions and name not in reached:
            reached.add(name)
            todo += uses[name]
    return fingerprint([definitions[name] for name in sorted(reached)])


def _page(manifest: dict[str, Any], digest: str) -> str:
    """The manifest's text, for data of this SHA-256."""
    stamp = {"format": FORMAT, "versions": versions(), "commit": _commit(), "sha256": digest}
    return json.dumps({**manifest, **stamp}, indent=1, ensure_ascii=False) + "\n"


def _imports(module: str) -> frozenset[str]:
    """The modules of gradlab that a module's source names in its imports."""
    return _imported(_source(module))


@functools.cache
def _imported(source: str) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in found if name.split(".")[0] == "gradlab" and _origin(name))


def _source(module: str) -> str:
    return Path(_origin(module) or "").read_text(encoding="utf-8")


def _origin(module: str) -> str | None:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # the name of a function or class, not of a module
        return None
    return spec.origin if spec else None


def _commit() -> str | None:
    """The commit of the source tree, as information; None outside a git checkout."""
    found = _git(Path(__file__).parent, "rev-parse", "--short", "HEAD")
    return found.strip() or None if found else None


def _git(folder: Path, *arguments: str) -> str | None:
    """What git answers in a folder; None where it cannot, or is not there."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=5, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None

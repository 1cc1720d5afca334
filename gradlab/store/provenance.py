"""What a result depends on: sources, settings, library versions; and the commit, as information."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import os
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

_LIBRARIES = ("llvmlite", "numpy", "pandas", "scipy", "torch")
# Changing these cannot change a number that a training gives.
PLUMBING = (
    "gradlab",
    "gradlab.store.artifacts",
    "gradlab.stats.intervals",
    "gradlab.store.pool",
    "gradlab.plotting",
    "gradlab.store.provenance",
)


def fingerprint(*parts: Any) -> str:
    """A short hash of JSON-able parts, the same on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code_key(module: str, roots: Iterable[str], *, without: Iterable[str] = ()) -> str:
    """What the numbers of some functions of a module depend on: their code, what they import, library versions.

    roots    see ``definitions_hash``.
    without  modules that cannot change a number, besides ``PLUMBING``.
    """
    sources = source_hash(module, without=(*PLUMBING, *without))
    return fingerprint(definitions_hash(module, roots), sources, versions())


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


def versions(libraries: Iterable[str] = _LIBRARIES) -> dict[str, str]:
    """Versions of the libraries that numbers depend on, without local build tags; "missing" for what is not there."""
    return {name: _version(name) for name in libraries}


@functools.cache
def _version(library: str) -> str:
    try:
        return metadata.version(library).split("+")[0]
    except metadata.PackageNotFoundError:
        return "missing"


def text_at_head(path: Path | str) -> str | None:
    """What a text file holds in the last commit of the git checkout that it lies in.

    None where it is in no checkout, or not in that commit, or git is not there. The file itself need not exist.
    """
    path = Path(path)
    return _git(path.parent, "show", f"HEAD:./{path.name}")


@functools.cache
def commit() -> str | None:
    """The commit of the source tree, as information; None outside a git checkout.

    Where the sources are a copy without git, as in a container, the environment's GRADLAB_COMMIT names it.
    """
    if named := os.environ.get("GRADLAB_COMMIT"):
        return named
    found = _git(Path(__file__).parent, "rev-parse", "--short", "HEAD")
    return found.strip() or None if found else None


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


def _git(folder: Path, *arguments: str) -> str | None:
    """What git answers in a folder; None where it cannot, or is not there."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=5, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None

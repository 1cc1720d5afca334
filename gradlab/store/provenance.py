"""Keys of all that a result depends on: sources, settings, library versions; and the commit, as information."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from gradlab.checks import shown

_LIBRARIES = ("llvmlite", "numpy", "pandas", "scipy", "torch")
# Modules that cannot change a number that a training gives.
PLUMBING = (
    "gradlab",
    "gradlab.console",
    "gradlab.plotting",
    "gradlab.stats.conditions",
    "gradlab.stats.moderators",
    "gradlab.stats.words",
    "gradlab.store.artifacts",
    "gradlab.store.files",
    "gradlab.store.pool",
    "gradlab.store.private_files",
    "gradlab.store.provenance",
    "gradlab.store.stamps",
)


def fingerprint(*parts: Any) -> str:
    """Return a short hash of JSON-able parts, the same on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code_key(module: str, roots: Iterable[str], *, without: Iterable[str] = ()) -> str:
    """Return the key of what the numbers of some functions of a module depend on.

    That is their code, the sources that the module imports, and library versions.

    roots    see ``definitions_hash``.
    without  modules that cannot change a number, besides ``PLUMBING``.
    """
    sources = source_hash(module, without=(*PLUMBING, *without))
    return fingerprint(definitions_hash(module, roots), sources, versions())


def module_hash(module: str) -> str:
    """Return a hash of a module's source and of all the sources of gradlab that it imports."""
    return fingerprint(_source(module), source_hash(module))


def source_hash(module: str, *, without: Iterable[str] = ()) -> str:
    """Return a hash of the sources that ``module`` of gradlab imports, directly or not, itself not included.

    without  modules to leave out, with what only they import: those that cannot change the numbers.

    Raises ValueError for an import of something in gradlab whose source cannot be read.
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
    """Return a hash of the definitions of ``module`` that ``roots`` lead to; comments and layout do not count.

    roots  names that the module binds at its top level; the names that they use there, directly or not, are included,
           those that it imports as well.

    Raises ValueError for a root that the module does not bind.
    """
    definitions, uses = _definitions(_source(module))
    todo, reached = list(roots), set()
    for root in todo:
        if root not in definitions:
            raise ValueError(f"roots must be names that {module} defines at its top level, got {root!r}")
    while todo:
        name = todo.pop()
        if name in definitions and name not in reached:
            reached.add(name)
            todo += uses[name]
    return fingerprint([definitions[name] for name in sorted(reached)])


@functools.lru_cache(maxsize=256)
def _definitions(source: str) -> tuple[dict[str, list[str]], dict[str, set[str]]]:
    """Return the code that binds each name of a source's top level, and the names that this code uses."""
    definitions: dict[str, list[str]] = {}
    uses: dict[str, set[str]] = {}
    for node in ast.parse(source).body:
        for name, text in _bound(node):
            definitions.setdefault(name, []).append(text)
            uses.setdefault(name, set()).update(inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name))
    return definitions, uses


def _bound(statement: ast.stmt) -> Iterator[tuple[str, str]]:
    """Yield each name that a statement binds, with the code that binds it."""
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            yield _as(alias), ast.unparse(ast.Import([alias]))
    elif isinstance(statement, ast.ImportFrom):
        for alias in statement.names:  # each by itself, so that another name in the line does not count
            yield _as(alias), ast.unparse(ast.ImportFrom(statement.module, [alias], statement.level))
    else:
        text = ast.unparse(statement)
        yield from ((name, text) for name in dict.fromkeys(_names(statement)))


def _names(node: ast.AST) -> Iterator[str]:
    """Yield the names that code binds where it stands, none that is local to a function or a comprehension."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from map(_as, node.names)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif not isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _names(child)


def _as(alias: ast.alias) -> str:
    """Return the name that an import binds."""
    return alias.asname or alias.name.split(".")[0]


def versions(libraries: Iterable[str] = _LIBRARIES) -> dict[str, str]:
    """Return the versions of the libraries that numbers depend on, without local build tags, or "missing"."""
    return {name: _version(name) for name in libraries}


@functools.cache
def _version(library: str) -> str:
    try:
        return metadata.version(library).split("+")[0]
    except metadata.PackageNotFoundError:
        return "missing"


def text_at_head(path: Path | str) -> str | None:
    """Return a text file's content in the last commit of the git checkout that it lies in.

    None where the file is in no checkout or not in that commit, or git is missing. The file itself need not exist.
    """
    path = Path(path)
    return _git(path.parent, "cat-file", "blob", f"HEAD:./{path.name}")


def text_at(path: Path | str, revision: str) -> str:
    """Return a text file's content in a revision of the git checkout that it lies in; the file itself need not exist.

    Raises ValueError, in one line, where the revision does not exist there, or does not have the file.
    """
    path = Path(path)
    if revision.startswith("-") or _git(path.parent, "rev-parse", "--verify", f"{revision}^{{commit}}") is None:
        raise ValueError(f"revision must be a commit of the git checkout around {path.parent}, got {shown(revision)}")
    text = _git(path.parent, "cat-file", "blob", f"{revision}:./{path.name}")
    if text is None:
        raise ValueError(f"revision must be one that has {path}, got {shown(revision)}")
    return text


@functools.cache
def commit() -> str | None:
    """Return the commit of the source tree, as information; None outside a git checkout that holds the sources.

    Where the sources are a copy without git, as in a container, the environment's GRADLAB_COMMIT names it.
    """
    if named := os.environ.get("GRADLAB_COMMIT"):
        return named
    here = Path(__file__)
    if _git(here.parent, "cat-file", "-e", f"HEAD:./{here.name}") is None:  # inside another project's checkout
        return None
    answer = _git(here.parent, "rev-parse", "--short", "HEAD")
    return answer.strip() or None if answer else None


def _imports(module: str) -> frozenset[str]:
    """Return the modules of gradlab that a module's source names in its imports."""
    return _imported(_source(module), module)


@functools.cache
def _imported(source: str, module: str) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if _is_ours(alias.name)}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{module} must import by whole names, got a relative import in line {node.lineno}")
            if node.module and _is_ours(node.module):
                inside = {name for alias in node.names if _origin(name := f"{node.module}.{alias.name}")}
                if node.module == "gradlab" and len(inside) < len(node.names):
                    raise ValueError(f"{module} must import from modules, got a name of gradlab in line {node.lineno}")
                found |= {node.module, *inside}
    return frozenset(found)


def _is_ours(name: str) -> bool:
    return name.split(".")[0] == "gradlab"


def _source(module: str) -> str:
    """Return the text of a module; ValueError where there is none."""
    origin = _origin(module)
    if origin is None or not origin.endswith(".py"):
        raise ValueError(f"{module} must be a module with a source that can be read, and is not")
    return Path(origin).read_text(encoding="utf-8")


def _origin(module: str) -> str | None:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # the name of a function or class, not of a module
        return None
    return spec.origin if spec else None


# What makes git look elsewhere than in the folder, as in a hook.
_ELSEWHERE = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_DIR", "GIT_INDEX_FILE", "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY", "GIT_WORK_TREE",
)  # fmt: skip
# What a checkout of somebody else's could make git run. The environment wins over any configuration.
_NOTHING_RUNS = {"GIT_ALLOW_PROTOCOL": "", "GIT_NO_LAZY_FETCH": "1", "GIT_NO_REPLACE_OBJECTS": "1",
                 "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}  # fmt: skip
_SAFE = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "safe.bareRepository=explicit")


def _git(folder: Path, *arguments: str) -> str | None:
    """Return git's output for a command that reads objects in a folder; None where it fails or git is missing.

    The checkout may come from somebody else, with a configuration that names programs. Here git fetches nothing, over
    no protocol, and runs no hook and no monitor. The commands must have no filters, conversions of text or aliases, as
    ``cat-file`` and ``rev-parse``.
    """
    settings = (part for setting in _SAFE for part in ("-c", setting))
    command = ["git", "--no-pager", *settings, "-C", str(folder), *arguments]
    environment = {key: value for key, value in os.environ.items() if key not in _ELSEWHERE} | _NOTHING_RUNS
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", env=environment, timeout=5,
            check=False,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None

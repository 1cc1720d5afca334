"""A user's own Python code, named as MODULE:NAME or FILE.py:NAME: imported, with errors of one line."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from gradlab.checks import in_words, input_file


def member_of(what: str, place: str, name: str, fits: Callable[[Any], bool], kind: str, *, fresh: bool = False) -> Any:
    """Return what a module or a file calls ``name``, which may be dotted.

    what   the start of messages, such as "reward mine.py:helpfulness".
    place  a module's name, or a file's that ends in .py.
    fits   whether a value is of the kind that is looked for; messages list names of such values.
    kind   the word for it in messages, such as FUNCTION.
    fresh  run a file again even if its content is known: what it has counted or kept so far is gone.

    ValueError, or FileNotFoundError, in one line, where the code cannot be imported or has no such name.
    """
    module = file_module(what, Path(place), fresh=fresh) if place.endswith(".py") else _module(what, place, kind)
    try:
        return functools.reduce(getattr, name.split("."), module)
    except AttributeError:
        near = [known for known, value in vars(module).items() if fits(value) and not known.startswith("_")][:8]
        raise ValueError(f"{what}: {in_words(place)} has no {name!r}; it has {', '.join(near) or 'none'}") from None


def file_module(what: str, path: Path, source: str | None = None, *, fresh: bool = False) -> ModuleType:
    """Return the module that a file defines; unless ``fresh``, a file whose content is known is not run again.

    source  the text that the file had, for a process that may not see the file any more; None: what it has now.
    """
    if source is None:
        try:
            source = input_file("file", path).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise FileNotFoundError(f"{what}: {in_words(path)} is no file") from None
        except UnicodeDecodeError:
            raise ValueError(f"{what}: {in_words(path)} must be a text in UTF-8") from None
    name = f"gradlab_file_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    known = sys.modules.get(name)
    if known is not None and known.__source__ == source and not fresh:
        return known
    module = ModuleType(name)
    module.__file__, module.__source__ = str(path), source  # type: ignore[attr-defined]
    sys.modules[name] = module  # where dataclasses look for the names in annotations
    try:
        exec(compile(source, str(path), "exec"), vars(module))
    except BaseException as error:
        if known is None:
            del sys.modules[name]
        else:
            sys.modules[name] = known
        if not isinstance(error, Exception):
            raise
        raise ValueError(f"{what}: {in_words(path)} cannot be imported ({_one_line(error)})") from None
    return module


def _module(what: str, name: str, kind: str) -> ModuleType:
    """Import a module, which may lie in the working folder."""
    try:
        with _working_folder_on_path():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(f"{what}: there is no module {error.name!r}; or give FILE.py:{kind}") from None
        raise ValueError(f"{what}: {name} needs {error.name}, which is not installed") from None
    except Exception as error:
        raise ValueError(f"{what}: {name} cannot be imported ({_one_line(error)})") from None


@contextlib.contextmanager
def _working_folder_on_path() -> Iterator[None]:
    """Let modules inside also be imported from the working folder, which is searched last, so that it hides nothing."""
    if "" in sys.path:
        yield
        return
    sys.path.append("")
    try:
        yield
    finally:
        sys.path.remove("")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())

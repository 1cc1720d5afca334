"""Rewards that are Python functions: found by MODULE:FUNCTION or FILE.py:FUNCTION."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ACCEPTED = (
    "a folder or hub name of a sequence classifier or of a safe-rlhf score model, in safetensors; MODULE:FUNCTION; or "
    "FILE.py:FUNCTION"
)


def is_function(spec: str) -> bool:
    """Say whether a reward's name is that of a function."""
    return ":" in spec and not Path(spec).is_dir()


def function_of(spec: str) -> Callable[..., Any]:
    """Return the callable of "MODULE:FUNCTION" or "FILE.py:FUNCTION"."""
    module, _, name = spec.rpartition(":")
    if not module or not name:
        raise ValueError(f"reward must be {ACCEPTED}; got {spec!r}")
    place: Any = _file_module(Path(module), spec) if module.endswith(".py") else _module(module, spec)
    try:
        function = functools.reduce(getattr, name.split("."), place)
    except AttributeError:
        near = [known for known in vars(place) if callable(getattr(place, known)) and not known.startswith("_")][:8]
        raise ValueError(
            f"reward {spec}: {module} has no {name!r}; it has {', '.join(near) or 'no function'}"
        ) from None
    if not callable(function):
        raise ValueError(f"reward {spec} must be a function of prompts and responses, got {type(function).__name__}")
    return function


def _module(name: str, spec: str) -> Any:
    """Import a module, which may lie in the working folder."""
    try:
        with _working_folder_on_path():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(f"reward {spec}: there is no module {error.name!r}; or give FILE.py:FUNCTION") from None
        raise ValueError(f"reward {spec}: {name} needs {error.name}, which is not installed") from None
    except Exception as error:
        raise ValueError(f"reward {spec}: {name} cannot be imported ({type(error).__name__}: {error})") from None


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


def _file_module(path: Path, spec: str) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"reward {spec}: {path} is no file")
    described = importlib.util.spec_from_file_location(f"gradlab_reward_{path.stem}", path)
    assert described is not None  # it ends in .py
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    try:
        described.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"reward {spec}: {path} cannot be imported ({type(error).__name__}: {error})") from None
    return module

"""Rewards that are Python functions: found by MODULE:FUNCTION or FILE.py:FUNCTION."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradlab.user_code import member_of

ACCEPTED = (
    "a folder or hub name of a sequence classifier or of a safe-rlhf score model, in safetensors; MODULE:FUNCTION; or "
    "FILE.py:FUNCTION"
)


def is_function(spec: str) -> bool:
    """Say whether a reward's name is that of a function."""
    return ":" in spec and not Path(spec).is_dir()


def function_of(spec: str) -> Callable[..., Any]:
    """Return the callable of "MODULE:FUNCTION" or "FILE.py:FUNCTION"."""
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise ValueError(f"reward must be {ACCEPTED}; got {spec!r}")
    function = member_of(f"reward {spec}", place, name, callable, "FUNCTION", fresh=True)
    if not callable(function):
        raise ValueError(f"reward {spec} must be a function of prompts and responses, got {type(function).__name__}")
    return function

"""Checks at the door: each returns its value, or raises ValueError with one line naming argument, value and remedy."""

from __future__ import annotations

import difflib
import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def count(name: str, value: Any, least: int = 0) -> int:
    """Return ``value`` as an int if it is a whole number ≥ ``least``."""
    if not _is_real(value) or not hasattr(value, "__index__") or value < least:
        raise ValueError(f"{name} must be a whole number ≥ {least}, got {value!r}")
    return int(value)


def positive(name: str, value: Any) -> float:
    """Return ``value`` as a float if it is a finite number > 0."""
    if not _is_real(value) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be finite and > 0, got {value!r}")
    return float(value)


def between(
    name: str,
    value: Any,
    low: float,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Return ``value`` as a float if it is finite and lies between the ends, which belong to the range unless open."""
    inside = _is_real(value) and (low < value if open_low else low <= value)
    inside = inside and (value < high if open_high else value <= high) and math.isfinite(value)
    if not inside:
        left, right = "(" if open_low else "[", ")" if open_high or high == math.inf else "]"
        raise ValueError(f"{name} must be finite and lie in {left}{low:g}, {high:g}{right}, got {value!r}")
    return float(value)


def one_of(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return ``value`` if it is among ``choices``; the error names all of them and the nearest."""
    known: Sequence[str] = tuple(choices)
    if not isinstance(value, str) or value not in known:
        near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}{hint}")
    return value


def utf8(name: object, head: bytes) -> None:
    """Raise ValueError where the first bytes of a file, four or more, are those of a text in UTF-16 or UTF-32."""
    encoding = json.detect_encoding(head[:4]) if any(head[:4]) else "utf-8"
    if not encoding.startswith("utf-8"):
        raise ValueError(
            f"{name} must be UTF-8, and is {encoding.upper()}; change it by: "
            f"iconv -f {encoding.removesuffix('-sig')} -t utf-8 OLD > NEW"
        )


def _is_real(value: Any) -> bool:
    scalar = hasattr(value, "__float__") and not isinstance(value, (bool, str)) and getattr(value, "ndim", 0) == 0
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return False
    return scalar and "bool" not in str(getattr(value, "dtype", ""))  # numpy's and torch's booleans are numbers too

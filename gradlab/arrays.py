"""Checks of arrays at the door: lists, numpy arrays, tensors and frames become arrays of numbers, or an error."""

from __future__ import annotations

import numbers as kinds
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlab.checks import in_words, shown

_DEEPEST = 32  # axes of an array, and lists inside lists


def real_array(name: str, values: Any) -> np.ndarray:
    """Return ``values`` as an array of float64, which may share memory with them; infinities and NaN may be among them.

    ValueError, in one line, for anything else than an array of real numbers: text, dates, objects, complex numbers,
    lists of unequal lengths, sparse arrays, tensors without values, and masked arrays that hide something, since a
    number under a mask is no number. Tensors are detached.
    """
    array = _plain(name, values)
    if array.dtype == object and all(isinstance(value, kinds.Real) for value in array.flat):
        try:
            return array.astype(float)
        except (OverflowError, ValueError, TypeError):
            raise ValueError(f"{name} must be numbers that float64 holds, got {shown(values)}") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be an array of numbers, got {_kind(values, array)}")
    return array.astype(float, copy=False)


def real_row(name: str, values: Any) -> np.ndarray:
    """Return ``values`` as ``real_array`` does, if they have shape (n,); ValueError for any other shape."""
    row = real_array(name, values)
    if row.ndim != 1:
        raise ValueError(f"{name} must have shape (n,), got {row.shape}")
    return row


def bool_array(name: str, values: Any) -> np.ndarray:
    """Return ``values`` as an array of booleans; ValueError, in one line, for anything else."""
    array = _plain(name, values)
    if array.dtype != bool:
        raise ValueError(f"{name} must be boolean, got {array.dtype}")
    return array


def _plain(name: str, values: Any) -> np.ndarray:
    """Return ``values`` as an array of whatever type; ValueError where they are none, or hide something."""
    if _hides(values):
        raise ValueError(f"{name} must not hide entries under a mask, got {type(values).__name__}; fill them")
    try:
        if hasattr(values, "detach"):  # a tensor, without an import of torch
            values = values.detach().cpu()
            values = values.double().numpy() if values.is_floating_point() else values.numpy()
        return np.asarray(values)
    except Exception as error:  # of a dozen kinds: ragged lists, sparse or meta tensors, an object's own
        why = " ".join(str(error).split())[:80]
        raise ValueError(f"{name} must be an array of numbers, got {type(values).__name__} ({why})") from None


def _hides(values: Any, depth: int = 0) -> bool:
    """Return whether a masked array, here or inside lists, hides an entry."""
    if isinstance(values, np.ma.MaskedArray):
        return bool(np.ma.getmaskarray(values).any())
    if isinstance(values, (list, tuple)) and depth < _DEEPEST:
        return any(_hides(part, depth + 1) for part in values if not isinstance(part, (float, int)))
    return False


def _kind(values: Any, array: np.ndarray) -> str:
    """Return what was given, in words: a value as it is, an array by its type, anything else by its class."""
    if array.ndim == 0:
        return shown(values)
    return f"an array of {array.dtype}" if array.dtype != object else type(values).__name__


def check_columns(name: str, frame: Any, columns: Sequence[str]) -> None:
    """Raise ValueError for anything that is not a data frame with these columns."""
    there = getattr(frame, "columns", None)
    missing = [column for column in columns if there is None or column not in there]
    if missing or not hasattr(frame, "loc"):
        got = f"one without {', '.join(map(in_words, missing))}" if there is not None else shown(frame)
        raise ValueError(f"{name} must be a data frame with the columns {', '.join(map(in_words, columns))}, got {got}")

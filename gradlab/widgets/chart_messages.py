"""Charts as messages to the page: their fields by name, and arrays as bytes that the browser reads without parsing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from gradlab.plotting.charts import Chart


def as_messages(charts: Sequence[Chart]) -> list[dict[str, Any]]:
    """Return one dict per chart, as ``charts.ts`` takes it: its ``type``, and its fields by name.

    An array is ``{"f8": its float64 numbers as bytes, "shape": [...]}``; a number that is not finite is None.
    """
    return [{"type": type(chart).__name__.lower(), **_record(chart)} for chart in charts]


def _record(record: Any) -> dict[str, Any]:
    return {field.name: _sent(getattr(record, field.name)) for field in fields(record)}


def _sent(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return memoryview(value)
    if isinstance(value, np.ndarray):
        return {"f8": memoryview(value.astype("<f8").tobytes()), "shape": list(value.shape)}
    if is_dataclass(value):
        return _record(value)
    return [_sent(part) for part in value]

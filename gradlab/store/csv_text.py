"""Tables as CSV that spreadsheets may open: no cell of text is taken for a formula."""

from __future__ import annotations

from typing import Any

import pandas as pd

_BEGINS = ("=", "+", "-", "@", "\t", "\r")  # as OWASP lists them under "CSV injection"


def csv_text(frame: pd.DataFrame, *, float_format: str | None = None) -> str:
    """Return a table as CSV, without its index: a text that a spreadsheet would compute has a single quote before it.

    Numbers are written as they are, and so are texts that are numbers. Names of columns count as texts. Carriage
    returns in texts become line feeds.
    """
    cells = frame.copy(deep=False)
    for place in range(len(frame.columns)):
        column = frame.iloc[:, place]
        if not pd.api.types.is_numeric_dtype(column.dtype):
            cells.isetitem(place, [_harmless(cell) for cell in column.astype(object)])
    cells.columns = [_harmless(name) for name in frame.columns]
    return cells.to_csv(index=False, float_format=float_format, lineterminator="\n")


def _harmless(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    quoted = cell.startswith(_BEGINS)
    cell = cell.replace("\r\n", "\n").replace("\r", "\n")  # a carriage return alone would end the row for some readers
    if not quoted:
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell

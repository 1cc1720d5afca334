"""Parts that the pages of all benchmarks share: a heading that says when a run was quick, tables, and numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gradlab.store.markdown import markdown_table

NUMBER = re.compile(r"–?$|-?\d[\d.,]*(e[-+]?\d+)?(\s|%|$)")  # a dash or nothing counts, and a unit may follow


def heading(title: str, quick: bool) -> str:
    """Return the first line of a page."""
    return f"# {title}{' (quick: these numbers say nothing)' if quick else ''}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; columns of numbers alone stand to the right."""
    rows = list(rows)
    columns = zip(*rows, strict=True)
    rule = ["---:" if all(NUMBER.match(cell) for cell in column) else "---" for column in columns]
    return "\n".join(markdown_table(head, rows, rule))


def number(value: float, form: str = "") -> str:
    """Return a number in this form, by default with three digits; a dash where there is none (NaN)."""
    if value != value:
        return "–"
    return format(value, form or (".0f" if abs(value) >= 100 else ".3g"))

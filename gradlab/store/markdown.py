"""Tables in Markdown, as all pages that are written have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], rule: Sequence[str] = ()) -> list[str]:
    """Return the lines of a Markdown table; a bar within a cell does not end it.

    rule  for each column ``---``, or ``---:`` where it stands to the right; left out: all of them to the left.
    """
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (head, rule or ["---"] * len(head), *cells)]

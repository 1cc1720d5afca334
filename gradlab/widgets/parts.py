"""Small anywidgets beside the charts of an explorer: a table of texts, and buttons with a key each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import anywidget
import traitlets


def page_code(name: str) -> str:
    """Return the text of a file for the page; given a path, anywidget would watch it and keep every widget alive."""
    return (Path(__file__).parents[1] / "web" / name).read_text("utf-8")


class Keys(anywidget.AnyWidget):
    """Buttons with one key each. A key works anywhere in the explorer except in fields, on sliders and on charts."""

    _esm = page_code("keys.js")
    _css = page_code("keys.css")
    actions = traitlets.List().tag(sync=True)
    token = traitlets.Unicode().tag(sync=True)

    def __init__(self, actions: dict[str, tuple[str, list[str]]], act: Callable[[str], None]) -> None:
        """Make buttons; ``actions``: label and keys by name. ``act`` gets a name, if ``token`` is still the same."""
        super().__init__(actions=[{"name": n, "label": label, "keys": keys} for n, (label, keys) in actions.items()])
        self._act = act
        self.on_msg(self._receive)

    def _receive(self, _: Any, message: dict[str, str], __: list[bytes]) -> None:
        if message.get("token") == self.token:
            self._act(message["act"])


class Table(anywidget.AnyWidget):
    """A table of texts; the first column heads the rows, and is of buttons where a row can be chosen."""

    _esm = page_code("table.js")
    _css = page_code("table.css")
    caption = traitlets.Unicode().tag(sync=True)
    head = traitlets.List(traitlets.Unicode()).tag(sync=True)
    rows = traitlets.List(traitlets.List(traitlets.Unicode())).tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)
    selectable = traitlets.Bool(False).tag(sync=True)

    def __init__(self, *, selectable: bool = False) -> None:
        """Make the table, hidden until there is something to show."""
        super().__init__(selectable=selectable, layout={"display": "none"})

    def put(self, caption: str, head: Iterable[str], rows: Iterable[Iterable[str]], chosen: int = -1) -> None:
        """Show these rows, of which one may be chosen; hide the table if there are none."""
        with self.hold_sync():
            self.caption, self.head, self.rows = caption, list(head), [list(row) for row in rows]
            self.chosen = chosen
        self.layout.display = None if self.rows else "none"

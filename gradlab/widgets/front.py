"""Small anywidgets for the browser's part of an explorer: show pictures, name controls, save results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import anywidget
import traitlets


def _code(name: str) -> str:
    """Return the text of a file for the page; given a path, anywidget would watch it and keep every widget alive."""
    return (Path(__file__).parents[1] / "web" / name).read_text("utf-8")


class Picture(anywidget.AnyWidget):
    """A PNG with an alternative text for readers who cannot see it."""

    _esm = _code("picture.js")
    png = traitlets.Bytes().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    width = traitlets.Int().tag(sync=True)


class Tools(anywidget.AnyWidget):
    """The buttons *Copy as Python*, *CSV* and *PNG*; the widget also names every control for screen readers.

    It keeps JupyterLab's shortcuts out of the explorer: else ``d d`` on a slider would delete the cell.
    """

    _esm = _code("tools.js")
    _css = _code("explorer.css")
    name = traitlets.Unicode("explorer").tag(sync=True)

    def __init__(self, name: str, results: dict[str, Callable[[], bytes]]) -> None:
        """Make the buttons; files get ``name``; ``results`` by kind (python, csv, png) are called on demand."""
        super().__init__(name=name)
        self._results = results
        self.on_msg(self._answer)

    def _answer(self, _: Any, message: dict[str, str], __: list[bytes]) -> None:
        try:
            result = self._results[message["want"]]()
        except Exception as error:  # the text beside the buttons
            self.send({"error": f"{type(error).__name__}: {error}"})
            return
        self.send({"kind": message["want"]}, [result])


class Keys(anywidget.AnyWidget):
    """Buttons with one key each. A key works anywhere in the explorer except in fields and on sliders."""

    _esm = _code("keys.js")
    _css = _code("keys.css")
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

    _esm = _code("table.js")
    _css = _code("table.css")
    caption = traitlets.Unicode().tag(sync=True)
    head = traitlets.List(traitlets.Unicode()).tag(sync=True)
    rows = traitlets.List(traitlets.List(traitlets.Unicode())).tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)
    selectable = traitlets.Bool(False).tag(sync=True)

    def __init__(self, *, selectable: bool = False) -> None:
        """Make the table, hidden until there is something to show."""
        super().__init__(selectable=selectable, layout={"display": "none"})

    def put(self, caption: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
        """Show these rows; hide the table if there are none."""
        with self.hold_sync():
            self.caption, self.head, self.rows = caption, list(head), [list(row) for row in rows]
        self.layout.display = None if self.rows else "none"

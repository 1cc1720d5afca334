"""Small anywidgets for the browser's part of the former explorers: show pictures, name controls, save results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from gradlab.widgets.parts import page_code


class Picture(anywidget.AnyWidget):
    """A PNG with an alternative text for readers who cannot see it."""

    _esm = page_code("picture.js")
    png = traitlets.Bytes().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    width = traitlets.Int().tag(sync=True)


class Tools(anywidget.AnyWidget):
    """The buttons *Copy as Python*, *CSV* and *PNG*; the widget also names every control for screen readers.

    It keeps JupyterLab's shortcuts out of the explorer: else ``d d`` on a slider would delete the cell.
    """

    _esm = page_code("tools.js")
    _css = page_code("explorer.css")
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

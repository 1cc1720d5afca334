"""The browser's part of an explorer: one anywidget, whose code is the front end that ``make web`` builds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

BUNDLE = Path(__file__).parents[1] / "web/gradlab.js"


@functools.cache
def bundle() -> str:
    """Return the code of the front end; given a path, anywidget would watch it and keep every widget alive."""
    return BUNDLE.read_text("utf-8")


class Front(anywidget.AnyWidget):
    """Show an explorer in the browser. ``gradlab/web/src/jupyter.ts`` is the other side of these traits.

    spec    texts and controls; it changes where losses are registered.
    state   the value of every control, in both directions; ``asked`` counts the states that the page has sent.
    hidden  names of the controls without effect in this state.
    offers  facts of controls that change with other controls, by name, such as a menu's options.
    shown   charts and the table of numbers, all of one state, and the count of the page's states that it answers.
    pinned  whether the reader keeps a result to compare with.
    busy    whether better results of this state are still to come.
    """

    spec = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    hidden = traitlets.List(traitlets.Unicode()).tag(sync=True)
    offers = traitlets.Dict().tag(sync=True)
    shown = traitlets.Dict().tag(sync=True)
    asked = traitlets.Int().tag(sync=True)
    pinned = traitlets.Bool().tag(sync=True)
    busy = traitlets.Bool().tag(sync=True)

    def __init__(
        self,
        spec: dict[str, Any],
        state: dict[str, Any],
        hidden: list[str],
        answer: Callable[[Mapping[str, Any]], tuple[dict[str, Any], list[bytes]]],
    ) -> None:
        """Make the front end; ``answer`` gets each message of the page, and returns content and buffers."""
        super().__init__(_esm=bundle(), spec=spec, state=state, hidden=hidden)
        self._answer = answer
        self._heard = 0  # of ``asked``: the last state that was taken, while the next may have come in another thread
        self.on_msg(self._receive)

    def hear(self) -> None:
        """Note that what is shown from now on answers the page's last state."""
        self._heard = self.asked

    def present(
        self, charts: list[dict[str, Any]], readings: list[dict[str, Any]], outcome: Sequence[str], more: bool
    ) -> None:
        """Show charts and numbers at once; ``more``: better ones will follow."""
        with self.hold_sync():
            self.busy = more
            self.shown = {"charts": charts, "readings": readings, "outcome": list(outcome), "asked": self._heard}

    def answered(self) -> None:
        """Say that what is shown answers the page's last state too: it was taken, and there is nothing new to see."""
        if self.shown and self.shown["asked"] != self._heard:
            kept = {name: part for name, part in self.shown.items() if name != "refused"}
            self.shown = {**kept, "asked": self._heard}

    def leave_to_page(self) -> None:
        """Take back what was said of a former state: the page computes this one by itself."""
        if self.shown:
            self.shown = {"asked": self._heard}

    def refuse(self, text: str) -> None:
        """Say why the page's last state is not taken; what is shown stays."""
        self.shown = {**self.shown, "refused": text, "asked": self._heard}

    def fail(self, text: str) -> None:
        """Show why there is nothing new to see."""
        with self.hold_sync():
            self.busy = False
            self.shown = {"error": text, "asked": self._heard}

    def _receive(self, _: Any, message: Any, __: list[bytes]) -> None:
        try:
            content, buffers = self._answer(message)
        except Exception as error:  # one line beside the buttons
            content, buffers = {"error": str(error) or type(error).__name__}, []
        number = message.get("number") if isinstance(message, Mapping) else None
        self.send({**content, "to": number}, buffers)

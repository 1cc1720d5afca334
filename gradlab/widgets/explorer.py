"""The base of every explorer: a question, controls, live pictures, a line of numbers, and ways to save results."""

from __future__ import annotations

import asyncio
import base64
import html
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import ipywidgets as widgets
import pandas as pd

from gradlab.checks import between, count, one_of
from gradlab.lab.descent import steady
from gradlab.store.csv_text import csv_text
from gradlab.widgets.controls import Controls, Slider
from gradlab.widgets.front import Tools
from gradlab.widgets.view import View, montage

_NO_MORE = object()
PAGE = 1130  # width in pixels of the picture that replaces an explorer on pages where nothing runs
_IN_CELLS: dict[
    tuple[type, str], tuple[str, list[Explorer]]
] = {}  # by class and cell: the cell's last run, and its explorers


@dataclass(frozen=True)
class Story:
    """A setting worth looking at: the text of its button, what to see, and the controls that differ from the start."""

    title: str
    look_at: str
    state: Mapping[str, Any] = field(default_factory=dict)


class Explorer(widgets.VBox):
    """The base of all explorers. A subclass defines question, controls and views; everything else is here.

    A subclass defines the texts below and six methods: ``make_controls`` (by group), ``make_views`` (drawn once),
    ``compute`` (from the state to a result, without touching widgets), ``show`` (puts the result into the views,
    returns the numbers of the status line), ``code`` (the computation in Python, for the reader) and ``frame`` (the
    numbers that are shown).

    ``compute`` may be a generator that yields better and better results: the first is shown at once, the others when
    they are ready, and a new setting stops it. ``finish()`` waits for the last.

    Faint curves show the setting before the reader touched the present control. An exception in any callback is shown
    in the status line and kept in ``error``; the explorer goes on.
    """

    name: ClassVar[str]  # also of saved files
    question: ClassVar[str]
    prediction: ClassVar[str]  # what the reader guesses before moving anything
    reading: ClassVar[str]  # how to read the pictures
    takeaway: ClassVar[str]  # shown on demand, after the reader has tried
    stories: ClassVar[tuple[Story, ...]] = ()
    wide: ClassVar[bool] = False  # True: controls are above the pictures. False: they are beside them.

    def __init__(self, **start: Any) -> None:
        """Build the explorer and show it; ``start`` replaces start values of controls, also for Reset."""
        super().__init__()
        self._groups = self.make_controls()
        self.controls: Controls = {key: control for group in self._groups.values() for key, control in group.items()}
        self.views: dict[str, View] = self.make_views()
        self.error: Exception | None = None
        self.status = ""  # the text of the status line
        self.numbers: dict[str, Any] = {}
        self.result: Any = None
        self.former: Any = None
        self._kept: dict[str, tuple[Any, Any]] = {}
        self._work: Iterator[Any] | None = None
        self._touched: str | None = None
        self._messages = 0
        self._quiet = False
        self._status = prose("")
        self._story = prose("")
        try:
            self._set(start)
        except Exception:
            self._lay_out()
            self.close()
            raise
        self._start = self.state
        self._lay_out()
        for key, control in self.controls.items():
            control.observe(lambda change, key=key: self._moved(key), "value")
        self._refresh()
        self._close_former_runs()

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls, by heading and name."""
        raise NotImplementedError

    def make_views(self) -> dict[str, View]:
        """Return the views, by name, with everything in them that does not change."""
        raise NotImplementedError

    def compute(self, state: SimpleNamespace) -> Any:
        """Return the result for these values of the controls; or yield better and better results."""
        raise NotImplementedError

    def show(self, result: Any, former: Any) -> dict[str, Any]:
        """Show the result, and faintly the former result if there is one; return the status line's numbers."""
        raise NotImplementedError

    def code(self, state: SimpleNamespace) -> str:
        """Return Python code that computes what is shown, with gradlab's public functions."""
        raise NotImplementedError

    def frame(self) -> pd.DataFrame:
        """Return the numbers that are shown, as a tidy frame."""
        raise NotImplementedError

    def adapt(self, state: SimpleNamespace) -> None:
        """Hide controls without effect in this state, and set ends that depend on other controls; default: nothing."""

    @property
    def state(self) -> dict[str, Any]:
        """The value of every control, by name; ``set(**state)`` brings it back."""
        return {key: control.value for key, control in self.controls.items()}

    def set(self, **values: Any) -> None:
        """Move several controls at once. ValueError for a name or value that the explorer does not have."""
        self._set(values)
        self.former = self._touched = None
        self._refresh()

    def reset(self) -> None:
        """Move all controls back to the start."""
        self.set(**self._start)
        self._story.value = ""

    def tell(self, title: str) -> None:
        """Show the story with this title."""
        story = {story.title: story for story in self.stories}[one_of("story", title, [s.title for s in self.stories])]
        self.set(**{**self._start, **story.state})
        end = "" if story.title.endswith("?") else "."
        self._story.value = f"<b>{story.title}{end}</b> {story.look_at}"

    def finish(self) -> None:
        """Finish the computation now, if it is still going on."""
        while self._work is not None:
            self._go_on()

    def as_python(self) -> str:
        """Return code that computes what is shown."""
        return self.code(SimpleNamespace(**self.state))

    def png(self) -> bytes:
        """Return all pictures as one PNG."""
        return montage(list(self.views.values()), PAGE)

    def close(self) -> None:
        """Close every widget of the explorer."""
        self._work = None
        for _, explorers in _IN_CELLS.values():
            if self in explorers:
                explorers.remove(self)
        for widget in _all_in(self):
            for part in (widget, getattr(widget, "layout", None), getattr(widget, "style", None)):
                if part is not None:
                    widgets.Widget.close(part)

    def remember(self, slot: str, key: Any, make: Callable[[], Any]) -> Any:
        """Return the value of ``make()``, computed again only when ``key`` differs from last time."""
        if slot not in self._kept or self._kept[slot][0] != key:
            self._kept[slot] = (key, make())
        return self._kept[slot][1]

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the live widget, and beside it a picture for pages where nothing runs."""
        self.finish()
        live = super()._repr_mimebundle_(**kwargs) or {}
        alt = f"{type(self).__name__}: {self.question}"
        return {**live, "text/plain": alt, "image/png": base64.b64encode(self.png()).decode()}

    def _set(self, values: Mapping[str, Any]) -> None:
        checked = {
            key: _accepted(key, self.controls[one_of("control", key, self.controls)], value)
            for key, value in values.items()
        }
        self._quiet = True
        try:
            for key, value in checked.items():
                control = self.controls[key]
                if isinstance(control, Slider):
                    control.include(value)
                else:
                    control.value = value
        finally:
            self._quiet = False

    def _moved(self, key: str) -> None:
        if self._quiet:
            return
        if key != self._touched:
            self._touched, self.former = key, self.result
        self._refresh()

    @steady("cpu")
    def _refresh(self) -> None:
        self._work = None
        try:
            state = SimpleNamespace(**self.state)
            self._quiet = True  # adapting may move a control
            try:
                self.adapt(state)
            finally:
                self._quiet = False
            result = self.compute(SimpleNamespace(**self.state))
            if not isinstance(result, Iterator):
                self._present(result)
                return
            self._work = result
            self._go_on()
            self._schedule()
        except Exception as error:
            self._fail(error)

    def _schedule(self) -> None:
        """Leave the rest of the work to the event loop, so that the page stays responsive; with no loop, do it now."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.finish()
            return
        work = self._work

        async def rest() -> None:
            while work is not None and self._work is work:
                await asyncio.sleep(0)
                if self._work is work:
                    self._go_on()

        self._task = loop.create_task(rest())

    @steady("cpu")
    def _go_on(self) -> None:
        """Do one more piece of the work."""
        assert self._work is not None
        try:
            result = next(self._work, _NO_MORE)
            if result is _NO_MORE:
                self._work = None
            else:
                self._present(result)
        except Exception as error:
            self._work = None
            self._fail(error)

    def _present(self, result: Any) -> None:
        self.numbers = self.show(result, self.former)
        for view in self.views.values():
            view.redraw()
        self.result, self.error = result, None
        self._say(" · ".join(f"{key} {_short(value)}" for key, value in self.numbers.items()), "ok")

    def _fail(self, error: Exception) -> None:
        self.error = error
        self._say(f"{type(error).__name__}: {error}", "error")

    def _say(self, text: str, state: str) -> None:
        self._messages += 1
        self.status = text
        content = html.escape(text)
        self._status.value = (
            f'<span class="gradlab-status" data-state="{state}" data-count="{self._messages}">{content}</span>'
        )

    def _lay_out(self) -> None:
        reset = widgets.Button(description="Reset", tooltip="Back to the start")
        reset.on_click(lambda _: self._guarded(self.reset))
        buttons = [reset]
        for story in self.stories:
            button = widgets.Button(description=story.title, tooltip=story.look_at, layout={"width": "auto"})
            button.on_click(lambda _, title=story.title: self._guarded(lambda: self.tell(title)))
            buttons.append(button)
        self.buttons = {button.description: button for button in buttons}
        tools = Tools(self.name, {
            "python": lambda: self._when_done(self.as_python).encode(), "png": self.png,
            "csv": lambda: csv_text(self._when_done(self.frame)).encode(),
        })  # fmt: skip
        groups = []
        for heading, controls in self._groups.items():
            title = widgets.HTML(f'<span class="gradlab-heading">{heading}</span>')
            groups.append(_box(widgets.VBox, [title, *controls.values()], "gradlab-group"))
        pictures = _box(widgets.HBox, [view.picture for view in self.views.values()], "gradlab-views")
        stage = _box(widgets.VBox, [self._status, pictures, *self.more_widgets()], "gradlab-stage")
        body = _box(widgets.HBox, [_box(widgets.VBox, groups, "gradlab-controls"), stage], "gradlab-body")
        if self.wide:
            body.add_class("gradlab-wide")
        self.children = [
            prose(f"<b>{self.question}</b><br><i>A prediction to test:</i> {self.prediction}"),
            _box(widgets.HBox, buttons, "gradlab-row"),
            self._story,
            body,
            prose(f"<i>How to read it.</i> {self.reading}"
                  f"<details><summary>What to take away (after you have tried)</summary>{self.takeaway}</details>"),
            tools,
        ]  # fmt: skip
        self.add_class("gradlab-explorer")

    def more_widgets(self) -> list[widgets.Widget]:
        """Return the widgets below the pictures; default: none."""
        return []

    def _when_done(self, make: Callable[[], Any]) -> Any:
        """Finish all work, then call ``make``; ValueError if what is shown does not match the controls."""
        self.finish()
        if self.error is not None:
            raise ValueError(f"nothing is shown for these controls: {self.error}")
        return make()

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            self._fail(error)

    def _close_former_runs(self) -> None:
        """Close the explorers that an earlier run of this cell created: else widgets and callbacks would pile up."""
        running = _cell()
        if running is None:
            return
        cell, run = running
        former_run, explorers = _IN_CELLS.get((type(self), cell), (run, []))
        if former_run != run:
            while explorers:
                explorers.pop().close()
        _IN_CELLS[type(self), cell] = (run, [*explorers, self])


def _cell() -> tuple[str, str] | None:
    """Return the id of the running notebook cell, if any, and the id of this run."""
    try:
        from IPython.core.getipython import get_ipython

        parent = get_ipython().get_parent()  # type: ignore[union-attr]
        return parent["metadata"]["cellId"], parent["header"]["msg_id"]
    except (ImportError, AttributeError, KeyError, TypeError):
        return None


def _accepted(key: str, control: Any, value: Any) -> Any:
    """Return the value if the control can take it unchanged; a widget would silently move it to the nearest end."""
    if isinstance(control, Slider):
        low, high = control.stops[0], control.stops[-1]
        if all(isinstance(stop, int) for stop in control.stops):
            count(key, value)
        return type(low)(between(key, value, low, high))
    if isinstance(control, widgets.Dropdown):
        options = [option[1] if isinstance(option, tuple) else option for option in control.options]
        if not isinstance(value, Hashable) or value not in options:
            raise ValueError(f"{key} must be one of {', '.join(map(str, options))}; got {value!r}")
    if isinstance(control, widgets.Text) and not isinstance(value, str):
        raise ValueError(f"{key} must be a text, got {value!r}")
    if isinstance(control, widgets.Checkbox) and not isinstance(value, bool):
        raise ValueError(f"{key} must be True or False, got {value!r}")
    return value


def _all_in(widget: widgets.Widget) -> Iterator[widgets.Widget]:
    for child in getattr(widget, "children", ()):
        yield from _all_in(child)
    yield widget


def prose(content: str) -> widgets.HTML:
    """Return a paragraph of HTML in the page's colours."""
    paragraph = widgets.HTML(content)
    paragraph.add_class("gradlab-text")
    return paragraph


def _box(kind: type[widgets.Box], children: list[Any], name: str) -> widgets.Box:
    box = kind(children)
    box.add_class(name)
    return box


def _short(value: Any) -> str:
    return f"{value:.3g}".replace("-", "−") if isinstance(value, float) else str(value)

"""The base of every explorer: controls, charts and a table of numbers, which the browser draws."""

from __future__ import annotations

import asyncio
import base64
import functools
import io
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import ipywidgets as widgets
import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from gradlab.checks import one_of, shown
from gradlab.lab.descent import steady
from gradlab.losses.registry import WATCHERS
from gradlab.plotting.charts import Chart
from gradlab.store.csv_text import csv_text
from gradlab.store.files import write_whole
from gradlab.widgets.controls import (
    NO_LOSSES,
    Choice,
    Controls,
    Losses,
    LossNumber,
    following_numbers,
    hyper_controls,
    known_hyper_parameters,
    loss_names,
)
from gradlab.widgets.front import Front
from gradlab.widgets.losses_in_page import facts_of_losses
from gradlab.widgets.states import as_json, as_link, check_free, read_state

PAGE = 11.3  # inches, at 100 pixels each: the picture that replaces an explorer on pages where nothing runs
UNASKED, SHOWN = "none", "shown"  # values of the guess: not yet made, and not wanted
_NO_MORE = object()
_TURN = threading.RLock()  # cells run in one thread, and what the page sends may come in another
_IN_CELLS: dict[
    tuple[type, str], tuple[str, list[Explorer]]
] = {}  # by class and cell: the cell's last run, and its explorers


def in_turn(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let one thread at a time into the methods that move explorers or compute."""

    @functools.wraps(method)
    def alone(*args: Any, **kwargs: Any) -> Any:
        with _TURN:
            return method(*args, **kwargs)

    return alone


@dataclass(frozen=True)
class Story:
    """A setting worth looking at: the text of its button, what to see, and the controls that differ from the start."""

    title: str
    look_at: str
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """A row of the table of numbers: one value, or one per side, such as ``{"A": 0.2, "B": 0.3}``.

    Two numbers get their difference, B − A, in a column of its own. ``key`` is a shorter name, for ``numbers``.
    """

    name: str
    value: Any
    unit: str = ""
    key: str = ""

    def flat(self) -> dict[str, Any]:
        """Return the values by name, or by name and side."""
        name = self.key or self.name
        if isinstance(self.value, Mapping):
            return {f"{name} {side}": value for side, value in self.value.items()}
        return {name: self.value}

    def message(self) -> dict[str, Any]:
        """Return the row as the page takes it; what is no finite number travels as a text."""
        one = self.value
        value = {side: _sent(each) for side, each in one.items()} if isinstance(one, Mapping) else _sent(one)
        return {"name": self.name, "value": value, "unit": self.unit}


class Explorer(widgets.VBox):
    """The base of all explorers. A subclass defines texts, controls, numbers and charts; everything else is here.

    A subclass defines the texts below and these methods: ``make_controls`` (by heading), ``compute`` (from the state to
    a result, without touching widgets), ``charts`` and ``readings`` (what of the result is seen), ``frame`` (its
    numbers), and ``code``, or a ``template`` of it (the computation in Python, for the reader).

    ``compute`` may be a generator that yields better and better results: the first is shown at once, the others when
    they are ready, and a new setting stops it. ``finish()`` waits for the last.

    Where the page computes by itself (``in_page``), Python computes only when it is asked for ``result``, ``numbers``,
    ``frame()`` or ``figure()``.

    Faint curves show the result that the reader has pinned: what is seen follows from the state and the pin alone. An
    exception in any callback is shown in the page and kept in ``error``; the explorer goes on.
    """

    name: ClassVar[str]  # also of saved files, and of the explorer in links
    question: ClassVar[str]
    prediction: ClassVar[str]  # what the reader is told before the guess
    first_move: ClassVar[str] = ""  # what to do first, in one sentence
    ask: ClassVar[str] = ""  # the question of the guess; "" for none
    answers: ClassVar[Mapping[str, str]] = {}  # the guesses, by value
    readings_answer: ClassVar[bool] = False  # whether the readings answer the ``ask``, and so wait for the guess
    reading: ClassVar[str]  # how to read the charts
    takeaway: ClassVar[str]  # shown on demand, after a guess
    stories: ClassVar[tuple[Story, ...]] = ()
    unfolds: ClassVar[tuple[str, ...]] = ()  # headings of controls that stay folded at first
    in_page: ClassVar[bool] = False
    template: ClassVar[str] = ""  # Python code in which {name} stands for a setting, and {{ }} for braces; see ``code``

    def __init__(self, **start: Any) -> None:
        """Build the explorer and show it; ``start`` replaces start values of controls, also for ``reset()``."""
        super().__init__()
        try:
            self._build(start)
        except Exception:
            self.close()
            raise
        self._refresh()
        self._close_former_runs()
        WATCHERS.add(self)

    def _build(self, start: dict[str, Any]) -> None:
        """Make controls and the front end; ValueError for start values that controls refuse."""
        self.controls: Controls = {}
        self.given_losses: Losses = NO_LOSSES
        self.take_losses(start)
        self._groups = self.make_controls()
        self.controls |= {key: control for group in self._groups.values() for key, control in group.items()}
        menus = self._loss_menus()
        refused = self.refused_losses() if menus else {}
        for menu in menus.values():
            menu.refused = refused
        if self.ask:
            options = {UNASKED: UNASKED, **{label: value for value, label in self.answers.items()}, SHOWN: SHOWN}
            self.controls["guess"] = Choice("your guess", UNASKED, options, self.ask)
        self._result: Any = None
        self._error: Exception | None = None
        self.pinned: Any = None  # the result that is kept to compare with
        self._kept: dict[str, tuple[Any, Any]] = {}
        self._work: Iterator[Any] | None = None
        self._stale = True
        self._quiet = False
        self._usual = self.state  # without start values: what a link leaves out
        self._set(self._follow_menus(start))
        self._start = self.state
        self.adapt(SimpleNamespace(**self.state))
        self.front = Front(self.spec(), self.state, self._hidden(), self._answer)
        self.front.observe(lambda change: self._guarded(self._received), ["state", "asked"])
        self.front.observe(lambda change: self._guarded(self._pin), "pinned")
        self.children = [self.front, *self.more_widgets()]
        self.add_class("gradlab-explorer")
        for control in self.controls.values():
            control.observe(self._moved, "value")

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls, by heading and name; those without a heading, "", are left to the page's own tools."""
        raise NotImplementedError

    def refused_losses(self) -> dict[str, str]:
        """Return why losses of the menus cannot be chosen, by name; default: all can."""
        return {}

    def take_losses(self, start: dict[str, Any]) -> None:
        """Take ``losses`` out of the start values where the explorer is given losses; default: nothing."""

    def compute(self, state: SimpleNamespace) -> Any:
        """Return the result for these values of the controls; or yield better and better results."""
        raise NotImplementedError

    def charts(self, result: Any, pinned: Any) -> Sequence[Chart]:
        """Return what of the result is seen, with the pinned result drawn faintly where there is one."""
        raise NotImplementedError

    def readings(self, result: Any) -> Sequence[Reading]:
        """Return the table of numbers."""
        raise NotImplementedError

    def outcome(self, result: Any) -> tuple[str, str]:
        """Return the guess that is true now, and one sentence that says so; only where there is an ``ask``."""
        raise NotImplementedError

    def before_guess(self, charts: Sequence[Chart]) -> Sequence[Chart]:
        """Return the charts without what answers the ``ask``, for a page whose reader has not yet guessed."""
        return charts

    def code(self, state: SimpleNamespace) -> str:
        """Return Python code that computes what is shown, with gradlab's public functions.

        Where there is a ``template``, it is filled with the settings and ``code_parts``, by the page too.
        """
        if not self.template:
            raise NotImplementedError
        settings = {name: repr(value) for name, value in vars(state).items()}
        return self.template.format(**{**settings, **self.code_parts(state)})

    def code_parts(self, state: SimpleNamespace) -> dict[str, str]:
        """Return what the template names beside settings, as code; default: nothing."""
        return {}

    def frame(self) -> pd.DataFrame:
        """Return the numbers that are shown, as a tidy frame."""
        raise NotImplementedError

    def adapt(self, state: SimpleNamespace) -> None:
        """Hide controls without effect in this state, and set ends that depend on other controls; default: nothing."""

    def more_widgets(self) -> list[widgets.Widget]:
        """Return the widgets below the charts; default: none."""
        return []

    def reply(self, message: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        """Return the answer to a message of the page that the base does not know."""
        raise ValueError(f"message must be one that the explorer knows, got {shown(dict(message))}")

    def __getattr__(self, name: str) -> Any:
        """Return a control by its name, as in ``explorer.beta_a.value = 0.5``."""
        controls = self.__dict__.get("controls", {})
        if name in controls:
            return controls[name]
        raise AttributeError(f"{type(self).__name__} has no attribute or control {name!r}")

    @property
    def state(self) -> dict[str, Any]:
        """The value of every control, by name; ``set(**state)`` brings it back."""
        return {key: control.value for key, control in self.controls.items()}

    @property
    def result(self) -> Any:
        """The result of ``compute`` for the present state."""
        self._catch_up()
        return self._result

    @property
    def error(self) -> Exception | None:
        """The exception that keeps the present state from being shown, if any."""
        self._catch_up()
        return self._error

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers of the table, by name, or by name and side: ``numbers["E[u] A"]``."""
        result = self.result
        return {} if result is None else {k: v for row in self.readings(result) for k, v in row.flat().items()}

    @property
    def status(self) -> str:
        """The table as one line of text; the error where there is one."""
        if self.error is not None:
            return _in_words(self.error)
        return " · ".join(f"{key} {_short(value)}" for key, value in self.numbers.items())

    @in_turn
    def set(self, **values: Any) -> None:
        """Move several controls at once. ValueError for a name or value that the explorer does not have."""
        self._set(self._follow_menus(values))
        self._refresh()

    def reset(self) -> None:
        """Move all controls back to the start."""
        self.set(**self._start)

    def tell(self, title: str) -> None:
        """Move the controls to where the story with this title is told."""
        story = {story.title: story for story in self.stories}[one_of("story", title, [s.title for s in self.stories])]
        kept = {"guess": self.state["guess"]} if self.ask else {}
        self.set(**{**self._usual, **kept, **story.state})

    @in_turn
    def finish(self) -> None:
        """Finish the computation now, if it is still going on."""
        while self._work is not None:
            self._go_on(self._work)

    def as_python(self) -> str:
        """Return code that computes what is shown."""
        return self.code(SimpleNamespace(**self.state))

    def figure(self) -> Figure:
        """Return what is shown as a matplotlib figure."""
        from gradlab.plotting.chart_figure import drawn

        return drawn(self.charts(self._shown(), None if self.in_page else self.pinned), width=PAGE)

    def png(self) -> bytes:
        """Return what is shown as a PNG."""
        return self._file("png")

    def pdf(self) -> bytes:
        """Return what is shown as a PDF."""
        return self._file("pdf")

    def link(self, page: str = "gradlab-lab.html") -> str:
        """Return a link that brings this state back in the live lab's page, where the page has this explorer."""
        return as_link(page, self.name, self.state, self._usual)

    def save(self, path: Path | str) -> None:
        """Write the state as JSON, for ``load`` and for the page's *load*.

        FileExistsError where another file than a saved state has that name.
        """
        check_free(Path(path))
        write_whole({Path(path): as_json(self.name, self.state)})

    def load(self, source: Path | str | Mapping[str, Any]) -> None:
        """Bring a state back from a JSON file, its content, or a link. ValueError in one line for another."""
        self.set(**{**self._usual, **read_state(source, self.name, self.controls)})

    def spec(self) -> dict[str, Any]:
        """Return the texts and the controls, as the page takes them."""
        groups = [
            {"heading": heading, "folded": heading in self.unfolds, "controls": list(group)}
            for heading, group in self._groups.items()
            if heading
        ]
        with_losses = any(control.part for control in self.controls.values())
        return {
            "name": self.name, "question": self.question, "prediction": self.prediction,
            "firstMove": self.first_move, "ask": self.ask, "answers": list(map(list, self.answers.items())),
            "reading": self.reading, "takeaway": self.takeaway,
            "stories": [{"title": s.title, "lookAt": s.look_at, "state": dict(s.state)} for s in self.stories],
            "inPage": self.in_page, "template": self.template, "groups": groups,
            "controls": {
                key: {**control.spec(), "start": self._start[key], "usual": self._usual[key]}
                for key, control in self.controls.items()
            },
            "losses": facts_of_losses(self.given_losses) if with_losses else [],
        }  # fmt: skip

    def losses_changed(self) -> None:
        """Follow the registry of losses: new ones join the menus, with controls of their numbers."""
        self._guarded(self._follow_losses)

    def close(self) -> None:
        """Close every widget of the explorer."""
        self._work = None
        WATCHERS.discard(self)
        for _, explorers in _IN_CELLS.values():
            if self in explorers:
                explorers.remove(self)
        for widget in [*vars(self).get("controls", {}).values(), *_all_in(self)]:
            for part in (widget, *(widget._trait_values.get(name) for name in ("layout", "style"))):
                if isinstance(part, widgets.Widget):
                    widgets.Widget.close(part)

    def remember(self, slot: str, key: Any, make: Callable[[], Any]) -> Any:
        """Return the value of ``make()``, computed again only when ``key`` differs from last time."""
        if slot not in self._kept or self._kept[slot][0] != key:
            self._kept[slot] = (key, make())
        return self._kept[slot][1]

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the live widget, and beside it a picture for pages where nothing runs; none where nothing is shown."""
        live = super()._repr_mimebundle_(**kwargs) or {}
        bundle = {**live, "text/plain": f"{type(self).__name__}: {self.question}"}
        self.finish()
        return bundle if self.error else {**bundle, "image/png": base64.b64encode(self.png()).decode()}

    def _follow_menus(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values with the numbers that go with losses that are newly chosen."""
        menus = self._loss_menus()
        chosen = {
            key: (menus[key].value, menus[key].accepted(key, value)) for key, value in values.items() if key in menus
        }
        return {**following_numbers(self.controls, chosen, self._usual), **values}

    @in_turn
    def _set(self, values: Mapping[str, Any]) -> None:
        for key in values:
            one_of("control", key, self.controls)
        checked = {key: self._accepted(key, value, values) for key, value in values.items()}
        was, self._quiet = self._quiet, True
        try:
            for key, value in checked.items():
                self.controls[key].value = value
        finally:
            self._quiet = was

    def _accepted(self, key: str, value: Any, values: Mapping[str, Any]) -> Any:
        """Return a control's new value if it takes it beside the other new values."""
        control = self.controls[key]
        if not isinstance(control, LossNumber):
            return control.accepted(key, value)
        menu = f"loss_{control.part['of']}"
        return control.accepted_of(values.get(menu, self.controls[menu].value), key, value)

    def _loss_menus(self) -> Controls:
        return {key: control for key, control in self.controls.items() if "loss" in control.part}

    @in_turn
    def _follow_losses(self) -> None:
        menus = self._loss_menus()
        if not menus:
            return
        was, self._quiet = self._quiet, True
        names = loss_names(self.given_losses)
        known = known_hyper_parameters(self.given_losses)
        refused = self.refused_losses()
        try:
            for key, menu in menus.items():
                menu.refused = refused
                slot, value = menu.part["loss"], menu.value
                menu.options = [(name, name) for name in names]  # which moves the menu to the first
                menu.value = value if value in names and value not in refused else names[0]
                for kept in (self._start, self._usual):
                    if kept[key] not in names:
                        kept[key] = menu.value
                group = next(group for group in self._groups.values() if key in group)
                for name, of in known.items():
                    control = self.controls.get(f"{name}_{slot}")
                    if isinstance(control, LossNumber):
                        control.take(of)
                missing = {name: of for name, of in known.items() if f"{name}_{slot}" not in self.controls}
                for name, control in hyper_controls(slot, missing).items():
                    group[name] = self.controls[name] = control
                    self._start[name] = self._usual[name] = control.value
                    control.observe(self._moved, "value")
        finally:
            self._quiet = was
        with self.front.hold_sync():
            self._refresh()
            self.front.spec = self.spec()

    @in_turn
    def _take(self, sent: object) -> None:
        """Take the state with which the page asks for a file: the question may have overtaken it on its way."""
        if isinstance(sent, Mapping) and (changed := self._changed(sent)):
            self._set(changed)
            self._refresh(sent)

    def _changed(self, sent: Mapping[str, Any]) -> dict[str, Any]:
        known = self.state
        return {key: value for key, value in sent.items() if key not in known or known[key] != value}

    @in_turn
    def _received(self) -> None:
        """Take a state that the page has sent. One that is refused changes nothing: the page gets the former back."""
        self.front.hear()
        sent, known = self.front.state, self.state
        if changed := self._changed(sent):
            try:
                self._set(changed)
            except ValueError as error:
                self.front.state = self.state
                self.front.refuse(_in_words(error))
                return
            self._refresh(sent)
        elif sent.keys() != known.keys():
            self.front.state = known
        self.front.answered()

    @in_turn
    def _moved(self, change: Any = None) -> None:
        if self._quiet:
            return
        if change is not None and "loss" in change.owner.part:
            menus = {f"loss_{change.owner.part['loss']}": (change.old, change.new)}
            self._set(following_numbers(self.controls, menus, self._usual))
        self._refresh()

    @in_turn
    def _pin(self) -> None:
        """Keep the present result to compare with, or let it go."""
        self.pinned = self.result if self.front.pinned else None
        self._refresh()

    @in_turn
    def _refresh(self, sent: Mapping[str, Any] | None = None) -> None:
        """Compute anew, and show; where the page computes, only say that what Python knows is stale.

        sent  the page's state that is taken; one that has come in the meantime is left, and taken next.
        """
        self._work, self._stale = None, True
        was, self._quiet = self._quiet, True  # adapting may move a control
        try:
            self.adapt(SimpleNamespace(**self.state))
            with self.front.hold_sync():
                if sent is None or self.front.state == sent:
                    self.front.state = self.state
                self.front.hidden, self.front.offers = self._hidden(), self._offers()
        except Exception as error:
            self._fail(error)
            return
        finally:
            self._quiet = was
        if self.in_page:
            self.front.leave_to_page()
        else:
            self._compute()

    @in_turn
    @steady("cpu")
    def _compute(self) -> None:
        self._stale = False
        try:
            result = self.compute(SimpleNamespace(**self.state))
            if not isinstance(result, Iterator):
                self._present(result)
                return
            self._work = result
            self._go_on(result)
            if not self.in_page:
                self._schedule()
        except Exception as error:
            self._fail(error)

    @in_turn
    def _catch_up(self) -> None:
        """Compute what is stale, to its end."""
        if self._stale:
            self._compute()
        if self.in_page:
            self.finish()

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
                self._go_on(work)

        self._task = loop.create_task(rest())

    @in_turn
    @steady("cpu")
    def _go_on(self, work: Iterator[Any]) -> None:
        """Do one more piece of the work, if it is not that of a former state."""
        if self._work is not work:
            return
        try:
            result = next(work, _NO_MORE)
            if result is _NO_MORE:
                self._work = None
                self.front.busy = False
            else:
                self._present(result)
        except Exception as error:
            self._work = None
            self._fail(error)

    def _present(self, result: Any) -> None:
        self._result, self._error = result, None
        if self.in_page:
            return
        from gradlab.widgets.chart_messages import as_messages

        outcome = self.outcome(result) if self.ask else ("", "")
        charts, readings = self.charts(result, self.pinned), self.readings(result)
        if self.ask and self.controls["guess"].value == UNASKED:
            charts, readings = self.before_guess(charts), [] if self.readings_answer else readings
        self.front.present(
            as_messages(charts), [row.message() for row in readings], outcome, more=self._work is not None
        )

    def _fail(self, error: Exception) -> None:
        self._error = error
        self.front.fail(_in_words(error))

    def _shown(self) -> Any:
        """Return the finished result; ValueError if nothing is shown for the present state."""
        self.finish()
        if self.error is not None:
            raise ValueError(f"nothing is shown for these controls: {self.error}")
        return self.result

    def _file(self, kind: str) -> bytes:
        buffer = io.BytesIO()
        figure = self.figure()
        with mpl.rc_context({"pdf.fonttype": 42}):
            figure.savefig(buffer, format=kind, dpi=100, metadata={"CreationDate": None} if kind == "pdf" else None)
        return buffer.getvalue()

    @in_turn
    def _answer(self, message: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        """Return what the page asks for: code, numbers or pictures as bytes, or what a subclass knows."""
        kinds: dict[str, Callable[[], bytes]] = {
            "python": lambda: (self._shown(), self.as_python())[1].encode(),
            "csv": lambda: (self._shown(), csv_text(self.frame()))[1].encode(),
            "png": self.png, "pdf": self.pdf,
        }  # fmt: skip
        if not isinstance(message, Mapping):
            raise ValueError(f"message must be a record, got {shown(message)}")
        want = message.get("want")
        if isinstance(want, str) and want in kinds:
            self._take(message.get("state"))
            return {}, [kinds[want]()]
        return self.reply(message)

    def _hidden(self) -> list[str]:
        return [key for key, control in self.controls.items() if control.hidden]

    def _offers(self) -> dict[str, dict[str, Any]]:
        """Return the facts of controls that change with other controls, by name."""
        return {key: facts for key, control in self.controls.items() if (facts := control.offers())}

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


def stamp(path: Path) -> tuple[Any, ...]:
    """Return a key for ``remember`` that differs whenever the file has changed."""
    stat = path.stat() if path.is_file() else None
    return (path, stat and stat.st_mtime_ns, stat and stat.st_size)


def _cell() -> tuple[str, str] | None:
    """Return the id of the running notebook cell, if any, and the id of this run."""
    try:
        from IPython.core.getipython import get_ipython

        parent = get_ipython().get_parent()  # type: ignore[union-attr]
        return parent["metadata"]["cellId"], parent["header"]["msg_id"]
    except (ImportError, AttributeError, KeyError, TypeError):
        return None


def _all_in(widget: widgets.Widget) -> Iterator[widgets.Widget]:
    for child in getattr(widget, "children", ()):
        yield from _all_in(child)
    yield widget


def _sent(value: Any) -> float | str:
    """Return a value as the page takes it."""
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        return str(value)
    return float(value) if math.isfinite(value) else str(float(value))


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"


def _short(value: Any) -> str:
    return f"{value:.3g}".replace("-", "−") if isinstance(value, float) else str(value)

"""Training log: the log of a language model's preference training, gradlab's or TRL's, one run or two."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gradlab.checks import one_of
from gradlab.doctor.training_log import read_log, smoothed
from gradlab.widgets.controls import Controls, slider, text, whole_slider
from gradlab.widgets.explorer import Explorer, Story, stamp
from gradlab.widgets.view import SIDES, View, look

SAMPLES = {f"sample:{path.stem}": path for path in sorted((Path(__file__).parent / "samples").glob("*dpo*.jsonl"))}
BAND = ("win_weight_q10", "win_weight_q90")
RATIO = "log_grad_norm_ratio"  # log ‖g_w‖ − log ‖g_l‖, the only column that is computed here
# The panels of each view: title, and the columns with the markers that tell them apart.
_PANELS: dict[str, dict[str, dict[str, str]]] = {
    "learning": {
        "loss    ○ validation": {"loss": "", "validation_loss": "o"},
        "accuracy    ○ validation": {"accuracy": "", "validation_accuracy": "o"},
        "reward margin, nats    ○ validation": {"reward_margin": "", "validation_reward_margin": "o"},
        "log π, nats    ▽ loser": {"logp_win": "", "logp_lose": "v"},
    },
    "gradients": {
        "λ_w: mean, 10% to 90% of pairs": {"win_weight": ""},
        "|∂L/∂log π|    ▽ loser": {"slope_win": "", "slope_lose": "v"},
        "‖g_w‖    ▽ ‖g_l‖    × ‖g_w + g_l‖": {"grad_norm_win": "", "grad_norm_lose": "v", "grad_norm": "x"},
        "log winner/loser: ∂L/∂π    ○ ‖g‖": {"log_prob_ratio": "", RATIO: "o"},
    },
}
_STATUS = {  # what the status line says about the ends of the curves
    "loss": "loss", "validation": "validation_loss", "its accuracy": "validation_accuracy",
    "cos(g_w, g_l)": "grad_cosine", "λ~length": "win_weight_length_correlation",
}  # fmt: skip
_DRAWN = [column for panels in _PANELS.values() for columns in panels.values() for column in columns]
_SHOWN = list(dict.fromkeys([*_DRAWN, *BAND, *_STATUS.values()]))
BUCKETS = 600  # parts of a long curve that are drawn: two per pixel
Curve = tuple[np.ndarray, np.ndarray]
NOTHING: Curve = (np.empty(0), np.empty(0))


class Read(NamedTuple):
    """A log as it was read."""

    label: str
    table: pd.DataFrame  # by step: the shown columns that the log has
    notes: list[str]


@dataclass(frozen=True)
class Curves:
    """The curves of one log within the shown steps."""

    label: str
    raw: pd.DataFrame = field(repr=False)  # as logged; NaN where the log says nothing
    table: pd.DataFrame = field(repr=False)  # the same, smoothed
    notes: list[str]

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """Steps and values of each column, as drawn."""
        steps, curves = self.table.index.to_numpy(), {}
        for name, values in zip(self.table.columns, self.table.to_numpy().T, strict=True):
            there = np.isfinite(values)
            curves[name] = (steps[there], _size(name, values[there]))
        return curves

    def end(self, column: str) -> float | None:
        """Return the last drawn value of a column, if there is one."""
        values = self.curves.get(column, NOTHING)[1]
        return float(values[-1]) if len(values) else None


@dataclass(frozen=True)
class Logs:
    """The result to show: the logs by side, and the steps."""

    logs: dict[str, Curves]
    first: int
    last: int


class TrainingLogExplorer(Explorer):
    """Curves of one or two training logs: loss, margins, log-probabilities, λ, gradients of both sides."""

    name = "training-log"
    question = "What do the winning and the losing side of a training do while its loss falls?"
    prediction = (
        "DPO raises the margin between the winner's log-probability and the loser's. Before you look: does the "
        "winner's log-probability itself rise? And what does λ_w of Balanced-DPO follow: quality, or something else?"
    )
    reading = (
        "A is violet and solid, B ochre and dashed. In log A or B, type the path of gradlab's JSON lines, of TRL's "
        "trainer_state.json, or of its CSV, and press Enter; sample:dpo, sample:bdpo and sample:dpo-half-beta come "
        "with gradlab; B may be empty. A file that has grown is read again when you move any control. A panel says "
        "which of its columns a log lacks. g_w and g_l are the gradients in the parameters through the winners and "
        "through the losers. The accuracy is the share of pairs with h_w > h_l; at the first step of the samples the "
        "policy is the reference, all pairs tie, and it is 0. Faint lines are the setting before you touched this "
        "control."
    )
    takeaway = (
        "A falling loss is a growing difference, and here both log-probabilities fall. λ_w follows length: summed "
        "log-probabilities mostly count tokens. In the parameters the two sides are about equally strong under either "
        "loss, and cancel more and more, until about half is left, whatever the ratio in probabilities says. DPO at "
        "β/2 is the control for Balanced-DPO. These are three runs of one tiny model on synthetic tokens, one seed "
        "each: they show what to look for, and settle nothing."
    )
    stories = (
        Story(
            "Both sides fall",
            "the margin grows and the loss falls, but log π of the winner falls too, and the loser's (▽) faster.",
            {"log_b": "", "smoothing": 0.8},
        ),
        Story(
            "λ is a length share",
            "for most pairs λ_w of Balanced-DPO (B) lies between 0.3 and 0.8. Its correlation with the winner's share "
            "of the tokens, λ~length in the status line, stays below −0.9: the longer side gets the smaller weight.",
            {"smoothing": 0.8},
        ),
        Story(
            "The control: DPO at β/2",
            "A is now DPO at half of B's β. Log π of both sides and the gradients in the parameters nearly meet: "
            "most of what Balanced-DPO changed was the size of β. (Margins are in units of each run's β.)",
            {"log_a": "sample:dpo-half-beta", "smoothing": 0.8},
        ),
        Story(
            "Two ratios that disagree",
            "the last panel: the log ratio of ∂L/∂π falls far below 0, as log π_l/π_w does, so in probabilities the "
            "losing side has the larger gradient by many nats. The log ratio of the parameters' gradients (○) stays "
            "near 0: there ‖g_w‖ is about ‖g_l‖.",
            {"log_b": "", "smoothing": 0.8},
        ),
        Story(
            "Learned, or remembered?",
            "the second half: the training loss goes on falling, the validation loss (○) falls far less, and the gap "
            "between them grows. The model goes over its 768 pairs ten times.",
            {"first": 50, "smoothing": 0.8},
        ),
    )

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls: which logs, and what to show of them."""
        return {
            "Logs": {
                "log_a": text("log A", "sample:dpo", "path of a log, or sample:dpo"),
                "log_b": text("log B", "sample:bdpo", "a second log; may be empty"),
            },
            "Look at": {
                "smoothing": slider("smoothing", 0.0, 0.0, 0.98, 0.02, "weight of a row in the next row; 0: as logged"),
                "first": whole_slider("from, %", 0, 0, 95, "of the steps", step=5),
                "last": whole_slider("to, %", 100, 5, 100, "of the steps", step=5),
            },
        }

    def compute(self, state: SimpleNamespace) -> Logs:
        """Read the files that have changed; smooth and cut the curves."""
        if state.last <= state.first:
            raise ValueError(f"to must be more than from, got {state.last}% and {state.first}%")
        names = {side: vars(state)[f"log{side}"].strip() for side in SIDES}
        read = {
            side: self.remember(side, stamp(log_path(name)), lambda name=name: _read(name))
            for side, name in names.items()
            if name
        }
        if not read:
            raise ValueError("log A and log B are empty; type the path of a training log, such as sample:dpo")
        end = max(int(log.table.index[-1]) for log in read.values())
        first, last = int(end * state.first / 100), int(np.ceil(end * state.last / 100))
        logs = {}
        for side, log in read.items():
            smooth = smoothed(log.table, state.smoothing)
            logs[side] = Curves(log.label, log.table.loc[first:last], smooth.loc[first:last], log.notes)
        return Logs(logs, first, last)

    def make_views(self) -> dict[str, View]:
        """Return the views of learning and of gradients."""
        self._axes: dict[str, Axes] = {}
        self._lines: dict[tuple[str, str], Line2D] = {}
        self._ghosts: dict[tuple[str, str], Line2D] = {}
        self._lacking: dict[tuple[str, str], Any] = {}
        with mpl.rc_context(look()):
            return {name: self._make_view(name) for name in _PANELS}

    def show(self, result: Logs, former: Logs | None) -> dict[str, Any]:
        """Show all curves, and what a log lacks."""
        for side in SIDES:
            log, before = result.logs.get(side), former.logs.get(side) if former else None
            for column in _DRAWN:
                _put(self._lines[column, side], _curve(log, column))
                _put(self._ghosts[column, side], _curve(before, column))
            low, high = (_curve(log, column) for column in BAND)
            whole_band = np.array_equal(low[0], high[0])
            shown = np.union1d(drawn(*low), drawn(*high)) if whole_band else np.arange(0)
            self._band[side].set_data(*((low[0][shown], low[1][shown], high[1][shown]) if whole_band else ([], [], [])))
            self._labels[side].set_text(f"{side[1].upper()}: {log.label}" if log else "")
        for name, panels in _PANELS.items():
            for title, columns in panels.items():
                self._say_what_lacks(title, list(columns), result)
                self._fit(self.views[name], title, list(columns), result)
        return _numbers(result)

    def frame(self) -> pd.DataFrame:
        """Return the curves as they are drawn, one row per step and log."""
        parts = [
            log.table.dropna(how="all").reset_index().assign(log=side[1].upper(), name=log.label)
            for side, log in self.result.logs.items()
        ]
        return pd.concat(parts, ignore_index=True)

    def code(self, state: SimpleNamespace) -> str:
        """Return code that reads and smooths, and prints the ends of the curves."""
        names = {side[1].upper(): vars(state)[f"log{side}"].strip() for side in SIDES}
        return "\n".join([
            "import gradlab as gl", "from gradlab.doctor.training_log import smoothed",
            "from gradlab.widgets.training_log_explorer import log_path", "",
            f"logs = {({key: name for key, name in names.items() if name})!r}",
            f"columns = {list(_STATUS.values())!r}", "ends = {}", "for key, name in logs.items():",
            '    log = gl.read_log(log_path(name)).set_index("step").reindex(columns=columns)',
            f"    curves = smoothed(log, {state.smoothing!r}).loc[{self.result.first}:{self.result.last}]",
            "    there = curves.ffill().dropna(axis=1, how='all')  # a shorter log may end before",
            "    ends[key] = {name: values.iloc[-1] for name, values in there.items()}",
            "    print(key, ends[key])", "",
        ])  # fmt: skip

    def _make_view(self, name: str) -> View:
        view = View(560, 400, f"Four panels of curves over training steps: {'; '.join(_PANELS[name])}")
        axes = view.figure.subplots(2, 2)
        for (title, columns), axis in zip(_PANELS[name].items(), axes.flat, strict=True):
            self._axes[title] = axis
            axis.set(title=title, xlim=(0, 1), ylim=(0, 1))
            for side, shown in SIDES.items():
                self._make_side(view, axis, columns, side, shown)
                box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
                at = {"x": 0.5, "y": 0.6 if side == "_a" else 0.3, "transform": axis.transAxes, "bbox": box}
                words = axis.text(s="", ha="center", fontsize=8, color=shown["color"], zorder=5, parse_math=False, **at)
                self._lacking[title, side] = view.live(words)
        for axis in axes[1]:
            axis.set_xlabel("step")
        if name == "learning":
            places = zip((0.01, 0.51), SIDES, strict=True)
            self._labels = {
                side: view.live(
                    view.figure.text(x, 0.995, "", va="top", fontsize=9, color=SIDES[side]["color"], parse_math=False),
                    seldom=True,
                )
                for x, side in places
            }
        else:
            self._band = {
                side: view.live(axes[0, 0].fill_between([], [], color=shown["color"], alpha=0.15, linewidth=0))
                for side, shown in SIDES.items()
            }
        view.leave_room(above=0.06)
        return view

    def _make_side(self, view: View, axis: Axes, columns: dict[str, str], side: str, shown: dict[str, Any]) -> None:
        for column, marker in columns.items():
            hollow = {"marker": marker, "markersize": 4.5, "fillstyle": "none", "linewidth": 1} if marker else {}
            self._ghosts[column, side] = view.live(axis.plot([], [], **shown, linewidth=1, alpha=0.3)[0])
            self._lines[column, side] = view.live(axis.plot([], [], **{**shown, **hollow})[0])

    def _say_what_lacks(self, title: str, columns: list[str], result: Logs) -> None:
        for side in SIDES:
            log = result.logs.get(side)
            lacking = [column for column in columns if log and not len(_curve(log, column)[0])]
            self._lacking[title, side].set_text("\n".join(f"{side[1].upper()} has no {name} here" for name in lacking))

    def _fit(self, view: View, title: str, columns: list[str], result: Logs) -> None:
        """Return limits that contain all logged values, in round numbers: they do not change with smoothing."""
        axis, names = self._axes[title], [*columns, *(BAND if "win_weight" in columns else ())]
        logged = [
            _size(name, log.raw[name].to_numpy()) for log in result.logs.values() for name in names if name in log.raw
        ]
        values = np.concatenate([*logged, []])
        values = values[np.isfinite(values)]
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        if high - low < 1e-6 * max(abs(low), 1e-3):
            low, high = low - 0.5 * max(abs(low), 1e-3), high + 0.5 * max(abs(high), 1e-3)
        ticks = MaxNLocator(4).tick_values(low, high)
        view.limits(axis, "x", result.first, max(result.last, result.first + 1))
        view.limits(axis, "y", float(ticks[0]), float(ticks[-1]))


def log_path(name: str) -> Path:
    """Return the path for a typed name; ``sample:NAME`` is a log that comes with gradlab."""
    return SAMPLES[one_of("log", name, SAMPLES)] if name.startswith("sample:") else Path(name).expanduser()


def _read(name: str) -> Read:
    log = read_log(log_path(name))
    settings, notes = log.attrs["settings"], log.attrs["notes"]
    settings_shown = [f"{shown}{settings[key]}" for key, shown in (("loss", ""), ("beta", "β ")) if key in settings]
    short = name if len(name) <= 28 else f"…{name[-27:]}"
    table = log.set_index("step").reindex(columns=[column for column in _SHOWN if column in log])
    if {"grad_norm_win", "grad_norm_lose"} <= set(table.columns):
        win, lose = (table[column].where(table[column] > 0) for column in ("grad_norm_win", "grad_norm_lose"))
        table[RATIO] = np.log(win) - np.log(lose)
    if table.isna().all(axis=None):
        notes = [*notes, f"nothing in it can be shown: beside step, it has {_names(log)}"]
    table.attrs = {}  # pandas would copy them at every turn
    return Read(f"{short} ({', '.join(settings_shown)})" if settings_shown else short, table, notes)


def _names(log: pd.DataFrame) -> str:
    return ", ".join(str(name) for name in log.columns if name != "step") or "no column"


def _numbers(result: Logs) -> dict[str, Any]:
    """Return the ends of the curves, and notes on the files."""
    numbers: dict[str, Any] = {"steps": f"{max(result.first, 1)} to {result.last}"}
    for name, column in _STATUS.items():
        ends = {side: log.end(column) for side, log in result.logs.items()}
        numbers |= {f"{name} {side[1].upper()}": end for side, end in ends.items() if end is not None}
    notes = {f"note on {side[1].upper()}:": "; ".join(log.notes) for side, log in result.logs.items()}
    return numbers | {key: note for key, note in notes.items() if note}


def _size(name: str, values: np.ndarray) -> np.ndarray:
    """Return the values to draw: sizes of slopes, everything else unchanged."""
    return np.abs(values) if name.startswith("slope_") else values


def _curve(log: Curves | None, column: str) -> Curve:
    """Return steps and values of a column; empty where there are none."""
    return log.curves.get(column, NOTHING) if log else NOTHING


def drawn(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the indices of the points of a curve that its picture needs: all of a short curve.

    A long one is cut into ``BUCKETS`` parts of equal width, of which the first point, the least and the largest value
    remain, and the curve's last point: it looks the same, and no spike is lost.

    steps   ascending, one-dimensional
    values  finite, of the same length
    """
    if len(steps) <= 4 * BUCKETS:
        return np.arange(len(steps))
    edges = np.linspace(steps[0], steps[-1], BUCKETS, endpoint=False)
    starts = np.unique(np.searchsorted(steps, edges))
    ends = [*starts[1:], len(steps)]
    extreme = [start + at(values[start:end]) for start, end in zip(starts, ends, strict=True)
               for at in (np.argmin, np.argmax)]  # fmt: skip
    return np.unique([*starts, *extreme, len(steps) - 1])


def _put(line: Line2D, curve: Curve) -> None:
    """Set a line's data and about a dozen markers; an empty line takes no time to draw."""
    shown = drawn(*curve)
    line.set_data(curve[0][shown], curve[1][shown])
    line.set_markevery(max(1, len(shown) // 12))
    line.set_visible(len(curve[0]) > 0)

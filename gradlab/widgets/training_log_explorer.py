"""Training log: the log of a language model's preference training, gradlab's or TRL's, one run or two."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab import doctor
from gradlab.checks import one_of
from gradlab.doctor.training_log import read_log, smoothed
from gradlab.plotting import charts
from gradlab.plotting.palette import CHOSEN
from gradlab.theory import disentanglement_band
from gradlab.widgets.controls import Controls, Line, Whole, slider
from gradlab.widgets.explorer import PAGE, UNASKED, Explorer, Reading, Story, stamp
from gradlab.widgets.parts import Table

SAMPLES = {f"sample:{path.stem}": path for path in sorted((Path(__file__).parent / "samples").glob("*dpo*.jsonl"))}
SIDES = {"A": CHOSEN[0], "B": CHOSEN[1]}
BAND = ("win_weight_q10", "win_weight_q90")
# Columns that are computed here: log R = log ‖g_w‖ − log ‖g_l‖, and the ends of its band, see ``gradlab.theory``.
RATIO, LOWEST, HIGHEST = "log_grad_norm_ratio", "log_lowest_ratio", "log_highest_ratio"
LOSS = {"loss": "", "validation_loss": "v"}


class Panel(NamedTuple):
    """A chart of one quantity."""

    title: str
    unit: str  # of the upright axis
    columns: Mapping[str, str]  # of the log, with their names in the legend


PANELS = (
    Panel("loss, v: validation", "loss", LOSS),
    Panel("accuracy, v: validation", "share of pairs", {"accuracy": "", "validation_accuracy": "v"}),
    Panel("reward margin, v: validation", "nats", {"reward_margin": "", "validation_reward_margin": "v"}),
    Panel("log π, w: winners, l: losers", "nats", {"logp_win": "w", "logp_lose": "l"}),
    Panel("λ_w: mean, 10% to 90% of pairs", "share", {"win_weight": ""}),
    Panel("slopes |∂L/∂log π|, w and l", "size", {"slope_win": "w", "slope_lose": "l"}),
    Panel("‖g_w‖, ‖g_l‖, +: ‖g_w + g_l‖", "norm",
          {"grad_norm_win": "w", "grad_norm_lose": "l", "grad_norm": "+"}),
    Panel("log R of ‖g‖, r; its band: dashed, dotted", "nats", {RATIO: "r", LOWEST: "low", HIGHEST: "high"}),
    Panel("log winner/loser: ∂ of ∂L/∂π, g of ‖g‖", "nats", {"log_prob_ratio": "∂", RATIO: "g"}),
)  # fmt: skip
_CLOSED = "logp_win"  # of the chart that answers the question of the guess
_DASHES: tuple[charts.Dash, ...] = ("", "dashed", "dotted")  # of a chart's columns
_READ = {  # what is read at the ends of the curves: column and unit
    "loss": ("loss", ""), "validation": ("validation_loss", ""), "its accuracy": ("validation_accuracy", "share"),
    "cos(g_w, g_l)": ("grad_cosine", ""), "λ~length": ("win_weight_length_correlation", "correlation"),
}  # fmt: skip
_DRAWN = [column for panel in PANELS for column in panel.columns]
_SHOWN = list(dict.fromkeys([*_DRAWN, *BAND, *(column for column, _ in _READ.values())]))
POINTS = 9_000  # of all curves together, which a message to the page holds: 16 bytes each
FEWEST, MOST = 40, 1_000  # parts of a long curve of which the extremes are drawn
HEIGHT = 150  # of a chart, in pixels


class Read(NamedTuple):
    """A log as it was read."""

    label: str
    table: pd.DataFrame  # by step: the shown columns that the log has
    notes: list[str]
    findings: list[doctor.Finding]


@dataclass(frozen=True)
class Curves:
    """The curves of one log: smoothed, and cut to the shown steps."""

    read: Read = field(repr=False)
    whole: pd.DataFrame = field(repr=False)  # smoothed, all steps
    extent: dict[str, tuple[float, float]]  # of each column as it was logged within the shown steps; NaN for none
    first: int
    last: int
    _thin: dict[int, dict[str, np.ndarray]] = field(default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        """The log's name."""
        return self.read.label

    @cached_property
    def table(self) -> pd.DataFrame:
        """The smoothed columns within the shown steps; NaN where the log says nothing."""
        return self.whole.loc[self.first : self.last]

    @cached_property
    def curves(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Steps and values of each column."""
        steps = self.table.index.to_numpy()
        columns = zip(self.table.columns, self.table.to_numpy().T, strict=True)
        return {name: _there(steps, _size(name, values)) for name, values in columns}

    def thin(self, parts: int) -> dict[str, np.ndarray]:
        """Return, by column, the rows of ``table`` whose points a chart needs; ``parts`` as in ``thinned``."""
        if parts not in self._thin:
            found = dict(
                zip(
                    map(str, self.table),
                    thinned(self.table.index.to_numpy(), self.table.to_numpy().T, parts),
                    strict=True,
                )
            )
            if {"win_weight", *BAND} <= set(found):
                every = np.unique(np.concatenate([found[name] for name in ("win_weight", *BAND)]))
                found["win_weight"] = every[np.isfinite(self.table["win_weight"].to_numpy()[every])]
            self._thin[parts] = found
        return self._thin[parts]

    def ends(self, column: str) -> tuple[float, float] | None:
        """Return the first and the last shown value of a column, if there are any."""
        values = self.table[column].to_numpy() if column in self.table else np.empty(0)
        there = np.flatnonzero(np.isfinite(values))
        return tuple(_size(column, values[there[[0, -1]]]).tolist()) if len(there) else None


@dataclass(frozen=True)
class Logs:
    """The result to show: the logs by side, and the steps."""

    logs: dict[str, Curves]
    first: int
    last: int
    end: int  # the last step of the longest log
    guessed: bool  # whether the reader may see all

    def count(self) -> int:
        """Return the number of curves."""
        return sum(len(log.whole.columns) + 1 for log in self.logs.values())


class TrainingLogExplorer(Explorer):
    """Curves of one or two training logs: loss, margins, log-probabilities, λ, gradients of both sides."""

    name = "training-log"
    question = "What do the winning and the losing side of a training do while its loss falls?"
    prediction = (
        "DPO raises the margin between the winner's log-probability and the loser's. Before you look: does the "
        "winner's log-probability itself rise? And what does λ_w of Balanced-DPO follow: quality, or something else?"
    )
    first_move = "Choose a guess; then drag the two points of the first chart to choose the steps that are shown."
    ask = "In log A, while the loss falls: what does log π of the winners do?"
    answers: ClassVar = {"rises": "it rises", "falls": "it falls"}
    reading = (
        "A is violet and B ochre; w are winners and l losers (dashed); v is validation (dashed). In log A or "
        "B, type the path of gradlab's JSON lines, of TRL's trainer_state.json, or of its CSV, and press Enter; "
        "sample:dpo, sample:bdpo and sample:dpo-half-beta come with gradlab; B may be empty. A file that has grown is "
        "read again when you move any control. Drag the two points of the first chart to choose the steps that the "
        "others show; a click on a finding of the doctor shows its steps. A chart says which of its columns a log "
        "lacks. g_w and g_l are the gradients in the parameters through the winners and through the losers, and "
        "R = ‖g_w‖/‖g_l‖. To first order a step raises its winners where log R lies above the lower end of its band, "
        "and lowers its losers where it lies below the upper end (Chen et al. 2026, arXiv 2604.18239). The "
        "accuracy is the share of pairs with h_w > h_l; at the first step of the samples the policy is the reference, "
        "all pairs tie, and it is 0. The table has the last values shown. Faint lines are what you "
        "pinned. Of a long log each chart has the least and the largest value of every part."
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
            "the margin grows and the loss falls, but log π of the winner falls too, and the loser's (dashed) faster.",
            {"log_b": "", "smoothing": 0.8},
        ),
        Story(
            "λ is a length share",
            "for most pairs λ_w of Balanced-DPO (B) lies between 0.3 and 0.8. Its correlation with the winner's share "
            "of the tokens, λ~length in the table, stays below −0.9: the longer side gets the smaller weight.",
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
            "the last chart: the log ratio of ∂L/∂π falls far below 0, as log π_l/π_w does, so in probabilities the "
            "losing side has the larger gradient by many nats. The log ratio of the parameters' gradients (dashed) "
            "stays near 0: there ‖g_w‖ is about ‖g_l‖.",
            {"log_b": "", "smoothing": 0.8},
        ),
        Story(
            "Displaced, or drifting?",
            "log R stays in its band nearly always: to first order, every step's own pairs raise its winners. Their "
            "log π falls all the same. So it is drift under AdamW from step to step, and not the losers' gradient.",
            {"log_b": "", "smoothing": 0.0},
        ),
        Story(
            "Learned, or remembered?",
            "the second half: the training loss goes on falling, the validation loss (dashed) falls far less, and the "
            "gap between them grows. The model goes over its 768 pairs ten times.",
            {"first": 50, "smoothing": 0.8},
        ),
    )

    def __init__(self, **start: Any) -> None:
        """Show two logs; ``start`` replaces start values of controls."""
        self._findings = Table(selectable=True)
        self._places: list[tuple[int, int] | None] = []  # of the findings: from and to, in percent
        super().__init__(**start)
        self._findings.observe(lambda change: self._guarded(self._picked), "chosen")

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls: which logs, and what to show of them."""
        return {
            "Logs": {
                "log_a": Line("log A", "sample:dpo", "path of a log, or sample:dpo"),
                "log_b": Line("log B", "sample:bdpo", "a second log; may be empty"),
            },
            "Look at": {
                "smoothing": slider("smoothing", 0.0, 0.0, 0.98, "weight of a row in the next row; 0: as logged"),
                "first": Whole("from, %", 0, 0, 95, "of the steps"),
                "last": Whole("to, %", 100, 5, 100, "of the steps"),
            },
        }

    def compute(self, state: SimpleNamespace) -> Logs:
        """Read the files that have changed; smooth the curves, and cut them."""
        if state.last <= state.first:
            raise ValueError(f"to must be more than from, got {state.last}% and {state.first}%")
        names = {side: name for side in SIDES if (name := _name(state, side))}
        stamps = {side: stamp(log_path(name)) for side, name in names.items()}
        read = {side: self.remember(side, stamps[side], lambda name=name: _read(name)) for side, name in names.items()}
        if not read:
            raise ValueError("log A and log B are empty; type the path of a training log, such as sample:dpo")
        end = max(int(log.table.index[-1]) for log in read.values())
        first, last = int(end * state.first / 100), int(np.ceil(end * state.last / 100))
        logs = {}
        for side, log in read.items():
            share = state.smoothing
            whole = self.remember(
                f"smoothed {side}", (stamps[side], share), lambda log=log, share=share: smoothed(log.table, share)
            )
            shown = log.table.loc[first:last]
            extent = self.remember(f"extent {side}", (stamps[side], first, last), lambda shown=shown: _extent(shown))
            logs[side] = Curves(log, whole, extent, first, last)
        return Logs(logs, first, last, end, state.guess != UNASKED)

    def charts(self, result: Logs, pinned: Logs | None) -> list[charts.Curves]:
        """Return the loss of all steps with the ends of those shown, and a chart per panel."""
        share = POINTS / (result.count() + (pinned.count() / 3 if pinned else 0))
        parts = int(np.clip(share / 2, FEWEST, MOST))
        return [_overview(result, parts), *(_chart(panel, result, pinned, parts) for panel in PANELS)]

    def readings(self, result: Logs) -> list[Reading]:
        """Return the ends of the curves, and notes on the files."""
        rows = [Reading("steps", f"{max(result.first, 1)} to {result.last}")]
        for name, (column, unit) in _READ.items():
            ends = {side: ends[1] for side, log in result.logs.items() if (ends := log.ends(column))}
            rows += [Reading(name, ends, unit)] if ends else []
        notes = {side: "; ".join(log.read.notes) for side, log in result.logs.items()}
        return [*rows, *(Reading(f"note on {side}", note) for side, note in notes.items() if note)]

    def outcome(self, result: Logs) -> tuple[str, str]:
        """Return whether log π of the winners rises in A, within the steps shown."""
        log = result.logs.get("A")
        ends = log.ends("logp_win") if log else None
        if ends is None or ends[0] == ends[1]:
            return "", "Log A does not say here whether log π of winners rises or falls."
        word = "rises" if ends[1] > ends[0] else "falls"
        return word, f"it {word}, from {ends[0]:.4g} to {ends[1]:.4g} nats within the steps shown.".replace("-", "−")

    def more_widgets(self) -> list[widgets.Widget]:
        """Return the table of the doctor's findings."""
        return [self._findings]

    def frame(self) -> pd.DataFrame:
        """Return the curves as they are smoothed and cut, one row per step and log."""
        parts = [
            log.table.dropna(how="all").reset_index().assign(log=side, name=log.label)
            for side, log in self.result.logs.items()
        ]
        return pd.concat(parts, ignore_index=True)

    def figure(self) -> Figure:
        """Return what is shown as a matplotlib figure, with the chart that the page opens after the guess."""
        from gradlab.plotting.chart_figure import drawn

        return drawn(self.charts(replace(self._shown(), guessed=True), self.pinned), width=PAGE)

    def code(self, state: SimpleNamespace) -> str:
        """Return code that reads and smooths, and prints the ends of the curves."""
        names = {side: name for side in SIDES if (name := _name(state, side))}
        return "\n".join([
            "import gradlab as gl", "from gradlab.doctor.training_log import smoothed",
            "from gradlab.widgets.training_log_explorer import log_path", "",
            f"logs = {names!r}",
            f"columns = {[column for column, _ in _READ.values()]!r}", "ends = {}", "for key, name in logs.items():",
            '    log = gl.read_log(log_path(name)).set_index("step").reindex(columns=columns)',
            f"    curves = smoothed(log, {state.smoothing!r}).loc[{self.result.first}:{self.result.last}]",
            "    there = curves.ffill().dropna(axis=1, how='all')  # a shorter log may end before",
            "    ends[key] = {name: values.iloc[-1] for name, values in there.items()}",
            "    print(key, ends[key])", "",
        ])  # fmt: skip

    def _present(self, result: Logs) -> None:
        super()._present(result)
        found = list(_findings(result))
        self._places = [place for _, place in found]
        window = (self.state["first"], self.state["last"])
        here = self._findings.chosen if self._chosen_place() == window else -1
        rows = [row for row, _ in found] if result.guessed else []  # a finding may answer the question
        self._findings.put("Findings of the doctor; `gradlab doctor FILE` says what else it looked for",
                           ["sign", "severity", "where", "what it saw", "try this"], rows, here)  # fmt: skip

    def _chosen_place(self) -> tuple[int, int] | None:
        chosen = self._findings.chosen
        return self._places[chosen] if 0 <= chosen < len(self._places) else None

    def _picked(self) -> None:
        """Show the steps of the finding that was chosen in the page."""
        place = self._chosen_place()
        if place is not None and place != (self.state["first"], self.state["last"]):
            self.set(**dict(zip(("first", "last"), place, strict=True)))


def log_path(name: str) -> Path:
    """Return the path for a typed name; ``sample:NAME`` is a log that comes with gradlab."""
    return SAMPLES[one_of("log", name, SAMPLES)] if name.startswith("sample:") else Path(name).expanduser()


def _name(state: SimpleNamespace, side: str) -> str:
    return str(vars(state)[f"log_{side.lower()}"]).strip()


def _read(name: str) -> Read:
    log = read_log(log_path(name))
    settings, notes = log.attrs["settings"], log.attrs["notes"]
    settings_shown = [f"{shown}{settings[key]}" for key, shown in (("loss", ""), ("beta", "β ")) if key in settings]
    short = name if len(name) <= 28 else f"…{name[-27:]}"
    table = log.set_index("step").reindex(columns=[column for column in _SHOWN if column in log])
    if {"grad_norm_win", "grad_norm_lose"} <= set(table.columns):
        win, lose = (table[column].where(table[column] > 0) for column in ("grad_norm_win", "grad_norm_lose"))
        table[RATIO] = np.log(win) - np.log(lose)
    if "grad_cosine" in table:
        opposed = table["grad_cosine"].where(table["grad_cosine"].between(-1, 0, inclusive="left")).to_numpy()
        ends = np.log(disentanglement_band(np.where(np.isnan(opposed), -1.0, opposed)))
        table[LOWEST], table[HIGHEST] = np.where(np.isnan(opposed), math.nan, ends)  # where C ≥ 0 there are no ends
    if table.isna().all(axis=None):
        notes = [*notes, f"nothing in it can be shown: beside step, it has {_names(log)}"]
    table.attrs = {}  # pandas would copy them at every turn
    label = f"{short} ({', '.join(settings_shown)})" if settings_shown else short
    return Read(label, table, notes, _examined(log))


def _examined(log: pd.DataFrame) -> list[doctor.Finding]:
    """Return the doctor's findings; what it refuses is a finding too, since the curves can be shown all the same."""
    try:
        return doctor.examine_log(log)
    except ValueError as error:
        return [doctor.Finding("log", "note", str(error))]


def _names(log: pd.DataFrame) -> str:
    return ", ".join(str(name) for name in log.columns if name != "step") or "no column"


def _findings(result: Logs) -> Iterator[tuple[list[str], tuple[int, int] | None]]:
    """Yield a row per finding, and the steps that it is about, in percent: from and to."""
    for side, log in result.logs.items():
        judged = [one for one in log.read.findings if one.judged]
        if not judged:
            yield [f"{side}: nothing found", "", "", "", ""], None
        for one in judged:
            title = doctor.SIGNS.get(one.sign, "about the file")
            yield [f"{side}: {title}", one.severity, one.where, one.what, one.try_this], _place(one.where, result.end)


def _place(where: str, end: int) -> tuple[int, int] | None:
    """Return a stretch around the steps that a finding names, in percent of all; None where it names none."""
    steps = [min(int(step), end) for step in re.findall(r"\d+", where.partition(",")[0])]
    if not steps:
        return None
    first = int(np.clip(100 * min(steps) // max(end, 1) - 2, 0, 95))
    return first, int(np.clip(-(-100 * max(steps) // max(end, 1)) + 2, first + 5, 100))


def _size(name: str, values: np.ndarray) -> np.ndarray:
    """Return the values to draw: sizes of slopes, everything else unchanged."""
    return np.abs(values) if name.startswith("slope_") else values


def _extent(table: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Return the least and the largest size of each column; NaN for a column without a number."""
    values = table.to_numpy()
    values = np.where(np.isfinite(values), values, math.nan)
    ends = zip(np.fmin.reduce(values, initial=math.nan), np.fmax.reduce(values, initial=math.nan), strict=True)
    found = {name: (float(low), float(high)) for name, (low, high) in zip(table.columns, ends, strict=True)}
    return {name: _sizes(*both) if name.startswith("slope_") else both for name, both in found.items()}


def _sizes(low: float, high: float) -> tuple[float, float]:
    """Return the ends of the sizes of numbers between two ends."""
    return (0.0 if low < 0 < high else min(abs(low), abs(high)), max(abs(low), abs(high)))


def _there(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    there = np.isfinite(values)
    return steps[there], values[there]


def _overview(result: Logs, parts: int) -> charts.Curves:
    """Return the loss of all steps, with two points to drag: the ends of what the other charts show."""
    curves = []
    for side, log in result.logs.items():
        for column in [name for name in LOSS if name in log.whole][:1]:
            steps, values = log.whole.index.to_numpy(), log.whole[column].to_numpy()
            (shown,) = thinned(steps, values[None], parts)
            curves.append(charts.Curve(side, steps[shown], values[shown], SIDES[side]))
    low, high = _round([_ends(curve.y) for curve in curves])
    move = {name: charts.Move(name, "x", 0.0, 100 / result.end) for name in ("first", "last")}
    handles = (
        [
            charts.Handle(label, x, (low + high) / 2, "#444444", [move[name]], shape="diamond")
            for label, name, x in (("from", "first", result.first), ("to", "last", result.last))
        ]
        if result.end
        else []
    )
    labels = ", ".join(f"{side}: {log.label}" for side, log in result.logs.items())
    return charts.Curves(
        "the steps shown: drag an end", f"The loss of the whole log over steps. {labels}",
        charts.Axis("step", 0, max(result.end, 1)), charts.Axis("loss", low, high), curves,
        bands=[charts.Band(result.first, result.last)], handles=handles, link="step", height=HEIGHT,
    )  # fmt: skip


def _chart(panel: Panel, result: Logs, pinned: Logs | None, parts: int) -> charts.Curves:
    """Return a chart of the panel's columns, and of what a log lacks of them."""
    closed = _CLOSED in panel.columns and not result.guessed
    ends = [
        log.extent[name] for log in result.logs.values()
        for name in (*panel.columns, *(BAND if "win_weight" in panel.columns else ())) if name in log.extent
    ]  # fmt: skip
    x = charts.Axis("step", result.first, max(result.last, result.first + 1))
    y = charts.Axis(panel.unit, *_round(ends))
    curves, words = [], ["choose what you expect, above"] if closed else []
    for side, log in {} if closed else result.logs.items():
        lacking = [column for column in panel.columns if not math.isfinite(log.extent.get(column, (math.nan,))[0])]
        words += [f"{side} has no {column} here" for column in lacking]
        curves += _of(panel, side, pinned.logs.get(side) if pinned else None, parts // 3, faint=True)
        curves += _of(panel, side, log, parts)
    places = np.linspace(y.high, y.low, len(words) + 2)[1:-1]
    labels = [charts.Label((2 * x.low + x.high) / 3, float(at), word, SIDES.get(word[0], ""))
              for at, word in zip(places, words, strict=True)]  # fmt: skip
    return charts.Curves(panel.title, f"{panel.title} over training steps", x, y, curves, labels=labels, link="step",
                         height=HEIGHT)  # fmt: skip


def _of(panel: Panel, side: str, log: Curves | None, parts: int, faint: bool = False) -> Iterator[charts.Curve]:
    """Yield a panel's curves of one log."""
    if log is None:
        return
    for (column, name), dash in zip(panel.columns.items(), _DASHES, strict=False):
        if column not in log.table:
            continue
        shown = log.thin(parts)[column]
        if not len(shown):
            continue
        steps, values = log.table.index.to_numpy()[shown], log.table[column].to_numpy()[shown]
        low, high = (log.table[edge].to_numpy()[shown] if column == "win_weight" and edge in log.table else None
                     for edge in BAND)  # fmt: skip
        yield charts.Curve(
            f"{side} {name}".strip(), steps, _size(column, values), SIDES[side], dash,
            low=low if high is not None else None, high=high if low is not None else None, faint=faint,
        )  # fmt: skip


def _ends(values: np.ndarray) -> tuple[float, float]:
    return (float(values.min()), float(values.max())) if len(values) else (math.nan, math.nan)


def _round(ends: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return ends of an axis around all these values, with a little room; 0 to 1 where there are none."""
    finite = [end for both in ends for end in both if math.isfinite(end)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    room = max(0.05 * (high - low), 0.5e-6 * max(abs(low), abs(high)), 1e-9)
    if high - low < 1e-6 * max(abs(low), 1e-3):
        room = 0.5 * max(abs(low), abs(high), 1e-3)
    return low - room, high + room


def thinned(steps: np.ndarray, values: np.ndarray, parts: int) -> list[np.ndarray]:
    """Return, per curve, the places of the points that its picture needs: all finite ones of a short curve.

    A long one is cut into ``parts`` of equal width, of which the least and the largest value remain, and the curve's
    ends: it looks the same where a part is not wider than a pixel, and no spike is lost.

    steps   (N,), ascending.
    values  (C, N), one row per curve; what is not finite is left out.
    """
    finite = np.isfinite(values)
    kept = [np.flatnonzero(row) for row in finite]
    long = [at for at, places in enumerate(kept) if len(places) > 2 * parts + 2]
    if not long:
        return kept
    whole = bool(finite[long].all())
    low = values[long] if whole else np.where(finite[long], values[long], math.inf)
    high = low if whole else np.where(finite[long], values[long], -math.inf)
    edges = np.linspace(steps[0], steps[-1], parts, endpoint=False)
    starts = np.unique(np.searchsorted(steps, edges))
    picked = np.concatenate([
        [start + low[:, start:end].argmin(axis=1), start + high[:, start:end].argmax(axis=1)]
        for start, end in zip(starts, [*starts[1:], len(steps)], strict=True)
    ])  # (2 · parts, long curves)  # fmt: skip
    for at, places in zip(long, picked.T, strict=True):
        shown = np.unique(np.concatenate([places, kept[at][[0, -1]]]))
        kept[at] = shown[finite[at][shown]]
    return kept

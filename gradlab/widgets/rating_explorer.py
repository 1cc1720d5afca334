"""Rating: two systems' samples side by side, blind, one key per answer; rates with intervals, and raters' agreement."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ipywidgets as widgets
import matplotlib as mpl
import pandas as pd

from gradlab.checks import resolved
from gradlab.plotting.palette import CHOSEN
from gradlab.stats.agreement import ALL, Agreement, agreement, preference_rates
from gradlab.store.provenance import fingerprint
from gradlab.store.ratings import (
    UNDO,
    Answer,
    AnswerFile,
    Comparison,
    Item,
    append_answer,
    read_comparison,
    shuffled,
    sides,
)
from gradlab.widgets.controls import Controls, switch, text
from gradlab.widgets.explorer import Explorer, Story, prose, stamp
from gradlab.widgets.front import Keys
from gradlab.widgets.view import View, look

_OURS = Path(__file__).parent / "samples"
SAMPLES = {"sample": _OURS / "samples.jsonl"}  # by the typed name
ANSWERS = {"sample:rules": _OURS / "rules.ratings.jsonl"}
NOBODY = "anonymous"  # a rater who gives no name
ROWS = 7  # of raters in the picture
_KEYS = {
    "left": ("← left is better", ["ArrowLeft"]),
    "tie": ("↓ a tie", ["ArrowDown"]),
    "skip": ("↑ or S skip", ["ArrowUp", "s", "S"]),
    "right": ("right is better →", ["ArrowRight"]),
    UNDO: ("⌫ undo", ["Backspace"]),
}


@dataclass(frozen=True)
class Rated:
    """The state of a rating."""

    comparison: Comparison
    answers: AnswerFile
    rater: str
    item: Item | None  # the next one for this rater
    sides: tuple[int, int]  # the systems on the left and on the right
    numbers: Mapping[str, int]  # of items that each rater has answered
    last: Answer | None  # which undo would take back
    revealed: tuple[pd.DataFrame, Agreement] | None  # rates and agreement; None while names are hidden

    @property
    def done(self) -> int:
        """The number of items that this rater has answered."""
        return self.numbers.get(self.rater, 0)


class RatingExplorer(Explorer):
    """A tool to rate two systems' samples, blind."""

    name = "rating"
    question = "Which of two systems do people prefer, when nothing tells them which is which?"
    prediction = (
        "twelve prompts were answered twice, in few words and in many. Before you rate: which will you prefer, and how "
        "often? And how sure can twelve answers make you?"
    )
    reading = (
        "Read both texts and press ← or → for the better text, ↓ for a tie, ↑ or S to skip, Backspace to take the "
        "last answer back; the keys work when the focus is in the explorer and not on a field (click on a text). Each "
        "answer is saved at once, and the same name continues where it stopped. Sides and order are shuffled for each "
        "rater. Until you reveal, the picture shows how far each rater is. After that, it shows how often B was "
        "preferred to A, a tie as one half, with the 95% Wilson interval: ● a rater, ■ all raters, by items; no "
        "answers are taken while it does. To use other samples, write a file with one JSON object per line, with a "
        "prompt and samples: {system: text, …}. Answers go to NAME.ratings.jsonl beside it; answers to our samples go "
        "to ratings.jsonl in the current folder."
    )
    takeaway = (
        "A rate without its interval says little: with twelve items the interval may be one half wide. A rate is a "
        "preference, not a measure of quality: a rater who likes short texts prefers the terse system, whatever it "
        "says. Agreement should be measured against chance, and α does so. The samples were written by hand to try "
        "the tool: they come from no system, and the answers of sample:rules come from three rules, not from people."
    )
    stories = (
        Story(
            "Three rules rate",
            "rules in the place of raters. The rule that takes the shorter text always prefers A, and its interval "
            "excludes ½: a clear result, and only about length. The rule that always presses left knows nothing; "
            "shuffled sides turn that into noise, and its interval contains ½.",
            {"answers": "sample:rules", "reveal": True},
        ),
        Story(
            "Do they agree?",
            "42% of all pairs of answers to an item are equal (raw agreement), which sounds like something. But two of "
            "three answers are for A, so answers given by chance would be equal in 49%: α is below 0.",
            {"answers": "sample:rules", "reveal": True},
        ),
        Story(
            "The other way round",
            "A and B have changed places: each rate is now one less what it was, each interval is mirrored at ½, and α "
            "is the same.",
            {"answers": "sample:rules", "reveal": True, "a": "wordy", "b": "terse"},
        ),
        Story(
            "Still blind",
            "the same answers before the reveal: who has answered how many items, and nothing about the systems.",
            {"answers": "sample:rules", "rater": "rule: left"},
        ),
    )

    def __init__(self, samples: Path | str | None = None, answers: Path | str | None = None, **start: Any) -> None:
        """Rate ``samples`` (a path; default: gradlab's) into ``answers`` (a path), as ``rater``."""
        files = {"samples": samples, "answers": answers}
        super().__init__(**{key: str(path) for key, path in files.items() if path is not None}, **start)

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls of files, rater, systems, and the reveal."""
        return {
            "Files": {
                "samples": text("samples", "sample", "path of a file of samples, or sample"),
                "answers": text("answers", "", "a path; if empty, beside the samples"),
            },
            "Who and what": {
                "rater": text("rater", "", "your name; may be empty"),
                "a": text("system A", "", "a system; if empty, the first in the file"),
                "b": text("system B", "", "a system; if empty, the second in the file"),
                "seed": text("seed", "0", "any word; it shuffles order and sides"),
            },
            "At the end": {
                "reveal": switch("reveal names and rates", False, "no answers are taken while it is ticked")
            },
        }

    def compute(self, state: SimpleNamespace) -> Rated:
        """Read both files."""
        path = SAMPLES.get(state.samples.strip()) or Path(state.samples.strip()).expanduser()
        systems = state.a.strip(), state.b.strip()
        comparison = self.remember("samples", (stamp(path), systems), lambda: read_comparison(path, *systems))
        ratings = answers_path(state)
        answers = self.remember("answers", (ratings, comparison), lambda: AnswerFile(ratings, comparison))
        answers.update()
        rater = state.rater.strip() or NOBODY
        order = self.remember("order", (comparison, rater, state.seed), lambda: shuffled(comparison, rater, state.seed))
        given = answers.of(rater)
        item = next((item for item in order if item.key not in given), None)
        shown = sides(comparison, item, rater, state.seed) if item else (0, 1)
        last, revealed = next(reversed(given.values()), None), None
        if state.reveal:
            frame = answers.frame()
            revealed = preference_rates(frame), agreement(frame)
        return Rated(comparison, answers, rater, item, shown, answers.numbers(), last, revealed)

    def answer(self, choice: str) -> None:
        """Record left, right, tie or skip for the present item, and go on; ``undo`` takes the last answer back."""
        state = SimpleNamespace(**self.state)
        now, path = self.compute(state), answers_path(state)
        if _token(now) != self._keys.token:  # nobody may answer what they have not seen
            self._refresh()
            raise ValueError("the files have changed meanwhile; this is the item to answer now")
        if resolved("answers", path) in {sample.resolve() for sample in ANSWERS.values()}:
            raise ValueError("the answers of sample:rules can only be viewed; empty the field, or give a path")
        if now.revealed:
            raise ValueError("no answers are taken while names and rates are shown; take the tick away to go on")
        if choice == UNDO:
            if now.last is None:
                raise ValueError(f"{now.rater} has no answer to take back")
            append_answer(path, now.rater, now.last.item, now.last.left, now.last.right, UNDO)
        elif now.item is None:
            raise ValueError(f"{now.rater} has answered all {len(now.comparison.items)} items")
        else:
            left, right = (now.comparison.systems[side] for side in now.sides)
            append_answer(path, now.rater, now.item.key, left, right, choice)
        self._refresh()

    def make_views(self) -> dict[str, View]:
        """Return the view of how far each rater is, or of their rates."""
        with mpl.rc_context(look()):
            view = View(560, 220, "How many items each rater has answered; after the reveal, how often each prefers B")
            view.figure.set_layout_engine("none")  # the text left of the axis is live, and needs room
            axis = view.figure.add_axes((0.25, 0.2, 0.7, 0.66))
            axis.set(xlim=(0, 1), ylim=(ROWS + 0.5, -0.5), yticks=())
            axis.axvline(0.5, color="#999999", linewidth=0.8, linestyle=":")
            self._title = view.live(view.figure.text(0.25, 0.97, "", va="top", parse_math=False))
            self._scale = view.live(view.figure.text(0.6, 0.02, "", va="bottom", ha="center"))
            self._bars, self._dots, self._names = [], [], []
            for row in range(ROWS + 1):
                kind = {"color": CHOSEN[0] if row < ROWS else "#000000", "clip_on": False}
                self._bars.append(view.live(axis.plot([], [], "-", **kind, linewidth=2)[0]))
                self._dots.append(view.live(axis.plot([], [], "o" if row < ROWS else "s", **kind)[0]))
                right = {"ha": "right", "va": "center", "transform": axis.get_yaxis_transform()}
                words = axis.text(-0.02, row, "", **right, parse_math=False)
                self._names.append(view.live(words))
        self._pane = prose("")
        self._keys = Keys(_KEYS, lambda choice: self._guarded(lambda: self.answer(choice)))
        return {"rates": view}

    def more_widgets(self) -> list[widgets.Widget]:
        """Return the texts side by side, and the buttons."""
        return [self._pane, self._keys]

    def show(self, result: Rated, former: Rated | None) -> dict[str, Any]:
        """Show the next item, and the picture."""
        self._pane.value = _pane(result)
        self._keys.token = _token(result)
        number = len(result.comparison.items)
        a, b = result.comparison.systems
        hidden = result.revealed is None
        self._title.set_text("answered so far" if hidden else f"how often B ({b[:24]}) is preferred to A ({a[:24]})")
        self._scale.set_text("share of items" if hidden else "rate, with its 95% interval; a tie counts ½")
        self._show_rows(result)
        numbers: dict[str, Any] = {"rater": result.rater, "answered": f"{result.done} of {number}"}
        if result.comparison.left_out:
            numbers["prompts without both systems"] = result.comparison.left_out
        if result.revealed and len(result.revealed[0]):
            last, agreed = result.revealed[0].iloc[-1], result.revealed[1]
            values = {"B over A": last["rate"], "from": last["low"], "to": last["high"], "raw agreement": agreed.raw,
                      "α": agreed.alpha}  # fmt: skip
            numbers |= {name: float(value) for name, value in values.items() if not math.isnan(value)}
        return numbers

    def frame(self) -> pd.DataFrame:
        """Return the items with their answers; after the reveal, also which system was where, and the score."""
        hidden = [] if self.result.revealed else ["left", "right", "score"]
        items = pd.DataFrame([{"item": item.key, "prompt": item.prompt} for item in self.result.comparison.items])
        return items.merge(self.result.answers.frame().drop(columns=hidden), how="left", on="item")

    def code(self, state: SimpleNamespace) -> str:
        """Return code that reads the files, and computes rates and agreement."""
        samples = SAMPLES.get(state.samples.strip(), state.samples.strip())
        lines = [
            "from gradlab.stats.agreement import agreement, preference_rates",
            "from gradlab.store.ratings import read_answers, read_comparison", "",
            f"comparison = read_comparison({str(samples)!r}, a={state.a.strip()!r}, b={state.b.strip()!r})",
            f"answers = read_answers({str(answers_path(state))!r}, comparison)",
            'print(answers.groupby("rater").size(), "of", len(comparison.items))',
        ]  # fmt: skip
        if state.reveal:
            lines += ["rates, agreed = preference_rates(answers), agreement(answers)", "print(rates, agreed)"]
        return "\n".join([*lines, ""])

    def _show_rows(self, result: Rated) -> None:
        """Draw one row per rater, the present rater included; after the reveal, the last row is all raters."""
        rates = result.revealed[0].set_index("rater") if result.revealed else None
        raters = sorted(result.numbers, key=lambda name: (name != result.rater, name))
        last = ALL if rates is not None and ALL in rates.index else ""
        raters = [*[*raters, *[""] * ROWS][:ROWS], last]
        number = len(result.comparison.items)
        for row, rater in enumerate(raters):
            self._names[row].set_text(rater if len(rater) <= 22 else f"{rater[:21]}…")
            bar, dot = ([], []), ([], [])
            if rater and rates is not None:
                rate = rates.loc[rater]
                bar, dot = ([rate["low"], rate["high"]], [row, row]), ([rate["rate"]], [row])
            elif rater:
                bar = ([0, result.numbers[rater] / number], [row, row])
            self._bars[row].set_data(*bar)
            self._dots[row].set_data(*dot)


def answers_path(state: SimpleNamespace) -> Path:
    """Return the path of the answers: as typed, else beside the samples, or for gradlab's in the current folder."""
    name, samples = state.answers.strip(), state.samples.strip()
    if name:
        return ANSWERS.get(name) or Path(name).expanduser()
    return Path("ratings.jsonl") if samples in SAMPLES else Path(samples).expanduser().with_suffix(".ratings.jsonl")


def _token(result: Rated) -> str:
    """Return a hash of what the page shows: rater, item, sides, and the answer that undo would take back."""
    left, right = (result.comparison.systems[side] for side in result.sides)
    last = [result.last.item] if result.last else []
    return fingerprint(result.rater, result.item.key if result.item else "", left, right, last)


def _pane(result: Rated) -> str:
    """Return the item in HTML; the systems' samples are escaped, whatever they contain."""
    if result.item is None:
        number = len(result.comparison.items)
        return f"<b>{html.escape(result.rater)} has answered all {number} items.</b> Reveal to see the rates."
    left, right = (html.escape(result.item.texts[side]) for side in result.sides)
    prompt = html.escape(result.item.prompt)
    return (
        f'<div class="gradlab-pair"><p><b>{prompt}</b></p><div role="group" aria-label="left">{left}</div>'
        f'<div role="group" aria-label="right">{right}</div></div>'
    )

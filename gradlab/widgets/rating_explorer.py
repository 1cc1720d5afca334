"""Rating: two systems' samples side by side, blind, one key per answer; rates with intervals, and raters' agreement."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd

from gradlab.checks import resolved
from gradlab.plotting.charts import Axis, Curve, Curves, Label, Rule
from gradlab.plotting.palette import CHOSEN, INK
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
from gradlab.widgets.controls import Controls, Line, Switch
from gradlab.widgets.explorer import Explorer, Reading, Story, in_turn, stamp
from gradlab.widgets.parts import Keys

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
    UNDO: ("⌫ take back", ["Backspace"]),
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
    first_move = "Read both texts, click on the better one, and press ← or → for its side."
    reading = (
        "Read both texts and press ← or → for the better text, ↓ for a tie, ↑ or S to skip, Backspace to take the "
        "last answer back; the keys work when the focus is in the explorer and not on a field (click on a text). Each "
        "answer is saved at once, and the same name continues where it stopped; undo and redo are about settings, and "
        "leave answers alone. Sides and order are shuffled for each rater. Until you reveal, the chart shows how far "
        "each rater is. After that, it shows how often B was preferred to A, a tie as one half, with the 95% Wilson "
        "interval: ● a rater, ◆ all raters, by items; no answers are taken while it does. To use other samples, write "
        "a file with one JSON object per line, with a prompt and samples: {system: text, …}. Answers go to "
        "NAME.ratings.jsonl beside it; answers to our samples go to ratings.jsonl in the current folder."
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

    unfolds = ("Files", "Systems")

    def __init__(self, samples: Path | str | None = None, answers: Path | str | None = None, **start: Any) -> None:
        """Rate ``samples`` (a path; default: gradlab's) into ``answers`` (a path), as ``rater``."""
        files = {"samples": samples, "answers": answers}
        self._pane = widgets.HTML(layout={"width": "auto"})
        self._keys = Keys(_KEYS, lambda choice: self._guarded(lambda: self.answer(choice)))
        super().__init__(**{key: str(path) for key, path in files.items() if path is not None}, **start)
        self.children = [self._pane, self._keys, self.front]  # the texts first: they are what is looked at

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls of rater and reveal, files, and systems."""
        return {
            "Who": {
                "rater": Line("rater", "", "your name; may be empty"),
                "reveal": Switch("reveal names and rates", False, "no answers are taken while it is ticked"),
            },
            "Files": {
                "samples": Line("samples", "sample", "path of a file of samples, or sample"),
                "answers": Line("answers", "", "a path; if empty, beside the samples"),
            },
            "Systems": {
                "a": Line("system A", "", "a system; if empty, the first in the file"),
                "b": Line("system B", "", "a system; if empty, the second in the file"),
                "seed": Line("seed", "0", "any word; it shuffles order and sides"),
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

    @in_turn
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

    def charts(self, result: Rated, pinned: Rated | None) -> list[Curves]:
        """Return how far each rater is, or their rates; never a pinned result, which may have been revealed."""
        return [_rates(result) if result.revealed else _progress(result)]

    def readings(self, result: Rated) -> list[Reading]:
        """Return how far the rater is; after the reveal, rate and agreement of all raters."""
        number = len(result.comparison.items)
        rows = [Reading("rater", result.rater), Reading("answered", f"{result.done} of {number}")]
        if result.comparison.left_out:
            rows.append(Reading("prompts without both systems", result.comparison.left_out))
        if result.revealed and len(result.revealed[0]):
            last, agreed = result.revealed[0].iloc[-1], result.revealed[1]
            shares = {"B over A": last["rate"], "from": last["low"], "to": last["high"], "raw agreement": agreed.raw}
            values = [*((name, value, "share") for name, value in shares.items()), ("α", agreed.alpha, "")]
            rows += [Reading(name, float(value), unit) for name, value, unit in values if not math.isnan(value)]
        return rows

    def _present(self, result: Rated) -> None:
        super()._present(result)
        self._pane.value = _pane(result)
        self._keys.token = _token(result)

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


def _progress(result: Rated) -> Curves:
    """Return the share of the items that each rater has answered."""
    raters, number = _raters(result), len(result.comparison.items)
    shares = [result.numbers[rater] / number for rater in raters]
    lines = [(0.0, share) for share in shares]
    points = [Curve("answered", np.array(shares), 1.0 + np.arange(len(shares)), CHOSEN[0], line=False, marker="dot")]
    return _rows("answered so far", "share of items", raters, lines, points)


def _rates(result: Rated) -> Curves:
    """Return how often each rater prefers B, with its interval; the last row is of all raters."""
    assert result.revealed is not None
    rates = result.revealed[0].set_index("rater")
    raters = [rater for rater in _raters(result) if rater in rates.index]
    every = [ALL] if ALL in rates.index else []
    rows = rates.loc[[*raters, *every]]
    places = 1.0 + np.arange(len(rows))
    rate, last = rows["rate"].to_numpy(), len(raters)
    points = [Curve("a rater", rate[:last], places[:last], CHOSEN[0], line=False, marker="dot")]
    if every:
        points.append(Curve(ALL, rate[last:], places[last:], INK, line=False, marker="diamond"))
    a, b = result.comparison.systems
    title = f"how often B ({b[:24]}) is preferred to A ({a[:24]})"
    ends = list(rows[["low", "high"]].itertuples(index=False, name=None))
    return _rows(title, "rate, with its 95% interval; a tie counts ½", list(rows.index), ends, points, [Rule(x=0.5)])


def _raters(result: Rated) -> list[str]:
    """Return the raters of the chart, the present one first."""
    return sorted(result.numbers, key=lambda name: (name != result.rater, name))[:ROWS]


def _rows(
    title: str, unit: str, names: list[str], lines: list[tuple[float, float]], points: list[Curve],
    rules: Sequence[Rule] = (),
) -> Curves:  # fmt: skip
    """Return a chart with a named row per rater: a line, and a point."""
    places = 1.0 + np.arange(len(names))
    gap = np.full(len(names), math.nan)
    ends = np.array(lines, float).reshape(len(names), 2)
    x, y = np.stack([*ends.T, gap], axis=1).ravel(), np.stack([places, places, gap], axis=1).ravel()
    labels = [Label(0.0, place - 0.1, name if len(name) <= 22 else f"{name[:21]}…")
              for place, name in zip(places, names, strict=True)]  # fmt: skip
    return Curves(
        title, f"{title}, one row per rater", Axis(unit, 0.0, 1.0), Axis("rater", max(len(names), 3) + 0.5, 0.25),
        [Curve("", x, y, CHOSEN[0], faint=True), *points], rules=rules, labels=labels,
        height=70 + 30 * max(len(names), 3),
    )  # fmt: skip


def _pane(result: Rated) -> str:
    """Return the item in HTML; the systems' samples are escaped, whatever they contain."""
    if result.item is None:
        number = len(result.comparison.items)
        said = f"{html.escape(result.rater)} has answered all {number} items."
        return f'<div class="gradlab-pair"><p><b>{said}</b> Reveal to see the rates.</p></div>'
    left, right = (html.escape(result.item.texts[side]) for side in result.sides)
    prompt = html.escape(result.item.prompt)
    return (
        f'<div class="gradlab-pair"><p><b>{prompt}</b></p><div role="group" aria-label="left">{left}</div>'
        f'<div role="group" aria-label="right">{right}</div></div>'
    )

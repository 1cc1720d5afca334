"""The page ``figures/STUDY.md``: what was promised, what was measured, and how the figures are to be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from gradlab.plotting.chart_figure import drawn
from gradlab.plotting.charts import Chart
from gradlab.plotting.looks import WIDTH, draw
from gradlab.store.files import write_whole
from gradlab.store.markdown import markdown_table
from gradlab.study.validation.judged import MET, MISSED, NOT_RUN, OPEN, STATED, Promise, in_numbers, promises
from gradlab.study.validation.pictures import coverage_chart, power_chart, turning_charts
from gradlab.study.validation.runs import FOLDER, Found
from gradlab.study.validation.settings import CHANGES, PREDICTIONS, Settings

PAGE = "STUDY.md"
_PARTS = {
    "coverage": "Do the intervals hold the truth?",
    "power": "Is the promised power met?",
    "bias": "Are planted biases found, and the rates mended?",
    "turn": "Which leaning to length turns the sign of bDPO − DPO?",
    "word": "Is the verdict's word the right one?",
}
_CAPTIONS = {
    "coverage": "One row per case of raters and systems. A mark is the share of simulated studies whose 95% interval "
    "holds the expected truth, the line through it the 95% interval that the number of simulations gives this share. "
    "The dashed line is the promise, 93%; at the dotted one an interval keeps its word exactly. A mark left of the "
    "dashed line whose line crosses it is not decided.",
    "power": "One mark per case: how often a study finds that b is preferred, as `gradlab study power` promises it "
    "(across) and as the whole path from plan to verdict gives it (upwards), with the 95% interval of the simulations. "
    "On the solid diagonal the promise is kept; the dotted ones are 3 points beside it. Triangles are cases with tired "
    "or careless raters, of whom `power` leaves out those who fail the attention checks.",
    "turning": "Raters lean to length more and more from left to right, by so many log odds per log word or per word. "
    "The line is the win-rate that the formula expects, diamonds with lines are means of simulated studies with their "
    "95% interval, rings are the reports' win-rates at equal length. The sign of bDPO − DPO turns where the line "
    "crosses one half; the dashed upright is the leaning that was predicted.",
}


def write_page(found: Found, settings: Settings, figures: Path, *, quick: bool = False) -> Path:
    """Draw the figures and write the page; return its path."""
    pictures: dict[str, list[Chart]] = {
        "coverage": [coverage_chart(found, settings)], "power": [power_chart(found, settings)],
        "turning": [*turning_charts(found, settings)],
    }  # fmt: skip
    there = {name: charts for name, charts in pictures.items() if charts}
    draw(
        lambda: {name: drawn(charts, width=WIDTH) for name, charts in there.items()}, figures / FOLDER,
        "QUICK: few simulations, not a result" if quick else None, kinds=("png",),
    )  # fmt: skip
    page = figures / PAGE
    write_whole({page: "\n".join(_lines(found, settings, there, quick=quick)) + "\n"})
    return page


def _lines(found: Found, settings: Settings, there: Iterable[str], *, quick: bool) -> list[str]:
    kept = promises(found, settings)
    total = int(found.verdicts["simulations"].sum()) + len(found.turnings)
    lines = [
        "# The human study, validated", "",
        "Written by `make study`; do not edit. " + answer(kept), "",
        f"{total:,} studies were simulated, each through the whole path: a plan is written, frozen and read again, "
        "items are assigned, raters of known error answer in lines, the lines are read against the plan, and the "
        "report says its verdict. Cases, targets and predictions were committed before the first run "
        "(`gradlab/study/validation/settings.py`). No person has rated anything here.", "",
    ]  # fmt: skip
    if quick:
        lines = ["**QUICK run: few simulations. These are not results.**", "", *lines]
    lines += [*_table(kept), ""]
    lines += [
        f"*{MET}*: what was measured reaches the target. *{MISSED}*: neither it nor its interval does. *{OPEN}*: it "
        "does not, but its interval reaches the target: more simulations would tell. Intervals are the 95% ones that "
        "the number of simulations gives.", "",
    ]  # fmt: skip
    for name in there:
        lines += [f"![{name}]({FOLDER}/{name}.png)", "", _CAPTIONS[name], ""]
    lines += ["## What was expected", "", *(f"- *{name}*: {said}." for name, said in PREDICTIONS.items()), "",
              CHANGES, ""]  # fmt: skip
    lines += ["## The cases", "", *_cases(settings), "", *_NOTES]
    return lines


def answer(kept: Sequence[Promise]) -> str:
    """Return the answer in a sentence or two: how many promises are met, and which are not."""
    judged = [one for one in kept if one.word not in (NOT_RUN, STATED)]
    number = sum(one.word == MET for one in judged)
    said = f"**{number} of {len(judged)} promises are met.**"
    for word in (MISSED, OPEN):
        names = [one.what for one in judged if one.word == word]
        said += f" {word.capitalize()}: {'; '.join(names)}." if names else ""
    return said


def _table(kept: Sequence[Promise]) -> list[str]:
    lines: list[str] = []
    for part, title in _PARTS.items():
        rows = []
        for one in kept:
            if one.part == part:
                value, interval = in_numbers(one)
                rows.append([one.what, one.target, value, interval, f"**{one.word}**", one.note])
        head = ["", "promised", "measured", "95% interval", "verdict", "beside it"]
        lines += [f"## {title}", "", *markdown_table(head, rows), ""]
    return lines[:-1]


def _cases(settings: Settings) -> list[str]:
    rows = []
    for case in settings.cases:
        usual = {"tie": 0.3, "raters": 0.3, "prompts": 1.0}
        odd = [f"{name} {value:g}" for name, value in vars(case.model).items() if value != usual.get(name, 0.0)]
        design = f"{case.raters} raters × {case.items} items, {case.per_item} per item"
        rows.append([case.name, f"{case.effect:+.0%}", design, ", ".join(odd) or "as usual",
                     f"{settings.number(case.simulations)}"])  # fmt: skip
    head = ["case", "true win-rate − ½ at equal length", "design", "raters that differ from the usual", "simulations"]
    return [
        "Usual raters call it a tie within ± 0.3 log odds, and differ with a standard deviation of 0.3 log odds; "
        "prompts differ with one of 1. `position`, `length`, `careless` and `fatigue` are the fields of "
        "`gradlab.study.raters.RaterModel`.", "", *markdown_table(head, rows),
    ]  # fmt: skip


_NOTES = [
    "## What this does not show", "",
    "- Simulated raters err as their model says: people may err otherwise. What holds here is the arithmetic.",
    "- A rate at equal length is one of answers to texts of equal length. Where better texts are also shorter, as in "
    "the samples of the task of tokens, the length's slope holds both, and the rings lie between the two readings.",
    "- Fatigue and carelessness draw a rate towards one half. They can hide a difference; they make none.",
    "- How the samples of the task of tokens were made stands in `scripts/record_study_samples.py` and in "
    "`figures/study/tokens.json`; those of openings are what DPO and Balanced-DPO on the pretrained "
    "model have sampled, in `figures/llm/real`.",
]  # fmt: skip

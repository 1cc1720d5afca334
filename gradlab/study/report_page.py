"""The report of a study: numbers, a page that needs nothing else, tables as CSV, and a paragraph on methods."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
import textwrap
from collections.abc import Iterable
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from gradlab.checks import of_kind
from gradlab.store.csv_text import csv_text
from gradlab.store.listed_folder import write_listed_folder
from gradlab.store.page_policy import own_source
from gradlab.study.answers import Answers, read_answers
from gradlab.study.frozen import Study, read_study
from gradlab.study.methods import BEYOND, cautions, methods, verdict_in_words
from gradlab.study.pictures import figure_of
from gradlab.study.results import Results
from gradlab.study.terms import EqualLength
from gradlab.study.texts import json_page

PAGE = "report.html"
EXPLORATORY = "exploratory: not in the plan"
_SHARES = ("rate", "low", "high", "attention", "self_agreement", "left", "win_rate", "consistent", "consistent_low",
           "consistent_high", "with_people")  # fmt: skip
_ABOUT_RATES = (
    "Win-rates of b over a with their 95% intervals, the primary question first; its p stays as it is, and the others' "
    "are corrected by Holm over them."
)
_ABOUT_CHOICES = (
    f"The first row is the plan's, and in the second nobody is left out. The others are {EXPLORATORY}; they show on "
    "what the verdict hangs."
)
_ABOUT_TERMS = (
    "The primary win-rate as it is and if both systems' responses were equally long (– where the answers do not "
    "tell it), and how often the left side was preferred, over all pairs."
)
_ABOUT_RATERS = (
    "Whom the plan's rules leave out, and why. Per rater: items answered, of these skipped; shares of attention checks "
    "passed, of repeats answered alike, and of decided answers for the left side; median seconds per task."
)
_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d0d4da, #3a4048); --soft: light-dark(#f4f5f7, #20242a);
  --faint: light-dark(#5a626d, #9aa4b1); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  background: light-dark(#fff, #16191d); color: light-dark(#1b1f24, #e4e8ee); }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { font-size: 1.15rem; border-left: 4px solid; padding: .4rem .9rem; background: var(--soft); }
.about { color: var(--faint); font-size: .87rem; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; } th, td { text-align: left; padding: .25rem .7rem;
  border-bottom: 1px solid var(--line); white-space: nowrap; } td.number { text-align: right; }
img { max-width: 100%; background: #fff; border-radius: .4rem; }
"""


@dataclasses.dataclass(frozen=True)
class Report:
    """The report on answers; ``results`` has all numbers."""

    results: Results

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by name: what is written as NAME.csv."""
        results = self.results
        more = {f"strengths-{goal}": frame for goal, (frame, _) in results.strengths.items()}
        judges = {"judges": results.judges} if results.plan.judges else {}
        agreement = pd.DataFrame([dataclasses.asdict(one) for one in results.agreement])
        return {
            "rates": results.rates, "terms": results.terms, "strata": results.strata,
            "sensitivity": results.sensitivity, **more, **judges, "agreement": agreement,
            "raters": results.conduct.frame, "answers": results.answers.frame,
        }  # fmt: skip

    def page(self) -> str:
        """Return the page as HTML: the verdict first, then how sure it is, and the methods; pictures are inside."""
        results, plan = self.results, self.results.plan
        parts = [
            f"<h1>{escape(plan.title)}</h1>", f'<p class="verdict">{escape(verdict_in_words(results))}</p>',
            f'<p class="about">{escape(_about_verdict(results))}</p>',
            *_list("Read this beside it", cautions(results)),
            *_list("About the files", results.answers.notes),
        ]  # fmt: skip
        if results.verdict.rate.answers:
            parts += [_picture(results), *self._sections()]
        parts += ["<h2>Methods</h2>", f"<p>{escape(methods(results))}</p>"]
        return "\n".join([
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            f'style-src {own_source(_STYLE)}">',
            f"<title>{escape(plan.title)}</title><style>{_STYLE}</style></head><body>", *filter(None, parts),
            "</body></html>", "",
        ])  # fmt: skip

    def json(self) -> str:
        """Return the numbers as JSON: verdict, tables but the answers, and the plan's hash."""
        results = self.results
        verdict = {**dataclasses.asdict(results.verdict), "in_words": verdict_in_words(results)}
        tables = {name: frame.to_dict("records") for name, frame in self.tables.items() if name != "answers"}
        share, low, high, number = results.self_agreement
        page = {
            "study": results.answers.study.hash, "title": results.plan.title, "verdict": verdict,
            "cautions": cautions(results), "equal_length": dataclasses.asdict(results.equal_length),
            "left": dataclasses.asdict(results.left), "methods": methods(results), "tables": tables,
            "self_agreement": {"share": share, "low": low, "high": high, "number": number},
        }  # fmt: skip
        return json_page(page) + "\n"

    def write(self, folder: Path | str) -> Path:
        """Write page, tables, methods and numbers into a folder of their own, whole or not at all; return the page.

        FileExistsError where the folder holds anything but a former report as it was written.
        """
        target = Path(folder)

        def fill(part: Path) -> None:
            (part / PAGE).write_text(self.page(), "utf-8")
            (part / "report.json").write_text(self.json(), "utf-8")
            (part / "methods.txt").write_text(methods(self.results) + "\n", "utf-8")
            for name, frame in self.tables.items():
                (part / f"{name}.csv").write_text(csv_text(frame), "utf-8")

        write_listed_folder(target, "report", fill)
        return target / PAGE

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Return what a notebook shows: the verdict above its charts."""
        words = verdict_in_words(self.results)
        shown = {"text/plain": f"Report: {words}"}
        if not self.results.verdict.rate.answers:
            return shown
        return {**shown, "image/png": base64.b64encode(_png(self.results, words)).decode()}

    def _sections(self) -> list[str]:
        results = self.results
        share, low, high, number = results.self_agreement
        length = results.equal_length
        planned = results.plan.analysis
        again = f"{share:.1%} [{low:.1%}, {high:.1%}] of {number} repeats were answered alike." if number else ""
        doubling = "" if math.isnan(length.slope) else (
            f"A response twice as long as an equally good one would be preferred in {0.5 + length.doubling:.1%} "
            f"{_doubling_interval(length)} of the comparisons."
        )  # fmt: skip
        beyond = BEYOND if length.beyond else ""
        unplanned = "" if planned.length and planned.position else f"{EXPLORATORY.capitalize()}."
        about_terms = " ".join(filter(None, [_ABOUT_TERMS, beyond, doubling, unplanned]))
        sections = [
            _section("All questions", self.tables["rates"], _ABOUT_RATES),
            _section("By stratum", self.tables["strata"], "" if planned.strata else EXPLORATORY),
            _section("Under other choices", self.tables["sensitivity"], _ABOUT_CHOICES),
            _section("Length and side", self.tables["terms"], about_terms),
        ]  # fmt: skip
        for goal, (frame, share_of_ties) in results.strengths.items():
            note = f"Log odds; equally strong systems tie in {share_of_ties:.1%} of the comparisons; {EXPLORATORY}."
            sections.append(_section(f"Strengths of all systems, {goal}", frame, note))
        if results.plan.judges:
            sections.append(_section("Judges that are models", results.judges, _about_judges(results)))
        sections += [
            _section("Agreement", self.tables["agreement"], f"Krippendorff's α, bootstrap interval. {again}"),
            _section("Raters", self.tables["raters"], _ABOUT_RATERS),
        ]
        return sections


def report(study: Study | Path | str, answers: Answers | Iterable[Path | str]) -> Report:
    """Return the report on a study's answers.

    study    a frozen study, or the path of its file.
    answers  ``read_answers``' result, or paths of files; ``report(…).results`` has all numbers, ``write`` the page.

    OSError or ValueError in one line for a file that is no study, and for answers that do not belong to it, see
    ``read_answers``.
    """
    study = study if isinstance(study, Study) else read_study(of_kind("study", study, (str, Path), "a study or a path"))
    if not isinstance(answers, Answers):
        answers = read_answers(study, [answers] if isinstance(answers, (str, Path)) else answers)
    if answers.study.hash != study.hash:
        raise ValueError(f"answers must be those of study {study.hash[:12]}…, got those of {answers.study.hash[:12]}…")
    return Report(Results(answers))


def _doubling_interval(length: EqualLength) -> str:
    low, high = (0.5 + dataclasses.replace(length, slope=end).doubling for end in (length.low, length.high))
    return f"[{low:.1%}, {high:.1%}]"


def _about_verdict(results: Results) -> str:
    """Return what the sentence of the verdict says: the question, its number, and the rule of its word."""
    plan, verdict = results.plan, results.verdict
    primary = plan.primary
    question = next(goal.question for goal in plan.goals if goal.name == primary.goal)
    return (
        f"Asked was: {question} The number is the win-rate of {primary.b} over {primary.a}, ties one half, with its "
        f"95% interval; at 50% neither is preferred, and the margin is {primary.margin:.1%} to each side. By the "
        f"plan's rules: {verdict.word}. A win-rate says what these raters prefer, and not what is better."
    )


def _about_judges(results: Results) -> str:
    """Return what a reader must know beside the table of judges."""
    counted = "Counted among the raters." if results.plan.analysis.pool_judges else "Beside people, not among them."
    said = [counted, "An item's answer is the mean over both orders."]
    said += [
        f"{judge} scores each response alone, so that both orders agree by construction."
        for judge in results.judges.loc[results.judges["scored"], "judge"]
    ]
    return " ".join(said)


def _section(title: str, frame: pd.DataFrame, note: str) -> str:
    if frame.empty:
        return ""
    shares = {*_SHARES} - ({"low", "high"} if "rate" not in frame else set())
    head = "".join(f"<th>{escape(str(name).replace('_', ' '))}</th>" for name in frame.columns)
    rows = "".join(
        f"<tr>{''.join(_cell(value, share=name in shares) for name, value in row.items())}</tr>"
        for row in frame.to_dict("records")
    )
    about = f'<p class="about">{escape(note)}</p>' if note else ""
    return f'<h2>{escape(title)}</h2>{about}<div class="wide" tabindex="0"><table><tr>{head}</tr>{rows}</table></div>'


def _cell(value: Any, *, share: bool) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"<td>{escape(str(value))}</td>"
    if math.isnan(value):
        return '<td class="number">–</td>'
    said = f"{value:.1%}" if share else f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
    return f'<td class="number">{said}</td>'


def _list(title: str, lines: Iterable[str]) -> list[str]:
    said = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return [f"<h2>{title}</h2><ul>{said}</ul>"] if said else []


def _picture(results: Results) -> str:
    """Return the charts as one picture inside the page."""
    data = base64.b64encode(_png(results)).decode()
    words = "Win-rates with their 95% intervals; the solid line is one half, the dotted ones are the margin."
    return f'<p class="about">{words}</p><img alt="{words}" src="data:image/png;base64,{data}">'


def _png(results: Results, above: str = "") -> bytes:
    """Return the charts as a picture, with a sentence above them."""
    held, figure = io.BytesIO(), figure_of(results)
    figure.text(0.01, 1.02, textwrap.fill(above, 110), fontsize=11, fontweight="bold", va="bottom", parse_math=False)
    figure.savefig(held, format="png", dpi=130, metadata={"Software": None}, bbox_inches="tight" if above else None)
    return held.getvalue()

"""Claims: the report, part by part, as a table to browse; each row opens a figure, its rows and its data."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from gradlab.checks import one_of
from gradlab.experiments import EXPERIMENTS, MEASURED
from gradlab.experiments.report import answers, saved, verdicts, wording
from gradlab.experiments.report.claims import CLAIMS
from gradlab.experiments.report.saved import Line
from gradlab.experiments.report.sections import EVERY, SECTIONS, section_of
from gradlab.plotting.charts import Picture
from gradlab.stats.words import WORDS
from gradlab.store.artifacts import load_frame
from gradlab.store.shipped import shipped
from gradlab.widgets.controls import Choice, Controls, Whole
from gradlab.widgets.explorer import UNASKED, Explorer, Reading, Story, stamp
from gradlab.widgets.parts import Table

_ALL, _NONE = "all", "none"
_PAPERS = "The paper's claims"
_PARTS = {section.title or _PAPERS: section for section in SECTIONS if section.claims}
_KINDS = [*WORDS, verdicts.NOT_JUDGED]
_USUAL = [one for one in EXPERIMENTS.values() if not one.is_long]  # a plain run of the figures makes their files
_OURS = {name for one in _USUAL for name in one.captions}
_CAPTIONS = {
    **{name: caption for one in (*EXPERIMENTS.values(), *MEASURED.values()) for name, caption in one.captions.items()},
    **dict.fromkeys((f"answer-{name}" for name in EVERY), answers.CAPTION),
}
_WIDTH = 1000  # pixels across of a figure, at most


def _figures(claim: str, folder: Path) -> list[str]:
    """Return the figures of a claim, its answer first; those that no plain run makes only if they exist."""
    names = (f"answer-{claim}", *EVERY[claim].figures)
    there = [name for name in names if name in _OURS or (folder / f"{name}.png").exists()]
    return there or [_NONE]


def _data(claim: str, folder: Path) -> list[str]:
    """Return "no data" and the files that judge a claim; those that no plain run makes only if they exist."""
    usual = [wording.frame_file(one.name) for one in _USUAL]
    files = list(map(wording.frame_file, EVERY[claim].experiments))
    files += [file for name in EVERY[claim].measurements for file in MEASURED[name].files.values()]
    return [_NONE, *(file for file in files if file in usual or (folder / file).exists())]


def _part_of(claim: str) -> str:
    """Return the part of the report to which a claim belongs, as the menu names it."""
    return section_of(claim).title or _PAPERS


def _opening(claim: str, figure: str | None = None) -> dict[str, str]:
    """Return the state of a story: this claim among all, with this figure or its main figure."""
    main = next(filter(_OURS.__contains__, EVERY[claim].figures), _NONE)
    return {"part": _part_of(claim), "word": _ALL, "claim": claim, "figure": figure or main, "data": _NONE}


@dataclass(frozen=True)
class Opened:
    """A result to show: a claim's lines, the names of listed claims, a figure as PNG, a frame; None if not shown."""

    lines: list[Line]
    listed: list[str]
    figure: str
    png: bytes | None
    file: str
    data: pd.DataFrame | None
    rows: int  # rows of the frame that are shown
    guessed: bool  # whether the reader may see the words of all claims


class ClaimsExplorer(Explorer):
    """Every claim of the report with its answer, the reasons, its figures and its data; nothing is judged again."""

    name = "claims"
    question = "Which of the paper's claims hold, where, and is it the balancing?"
    prediction = (
        f"there are {len(CLAIMS)} claims of the paper. Before you look: how many are settled by algebra alone, for any "
        "data, and how many of the others hold?"
    )
    first_move = "Choose a guess, then a row of the table: its claim is shown below."
    ask = f"Of the paper's {len(CLAIMS)} claims, how many does algebra alone settle: proved or refuted?"
    answers: ClassVar = {"few": "at most a third", "half": "about half", "most": "more than two thirds"}
    reading = (
        "Choose a part of the report, and a claim in the table or in the menu; the words are in the table once you "
        "have made a guess. A sentence says what is true on average; “for : none : against” counts the cells, worlds "
        "or cases where the statement is true beyond the margin, where it makes no difference, and where the opposite"
        " is true. The claim's word is that on its primaries as stated; “elsewhere” is the word on worlds that are "
        "drawn at random; “is it the balancing” compares with controls that balance nothing. We worked from a summary"
        " of the paper: “stated” is what it says, the rest is ours. The report is shown as it was saved; “gradlab "
        "claims” judges again."
    )
    takeaway = (
        "A claim has an answer in parts. What algebra proves is true for any data, and often of other losses too; what "
        "it refutes needs no statistics. For the rest ask three things: is it true as stated, is it true elsewhere, "
        "and does something that balances nothing do as well? The table answers them side by side."
    )
    stories = (
        Story(
            "Ahead, and why?",
            "the first table row of grid-reward compares bDPO with DPO as stated, the next in drawn worlds. Below them "
            "are the controls that could explain the difference away, such as a constant λ = ½, which is DPO at β/2.",
            _opening("grid-reward"),
        ),
        Story(
            "True by algebra",
            "the ratio holds in every case up to rounding, and a proof says why. The rows below it say which other "
            "losses share it.",
            _opening("ratio"),
        ),
        Story(
            "What a coarse grid hides",
            "Theorem 3 on balanced weights, for our reconstruction w·p. A coarse grid of responses can hide a miss "
            "between two of them; the figure refines the grid.",
            _opening("shift-balanced", "shift-refinement"),
        ),
        Story(
            "Against its own variants",
            "full bDPO against naive bDPO, and against its symmetric variant: two primaries, which share a correction.",
            _opening("ablation"),
        ),
        Story(
            "Not run",
            "the headline numbers on language models. No word, no figure and no data, and the report says what it "
            "would take.",
            _opening("llm"),
        ),
    )

    def __init__(self, folder: Path | str | None = None, **start: Any) -> None:
        """Show the report in ``folder``; by default the one below the current folder, or the package's own.

        The status line says so where the folder's report is incomplete. FileNotFoundError where the package has none.
        """
        self.folder = _found() if folder is None else Path(folder)
        self._trouble, self._report, self._claims = "", pd.DataFrame(), dict[str, list[Line]]()
        try:
            self._report, self._claims = _read(self.folder)
        except (OSError, ValueError) as error:
            self._trouble = f"{self.folder}: {error}"
        except (AttributeError, KeyError, TypeError) as error:  # rows or columns that are not those of a report
            self._trouble = f"{self.folder / saved.REPORT} is damaged ({error}); `gradlab figures` writes it again"
        self._table, self._about, self._rows, self._data = Table(selectable=True), Table(), Table(), Table()
        self._listed: list[str] = []
        self._filter = (_PAPERS, _ALL)
        super().__init__(**start)
        self.children = [self._table, self.front, self._about, self._rows, self._data]
        self._table.observe(lambda change: self._guarded(self._picked), "chosen")

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls: which claims to list, the open claim, and its figure and data."""
        there = {lines[0].word for lines in self._claims.values()}
        first, known = next(iter(CLAIMS)), [name for name in EVERY if name in self._claims or name in CLAIMS]
        figures = _figures(first, self.folder)
        parts = [part for part, section in _PARTS.items() if set(known) & set(section.claims)]
        return {
            "Claims": {
                "part": Choice("part of the report", _PAPERS, parts, "lists only these"),
                "word": Choice("word", _ALL, [_ALL, *filter(there.__contains__, _KINDS)], "lists only these"),
                "claim": Choice("claim", first, known, "the one that is opened"),
            },
            "Of this claim": {
                "figure": Choice("figure", figures[0], figures, "the main one first", changing=True),
                "data": Choice("data", _NONE, _data(first, self.folder), "the frames that judge it", changing=True),
                "rows": Whole("first rows", 5, 1, 50, "how many rows of the data are shown"),
            },
        }

    def adapt(self, state: SimpleNamespace) -> None:
        """Keep claim and filters consistent: the control that was moved stays. Figures and data are the claim's."""
        moved = (state.part, state.word) != self._filter
        matching = self._matching(state.part, state.word)
        if moved and not matching and state.word != self._filter[1]:
            part = next(part for part in _PARTS if self._matching(part, state.word))
            self.controls["part"].value = part
            matching = self._matching(part, state.word)
        elif moved and not matching:
            self.controls["word"].value = _ALL
            matching = self._matching(state.part, _ALL)
        if moved and matching and state.claim not in matching:
            self.controls["claim"].value = matching[0]
        elif state.claim not in matching:
            self.controls["part"].value, self.controls["word"].value = _part_of(state.claim), _ALL
        self._filter = (self.controls["part"].value, self.controls["word"].value)
        self._offer(self.controls["claim"].value)
        self.controls["rows"].hidden = self.controls["data"].value == _NONE

    def compute(self, state: SimpleNamespace) -> Opened:
        """Read the claim, the figure and the data that the controls name."""
        if self._trouble:
            raise ValueError(self._trouble)
        png = data = None
        if state.figure != _NONE:
            file = self.folder / f"{state.figure}.png"
            png = self.remember("png", stamp(file), lambda: _png(file))
        if state.data != _NONE:
            frame = self.folder / state.data
            data = self.remember("data", stamp(frame), lambda: _frame(frame))
        listed = self._matching(state.part, state.word)
        return Opened(self._claims[state.claim], listed, state.figure, png, state.data, data, state.rows,
                      state.guess != UNASKED)  # fmt: skip

    def charts(self, result: Opened, pinned: Opened | None) -> list[Picture]:
        """Return the figure as it was saved, where the claim has one."""
        if not result.png:
            return []
        width = min(_WIDTH, Image.open(io.BytesIO(result.png)).width)
        return [Picture(result.figure, f"{result.figure}: {_CAPTIONS.get(result.figure, '')}", result.png, width)]

    def readings(self, result: Opened) -> list[Reading]:
        """Return the claim's answer in its parts, and how many rows the data have."""
        head = result.lines[0]
        parts = {"claim": head.claim, "word": head.word, "average": wording.effect(head),
                 wording.TALLY: wording.counts(head),
                 section_of(head.claim).controls: wording.because(head)}  # fmt: skip
        rows = [] if result.data is None else [Reading("rows of data", len(result.data))]
        return [*(Reading(name, text) for name, text in parts.items()), *rows]

    def outcome(self, result: Opened) -> tuple[str, str]:
        """Return whether algebra settles few, about half or most of the paper's claims."""
        settled = sum(self._claims[name][0].word in ("proved", "refuted") for name in CLAIMS)
        share = settled / len(CLAIMS)
        word = "few" if share <= 1 / 3 else "half" if share <= 2 / 3 else "most"
        return word, f"{settled} of the paper's {len(CLAIMS)} claims are proved or refuted."

    def figure(self) -> Figure:
        """Return the figure, or a line that says that the claim has none."""
        if self._shown().png:
            return super().figure()
        figure = Figure(figsize=(10, 0.6))
        figure.text(0.02, 0.5, f"{self.state['claim']}: this claim has no figure", va="center", parse_math=False)
        return figure

    def png(self) -> bytes:
        """Return the figure as it was saved, or a line that says that the claim has none."""
        return self._shown().png or super().png()

    def _present(self, result: Opened) -> None:
        super()._present(result)
        head, *rows = result.lines
        self._listed = result.listed
        listed = [wording.summary(self._claims[name]) for name in result.listed]
        closed = "" if result.guessed else "; words, once you have made a guess below"
        part = _PARTS[_part_of(head.claim)]
        every = sum(name in self._claims for name in part.claims)
        self._table.put(
            f"{_part_of(head.claim)}, {len(listed)} of {every}: choose one{closed}",
            [*wording.HEAD[:-1], part.controls],
            listed if result.guessed else [[*row[:2], *["…"] * len(row[2:])] for row in listed],
            result.listed.index(head.claim),
        )  # fmt: skip
        self._about.put(head.claim, ["", "what the report says"], self._told(result.lines, result.figure).items())
        self._rows.put(
            f"Every row of {head.claim}: what it stands on, what could explain it away, robustness, context",
            ["role", *wording.ROW],
            ([wording.ROLE[row.row], *wording.row(row)] for row in rows),
        )
        if result.data is None:
            self._data.put("", [], [])
            return
        top = result.data.head(result.rows)
        self._data.put(
            f"{self.folder.name}/{result.file}: {len(top)} of {len(result.data):,} rows",
            ["", *map(str, top.columns)],
            ([str(index), *map(_cell, row)] for index, *row in top.itertuples(name=None)),
        )

    def frame(self) -> pd.DataFrame:
        """Return the data, where they are shown; else every row of the report on the listed claims."""
        shown = self._shown()
        if shown.data is not None:
            return shown.data
        return self._report[self._report["claim"].isin(shown.listed)].reset_index(drop=True)

    def code(self, state: SimpleNamespace) -> str:
        """Return code that reads the report, and the data where they are shown."""
        lines = ["from pathlib import Path", "", "from gradlab.store.artifacts import load_frame",
                 "from gradlab.experiments.report import saved", "", f"folder = Path({str(self.folder)!r})",
                 "report = saved.former(folder)", f"claim = report[report['claim'] == {state.claim!r}]",
                 "print(claim[['row', 'word', 'effect', 'low', 'high', 'unit']].to_string(index=False))"]  # fmt: skip
        if state.data != _NONE:
            lines += [f"data, manifest = load_frame(folder / {state.data!r})", f"print(data.head({state.rows}))"]
        return "\n".join([*lines, ""])

    def _set(self, values: Mapping[str, Any]) -> None:
        """Set controls; the claim's menus go first, so that a claim and its figure can be set together."""
        before = self.state
        self._offer(values.get("claim", before["claim"]))
        try:
            super()._set(values)
        except ValueError:
            self._offer(before["claim"])
            super()._set(before)
            raise

    def _offer(self, claim: str) -> None:
        """Put this claim's figures and data into the menus."""
        if not isinstance(claim, str) or claim not in EVERY:
            return
        quiet, self._quiet = self._quiet, True
        try:
            for key, options in (("figure", _figures(claim, self.folder)), ("data", _data(claim, self.folder))):
                control = self.controls[key]
                value = control.value
                if [one for _, one in control.options] != options:
                    control.options = [(one, one) for one in options]
                    control.value = value if value in options else options[0]
        finally:
            self._quiet = quiet

    def _picked(self) -> None:
        """Open the claim whose row was chosen in the page."""
        if 0 <= self._table.chosen < len(self._listed):
            self.controls["claim"].value = self._listed[self._table.chosen]

    def _matching(self, part: str, kind: str) -> list[str]:
        """Return the claims in a part of the report with this word."""
        return [name for name in _PARTS[part].claims
                if name in self._claims and kind in (_ALL, self._claims[name][0].word)]  # fmt: skip

    def _told(self, lines: list[Line], figure: str) -> dict[str, str]:
        """Return what the report says of a claim, by heading; without what there is nothing to say of."""
        head = lines[0]
        claim, section = EVERY[head.claim], section_of(head.claim)
        sections = {
            "claimed": claim.claimed, "answer": f"{head.sentence}: {head.word}",
            "needs": head.note if head.word == verdicts.NOT_RUN else "",
            "average": wording.effect(head), "rests on": wording.basis(head), wording.TALLY: wording.counts(head),
            "elsewhere": wording.elsewhere(lines), section.controls: wording.because(head),
            "whose claim": claim.source, "expected": claim.predicted, "stated": claim.stated,
            "ours": claim.ours, "rule": claim.rule, "what would change it": claim.changes,
            "code": ", ".join(wording.code_files(claim)), "data": ", ".join(wording.data_files(claim, self.folder)),
            "command": "; ".join(wording.commands(claim)) or "none yet",
            "figure": f"{figure}. {_CAPTIONS.get(figure, '')}" if figure != _NONE else "",
        }  # fmt: skip
        return {heading: text for heading, text in sections.items() if text not in ("", "—")}


def _found() -> Path:
    """Return the folder of figures: below the current folder if a report is there, else the package's."""
    here = Path("figures")
    return here if (here / saved.REPORT).exists() else shipped("figures")


def _read(folder: Path) -> tuple[pd.DataFrame, dict[str, list[Line]]]:
    """Return the saved report, and the lines of each claim, its head first; ValueError for a gap.

    A report may lack claims that are not the paper's: it may be older than they are.
    """
    report = saved.former(folder)
    if report is None:
        raise ValueError(f"folder must hold {saved.REPORT}, which `make figures` writes; there is none in {folder}")
    for word in report["word"]:
        one_of(f"a word in {folder / saved.REPORT}", str(word), _KINDS)
    claims = dict[str, list[Line]]()
    for line in saved.lines_of(report):
        claims.setdefault(line.claim, []).append(line)
    for name in CLAIMS:
        if name not in claims or claims[name][0].row != "claim":
            raise ValueError(f"{folder / saved.REPORT} must have a line of {name}; `gradlab figures` writes it again")
    return report[report["claim"].isin(EVERY)].reset_index(drop=True), {
        name: claims[name] for name in EVERY if name in claims
    }


def _png(path: Path) -> bytes:
    try:
        png = path.read_bytes()
        Image.open(io.BytesIO(png)).verify()
    except (OSError, SyntaxError) as error:  # the latter for a broken PNG
        raise ValueError(f"{path} is missing or damaged; `gradlab figures` draws it again") from error
    return png


def _frame(path: Path) -> pd.DataFrame:
    try:
        return load_frame(path)[0]
    except FileNotFoundError as error:
        raise ValueError(f"{path} or its manifest is missing; `gradlab figures` makes it again") from error


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)

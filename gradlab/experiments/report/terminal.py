"""Settled claims as text for the terminal, at most ``WIDTH`` columns wide: a table, and an explanation of one claim."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gradlab.experiments.contrasts import Judged
from gradlab.experiments.report import wording
from gradlab.experiments.report.verdicts import Settled, lacking

WIDTH = 120
_COLUMNS = {"claim": 18, "verdict": 22, "effect, 95% interval": 24, "evidence": 20, "the control beside it": 28}


def table(settled: Iterable[Settled]) -> str:
    """Return all claims as text, one block of lines per claim; no verdict is shortened."""
    lines = [*_cells(list(_COLUMNS)), "─" * WIDTH]
    for one in settled:
        beside = one.beside
        control = f"{beside.verdict}: {beside.statement}" if beside else one.why or "—"
        row = one.decisive
        lines += _cells([one.name, one.verdict, wording.effect_and_interval(row), wording.evidence(row), control])
    return "\n".join(lines)


def explained(one: Settled, folder: Path, *, quick: bool = False) -> str:
    """Return one claim as text: statement, verdict, rule, every row, and where to find figure, data and code."""
    lines = [f"{one.name}: {one.claim.claimed}", ""]
    for name, text in {**wording.judgement(one), **wording.terms(one)}.items():
        lines += _paragraph(name, text)
    stated = [other for other in one.rows if not other.control]
    for title, rows in (("rows as stated", stated), (wording.of_controls(one), one.controls)):
        if rows:
            lines += ["", f"{title} ({wording.TALLY}):", *(line for other in rows for line in _row(other))]
    figures = [str(folder / f"{name}.png") for name in one.claim.figures]
    drawn = [path for path in figures if Path(path).exists()]
    frames = [str(folder / name) for name in wording.data_files(one)]
    lines.append("")
    for name, paths in (("figures", drawn), ("data", frames), ("code", wording.code_files(one))):
        lines += _paragraph(name, ", ".join(paths) or "none")
    return "\n".join([*lines, *_paragraph("command", "; ".join(wording.commands(one, quick=quick)) or "none yet")])


def notes(settled: Iterable[Settled], report: object | None, *, quick: bool) -> Iterator[str]:
    """Yield notes for a reader on the frames, and on the report that the verdicts are compared with."""
    if quick:
        yield "QUICK frames, these are not results"
    frames = {name: state for one in settled for name, state in one.frames.items()}
    if behind := lacking(frames):
        yield f"{behind}; `gradlab figures` brings them up to date"
    if report is None:
        yield "there is no report to compare with; `gradlab figures` writes one"


def _row(row: Judged) -> list[str]:
    head = f"  {row.verdict}; {wording.effect_and_interval(row)}; {wording.evidence(row)}; {wording.tally(row)}"
    return [*textwrap.wrap(row.statement, WIDTH - 2, initial_indent="- ", subsequent_indent="  "), head]


def _paragraph(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"{name:<12}", subsequent_indent=" " * 12, break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip


def _cells(texts: Sequence[str]) -> list[str]:
    """Return one row of the table as lines: each text is wrapped within its column."""
    wrapped = [
        textwrap.wrap(text, width, break_on_hyphens=False) or [""]
        for text, width in zip(texts, _COLUMNS.values(), strict=True)
    ]
    deepest = max(map(len, wrapped))
    filled = [
        [f"{line:<{width}}" for line in [*lines, *[""] * (deepest - len(lines))]]
        for lines, width in zip(wrapped, _COLUMNS.values(), strict=True)
    ]
    return ["  ".join(line).rstrip() for line in zip(*filled, strict=True)]

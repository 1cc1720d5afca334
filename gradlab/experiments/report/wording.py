"""Rows of verdicts in words, alike on the pages and in the terminal; and the terminal's table of claims."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gradlab.experiments import EXPERIMENTS, MEASURED
from gradlab.experiments.contrasts import SHARE_OF_CASES
from gradlab.experiments.report.verdicts import Settled, holds, lacking

WIDTH = 120  # of the terminal's table, in columns
TALLY = "holds / fails / no difference / inconclusive"
_COLUMNS = {"claim": 18, "verdict": 22, "effect, 95% interval": 24, "evidence": 20, "the control beside it": 28}


def effect(row: Any) -> str:
    """The effect: a signed difference, or the share of cases that a scan found to hold."""
    return f"{_share(row.effect)} of cases" if _is_scan(row) else f"{round(row.effect, 3) + 0.0:+.3f}"


def interval(row: Any) -> str:
    """The 95% interval; "exact" for a scan of declared cases, in which nothing is sampled."""
    if math.isnan(row.low):
        return "exact" if _is_scan(row) else "one seed"
    low, high = ((_share(end) if _is_scan(row) else f"{round(end, 3) + 0.0:+.3f}") for end in (row.low, row.high))
    return f"[{low}, {high}]"


def effect_and_interval(row: Any) -> str:
    """Both, where there is a row."""
    if row is None:
        return "—"
    return f"{effect(row)} {interval(row)}" if not math.isnan(row.low) else f"{effect(row)}, {interval(row)}"


def evidence(row: Any) -> str:
    """How much the row rests on: seeds and cells, or cases."""
    if row is None:
        return "—"
    cells = _many(row.cells, "case" if _is_scan(row) else "cell")
    return cells if _is_scan(row) and math.isnan(row.low) else f"{_many(row.seeds, 'seed')}, {cells}"


def tally(row: Any) -> str:
    """How many cells say what, in the order of ``TALLY``."""
    return f"{row.holds} / {row.fails} / {row.no_difference} / {row.inconclusive}"


def in_words(row: Any) -> str:
    """The same in words, without what no cell says."""
    said = {"hold": row.holds, "fail": row.fails, "show no difference": row.no_difference,
            "cannot tell": row.inconclusive}  # fmt: skip
    return ", ".join(f"{number:,} {words}" for words, number in said.items() if number)


def of_controls(one: Settled) -> str:
    """How many of a claim's controls hold."""
    return f"{sum(map(holds, one.controls))} of {_many(len(one.controls), 'control')} hold"


def commands(one: Settled, *, quick: bool = False) -> list[str]:
    """What makes the frames of a claim anew, and with them the report; those of missing measurements too."""
    ours = f"gradlab figures {' '.join(one.frames)}{' --quick' if quick else ''} --fresh"
    measured = dict.fromkeys(MEASURED[name].command for name in one.claim.measurements)
    return [*([ours] if one.frames else []), *measured]


def data_files(one: Settled) -> list[str]:
    """The frames that judge a claim, as paths in the folder of the figures; those that are not missing."""
    ours = [f"data/{name}.parquet" for name, state in one.frames.items() if state != "missing"]
    return [*ours, *(file for name in one.measured for file in MEASURED[name].files.values())]


def code_files(one: Settled) -> list[str]:
    """The files whose ``verdict`` holds a claim's contrasts, as paths in the repository."""
    modules = [EXPERIMENTS[name].module for name in one.frames]
    modules += [MEASURED[name].module for name in one.claim.measurements]
    return list(map(file_of, dict.fromkeys(modules)))


def file_of(module: str) -> str:
    """Return the file of a module of gradlab, as a path in the repository."""
    return f"{module.replace('.', '/')}.py"


def table(settled: Iterable[Settled]) -> str:
    """All claims as text, a block of lines each, at most ``WIDTH`` wide; every word of a verdict is there."""
    lines = [*_cells(list(_COLUMNS)), "─" * WIDTH]
    for one in settled:
        beside = one.beside
        control = f"{beside.verdict}: {beside.statement}" if beside else one.why or "—"
        lines += _cells([one.name, one.verdict, effect_and_interval(one.decisive), evidence(one.decisive), control])
    return "\n".join(lines)


def explained(one: Settled, folder: Path, *, quick: bool = False) -> str:
    """One claim as text: statement, rule, verdict, every row, and where to find figure, data and code."""
    row = one.decisive
    lines = [f"{one.name}: {one.claim.claimed}", ""]
    lines += _paragraph("verdict", f"{one.verdict}{f': {one.why}' if one.why else ''}")
    if row:
        lines += _paragraph("effect", f"{effect_and_interval(row)}; {evidence(row)}: {in_words(row)}")
        lines += _paragraph("decided by", row.statement)
    for name in ("stated", "ours", "rule", "changes"):
        lines += _paragraph(name, getattr(one.claim, name))
    stated = [other for other in one.rows if not other.control]
    for title, rows in (("rows as stated", stated), (of_controls(one), one.controls)):
        if rows:
            lines += ["", f"{title} ({TALLY}):", *(line for other in rows for line in _row(other))]
    figures = [str(folder / f"{name}.png") for name in one.claim.figures]
    found = [path for path in figures if Path(path).exists()]
    frames = [str(folder / name) for name in data_files(one)]
    lines.append("")
    for name, paths in (("figures", found), ("data", frames), ("code", code_files(one))):
        lines += _paragraph(name, ", ".join(paths) or "none")
    return "\n".join([*lines, *_paragraph("command", "; ".join(commands(one, quick=quick)) or "none yet")])


def notes(settled: Iterable[Settled], report: object | None, *, quick: bool) -> Iterator[str]:
    """What a reader of these verdicts must know of their frames, and of the report that they are compared with."""
    if quick:
        yield "QUICK frames, these are not results"
    frames = {name: state for one in settled for name, state in one.frames.items()}
    if behind := lacking(frames):
        yield f"{behind}; `gradlab figures` brings them up to date"
    if report is None:
        yield "there is no report to compare with; `gradlab figures` writes one"


def _row(row: Any) -> list[str]:
    head = f"  {row.verdict}; {effect_and_interval(row)}; {evidence(row)}; {tally(row)}"
    return [*textwrap.wrap(row.statement, WIDTH - 2, initial_indent="- ", subsequent_indent="  "), head]


def _paragraph(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"{name:<12}", subsequent_indent=" " * 12, break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip


def _cells(texts: Sequence[str]) -> list[str]:
    """One row of the table as lines: each text is wrapped within its column."""
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


def _share(value: float) -> str:
    """A share in percent that is rounded to all or none only where it is all or none."""
    if 0 < value < 0.0005 or 0.9995 <= value < 1:
        return "under 0.1%" if value < 0.5 else "over 99.9%"
    return f"{value:.0%}" if value in (0, 1) else f"{value:.1%}"


def _is_scan(row: Any) -> bool:
    return row.value == SHARE_OF_CASES


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

"""Settled claims as text for the terminal, at most ``WIDTH`` columns wide: a table, and an explanation of one claim."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gradlab.experiments import long_experiments
from gradlab.experiments.contrasts import ROLES, Judged
from gradlab.experiments.report import wording
from gradlab.experiments.report.saved import line, lines
from gradlab.experiments.report.sections import by_section, section_of
from gradlab.experiments.report.verdicts import NOT_RUN, Settled, lacking, primaries

WIDTH = 120
_TALLY = "for:none:against"
_COLUMNS = {"claim": 18, "word": 16, "in one sentence": 44, _TALLY: 18, "is it the balancing": 16}


def table(settled: Iterable[Settled]) -> str:
    """Return all claims as text, one block of lines per claim, with nothing shortened, part by part of the report."""
    told = {one.name: one for one in settled}
    said = _cells(list(_COLUMNS))
    for section, names in by_section(told):
        said.append("─" * WIDTH)
        said += [f"{section.title}; last column: {section.controls}?"] if section.title else []
        for claim in names:
            name, sentence, word, counts, _, because = wording.summary(lines(told[claim]))
            said += _cells([name, word, sentence, counts, because])
    return "\n".join(said)


def explained(one: Settled, folder: Path, *, quick: bool = False) -> str:
    """Return one claim as text: its answer in parts, its terms, every row, and where to find figure, data and code."""
    claim, told = one.claim, lines(one)
    head = told[0]
    said = [f"{one.name}: {claim.claimed}", ""]
    paragraphs = {
        "word": one.word, "answer": head.sentence,
        "needs": one.why if one.word == NOT_RUN else "", "average": wording.effect(head) if one.rows else "",
        "rests on": wording.basis(head), _TALLY: wording.counts(head) if one.rows else "",
        "elsewhere": wording.elsewhere(told) if one.transported else "",
        "controls" if section_of(one.name).title else "balancing": wording.because(head) if one.because else "",
        "whose claim": claim.source,
        "stated": claim.stated, "ours": claim.ours, "rule": claim.rule, "expected": claim.predicted,
        "would change": claim.changes,
    }  # fmt: skip
    for name, text in paragraphs.items():
        said += _paragraph(name, text) if text else []
    for row in primaries(one.rows, "worlds"):
        said += ["", f"{wording.ROLE['primary']}, in drawn worlds:"]
        said += [found for text in wording.new_worlds(row) for found in _item(text)]
        said += ["", "on what it depends:", *_moderators(row)]
    for role in ROLES:
        rows = one.of(role)
        if rows:
            said += ["", f"{wording.ROLE[role]} ({wording.TALLY}):", *(found for row in rows for found in _row(row))]
    figures = [str(folder / f"{name}.png") for name in claim.figures]
    drawn = [path for path in figures if Path(path).exists()]
    frames = [str(folder / name) for name in wording.data_files(claim, folder)]
    said.append("")
    for name, paths in (("figures", drawn), ("data", frames), ("code", wording.code_files(claim))):
        said += _paragraph(name, ", ".join(paths) or "none")
    return "\n".join([*said, *_paragraph("command", "; ".join(wording.commands(claim, quick=quick)) or "none yet")])


def notes(settled: Iterable[Settled], report: object | None, *, quick: bool) -> Iterator[str]:
    """Yield notes for a reader on the frames, and on the report that the words are compared with."""
    if quick:
        yield "QUICK frames, these are not results"
    frames = {name: state for one in settled for name, state in one.frames.items()}
    long = set(long_experiments())
    for which, command in ((set(frames) - long, ""), (long, " questions")):
        if behind := lacking({name: state for name, state in frames.items() if name in which}):
            yield f"{behind}; `gradlab figures{command}` brings them up to date"
    if report is None:
        yield "there is no report to compare with; `gradlab figures` writes one"


def _row(row: Judged) -> list[str]:
    compared, sentence, word, effect, counts = wording.row(line(row))
    said = [*_item(f"{compared}: {sentence}"), *_indented(f"{word}; {effect}; {counts}")]
    return [*said, *(found for text in (wording.needs(row), wording.wide_cells(row)) if text
                     for found in _indented(text))]  # fmt: skip


def _moderators(row: Judged) -> list[str]:
    said = []
    for title, value, effect, worlds in wording.moderators(row):
        said += _item(title) if title else []
        said += _indented(f"{value}: {effect}, {worlds} worlds")
    return said or ["  no factor was declared"]


def _item(text: str) -> list[str]:
    return _wrapped(_plain(text), "- ", "  ")


def _indented(text: str) -> list[str]:
    return _wrapped(_plain(text), "  ", "  ")


def _paragraph(name: str, text: str) -> list[str]:
    return _wrapped(_plain(text), f"{name:<17}", " " * 17)


def _plain(text: str) -> str:
    """Return a text without Markdown's bold."""
    return text.replace("**", "")


def _wrapped(text: str, first: str, then: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=then, break_on_hyphens=False, break_long_words=False
    )


def _cells(texts: Sequence[str]) -> list[str]:
    """Return one row of the table as lines: each text is wrapped within its column."""
    wrapped = [
        textwrap.wrap(text, width, break_on_hyphens=False) or [""]
        for text, width in zip(texts, _COLUMNS.values(), strict=True)
    ]
    deepest = max(map(len, wrapped))
    filled = [
        [f"{found:<{width}}" for found in [*column, *[""] * (deepest - len(column))]]
        for column, width in zip(wrapped, _COLUMNS.values(), strict=True)
    ]
    return ["  ".join(found).rstrip() for found in zip(*filled, strict=True)]

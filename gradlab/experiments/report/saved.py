"""The report as data: a line per claim and per statement, and the CSV that keeps them.

The pages, the terminal and the explorer read these lines.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

from gradlab.checks import input_file, shown
from gradlab.experiments.contrasts import Contrast, Judged, Unit
from gradlab.experiments.report.verdicts import NOT_RUN, Settled, named
from gradlab.stats.population import STATES
from gradlab.store.csv_text import csv_text
from gradlab.store.provenance import text_at, text_at_head

REPORT = "claims.csv"  # the report as data, in the folder of the figures
_WHOLE = ["digits", "replicates", "seeds", "units", *STATES, "wide", "needs"]
_KEY = ["claim", "row", "population", "statement", "experiment"]


class NoReport(ValueError):
    """A text that is no report of this version."""


@dataclass(frozen=True)
class Line:
    """A line of the report: the answer on a claim (``row`` is "claim") or on one of its statements (``row`` is a role).

    claim       the claim's id.
    population  ``stated`` (cells), ``worlds`` or ``cases``.
    statement   of a claim, the claim in one sentence; else what was asked.
    row         "claim", or the statement's role.
    word, transported, because  of a claim: as stated, in worlds, and whether it is the balancing; empty where it was
                not asked. A statement has only its word.
    control     of a claim: the short name of the control that explains it away, or comes nearest to that.
    label       the short name of what is compared.
    sentence    the answer as one plain sentence with its unit.
    unit, digits  what the numbers count, and to how many decimals they are shown.
    effect, low, high  the average with its 95% interval, in that unit; NaN of cases, which have no average.
    margin      in that unit; of cases the tolerance.
    replicates  over how many seeds or worlds the interval is; of cases, how many seeds drew them.
    seeds       the fewest of a cell or world.
    units       how many cells, worlds or cases there are.
    states      how many of them are in each of ``gradlab.stats.population.STATES``; in the file these are the columns
                ``for``, ``none``, ``against`` and ``undecided``.
    between     the standard deviation between worlds' true effects; NaN of anything but worlds.
    expected_low, expected_high  the prediction interval of a new world; NaN of anything but worlds.
    wide        how many cells have an interval whose half is wider than the target; of primaries they are at the cap
                of seeds, if their experiment adds any. A row that is no primary has the target of a single one.
    needs       how many seeds or worlds would decide; 0 where the word is decided, or nobody can say.
    experiment  the experiment or measurement whose frame was judged.
    note        more in words.

    The line of a claim has the numbers of the primary that stands for it.
    """

    claim: str
    row: str
    population: str
    label: str
    statement: str
    word: str
    transported: str
    because: str
    control: str
    sentence: str
    unit: str
    digits: int
    effect: float
    low: float
    high: float
    margin: float
    replicates: int
    seeds: int
    units: int
    states: Mapping[str, int]
    between: float
    expected_low: float
    expected_high: float
    wide: int
    needs: int
    experiment: str
    note: str


_COLUMNS = [name for one in fields(Line) for name in (STATES if one.name == "states" else (one.name,))]
_TEXTS = [one.name for one in fields(Line) if one.type == "str"]


def lines(one: Settled) -> list[Line]:
    """Return a claim's part of the report: the line of the claim, then a line per statement."""
    rows = [line(row) for row in one.rows]
    head = line(one.decisive) if one.decisive else _EMPTY
    control = one.explains
    return [replace(
        head, claim=one.name, row="claim", statement=one.claim.claimed, word=one.word, transported=one.transported,
        because=one.because, control=named(control) if control else "", sentence=as_sentence(one.sentence),
        note=one.why if one.word == NOT_RUN else head.note,
    ), *rows]  # fmt: skip


def records(settled: Iterable[Settled]) -> pd.DataFrame:
    """Return the report as a frame: the columns are the fields of ``Line``, of ``states`` one per state."""
    table = [asdict(found) for one in settled for found in lines(one)]
    frame = pd.DataFrame([{**found, **found.pop("states")} for found in table])
    return frame.reindex(columns=_COLUMNS).astype(dict.fromkeys(_WHOLE, "Int64"))


def lines_of(report: pd.DataFrame) -> list[Line]:
    """Return the lines of a report, as ``records`` or ``from_csv`` gave it."""
    return [
        Line(**{str(name): value for name, value in row.items() if name not in STATES},
             states={state: row[state] for state in STATES})
        for row in report.to_dict("records")
    ]  # fmt: skip


def as_csv(settled: Collection[Settled]) -> str:
    """Return the report as CSV; equal answers give equal bytes."""
    return csv_text(records(settled), float_format="%.6g")


def from_csv(text: str) -> pd.DataFrame:
    """Return the report of ``records`` from its CSV, in the digits of the CSV. NoReport for any other text."""
    try:
        whole = {**dict.fromkeys(_WHOLE, "Int64"), **dict.fromkeys(_TEXTS, "str")}
        report = pd.read_csv(io.StringIO(text), dtype=whole, usecols=_COLUMNS, keep_default_na=False,
                             na_values=dict.fromkeys(set(_COLUMNS) - set(_TEXTS), ""))  # fmt: skip
        if report.duplicated(_KEY).any():
            raise ValueError("each row must be there once")
        return report[_COLUMNS]
    except (TypeError, ValueError):
        raise NoReport(
            "claims.csv must be a report of `gradlab figures` of this version, and is not; restore it"
        ) from None


def former(folder: Path, *, committed: bool = False, revision: str | None = None) -> pd.DataFrame | None:
    """Return the report in the folder; with ``committed``, that of the last git commit if it has one.

    revision  a revision of git whose report is meant; ValueError where it does not exist, or has no report.
    None where there is no report. ValueError where the file is no report.
    """
    path = folder / REPORT
    if revision is not None:
        try:
            return from_csv(text_at(path, revision))
        except NoReport:
            raise ValueError(
                f"revision must be one whose {REPORT} is a report by the rules of this version, got {shown(revision)}, "
                "which has another"
            ) from None
    text = text_at_head(path) if committed else None
    if text is None and path.exists():
        text = input_file("report", path).read_text(encoding="utf-8", errors="replace")
    return None if text is None else from_csv(text)


def changes(report: pd.DataFrame, settled: Mapping[str, Settled]) -> list[str]:
    """Return the claims with another word than in the report, in words: "ratio: proved → refuted"."""
    heads = report[report["row"] == "claim"].set_index("claim")
    said = []
    for name, one in settled.items():
        if name not in heads.index:
            said.append(f"{name}: not in the report → {one.word}")
            continue
        for column, what in (("word", ""), ("transported", ", elsewhere"), ("because", ", because of balancing")):
            old, new = heads.at[name, column], getattr(one, column)
            if old != new:
                said.append(f"{name}{what}: {old or 'none'} → {new or 'none'}")
    return said


def moved(report: pd.DataFrame, settled: Iterable[Settled]) -> list[str]:
    """Return the statements whose effect lies beyond both intervals, the former and the present, in words."""
    former = {tuple(getattr(old, name) for name in _KEY): old for old in lines_of(report) if old.row != "claim"}
    said = []
    for now in (found for one in settled for found in lines(one)[1:]):
        old = former.get(tuple(getattr(now, name) for name in _KEY))
        if old and old.unit == now.unit and (now.low > old.high or now.high < old.low):
            ends = (f"{end.effect:+.{end.digits}f} [{end.low:+.{end.digits}f}, {end.high:+.{end.digits}f}]"
                    for end in (old, now))  # fmt: skip
            said.append(f"{now.claim}: {now.statement}: {' → '.join(ends)} {now.unit}".rstrip())
    return said


def as_sentence(text: str) -> str:
    """Return a text with a capital letter, unless it begins with a symbol, or a name such as bDPO."""
    return f"{text[0].upper()}{text[1:]}" if re.match(r"[a-z][a-z-]*[,:]?( |$)", text) else text


def line(row: Judged) -> Line:
    """Return an answer as a line of the report."""
    statement, transport = row.statement, row.transport
    contrast = statement if isinstance(statement, Contrast) else None
    unit = contrast.unit if contrast else Unit("", digits=0)
    expected = transport.expected if transport else (np.nan, np.nan)
    return Line(
        claim=statement.claim, row=row.role, population=row.population, label=statement.label,
        statement=statement.statement, word=row.word, transported="", because="", control="",
        sentence=as_sentence(row.sentence),
        unit=unit.words, digits=unit.digits,
        effect=unit.number(row.effect), low=unit.number(row.low), high=unit.number(row.high),
        margin=-unit.number(-contrast.margin) if contrast else getattr(statement, "tolerance", 0.0),
        replicates=row.replicates, seeds=row.seeds, units=len(row.rows),
        states={state: row.number(state) for state in STATES},
        between=unit.number(transport.between) if transport else np.nan,
        expected_low=unit.number(expected[0]), expected_high=unit.number(expected[1]),
        wide=row.wide, needs=row.needs, experiment=row.experiment, note=row.note,
    )  # fmt: skip


_EMPTY = Line(
    claim="", row="claim", population="stated", label="", statement="", word="", transported="", because="", control="",
    sentence="", unit="", digits=0, effect=np.nan, low=np.nan, high=np.nan, margin=np.nan, replicates=0, seeds=0,
    units=0, states=dict.fromkeys(STATES, 0), between=np.nan, expected_low=np.nan, expected_high=np.nan, wide=0,
    needs=0, experiment="", note="",
)  # fmt: skip

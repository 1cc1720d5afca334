"""From frames to the verdict on each claim, by rule.

- The rows of a claim are its contrasts and scans: those *as stated*, which decide, and the controls.
- A claim is as good as its weakest row as stated. From weak to strong, the verdicts are ``fails``, ``inconclusive``,
  ``no difference``, ``holds when …``, ``holds``, ``identity``. Among equally weak rows the first counts. The claim's
  effect, interval, seeds and cells are those of that row.
- Controls do not change the verdict; they say what it is worth. A control holds where its verdict is ``holds`` or
  ``identity``. The control beside a claim in a table is the least favourable one: it has the weakest verdict, and the
  lowest effect among the controls with that verdict.
- A claim is ``not judged`` unless the frame of every experiment that judges it is there and current, that is, made by
  today's settings and sources. ``gradlab claims`` judges by stale frames too, and says so. Rows of committed
  measurements join those of the experiments. A claim without experiments rests on its first measurement, and is
  ``not run here`` where that measurement has not been committed.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import pandas as pd

from gradlab.checks import input_file, one_of
from gradlab.experiments import EXPERIMENTS, MEASURED
from gradlab.experiments.contrasts import as_families
from gradlab.experiments.experiment import Experiment, Measurement
from gradlab.experiments.frames import frame_path, is_current
from gradlab.experiments.report.claims import CLAIMS, Claim
from gradlab.stats.intervals import OUTCOMES
from gradlab.store.artifacts import load_frame
from gradlab.store.csv_text import csv_text
from gradlab.store.provenance import text_at_head

WEAKEST_FIRST = ("fails", "inconclusive", "no difference", "holds when", "holds", "identity")
REPORT = "claims.csv"  # the report as data, in the folder of the figures
NOT_JUDGED, NOT_RUN = "not judged", "not run here"
_COLUMNS = ["claim", "row", "statement", "verdict", "value", "effect", "low", "high", "margin", "seeds", "cells",
            *OUTCOMES, "experiment"]  # fmt: skip
_WHOLE = ["seeds", "cells", *OUTCOMES]


class Row(Protocol):
    """A row of ``contrasts.judged`` with ``experiment``, as a named tuple of pandas. A saved report's lacks ``by``."""

    claim: str
    control: bool
    statement: str
    value: str
    by: tuple[str, ...]
    verdict: str
    effect: float
    low: float
    high: float
    margin: float
    seeds: int
    cells: int
    holds: int
    fails: int
    no_difference: int
    inconclusive: int
    experiment: str

    def _asdict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Settled:
    """A claim with its verdict.

    rows      the rows that decide and the controls, in the order of the experiments: rows of ``contrasts.judged``
              with ``experiment``.
    frames    the state of each experiment that judges the claim: ``current``, ``stale``, ``damaged`` or ``missing``.
    measured  the measurements that judge the claim and are there.
    """

    name: str
    claim: Claim
    verdict: str
    rows: tuple[Row, ...]
    frames: dict[str, str]
    measured: tuple[str, ...] = ()

    @property
    def decisive(self) -> Row | None:
        """Return the weakest row as stated, whose verdict is the claim's; None without such rows."""
        return min((row for row in self.rows if not row.control), key=lambda row: strength(row.verdict), default=None)

    @property
    def controls(self) -> list[Row]:
        """Return the controls that do not hold, then those that do; each group in the order of the experiments."""
        return sorted((row for row in self.rows if row.control), key=holds)

    @property
    def beside(self) -> Row | None:
        """Return the least favourable control; None without controls."""
        return min(self.controls, key=lambda row: (strength(row.verdict), row.effect), default=None)

    @property
    def why(self) -> str:
        """Return why the claim has no verdict; empty where it has a verdict."""
        if self.verdict == NOT_RUN:
            return self.claim.needs or MEASURED[self.claim.measurements[0]].needs
        if self.verdict != NOT_JUDGED:
            return ""
        return lacking(self.frames) or "no row states it"


def rows_of(table: pd.DataFrame, claim: str) -> tuple[Row, ...]:
    """Return a claim's rows of a table, which may be empty."""
    rows = table[table["claim"] == claim].itertuples(index=False) if len(table) else ()
    return cast("tuple[Row, ...]", tuple(rows))


def lacking(frames: Mapping[str, str]) -> str:
    """Return in words which frames are not current; empty where all are current."""
    by_state = {state: [name for name in frames if frames[name] == state] for state in ("stale", "damaged", "missing")}
    return "; ".join(f"{state} frames: {', '.join(names)}" for state, names in by_state.items() if names)


def kind(verdict: str) -> str:
    """Return a verdict without its condition."""
    return "holds when" if verdict.startswith("holds when ") else verdict


def strength(verdict: str) -> int:
    """Return how strong a verdict is: its place in ``WEAKEST_FIRST``."""
    return WEAKEST_FIRST.index(kind(verdict))


def holds(row: Row) -> bool:
    """Return whether a row holds without a condition."""
    return row.verdict in ("holds", "identity")


def judge_claims(
    folder: Path,
    names: Iterable[str] = CLAIMS,
    *,
    quick: bool = False,
    stale_too: bool = False,
) -> dict[str, Settled]:
    """Return these claims with their verdicts, from the frames in ``folder``, by today's rules.

    stale_too  judge by stale frames as well, where today's rules can read them; their state remains ``stale``.
    Raises ValueError where a committed measurement is damaged.
    """
    chosen = [one_of("claim", name, CLAIMS) for name in names]
    wanted = {experiment for name in chosen for experiment in CLAIMS[name].experiments}
    tables, frames = [], dict.fromkeys(wanted, "missing")
    for name in filter(wanted.__contains__, EXPERIMENTS):
        table, frames[name] = _verdicts_of(EXPERIMENTS[name], folder / "data", quick, stale_too)
        tables.append(table.assign(experiment=name))
    for name in dict.fromkeys(one for claim in chosen for one in CLAIMS[claim].measurements):
        table, frames[name] = _measured(MEASURED[name], folder)
        tables.append(table.assign(experiment=name))
    tables = [table for table in tables if len(table)]
    return settle(pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(), frames, chosen)


def settle(table: pd.DataFrame, frames: Mapping[str, str], names: Iterable[str] = CLAIMS) -> dict[str, Settled]:
    """Return these claims with their verdicts, from the rows of all experiments.

    table   rows of ``contrasts.judged`` with ``experiment``, here corrected by families (Holm); may be empty.
    frames  the state of each experiment and measurement that judges one of the claims, as in ``Settled``.
    Raises ValueError where a row belongs to no claim.
    """
    for claim in table["claim"].unique() if len(table) else ():
        one_of("claim", claim, CLAIMS)
    table = as_families(table) if len(table) else table
    return {name: _settled(name, table, frames) for name in names}


def records(settled: Collection[Settled]) -> pd.DataFrame:
    """Return the report as a frame: per claim a row ``claim`` with its verdict, then its rows as stated and controls.

    Columns: claim, row ("claim", "as stated" or "control"), statement, verdict, value (the quantity whose mean
    difference is the effect, or ``SHARE_OF_CASES``), effect, low, high, margin, seeds, cells, the number of cells with
    each outcome, and the experiment.
    """
    lines = []
    for claim in settled:
        head = claim.decisive._asdict() if claim.decisive else {}
        lines.append({**head, "claim": claim.name, "row": "claim", "statement": claim.claim.claimed,
                      "verdict": claim.verdict})  # fmt: skip
        lines += [{**row._asdict(), "row": "control" if row.control else "as stated"} for row in claim.rows]
    return pd.DataFrame(lines).reindex(columns=_COLUMNS).astype(dict.fromkeys(_WHOLE, "Int64"))


def as_csv(settled: Collection[Settled]) -> str:
    """Return the report as CSV; equal verdicts give equal bytes."""
    return csv_text(records(settled), float_format="%.6g")


def from_csv(text: str) -> pd.DataFrame:
    """Return the report of ``records`` from its CSV, in the digits of the CSV. ValueError for any other text."""
    try:
        return pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(_WHOLE, "Int64"), usecols=_COLUMNS)[_COLUMNS]
    except ValueError:
        raise ValueError("claims.csv must be a report of `gradlab figures`, and is not; restore it") from None


def former(folder: Path, *, committed: bool = False) -> pd.DataFrame | None:
    """Return the report in the folder; with ``committed``, that of the last git commit if it has one.

    None where there is no report. ValueError where the file is no report.
    """
    path = folder / REPORT
    text = text_at_head(path) if committed else None
    if text is None and path.exists():
        text = input_file("report", path).read_text(encoding="utf-8")
    return None if text is None else from_csv(text)


def changes(report: pd.DataFrame, settled: Mapping[str, Settled]) -> list[str]:
    """Return the claims whose verdict differs from that in the report, in words: "ratio: identity → fails"."""
    heads = report[report["row"] == "claim"]
    before = dict(zip(heads["claim"], heads["verdict"], strict=True))
    pairs = [(name, before.get(name, "not in the report"), claim.verdict) for name, claim in settled.items()]
    return [f"{name}: {old} → {new}" for name, old, new in pairs if old != new]


def _verdicts_of(experiment: Experiment, data: Path, quick: bool, stale_too: bool) -> tuple[pd.DataFrame, str]:
    """Return the rows of one experiment, none where it is not judged, and the state of its frame."""
    current = is_current(experiment, data, quick=quick)
    try:
        frame, _ = load_frame(frame_path(experiment, data))
    except FileNotFoundError:
        return pd.DataFrame(), "missing"
    except (OSError, ValueError):
        return pd.DataFrame(), "damaged"
    if current:
        return experiment.verdict(frame), "current"
    try:
        return (experiment.verdict(frame) if stale_too else pd.DataFrame()), "stale"
    except Exception:  # a frame of other sources may lack anything that today's rules read
        return pd.DataFrame(), "stale"


def _measured(measurement: Measurement, folder: Path) -> tuple[pd.DataFrame, str]:
    """Return the rows of a committed measurement, which cannot be stale, and its state.

    It is missing where a file is missing, or its numbers are of a quick run.
    """
    if not measurement.is_in(folder):
        return pd.DataFrame(), "missing"
    return measurement.verdict(measurement.load(folder)), "current"


def _settled(name: str, table: pd.DataFrame, frames: Mapping[str, str]) -> Settled:
    claim = CLAIMS[name]
    states = {experiment: frames.get(experiment, "missing") for experiment in claim.experiments}
    measured = tuple(name for name in claim.measurements if frames.get(name) == "current")
    rows = rows_of(table, name)
    if not {row.experiment for row in rows}.issuperset(claim.experiments or claim.measurements[:1]):
        rows = ()  # a frame that must judge the claim has given no row
    unsettled = NOT_JUDGED if claim.experiments else NOT_RUN
    verdict = min((row.verdict for row in rows if not row.control), key=strength, default=unsettled)
    return Settled(name, claim, verdict, rows, states, measured)

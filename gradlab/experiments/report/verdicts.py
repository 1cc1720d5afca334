"""From frames to the verdict on each claim, by rule.

- A claim is as good as its weakest row as stated; from the weakest: ``fails``, ``inconclusive``, ``no difference``,
  ``holds when …``, ``holds``, ``identity``. Of equally weak rows the first counts. The claim's effect, interval, seeds
  and cells are those of that row.
- Controls do not change the verdict; they say what it is worth. A control holds where it ``holds`` or is an
  ``identity``. The control that stands beside a claim in a table is the least favourable one: the weakest verdict, of
  these the lowest effect.
- A claim is ``not judged`` unless every experiment's frame that judges it is there and is what today's settings and
  sources give; ``gradlab claims`` judges by stale frames too, and says so. Rows of committed measurements join those of
  the experiments where there is one. A claim without experiments rests on its first measurement, and is ``not run
  here`` where nobody has committed that.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gradlab.checks import one_of
from gradlab.experiments import EXPERIMENTS, MEASURED
from gradlab.experiments.contrasts import as_families
from gradlab.experiments.experiment import Experiment, Measurement
from gradlab.experiments.frames import frame_path, is_current
from gradlab.experiments.report.claims import CLAIMS, Claim
from gradlab.stats.intervals import OUTCOMES
from gradlab.store.artifacts import load_frame
from gradlab.store.provenance import text_at_head

WEAKEST_FIRST = ("fails", "inconclusive", "no difference", "holds when", "holds", "identity")
REPORT = "claims.csv"  # the report as data, in the folder of the figures
NOT_JUDGED, NOT_RUN = "not judged", "not run here"
_COLUMNS = ["claim", "row", "statement", "verdict", "value", "effect", "low", "high", "margin", "seeds", "cells",
            *OUTCOMES, "experiment"]  # fmt: skip
_WHOLE = ["seeds", "cells", *OUTCOMES]


@dataclass(frozen=True)
class Settled:
    """A claim with its verdict.

    rows      what it was judged by, in the order of the experiments: rows of ``contrasts.judged`` with ``experiment``.
    frames    the experiments that judge it, each ``current``, ``stale``, ``damaged`` or ``missing``.
    measured  the measurements that judge it, too, of those that are there.
    """

    name: str
    claim: Claim
    verdict: str
    rows: tuple[Any, ...]
    frames: dict[str, str]
    measured: tuple[str, ...] = ()

    @property
    def decisive(self) -> Any:
        """The weakest row as stated, which the verdict is; None where there is none."""
        return min((row for row in self.rows if not row.control), key=lambda row: strength(row.verdict), default=None)

    @property
    def controls(self) -> list[Any]:
        """The controls that do not hold, then those that do; each group in the order of the experiments."""
        return sorted((row for row in self.rows if row.control), key=holds)

    @property
    def beside(self) -> Any:
        """The least favourable control; None where there is none."""
        return min(self.controls, key=lambda row: (strength(row.verdict), row.effect), default=None)

    @property
    def why(self) -> str:
        """Why there is no verdict; empty where there is one."""
        if self.verdict == NOT_RUN:
            return self.claim.needs or MEASURED[self.claim.measurements[0]].needs
        if self.verdict != NOT_JUDGED:
            return ""
        return lacking(self.frames) or "no row states it"


def lacking(frames: Mapping[str, str]) -> str:
    """Which frames are not current, in words; empty where all are."""
    by_state = {state: [name for name in frames if frames[name] == state] for state in ("stale", "damaged", "missing")}
    return "; ".join(f"{state} frames: {', '.join(names)}" for state, names in by_state.items() if names)


def kind(verdict: str) -> str:
    """Return a verdict without its condition."""
    return "holds when" if verdict.startswith("holds when ") else verdict


def strength(verdict: str) -> int:
    """Return how strong a verdict is: its place in ``WEAKEST_FIRST``."""
    return WEAKEST_FIRST.index(kind(verdict))


def holds(row: Any) -> bool:
    """Whether a row holds without a condition."""
    return row.verdict in ("holds", "identity")


def judge_claims(
    folder: Path,
    names: Iterable[str] = CLAIMS,
    *,
    quick: bool = False,
    stale_too: bool = False,
) -> dict[str, Settled]:
    """The verdict on each of these claims, from the frames of ``folder``, by today's rules.

    stale_too  judge by stale frames as well, where today's rules can read them; they are still called stale.
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
    """The verdict on each of these claims, from the rows of all experiments.

    table   rows of ``contrasts.judged`` with ``experiment``, corrected here as families; may be empty.
    frames  the state of each experiment and measurement that judges one of the claims, as in ``Settled``.
    Raises ValueError where a row belongs to no claim.
    """
    for claim in table["claim"].unique() if len(table) else ():
        one_of("claim", claim, CLAIMS)
    table = as_families(table) if len(table) else table
    return {name: _settled(name, table, frames) for name in names}


def records(settled: Collection[Settled]) -> pd.DataFrame:
    """The report as a frame: for each claim a row ``claim`` with its verdict, then its rows, stated and controls.

    Columns: claim, row ("claim", "as stated" or "control"), statement, verdict, value (of what the effect is the mean
    difference, or ``SHARE_OF_CASES``), effect, low, high, margin, seeds, cells, how many cells say what, and the
    experiment whose frame says so.
    """
    found = []
    for one in settled:
        head = one.decisive._asdict() if one.decisive else {}
        found.append({**head, "claim": one.name, "row": "claim", "statement": one.claim.claimed,
                      "verdict": one.verdict})  # fmt: skip
        found += [{**row._asdict(), "row": "control" if row.control else "as stated"} for row in one.rows]
    return pd.DataFrame(found).reindex(columns=_COLUMNS).astype(dict.fromkeys(_WHOLE, "Int64"))


def as_csv(settled: Collection[Settled]) -> str:
    """The report as CSV; equal verdicts give equal bytes."""
    return records(settled).to_csv(index=False, float_format="%.6g", lineterminator="\n")


def from_csv(text: str) -> pd.DataFrame:
    """A report, as ``records`` made it, to the digits that were kept. ValueError where the text is none."""
    try:
        return pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(_WHOLE, "Int64"), usecols=_COLUMNS)[_COLUMNS]
    except ValueError:
        raise ValueError("claims.csv must be a report of `gradlab figures`, and is not; restore it") from None


def former(folder: Path, *, committed: bool = False) -> pd.DataFrame | None:
    """The report that lies in the folder, or the one of the last git commit where ``committed`` and there is one.

    None where there is no report. ValueError where the file is something else.
    """
    path = folder / REPORT
    text = text_at_head(path) if committed else None
    if text is None and path.exists():
        text = path.read_text(encoding="utf-8")
    return None if text is None else from_csv(text)


def changes(report: pd.DataFrame, settled: Mapping[str, Settled]) -> list[str]:
    """The claims whose verdict is not the one in the report, in words: "ratio: identity → fails"."""
    heads = report[report["row"] == "claim"]
    before = dict(zip(heads["claim"], heads["verdict"], strict=True))
    pairs = [(name, before.get(name, "not in the report"), one.verdict) for name, one in settled.items()]
    return [f"{name}: {old} → {new}" for name, old, new in pairs if old != new]


def _verdicts_of(experiment: Experiment, data: Path, quick: bool, stale_too: bool) -> tuple[pd.DataFrame, str]:
    """The rows of one experiment, none where it is not judged, and the state of its frame."""
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
    """The same for a committed measurement, which does not go stale; one that is quick, or in parts, is none."""
    if not measurement.is_in(folder):
        return pd.DataFrame(), "missing"
    return measurement.verdict(measurement.load(folder)), "current"


def _settled(name: str, table: pd.DataFrame, frames: Mapping[str, str]) -> Settled:
    claim = CLAIMS[name]
    states = {one: frames.get(one, "missing") for one in claim.experiments}
    measured = tuple(one for one in claim.measurements if frames.get(one) == "current")
    rows: tuple[Any, ...] = tuple(table[table["claim"] == name].itertuples(index=False)) if len(table) else ()
    if not {row.experiment for row in rows}.issuperset(claim.experiments or claim.measurements[:1]):
        rows = ()
    none = NOT_JUDGED if claim.experiments else NOT_RUN
    return Settled(name, claim, min((row.verdict for row in rows if not row.control), key=strength, default=none),
                   rows, states, measured)  # fmt: skip

"""From frames to the answer on each claim, by rule.

- A claim's *word* is the word on its primaries in the population as stated; with several, Holm corrects over them, and
  the claim holds only as far as each of them does: see ``gradlab.stats.words.joint_word``. Where a claim is stated for
  no cells, its primaries in worlds, or its cases, carry the word.
- *Transported* is the word on its primaries in the worlds that a declared distribution draws, corrected likewise.
- *Because of balancing* is the weakest word on the controls that could explain the effect away, each in the same units
  as the claim: where the method does no better than a control, that control explains it.
- Robustness and context change no word. ``not run`` says that nobody has committed the measurement; such controls are
  named, and weaken nothing.
- A claim is ``not judged`` unless the frame of every experiment that judges it is there and current, that is, made by
  today's settings and sources. ``gradlab claims`` judges by stale frames too, and says so. Answers of committed
  measurements join those of the experiments. A claim without experiments rests on its first measurement, and is
  ``not run`` where that measurement has not been committed.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from gradlab.checks import input_file, one_of
from gradlab.experiments import EXPERIMENTS, MEASURED
from gradlab.experiments.contrasts import ROLES, Contrast, Judged, not_run
from gradlab.experiments.experiment import Experiment, Measurement
from gradlab.experiments.frames import declared, frame_path, is_current
from gradlab.experiments.report.claims import CLAIMS, Claim
from gradlab.stats.population import STATES
from gradlab.stats.words import WORDS, corrected, joint_word, weakest_word
from gradlab.store.artifacts import load_frame
from gradlab.store.csv_text import csv_text
from gradlab.store.provenance import text_at, text_at_head

REPORT = "claims.csv"  # the report as data, in the folder of the figures
NOT_JUDGED, NOT_RUN = "not judged", "not run"
_COLUMNS = ["claim", "row", "population", "statement", "word", "transported", "because", "sentence", "unit",
            "effect", "low",
            "high", "margin", "replicates", "seeds", "units", *STATES, "between", "expected_low", "expected_high",
            "wide", "needs", "experiment"]  # fmt: skip
_WHOLE = ["replicates", "seeds", "units", *STATES, "wide", "needs"]
_KEY = ["claim", "row", "population", "statement"]


@dataclass(frozen=True, eq=False)
class Settled:
    """A claim with its answer.

    word         as stated; ``not judged`` or ``not run`` where there is none.
    transported  to the declared worlds; empty where the claim is not.
    because      whether it is the balancing: the weakest word of the controls that explain away; empty without any.
    rows         the answers on every statement, in the order of the experiments.
    frames       the state of each experiment that judges the claim: ``current``, ``stale``, ``damaged``, ``missing``.
    measured     the measurements that judge the claim and are there.
    """

    name: str
    claim: Claim
    word: str
    transported: str
    because: str
    rows: tuple[Judged, ...]
    frames: dict[str, str]
    measured: tuple[str, ...] = ()

    @property
    def decisive(self) -> Judged | None:
        """Return the weakest primary as stated, else of the worlds; None without primaries."""
        return _weakest(primaries(self.rows, "stated") or self.of("primary"))

    @property
    def in_worlds(self) -> Judged | None:
        """Return the weakest primary in worlds; None without one."""
        return _weakest(primaries(self.rows, "worlds"))

    @property
    def explains(self) -> Judged | None:
        """Return the control that explains the effect away, or comes nearest to it; None without such controls."""
        return _weakest([row for row in self.of("explains away") if row.word != NOT_RUN])

    @property
    def why(self) -> str:
        """Return why the claim has no word; empty where it has one."""
        if self.word == NOT_RUN:
            return self.claim.needs or MEASURED[self.claim.measurements[0]].needs
        return (lacking(self.frames) or "no row states it") if self.word == NOT_JUDGED else ""

    def of(self, role: str) -> list[Judged]:
        """Return the rows of a role, in the order of the experiments."""
        return [row for row in self.rows if row.role == role]


def primaries(rows: Iterable[Judged], population: str) -> list[Judged]:
    """Return the primaries of a population: ``worlds``, or ``stated``, to which declared cases belong."""
    return [row for row in rows if row.role == "primary" and (row.population == "worlds") == (population == "worlds")]


def lacking(frames: Mapping[str, str]) -> str:
    """Return in words which frames are not current; empty where all are current."""
    by_state = {state: [name for name in frames if frames[name] == state] for state in ("stale", "damaged", "missing")}
    return "; ".join(f"{state} frames: {', '.join(names)}" for state, names in by_state.items() if names)


def judge_claims(
    folder: Path,
    names: Iterable[str] = CLAIMS,
    *,
    quick: bool = False,
    stale_too: bool = False,
) -> dict[str, Settled]:
    """Return these claims with their answers, from the frames in ``folder``, by today's rules.

    stale_too  judge by stale frames as well, where today's rules can read them; their state remains ``stale``.
    Raises ValueError where a committed measurement or a current frame is damaged.
    """
    chosen = [one_of("claim", name, CLAIMS) for name in names]
    wanted = {experiment for name in chosen for experiment in CLAIMS[name].experiments}
    rows, frames = list[Judged](), dict.fromkeys(wanted, "missing")
    for name in filter(wanted.__contains__, EXPERIMENTS):
        found, frames[name] = _answers_of(EXPERIMENTS[name], folder / "data", quick, stale_too)
        rows += [replace(row, experiment=name) for row in found]
    for name in dict.fromkeys(one for claim in chosen for one in CLAIMS[claim].measurements):
        found, frames[name] = _measured(MEASURED[name], folder)
        rows += [replace(row, experiment=name) for row in found]
    return settle(rows, frames, chosen)


def settle(rows: Sequence[Judged], frames: Mapping[str, str], names: Iterable[str] = CLAIMS) -> dict[str, Settled]:
    """Return these claims with their answers, from the rows of all experiments, here corrected over co-primaries.

    frames  the state of each experiment and measurement that judges one of the claims, as in ``Settled``.
    Raises ValueError where a row belongs to no claim, or a claim that was judged has no primary.
    """
    for row in rows:
        one_of("claim", row.statement.claim, CLAIMS)
    return {name: _settled(name, [row for row in rows if row.statement.claim == name], frames) for name in names}


def records(settled: Collection[Settled]) -> pd.DataFrame:
    """Return the report as a frame: per claim a row ``claim`` with its words, then every statement.

    Columns: claim, row ("claim" or a role), population, statement, word, transported and because (of the claim),
    sentence, unit, effect, low, high, margin, replicates (over which the interval is), seeds (fewest of a unit), units,
    how many are for, none, against and undecided, between (standard deviation between worlds), expected_low and
    expected_high (the prediction interval of a new world), wide (cells at the cap), needs (seeds or worlds), and the
    experiment.
    """
    lines = []
    for one in settled:
        head = _line(one.decisive) if one.decisive else {}
        lines.append({**head, "claim": one.name, "row": "claim", "statement": one.claim.claimed, "word": one.word,
                      "transported": one.transported, "because": one.because})  # fmt: skip
        lines += [{**_line(row), "claim": one.name} for row in one.rows]
    return pd.DataFrame(lines).reindex(columns=_COLUMNS).astype(dict.fromkeys(_WHOLE, "Int64"))


def as_csv(settled: Collection[Settled]) -> str:
    """Return the report as CSV; equal answers give equal bytes."""
    return csv_text(records(settled), float_format="%.6g")


def from_csv(text: str) -> pd.DataFrame:
    """Return the report of ``records`` from its CSV, in the digits of the CSV. ValueError for any other text."""
    try:
        report = pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(_WHOLE, "Int64"), usecols=_COLUMNS)[_COLUMNS]
        return report.fillna(dict.fromkeys(["transported", "because", "sentence", "unit"], ""))
    except ValueError:
        raise ValueError(
            "claims.csv must be a report of `gradlab figures` of this version, and is not; restore it"
        ) from None


def former(folder: Path, *, committed: bool = False, revision: str | None = None) -> pd.DataFrame | None:
    """Return the report in the folder; with ``committed``, that of the last git commit if it has one.

    revision  a revision of git whose report is meant; ValueError where it does not exist, or has no report.
    None where there is no report. ValueError where the file is no report.
    """
    path = folder / REPORT
    if revision is not None:
        return from_csv(text_at(path, revision))
    text = text_at_head(path) if committed else None
    if text is None and path.exists():
        text = input_file("report", path).read_text(encoding="utf-8")
    return None if text is None else from_csv(text)


def changes(report: pd.DataFrame, settled: Mapping[str, Settled]) -> list[str]:
    """Return the claims with another word than in the report, in words: "ratio: proved → refuted"."""
    heads = report[report["row"] == "claim"].set_index("claim")
    said = []
    for name, one in settled.items():
        if name not in heads.index:
            said.append(f"{name}: not in the report → {one.word}")
            continue
        for column, what in (("word", ""), ("transported", ", transported"), ("because", ", because of balancing")):
            old, new = heads.at[name, column], getattr(one, column)
            if old != new:
                said.append(f"{name}{what}: {old or 'none'} → {new or 'none'}")
    return said


def moved(report: pd.DataFrame, settled: Collection[Settled]) -> list[str]:
    """Return the statements whose effect has moved beyond both intervals, the former and the present, in words."""
    both = report.merge(records(settled), on=_KEY, suffixes=("", "_now"))
    both = both[both["row"] != "claim"]
    apart = (both["low_now"] > both["high"]) | (both["high_now"] < both["low"])
    return [
        f"{row.claim}: {row.statement}: {row.effect:+.3g} [{row.low:+.3g}, {row.high:+.3g}] → {row.effect_now:+.3g} "
        f"[{row.low_now:+.3g}, {row.high_now:+.3g}]"
        for row in both[apart].itertuples()
    ]


def _line(row: Judged) -> dict[str, object]:
    """Return a row as a line of the report."""
    statement, transport = row.statement, row.transport
    return {
        "claim": statement.claim, "row": row.role, "population": row.population, "statement": statement.statement,
        "word": row.word, "transported": "", "because": "", "sentence": row.sentence, "experiment": row.experiment,
        "unit": statement.unit.words if isinstance(statement, Contrast) else "",
        "effect": row.effect, "low": row.low, "high": row.high,
        "margin": statement.margin if isinstance(statement, Contrast) else statement.tolerance,
        "replicates": row.replicates, "seeds": row.seeds, "units": len(row.rows),
        **{state: row.number(state) for state in STATES},
        "between": transport.between if transport else np.nan,
        "expected_low": transport.expected[0] if transport else np.nan,
        "expected_high": transport.expected[1] if transport else np.nan, "wide": row.wide, "needs": row.needs,
    }  # fmt: skip


def _weakest(rows: Sequence[Judged]) -> Judged | None:
    """Return the row with the weakest word; among equals the one with the lowest effect in margins."""
    if not rows:
        return None
    order = [row for row in rows if row.word == weakest_word(row.word for row in rows)]
    return min(order, key=_in_margins)


def _in_margins(row: Judged) -> float:
    """Return the effect in units of its margin, in which effects of different values compare; 0 for a scan."""
    return row.effect / row.statement.margin if isinstance(row.statement, Contrast) else 0.0


def _answers_of(experiment: Experiment, data: Path, quick: bool, stale_too: bool) -> tuple[list[Judged], str]:
    """Return the answers of one experiment, none where it is not judged, and the state of its frame."""
    current = is_current(experiment, data, quick=quick)
    try:
        frame, _ = load_frame(frame_path(experiment, data))
    except FileNotFoundError:
        return [], "missing"
    except (OSError, ValueError):
        return [], "damaged"
    settings = declared(experiment, quick)
    if current:
        return experiment.verdict(frame, settings), "current"
    try:
        return (experiment.verdict(frame, settings) if stale_too else []), "stale"
    except Exception:  # a frame of other sources may lack anything that today's rules read
        return [], "stale"


def _measured(measurement: Measurement, folder: Path) -> tuple[list[Judged], str]:
    """Return the answers of a committed measurement, which cannot be stale, and its state.

    It is missing where a file is missing, or its numbers are of a quick run.
    """
    if not measurement.is_in(folder):
        return [], "missing"
    return measurement.verdict(measurement.load(folder)), "current"


def _settled(name: str, rows: Sequence[Judged], frames: Mapping[str, str]) -> Settled:
    claim = CLAIMS[name]
    states = {experiment: frames.get(experiment, "missing") for experiment in claim.experiments}
    measured = tuple(one for one in claim.measurements if frames.get(one) == "current")
    if not {row.experiment for row in rows}.issuperset(claim.experiments or claim.measurements[:1]):
        rows = ()  # a frame that must judge the claim has given no row
    if rows or not (claim.experiments or claim.measurements):
        rows = [*rows, *(not_run(statement, claim.needs) for statement in claim.not_run)]
    rows = [*_corrected(rows, "stated"), *_corrected(rows, "worlds"), *(row for row in rows if row.role != "primary")]
    rows.sort(key=lambda row: ROLES.index(row.role))
    if rows and rows[0].role != "primary":
        raise ValueError(f"{name} must have a primary, got rows of {', '.join(sorted({row.role for row in rows}))}")
    stated, worlds = ([row.word for row in primaries(rows, population)] for population in ("stated", "worlds"))
    controls = [row.word for row in rows if row.role == "explains away" and row.word != NOT_RUN]
    unsettled = NOT_JUDGED if claim.experiments else NOT_RUN
    word = joint_word(stated or worlds) if rows else unsettled
    return Settled(
        name, claim, word, joint_word(worlds) if worlds and stated else "", weakest_word(controls) if controls else "",
        tuple(rows), states, measured,
    )  # fmt: skip


def _corrected(rows: Iterable[Judged], population: str) -> list[Judged]:
    """Return the primaries of a population, corrected over each other."""
    family = primaries(rows, population)
    evidence = corrected([row.evidence for row in family])
    return [row.corrected(one) for row, one in zip(family, evidence, strict=True)]


assert NOT_RUN in WORDS

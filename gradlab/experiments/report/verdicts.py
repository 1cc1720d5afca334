"""From frames to the answer on each claim, by rule.

- A claim's *word* is the word on its primaries in the population as stated; with several, Holm corrects over them, and
  the claim holds only as far as each of them does: see ``gradlab.stats.words.joint_word``. Where a claim is stated for
  no cells, its primaries in worlds, or its cases, carry the word.
- *Transported* is the word on its primaries in the worlds that a declared distribution draws, corrected likewise.
- *Because of balancing* is the weakest word on the controls that could explain the effect away, in stated cells and in
  worlds, each in the same units as the claim: where the method does no better than a control, that control explains
  it. One of several controls may seem to explain it by chance, so Holm corrects over all of them.
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
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

from gradlab.checks import input_file, one_of, shown
from gradlab.experiments import EXPERIMENTS, MEASURED
from gradlab.experiments.contrasts import ROLES, Contrast, Judged, Unit, not_run
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
_STATE = {True: "current", False: "stale"}
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, NameError, TypeError, ValueError)
_WHOLE = ["digits", "replicates", "seeds", "units", *STATES, "wide", "needs"]
_KEY = ["claim", "row", "population", "statement", "experiment"]


class NoReport(ValueError):
    """A text that is no report of this version."""


@dataclass(frozen=True)
class Line:
    """A line of the report: the answer on a claim (``row`` is "claim") or on one of its statements (``row`` is a role).

    word, transported, because  of a claim; a statement has only its word.
    control     of a claim: the short name of the control that explains it away, or comes nearest to that.
    label       the short name of what is compared.
    sentence    the answer as one plain sentence with its unit.
    unit, digits  what the numbers count, and to how many decimals they are shown.
    effect, low, high  the average with its 95% interval, in that unit; NaN of cases, which have no average.
    margin      in that unit; of cases the tolerance.
    replicates  over how many seeds or worlds the interval is.
    seeds       the fewest of a cell or world.
    states      how many cells, worlds or cases there are in each of ``gradlab.stats.population.STATES``.
    between     the standard deviation between worlds; expected_low and expected_high: the prediction interval of a new
                world. NaN of anything but worlds.
    wide        how many cells are wider than their design asks for; of primaries they are at the cap of seeds.
    needs       how many seeds or worlds would decide; 0 where the word is decided, or nobody can say.
    note        more in words.
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
    def sentence(self) -> str:
        """Return the answer as stated in one plain sentence; where co-primaries disagree, that of either side."""
        row = self.decisive
        if row is None or self.word == NOT_RUN:
            return self.why
        family = primaries(self.rows, "stated") or self.of("primary")
        ahead = [one for one in family if one.word.startswith("holds")]
        if row.word == "reversed" and ahead:
            return f"{max(ahead, key=_in_margins).sentence}; but {row.sentence}"
        return row.sentence

    @property
    def why(self) -> str:
        """Return why the claim has no word; empty where it has one."""
        if self.word == NOT_RUN:
            needed = [self.claim.needs, *(MEASURED[name].needs for name in self.claim.measurements)]
            return next(filter(None, needed), "nobody has committed the measurement")
        return (lacking(self.frames) or "no row states it") if self.word == NOT_JUDGED else ""

    def of(self, role: str) -> list[Judged]:
        """Return the rows of a role, in the order of the experiments."""
        return [row for row in self.rows if row.role == role]


def primaries(rows: Iterable[Judged], population: str) -> list[Judged]:
    """Return the primaries of a population: ``worlds``, or ``stated``, to which declared cases belong."""
    return [row for row in rows if row.role == "primary" and (row.population == "worlds") == (population == "worlds")]


def controls_of(rows: Iterable[Judged]) -> list[Judged]:
    """Return the controls that could explain the effect away."""
    return [row for row in rows if row.role == "explains away"]


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


def lines(one: Settled) -> list[Line]:
    """Return a claim's part of the report: the line of the claim, then a line per statement."""
    rows = [line(row) for row in one.rows]
    head = line(one.decisive) if one.decisive else _EMPTY
    control = one.explains
    return [replace(
        head, claim=one.name, row="claim", statement=one.claim.claimed, word=one.word, transported=one.transported,
        because=one.because, control=named(control) if control else "", sentence=one.sentence,
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
        return report[_COLUMNS]
    except ValueError:
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


def named(row: Judged) -> str:
    """Return the short name of what a row compares, or its statement where it has none."""
    return row.statement.label or row.statement.statement


def line(row: Judged) -> Line:
    """Return an answer as a line of the report."""
    statement, transport = row.statement, row.transport
    contrast = statement if isinstance(statement, Contrast) else None
    unit = contrast.unit if contrast else Unit("", digits=0)
    expected = transport.expected if transport else (np.nan, np.nan)
    return Line(
        claim=statement.claim, row=row.role, population=row.population, label=statement.label,
        statement=statement.statement, word=row.word, transported="", because="", control="", sentence=row.sentence,
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
    try:
        return (experiment.verdict(frame, declared(experiment, quick)) if current or stale_too else []), _STATE[current]
    except _UNREADABLE as error:  # a frame of other sources may lack anything that today's rules read
        if not current:
            return [], "stale"
        raise ValueError(_refused(frame_path(experiment, data), error, f"gradlab figures {experiment.name} --fresh")
                         ) from None  # fmt: skip


def _measured(measurement: Measurement, folder: Path) -> tuple[list[Judged], str]:
    """Return the answers of a committed measurement, which cannot be stale, and its state.

    It is missing where a file is missing, or its numbers are of a quick run.
    """
    if not measurement.is_in(folder):
        return [], "missing"
    frames = measurement.load(folder)
    try:
        return measurement.verdict(frames), "current"
    except _UNREADABLE as error:
        file = folder / next(iter(measurement.files.values()))
        raise ValueError(_refused(file, error, measurement.command)) from None


def _refused(file: Path, error: Exception, command: str) -> str:
    """Return in one line why a frame cannot be judged, and what makes it again."""
    why = " ".join(str(error).split()) if not isinstance(error, KeyError) else f"it lacks {error}"
    return f"{file} must be a frame that today's rules can judge: {why}; `{command}` makes it again"


def _settled(name: str, rows: Sequence[Judged], frames: Mapping[str, str]) -> Settled:
    claim = CLAIMS[name]
    states = {experiment: frames.get(experiment, "missing") for experiment in claim.experiments}
    measured = tuple(one for one in claim.measurements if frames.get(one) == "current")
    if not {row.experiment for row in rows}.issuperset(claim.experiments or claim.measurements[:1]):
        rows = ()  # a frame that must judge the claim has given no row
    if rows or not (claim.experiments or claim.measurements):
        rows = [*rows, *map(not_run, claim.not_run)]
    families = (primaries(rows, "stated"), primaries(rows, "worlds"), controls_of(rows))
    corrected_rows = [row for family in families for row in _corrected(family)]
    rows = [*corrected_rows, *(row for row in rows if row.role not in ("primary", "explains away"))]
    rows.sort(key=lambda row: ROLES.index(row.role))
    if rows and rows[0].role != "primary":
        raise ValueError(f"{name} must have a primary, got rows of {', '.join(sorted({row.role for row in rows}))}")
    stated, worlds = ([row.word for row in primaries(rows, population)] for population in ("stated", "worlds"))
    controls = [row.word for row in controls_of(rows) if row.word != NOT_RUN]
    unsettled = NOT_JUDGED if claim.experiments else NOT_RUN
    word = joint_word(stated or worlds) if rows else unsettled
    return Settled(
        name, claim, word, joint_word(worlds) if worlds and stated else "", weakest_word(controls) if controls else "",
        tuple(rows), states, measured,
    )  # fmt: skip


def _corrected(family: Sequence[Judged]) -> list[Judged]:
    """Return the answers of a family, corrected over each other."""
    evidence = corrected([row.evidence for row in family])
    return [row.corrected(one) for row, one in zip(family, evidence, strict=True)]


assert NOT_RUN in WORDS

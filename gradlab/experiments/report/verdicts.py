"""From frames to the answer on each claim, by rule.

- A claim's *word* is the word on its primaries in the population as stated; with several, Holm corrects over them, and
  the claim holds only as far as each of them does: see ``gradlab.stats.words.joint_word``. Where a claim is stated for
  no cells, its primaries in worlds, or its cases, carry the word. A claim of no difference holds where every primary
  is *no practical difference*, and is *reversed* by a difference beyond the margin, whatever its sign: see
  ``gradlab.stats.words.word_of_no_difference``.
- *Transported* is the word on its primaries in the worlds that a declared distribution draws, corrected likewise.
- *Because of balancing* is the weakest word on the claim's controls that could explain the effect away: all its rows
  with the role *explains away* together, those on stated cells, those on worlds, those at equal KL, and those of
  committed measurements. Where the method does no better than a control, that control explains the effect. One of
  several controls may seem to explain it by chance, so Holm corrects over all of them. Controls that were not run are
  removed before the weakest is taken.
- Where several rows share the weakest word, the one with the least effect, divided by its margin, stands for them: its
  sentence is that of the claim, or it is the control that is named. A scan counts as 0; then the first row wins.
- Robustness and context change no word. ``not run`` says that nobody has committed the measurement.
- A claim is ``not judged`` unless the frame of every experiment that judges it is there and current, that is, made by
  today's settings and sources. ``gradlab claims`` judges by stale frames too, and says so. Answers of committed
  measurements join those of the experiments. A claim without experiments rests on its first measurement, and is
  ``not run`` where that measurement has not been committed; so is one on long experiments that were never run.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gradlab.checks import one_of
from gradlab.console import one_line
from gradlab.experiments import EXPERIMENTS, MEASURED, long_experiments
from gradlab.experiments.contrasts import ROLES, Contrast, Judged, not_run
from gradlab.experiments.experiment import Experiment, Measurement
from gradlab.experiments.frames import declared, frame_path, is_current
from gradlab.experiments.report.claims import Claim
from gradlab.experiments.report.sections import EVERY
from gradlab.stats.equivalence import holm, mean_of_interval
from gradlab.stats.words import Evidence, corrected, joint_word, weakest_word, word_of_no_difference
from gradlab.store.artifacts import load_frame

NOT_JUDGED, NOT_RUN, EQUAL = "not judged", "not run", "no practical difference"
# What a function of a frame raises where the frame lacks something.
UNREADABLE = (ArithmeticError, AttributeError, LookupError, NameError, TypeError, ValueError)


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
        """Return the weakest primary as stated, else of the worlds; None without primaries.

        Of a claim of no difference it is the one farthest from 0 in margins, of those that are not equivalent to 0.
        """
        family = primaries(self.rows, "stated") or self.of("primary")
        if self.claim.no_difference and self.word in ("reversed", "undecided"):
            return max((row for row in family if row.word != EQUAL), key=lambda row: abs(_in_margins(row)))
        return _weakest(family)

    @property
    def in_worlds(self) -> Judged | None:
        """Return the weakest primary in worlds; None without one."""
        return _weakest(primaries(self.rows, "worlds"))

    @property
    def explains(self) -> Judged | None:
        """Return the control that explains the effect away, or comes nearest to it; None without such controls."""
        return _weakest([row for row in self.of("explains away") if row.word != NOT_RUN])

    @property
    def _there(self) -> Judged | None:
        """Return the weakest primary that was run; None where none was."""
        return _weakest([row for row in self.of("primary") if row.word != NOT_RUN])

    @property
    def sentence(self) -> str:
        """Return the answer as stated in one plain sentence; where co-primaries disagree, that of either side."""
        row, there = self.decisive, self._there
        if self.word == NOT_RUN:
            return f"measured in part: {there.sentence}" if there else "nobody has measured it here"
        if row is None:
            return self.why
        family = primaries(self.rows, "stated") or self.of("primary")
        if self.claim.no_difference:
            return row.sentence
        ahead = [one for one in family if one.word.startswith("holds")]
        if row.word == "reversed" and ahead:
            return f"{max(ahead, key=_in_margins).sentence}; but {row.sentence}"
        return row.sentence

    @property
    def why(self) -> str:
        """Return why the claim has no word; empty where it has one."""
        if self.word == NOT_RUN:
            needed = [self._begun, self.claim.needs,
                      *(EXPERIMENTS[name].needs for name in self.claim.experiments),
                      *(MEASURED[name].needs for name in self.claim.measurements)]  # fmt: skip
            return next(filter(None, needed), "needs a measurement that nobody has committed")
        return (lacking(self.frames) or "no row states it") if self.word == NOT_JUDGED else ""

    @property
    def _begun(self) -> str:
        """Return what there is of a primary that was not run, in words; empty where nobody has said it."""
        note = next((row.note.removesuffix(".") for row in self.of("primary") if row.word == NOT_RUN and row.note), "")
        if not note.endswith(" runs"):
            return note and f"has a part of which nothing is told: {note[0].lower()}{note[1:]}"
        return f"needs another part, with {note} so far" if self._there else f"has {note} so far"

    def of(self, role: str) -> list[Judged]:
        """Return the rows of a role, in the order of the experiments."""
        return [row for row in self.rows if row.role == role]


def primaries(rows: Iterable[Judged], population: str) -> list[Judged]:
    """Return the primaries of a population: ``worlds``, or ``stated``, to which declared cases belong."""
    return [row for row in rows if row.role == "primary" and (row.population == "worlds") == (population == "worlds")]


def controls_of(rows: Iterable[Judged]) -> list[Judged]:
    """Return the controls that could explain the effect away."""
    return [row for row in rows if row.role == "explains away"]


def named(row: Judged) -> str:
    """Return the short name of what a row compares, or its statement where it has none."""
    return row.statement.label or row.statement.statement


def lacking(frames: Mapping[str, str]) -> str:
    """Return in words which frames are not current; empty where all are current."""
    by_state = {state: [name for name in frames if frames[name] == state] for state in ("stale", "damaged", "missing")}
    return "; ".join(f"{state} frames: {', '.join(names)}" for state, names in by_state.items() if names)


def judge_claims(
    folder: Path,
    names: Iterable[str] = EVERY,
    *,
    quick: bool = False,
    stale_too: bool = False,
) -> dict[str, Settled]:
    """Return these claims with their answers, from the frames in ``folder``, by today's rules.

    stale_too  judge by stale frames as well, where today's rules can read them; their state remains ``stale``.
    Raises ValueError where a committed measurement or a current frame is damaged.
    """
    chosen = [one_of("claim", name, EVERY) for name in names]
    wanted = {experiment for name in chosen for experiment in EVERY[name].experiments}
    rows, frames = list[Judged](), dict.fromkeys(wanted, "missing")
    for name in filter(wanted.__contains__, EXPERIMENTS):
        found, frames[name] = _answers_of(EXPERIMENTS[name], folder / "data", quick, stale_too)
        rows += [replace(row, experiment=name) for row in found]
    for name in dict.fromkeys(one for claim in chosen for one in EVERY[claim].measurements):
        found, frames[name] = _measured(MEASURED[name], folder)
        rows += [replace(row, experiment=name) for row in found]
    return settle(rows, frames, chosen)


def settle(rows: Sequence[Judged], frames: Mapping[str, str], names: Iterable[str] = EVERY) -> dict[str, Settled]:
    """Return these claims with their answers, from the rows of all experiments, here corrected over co-primaries.

    frames  the state of each experiment and measurement that judges one of the claims, as in ``Settled``.
    Raises ValueError where a row belongs to no claim, or a claim that was judged has no primary.
    """
    for row in rows:
        one_of("claim", row.statement.claim, EVERY)
    return {name: _settled(name, [row for row in rows if row.statement.claim == name], frames) for name in names}


def _weakest(rows: Sequence[Judged]) -> Judged | None:
    """Return the row with the weakest word; among equals the one with the lowest effect in margins."""
    if not rows:
        return None
    weakest = weakest_word(row.word for row in rows)
    return min((row for row in rows if row.word == weakest), key=_in_margins)


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
        if not len(frame):
            raise ValueError("it must have rows, got none")
        rows = experiment.verdict(frame, declared(experiment, quick)) if current or stale_too else []
        return rows, "current" if current else "stale"
    except UNREADABLE as error:  # a frame of other sources may lack anything that today's rules read
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
    except UNREADABLE as error:
        file = folder / next(iter(measurement.files.values()))
        raise ValueError(_refused(file, error, measurement.command)) from None


def _refused(file: Path, error: Exception, command: str) -> str:
    """Return in one line why a frame cannot be judged, and what makes it again."""
    why = one_line(error) if not isinstance(error, KeyError) else f"it lacks {error}"
    return f"{file} must be a frame that today's rules can judge: {why}; `{command}` makes it again"


def _settled(name: str, rows: Sequence[Judged], frames: Mapping[str, str]) -> Settled:
    claim = EVERY[name]
    states = {experiment: frames.get(experiment, "missing") for experiment in claim.experiments}
    measured = tuple(one for one in claim.measurements if frames.get(one) == "current")
    if not {row.experiment for row in rows}.issuperset(claim.experiments or claim.measurements[:1]):
        rows = ()  # a frame that must judge the claim has given no row
    if rows or (not claim.experiments and any(one.role == "primary" for one in claim.not_run)):
        measured_ones = {row.statement.statement for row in rows}
        rows = [*rows, *(not_run(one) for one in claim.not_run if one.statement not in measured_ones)]
    families = (primaries(rows, "stated"), primaries(rows, "worlds"), controls_of(rows))
    corrected_rows = [row for family in families for row in _corrected(family)]
    rows = [*corrected_rows, *(row for row in rows if row.role not in ("primary", "explains away"))]
    rows.sort(key=lambda row: ROLES.index(row.role))
    if rows and rows[0].role != "primary":
        raise ValueError(f"{name} must have a primary, got rows of {', '.join(sorted({row.role for row in rows}))}")
    stated, worlds = (primaries(rows, population) for population in ("stated", "worlds"))
    controls = [row.word for row in controls_of(rows) if row.word != NOT_RUN]
    never_run = set(states.values()) <= {"missing"} and set(states) <= set(long_experiments())
    unsettled = NOT_RUN if never_run else NOT_JUDGED
    together = functools.partial(word_together, no_difference=claim.no_difference)
    word = together(stated or worlds) if rows else unsettled
    return Settled(
        name, claim, word, together(worlds) if worlds and stated else "", weakest_word(controls) if controls else "",
        tuple(rows), states, measured,
    )  # fmt: skip


def word_together(family: Sequence[Judged], *, no_difference: bool, multiple: float = 1.0) -> str:
    """Return the word on co-primaries together, whose words are corrected, with a multiple of their margins."""
    words = [row.word for row in family]
    if not no_difference or NOT_RUN in words:
        return joint_word(words)
    return word_of_no_difference(words, holm(np.array([_p_beyond(row, multiple) for row in family])))


def _p_beyond(row: Judged, multiple: float) -> float:
    """Return the p-value of a mean effect beyond the margin, either way."""
    assert isinstance(row.statement, Contrast)
    margin = multiple * row.statement.margin
    freedom = (row.replicates if row.population == "worlds" else row.seeds) - 1
    mean = mean_of_interval(row.effect, row.low, row.high, freedom)
    return min(1.0, 2 * float(min(mean.p_above(margin), mean.p_below(-margin))))


def _corrected(family: Sequence[Judged]) -> list[Judged]:
    """Return the answers of a family, corrected over each other.

    One that is not run yet counts, with a p-value of 1: what is said of the others must not hang on when it is run.
    """
    unknown = Evidence(units=1)  # its p-values are NaN
    evidence = corrected([unknown if row.word == NOT_RUN else row.evidence for row in family])
    return [
        row if row.word == NOT_RUN else row.corrected(one, len(family))
        for row, one in zip(family, evidence, strict=True)
    ]

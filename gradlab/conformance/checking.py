"""Say which registered loss a target computes, with which hyper-parameters, how far off, and where it departs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from gradlab.checks import one_of, shown
from gradlab.conformance.fitting import AS_IT_IS, EXACT, PARTS, UNCHANGED, Candidate, Search, maker
from gradlab.conformance.numbers import median
from gradlab.conformance.targets import DTYPES, Target, target_of
from gradlab.losses import BATCH_LOSSES, PAIR_LOSSES, from_text

UNITS = 32.0  # units of rounding up to which numbers agree: ours are within 1, TRL's 1 − σ(x) in float32 within 15
FEW = 0.15  # the share of pairs at which a target may differ, or have no number, while it agrees with a loss elsewhere
LIMIT = 1e-7  # hyper-parameters below this are 0 that a loss does not allow
KEPT = 8  # rows that are returned where nothing fits; twice as many candidates are fitted
COLUMNS = (
    "loss", "hyper", "departs", "fits", "value_error", "slope_error", "units", "worst", "convention", "known_as",
)  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """A candidate with its errors."""

    candidate: Candidate
    value_error: float
    slope_error: float
    units: float
    outside: list[str]
    """The pairs with more units than rounding explains."""
    worst: str
    """The pair with the most of them."""
    words: str
    """How the target departs from the loss; empty where it does not."""
    lost: str = ""
    """The few pairs at which the target has no finite number and the loss has, in words; or empty."""

    @property
    def fits(self) -> bool:
        """Return whether only rounding is between the target and the loss, where the target is finite."""
        return self.units <= UNITS and not self.words

    @property
    def departs(self) -> str:
        """Return all in which the target departs from the loss, in words."""
        return "; ".join(filter(None, (self.words, self.lost)))

    @property
    def rank(self) -> int:
        """Return 0 where a change explains all, 1 where it does at most pairs, 2 where it explains a part, 3 else."""
        if self.units > UNITS:
            return 1 if "except at" in self.words else 3
        return 2 if self.candidate.change.name in PARTS else 0


def check(
    target: Any,
    expect: Any = None,
    *,
    dtype: str | None = None,
    among: Iterable[str] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Return which registered losses give a target's numbers, the best first, one row per loss.

    target   a function, a class or a loss (called with a ``PairLogps``, or with tensors (pairs,) by the names of its
             arguments: win, lose, ref_win, ref_lose, win_len, lose_len, or as in policy_chosen_logps); its loss is one
             value per pair or a mean, by itself or first in a tuple. Or a text: ``module:function``,
             ``file.py:function``, ``trl:LOSS_TYPE`` for the installed TRL, each with ``,option=value`` behind it, or
             the path of a table, see ``gradlab.conformance.write_table``.
    expect   the loss that it should be, such as ``SimPO(beta=2.0)`` or "dpo:beta=0.1"; its row then is the first.
    dtype    "float64" or "float32", in which the target is asked; by default float64, float32 for TRL and tables.
    among    names of losses to compare with; by default all registered ones.
    options  for the target: hyper-parameters of its own.

    Columns: ``loss`` and ``hyper``, the registered loss and the hyper-parameters that fit; ``departs``, how the target
    differs from that, empty where it does not; ``fits``, whether rounding explains what is left; ``value_error`` and
    ``slope_error``, the largest absolute differences; ``units``, the largest in units of rounding (see
    ``Questions.units``), which fit up to 32; ``worst``, the pair where that is; ``convention``; ``known_as``, which
    source or library has these numbers. ``attrs`` has target, dtype, pairs, notes and summary, all sentences.

    Where the loss is finite, a target that fits is so too, but for 15% of the pairs, which ``departs`` names. A loss of
    pairs is not compared with a target whose values depend on the batch, nor a loss of batches with one whose values do
    not: if it is expected, it does not fit, and its differences are NaN.

    ValueError, TypeError, ImportError or OSError, in one line, for a target that cannot be asked, and for ``among``
    without a loss that the target can be compared with.
    """
    wanted = None if expect is None else _expected(expect)
    with _one_thread():
        asked = target_of(target, dtype, options)
        if not np.isfinite(asked.got.value).any():
            raise ValueError(f"{asked.name} must give a finite loss at some pair, got none")
        asked, judged = _best_way(asked, None if among is None else tuple(among), wanted)
    frame = pd.DataFrame([_row(one) for one in judged], columns=list(COLUMNS))
    frame.attrs = {
        "target": asked.name, "dtype": asked.dtype, "pairs": len(asked.questions.names), "notes": _notes(asked),
        "summary": _summary(judged, wanted),
    }  # fmt: skip
    return frame


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let PyTorch compute in one thread inside: small operations are many times slower in two on busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _expected(expect: Any) -> Candidate:
    """Return the loss that is expected, from an instance or a text as ``from_text`` takes it."""
    loss: Any = from_text(expect) if isinstance(expect, str) else expect
    if getattr(loss, "name", None) not in {*PAIR_LOSSES, *BATCH_LOSSES} or isinstance(loss, type):
        raise ValueError(f"expect must be a registered loss, such as DPO(beta=0.1), got {shown(expect)}")
    hyper = {field.name: getattr(loss, field.name) for field in fields(loss)}
    return Candidate(loss.name, hyper, AS_IT_IS, UNCHANGED, math.inf)


def _best_way(asked: Target, among: tuple[str, ...] | None, wanted: Candidate | None) -> tuple[Target, list[Judged]]:
    """Judge a target by its batches where a loss of batches fits these, and by its single pairs otherwise."""
    for name in among or ():
        one_of("among", name, (*PAIR_LOSSES, *BATCH_LOSSES))
    of_pairs, of_batches = (
        [name for name in names if among is None or name in among] for names in (PAIR_LOSSES, BATCH_LOSSES)
    )
    if not of_pairs and (asked.of_batches is None or not of_batches):
        got = ", ".join(among or ()) or "none"
        raise ValueError(f"among must name a loss that {asked.name} can be compared with, such as dpo, got {got}")
    if asked.of_batches is not None and of_batches:
        batches = asked.in_batches()
        judged = _with_expected(batches, of_batches, wanted)
        expects_batches = wanted is not None and wanted.name in BATCH_LOSSES
        if any(one.fits for one in judged) or expects_batches or not of_pairs:
            batches.notes.append("The loss of a pair depends on the other pairs of its batch.")
            return batches, judged
        asked.notes.append(
            "The loss of a pair depends on the other pairs of its batch, as in no registered loss of batches; it was "
            "judged by batches of one pair."
        )
    judged = _with_expected(asked, of_pairs, wanted)
    if asked.of_batches is not None:  # the numbers of single pairs may be a loss's, and yet it is another loss
        judged = [_with_words(one, "the loss of a pair depends on the other pairs of its batch") for one in judged]
    return asked, judged


def _with_words(one: Judged, words: str) -> Judged:
    return replace(one, words="; ".join(filter(None, (one.words, words))))


def _with_expected(asked: Target, names: Sequence[str], wanted: Candidate | None) -> list[Judged]:
    """Return the losses of these names that fit or are near, after the one that is expected."""
    search = Search(asked.questions, asked.got)
    judged = _judged(asked, search, names)
    if wanted is None:
        return judged
    of_batches = wanted.name in BATCH_LOSSES
    if of_batches == asked.questions.batches:
        return [_judge(asked, search, wanted), *judged]
    words = "its value of a pair depends on the batch, and the target's does not"
    if not of_batches:
        words = "the target's value of a pair depends on the batch, and its own does not"
    return [Judged(wanted, math.nan, math.nan, math.inf, [], "", words), *judged]


def _judged(asked: Target, search: Search, names: Sequence[str]) -> list[Judged]:
    """Return the losses that fit, the simplest first; or else, the nearest first, losses with one change."""
    plain = []
    for name in names:
        coarse = sorted(search.coarse(name, changed=False), key=lambda one: one.distance)[:2]
        if coarse:
            plain.append(min(_refined(search, coarse), key=lambda one: one.distance))
    judged = [_judge(asked, search, candidate) for candidate in plain if not _is_limit(candidate)]
    fitting = [one for one in judged if one.fits]
    if fitting:
        return sorted(fitting, key=lambda one: len(one.candidate.hyper))  # stable: then as registered
    changed = [one for name in names for one in _best_of_each(search.coarse(name, changed=True))]
    changed = _refined(search, sorted(changed, key=lambda one: one.distance)[: 2 * KEPT])
    changed = [replace(one, change=UNCHANGED) if search.trivial(one) else one for one in changed]
    others = [_judge(asked, search, candidate) for candidate in changed]
    judged += [one for one in others if one.units <= UNITS or one.candidate.change.name not in PARTS]
    return _by_loss(judged)[:KEPT]


def _is_limit(candidate: Candidate) -> bool:
    """Return whether a hyper-parameter is next to 0: a loss that is another one there has a plainer name."""
    return any(0 < abs(value) < LIMIT for value in candidate.hyper.values())


def _refined(search: Search, candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return candidates with the numbers that fit best; once a change explains all, the others stay as they are."""
    refined: list[Candidate] = []
    for one in candidates:
        done = any(other.distance < EXACT and other.change.name not in PARTS for other in refined)
        refined.append(one if done else search.refined(one))
    return refined


def _best_of_each(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the best candidate for each change and reading."""
    best: dict[tuple[str, str], Candidate] = {}
    for one in candidates:
        key = (one.reading.name, one.change.name)
        if key not in best or one.distance < best[key].distance:
            best[key] = one
    return list(best.values())


def _by_loss(judged: list[Judged]) -> list[Judged]:
    """Return the nearest of each loss, the nearest first; a change that explains all goes before one that does not."""
    best: dict[str, Judged] = {}
    for one in sorted(judged, key=_order):
        best.setdefault(one.candidate.name, one)
    return list(best.values())


def _order(one: Judged) -> tuple[int, float, int]:
    changes = (one.candidate.reading is not AS_IT_IS) + (one.candidate.change is not UNCHANGED)
    return one.rank, changes if one.rank < 3 else one.candidate.distance, len(one.candidate.hyper)


def _judge(asked: Target, search: Search, candidate: Candidate) -> Judged:
    """Return how far the target is from a candidate."""
    function = candidate.read()
    want = asked.questions.numbers(function).table()
    got, words = search.got, candidate.reading.words
    kind = torch.finfo(DTYPES[asked.dtype])
    unit = asked.questions.units(function)
    changed, more = candidate.change.apply(want, got)
    with np.errstate(all="ignore"):
        larger = [[max(1.0, median(np.abs(row)))] for row in changed / want]
    unit = unit * np.array(larger)  # of a factor
    words = "; ".join(filter(None, (words, more)))
    judgeable = np.isfinite(changed) & (np.abs(changed) < kind.max) & np.isfinite(unit)
    error = np.where(np.isfinite(got) & judgeable, np.abs(got - changed), 0.0)
    with np.errstate(all="ignore"):
        units = np.maximum(error - asked.slack, 0.0) / (kind.eps * np.where(np.isfinite(unit), unit, 1.0) + kind.tiny)
    by_pair = units.max(axis=0)
    outside = _named(asked, by_pair > UNITS)
    lost = (np.isinf(asked.got.table()) & judgeable).any(axis=0)
    apart = _named(asked, (by_pair > UNITS) | lost)
    said = ""
    if len(apart) <= FEW * len(by_pair):
        said = f"they agree except at: {', '.join(apart)}" if apart else ""
    elif lost.sum() > FEW * len(by_pair):
        words = "; ".join(filter(None, (words, f"it is not finite at {lost.sum()} of {len(by_pair)} pairs")))
    if outside:
        words, said = "; ".join(filter(None, (words, said))), ""
    return Judged(
        candidate, float(error[0].max()), float(error[1:].max()), float(by_pair.max()), outside,
        asked.questions.names[int(by_pair.argmax())] if outside else "", words, said,
    )  # fmt: skip


def _named(asked: Target, where: np.ndarray) -> list[str]:
    return [asked.questions.names[place] for place in np.flatnonzero(where)]


def _row(one: Judged) -> tuple[Any, ...]:
    loss = one.candidate.loss()
    words = one.departs or ("" if one.fits else "other numbers")
    return (
        one.candidate.name, hyper_text(one.candidate.hyper), words, one.fits, one.value_error, one.slope_error,
        one.units, one.worst, loss.convention, "; ".join(_presets(loss, one.candidate.hyper)) if one.fits else "",
    )  # fmt: skip


def hyper_text(hyper: Mapping[str, Any]) -> str:
    """Return hyper-parameters as ``beta=0.1, gamma=0.5``."""
    return ", ".join(f"{key}={value:.6g}" for key, value in hyper.items())


def _presets(loss: Any, hyper: Mapping[str, Any]) -> list[str]:
    """Return under which names a loss with these hyper-parameters is known."""
    default = maker(loss.name)()
    known = {"published": loss.published, **{f"{one.library} {one.key}": one.hyper for one in loss.shipped}}
    return [
        name for name, given in known.items()
        if all(math.isclose(hyper[key], given.get(key, getattr(default, key)), rel_tol=1e-9) for key in hyper)
        and (given or name != "published")
    ]  # fmt: skip


def _notes(asked: Target) -> list[str]:
    table = asked.got.table()
    notes = list(asked.notes)
    if np.isnan(table[1:]).all():
        notes.append("It gives no slopes: only its value is judged.")
    lost = _named(asked, np.array(np.isinf(table).any(axis=0)))
    if lost:
        notes.append(f"It is not finite at: {', '.join(dict.fromkeys(lost))}.")
    return notes


def _summary(judged: list[Judged], wanted: Candidate | None) -> str:
    """Return what was found, in one or two sentences."""
    said = ""
    if wanted is not None:
        first, *judged = judged
        if first.fits:
            return f"It is {_called(wanted)}, as expected{', where it is finite' if first.lost else ''}."
        said = f"It is not {_called(wanted)}{f': {first.words}' if math.isnan(first.value_error) else ''}. "
    best = judged[0]
    if best.fits:
        others = [_called(one.candidate) for one in judged[1:] if one.fits]
        also = f"; so do {', '.join(others)}" if others else ""
        because = _relation(wanted, best.candidate) if wanted is not None else ""
        return f"{said}{_called(best.candidate)} fits{because}{also}."
    if best.rank < 3:
        return f"{said}No loss fits as it is. Nearest: {_called(best.candidate)}, but {best.words}."
    return (
        f"{said}No loss fits. Nearest: {_called(best.candidate)}{f', where {best.words}' if best.words else ''}; "
        f"it is off by up to {best.value_error:.3g} in value and {best.slope_error:.3g} in slopes, most at "
        f"{best.worst!r}."
    )


def _called(candidate: Candidate) -> str:
    return f"{candidate.name}({hyper_text(candidate.hyper)})"


def _relation(wanted: Candidate, fitted: Candidate) -> str:
    """Return how the hyper-parameters that fit come about from those that were expected, if that is plain."""
    if wanted.name != fitted.name:
        return ""
    said = []
    for key, value in fitted.hyper.items():
        first = wanted.hyper[key]
        if math.isclose(value, first, rel_tol=1e-6, abs_tol=1e-9):
            continue
        ways = {
            f"{key} / {other}": first / number for other, number in wanted.hyper.items() if number and other != key
        } | {f"{key} × {other}": first * number for other, number in wanted.hyper.items() if other != key}
        ways |= {f"1 / (2 {key})": 0.5 / first} if first else {}
        ways |= {f"2 {key}": 2 * first, f"{key} / 2": first / 2, f"-{key}": -first, f"1 - {key}": 1 - first}
        way = next((name for name, number in ways.items() if math.isclose(value, number, rel_tol=1e-6)), None)
        said.append(f"{key} acts as {way}" if way else f"{key} acts as {value:.6g}")
    return f" ({', '.join(said)})" if said else ""

"""Find the hyper-parameters, and the plain changes, with which a loss gives somebody's numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, get_type_hints

import numpy as np
import torch

from gradlab.conformance.numbers import Function, Numbers, Questions, median
from gradlab.losses import BATCH_LOSSES, PAIR_LOSSES, PairLogps

BETA_FACTORS = (1.0, 0.01, 0.03, 0.1, 0.3, 3.0, 10.0, 100.0)  # a preset's β is tried times these
DECADES = 2.0  # a hyper-parameter on a logarithmic slider is sought so far beyond the slider's ends
EXACT, NEAR = 1e-24, 1e-2  # distances: below the first is rounding, below the second is worth a second fit
MOST = 0.9  # the share of a target's numbers that a fit is judged by: the others may be departures


@dataclass(frozen=True)
class Reading:
    """A way in which a trainer may read a pair: the loss gets other log-probabilities than it asks for."""

    name: str
    words: str
    read: Callable[[PairLogps], PairLogps]


def _averaged(pairs: PairLogps) -> PairLogps:
    win, lose = pairs.lengths("an average over tokens")
    one = torch.ones_like(win)
    return PairLogps(pairs.win / win, pairs.lose / lose, pairs.ref_win / win, pairs.ref_lose / lose, one, one)


def _summed(pairs: PairLogps) -> PairLogps:
    one = torch.ones_like(pairs.win)
    return replace(pairs, win_len=one, lose_len=one)


def _without_reference(pairs: PairLogps) -> PairLogps:
    return replace(pairs, ref_win=torch.zeros_like(pairs.win), ref_lose=torch.zeros_like(pairs.lose))


AS_IT_IS = Reading("", "", lambda pairs: pairs)
READINGS = (
    AS_IT_IS,
    Reading("averaged", "log-probabilities are averaged over tokens", _averaged),
    Reading("summed", "log-probabilities are summed over tokens, not averaged", _summed),
    Reading("swapped", "winner and loser are exchanged", lambda pairs: pairs.swapped()),
    Reading("no reference", "the reference is left out", _without_reference),
)


def readings_of(loss: Any, *, lengths: bool) -> Iterator[Reading]:
    """Yield the readings that differ for a loss; ``lengths``: the pairs have them."""
    for reading in READINGS:
        unneeded = {"averaged": loss.needs_lengths or not lengths, "summed": not loss.needs_lengths,
                    "no reference": not loss.needs_reference}  # fmt: skip
        if not unneeded.get(reading.name, False):
            yield reading


@dataclass(frozen=True)
class Change:
    """A plain change of a loss's numbers: a factor or a constant that is chosen to fit, or a sign."""

    name: str
    apply: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, str]]
    """Takes a loss's numbers and the target's, (3, pairs) each; returns the former changed, and words."""


def _offset(want: np.ndarray, got: np.ndarray) -> tuple[np.ndarray, str]:
    constant = median(got[0] - want[0])
    return np.stack([want[0] + constant, *want[1:]]), f"the value is {constant:+.6g} off everywhere; slopes agree"


def _factor(want: np.ndarray, got: np.ndarray) -> tuple[np.ndarray, str]:
    factor = _ratio(got, want)
    return factor * want, f"value and slopes are {factor:.6g} times as large"


def _slopes(sign: float, words: str) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, str]]:
    return lambda want, got: (np.stack([want[0], *(sign * want[1:])]), words)


def _value_free(want: np.ndarray, got: np.ndarray) -> tuple[np.ndarray, str]:
    return np.stack([got[0], *want[1:]]), "only the slopes agree"


def _slopes_free(want: np.ndarray, got: np.ndarray) -> tuple[np.ndarray, str]:
    return np.stack([want[0], *got[1:]]), "only the value agrees"


def _slope_factor(want: np.ndarray, got: np.ndarray) -> tuple[np.ndarray, str]:
    factor = _ratio(got[1:], want[1:])
    return np.stack([want[0], *(factor * want[1:])]), f"the slopes are {factor:.6g} times as large; the value agrees"


def _held(side: int, words: str) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, str]]:
    def apply(want: np.ndarray, got: np.ndarray) -> tuple[np.ndarray, str]:
        changed = want.copy()
        changed[side] = 0.0
        return changed, words

    return apply


def trimmed(residual: np.ndarray) -> float:
    """Return the mean square of the smallest residuals, a share ``MOST`` of them."""
    squares = np.sort(residual**2)
    return float(squares[: max(1, int(MOST * len(squares)))].mean())


UNCHANGED = Change("", lambda want, got: (want, ""))
CHANGES = (
    UNCHANGED,
    Change("constant", _offset),
    Change("factor", _factor),
    Change("slopes negated", _slopes(-1.0, "the slopes have the opposite sign; the value agrees")),
    Change("slope factor", _slope_factor),
    Change("loser detached", _held(2, "no gradient flows through the loser")),
    Change("winner detached", _held(1, "no gradient flows through the winner")),
    Change("slopes alone", _value_free),
    Change("value alone", _slopes_free),
)
PARTS = ("slopes alone", "value alone")  # changes that explain only a part


def _ratio(got: np.ndarray, want: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        large = np.abs(want) > 1e-3 * median(np.abs(want))
        ratio = median((got / want)[large])
    return ratio if ratio else 1.0


@dataclass(frozen=True)
class Candidate:
    """A loss with hyper-parameters, a reading and a change, and how far that is from the target's numbers."""

    name: str
    hyper: Mapping[str, Any]
    reading: Reading
    change: Change
    distance: float
    """The mean squared difference of asinh(number / typical size), without the tenth that differs most."""

    def loss(self) -> Any:
        """Return the loss with its hyper-parameters."""
        return maker(self.name)(**self.hyper)

    def read(self) -> Function:
        """Return the loss as a function of the pairs as they are given to the target."""
        loss = self.loss()
        return lambda pairs: loss(self.reading.read(pairs))

    @property
    def plain(self) -> bool:
        """Return whether nothing is changed."""
        return self.reading is AS_IT_IS and self.change is UNCHANGED


class Search:
    """A search for the losses that give a target's numbers, at the pairs that the target was asked about."""

    def __init__(self, questions: Questions, got: Numbers) -> None:
        self.questions, stated = questions, got.table()
        self.known = np.isfinite(stated)
        self.got = np.where(self.known, stated, np.nan)
        self.sizes = np.array([[median(np.abs(row)) or 1.0] for row in self.got])
        self.squeezed = np.arcsinh(np.where(self.known, self.got, 0.0) / self.sizes)

    def residual(self, name: str, hyper: Mapping[str, Any], reading: Reading, change: Change) -> np.ndarray:
        """Return the differences of a candidate's numbers; large ones where it has no value."""
        return self.compared(self.wanted(name, hyper, reading), change)

    def wanted(self, name: str, hyper: Mapping[str, Any], reading: Reading) -> np.ndarray | None:
        """Return a candidate's numbers before any change, (3, pairs); None for hyper-parameters that it refuses."""
        try:
            loss = maker(name)(**hyper)
            return self.questions.numbers(lambda pairs: loss(reading.read(pairs))).table()
        except ValueError:
            return None

    def compared(self, want: np.ndarray | None, change: Change) -> np.ndarray:
        """Return the differences from the target, of the numbers that the target has."""
        if want is None:
            return np.full(int(self.known.sum()), 1e3)
        want, _ = change.apply(want, self.got)
        squeezed = np.arcsinh(np.clip(np.nan_to_num(want, nan=1e300), -1e300, 1e300) / self.sizes)
        return (squeezed - self.squeezed)[self.known]

    def coarse(self, name: str, *, changed: bool) -> Iterator[Candidate]:
        """Yield candidates of one loss at its presets, and at other β; ``changed``: also read and changed otherwise."""
        loss = maker(name)()
        lengths = self.questions.pairs.win_len is not None
        readings = list(readings_of(loss, lengths=lengths)) if changed else [AS_IT_IS]
        if loss.needs_lengths and not lengths:
            readings = [reading for reading in readings if reading.name == "summed"]
        for hyper, reading in itertools.product(starts(name), readings):
            want = self.wanted(name, hyper, reading)
            for change in CHANGES if changed else CHANGES[:1]:
                if want is not None and not (changed and reading is AS_IT_IS and change is UNCHANGED):
                    yield Candidate(name, hyper, reading, change, trimmed(self.compared(want, change)))

    def refined(self, start: Candidate) -> Candidate:
        """Return a candidate with the hyper-parameters that fit best, as short as the numbers allow."""
        ranges = hyper_ranges(start.name)
        if not ranges or start.distance < EXACT:
            return start
        from scipy.optimize import least_squares  # not at the top: it takes a while to import

        coded = [_Coded(key, *ranges[key]) for key in ranges]

        def hyper(numbers: np.ndarray) -> dict[str, Any]:
            return {**start.hyper, **{one.key: one.decode(number) for one, number in zip(coded, numbers, strict=True)}}

        def residual(numbers: np.ndarray) -> np.ndarray:
            return self.residual(start.name, hyper(numbers), start.reading, start.change)

        low, high = (
            np.array([one.encode(end) for one in coded for end in one.ends[place : place + 1]]) for place in (0, 1)
        )
        first = np.clip([one.encode(start.hyper[one.key]) for one in coded], low + 1e-9, high - 1e-9)
        ends: dict[str, Any] = {"bounds": (low, high), "xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15, "max_nfev": 60}
        found = least_squares(residual, first, loss="soft_l1", f_scale=0.03, **ends).x
        left = np.abs(residual(found))
        if EXACT < trimmed(left) < NEAR:  # a few pairs may spoil the others: without the worst
            kept = left <= np.quantile(left, MOST)
            found = least_squares(lambda numbers: residual(numbers)[kept], found, **ends).x
        fitted = replace(start, hyper=hyper(found), distance=trimmed(residual(found)))
        short = self.shortened(fitted, coded)
        return short if short.distance <= start.distance else start

    def trivial(self, candidate: Candidate) -> bool:
        """Return whether a change leaves the loss's numbers as they are, such as a factor of 1."""
        want = self.wanted(candidate.name, candidate.hyper, candidate.reading)
        if want is None or candidate.change is UNCHANGED:
            return False
        changed = candidate.change.apply(want, self.got)[0]
        return candidate.change.name not in PARTS and np.allclose(changed, want, rtol=1e-9, atol=1e-12, equal_nan=True)

    def shortened(self, fitted: Candidate, coded: list[_Coded]) -> Candidate:
        """Return the candidate with the fewest digits that are not worse."""
        bound = max(4 * fitted.distance, 1e-20)
        for digits in range(1, 9):
            hyper = {**fitted.hyper, **{one.key: one.rounded(fitted.hyper[one.key], digits) for one in coded}}
            residual = self.residual(fitted.name, hyper, fitted.reading, fitted.change)
            if trimmed(residual) <= bound:
                return replace(fitted, hyper=hyper, distance=trimmed(residual))
        return fitted


class _Coded:
    """A hyper-parameter as the search moves it: by its logarithm where its slider does."""

    def __init__(self, key: str, low: float, high: float, log: bool) -> None:
        self.key, self.ends, self.log = key, (low, high), log

    def encode(self, value: float) -> float:
        return math.log(value) if self.log else float(value)

    def decode(self, number: float) -> float:
        return math.exp(number) if self.log else float(number)

    def rounded(self, value: float, digits: int) -> float:
        if value == 0:
            return value
        size = math.floor(math.log10(abs(value)))
        short = round(value, digits - 1 - (size if self.log or abs(value) > 1 else -1))
        return min(max(short, self.ends[0]), self.ends[1]) + 0.0


def maker(name: str) -> Callable[..., Any]:
    """Return the class of a registered loss, of pairs or of batches."""
    return PAIR_LOSSES[name] if name in PAIR_LOSSES else BATCH_LOSSES[name]


def settled(name: str) -> tuple[str, ...]:
    """Return the hyper-parameters that a registered name settles, as nbdpo-symmetric settles ``symmetric``."""
    make: Any = maker(name)
    return tuple(make.keywords) if isinstance(make, partial) else ()


def starts(name: str) -> list[dict[str, Any]]:
    """Return the hyper-parameters at which the search begins: the presets of a loss, each also with other β."""
    loss = maker(name)()
    default = {field.name: getattr(loss, field.name) for field in fields(loss) if field.name not in settled(name)}  # type: ignore[arg-type]
    kinds = get_type_hints(type(loss))
    presets = [default, *({**default, **given} for given in (loss.published, *(one.hyper for one in loss.shipped)))]
    flags = [key for key in default if kinds[key] is bool]
    found: list[dict[str, Any]] = []
    for preset, chosen in itertools.product(presets, itertools.product((False, True), repeat=len(flags))):
        for factor in BETA_FACTORS if "beta" in preset else (1.0,):
            hyper = {**preset, **dict(zip(flags, chosen, strict=True))}
            hyper |= {"beta": hyper["beta"] * factor} if "beta" in preset else {}
            if hyper not in found:
                found.append(hyper)
    return found


def hyper_ranges(name: str) -> dict[str, tuple[float, float, bool]]:
    """Return low, high and whether on a logarithmic scale, for each hyper-parameter that is a float of a loss."""
    loss = maker(name)()
    kinds = get_type_hints(type(loss))
    ranges = {}
    for field in fields(loss):  # type: ignore[arg-type]
        if kinds[field.name] is not float or field.name in settled(name):
            continue
        default, stops = getattr(loss, field.name), field.metadata.get("slider")
        if stops is not None and stops.log:
            ranges[field.name] = (10 ** (stops.low - DECADES), 10 ** (stops.high + DECADES), True)
            continue
        low, high = (stops.low, stops.high) if stops is not None else (default - 1, default + 1)
        span = high - low
        ranges[field.name] = (
            _edge(loss, field.name, default, low - span), _edge(loss, field.name, default, high + 4 * span), False,
        )  # fmt: skip
    return ranges


def _edge(loss: Any, key: str, inside: float, outside: float) -> float:
    """Return the number nearest to ``outside`` that a loss accepts, by bisection; a short number if it accepts that."""
    if _accepts(loss, key, outside):
        return outside
    for _ in range(40):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if _accepts(loss, key, middle) else (inside, middle)
    return round(inside, 9) if _accepts(loss, key, round(inside, 9)) else inside


def _accepts(loss: Any, key: str, value: float) -> bool:
    try:
        replace(loss, **{key: value})
    except ValueError:
        return False
    return True

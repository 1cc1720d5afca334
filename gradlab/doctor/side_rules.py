"""Rules on the two responses of a pair: log-probabilities that fall and why, and weights at their ends."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gradlab.doctor.curves import Curve, Log, tail
from gradlab.doctor.findings import Seen, Unjudged
from gradlab.doctor.rule import Rule, rule
from gradlab.doctor.thresholds import (
    DEEP_FALL,
    DISPLACED,
    EDGE,
    EDGE_MOST,
    EDGE_PAIRS,
    FALL,
    FALL_ERRORS,
    FALL_REWARD,
    ROWS,
)

_QUANTILES = {"win_weight_q10": 0.1, "win_weight_q50": 0.5, "win_weight_q90": 0.9}
_WIDER = "a larger clip{averaged}."
_LESS_EXTREME = (
    "see how λ_w goes with length (win_weight_length_correlation), and whether the log-probabilities of one side have "
    "collapsed; a fixed weight as control{averaged}."
)
_AVERAGED = ", or log-probabilities averaged over tokens, which differ less"  # unless they are


@rule("both-falling", "log-probabilities of both sides falling")
def both_falling(log: Log, _: Log | None) -> Iterator[Seen]:
    """Find log-probabilities of winners and losers that both fall: by their rewards, or else by themselves."""
    rewards, logps = _falls_by_reward(log), _falls_by_logp(log)
    seen = rewards or logps
    if seen is None:
        raise Unjudged(f"the log has neither rewards nor log-probabilities of both sides in {ROWS} rows or more")
    if not seen.both():
        return
    if logps is not None and seen.unit != "nats" and logps.both():
        seen = logps
    win, lose, unit = seen.win, seen.lose, seen.unit
    logp = log.curve("logp_win").values
    level = abs(float(logp[: tail(len(logp))].mean())) if len(logp) else math.nan
    level *= seen.tokens
    deep = unit == "nats" and win > DEEP_FALL * level
    share = f" (of {level:.3g})" if unit == "nats" and level == level else ""
    times = seen.times
    faster = "the losers' faster, so that the margin grows" if lose > win else "the winners' as fast or faster"
    yield Seen(
        "warning" if deep or lose <= win else "note",
        f"log π of the winners has fallen by {win:.3g} {unit}{share}, of the losers by {lose:.3g}{times}: {faster}. "
        "This is common for DPO, which trains the difference alone (likelihood displacement: Razin et al. 2024, arXiv "
        "2410.08847); what gains probability is neither response.",
        seen.end.where(),
        "look at samples before worrying. A larger β, a lower learning rate or fewer steps; a likelihood term for the "
        "winners (TRL: loss_type with sft, formerly rpo_alpha); drop pairs whose two responses are nearly alike.",
    )


class _Falls(NamedTuple):
    """The falls of the two sides' log-probabilities, per response."""

    win: float
    lose: float
    least: float  # the smallest fall that counts
    unit: str
    end: Curve  # the last part of the log, which shows the fall
    tokens: float  # of a response, by which the log's means over tokens are multiplied; 1 where the log has sums

    @property
    def times(self) -> str:
        """Return by what the log's numbers are multiplied, in words."""
        return "" if self.tokens == 1 else f" (means over tokens, times the {self.tokens:.4g} tokens of a response)"

    def both(self) -> bool:
        return self.win > self.least and self.lose > self.least


def _tokens(log: Log) -> float:
    """Return the factor that makes the log's log π those of whole responses; raise Unjudged where it is not known."""
    if log.settings.get("reduction") != "mean":
        return 1.0
    tokens = log.number("response_tokens")
    if tokens is None:
        raise Unjudged(
            "the log's log π are means over tokens, of which a fall per response cannot be told: its settings have no "
            "response_tokens, the mean length"
        )
    return tokens


def _falls_by_reward(log: Log) -> _Falls | None:
    """Return the falls by the implicit rewards β h, which compare each pair with itself; None without rewards."""
    win, lose = (log.curve(name) for name in ("reward_win", "reward_lose"))
    if min(len(win.steps), len(lose.steps)) < ROWS:
        return None
    beta, tokens = log.number("beta"), _tokens(log)
    falls = []
    for curve in (win, lose):
        first = curve.values[0] if curve.steps[0] <= 1 else 0.0
        falls.append(tokens * float(first - curve.late().values.mean()) / (beta or 1))
    least, unit = (FALL, "nats") if beta else (FALL_REWARD, "nats × β, which the log does not tell")
    return _Falls(falls[0], falls[1], least, unit, win.late(), tokens)


def _falls_by_logp(log: Log) -> _Falls | None:
    """Return the falls by the log-probabilities, against their changes from batch to batch; None without them."""
    falls, least, late, tokens = [], FALL, Curve(np.empty(0), np.empty(0)), 1.0
    for name in ("logp_win", "logp_lose"):
        curve = log.curve(name)
        if len(curve.steps) < ROWS:
            return None
        rows = tail(len(curve.steps))
        tokens = _tokens(log)
        early, late = tokens * curve.values[:rows], curve.last(rows)
        ended = tokens * late.values
        falls.append(float(early.mean() - ended.mean()))
        least = max(least, FALL_ERRORS * math.hypot(early.std(), ended.std()) / math.sqrt(rows))
    return _Falls(falls[0], falls[1], least, "nats", late, tokens)


_SIDES = ("grad_norm_win", "grad_norm_lose", "grad_cosine")
_BAND = "the band of Chen et al. 2026 (arXiv 2604.18239)"
_LIMITS = (
    "Of a batch the band speaks of the sum of log π weighted by slopes, not of the mean; under Adam it is an "
    "association, since it counts with plain gradients."
)


@rule("displacement", "winners that fall: displacement by their losers, or drift")
def displacement(log: Log, _: Log | None) -> Iterator[Seen]:
    """Tell winners that the losers' gradient pushes down (R < −C) from winners that fall for other reasons."""
    seen = _falls_by_reward(log) or _falls_by_logp(log)
    if seen is None:
        raise Unjudged(f"the log has neither rewards nor log-probabilities of both sides in {ROWS} rows or more")
    if seen.win <= seen.least:
        return
    steps, win = band_moves(log)
    below = int((win < 0).sum())
    fallen = f"log π of the winners has fallen by {seen.win:.3g} {seen.unit}{seen.times}. "
    limits = _realised(log, steps, win) + _LIMITS
    if below >= DISPLACED * len(win):
        yield Seen(
            "warning",
            fallen + f"In {below} of the {len(win)} steps that compare the sides, R = ‖g_w‖/‖g_l‖ lies below −C, the "
            "negative of their cosine: there the losers' gradient moves the winners further down than their own moves "
            f"them up. That is displacement ({_BAND}). " + limits,
            Curve(steps, win).where(),
            "more weight on the winners' side, until R > −C: a likelihood term for the winners (dpop, cpo, TRL's sft), "
            "or dpo-shift; drop pairs whose two responses are nearly alike, whose C is near −1.",
        )  # fmt: skip
    else:
        yield Seen(
            "note",
            fallen + f"Yet in {len(win) - below} of the {len(win)} steps that compare the sides, R = ‖g_w‖/‖g_l‖ lies "
            f"above −C, the negative of their cosine: to first order, a step's own pairs raise its winners ({_BAND}). "
            "So their losers do not explain the fall. It is drift: other steps' pairs, momentum, the optimiser's "
            "scaling, weight decay. " + limits,
            Curve(steps, win).where(),
            "a lower learning rate, larger batches or fewer steps, before a loss that re-weights the two sides.",
        )  # fmt: skip


def band_moves(log: Log) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps that compare the sides, and R + C there: above 0 where the step should raise the winners.

    Steps at which the mean slope does not pull winners up and push losers down are left out: the band is not about
    them. Raises Unjudged where fewer than ``ROWS`` steps are left.
    """
    from gradlab.theory.band import side_moves  # not at the top: scipy takes a moment, and most logs lack the columns

    columns = np.array([log.columns.get(name, np.full(len(log.steps), math.nan)) for name in _SIDES])
    win, lose, cosine = columns
    there = np.isfinite(columns).all(0) & (win > 0) & (lose > 0) & (np.abs(cosine) <= 1)
    for name, sign in (("slope_win", -1), ("slope_lose", 1)):
        if name in log.columns:
            there &= ~(sign * log.columns[name] < 0)
    if there.sum() < ROWS:
        raise Unjudged(
            f"the log has {', '.join(_SIDES)} in {int(there.sum())} steps with slopes of the usual signs; {ROWS} are "
            "needed (gradlab train: --log.sides-every)"
        )
    return log.steps[there], side_moves(win[there], lose[there], cosine[there])[0]


def _realised(log: Log, steps: np.ndarray, win: np.ndarray) -> str:
    """Return how often the winners' mean log π moved as the band says, in words; "" where the log does not tell."""
    curve = log.curve("delta_win")
    common, mine, theirs = np.intersect1d(steps, curve.steps, return_indices=True)
    if len(common) < ROWS:
        return ""
    agree = float(((win[mine] > 0) == (curve.values[theirs] > 0)).mean())
    return f"The mean log π of a step's winners moved as the band says in {agree:.0%} of {len(common)} steps. "


@rule("weight-at-edge", "λ_w at its floor or ceiling")
def weight_at_edge(log: Log, _: Log | None) -> Iterator[Seen]:
    """Find weights λ_w at an end of their range for most of the pairs."""
    if log.facts.constant_weight:
        raise Unjudged(f"λ_w is constant for the loss {log.loss}")
    names = [name for name in ("win_weight", *_QUANTILES) if len(log.curve(name).steps)]
    if not names:
        raise Unjudged("the log has no win_weight")
    floor, ceiling, bounds = weight_range(log)
    low, high = _share_at(log, [name for name in names if name in _QUANTILES] or names, floor, ceiling)
    if not low + high >= EDGE_PAIRS:
        return
    averages = log.settings.get("reduction") == "mean"
    clipped = (floor, ceiling) != (0.0, 1.0)  # both sides keep a gradient at an end
    means = ", ".join(f"{name.removeprefix('win_weight_')} {_late(log, name):.4g}" for name in names)
    why = f"{'The winners' if low >= high else 'The losers'} hardly get a gradient."
    if clipped:
        why = f"The {'clip' if log.number('clip') else 'range'} decides: λ says only which side is more probable."
    yield Seen(
        "problem" if not clipped and max(low, high) >= EDGE_MOST else "warning",
        f"λ_w lies at an end of its range, {bounds}, for at least {min(low + high, 1):.0%} of the pairs: {low:.0%} at "
        f"the floor, {high:.0%} at the ceiling ({means.replace('win_weight', 'mean')}). " + why,
        log.curve(names[0]).late().where(),
        (_WIDER if clipped else _LESS_EXTREME).format(averaged="" if averages else _AVERAGED),
    )


def weight_range(log: Log) -> tuple[float, float, str]:
    """Return the least and the largest λ_w that the loss allows, and both in words."""
    if log.facts.unknown:
        names = " and no ".join(log.facts.unknown)
        raise Unjudged(f"the settings name no {names}, which sets the ends of λ_w for the loss {log.loss}")
    floor, ceiling = log.facts.weight_range
    clip = log.number("clip")
    by = f" (clip {clip:g})" if clip is not None and (floor, ceiling) != (0.0, 1.0) else ""
    return floor, ceiling, f"{floor:.4g} to {ceiling:.4g}{by}"


def _share_at(log: Log, names: Sequence[str], floor: float, ceiling: float) -> tuple[float, float]:
    """Return lower bounds on the shares of pairs at the floor and at the ceiling, in the last part of the log."""
    near = EDGE * (ceiling - floor)
    low = high = 0.0
    for name in names:
        curve = log.curve(name)
        values = curve.late().values
        below, above = (_QUANTILES[name], 1 - _QUANTILES[name]) if name in _QUANTILES else (EDGE_MOST, EDGE_MOST)
        low = max(low, below * float((values <= floor + near).mean()))
        high = max(high, above * float((values >= ceiling - near).mean()))
    return low, high


def _late(log: Log, name: str) -> float:
    return float(log.curve(name).late().values.mean())


RULES: tuple[Rule, ...] = (both_falling, displacement, weight_at_edge)

"""The doctor: looks through a preference-training log, ours or TRL's, for the known signatures of failure."""

from __future__ import annotations

import math
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, SupportsIndex

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from gradlab.trainlog import COLUMNS

Severity = Literal["problem", "warning", "note"]
_ORDER: tuple[Severity, ...] = ("problem", "warning", "note")
LN2 = math.log(2)

# What is looked for, and what the report calls it; "log" is about the file itself.
SIGNS: dict[str, str] = {
    "not-finite": "numbers that are not finite, or underflow to 0",
    "far-reference": "a reference far from the start",
    "stuck": "a loss stuck where it starts (ln 2)",
    "validation-spike": "sudden spikes of the validation loss",
    "overfitting": "overfitting",
    "no-gain": "no gain over chance or the baseline",
    "both-falling": "log-probabilities of both sides falling",
    "weight-at-edge": "λ_w at its floor or ceiling",
}

# Thresholds, all ours. Nats, unless said otherwise.
SPIKE_MULTIPLE = 20.0  # a spike is so many usual changes: 6 standard deviations, if changes are normal
SPIKE_FLOOR = 0.1  # and at least this: a seventh of ln 2, which no single evaluation should cost
SPIKE_SUDDEN = 3.0  # and so many times the rise just before it: what grows by degrees is no spike
SPIKE_USUAL = 0.25  # the usual change is this quantile of |changes|: a run may spike often, and still be caught
SPIKE_EVALUATIONS = 6  # fewer show no usual change
EDGE = 0.02  # λ is at an end of its range within this share of the range
EDGE_PAIRS = 0.55  # and it is worth saying where so many pairs are: the median's half and a tail at the other end
EDGE_MOST = 0.9  # so many at one end are all but all; where there are no quantiles, a mean at the end is this
STUCK = 0.007  # share of the starting value; 0.005 at ln 2, where bfloat16 rounds to 0.0017
STUCK_ROWS = 10  # fewer show no end that stays where it is
TRAINED = 30  # steps; before that, a warm-up alone looks like a loss that is stuck, or like no gain
START_WARNING, START_PROBLEM = 0.07, 0.3  # share of the starting value: 0.05 and 0.2 at ln 2; rounding stays below
REWARD_WARNING, REWARD_PROBLEM = 0.1, 0.5  # |reward| at the first step: dropout can do the first, hardly the second
FALL = 1.0  # a fall of log π that counts: a factor e
FALL_REWARD = 0.1  # the same in rewards where β is not known: TRL's β is 0.1
DEEP_FALL = 0.1  # share of |log π of the winners|: from here on the text they stand for changes visibly
FALL_ERRORS = 3.0  # standard errors: log-probabilities vary from batch to batch with the length of the responses
GAIN_ACCURACY = 0.02  # an accuracy is above another from here on, or from 2 standard errors if those are larger
GAIN_LOSS = 0.01  # a loss is below another from here on: a 70th of ln 2
OVERFIT = 0.02  # rise of the validation loss from its best, and fall of the training loss since: a 35th of ln 2
OVERFIT_CHANGES = 3.0  # and so many usual changes: the best of many noisy values is too good
OVERFIT_EVALUATIONS = 5  # fewer have no best that is not an end
LATE = 3  # evaluations that the end is judged by
ROWS = 5  # rows that a start and an end need

# By the loss's name in the settings. "sigmoid" is TRL's name for DPO; "reference" is the stage that makes one by DPO.
_AT_LN2 = ("dpo", "cdpo", "bdpo", "nbdpo", "nbdpo-symmetric", "fixed-weight", "sigmoid", "reference")
_CONSTANT_WEIGHT = ("dpo", "cdpo", "ipo", "fixed-weight", "sigmoid", "reference")
_NAIVE = ("nbdpo", "nbdpo-symmetric")
_NEVER_LOGISTIC = ("ipo", "ppo", "sft")
_QUANTILES = {"win_weight_q10": 0.1, "win_weight_q50": 0.5, "win_weight_q90": 0.9}
_SERIOUS = ("loss", "reward_win", "reward_lose", "reward_margin", "margin", "logp_win", "logp_lose")  # lost, if NaN
_GRADIENTS = ("grad_norm", "grad_norm_win", "grad_norm_lose", "slope_win", "slope_lose")
# The note of gradlab.trainlog; a test holds the two together.
_STRANGE = re.compile(r"^(\w+) is not finite, first at (.+)$")


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor saw, or could not judge."""

    sign: str
    """What it is a sign of: a key of ``SIGNS``, or ``log`` for what is to be said about the file."""
    severity: Severity
    """``problem``: the run is broken; ``warning``: look at it; ``note``: good to know."""
    what: str
    """What was seen, with numbers; or why it cannot be judged."""
    where: str = ""
    """The step, or the range of steps; empty where it is the whole log."""
    try_this: str = ""
    """What to do about it."""
    judged: bool = True
    """False: this log does not hold what the sign is judged by."""


class _Curve(NamedTuple):
    """What is finite of a column."""

    steps: np.ndarray
    values: np.ndarray

    def after(self, step: float) -> _Curve:
        later = self.steps > step
        return _Curve(self.steps[later], self.values[later])

    def last(self, number: int) -> _Curve:
        return _Curve(self.steps[-number:], self.values[-number:])

    def late(self) -> _Curve:
        """Its last part: a fifth, and at least ``LATE`` rows."""
        return self.last(_tail(len(self.steps)))

    def where(self) -> str:
        first, last = _step(self.steps[0]), _step(self.steps[-1])
        return f"step {last}" if first == last else f"steps {first} to {last}"


class _Unjudged(Exception):
    """Why a rule cannot be applied to this log."""


@dataclass(frozen=True)
class _Log:
    """A log, in numbers."""

    columns: Mapping[str, np.ndarray]
    steps: np.ndarray
    settings: Mapping[str, Any]
    notes: Sequence[str]

    @classmethod
    def of(cls, log: pd.DataFrame, which: str = "log") -> _Log:
        """The known columns as floats, in the order of the steps."""
        if "step" not in log:
            raise ValueError(f"{which} must have a column step, got {', '.join(map(str, log.columns)) or 'none'}")
        steps = _floats(log, "step")
        order = np.argsort(steps, kind="stable")
        order = order[np.isfinite(steps[order])]
        known = [name for name in dict.fromkeys(log.columns) if isinstance(name, str) and _base(name) in COLUMNS]
        settings, notes = log.attrs.get("settings"), log.attrs.get("notes")
        return cls(
            columns={name: _floats(log, name)[order] for name in known if name != "step"},
            steps=steps[order],
            settings=settings if isinstance(settings, dict) else {},
            notes=[str(note) for note in notes] if isinstance(notes, list) else [],
        )

    def curve(self, name: str) -> _Curve:
        """The finite values of a column; empty where the log has none."""
        values = self.columns.get(name, np.full(len(self.steps), math.nan))
        there = np.isfinite(values)
        return _Curve(self.steps[there], values[there])

    def need(self, name: str, least: int, after: float = -math.inf) -> _Curve:
        """The same, where it has ``least`` values after a step."""
        curve = self.curve(name)
        if not len(curve.steps):
            raise _Unjudged(f"the log has no {name}")
        curve = curve.after(after)
        if len(curve.steps) < least:
            since = f" after step {_step(after)}" if math.isfinite(after) else ""
            raise _Unjudged(f"the log has {len(curve.steps)} of {name}{since}; {least} are needed")
        return curve

    def number(self, key: str) -> float | None:
        """A positive number of the settings."""
        value = self.settings.get(key)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return None
        return float(value) if 0 < value < sys.float_info.max else None

    @property
    def loss(self) -> str | None:
        """The loss's name, where the settings tell."""
        name = self.settings.get("loss")
        return name.lower() if isinstance(name, str) else None

    def start(self) -> tuple[float, str] | None:
        """The loss where policy and reference are one, by the settings, and how it is called."""
        if self.loss in _AT_LN2:
            return LN2, "ln 2"
        beta = self.number("beta")
        if self.loss == "ipo" and beta is not None:
            value = 0.25 / beta / beta
            return (value, f"1/(4β²) = {value:.4g}") if 0 < value < math.inf else None
        return None

    def supposed_start(self) -> tuple[float, str] | None:
        """The same; where the settings do not say, ln 2 if the log begins about there."""
        known = self.start()
        first = self.curve("loss").values[:1]
        if known or self.loss in _NEVER_LOGISTIC or not len(first):
            return known
        return (LN2, "ln 2") if abs(first[0] - LN2) < START_PROBLEM * LN2 else None


def examine(log: pd.DataFrame, baseline: pd.DataFrame | None = None) -> list[Finding]:
    """What a training log shows of the known signatures of failure, the worst first; ``SIGNS`` lists them.

    log       a frame as ``gradlab.trainlog.read_log`` gives it: ``step`` and any of ``COLUMNS``. What is absent is
              not judged, and said so. ``attrs`` may hold settings: loss, beta, clip, validation_pairs,
              length_baseline (the accuracy of "prefer the shorter answer"), init ("base": the run does not start at
              its reference).
    baseline  the log of a run to compare with; left out: chance.

    A NaN in a frame is taken for an absent value, except where read_log's notes say that the file has one.
    ValueError for a frame without ``step``. Thresholds are the constants of this module, and ours.
    """
    with np.errstate(all="ignore"):  # numbers may be huge
        read = _Log.of(log)
        other = _Log.of(baseline, "baseline") if baseline is not None else None
        findings = [*_about_the_file(read), *_about_the_file(other, "baseline: ")]
        for sign, rule in _RULES:
            try:
                for seen in rule(read, other):  # one by one: what was seen stays, where a rule then gives up
                    findings.append(Finding(sign, *seen))  # noqa: PERF401
            except _Unjudged as reason:
                findings.append(Finding(sign, "note", str(reason), judged=False))
    signs = [*SIGNS, "log"]
    return sorted(findings, key=lambda one: (not one.judged, _ORDER.index(one.severity), signs.index(one.sign)))


def report(findings: Sequence[Finding], width: int = 100) -> str:
    """The findings as text for a terminal: each with what to try, then what is not judged, then what is fine."""
    lines = []
    seen, unjudged = [one for one in findings if one.judged], [one for one in findings if not one.judged]
    for one in seen:
        title = SIGNS.get(one.sign, "about the file")
        lines.append(f"{one.severity.upper()}: {title}" + (f" ({one.where})" if one.where else ""))
        lines += _wrapped(one.what, width)
        lines += _wrapped(f"Try: {one.try_this}", width) if one.try_this else []
        lines.append("")
    fine = [title for sign, title in SIGNS.items() if sign not in {one.sign for one in findings}]
    if fine:
        lines += ["Looked for and not found:", *(f"  - {title}" for title in fine), ""]
    if unjudged:
        lines.append("Not judged:")
        for one in unjudged:
            lines += _wrapped(f"- {SIGNS[one.sign]}: {one.what}", width)
        lines.append("")
    return "\n".join([*lines, _summary(seen, not unjudged)])


def _summary(seen: Sequence[Finding], every: bool) -> str:
    kinds = [one.severity for one in seen]
    counts = [f"{kinds.count(kind)} {kind}{'s' * (kinds.count(kind) > 1)}" for kind in _ORDER if kind in kinds]
    healthy = not {"problem", "warning"} & set(kinds)
    return ", ".join(["healthy" if every else "healthy, as far as it is judged"] * healthy + counts)


def spikes(steps: ArrayLike, values: ArrayLike) -> list[tuple[int, float]]:
    """The sudden spikes of a validation loss: the step of each, and its size in nats.

    A spike is a rise from one evaluation to the next by at least ``SPIKE_FLOOR``, by ``SPIKE_MULTIPLE`` times the usual
    change, and by ``SPIKE_SUDDEN`` times the change just before it, if that was a rise. The usual change is the
    ``SPIKE_USUAL`` quantile of the absolute changes between evaluations, without the rise itself and the change right
    after it, which may be its way back. Values that are not finite are left out. Fewer than ``SPIKE_EVALUATIONS`` show
    no usual change: the list is empty then. Ours.

    steps, values  one-dimensional, of one length; in any order of the steps.
    """
    at, loss = np.asarray(steps, float).ravel(), np.asarray(values, float).ravel()
    if at.shape != loss.shape:
        raise ValueError(f"steps and values must have one length, got {len(at)} and {len(loss)}")
    there = np.isfinite(at) & np.isfinite(loss)
    order = np.argsort(at[there], kind="stable")
    at, loss = at[there][order], loss[there][order]
    if len(at) < SPIKE_EVALUATIONS:
        return []
    with np.errstate(all="ignore"):
        rises = np.diff(loss)
        return [
            (int(at[one + 1]), float(rises[one]))
            for one in np.flatnonzero(rises >= SPIKE_FLOOR)
            if rises[one] >= SPIKE_MULTIPLE * _usual_change(rises, one)
            and rises[one] >= SPIKE_SUDDEN * (rises[one - 1] if one else 0.0)
        ]


def _usual_change(changes: np.ndarray, rise: SupportsIndex) -> float:
    """What changes usually are, beside a rise and the way back from it."""
    at = int(rise)
    return float(np.quantile(np.abs(np.delete(changes, slice(at, at + 2))), SPIKE_USUAL))


_Seen = Iterator[tuple[Severity, str, str, str]]  # severity, what, where, try_this


def _about_the_file(log: _Log | None, which: str = "") -> Iterator[Finding]:
    if log is None:
        return
    for note in log.notes:
        if not _STRANGE.match(note) or which:  # what is not finite has a rule of its own
            yield Finding("log", "note", f"{which}{note}")
    empty = [name for name, values in log.columns.items() if not len(values) or np.isnan(values).all()]
    if empty:
        yield Finding("log", "note", f"{which}without any number: {', '.join(empty)}")


_NO_GRADIENT = (
    "The gradient of a logistic loss is 0 only where it underflows, or where nothing is trained.",
    "bfloat16 or float32 in place of float16; see that the parameters require gradients (load a LoRA adapter for "
    "training; with gradient checkpointing, let the inputs require gradients).",
)
_NO_REWARD = (
    "PPO's gradient is 0 where all samples of a prompt earn the same, or where nothing is trained.",
    "see by reward_deviation whether the reward varies; more samples a prompt, and longer ones; see that the "
    "parameters require gradients.",
)


def _not_finite(log: _Log, _: _Log | None) -> _Seen:
    if not log.columns or not len(log.steps):
        raise _Unjudged("the log has no column that gradlab knows")
    strange = _strange(log)
    if strange:
        serious = any(_base(name) in _SERIOUS for name in strange)
        what = "Not finite: " + "; ".join(f"{name}, {where}" for name, where in strange.items()) + "."
        if not serious:
            what += " Losses and log-probabilities are finite: a float16 gradient scaler skips such steps."
        yield (
            "problem" if serious else "warning",
            what,
            "",
            "bfloat16 or float32 in place of float16, with log-probabilities summed in float32; a lower learning rate, "
            "clipped gradients; look for a pair whose response is empty.",
        )
    zeros = {name: curve for name in _GRADIENTS if not (curve := log.curve(name)).values.all()}
    if zeros:
        first = min(float(curve.steps[curve.values == 0][0]) for curve in zeros.values())
        why, try_this = _NO_REWARD if log.loss == "ppo" else _NO_GRADIENT
        counts = (f"{name} in {(one.values == 0).sum()} of {len(one.values)} rows" for name, one in zeros.items())
        yield (
            "problem" if any(_ends_at_zero(curve) for curve in zeros.values()) else "warning",
            f"Exactly 0: {', '.join(counts)}. {why}",
            f"first at step {_step(first)}",
            try_this,
        )
    loss = log.curve("loss")
    if not loss.values.all() and log.loss not in _NEVER_LOGISTIC:
        none = loss.values == 0
        yield (
            "problem" if _ends_at_zero(loss) else "warning",
            f"The training loss is exactly 0 in {none.sum()} of {len(none)} rows. A logistic loss never is: either all "
            "margins are so large that nothing is left to learn, or NaN was written as 0, as transformers' Trainer "
            "does unless logging_nan_inf_filter=False.",
            f"first at step {_step(loss.steps[none][0])}",
            "logging_nan_inf_filter=False, and bfloat16 or float32; if the margins are real, a larger β, fewer epochs.",
        )


def _ends_at_zero(curve: _Curve) -> bool:
    return bool((curve.late().values == 0).mean() > 0.5)


def _strange(log: _Log) -> dict[str, str]:
    """The columns with a number that is not finite, and where the first is."""
    noted = [match for note in log.notes if (match := _STRANGE.match(note))]
    found = {one[1]: f"first at {one[2]} of the file" for one in noted if _base(one[1]) in COLUMNS}
    for name, values in log.columns.items():
        infinite = np.isinf(values)
        if infinite.any():
            rows = f"infinite in {infinite.sum()} of {(~np.isnan(values)).sum()} rows, first at step"
            found[name] = f"{rows} {_step(log.steps[infinite][0])}"
    return found


def _far_reference(log: _Log, _: _Log | None) -> _Seen:
    firsts = {}
    for name in ("loss", "reward_win", "reward_lose", "reward_margin"):
        for column in (name, f"validation_{name}"):  # a validation may come before the first step
            curve = log.curve(column)
            if len(curve.steps) and curve.steps[0] <= 1:
                firsts.setdefault(name, float(curve.values[0]))
    if not firsts:
        first = f"the log begins at step {_step(log.steps[0])}" if len(log.steps) else "the log is empty"
        raise _Unjudged(f"{first}; loss or rewards at step 0 or 1 are needed (TRL: logging_first_step=True)")
    rewards = {name: value for name, value in firsts.items() if name != "loss"}
    reward = max(map(abs, rewards.values()), default=math.nan)
    loss, start = firsts.get("loss", math.nan), log.start()
    if reward <= REWARD_WARNING and (times := _multiple_of_ln2(log, loss)):
        yield (
            "note",
            f"The first loss is {loss:.4g} = {times} × ln 2: it seems to be the sum over {times} micro-batches, not "
            "their mean.",
            "first step",
            "divide the logged loss by it, and see that the gradients are not as many times too large: early TRL with "
            "gradient accumulation, see huggingface/trl#2615.",
        )
        return
    if start is None and not rewards:
        raise _Unjudged("the settings name no loss whose starting value is known, and the log has no rewards")
    off = abs(loss - start[0]) / start[0] if start else math.nan
    if not (off > START_WARNING or reward > REWARD_WARNING):
        return
    seen = [f"the loss is {loss:.4g}, where equal models give {start[1]}"] if start and off == off else []
    if rewards:
        seen.append(", ".join(f"{name} is {value:.3g}" for name, value in rewards.items()) + ", where they give 0")
    severe = off > START_PROBLEM or reward > REWARD_PROBLEM
    meant = log.settings.get("init") == "base"
    yield (
        "note" if meant else "problem" if severe else "warning",
        f"At the first step {'; '.join(seen)}." + " Its settings say that it does not start at its reference." * meant,
        "first step",
        "the checkpoint that training starts from as the reference; the same chat template, truncation and precision "
        "for both; reference log-probabilities computed for this data; dropout off.",
    )


def _multiple_of_ln2(log: _Log, loss: float) -> int | None:
    if log.loss in _NEVER_LOGISTIC or not 1.5 < loss / LN2 < 1e4:
        return None
    times = round(loss / LN2)
    return times if abs(loss / LN2 / times - 1) < STUCK else None


def _stuck(log: _Log, _: _Log | None) -> _Seen:
    loss = log.need("loss", STUCK_ROWS)
    if loss.steps[-1] < TRAINED:
        raise _Unjudged(f"the log ends at step {_step(loss.steps[-1])}; {TRAINED} steps are needed")
    start = log.supposed_start()
    if start is None and log.loss in _NEVER_LOGISTIC:
        raise _Unjudged(f"the settings do not tell where the loss {log.loss} starts")
    value, name = start or (LN2, "ln 2")
    late = loss.last(len(loss.steps) // 3)
    off = abs(late.values - value)
    if not max(float(np.median(off)), abs(float(late.values.mean()) - value)) <= STUCK * value:
        return
    rates = log.curve("learning_rate").values
    warming = len(rates) > 0 and rates[-1] > rates[:-LATE].max(initial=0.0)
    yield (
        "warning" if warming else "problem",
        f"The training loss stays at {name}: {late.values.mean():.4f} on average.{_why_stuck(log, rates, warming)}",
        late.where(),
        "see that the reference is a frozen copy, and not the model that is updated; that parameters require gradients "
        "(LoRA: load the adapter with is_trainable=True); that the learning rate and β are not 0 or tiny; that chosen "
        "and rejected differ after truncation, and that labels are not random.",
    )


def _why_stuck(log: _Log, rates: np.ndarray, warming: bool) -> str:
    """What else the log says about it."""
    said = []
    rewards = [log.curve(name).after(1).values for name in ("reward_win", "reward_lose")]
    together = np.abs(np.concatenate(rewards))
    if len(together) and not together.any():
        said.append("all rewards are exactly 0: policy and reference are one, so nothing is trained, or both are.")
    elif len(together):
        said.append(f"rewards reach {together.max():.3g}: the policy moves, but not apart on the two sides.")
    if len(rates) and not rates.any():
        said.append("the learning rate is 0.")
    elif warming:
        said.append(f"the learning rate still rises, to {rates[-1]:.3g}: this may be the warm-up.")
    norms = log.curve("grad_norm").values
    if len(norms) and not norms.any():
        said.append("the gradient is 0.")
    return "".join(f" {one[0].upper()}{one[1:]}" for one in said)


def _spike(log: _Log, _: _Log | None) -> _Seen:
    curve = log.need("validation_loss", SPIKE_EVALUATIONS)
    found = spikes(*curve)
    if not found:
        return
    changes = np.diff(curve.values)
    at = next(one for one in np.argsort(-changes, kind="stable") if curve.steps[one + 1] in dict(found))
    before, after, end = curve.values[at], curve.values[at + 1], curve.values[-1]
    back = end < before + changes[at] / 2
    more = f" {len(found)} such spikes: steps {', '.join(_step(step) for step, _ in found)}." if len(found) > 1 else ""
    yield (
        "warning" if back else "problem",
        f"The validation loss jumps from {before:.4g} to {after:.4g} (+{changes[at]:.3g}) from one evaluation to the "
        f"next; changes of {_usual_change(changes, at):.2g} are usual. It ends at {end:.4g}: it "
        f"{'came back' if back else 'has not come back'}.{more}",
        f"step {_step(curve.steps[at + 1])}",
        "a lower learning rate, longer warm-up, clipped gradients; of naive bDPO the asymmetric variant or a smaller "
        "clip; look at the batches just before, and keep the checkpoint from before it.",
    )


def _overfitting(log: _Log, _: _Log | None) -> _Seen:
    seen = log.need("validation_loss", OVERFIT_EVALUATIONS)
    loss = log.need("loss", 2 * ROWS)
    smooth = np.array([np.median(seen.values[max(0, i - 1) : i + 2]) for i in range(len(seen.values))])
    best = int(smooth.argmin())
    ends_at = float(np.median(seen.values[-LATE:]))
    rise = ends_at - float(smooth[best])
    usual = float(np.median(np.abs(np.diff(seen.values))))
    rows = max(ROWS, len(loss.steps) // 10)
    first = max(0, int((loss.steps <= seen.steps[best]).sum()) - rows // 2)
    before, late = loss.values[first : first + rows], loss.values[-rows:]
    fall = float(before.mean() - late.mean())
    error = math.hypot(before.std(), late.std()) / math.sqrt(rows)
    if not (rise > max(OVERFIT, OVERFIT_CHANGES * usual) and fall > max(OVERFIT, 2 * error)):
        return
    start = log.supposed_start()
    worse = start is not None and ends_at > start[0] > smooth[best]
    yield (
        "problem" if worse else "warning",
        f"The validation loss has risen by {rise:.3g} since its best, {smooth[best]:.4g}, while the training loss fell "
        f"by {fall:.3g}." + (f" It is above {start[1]} again, where it started." if start and worse else ""),
        f"since step {_step(seen.steps[best])}",
        f"the checkpoint of about step {_step(seen.steps[best])}; fewer epochs, a lower learning rate, a larger β, "
        "more pairs.",
    )


def _no_gain(log: _Log, baseline: _Log | None) -> _Seen:
    ends = _ends(log)
    if not ends:
        raise _Unjudged("the log has no validation accuracy, loss or reward margin after step 1")
    steps = log.curve(next(iter(ends))).last(LATE)
    if steps.steps[-1] < TRAINED:
        raise _Unjudged(f"the last validation is at step {_step(steps.steps[-1])}; {TRAINED} steps are needed")
    where = steps.where()
    yield from _against_length(log)
    if baseline is None:
        yield from _against_chance(log, ends, where)
    else:
        yield from _against_baseline(log, baseline, ends, where)


def _against_length(log: _Log) -> _Seen:
    """Whether the accuracy is more than that of the shorter answer, where the settings have it."""
    length, accuracy, least = log.number("length_baseline"), _ends(log).get("validation_accuracy"), _least(log)
    if length is not None and accuracy is not None and accuracy < length + least["validation_accuracy"]:
        yield (
            "warning",
            f'The validation accuracy, {accuracy:.3f}, is not above that of "prefer the shorter answer", {length:.3f}, '
            f"by {least['validation_accuracy']:.3f} or more: it may have learnt length and nothing else.",
            log.curve("validation_accuracy").last(LATE).where(),
            "balance the lengths in the data, or judge by pairs of about equal length; log-probabilities averaged over "
            "tokens; more or cleaner pairs.",
        )


def _against_chance(log: _Log, ends: Mapping[str, float], where: str) -> _Seen:
    start, least, failed = log.supposed_start(), _least(log), {}
    accuracy, loss = ends.get("validation_accuracy"), ends.get("validation_loss")
    if accuracy is not None and accuracy < 0.5 + least["validation_accuracy"]:
        failed["accuracy"] = f"the accuracy is {accuracy:.3f}, and chance 0.5 (± {least['validation_accuracy']:.3f})"
    if loss is not None and start is not None and loss > start[0] * (1 - least["validation_loss"] / LN2):
        failed["loss"] = f"the loss is {loss:.4g}, not below {start[1]}, where it starts"
    judged = len(ends) - ("validation_loss" in ends and start is None)
    if not judged:
        raise _Unjudged("the log has a validation loss alone, and its settings do not tell where that starts")
    margin = ends.get("validation_reward_margin", math.inf)
    if margin <= 0:
        failed["margin"] = f"the reward margin is {margin:.3g}"
    if not failed:
        return
    nothing = len(failed) == judged or ("accuracy" in failed and len(failed) > 1)
    ahead = accuracy is not None and "accuracy" not in failed and "loss" in failed
    yield (
        "problem" if nothing else "warning",
        f"On held-out pairs {'; '.join(failed.values())}."
        + " It is right more often, but too sure where wrong." * ahead,
        where,
        _GAIN_MORE,
    )


_GAIN_MORE = (
    "more or cleaner pairs; if the training loss is high too, more steps or a higher learning rate; if it is low, a "
    "larger β or fewer epochs; see that held-out pairs are labelled as the training pairs are."
)


def _against_baseline(log: _Log, baseline: _Log, ends: Mapping[str, float], where: str) -> _Seen:
    same_beta = log.number("beta") is not None and log.number("beta") == baseline.number("beta")
    alike = same_beta and log.loss is not None and log.loss == baseline.loss
    theirs = {name: end for name, end in _ends(baseline).items() if name in ends}
    theirs = {name: end for name, end in theirs.items() if alike or name == "validation_accuracy"}
    if not theirs:
        raise _Unjudged("both logs need a validation accuracy after step 1, or equal loss and β in their settings")
    least = _least(log)
    sign = {"validation_loss": -1}
    gained = [name for name, end in theirs.items() if sign.get(name, 1) * (ends[name] - end) > least[name]]
    if next(iter(theirs)) in gained:  # the accuracy, where there is one
        return
    numbers = "; ".join(f"{name} {ends[name]:.4g}, the baseline's {theirs[name]:.4g}" for name in theirs)
    yield (
        "note" if "validation_loss" in gained else "warning",
        f"No gain over the baseline: {numbers} (differences up to {', '.join(f'{least[name]:.3g}' for name in theirs)} "
        "count as none).",
        where,
        _GAIN_MORE,
    )


def _ends(log: _Log) -> dict[str, float]:
    """Means of the last evaluations, the one before training left out."""
    names = ("validation_accuracy", "validation_loss", "validation_reward_margin")
    late = {name: log.curve(name).after(1).values[-LATE:] for name in names}
    return {name: float(values.mean()) for name, values in late.items() if len(values)}


def _least(log: _Log) -> dict[str, float]:
    """The least difference that counts, of each measure."""
    pairs = log.number("validation_pairs")
    errors = 1 / math.sqrt(pairs) if pairs else 0.0  # 2 standard errors, 2 √(¼/n)
    return {
        "validation_accuracy": max(GAIN_ACCURACY, errors),
        "validation_loss": GAIN_LOSS,
        "validation_reward_margin": 0.0,
    }


def _both_falling(log: _Log, _: _Log | None) -> _Seen:
    rewards, logps = _falls_by_reward(log), _falls_by_logp(log)
    seen = rewards or logps
    if seen is None:
        raise _Unjudged(f"the log has neither rewards nor log-probabilities of both sides in {ROWS} rows or more")
    if not seen.both():
        return
    if logps is not None and seen.unit != "nats" and logps.both():
        seen = logps
    win, lose, unit = seen.win, seen.lose, seen.unit
    logp = log.curve("logp_win").values
    level = abs(float(logp[: _tail(len(logp))].mean())) if len(logp) else math.nan
    deep = unit == "nats" and win > DEEP_FALL * level
    share = f" (of {level:.3g})" if unit == "nats" and level == level else ""
    faster = "the losers' faster, so that the margin grows" if lose > win else "the winners' as fast or faster"
    yield (
        "warning" if deep or lose <= win else "note",
        f"log π of the winners has fallen by {win:.3g} {unit}{share}, of the losers by {lose:.3g}: {faster}. This is "
        "common for DPO, which trains the difference alone (likelihood displacement: Razin et al. 2024, arXiv "
        "2410.08847); what gains probability is neither response.",
        seen.end.where(),
        "look at samples before worrying. A larger β, a lower learning rate or fewer steps; a likelihood term for the "
        "winners (TRL: loss_type with sft, formerly rpo_alpha); drop pairs whose two responses are nearly alike.",
    )


class _Falls(NamedTuple):
    """By how much the log-probabilities of the two sides have fallen."""

    win: float
    lose: float
    least: float  # what counts as a fall
    unit: str
    end: _Curve  # what was looked at

    def both(self) -> bool:
        return self.win > self.least and self.lose > self.least


def _falls_by_reward(log: _Log) -> _Falls | None:
    """By the implicit rewards β h, in which the pairs of a batch are compared with themselves."""
    win, lose = (log.curve(name) for name in ("reward_win", "reward_lose"))
    if min(len(win.steps), len(lose.steps)) < ROWS:
        return None
    beta = log.number("beta")
    falls = []
    for curve in (win, lose):
        first = curve.values[0] if curve.steps[0] <= 1 else 0.0
        falls.append(float(first - curve.late().values.mean()) / (beta or 1))
    least, unit = (FALL, "nats") if beta else (FALL_REWARD, "nats × β, which the log does not tell")
    return _Falls(falls[0], falls[1], least, unit, win.late())


def _falls_by_logp(log: _Log) -> _Falls | None:
    """By the log-probabilities themselves, against their changes from batch to batch."""
    falls, least, late = [], FALL, _Curve(np.empty(0), np.empty(0))
    for name in ("logp_win", "logp_lose"):
        curve = log.curve(name)
        if len(curve.steps) < ROWS:
            return None
        rows = _tail(len(curve.steps))
        early, late = curve.values[:rows], curve.last(rows)
        falls.append(float(early.mean() - late.values.mean()))
        least = max(least, FALL_ERRORS * math.hypot(early.std(), late.values.std()) / math.sqrt(rows))
    return _Falls(falls[0], falls[1], least, "nats", late)


def _weight_at_edge(log: _Log, _: _Log | None) -> _Seen:
    if log.loss in _CONSTANT_WEIGHT:
        raise _Unjudged(f"λ_w is constant for the loss {log.loss}")
    names = [name for name in ("win_weight", *_QUANTILES) if len(log.curve(name).steps)]
    if not names:
        raise _Unjudged("the log has no win_weight")
    floor, ceiling, bounds = _weight_range(log)
    low, high = _share_at(log, [name for name in names if name in _QUANTILES] or names, floor, ceiling)
    if not low + high >= EDGE_PAIRS:
        return
    naive = log.loss in _NAIVE
    means = ", ".join(f"{name.removeprefix('win_weight_')} {_late(log, name):.4g}" for name in names)
    which = "The winners" if low >= high else "The losers"
    yield (
        "problem" if not naive and max(low, high) >= EDGE_MOST else "warning",
        f"λ_w lies at an end of its range, {bounds}, for at least {min(low + high, 1):.0%} of the pairs: {low:.0%} at "
        f"the floor, {high:.0%} at the ceiling ({means.replace('win_weight', 'mean')}). "
        + (
            "The clip decides: λ says only which side is more probable." if naive else f"{which} hardly get a gradient."
        ),
        log.curve(names[0]).late().where(),
        _WIDER if naive else _LESS_EXTREME,
    )


_WIDER = "a larger clip, or log-probabilities averaged over tokens, which differ less."
_LESS_EXTREME = (
    "see how λ_w goes with length (win_weight_length_correlation), and whether the log-probabilities of one side have "
    "collapsed; log-probabilities averaged over tokens; a fixed weight as control."
)


def _weight_range(log: _Log) -> tuple[float, float, str]:
    """The least and the largest λ_w that the loss allows."""
    if log.loss not in _NAIVE:
        return 0.0, 1.0, "0 to 1"
    clip = log.number("clip")
    if clip is None:
        raise _Unjudged(f"the settings name no clip, which sets the ends of λ_w for the loss {log.loss}")
    ceiling = (1 + clip) / (2 + clip)  # w/(w + 1) with w = 1 + clip
    floor = 1 / (2 + clip) if log.loss == "nbdpo-symmetric" else 0.5
    return floor, ceiling, f"{floor:.4g} to {ceiling:.4g} (clip {clip:g})"


def _share_at(log: _Log, names: Sequence[str], floor: float, ceiling: float) -> tuple[float, float]:
    """The share of pairs that is at least at each end, in the last part of the log."""
    near = EDGE * (ceiling - floor)
    low = high = 0.0
    for name in names:
        curve = log.curve(name)
        values = curve.late().values
        below, above = (_QUANTILES[name], 1 - _QUANTILES[name]) if name in _QUANTILES else (EDGE_MOST, EDGE_MOST)
        low = max(low, below * float((values <= floor + near).mean()))
        high = max(high, above * float((values >= ceiling - near).mean()))
    return low, high


def _late(log: _Log, name: str) -> float:
    return float(log.curve(name).late().values.mean())


_RULES: tuple[tuple[str, Callable[[_Log, _Log | None], _Seen]], ...] = (
    ("not-finite", _not_finite),
    ("far-reference", _far_reference),
    ("stuck", _stuck),
    ("validation-spike", _spike),
    ("overfitting", _overfitting),
    ("no-gain", _no_gain),
    ("both-falling", _both_falling),
    ("weight-at-edge", _weight_at_edge),
)


def _tail(rows: int) -> int:
    """How many rows are the last part: a fifth, and at least LATE."""
    return max(LATE, rows // 5)


def _base(name: str) -> str:
    return name.removeprefix("validation_")


def _floats(log: pd.DataFrame, name: str) -> np.ndarray:
    column = log.loc[:, [one == name for one in log.columns]].iloc[:, 0]
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=math.nan)


def _step(step: Any) -> str:
    return f"{step:.15g}"


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent="  ", subsequent_indent="    " if text.startswith("- ") else "  ",
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip

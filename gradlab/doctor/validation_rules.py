"""Rules on held-out pairs: spikes of the validation loss, overfitting, no gain over chance or a baseline, and prompts
that are trained on too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike

from gradlab.arrays import real_array
from gradlab.doctor.curves import LN2, Curve, Log, step_text, whole_steps
from gradlab.doctor.findings import Inapplicable, Seen, Severity, Unjudged
from gradlab.doctor.rule import Rule, rule
from gradlab.doctor.thresholds import (
    GAIN_ACCURACY,
    GAIN_LOSS,
    LATE,
    OVERFIT,
    OVERFIT_CHANGES,
    OVERFIT_EVALUATIONS,
    ROWS,
    SEEN,
    SPIKE_EVALUATIONS,
    SPIKE_FLOOR,
    SPIKE_MULTIPLE,
    SPIKE_SUDDEN,
    SPIKE_USUAL,
    TRAINED,
)

_GAIN_MORE = (
    "more or cleaner pairs; if the training loss is high too, more steps or a higher learning rate; if it is low, a "
    "larger β or fewer epochs; see that held-out pairs are labelled as the training pairs are."
)


def spikes(steps: ArrayLike, values: ArrayLike) -> list[tuple[int, float]]:
    """Return the sudden spikes of a validation loss: the step of each, and its size in nats.

    A spike is a rise from one evaluation to the next by at least ``SPIKE_FLOOR``, by ``SPIKE_MULTIPLE`` times the usual
    change, and by ``SPIKE_SUDDEN`` times the change just before it, if that was a rise. The usual change is the
    ``SPIKE_USUAL`` quantile of the absolute changes between evaluations, without the rise itself and the change right
    after it, which may be its way back. Values that are not finite are left out. Fewer than ``SPIKE_EVALUATIONS`` show
    no usual change: the list is empty then. Ours.

    steps, values  one-dimensional, of one length; in any order of the steps.

    ValueError for other lengths, and for steps that are not whole numbers.
    """
    at, loss = real_array("steps", steps).ravel(), real_array("values", values).ravel()
    if at.shape != loss.shape:
        raise ValueError(f"steps and values must have one length, got {len(at)} and {len(loss)}")
    there = np.isfinite(whole_steps("steps", at)) & np.isfinite(loss)
    order = np.argsort(at[there], kind="stable")
    at, loss = at[there][order], loss[there][order]
    with np.errstate(all="ignore"):
        changes = np.diff(loss)
        return [(int(at[rise + 1]), float(changes[rise])) for rise in _sudden(changes)]


def _sudden(changes: np.ndarray) -> list[int]:
    """Return the indices of the changes between evaluations that are spikes, as ``spikes`` defines them."""
    if len(changes) + 1 < SPIKE_EVALUATIONS:
        return []
    return [
        int(rise)
        for rise in np.flatnonzero(changes >= SPIKE_FLOOR)
        if changes[rise] >= SPIKE_MULTIPLE * _usual_change(changes, int(rise))
        and changes[rise] >= SPIKE_SUDDEN * (changes[rise - 1] if rise else 0.0)
    ]


def _usual_change(changes: np.ndarray, rise: int) -> float:
    """Return the usual size of changes, without a rise and the way back from it."""
    return float(np.quantile(np.abs(np.delete(changes, slice(rise, rise + 2))), SPIKE_USUAL))


@rule("validation-spike", "sudden spikes of the validation loss")
def validation_spike(log: Log, _: Log | None) -> Iterator[Seen]:
    """Find the largest sudden spike of the validation loss, and say whether the loss came back."""
    curve = log.need("validation_loss", SPIKE_EVALUATIONS)
    changes = np.diff(curve.values)
    sudden = _sudden(changes)
    if not sudden:
        return
    at = max(sudden, key=lambda rise: changes[rise])
    before, after, end = curve.values[at], curve.values[at + 1], curve.values[-1]
    back = end < before + changes[at] / 2
    steps = [step_text(curve.steps[rise + 1]) for rise in sudden]
    more = f" {len(steps)} such spikes: steps {', '.join(steps)}." if len(steps) > 1 else ""
    yield Seen(
        "warning" if back else "problem",
        f"The validation loss jumps from {before:.4g} to {after:.4g} (+{changes[at]:.3g}) from one evaluation to the "
        f"next; changes of {_usual_change(changes, at):.2g} are usual. It ends at {end:.4g}: it "
        f"{'came back' if back else 'has not come back'}.{more}",
        f"step {step_text(curve.steps[at + 1])}",
        "a lower learning rate, longer warm-up, clipped gradients; for naive bDPO the asymmetric variant or a smaller "
        "clip; look at the batches just before, and keep the checkpoint from before it.",
    )


@rule("overfitting", "overfitting")
def overfitting(log: Log, _: Log | None) -> Iterator[Seen]:
    """Find a validation loss that has risen since its best, while the training loss fell."""
    if log.samples:  # its loss is of sampled responses, and that of held-out pairs is another
        raise Inapplicable("the training is on sampled responses, and not on the held-out pairs' loss")
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
    yield Seen(
        "problem" if worse else "warning",
        f"The validation loss has risen by {rise:.3g} since its best, {smooth[best]:.4g}, while the training loss fell "
        f"by {fall:.3g}." + (f" It is above {start[1]} again, where it started." if start and worse else ""),
        f"since step {step_text(seen.steps[best])}",
        f"the checkpoint of about step {step_text(seen.steps[best])}; fewer epochs, a lower learning rate, a larger β, "
        "more pairs.",
    )


@rule("no-gain", "no gain over chance or the baseline")
def no_gain(log: Log, baseline: Log | None) -> Iterator[Seen]:
    """Find held-out pairs without a gain over the baseline or else over chance, or with no more than length gives."""
    ends = _ends(log)
    if not ends:
        raise Unjudged("the log has no validation accuracy, loss or reward margin after step 1")
    steps = _end_of(log, next(iter(ends)))
    if steps.steps[-1] < TRAINED:
        raise Unjudged(f"the last validation is at step {step_text(steps.steps[-1])}; {TRAINED} steps are needed")
    where = f"{steps.where()}, the mean of {len(steps.steps)} evaluations" if len(steps.steps) > 1 else steps.where()
    yield from _against_length(log)
    if baseline is None:
        yield from _against_chance(log, ends, where)
    else:
        yield from _against_baseline(log, baseline, ends, where)


def _against_length(log: Log) -> Iterator[Seen]:
    """Find an accuracy that is not above the better of "prefer the shorter answer" and "prefer the longer answer".

    The settings have the accuracy of the first; that of the second is the rest.
    """
    shorter, accuracy, least = log.share("length_baseline"), _ends(log).get("validation_accuracy"), _least(log)
    if shorter is None or accuracy is None:
        return
    length, which = max((shorter, "shorter"), (1 - shorter, "longer"))
    if accuracy < length + least["validation_accuracy"]:
        yield Seen(
            _severity(log),
            f'The validation accuracy, {accuracy:.3f}, is not above that of "prefer the {which} answer", {length:.3f}, '
            f"by {least['validation_accuracy']:.3f} or more: it may have learnt length and nothing else."
            + _untrained(log),
            _end_of(log, "validation_accuracy").where(),
            "balance the lengths in the data, or judge by pairs of about equal length; log-probabilities averaged over "
            "tokens; more or cleaner pairs.",
        )


def _severity(log: Log) -> Severity:
    """Return how much a lack of gain on held-out pairs weighs: less where the training is not on pairs."""
    return "note" if log.samples else "warning"


def _untrained(log: Log) -> str:
    """Return what is to be said of held-out pairs where the training is on sampled responses."""
    return " It is trained on sampled responses and not on pairs: judge it by its reward." if log.samples else ""


def _against_chance(log: Log, ends: Mapping[str, float], where: str) -> Iterator[Seen]:
    start, least, failed = log.supposed_start(), _least(log), {}
    accuracy, loss = ends.get("validation_accuracy"), ends.get("validation_loss")
    if accuracy is not None and accuracy < 0.5 + least["validation_accuracy"]:
        failed["accuracy"] = f"the accuracy is {accuracy:.3f}, and chance 0.5 (± {least['validation_accuracy']:.3f})"
    needed = start[0] * (1 - least["validation_loss"] / LN2) if start is not None else math.inf
    if loss is not None and start is not None and loss > needed:
        failed["loss"] = f"the loss is {loss:.4g}, not below {needed:.4g}, a little under {start[1]} where it starts"
    judged = len(ends) - ("validation_loss" in ends and start is None)
    if not judged:
        raise Unjudged("the log has only a validation loss, and its settings do not tell where that starts")
    margin = ends.get("validation_reward_margin", math.inf)
    if margin <= 0:
        failed["margin"] = f"the reward margin is {margin:.3g}"
    if not failed:
        return
    nothing = len(failed) == judged or ("accuracy" in failed and len(failed) > 1)
    worse = loss is not None and start is not None and loss > start[0]
    ahead = accuracy is not None and "accuracy" not in failed and worse
    yield Seen(
        "problem" if nothing and not log.samples else _severity(log),
        f"On held-out pairs {'; '.join(failed.values())}."
        + " It is right more often, but too sure where wrong." * ahead
        + _untrained(log),
        where,
        _GAIN_MORE,
    )


def _against_baseline(log: Log, baseline: Log, ends: Mapping[str, float], where: str) -> Iterator[Seen]:
    same_beta = log.number("beta") is not None and log.number("beta") == baseline.number("beta")
    alike = same_beta and log.loss is not None and log.loss == baseline.loss
    theirs = {name: end for name, end in _ends(baseline).items() if name in ends}
    theirs = {name: end for name, end in theirs.items() if alike or name == "validation_accuracy"}
    if not theirs:
        raise Unjudged("both logs need a validation accuracy after step 1, or equal loss and β in their settings")
    least = _least(log)
    sign = {"validation_loss": -1}
    gained = [name for name, end in theirs.items() if sign.get(name, 1) * (ends[name] - end) > least[name]]
    if next(iter(theirs)) in gained:  # the accuracy, where there is one
        return
    numbers = "; ".join(f"{name} {ends[name]:.4g}, the baseline's {theirs[name]:.4g}" for name in theirs)
    yield Seen(
        "note" if "validation_loss" in gained else _severity(log),
        f"No gain over the baseline: {numbers} (differences up to {', '.join(f'{least[name]:.3g}' for name in theirs)} "
        f"count as none).{_untrained(log)}",
        where,
        _GAIN_MORE,
    )


def _ends(log: Log) -> dict[str, float]:
    """Return means over the last evaluations, without the evaluation before training."""
    names = ("validation_accuracy", "validation_loss", "validation_reward_margin")
    late = {name: _end_of(log, name).values for name in names}
    return {name: float(values.mean()) for name, values in late.items() if len(values)}


def _end_of(log: Log, name: str) -> Curve:
    return log.curve(name).after(1).last(LATE)


def _least(log: Log) -> dict[str, float]:
    """Return the smallest difference that counts, by measure."""
    pairs = log.number("validation_pairs")
    errors = 1 / math.sqrt(pairs) if pairs else 0.0  # 2 standard errors, 2 √(¼/n)
    return {
        "validation_accuracy": max(GAIN_ACCURACY, errors),
        "validation_loss": GAIN_LOSS,
        "validation_reward_margin": 0.0,
    }


@rule("seen-prompts", "held-out prompts that are trained on too")
def seen_prompts(log: Log, _: Log | None) -> Iterator[Seen]:
    """Find held-out pairs whose prompts are trained on too, where the settings count them."""
    if log.settings.get("validation_pairs") == 0:
        raise Unjudged("no pairs are held out")
    pairs, prompts = log.number("validation_pairs"), log.number("validation_prompts")
    if pairs is None or prompts is None:
        raise Unjudged("the log's settings do not say how many of the held-out prompts are trained on too")
    seen_pairs, seen = (log.number(f"validation_{name}_seen") or 0 for name in ("pairs", "prompts"))
    if seen_pairs < SEEN * pairs:
        return
    yield Seen(
        "warning",
        f"Held-out pairs share {seen / prompts:.0%} of their prompts with training ({seen:,.0f} of {prompts:,.0f}, "
        f"with {seen_pairs:,.0f} of {pairs:,.0f} pairs): validation accuracy says little about other prompts.",
        "",
        "--hold-out prompts, or a validation file of other prompts.",
    )


RULES: tuple[Rule, ...] = (validation_spike, overfitting, no_gain, seen_prompts)

"""Rules on the training: numbers that are not finite or underflow, another loss, a far reference, a loss that stays."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gradlab.doctor.curves import LN2, Curve, Log, step_text
from gradlab.doctor.findings import Seen, Unjudged
from gradlab.doctor.log_columns import PPO_COLUMNS, is_known, is_loss
from gradlab.doctor.loss_facts import starting_at
from gradlab.doctor.rule import Rule, rule
from gradlab.doctor.thresholds import (
    LATE,
    NEGATIVE,
    REWARD_PROBLEM,
    REWARD_WARNING,
    START_PROBLEM,
    START_WARNING,
    STUCK,
    STUCK_ROWS,
    TRAINED,
)

_SERIOUS = ("loss", "reward_win", "reward_lose", "reward_margin", "margin", "logp_win", "logp_lose")  # lost, if NaN
_GRADIENTS = ("grad_norm", "grad_norm_win", "grad_norm_lose", "slope_win", "slope_lose")
_JUDGED = (*_SERIOUS, *_GRADIENTS, *PPO_COLUMNS)
_NO_GRADIENT = (
    "The gradient of a logistic loss is 0 only where it underflows, or where nothing is trained.",
    "bfloat16 or float32 in place of float16; see that the parameters require gradients (load a LoRA adapter for "
    "training; with gradient checkpointing, let the inputs require gradients).",
)
_BEYOND_TARGET = (
    "A loss of this kind has no gradient where each pair is beyond its target: nothing is left to learn, unless "
    "nothing is trained.",
    "if it is so from the first step on, see that the parameters require gradients.",
)
_NO_REWARD = (
    "PPO's gradient is 0 where all samples of a prompt earn the same, or where nothing is trained.",
    "see by reward_deviation whether the reward varies; more samples per prompt, and longer ones; see that the "
    "parameters require gradients.",
)


@rule("not-finite", "numbers that are not finite, or underflow to 0")
def not_finite(log: Log, _: Log | None) -> Iterator[Seen]:
    """Find numbers that are not finite, gradients of exactly 0, and a loss of exactly 0, which may hide NaN."""
    yield from _strange_numbers(log)
    if not any(map(_can_be_judged, {**log.columns, **log.other_losses}.items())):
        raise Unjudged("the log has no loss, reward, log-probability or gradient")
    yield from _zero_gradients(log)
    yield from _zero_loss(log)


def _can_be_judged(column: tuple[str, np.ndarray]) -> bool:
    name, values = column
    return (is_loss(name) or name.removeprefix("validation_") in _JUDGED) and not np.isnan(values).all()


def _strange_numbers(log: Log) -> Iterator[Seen]:
    """Find columns with numbers that are not finite: noted when the file was read, or infinite in the frame."""
    places = {name: f"first at {place} of the file" for name, place in log.not_finite.items()}
    for name, values in {**log.columns, **log.other_losses}.items():
        infinite = np.isinf(values)
        if infinite.any():
            rows = f"infinite in {infinite.sum()} of {(~np.isnan(values)).sum()} rows, first at step"
            places[name] = f"{rows} {step_text(log.steps[infinite][0])}"
    if not places:
        return
    serious = any(is_loss(name) or name.removeprefix("validation_") in _SERIOUS for name in places)
    what = "Not finite: " + "; ".join(f"{name}, {where}" for name, where in places.items()) + "."
    if not serious and any(map(is_known, places)):
        what += " Losses and log-probabilities are finite: a float16 gradient scaler skips such steps."
    yield Seen(
        "problem" if serious else "warning" if any(map(is_known, places)) else "note",
        what,
        "",
        "bfloat16 or float32 in place of float16, with log-probabilities summed in float32; a lower learning rate, "
        "clipped gradients; look for a pair whose response is empty.",
    )


def _zero_gradients(log: Log) -> Iterator[Seen]:
    zeros = {name: curve for name in _GRADIENTS if not (curve := log.curve(name)).values.all()}
    if not zeros:
        return
    targeted = log.facts.logistic is False and log.loss not in ("ppo", "sft")
    if targeted:  # the gradient of one side, or of a batch, may be 0 by formula
        zeros = {name: curve for name, curve in zeros.items() if name == "grad_norm" and _ends_at_zero(curve)}
    if not zeros:
        return
    first = min(float(curve.steps[curve.values == 0][0]) for curve in zeros.values())
    why, try_this = _NO_REWARD if log.loss == "ppo" else _BEYOND_TARGET if targeted else _NO_GRADIENT
    counts = (f"{name} in {(curve.values == 0).sum()} of {len(curve.values)} rows" for name, curve in zeros.items())
    ends = any(_ends_at_zero(curve) for curve in zeros.values())
    learnt = targeted and any(curve.values.any() for curve in zeros.values())
    yield Seen(
        "note" if learnt else "problem" if ends else "warning",
        f"Exactly 0: {', '.join(counts)}. {why}",
        f"first at step {step_text(first)}",
        try_this,
    )


def _zero_loss(log: Log) -> Iterator[Seen]:
    loss = log.curve("loss")
    if loss.values.all() or log.facts.logistic is False:
        return
    zero = loss.values == 0
    yield Seen(
        "problem" if _ends_at_zero(loss) else "warning",
        f"The training loss is exactly 0 in {zero.sum()} of {len(zero)} rows. A logistic loss never is: either all "
        "margins are so large that nothing is left to learn, or NaN was written as 0, as transformers' Trainer "
        "does unless logging_nan_inf_filter=False.",
        f"first at step {step_text(loss.steps[zero][0])}",
        "logging_nan_inf_filter=False, and bfloat16 or float32; if the margins are real, a larger β, fewer epochs.",
    )


def _ends_at_zero(curve: Curve) -> bool:
    return bool((curve.late().values == 0).mean() > 0.5)


@rule("other-loss", "another loss than the configured one")
def other_loss(log: Log, _: Log | None) -> Iterator[Seen]:
    """Find a first loss that is another loss's start, and losses below 0 where the configured one has none."""
    loss = log.curve("loss")
    if not len(loss.values) or log.loss is None:
        raise Unjudged("the log has no loss" if log.loss is not None else "the settings do not name the loss")
    if log.start() is None and not log.facts.never_negative and not log.facts.logistic:
        raise Unjudged(f"neither the start nor a least value of the loss {log.loss} is known")
    advice = (
        "see which loss the trainer has really built: print its settings, or run `gradlab conformance` on its loss; "
        "some trainers drop loss_type, label_smoothing or β on the way."
    )
    like = _logged_like(log)
    if like:
        start = log.start()
        assert start is not None
        yield Seen(
            "problem" if _rewards_near_0(log) else "warning",
            f"Configured {log.loss}, which starts at {start[1]}, but logged like {like}: the first loss is "
            f"{_firsts(log)['loss']:.4g}.",
            "first step",
            advice,
        )
    negative = loss.values < -NEGATIVE
    if negative.any() and (log.facts.never_negative or log.facts.logistic):
        yield Seen(
            "problem",
            f"The loss {log.loss} is never negative, but the logged one is in {negative.sum()} of {len(negative)} "
            f"rows, down to {loss.values.min():.4g}.",
            f"first at step {step_text(loss.steps[negative][0])}",
            f"{advice} A loss with a further term, such as an entropy, has another name.",
        )


def _logged_like(log: Log) -> str:
    """Return losses, in words, whose start the first loss is while it is not the configured one's; or nothing."""
    first, start = _firsts(log).get("loss", math.nan), log.start()
    if start is None or not abs(first - start[0]) > START_WARNING * start[0] or _rewards_near_0(log) is False:
        return ""
    if _multiple_of_ln2(log, first):
        return ""
    names = starting_at(first, log.settings)
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} others' if len(names) > 3 else ''}"


def _rewards_near_0(log: Log) -> bool | None:
    """Return whether the first rewards are those of a policy that is its reference; None without rewards."""
    rewards = [abs(value) for name, value in _firsts(log).items() if name != "loss"]
    return max(rewards) <= REWARD_WARNING if rewards else None


@rule("far-reference", "a reference far from the start")
def far_reference(log: Log, _: Log | None) -> Iterator[Seen]:
    """Find a first loss, or first rewards, that differ from those of a policy equal to its reference."""
    firsts = _firsts(log)
    if not firsts:
        first = f"the log begins at step {step_text(log.steps[0])}" if len(log.steps) else "the log is empty"
        raise Unjudged(f"{first}; loss or rewards at step 0 or 1 are needed (TRL: logging_first_step=True)")
    rewards = {name: value for name, value in firsts.items() if name != "loss"}
    reward = max(map(abs, rewards.values()), default=math.nan)
    loss, start = firsts.get("loss", math.nan), log.start()
    if reward <= REWARD_WARNING and (times := _multiple_of_ln2(log, loss)):
        yield _summed(loss, times)
        return
    if start is None and not rewards:
        raise Unjudged("the settings name no loss whose starting value is known, and the log has no rewards")
    off = abs(loss - start[0]) / start[0] if start and not _logged_like(log) else math.nan
    if not (off > START_WARNING or reward > REWARD_WARNING):
        return
    seen = [f"the loss is {loss:.4g}, where equal models give {start[1]}"] if start and off == off else []
    if rewards:
        seen.append(", ".join(f"{name} is {value:.3g}" for name, value in rewards.items()) + ", where they give 0")
    severe = off > START_PROBLEM or reward > REWARD_PROBLEM
    meant = log.settings.get("init") == "base"
    yield Seen(
        "note" if meant else "problem" if severe else "warning",
        f"At the first step {'; '.join(seen)}." + " Its settings say that it does not start at its reference." * meant,
        "first step",
        "the checkpoint that training starts from as the reference; the same chat template, truncation and precision "
        "for both; reference log-probabilities computed for this data; dropout off.",
    )


def _firsts(log: Log) -> dict[str, float]:
    """Return loss and rewards before the first update, from training or else from an early validation."""
    firsts = {}
    for name in ("loss", "reward_win", "reward_lose", "reward_margin"):
        for column in (name, f"validation_{name}"):
            curve = log.curve(column)
            if len(curve.steps) and curve.steps[0] <= 1:
                firsts.setdefault(name, float(curve.values[0]))
    return firsts


def _multiple_of_ln2(log: Log, loss: float) -> int | None:
    if log.facts.logistic is False or not 1.5 < loss / LN2 < 1e4:
        return None
    times = round(loss / LN2)
    return times if abs(loss / LN2 / times - 1) < STUCK else None


def _summed(loss: float, times: int) -> Seen:
    return Seen(
        "note",
        f"The first loss is {loss:.4g} = {times} × ln 2: it seems to be the sum over {times} micro-batches, not "
        "their mean.",
        "first step",
        "divide the logged loss by it, and see that the gradients are not as many times too large: early TRL with "
        "gradient accumulation, see huggingface/trl#2615.",
    )


@rule("stuck", "a loss stuck where it starts (ln 2)")
def stuck(log: Log, _: Log | None) -> Iterator[Seen]:
    """Find a training loss whose last third stays where it started."""
    loss = log.need("loss", STUCK_ROWS)
    if loss.steps[-1] < TRAINED:
        raise Unjudged(f"the log ends at step {step_text(loss.steps[-1])}; {TRAINED} steps are needed")
    start = log.supposed_start()
    if start is None and log.facts.logistic is False:
        raise Unjudged(f"the settings do not tell where the loss {log.loss} starts")
    value, name = start or (LN2, "ln 2")
    late = loss.last(len(loss.steps) // 3)
    off = abs(late.values - value)
    if not max(float(np.median(off)), abs(float(late.values.mean()) - value)) <= STUCK * value:
        return
    rates = log.curve("learning_rate").values
    warming = len(rates) > 0 and rates[-1] > rates[:-LATE].max(initial=0.0)
    yield Seen(
        "warning" if warming else "problem",
        f"The training loss stays at {name}: {late.values.mean():.4f} on average.{_why_stuck(log, rates, warming)}",
        late.where(),
        "see that the reference is a frozen copy, and not the model that is updated; that parameters require gradients "
        "(LoRA: load the adapter with is_trainable=True); that the learning rate and β are not 0 or tiny; that chosen "
        "and rejected differ after truncation, and that labels are not random.",
    )


def _why_stuck(log: Log, rates: np.ndarray, warming: bool) -> str:
    """Return what else the log says about a loss that is stuck."""
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
    return "".join(f" {sentence[0].upper()}{sentence[1:]}" for sentence in said)


RULES: tuple[Rule, ...] = (not_finite, other_loss, far_reference, stuck)

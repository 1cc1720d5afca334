"""Rules on sampled responses, as PPO trains on them: their end, their rewards, their KL, their judge, their entropy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gradlab.doctor.curves import Curve, Log, step_text
from gradlab.doctor.findings import Inapplicable, Seen, Unjudged
from gradlab.doctor.rule import Rule, rule
from gradlab.doctor.thresholds import (
    ALIKE,
    ALL_ALIKE,
    CHANGE_ERRORS,
    ENTROPY_LOW,
    ENTROPY_LOWEST,
    FINISHED,
    FINISHED_FALL,
    KL_NEGATIVE,
    KL_PER_TOKEN,
    KL_RISE,
    ROWS,
)

_SAMPLES = "read the samples (samples.jsonl beside the log)"
# Settings with which PPO maximises another reward than the logged one.
_OTHER_REWARD = ("ppo_whiten", "ppo_normalize", "ppo_unfinished_penalty", "ppo_length_penalty", "ppo_clip_reward")


@rule("no-end", "sampled responses that do not end")
def no_end(log: Log, _: Log | None) -> Iterator[Seen]:
    """Find sampled responses that hardly ever end by themselves, or much less often than at the start."""
    names = _there(log, "finished", "validation_finished")
    late = {name: log.curve(name).late() for name in names}
    shares = {name: float(curve.values.mean()) for name, curve in late.items()}
    few = {name: share for name, share in shares.items() if share < FINISHED}
    if few:
        listed = ", ".join(f"{name} {share:.1%}" for name, share in few.items())
        yield Seen(
            "problem" if min(few.values()) == 0 else "warning",
            f"Hardly any sampled response ends by itself ({listed}): rewards, KL and lengths are those of texts that "
            "were cut.",
            late[next(iter(few))].where(),
            "the end-of-turn token of the model's chat template as a token to stop at; more tokens per response; a "
            "reward that does not grow with length.",
        )
        return
    for name in names:
        change = _change(log.curve(name))
        if change and change.end < FINISHED_FALL * change.start and change.differ(0, -1):
            yield Seen(
                "warning",
                f"Ever fewer sampled responses end by themselves: {name} falls from {change.start:.0%} to "
                f"{change.end:.0%}.",
                change.where,
                "a penalty for responses without an end (--ppo.unfinished-penalty) or for length "
                "(--ppo.length-penalty); a reward that does not grow with length; more tokens per response.",
            )


@rule("no-signal", "rewards that do not tell a prompt's responses apart")
def no_signal(log: Log, _: Log | None) -> Iterator[Seen]:
    """Find prompts whose sampled responses all have one reward, which teach nothing but the KL penalty."""
    name = _there(log, "zero_variance", "reward_deviation")[0]
    late = log.curve(name).late()
    share = float(late.values.mean() if name == "zero_variance" else (late.values == 0).mean())
    if share < ALIKE:
        return
    where = "of the prompts" if name == "zero_variance" else "of the last steps"
    yield Seen(
        "problem" if share > ALL_ALIKE else "warning",
        f"All responses to a prompt have one reward in {share:.0%} {where}: such samples teach nothing but the KL "
        "penalty.",
        late.where(),
        "see that the reward reads the response, and is no constant; more responses per prompt (--ppo.samples); "
        "prompts that are neither too easy nor too hard; a reward with more steps between worst and best, or with a "
        "wider --ppo.clip-reward.",
    )


@rule("kl", "KL from the reference that runs away, or is negative")
def divergence(log: Log, _: Log | None) -> Iterator[Seen]:
    """Find a KL that costs more than the reward gains, one that is large and still rises, and one below 0."""
    name = _there(log, "kl", "kl_per_token")[0]
    curve, tokens = log.need(name, 2 * ROWS), _tokens(log)
    change, per_token = _change(curve), name == "kl_per_token"
    assert change is not None  # it has two parts
    least = KL_NEGATIVE / tokens if per_token and tokens > 0 else KL_NEGATIVE
    if change.end < -max(least, CHANGE_ERRORS * change.error):
        yield Seen(
            "warning",
            f"KL is negative, {change.end:.3g} on average{' per token' * per_token}, which a mean of log π/π_ref over "
            "π's own samples can only be by chance: the responses are not drawn from π.",
            curve.late().where(),
            "temperature 1 without top-k, top-p or a repetition penalty; equal tokens, padding and end for sampling "
            "and for scoring; dropout off in both.",
        )
        return
    dear = list(_too_dear(log)) if _reward_as_logged(log) else []
    yield from dear or _far_and_rising(curve, change, None if per_token else tokens)


def _reward_as_logged(log: Log) -> bool:
    """Return whether reward − β KL is what the training maximises: no penalty, and the reward's own unit."""
    return all(log.settings.get(name) in (None, False, 0) for name in _OTHER_REWARD)


def _too_dear(log: Log) -> Iterator[Seen]:
    """Find that reward − β KL has fallen since its best while KL rose."""
    beta, both = log.number("beta"), {name: log.columns.get(name) for name in ("reward", "kl")}
    reward, kl = both["reward"], both["kl"]
    if beta is None or reward is None or kl is None:
        return
    there = np.isfinite(reward) & np.isfinite(kl)
    worth = Curve(log.steps[there], (reward - beta * kl)[there])
    change, paid = _change(worth), _change(Curve(worth.steps, kl[there]))
    if change is None or paid is None or not change.fallen_since_best:
        return
    rise = paid.end - paid.means[change.best]
    if rise < KL_RISE:
        return
    yield Seen(
        "problem" if change.end < change.start else "warning",
        f"KL costs more than the reward gains: reward − β KL has fallen from {change.means[change.best]:.3g} to "
        f"{change.end:.3g}, while KL rose by {rise:.3g} nats to {paid.end:.3g}.",
        change.where,
        "a lower learning rate, fewer passes over each batch (--ppo.epochs), a larger β; the checkpoint from before "
        f"it; {_SAMPLES}.",
    )


def _tokens(log: Log) -> float:
    """Return the mean length of the last responses; NaN where the log does not say it."""
    lengths = log.curve("response_length").late().values
    return float(lengths.mean()) if len(lengths) else math.nan


def _far_and_rising(kl: Curve, change: _Change, tokens: float | None) -> Iterator[Seen]:
    """Find a KL that is large per token, and still rises; ``tokens``: of a response, None where KL is per token."""
    by_token = change.end if tokens is None else change.end / tokens if tokens > 0 else math.nan
    if not (by_token > KL_PER_TOKEN and change.end > change.means[-2] and change.differ(-2, -1)):
        return
    yield Seen(
        "warning",
        f"KL is {by_token:.2g} nats per token{'' if tokens is None else f', {change.end:.3g} per response'}, and still "
        "rises: the responses are hardly the reference's any more.",
        kl.late().where(),
        f"a larger β, a lower learning rate, fewer steps; {_SAMPLES}, and compare them with the reference's.",
    )


@rule("over-optimised", "a reward that rises while the judge falls")
def over_optimised(log: Log, _: Log | None) -> Iterator[Seen]:
    """Find a reward that rises while a judge that is never trained on falls, or else the margin on held-out pairs."""
    _there(log, "reward")
    gain = _change(log.need("reward", 2 * ROWS))
    name = "judge" if len(log.curve("judge").steps) else "validation_reward_margin"
    judge = log.curve(name) if name == "judge" else log.curve(name).after(1)  # at step 1 it is 0: π is π_ref
    change = _change(judge)
    if gain is None or change is None:
        raise Unjudged("the log has no judge (--ppo.judge), and too little about held-out pairs")
    if not (gain.differ(0, -1) and gain.end > gain.start and change.fallen_since_best):
        return
    if name != "judge" and change.end >= 0:  # held-out pairs are still preferred as they are labelled
        return
    words = "the judge" if name == "judge" else "the implicit reward margin on held-out pairs"
    yield Seen(
        "problem" if change.end < change.start else "warning",
        f"The reward rises from {gain.start:.3g} to {gain.end:.3g}, while {words} falls from "
        f"{change.means[change.best]:.3g} to {change.end:.3g}: the reward is over-optimised (Gao et al. 2022, arXiv "
        "2210.10760).",
        change.where,
        f"the checkpoint from before the fall; a larger β, fewer steps; {_SAMPLES} for what the reward likes, such as "
        "length or one phrase; a reward model trained on samples of this policy too.",
    )


@rule("entropy-collapse", "collapse of entropy")
def entropy_collapse(log: Log, _: Log | None) -> Iterator[Seen]:
    """Find an entropy per token that has fallen to a small part of what it was at the start."""
    _there(log, "entropy")
    change = _change(log.need("entropy", 2 * ROWS))
    if change is None or change.start <= 0 or change.end > ENTROPY_LOW * change.start:
        return
    yield Seen(
        "problem" if change.end < ENTROPY_LOWEST * change.start else "warning",
        f"The entropy of the sampled tokens has fallen from {change.start:.3g} to {change.end:.3g} nats per token: "
        "the samples of a prompt become one text, and nothing is left to choose from.",
        change.where,
        "a larger β, a lower learning rate, fewer passes over each batch; more prompts; see by zero_variance how many "
        f"prompts still teach something; {_SAMPLES}.",
    )


def _there(log: Log, *names: str) -> list[str]:
    """Return the columns that the log has, of these; raise ``Unjudged`` where it has none.

    ``Inapplicable`` where the training is not known to sample responses.
    """
    if not log.samples:
        raise Inapplicable("the training samples no responses")
    there = [name for name in names if len(log.curve(name).steps)]
    if not there:
        raise Unjudged(f"the log has no {names[0]}")
    return there


class _Change(NamedTuple):
    """A curve in parts of equally many rows, the last of which ends with it."""

    means: list[float]
    error: float  # standard error of a part's mean, from the scatter within all parts
    where: str

    @property
    def start(self) -> float:
        return self.means[0]

    @property
    def end(self) -> float:
        return self.means[-1]

    @property
    def best(self) -> int:
        """Return the index of the part with the largest mean."""
        return int(np.argmax(self.means))

    def differ(self, one: int, other: int) -> bool:
        """Return whether two parts differ by more than chance, and not by rounding alone."""
        first, second = self.means[one], self.means[other]
        least = 1e-9 * max(abs(first), abs(second))
        return abs(first - second) > max(CHANGE_ERRORS * math.sqrt(2) * self.error, least)

    @property
    def fallen_since_best(self) -> bool:
        """Return whether the last part is below the best part, by more than chance."""
        return self.differ(self.best, -1)


def _change(curve: Curve) -> _Change | None:
    """Return a curve in parts, each a fifth of its rows and at least ``ROWS``; None where it has no two parts."""
    rows = max(ROWS, len(curve.steps) // 5)
    if len(curve.steps) < 2 * rows:
        return None
    parts = curve.values[len(curve.values) % rows :].reshape(-1, rows)
    error = math.sqrt(float(parts.var(axis=1, ddof=1).mean()) / rows)
    steps = curve.steps[[0, -1]].tolist()
    return _Change(parts.mean(axis=1).tolist(), error, f"steps {step_text(steps[0])} to {step_text(steps[1])}")


RULES: tuple[Rule, ...] = (no_end, no_signal, divergence, over_optimised, entropy_collapse)

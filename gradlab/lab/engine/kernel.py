"""The fused training loop: many steps of exact training on ``lanes`` (run, prompt) columns, as one function.

Columns do not interact, so a block of them takes all its steps before the next block begins, and everything it needs
stays in the fastest cache. Only under a ``DealtLoss`` do the columns of a run interact: then several blocks, which hold
whole runs, take each step together, first all pairs' numbers and then the slopes. The loop knows only the loss's trace.
This file writes LLVM's assembly, through the arithmetic of ``vectors``; nothing is computed before ``machine`` has
compiled it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal

from gradlab.lab.engine import sampling
from gradlab.lab.engine.functions import OPERATIONS, exp, log, maximum, sqrt
from gradlab.lab.engine.trace import DEALT, INPUTS, LENGTHS, OF_SURROGATE, NotFusable, Trace
from gradlab.lab.engine.vectors import LANES, Array, Emitter, Kind, Value
from gradlab.lab.optimizers import optimizer_of

NAME = "descend"

# The arguments of the function, in order. Rows are (responses, or what the comment says) × lanes.
ARGUMENTS: dict[str, Kind] = {
    "responses": "integer",
    "parameters": "integer",  # K; the number of responses if each has its own logit
    "stops": "integer",
    "stop": "integers",  # (stops + 1): where this call begins, and the steps to record
    "schedule": "scalars",  # (steps, 2): the two factors of the optimiser at each step
    "constants": "scalars",  # of the loss
    "penalty": "scalars",  # one: of squared scores, or of PPO's KL
    "epochs": "integer",  # steps of PPO on one batch
    "blocks": "integer",  # that take each step together: one, but for a DealtLoss; rows of blocks follow each other
    "partners": "integers",  # (responses + 1): where in ``partner`` a response's partners begin
    "partner": "integers",  # (pairs): the second response of each pair; pairs are sorted by the first
    "weight": "rows",  # pairs × 2: first over second, and swapped; for an antisymmetric loss, see ``derivative``
    "source": "places",  # pairs: where in ``number``, counted in numbers, is what a pair gets, for a DealtLoss
    "sign": "rows",  # pairs: by what that is multiplied
    "number": "rows",  # pairs: scratch, the number that each pair gives
    "reference": "rows",  # log π_ref
    "length": "rows",  # of each response in tokens, for a loss that reads it
    "reward": "rows",  # of PPO
    "start": "rows",  # log π at step 0
    "features": "rows",  # Φ, responses × parameters, if shared; each column has its own order of responses
    "theta": "rows",  # parameters; zeros at first, and kept from call to call
    "memory": "rows",  # memories × parameters of the optimiser; the same
    "logp": "rows", "prob": "rows", "slope": "rows",  # scratch
    "old_logp": "rows", "share": "rows", "advantage": "rows",  # scratch of PPO: its batch, kept from call to call
    "record": "rows",  # stops × responses: log π at each stop
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """All that a kernel depends on. Losses that differ only in their numbers share a kernel.

    goal   what the derivative belongs to: a policy's pairs, the pairs of free scores, or PPO's surrogate.
    rule   of a sampler whose weights follow the policy or the reference; None for fixed weights.
    moved  True if the reference follows the policy.
    """

    derivative: Trace
    antisymmetric: bool
    shared: bool
    optimizer: str
    dtype: str
    goal: Literal["pairs", "scores", "surrogate"] = "pairs"
    rule: sampling.Rule | None = None
    moved: bool = False

    @property
    def dealt(self) -> bool:
        """Return whether pairs take numbers of others."""
        return len(self.derivative.outputs) > 2

    @property
    def lengths(self) -> bool:
        """Return whether the loss reads the lengths of responses."""
        return self.derivative.reads(*LENGTHS)

    @property
    def arguments(self) -> dict[str, Kind]:
        """Return the arguments of the function, in order."""
        return ARGUMENTS | sampling.ARGUMENTS if self.rule is not None or self.moved else ARGUMENTS


def write(plan: Plan, lanes: int = LANES) -> str:
    """Return the kernel, as LLVM assembly. Raises NotFusable if the derivative needs an unknown operation."""
    emitter = Emitter(NAME, plan.dtype, plan.arguments, lanes)
    at = SimpleNamespace(plan=plan, lanes=lanes, loop=emitter.loop, cell=emitter.cell, **emitter.arguments)
    if plan.dealt and not plan.antisymmetric:
        raise NotFusable("its pairs take numbers of other pairs, and it is not antisymmetric")
    if plan.dealt and plan.rule is not None and plan.rule.draws:
        raise NotFusable("its pairs take numbers of other pairs, and its sampler ranks the responses")
    at.all_numbers, at.recorded = at.number, at.responses * at.blocks if plan.dealt else at.responses
    with at.loop(at.stops) as stop:
        with at.loop(at.stop[stop + 1], start=at.stop[stop]) as step:
            if plan.dealt:
                with _blocks(at) as block:
                    _softmax(block)
                    _follow(block, step)
                    _numbers(block)
            with _blocks(at) as block:
                if not plan.dealt:
                    _softmax(block)
                    _follow(block, step)
                _descend(block, step)
        with _blocks(at) as block:
            _softmax(block)
            with at.loop(at.responses) as response:
                block.record[stop * at.recorded + response] = block.logp[response]
    return emitter.finish()


@contextlib.contextmanager
def _blocks(at: SimpleNamespace) -> Iterator[SimpleNamespace]:
    """Repeat what is written inside for each block, with the arrays of that block."""
    if not at.plan.dealt:
        yield at
        return
    pairs, memories = at.partners[at.responses], optimizer_of(at.plan.optimizer).memories
    sizes = {"weight": pairs * 2, "sign": pairs, "number": pairs, "source": pairs * at.lanes}
    sizes |= dict.fromkeys(("reference", "length", "start", "logp", "prob", "slope", "record"), at.responses)
    sizes |= {"theta": at.parameters, "memory": at.parameters * memories, "features": at.responses * at.parameters}
    if at.plan.rule is not None:
        sizes |= {"utility": at.responses, "comparable": pairs}
        sizes |= {"density": at.responses * at.plan.rule.densities, "factor": at.responses.like(at.plan.rule.factors)}
        sizes |= {"chance": pairs}
    with at.loop(at.blocks) as number:
        moved = {name: getattr(at, name).begin(number * size) for name, size in sizes.items()}
        yield SimpleNamespace(**{**vars(at), **moved})


def _follow(at: SimpleNamespace, step: Value) -> None:
    """Every so many steps, let the reference and the weights of pairs be those of the current policy."""
    if at.plan.moved:
        first = step.like(2**62).divides(step)  # 1 at step 0, to which the reference does not move
        with at.loop(at.reference_every.divides(step) - first), at.loop(at.responses) as response:
            at.reference[response] = at.logp[response]
    if at.plan.rule is not None:
        with at.loop(at.sampler_every.divides(step)):
            sampling.refresh(at)


def _descend(at: SimpleNamespace, step: Value) -> None:
    """Take one step on one block, from ``logp`` and ``prob``."""
    total = _gradient_of_surrogate(at, step) if at.plan.goal == "surrogate" else _gradient_of_log_policy(at)
    if at.plan.goal != "scores":
        with at.loop(at.responses) as response:  # through the softmax: ∂L/∂logit = g − π Σ g
            at.slope[response] = (-at.prob[response]).times_plus(total, at.slope[response])
    with at.loop(at.parameters) as parameter:
        gradient = _mix(at, at.slope, parameter, at.responses, first=parameter, stride=at.parameters)
        _optimise(at, parameter, gradient, step)


def _numbers(at: SimpleNamespace) -> None:
    """Write what each pair gives to ``number``."""
    with at.loop(at.responses) as first, at.loop(at.partners[first + 1], start=at.partners[first]) as pair:
        (at.number[pair],) = _replay(at, at.plan.derivative, first, at.partner[pair], {}, slice(2, 3))


def _softmax(at: SimpleNamespace) -> None:
    """Write ``logp`` and ``prob`` from the parameters; of free scores, which have no softmax, only ``logp``."""
    largest, total = at.cell(-math.inf), at.cell(0.0)
    with at.loop(at.responses) as response:
        logit = _mix(at, at.theta, response, at.parameters, first=response * at.parameters, stride=1)
        at.logp[response] = at.start[response] + logit
        largest[0] = maximum(largest[0], at.logp[response])
    if at.plan.goal == "scores":
        return
    with at.loop(at.responses) as response:
        at.logp[response] = at.logp[response] - largest[0]
        at.prob[response] = exp(at.logp[response])
        total[0] = total[0] + at.prob[response]
    shift, share = log(total[0]), 1.0 / total[0]
    with at.loop(at.responses) as response:
        at.logp[response] = at.logp[response] - shift
        at.prob[response] = at.prob[response] * share


def _mix(at: SimpleNamespace, values: Array, index: Value, count: Value, first: Value, stride: Value | int) -> Value:
    """Return the values' sum, weighted by the features from ``first`` on; for free logits, where Φ = I, one value."""
    if not at.plan.shared:
        return values[index]
    total = at.cell(0.0)
    with at.loop(count) as other:
        total[0] = at.features[first + other * stride].times_plus(values[other], total[0])
    return total[0]


def _gradient_of_log_policy(at: SimpleNamespace) -> Value:
    """Write g = ∂L/∂log π to ``slope``, summed over pairs, as if the log-probabilities were independent. Return Σ g.

    Σ g is summed over pairs as well: where each pair's two slopes cancel, it is 0 exactly. A sum over responses would
    leave rounding, and Adam amplifies rounding where nothing else moves a logit.
    """
    total, nothing = at.cell(0.0), at.cell(0.0)
    with at.loop(at.responses) as response:
        at.slope[response] = at.penalty[0] * at.logp[response] if at.plan.goal == "scores" else nothing[0]
    seen = None if at.plan.rule is None else sampling.Seen(at)
    with at.loop(at.responses) as first:
        slope, weigh = at.cell(at.slope[first]), None if seen is None else seen.weigher(first)
        with at.loop(at.partners[first + 1], start=at.partners[first]) as pair:
            other = at.partner[pair]
            weights = (at.weight[pair * 2], at.weight[pair * 2 + 1]) if weigh is None else weigh(other, pair)
            first_slope, other_slope = _pull(at, first, other, pair, weights)
            total[0] = total[0] + (first_slope + other_slope)
            slope[0] = slope[0] + first_slope
            at.slope[other] = at.slope[other] + other_slope
        at.slope[first] = slope[0]
    if seen is not None:
        scale = seen.scale()
        total[0] = total[0] * scale
        with at.loop(at.responses) as response:
            at.slope[response] = at.slope[response] * scale
    return total[0]


def _gradient_of_surrogate(at: SimpleNamespace, step: Value) -> Value:
    """Write PPO's g = ∂L/∂log π to ``slope``; return Σ g. Every ``epochs`` steps the policy becomes the new batch."""
    total = at.cell(0.0)
    with at.loop(at.epochs.divides(step)):  # once or not at all
        mean = at.cell(0.0)
        with at.loop(at.responses) as response:
            logp, share = at.logp[response], at.prob[response]
            advantage = at.reward[response] - at.penalty[0] * (logp - at.reference[response])
            at.old_logp[response], at.share[response], at.advantage[response] = logp, share, advantage
            mean[0] = mean[0] + share * advantage
        with at.loop(at.responses) as response:
            at.advantage[response] = at.advantage[response] - mean[0]
    with at.loop(at.responses) as response:
        inputs = {name: getattr(at, name)[response] for name in OF_SURROGATE}
        (at.slope[response],) = at.plan.derivative.replay(OPERATIONS, inputs, at.constants)
        total[0] = total[0] + at.slope[response]
    return total[0]


def _pull(
    at: SimpleNamespace, first: Value, other: Value, pair: Value, weights: tuple[Value, Value]
) -> tuple[Value, Value]:
    """Return what a pair of responses, in both orders, adds to the slopes of the two."""
    dealt = {DEALT: at.all_numbers.gather(at.source, pair) * at.sign[pair]} if at.plan.dealt else {}
    given = dict(zip(INPUTS[4:], weights, strict=True)) | dealt
    if at.plan.antisymmetric:
        first_slope, other_slope = _replay(at, at.plan.derivative, first, other, given, slice(2))
        return first_slope, other_slope
    trace = at.plan.derivative.in_both_orders()
    slopes = _replay(at, trace, first, other, given)
    # An absent pair adds nothing, not even 0 · ∞: then it does not matter which other columns are in the block.
    won, lost = (
        [(weight > 0.0).where(slope, 0.0) for slope in both]
        for weight, both in zip(weights, (slopes[:2], slopes[2:]), strict=True)
    )
    if trace.opposite(0, 1) and trace.opposite(2, 3):
        return won[0] - lost[0], -(won[0] - lost[0])
    return won[0] + lost[1], won[1] + lost[0]


def _replay(
    at: SimpleNamespace, trace: Trace, win: Value, lose: Value, given: dict[str, Value], outputs: slice = slice(None)
) -> list[Value]:
    """Return these outputs of a trace for a pair of responses."""
    values = at.logp[win], at.logp[lose], at.reference[win], at.reference[lose]
    inputs = {**dict(zip(INPUTS, values, strict=False)), **given}
    if at.plan.lengths:
        inputs |= dict(zip(LENGTHS, (at.length[win], at.length[lose]), strict=True))
    return trace.replay(OPERATIONS, inputs, at.constants, outputs)


def _optimise(at: SimpleNamespace, parameter: Value, gradient: Value, step: Value) -> None:
    """Take one step of the optimiser on one parameter."""
    rule = optimizer_of(at.plan.optimizer)
    places = [at.parameters * number + parameter for number in range(rule.memories)]
    memory, factors = [at.memory[place] for place in places], (at.schedule[step * 2], at.schedule[step * 2 + 1])
    at.theta[parameter], memory = rule.update(at.theta[parameter], gradient, memory, factors, sqrt)
    for place, value in zip(places, memory, strict=True):
        at.memory[place] = value

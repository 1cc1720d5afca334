"""The fused training loop: many steps of exact training on ``LANES`` (run, prompt) columns, as one function.

Columns do not interact, so a block of them takes all its steps before the next block begins, and everything it needs
stays in the fastest cache. Of the loss the loop knows its trace alone. What is written here is LLVM's assembly, through
the arithmetic of ``gradlab.engine.vectors``; nothing is computed before ``gradlab.engine.machine`` has compiled it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from gradlab.engine.functions import OPERATIONS, exp, log, maximum, sqrt
from gradlab.engine.trace import Trace
from gradlab.engine.vectors import Cell, Emitter, Index, Kind, Real

NAME = "descend"
BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's, as in PyTorch

# What the function takes, in order. Rows are (responses, or whatever is said) × LANES.
ARGUMENTS: dict[str, Kind] = {
    "responses": "integer",
    "parameters": "integer",  # K; as many as responses if each has its own logit
    "stops": "integer",
    "stop": "integers",  # (stops + 1): where this call begins, and the steps to record
    "schedule": "scalars",  # (steps, 2): the step size, and what Adam multiplies the root of its second moment by
    "constants": "scalars",  # of the loss
    "partners": "integers",  # (responses + 1): where in ``partner`` a response's partners begin
    "partner": "integers",  # (pairs): the other response of each pair, sorted by the one, which comes first
    "weight": "rows",  # pairs × 2: of one over the other, and swapped; for an antisymmetric loss, see ``derivative``
    "reference": "rows",  # log π_ref
    "start": "rows",  # log π at step 0
    "features": "rows",  # Φ, responses × parameters, if shared; each column has its own order of responses
    "theta": "rows",  # parameters, here and in the next two; zeros at first, and kept from call to call
    "momentum": "rows",
    "square": "rows",
    "logp": "rows",  # scratch, like the next two
    "prob": "rows",
    "slope": "rows",
    "record": "rows",  # stops × responses: log π at each stop
}


@dataclass(frozen=True)
class Plan:
    """All that a kernel depends on. Losses that differ in numbers alone share one."""

    derivative: Trace
    antisymmetric: bool
    shared: bool
    optimizer: str
    dtype: str


def write(plan: Plan) -> str:
    """The kernel, as LLVM assembly. Raises NotFusable if the derivative needs what the engine does not know."""
    emitter = Emitter(NAME, plan.dtype, ARGUMENTS)
    given = SimpleNamespace(**emitter.arguments)
    with emitter.loop(given.stops) as stop:
        with emitter.loop(given.stop[stop + 1], start=given.stop[stop]) as step:
            _softmax(plan, emitter, given)
            total = _gradient_of_log_policy(plan, emitter, given)
            _through_softmax(emitter, given, total)
            with emitter.loop(given.parameters) as parameter:
                _optimise(plan, given, parameter, _gradient_of(plan, emitter, given, parameter), step)
        _softmax(plan, emitter, given)
        with emitter.loop(given.responses) as response:
            given.record[stop * given.responses + response] = given.logp[response]
    return emitter.finish()


def _softmax(plan: Plan, emitter: Emitter, given: SimpleNamespace) -> None:
    """``logp`` and ``prob`` from the parameters."""
    largest, total = Cell(emitter, -math.inf), Cell(emitter, 0.0)
    with emitter.loop(given.responses) as response:
        given.logp[response] = _logit(plan, emitter, given, response)
        largest.value = maximum(largest.value, given.logp[response])
    with emitter.loop(given.responses) as response:
        given.prob[response] = exp(given.logp[response] - largest.value)
        total.value = total.value + given.prob[response]
    shift, share = largest.value + log(total.value), 1.0 / total.value
    with emitter.loop(given.responses) as response:
        given.logp[response] = given.logp[response] - shift
        given.prob[response] = given.prob[response] * share


def _logit(plan: Plan, emitter: Emitter, given: SimpleNamespace, response: Index) -> Real:
    if not plan.shared:
        return given.start[response] + given.theta[response]
    logit = Cell(emitter, given.start[response])
    with emitter.loop(given.parameters) as parameter:
        feature = given.features[response * given.parameters + parameter]
        logit.value = feature.times_plus(given.theta[parameter], logit.value)
    return logit.value


def _gradient_of_log_policy(plan: Plan, emitter: Emitter, given: SimpleNamespace) -> Real:
    """``slope``: g = ∂L/∂log π, summed over pairs, the log-probabilities taken as independent of each other. Gives Σ g.

    That sum is taken over pairs as well: where each pair's two slopes cancel, it is 0 exactly. From the responses' own
    sums rounding would be left over, and Adam blows up rounding where nothing else moves a logit.
    """
    total = Cell(emitter, 0.0)
    with emitter.loop(given.responses) as response:
        given.slope[response] = emitter.real(0.0)
    with emitter.loop(given.responses) as one:
        slope = Cell(emitter, given.slope[one])
        with emitter.loop(given.partners[one + 1], start=given.partners[one]) as pair:
            other = given.partner[pair]
            weights = given.weight[pair * 2], given.weight[pair * 2 + 1]
            sides = given.logp[one], given.logp[other], given.reference[one], given.reference[other]
            mine, yours = _pull(plan, sides, weights, given.constants)
            total.value = total.value + (mine + yours)
            slope.value = slope.value + mine
            given.slope[other] = given.slope[other] + yours
        given.slope[one] = slope.value
    return total.value


def _pull(plan: Plan, sides: Sequence[Real], weights: Sequence[Real], constants: Any) -> Sequence[Real]:
    """What a pair of responses, in both orders, adds to the slopes of the two."""
    if plan.antisymmetric:
        return plan.derivative.replay(OPERATIONS, [*sides, *weights], constants)
    one, other, one_reference, other_reference = sides
    won = plan.derivative.replay(OPERATIONS, [*sides, weights[0]], constants)
    swapped = [other, one, other_reference, one_reference, weights[1]]
    lost = plan.derivative.replay(OPERATIONS, swapped, constants)
    return won[0] + lost[1], won[1] + lost[0]


def _through_softmax(emitter: Emitter, given: SimpleNamespace, total: Real) -> None:
    """``slope`` becomes ∂L/∂logit = g − π Σ g."""
    with emitter.loop(given.responses) as response:
        given.slope[response] = (-given.prob[response]).times_plus(total, given.slope[response])


def _gradient_of(plan: Plan, emitter: Emitter, given: SimpleNamespace, parameter: Index) -> Real:
    """∂L/∂θ of one parameter."""
    if not plan.shared:
        return given.slope[parameter]
    total = Cell(emitter, 0.0)
    with emitter.loop(given.responses) as response:
        feature = given.features[response * given.parameters + parameter]
        total.value = feature.times_plus(given.slope[response], total.value)
    return total.value


def _optimise(plan: Plan, given: SimpleNamespace, parameter: Index, gradient: Real, step: Index) -> None:
    """One step of Adam, or of plain gradient descent, on one parameter."""
    rate, correction = given.schedule[step * 2], given.schedule[step * 2 + 1]
    if plan.optimizer == "gd":
        given.theta[parameter] = given.theta[parameter] - rate * gradient
        return
    momentum = given.momentum[parameter] * BETAS[0] + gradient * (1 - BETAS[0])
    square = given.square[parameter] * BETAS[1] + gradient * gradient * (1 - BETAS[1])
    given.momentum[parameter], given.square[parameter] = momentum, square
    given.theta[parameter] = given.theta[parameter] - rate * momentum / (sqrt(square) * correction + EPSILON)


def schedule(optimizer: str, learning_rate: float, steps: int, dtype: str) -> np.ndarray:
    """The kernel's argument of that name: Adam's corrections for moments that began at zero, worked out beforehand."""
    rates, correction = np.full(steps, learning_rate), np.ones(steps)
    taken = np.arange(1, steps + 1)
    with np.errstate(over="ignore"):  # a learning rate without measure: the policy says so by not being finite
        if optimizer == "adam":
            rates, correction = learning_rate / (1 - BETAS[0] ** taken), (1 - BETAS[1] ** taken) ** -0.5
        return np.stack([rates, correction], 1).astype(dtype)

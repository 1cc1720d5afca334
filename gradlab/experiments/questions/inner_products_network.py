"""A small network as policy, where responses and prompts share every parameter, and inner products of its gradients.

log π(·|x) = log-softmax(log π_start(·|x) + f_θ(x, ·) − f_start(x, ·)), so that training begins at the start, as with
tabular policies. f is a multilayer perceptron of two hidden layers of tanh; prompt and response enter as radial bumps
over their axes. All of this is ours, not the paper's. Leading axes R are independent runs, each with separate weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.checks import count, positive
from gradlab.lab.descent import steady
from gradlab.lab.objective import PairObjective, to_columns
from gradlab.lab.policy import RadialBasis
from gradlab.lab.runs import Runs
from gradlab.lab.world import World
from gradlab.losses import PairLoss
from gradlab.streams import Purpose, stream

HIDDEN = 16

Weights = list[Tensor]  # of layers 1, 2 and 3: matrices (R, in, out) and biases (R, 1, out); the last has no bias


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network in training: log π (R, X, Y), and its weights."""

    logp: Tensor
    weights: Weights


def network_inputs(prompts: int, responses: int) -> Tensor:
    """Return the network's inputs for every prompt and response, (X, Y, 16): eight bumps over each of the two axes."""
    bumps = RadialBasis()
    across = bumps.features(responses).expand(prompts, -1, -1)
    return torch.cat([bumps.features(prompts)[:, None].expand(-1, responses, -1), across], -1)


def initial_weights(seeds: Sequence[int], hidden: int = HIDDEN) -> Weights:
    """Draw random weights, one run per seed: N(0, 1/fan-in), biases zero. Equal seeds give equal bits."""
    sizes = [2 * RadialBasis().centres, count("hidden", hidden, least=1), hidden, 1]
    streams = [stream(seed, Purpose.NETWORK_WEIGHTS) for seed in seeds]
    weights = []
    for before, after in itertools.pairwise(sizes):
        drawn = [torch.as_tensor(rng.standard_normal((before, after))) for rng in streams]
        weights += [torch.stack(drawn) / before**0.5, torch.zeros(len(streams), 1, after, dtype=torch.float64)]
    return weights[:-1]  # a last bias would move all logits equally


def scores(weights: Weights, inputs: Tensor) -> Tensor:
    """Return f of inputs (N, F): (R, N), or (N,) for the weights of a single run, without axis R."""
    first, first_bias, second, second_bias, last = weights
    hidden = torch.tanh(inputs @ first + first_bias)
    return (torch.tanh(hidden @ second + second_bias) @ last)[..., 0]


@steady("cpu")
def gradient_kernels(weights: Weights, inputs: Tensor) -> Tensor:
    """Return ⟨∇_θ f(x, i), ∇_θ f(x, j)⟩ for the responses i, j of each prompt of inputs (X, Y, F): (R, X, Y, Y)."""

    def score(of_run: Weights, response: Tensor) -> Tensor:
        return scores(of_run, response[None])[0]

    gradients = torch.func.vmap(torch.func.vmap(torch.func.grad(score), (None, 0)), (0, None))
    jacobian = torch.cat([part.flatten(2) for part in gradients(weights, inputs.flatten(0, 1))], 2)
    jacobian = jacobian.unflatten(1, inputs.shape[:2])
    return jacobian @ jacobian.mT


@steady("cpu")
def train_network(
    worlds: Sequence[World], loss: PairLoss, *, seeds: Sequence[int], steps: Sequence[int], pairs: int | None = None,
    learning_rate: float = 0.01,
) -> list[Checkpoint]:  # fmt: skip
    """Train one network per world by Adam on the mean pair loss of each prompt, summed over prompts.

    seeds          one per world: draws the weights at the start, and the data as in ``training.fit``.
    steps          when to keep a checkpoint, in rising order; 0 is the start, whose policy is the reference.
    pairs          None: the exact expectation over all comparable pairs. N: a finite data set of N pairs per prompt.
    learning_rate  > 0.

    Returns the checkpoints. The gradient comes through ``gradlab.losses`` and autograd.
    """
    runs = Runs.of(list(worlds), pairs, None, list(seeds))
    objective = PairObjective(loss, runs.data(), runs.ref_logp, "cpu", torch.float64, lengths=runs.lengths)
    inputs, start = network_inputs(runs.prompts, runs.responses).flatten(0, 1), runs.start(None)
    weights = [layer.requires_grad_() for layer in initial_weights(runs.seeds)]
    stepper = torch.optim.Adam(weights, lr=positive("learning_rate", learning_rate))
    before = scores(weights, inputs).detach()
    kept = []
    for step in range(max(steps) + 1):
        moved = (scores(weights, inputs) - before).unflatten(1, start.shape[1:])
        logp = torch.log_softmax(start + moved, -1)
        if step in steps:
            kept.append(Checkpoint(logp.detach(), [layer.detach().clone() for layer in weights]))
        columns = to_columns(logp, "cpu", torch.float64)
        stepper.zero_grad()
        columns.backward(objective.gradient(columns.detach()))
        stepper.step()
    return kept

"""Optimisers: one update rule each, over tensors, arrays and the engine's values; PyTorch's own is the reference."""

import dataclasses

import numpy as np
import pytest
import torch

from gradlab.lab import optimizers
from gradlab.lab.fit import fit
from gradlab.lab.optimizers import OPTIMIZERS, optimizer_of
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world
from gradlab.losses import DPO, BalancedDPO

every_rule = pytest.mark.parametrize("rule", OPTIMIZERS.values(), ids=OPTIMIZERS)


def descend(rule, gradients, rate, zeros, sqrt):
    """The parameter after a step along each gradient, by the rule."""
    parameter, memory = zeros(gradients[0].shape), [zeros(gradients[0].shape)] * rule.memories
    for gradient, factors in zip(gradients, rule.factors(rate, len(gradients)).tolist(), strict=True):
        parameter, memory = rule.update(parameter, gradient, memory, factors, sqrt)
    return parameter


@every_rule
def test_the_rule_is_pytorchs_over_arrays_and_tensors(rule):
    gradients = np.random.default_rng(0).standard_normal((30, 5))
    parameter = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    stepper = rule.stepper([parameter], 0.1)
    for gradient in torch.as_tensor(gradients):
        parameter.grad = gradient
        stepper.step()
    expected = parameter.detach().numpy()
    # Each of 30 steps adds a handful of roundings of numbers no larger than 30 · 0.1 · max|g| < 12.
    tolerance = 30 * 10 * 12 * np.finfo(float).eps
    by_arrays = descend(rule, gradients, 0.1, np.zeros, np.sqrt)
    by_tensors = descend(rule, torch.as_tensor(gradients), 0.1, lambda shape: torch.zeros(shape).double(), torch.sqrt)
    np.testing.assert_allclose(by_arrays, expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(by_tensors.numpy(), expected, rtol=0, atol=tolerance)


def test_adam_against_its_formula_written_out():
    gradients = np.random.default_rng(1).standard_normal((4, 3))
    momentum = square = parameter = np.zeros(3)
    for step, gradient in enumerate(gradients, 1):
        momentum, square = 0.9 * momentum + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        root = np.sqrt(square / (1 - 0.999**step)) + 1e-8
        parameter = parameter - 0.05 * momentum / (1 - 0.9**step) / root
    np.testing.assert_allclose(descend(optimizer_of("adam"), gradients, 0.05, np.zeros, np.sqrt), parameter, rtol=1e-12)


def test_an_unknown_optimizer_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=f"^optimizer must be one of {', '.join(OPTIMIZERS)}; got 'adagrad'"):
        optimizer_of("adagrad")


class Momentum:
    """Heavy-ball momentum, which keeps one number per parameter: an optimiser that gradlab does not have."""

    name, label, memories = "momentum", "momentum", 1

    def factors(self, learning_rate, steps):
        return np.stack([np.full(steps, learning_rate), np.full(steps, 0.9)], axis=1)

    def update(self, parameter, gradient, memory, factors, sqrt):
        speed = memory[0] * factors[1] + gradient
        return parameter - factors[0] * speed, (speed,)

    def stepper(self, parameters, learning_rate):
        return torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9)


@pytest.mark.parametrize("policy", ["free", "shared"])
@pytest.mark.parametrize("loss", [DPO(), BalancedDPO()], ids=["dpo", "bdpo"])
def test_a_new_optimizer_is_one_object_and_the_engine_has_it_at_once(monkeypatch, policy, loss):
    monkeypatch.setitem(optimizers.OPTIMIZERS, "momentum", Momentum())
    recipe = Training(policy=policy, optimizer="momentum", learning_rate=0.5, steps=60)
    fused, eager = (fit(gaussian_world(4, 7), loss, dataclasses.replace(recipe, engine=engine))
                    for engine in ("fused", "eager"))  # fmt: skip
    assert fused.settings["engine"] == "fused"
    torch.testing.assert_close(fused.policies.exp(), eager.policies.exp(), rtol=0, atol=1e-10)

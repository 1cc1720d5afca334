"""Losses of a batch in the lab: all pairs of a run are one batch, whatever runs stand beside it."""

import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_worlds import WORLDS

from gradlab.lab.engine import EagerNotice, NotFusable
from gradlab.lab.engine.trace import derivative
from gradlab.lab.engine.webassembly import refusal
from gradlab.lab.fit import fit
from gradlab.lab.objective import PairObjective, from_columns, to_columns
from gradlab.lab.world import draw_pairs, exact_pairs
from gradlab.losses import DPO, BatchLoss, PairLogps


@dataclass(frozen=True)
class SoftMinimum(BatchLoss):
    """A user's own: the log of the batch's mean of σ(m), and each pair's distance from the mean margin."""

    beta: float = 1.0
    name = "soft-minimum"
    label = "soft minimum"
    equation = "−log mean σ(m) + (m − mean m)²"
    source = "a test"
    needs_lengths = True

    def __call__(self, logps, weights=None):
        win_len, lose_len = logps.lengths(self.name)
        margin = self.beta * (logps.win_logratio / win_len - logps.lose_logratio / lose_len)
        weights = torch.full_like(margin, 1 / len(margin)) if weights is None else weights
        torch.testing.assert_close(weights.sum(0), torch.ones_like(weights.sum(0)))
        common = -(F.logsigmoid(margin) + weights.log()).logsumexp(0, keepdim=True)
        return common + (margin - (weights * margin).sum(0, keepdim=True)).square()


@dataclass(frozen=True)
class Alone(BatchLoss):
    """DPO, which as a loss of batches couples no pairs."""

    beta: float = 1.0
    name, label, equation, source = "alone", "alone", "−log σ(m)", "a test"

    def __call__(self, logps, weights=None):
        return DPO(self.beta)(logps)


def naive(loss, logp, world, weights):
    """The loss of one run, times its prompts: a sum over all pairs, each prompt's pairs together as heavy."""
    prompt, win, lose = map(torch.as_tensor, np.nonzero(weights))
    share = torch.as_tensor(weights)[prompt, win, lose]
    tables = logp, torch.as_tensor(world.ref_logp.copy()), torch.as_tensor(world.token_counts.copy())
    batch = PairLogps(*(table[prompt, side] for table in tables for side in (win, lose)))
    return (loss(batch, share / share.sum()) * share).sum()


def policies(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(torch.randn(len(WORLDS), 7, 9, generator=generator, dtype=torch.float64), -1)


def objective(loss, worlds, weights):
    ref_logp, lengths = (np.stack([getattr(world, name) for world in worlds]) for name in ("ref_logp", "token_counts"))
    return PairObjective(loss, np.stack(weights), ref_logp, "cpu", torch.float64, lengths=lengths)


DATA = {"exact": exact_pairs, "finite": lambda world: draw_pairs(world, 3)}


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_value_and_gradient_are_those_of_one_batch_per_run(data):
    weights, logp = [data(world) for world in WORLDS], policies().requires_grad_()
    expected = [naive(SoftMinimum(), *one) for one in zip(logp, WORLDS, weights, strict=True)]
    (expected_gradient,) = torch.autograd.grad(sum(expected), logp)
    together, columns = objective(SoftMinimum(), WORLDS, weights), to_columns(logp.detach(), "cpu", torch.float64)
    value = together.value(columns)[: len(WORLDS) * 7].unflatten(0, (-1, 7)).sum(1)
    gradient = from_columns(together.gradient(columns), len(WORLDS), 7)
    torch.testing.assert_close(value, torch.stack(expected).detach(), rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-14)
    for run, world in enumerate(WORLDS):
        alone = objective(SoftMinimum(), [world], [weights[run]])
        own = to_columns(logp.detach()[run : run + 1], "cpu", torch.float64)
        assert torch.equal(gradient[run], from_columns(alone.gradient(own), 1, 7)[0])


def test_a_loss_that_couples_nothing_trains_as_the_loss_of_pairs():
    alone, pairs = (fit(WORLDS, loss, steps=20, engine="eager") for loss in (Alone(2.0), DPO(2.0)))
    torch.testing.assert_close(alone.logp.exp(), pairs.logp.exp(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(alone.history["loss"], pairs.history["loss"], rtol=1e-10)


@pytest.mark.parametrize("settings", [{}, {"pairs": 9}, {"pairs": 9, "batch": 2}], ids=["exact", "finite", "batches"])
def test_a_run_trains_as_it_does_alone(settings):
    settings |= {"steps": 10, "record": 3}
    together = fit(WORLDS, SoftMinimum(), seed=range(4), **settings)
    assert together.settings["engine"] == "eager"
    assert together.history["held_out_loss"].notna().all()
    for run, world in enumerate(WORLDS):
        assert torch.equal(together.policies[:, run], fit(world, SoftMinimum(), seed=run, **settings).policies)


def test_the_engine_says_why_only_where_it_was_asked_for():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(WORLDS[0], SoftMinimum(2.5), steps=1)
    said = "^soft-minimum trains eager, which is slower, since its pairs depend on all others of their batch$"
    with pytest.warns(EagerNotice, match=said):
        assert fit(WORLDS[0], SoftMinimum(2.5), steps=1, engine="fused").settings["engine"] == "eager"
    with pytest.raises(NotFusable):
        derivative(SoftMinimum(), torch.float64)
    assert refusal(SoftMinimum()) == "its pairs depend on all others of their batch"


def test_there_is_no_gradient_log_of_a_batch():
    with pytest.raises(ValueError, match=r"^gradients must be False for SoftMinimum\(.*\), whose pairs take numbers"):
        fit(WORLDS[0], SoftMinimum(), steps=2, gradients=True)

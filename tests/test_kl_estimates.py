"""Estimates of KL(π‖π_ref) from samples: values and gradients, summed over all actions where a mean is asked for."""

import math

import pytest
import torch

from gradlab.losses import kl_estimate

KINDS = ("k1", "k2", "k3")
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def laws(spread=1.0, seed=0):
    """Logits of a policy over nine actions, and log π_ref."""
    generator = torch.Generator().manual_seed(seed)
    logits, ref = (torch.randn(9, dtype=torch.float64, generator=generator) * size for size in (spread, 0.5))
    return (ref + logits).requires_grad_(), ref.log_softmax(-1)


def mean_gradient(kind, logits, ref):
    """The gradient of an estimate as a loss term, averaged over actions drawn from π: π itself is held fixed."""
    logp = logits.log_softmax(-1)
    return torch.autograd.grad((logp.exp().detach() * kl_estimate(logp, ref, kind)).sum(), logits)[0]


def divergence(p, q):
    return (p.exp() * (p - q)).sum()


def test_k1_and_k3_have_the_divergence_as_their_mean():
    logits, ref = laws()
    logp = logits.detach().log_softmax(-1)
    for kind in ("k1", "k3"):
        mean = (logp.exp() * kl_estimate(logp, ref, kind)).sum()
        torch.testing.assert_close(mean, divergence(logp, ref), **EXACT)


def test_k2_has_it_up_to_the_third_order():
    errors = []
    for spread in (1e-2, 1e-3):
        logits, ref = laws(spread)
        logp = logits.detach().log_softmax(-1)
        errors.append(float((logp.exp() * kl_estimate(logp, ref, "k2")).sum() - divergence(logp, ref)))
    assert abs(errors[0] / errors[1]) == pytest.approx(1e3, rel=0.1)


def test_as_loss_terms_k1_pulls_nowhere_k2_down_the_divergence_and_k3_down_the_reverse_one():
    logits, ref = laws()
    logp = logits.log_softmax(-1)
    (down,) = torch.autograd.grad(divergence(logp, ref), logits, retain_graph=True)
    (reverse,) = torch.autograd.grad(divergence(ref, logp), logits)
    torch.testing.assert_close(mean_gradient("k1", logits, ref), torch.zeros_like(logits), **EXACT)
    torch.testing.assert_close(mean_gradient("k2", logits, ref), down, **EXACT)
    torch.testing.assert_close(mean_gradient("k3", logits, ref), reverse, **EXACT)
    assert float((down - reverse).norm()) > 0.1 * float(down.norm())


def test_k1_in_the_reward_has_the_divergence_s_gradient():
    logits, ref = laws()
    logp = logits.log_softmax(-1)
    (down,) = torch.autograd.grad(divergence(logp, ref), logits, retain_graph=True)
    reward = -kl_estimate(logp.detach(), ref, "k1")
    (policy,) = torch.autograd.grad(-(logp.exp().detach() * reward * logp).sum(), logits)
    torch.testing.assert_close(policy, down, **EXACT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_an_estimate_is_finite_0_at_the_reference_and_holds_the_reference_fixed(kind, dtype):
    logp = torch.tensor([[-3.0, 0.0, -2000.0]], dtype=dtype, requires_grad=True)
    ref = torch.tensor([[-3.0, -2000.0, 0.0]], dtype=dtype, requires_grad=True)
    value = kl_estimate(logp, ref, kind)
    value.sum().backward()
    assert value.shape == (1, 3)
    assert value[0, 0] == 0
    assert torch.isfinite(value).all()
    assert torch.isfinite(logp.grad).all()
    assert ref.grad is None
    assert kind == "k1" or float(value.detach().min()) >= 0


def test_k3_keeps_its_digits_near_the_reference():
    logp = torch.tensor([-1.0], dtype=torch.float64)
    for step in (1e-4, 1e-6):
        assert float(kl_estimate(logp + step, logp, "k3")) == pytest.approx(step**2 / 2, rel=1e-3)


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be one of k1, k2, k3; got 'k4'"):
        kl_estimate(torch.zeros(1), torch.full((1,), -math.log(2)), "k4")

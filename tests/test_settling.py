"""Where a training settles: the closed form, long training, and what has no point of rest."""

import numpy as np
import pytest
import torch

import gradlab as gl
from gradlab.experiments.methods import PermutedBalancedDPO
from gradlab.lab.settling import SETTLED, settle
from gradlab.losses import DPO, BalancedDPO

SAMPLERS = ["uniform", "reference", "on-policy", "best-worst:draws=4", "mix-p", "pilaf", "rejection"]


def worlds(scale=1.0, **given):
    return [gl.gaussian_world(prompts=2, responses=8, scale=scale, seed=seed, **given) for seed in (0, 1)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_dpo_settles_at_the_closed_form_under_every_sampler(sampler):
    given = worlds(reference="shifted", shift=3.0)
    found = settle(given, DPO(0.7), sampler)
    assert found.settled.all()
    assert float(found.residual.max()) < SETTLED
    ideal = torch.stack([torch.as_tensor(world.ideal_logp(0.7)) for world in given])
    torch.testing.assert_close(found.logp, ideal, rtol=0, atol=1e-8)


def test_bdpo_settles_elsewhere_on_policy():
    given = worlds()
    even, on_policy = (settle(given, BalancedDPO(), sampler) for sampler in ("uniform", "on-policy"))
    assert even.settled.all()
    assert on_policy.settled.all()
    assert float((even.logp - on_policy.logp).abs().max()) > 1e-3


def test_long_training_ends_where_the_search_does():
    world = gl.gaussian_world(prompts=1, responses=6, scale=1.0, seed=3)
    found = settle([world], BalancedDPO(), "on-policy")
    recipe = gl.Training(optimizer="gd", learning_rate=10.0, steps=3000, record=1, sampler="on-policy", engine="eager")
    trained = gl.fit(world, BalancedDPO(), recipe).logp
    assert found.settled.all()
    torch.testing.assert_close(trained, found.logp[0], rtol=0, atol=1e-7)


def test_losses_of_lengths_settle_with_the_worlds_lengths():
    world = gl.gaussian_world(1, 4, scale=1.0, length=30, length_spread=0.8, seed=3)
    loss = gl.pair_loss("sigmoid-norm", beta=20.0)
    found = settle([world], loss)
    assert found.settled.all()
    trained = gl.fit(world, loss, optimizer="gd", learning_rate=0.5, start=found.logp[0], steps=50).logp
    np.testing.assert_allclose(trained.numpy(), found.logp[0].numpy(), atol=1e-8)  # the rest of a settled gradient
    assert (settle([gl.gaussian_world(1, 4, scale=1.0, seed=3)], loss).logp - found.logp).abs().max() > 0.01


def test_what_drifts_has_not_settled():
    # Identity 15: two responses settle exactly where the difference of utilities is below β |log π_ref|.
    weak, strong = (
        gl.World(utility=[[gap, 0.0]], observed=[[True, True]], ref_logp=torch.full((1, 2), 0.5).log().numpy())
        for gap in (0.5, 0.9)
    )
    found = settle([weak, strong], BalancedDPO())
    assert found.settled.flatten().tolist() == [True, False]


def test_what_cannot_be_sought_is_refused():
    for loss, sampler in ((DPO(), "top-k:k=3"), (PermutedBalancedDPO(), "uniform")):
        with pytest.raises(ValueError, match="settle needs a loss of single pairs and a sampler with full support"):
            settle(worlds(), loss, sampler)
    for given, words in (
        ((3, DPO()), "worlds must be a World, such as .*, got 3"), (([], DPO()), "worlds must be a World, such as .*"),
        ((worlds(), "dpo"), "loss must be a PairLoss such as .*, got 'dpo'"),
        (([*worlds(), gl.gaussian_world(2, 5)], DPO()), r"worlds must have one size .* got \[\(2, 5\), \(2, 8\)\]"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"^{words}"):
            settle(*given)
    with pytest.raises(ValueError, match=r"^steps must be a whole number ≥ 1, got -1"):
        settle(worlds(), DPO(), steps=-1)

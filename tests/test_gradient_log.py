"""The gradient log: its sample of pairs, and every column against autograd or a closed form."""

import functools

import numpy as np
import pandas as pd
import pytest
import torch
from own_losses import EVERY_LOSS, PerToken, dear, in_turn, product_of

from gradlab.lab.fit import fit
from gradlab.lab.gradient_log import PAIRS_PER_RUN
from gradlab.lab.policy import FREE_LOGITS, RadialBasis, log_policy
from gradlab.lab.training import Training
from gradlab.lab.world import draw_pairs, exact_pairs, gaussian_world
from gradlab.losses import DPO, BalancedDPO, FixedWeightDPO, PairLogps, balanced_weights

STEPS = 4

LOSSES = {**EVERY_LOSS, "per token": PerToken()}
every_loss = dear(LOSSES)
POLICIES = {"free": FREE_LOGITS, "shared": RadialBasis(4)}


def worlds():
    settings = {"reference": "random", "length": 5, "length_spread": 0.7}
    return [gaussian_world(3, 6, mask_rate=rate, seed=seed, **settings) for seed, rate in enumerate((0.0, 0.4))]


@functools.cache
def logged(loss, policy=FREE_LOGITS, pairs=12, dtype=torch.float64):
    """A fit of two runs of which every step is recorded, and its log."""
    settings = {"learning_rate": 0.2, "steps": STEPS, "record": 1000, "gradients": True, "seed": [3, 4]}
    fitted = fit(worlds(), loss, policy=policy, pairs=pairs, dtype=dtype, **settings)
    assert list(fitted.steps) == list(range(STEPS + 1))
    return fitted, fitted.gradients


def pick(fitted, log, offset=0):
    """Log π of the winner and of the loser of each row, ``offset`` steps later."""
    step, run, prompt = (log[name].to_numpy() for name in ("step", "run", "prompt"))
    policies = fitted.policies.double().numpy()
    return (policies[step + offset, run, prompt, log[side].to_numpy()] for side in ("win", "lose"))


def test_every_run_and_logged_step_has_the_same_sample_of_its_training_pairs():
    _, log = logged(DPO())
    assert len(log) == 2 * log["step"].nunique() * PAIRS_PER_RUN
    assert log["step"].min() == 0
    for run, (world, seed) in enumerate(zip(worlds(), (3, 4), strict=True)):
        trained_on = draw_pairs(world, 12, seed=seed)
        samples = [rows[["prompt", "win", "lose"]].to_numpy() for _, rows in log[log["run"] == run].groupby("step")]
        assert all(np.array_equal(sample, samples[0]) for sample in samples)
        assert (trained_on[tuple(samples[0].T)] > 0).all()


def test_a_run_is_logged_in_a_batch_as_it_is_alone():
    _, together = logged(BalancedDPO())
    alone = fit(worlds()[1], BalancedDPO(), steps=STEPS, gradients=True, pairs=12, learning_rate=0.2, seed=4).gradients
    rows = together[together["run"] == 1].drop(columns="run").reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, alone.drop(columns="run"), rtol=1e-12, atol=0.0)


def test_there_is_no_log_unless_asked_for():
    assert fit(worlds(), DPO(), steps=2).gradients is None


@every_loss
def test_log_win_and_log_lose_are_the_policys(loss):
    fitted, log = logged(loss)
    for name, expected in zip(("log_win", "log_lose"), pick(fitted, log), strict=True):
        np.testing.assert_array_equal(log[name], expected)


@in_turn(("loss", "dtype"), LOSSES, {"float64": torch.float64, "float32": torch.float32})
def test_the_delta_columns_are_the_change_in_the_next_step(loss, dtype):
    fitted, log = logged(loss, dtype=dtype)
    before, after = pick(fitted, log), pick(fitted, log, offset=1)
    for name, now, then in zip(("delta_win", "delta_lose"), before, after, strict=True):
        np.testing.assert_array_equal(log[name], then - now)
        assert (log[name] != 0).any()


def test_dpos_log_ratio_is_that_of_the_odds():
    _, log = logged(DPO(2.0))
    np.testing.assert_allclose(log["log_prob_ratio"], log["log_lose"] - log["log_win"], rtol=1e-12, atol=1e-12)


def test_bdpos_log_ratio_is_that_of_the_odds_and_the_logs():
    _, log = logged(BalancedDPO())
    expected = log["log_lose"] - log["log_win"] + np.log(log["log_lose"] / log["log_win"])
    np.testing.assert_allclose(log["log_prob_ratio"], expected, rtol=1e-10, atol=1e-12)


def test_the_winners_weight_is_the_losses():
    assert (logged(DPO())[1]["win_weight"] == 0.5).all()
    np.testing.assert_allclose(logged(FixedWeightDPO(win_weight=0.3))[1]["win_weight"], 0.3, rtol=1e-12)
    _, log = logged(BalancedDPO())
    balanced, _ = balanced_weights(torch.tensor(log["log_win"].to_numpy()), torch.tensor(log["log_lose"].to_numpy()))
    np.testing.assert_allclose(log["win_weight"], balanced, rtol=1e-10)


def parameters_and_policy(policy, logp):
    """Parameters at zero and the policy that they start from: the gradient there is that of any other origin.

    The policy has its bits, and not those of a further softmax: three losses have a kink at the reference.
    """
    theta = torch.zeros(len(logp), policy.features(logp.shape[1]).shape[1], dtype=torch.float64, requires_grad=True)
    rounded = log_policy(policy, theta, logp)
    return theta, logp + (rounded - rounded.detach())


def side_gradient_norms(loss, theta, win, lose, fixed, weights):
    """Per prompt, ‖∇_θ‖ of the weighted loss through the winners alone, and through the losers alone."""
    norms = []
    for sides in ((win, lose.detach()), (win.detach(), lose)):
        total = (loss(PairLogps(*sides, *fixed)) * weights).sum()
        (gradient,) = torch.autograd.grad(total, theta, retain_graph=True)
        norms.append(gradient.norm(dim=1))
    return norms


@in_turn(("loss", "policy"), LOSSES, POLICIES)
def test_the_gradient_norms_of_a_pair_are_autograds_through_the_parameters(loss, policy):
    fitted, log = logged(loss, policy)
    for _, row in log.groupby(["run", "step"]).nth(5).iterrows():
        run, step, prompt = int(row["run"]), int(row["step"]), int(row["prompt"])
        win, lose = int(row["win"]), int(row["lose"])
        fixed = [torch.tensor(table[prompt]) for table in (worlds()[run].ref_logp, worlds()[run].lengths)]
        theta, logp = parameters_and_policy(policy, fitted.policies[step, run, prompt : prompt + 1])
        fixed = [table[side] for table in fixed for side in (win, lose)]
        expected = side_gradient_norms(loss, theta, logp[0, win], logp[0, lose], fixed, 1.0)
        assert (row["grad_norm_win"], row["grad_norm_lose"]) == pytest.approx([e.item() for e in expected], rel=1e-10)


@in_turn(("loss", "kind"), LOSSES, product_of(policy=POLICIES, pairs={"exact": None, "finite": 12}))
def test_the_norms_of_a_side_are_autograds_over_all_pairs_of_the_prompt(loss, kind):
    policy, pairs = kind.values()
    fitted, log = logged(loss, policy, pairs=pairs)
    from_scratch = [world_data(world, pairs, seed) for world, seed in zip(worlds(), (3, 4), strict=True)]
    for (run, step), rows in log[log["step"].isin([0, STEPS - 1])].groupby(["run", "step"]):
        ref, length, weights = from_scratch[run]
        theta, logp = parameters_and_policy(policy, fitted.policies[step, run])
        square, tables = (3, 6, 6), (logp, ref, length)
        win, lose, *fixed = (side.expand(square) for one in tables for side in (one[:, :, None], one[:, None, :]))
        norms = side_gradient_norms(loss, theta, win, lose, fixed, weights)
        for name, expected in zip(("side_norm_win", "side_norm_lose"), norms, strict=True):
            np.testing.assert_allclose(rows[name], expected[rows["prompt"].tolist()], rtol=1e-9, atol=1e-14)


def world_data(world, pairs, seed):
    weights = exact_pairs(world) if pairs is None else draw_pairs(world, pairs, seed=seed)
    return torch.tensor(world.ref_logp), torch.tensor(world.lengths), torch.tensor(weights)


def test_the_log_does_not_depend_on_what_else_is_recorded():
    settings = {"learning_rate": 0.2, "steps": 40, "gradients": True, "seed": [3, 4]}
    sparse, dense = (fit(worlds(), BalancedDPO(), record=record, **settings) for record in (1, 1000))
    pd.testing.assert_frame_equal(sparse.gradients, dense.gradients, check_exact=True)


@pytest.mark.parametrize("policy", ["free", "shared"])
def test_the_cosine_is_that_of_the_two_sides_gradients(policy):
    world = gaussian_world(3, 6, seed=4)
    fitted = fit(world, BalancedDPO(2.0), policy=policy, steps=3, record=2, gradients=True, optimizer="gd")
    log = fitted.gradients
    features = torch.as_tensor(Training(policy=policy).features(world.responses))
    for row in log[log["step"] == log["step"].min()].head(8).itertuples():
        theta = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
        logp = torch.log_softmax(features @ theta, 0)  # at the start: the uniform reference
        sides = [torch.autograd.grad(logp[side], theta, retain_graph=True)[0] for side in (row.win, row.lose)]
        cosine = -torch.nn.functional.cosine_similarity(*sides, dim=0)  # the slopes' signs are opposite
        assert row.grad_cosine == pytest.approx(float(cosine), abs=1e-12)

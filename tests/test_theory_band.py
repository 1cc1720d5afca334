"""The band: signs of realised changes for single pairs and batches, under gradient descent and under Adam's metric."""

import math

import numpy as np
import pytest
import torch

from gradlab.lab.fit import fit
from gradlab.lab.world import World
from gradlab.losses import DPO, BalancedDPO, PairLogps, slopes
from gradlab.theory import disentanglement_band, side_moves

RNG = np.random.default_rng(20260418)
PROMPTS, RESPONSES, FEATURES = 40, 6, 4


def softmax_policies(cases):
    """Random log-linear policies: features Φ (N, Y, K), and log π (N, Y)."""
    features = RNG.standard_normal((cases, RESPONSES, FEATURES))
    logits = 2 * RNG.standard_normal((cases, RESPONSES))
    return features, logits - np.log(np.exp(logits).sum(1, keepdims=True))


def scores(features, logp):
    """∇_θ log π_y, (N, Y, K)."""
    return features - (np.exp(logp)[:, None] @ features)


def cosine(a, b):
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_the_ends_by_hand():
    low, high = disentanglement_band([-1.0, -0.8, -0.5, 0.0, 0.3])
    assert low.tolist() == [1.0, 0.8, 0.5, 0.0, 0.0]
    assert high.tolist() == [1.0, 1.25, 2.0, math.inf, math.inf]
    win, lose = side_moves([3.0, 0.5, 0.0], [2.0, 1.0, 1.0], [-0.9, -0.6, 0.2])
    assert win == pytest.approx([0.6, -0.1, 0.2])
    assert lose == pytest.approx([2 / 3 - 0.9, 1.4, math.inf])


def test_inside_of_the_band_is_where_both_moves_are_above_zero():
    ratio, angle = np.exp(RNG.normal(size=5000)), RNG.uniform(-1, 1, 5000)
    low, high = disentanglement_band(angle)
    win, lose = side_moves(ratio, np.ones(5000), angle)
    assert np.array_equal((win > 0) & (lose > 0), (low < ratio) & (ratio < high))


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.7, 0.4), (0.2, 3.0)])
def test_a_small_step_on_one_pair_moves_both_sides_as_the_band_says(weights):
    features, logp = softmax_policies(20_000)
    score = scores(features, logp)
    win, lose = -weights[0] * score[:, 0], weights[1] * score[:, 1]
    step = -1e-5 * (win + lose)
    moved = logp + (features @ step[:, :, None])[:, :, 0]
    moved -= np.log(np.exp(moved).sum(1, keepdims=True))
    rises, falls = side_moves(np.linalg.norm(win, axis=1), np.linalg.norm(lose, axis=1), cosine(win, lose))
    # The first-order change is the step's size times |g| times the margin; the second order is the step's size squared.
    sure = 1e-3
    for sign, change in ((rises, moved[:, 0] - logp[:, 0]), (falls, logp[:, 1] - moved[:, 1])):
        clear = np.abs(sign) > sure
        assert clear.mean() > 0.99
        assert np.array_equal(sign[clear] > 0, change[clear] > 0)
    assert (rises < 0).any()
    assert (falls < 0).any()


@pytest.mark.parametrize("loss", [DPO(0.5), BalancedDPO(1.0)])
def test_one_training_step_on_one_pair_moves_both_sides_as_the_band_says(loss):
    """The lab's own gradient descent on prompts with one pair each, free logits: ∇ log π_y = e_y − π."""
    logits = 2 * RNG.standard_normal((PROMPTS, RESPONSES))
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    seen = np.zeros((PROMPTS, RESPONSES), bool)
    seen[:, :2] = True
    utility = np.zeros((PROMPTS, RESPONSES))
    utility[:, 0] = 50.0  # the label is certain
    world = World(utility, seen, np.full((PROMPTS, RESPONSES), -math.log(RESPONSES)))
    fitted = fit(world, loss, start=logp, optimizer="gd", learning_rate=1e-6, steps=1)
    change = fitted.logp.numpy() - logp
    pairs = PairLogps(*(torch.as_tensor(side) for side in (logp[:, 0], logp[:, 1], *world.ref_logp[:, :2].T.copy())))
    win_slope, lose_slope = (slope.numpy()[:, None] for slope in slopes(loss, pairs))
    score = np.eye(RESPONSES) - np.exp(logp)[:, None]
    win, lose = win_slope * score[:, 0], lose_slope * score[:, 1]
    rises, falls = side_moves(np.linalg.norm(win, axis=1), np.linalg.norm(lose, axis=1), cosine(win, lose))
    clear = (np.abs(rises) > 1e-3) & (np.abs(falls) > 1e-3)
    assert clear.mean() > 0.9
    assert np.array_equal((rises > 0)[clear], (change[:, 0] > 0)[clear])
    assert np.array_equal((falls > 0)[clear], (change[:, 1] < 0)[clear])


def batches(cases, pairs=8):
    """Batches of pairs under one log-linear model of log π: scores (N, pairs, 2, K) and slopes (N, pairs, 2)."""
    score = RNG.standard_normal((cases, pairs, 2, FEATURES)) + RNG.standard_normal((cases, 1, 1, FEATURES))
    slope = np.exp(RNG.standard_normal((cases, pairs, 1)))
    return score, slope * np.array([-1.0, 1.0])


def test_of_a_batch_the_band_speaks_of_the_slope_weighted_sum_and_not_of_the_mean():
    score, slope = batches(20_000)
    sides = (slope[..., None] * score).sum(1)  # (N, 2, K)
    win, lose = sides[:, 0], sides[:, 1]
    rises, falls = side_moves(np.linalg.norm(win, axis=1), np.linalg.norm(lose, axis=1), cosine(win, lose))
    change = -(score @ (win + lose)[:, None, :, None])[..., 0]  # of log π, to first order
    weighted = (np.abs(slope) * change).sum(1)
    clear = np.abs(rises) > 1e-9
    assert np.array_equal((rises > 0)[clear], (weighted[:, 0] > 0)[clear])
    clear = np.abs(falls) > 1e-9
    assert np.array_equal((falls > 0)[clear], (weighted[:, 1] < 0)[clear])
    wrong = ((rises > 0) != (change[:, :, 0].mean(1) > 0)).mean()
    assert 0.01 < wrong < 0.4  # of the mean it may be false


def test_under_adam_the_plain_band_errs_and_that_of_its_metric_does_not():
    features, logp = softmax_policies(20_000)
    score = scores(features, logp)
    win, lose = -score[:, 0], score[:, 1]
    scale = 1 / np.sqrt(np.exp(RNG.normal(scale=0.7, size=win.shape)))  # 1/√v of other steps
    step = -scale * (win + lose)
    change = (score[:, 0] * step).sum(1)

    def by(metric):
        norms = [np.sqrt((side * metric * side).sum(1)) for side in (win, lose)]
        return side_moves(*norms, (win * metric * lose).sum(1) / norms[0] / norms[1])[0] > 0

    clear = np.abs(change) > 1e-9
    assert np.array_equal(by(scale)[clear], (change > 0)[clear])
    assert 0.005 < (by(np.ones_like(scale)) != (change > 0)).mean() < 0.1

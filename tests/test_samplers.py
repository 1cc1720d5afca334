"""Samplers: their laws against brute force and closed forms, and what they do to a training."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from rounding import rounding

import gradlab as gl
from gradlab.lab.line import bump_world, fit_line
from gradlab.lab.samplers import SAMPLERS, from_text, pair_weights

LAWS = [SAMPLERS[name]() for name in SAMPLERS]


def drawn(seed=0, responses=5, spread=1.0):
    """Return log π, log π_ref and u of three prompts."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(spread * rng.standard_normal((3, 3, responses)))
    return logits[0].log_softmax(-1), logits[1].log_softmax(-1), logits[2]


def normalised(weights):
    return weights / weights.sum((-2, -1), keepdim=True)


# --- laws ---


@pytest.mark.parametrize("sampler", LAWS, ids=lambda sampler: sampler.name)
def test_weights_are_symmetric_not_negative_and_detached(sampler):
    logp, ref_logp, utility = drawn()
    weights = sampler.pairs(logp.requires_grad_(), ref_logp, utility)
    assert (weights.dtype, weights.shape, weights.requires_grad) == (torch.float64, (3, 5, 5), False)
    assert torch.equal(weights, weights.mT)
    assert (weights >= 0).all()
    assert not weights.diagonal(dim1=1, dim2=2).any()
    assert bool((weights > 0).sum() == 3 * 20) or not sampler.full_support


@pytest.mark.parametrize("draws", [2, 3, 4])
def test_best_against_worst_is_the_sum_over_all_tuples_of_draws(draws):
    logp, ref_logp, utility = drawn(1, responses=4)
    utility[0, 1] = utility[0, 2]  # a tie: the lower number counts as better
    expected = torch.zeros(3, 4, 4, dtype=torch.float64)
    for prompt, draw in itertools.product(range(3), itertools.product(range(4), repeat=draws)):
        rank = sorted(draw, key=lambda y, x=prompt: (-utility[x, y].item(), y))
        if rank[0] != rank[-1]:
            expected[prompt, rank[0], rank[-1]] += logp[prompt, list(draw)].sum().exp()
    weights = gl.samplers.BestWorst(draws).pairs(logp, ref_logp, utility)
    # 4^m sums of products of m numbers, and a recurrence of m steps with seven roundings each
    torch.testing.assert_close(weights, expected + expected.mT, rtol=0, atol=rounding(4**draws + 7 * draws + 5))


def test_best_against_worst_keeps_its_digits_where_differences_of_powers_lose_them():
    logp = torch.tensor([[0.0, -60.0, -70.0]], dtype=torch.float64).log_softmax(-1)
    utility = torch.tensor([[0.0, 2.0, 1.0]], dtype=torch.float64)
    weights = gl.samplers.BestWorst(5).pairs(logp, logp, utility)
    best, middle, worst = logp.exp()[0, [1, 2, 0]].tolist()
    # to first order in e^-60: one of the five draws is the rare response, the others are the common one
    assert weights[0, 1, 0].item() == pytest.approx(5 * best * worst**4, rel=1e-12)
    assert weights[0, 2, 0].item() == pytest.approx(5 * middle * worst**4, rel=1e-12)
    assert 0 <= weights[0, 1, 2].item() <= 20 * best * middle


def test_two_draws_are_on_policy():
    given = drawn(2)
    torch.testing.assert_close(gl.samplers.BestWorst(2).pairs(*given), 2 * on_policy(given[0]), rtol=1e-14, atol=0)


def on_policy(logp):
    prob = logp.exp()
    return (prob[:, :, None] * prob[:, None, :]).masked_fill(torch.eye(logp.shape[1], dtype=torch.bool), 0)


def test_mixes_are_the_inverse_of_the_slope_of_the_sigmoid():
    logp, ref_logp, utility = drawn(3)
    h = 0.7 * (logp - ref_logp)
    for sampler, reward in ((gl.samplers.MixR(False), utility), (gl.samplers.MixP(0.7, False), h)):
        d = reward[:, :, None] - reward[:, None, :]
        expected = (1 / (torch.sigmoid(d) * torch.sigmoid(-d))).masked_fill(torch.eye(5, dtype=torch.bool), 0)
        torch.testing.assert_close(sampler.pairs(logp, ref_logp, utility), expected, rtol=1e-13, atol=0)
        torch.testing.assert_close(
            normalised(type(sampler)(*([0.7] if reward is h else [])).pairs(logp, ref_logp, utility)),
            normalised(expected), rtol=1e-13, atol=0,
        )  # fmt: skip


def test_pilaf_is_its_two_kinds_of_pairs_in_their_shares():
    logp, ref_logp, utility = drawn(4)
    reward = 0.6 * (logp - ref_logp)
    up, down = ((logp + sign * reward).exp() for sign in (1, -1))
    up_total, down_total = up.sum(-1)[:, None, None], down.sum(-1)[:, None, None]
    share = 1 / (1 + up_total * down_total)
    both = share * logp.exp()[:, :, None] * logp.exp()[:, None, :]
    both = both + (1 - share) * (up[:, :, None] / up_total) * (down[:, None, :] / down_total)
    both = (both + both.mT).masked_fill(torch.eye(5, dtype=torch.bool), 0)
    got = gl.samplers.PILAF(0.6).pairs(logp, ref_logp, utility)
    torch.testing.assert_close(normalised(got), normalised(both), rtol=1e-13, atol=0)


def test_the_other_laws_are_products():
    logp, ref_logp, utility = drawn(5)
    best = (ref_logp + utility / 0.5).log_softmax(-1)
    laws = {
        "uniform": torch.zeros_like(logp), "reference": ref_logp, "on-policy": logp,
        "tempered:temperature=3": (logp / 3).log_softmax(-1), "rejection:beta=0.5": best, "top-k:k=9": logp,
    }  # fmt: skip
    for text, law in laws.items():
        got = normalised(from_text(text).pairs(logp, ref_logp, utility))
        torch.testing.assert_close(got, normalised(on_policy(law)), rtol=1e-13, atol=0)
    mixed = 0.3 * normalised(on_policy(logp)) + 0.7 * normalised(on_policy(torch.zeros_like(logp)))
    got = normalised(gl.samplers.Mixture(0.3).pairs(logp, ref_logp, utility))
    torch.testing.assert_close(got, mixed, rtol=1e-13, atol=0)
    top = logp.argsort(-1, descending=True)[:, :2]
    got = gl.samplers.TopK(2).pairs(logp, ref_logp, utility)
    assert all(sorted(got[x].nonzero()[0].tolist()) == sorted(top[x].tolist()) for x in range(3))
    assert (got > 0).sum() == 6


def test_wpo_weighs_every_pair_of_a_uniform_policy_as_one_and_is_on_policy_up_to_a_factor():
    logp, ref_logp, utility = drawn(6)
    even = torch.full_like(logp, -np.log(5))
    weights = gl.samplers.WPO().pairs(even, ref_logp, utility)
    torch.testing.assert_close(weights, 1.0 - torch.eye(5, dtype=torch.float64).expand(3, 5, 5), rtol=1e-14, atol=0)
    weights, scale = gl.samplers.WPO().pairs(logp, ref_logp, utility), logp.exp().square().sum(-1)[:, None, None]
    torch.testing.assert_close(weights, on_policy(logp) / scale**2, rtol=1e-13, atol=0)


def test_laws_hold_where_products_of_probabilities_underflow():
    logp = torch.tensor([[0.0, -800.0, -900.0]], dtype=torch.float64)
    for sampler in (gl.samplers.OnPolicy(), gl.samplers.Mixture(0.5), gl.samplers.PILAF(0.1), gl.samplers.MixP()):
        assert pair_weights(sampler, logp, torch.full_like(logp, -np.log(3)), logp)[0, 0, 1] > 0


@pytest.mark.parametrize("sampler", LAWS, ids=lambda sampler: sampler.name)
def test_every_sampler_has_its_facts_and_its_place_in_the_guide(sampler):
    assert all((sampler.label, sampler.equation, sampler.source, type(sampler).__doc__))
    guide = (Path(__file__).parents[1] / "docs/how-to/samplers.md").read_text()
    assert re.search(rf"`{sampler.name}[`:]", guide)


# --- texts and bad input ---


@pytest.mark.parametrize(
    "text",
    ["uniform", "mixture:alpha=0.25", "top-k:k=3", "mix-p:beta=2.0,normalised=False", "best-worst:draws=8",
     "importance:how=clipped,clip=2.0,sampler=tempered:temperature=3.0"],
)  # fmt: skip
def test_a_sampler_is_its_text(text):
    assert str(from_text(text)) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [("onpolicy", "sampler must be one of .*did you mean 'on-policy'"), ("top-k:k=1", "k must be a whole number ≥ 2"),
     ("tempered:temperature=0", "temperature must be finite and > 0"), ("best-worst:draws=1", "draws must be .* ≥ 2"),
     ("mixture:alpha=1.5", r"alpha must be finite and lie in \[0, 1\]"),
     ("mixture:beta=1", "hyper-parameter of mixture must"),
     ("mixture:alpha", "sampler must be NAME or NAME:NUMBER=VALUE"), ("mixture:alpha=x", "alpha of mixture must be"),
     ("importance:how=odd", "how must be one of plain"), ("importance:sampler=wpo", "sampler of Importance must draw"),
     ("importance:sampler=importance", "sampler of Importance must draw"), ("mix-p:beta=-1", "beta must be finite"),
     ("mix-p:normalised=2", "normalised of mix-p must be one of true, false"), ("uniform:", "sampler must be NAME"),
     ("mixture:alpha=.5,alpha=.3", "alpha of mixture must be given once"), ("uniform:x=1", "uniform takes no numbers"),
     ("importance:clip=2,,sampler=uniform", "sampler must be NAME"),
     (gl.samplers.OnPolicy, "sampler must be one of uniform"), (3, "sampler must be one of uniform")],
)  # fmt: skip
def test_another_sampler_is_refused_in_one_line(text, words):
    with pytest.raises(ValueError, match=f"^{words}") as refused:
        gl.Training(sampler=text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [({"sampler_every": 0}, "sampler_every must be a whole number ≥ 1"), ({"sampler_every": None}, "sampler_every"),
     ({"reference_every": 0}, "reference_every must be a whole number ≥ 1")],
)  # fmt: skip
def test_a_period_below_one_is_refused(given, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        gl.Training(**given)


class Own(gl.samplers.Sampler):
    """A sampler of a user's own, by what it returns."""

    def __init__(self, answer):
        self.answer = answer

    def pairs(self, logp, ref_logp, utility):
        return self.answer(logp)


@pytest.mark.parametrize(
    ("answer", "words"),
    [(lambda logp: -torch.ones(*logp.shape, logp.shape[-1]), "finite weights ≥ 0, got -1"),
     (lambda logp: torch.full((*logp.shape, logp.shape[-1]), torch.nan), "finite weights ≥ 0, got nan"),
     (lambda logp: torch.full((*logp.shape, logp.shape[-1]), torch.inf), "finite weights ≥ 0, got inf"),
     (lambda logp: logp, r"a tensor of shape \(32, 3, 3\), got \(32, 3\)"), (lambda logp: 3, "a tensor of shape"),
     (lambda logp: torch.ones(3, 3).triu().expand(len(logp), 3, 3), "one weight for both orders")],
)  # fmt: skip
def test_a_sampler_of_ones_own_that_returns_no_weights_is_refused(answer, words):
    with pytest.raises(ValueError, match=f"^pairs of sampler must return {words}"):
        gl.fit(gl.gaussian_world(2, 3), gl.DPO(), steps=1, sampler=Own(answer), engine="eager")


def test_reward_models_ppo_and_lines_refuse_samplers():
    world = gl.gaussian_world(2, 3)
    for train in (
        lambda **given: gl.fit_reward(world, **given),
        lambda **given: gl.fit_ppo(world, world.utility, **given),
        lambda **given: fit_line(bump_world(), gl.DPO(), **given),
    ):
        with pytest.raises(ValueError, match=r"^sampler must be uniform for .*, got on-policy: "):
            train(sampler="on-policy")
        with pytest.raises(ValueError, match=r"^reference_every must be None for .*, got 5: "):
            train(reference_every=5)


def test_data_without_weight_are_refused():
    world = gl.gaussian_world(1, 4, seed=3)
    start = torch.tensor([[0.4, 0.4, 0.1, 0.1]]).double().log()
    hidden = np.zeros((1, 4, 4), bool)
    hidden[0, 0, 1] = hidden[0, 1, 0] = True
    world = gl.World(world.utility, world.observed, world.ref_logp, hidden)
    for how in ("", "importance:how=plain,sampler=", "importance:how=clipped,sampler=", "importance:sampler="):
        with pytest.raises(ValueError, match=r"^sampler must give .* gives none in prompt 0 at step 0"):
            gl.fit(world, gl.DPO(), sampler=f"{how}top-k:k=2", start=start, engine="eager")


def test_tensors_of_other_shapes_are_refused():
    logp = torch.zeros(3, 5).double()
    for given, words in (
        ((logp.numpy(), logp, logp), r"logp must be a tensor of shape \(\.\.\., Y\), got array"),
        ((logp, logp[:, :4], logp), r"ref_logp must have logp's shape \(\.\.\., Y ≥ 2\), got \(3, 4\)"),
        ((logp, logp, 3.0), r"utility must be a tensor of shape \(\.\.\., Y\), got 3\.0"),
    ):
        with pytest.raises(ValueError, match=f"^{words}"):
            gl.samplers.pair_weights(gl.samplers.OnPolicy(), *given)


def test_a_sampler_without_a_law_is_refused_in_one_line():
    lawless = type("Lawless", (gl.samplers.Sampler,), {})()
    with pytest.raises(ValueError, match=r"^sampler must define pairs or terms, got Lawless"):
        gl.fit(gl.gaussian_world(1, 3), gl.DPO(), sampler=lawless, steps=1, engine="eager")

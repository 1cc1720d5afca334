"""The proofs of the report: each theorem is checked on random cases by a computation that does not use it."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
import torch
from rounding import rounding

import gradlab as gl
from gradlab.experiments.report.proofs import PROOFS, SETTING
from gradlab.losses import DPO, BalancedDPO, FixedWeightDPO, PairLogps, pair_loss, slopes
from gradlab.theory import (
    balanced_weight,
    bdpo_share_corrected,
    bdpo_weight,
    bdpo_weight_limit,
    covariance_gap,
    dpo_weight,
    dpo_weight_limit,
    gradient_cosines,
    in_logits,
    log_ratio_weight,
    logarithmic_mean,
    mean_off_diagonal,
    variance_ratio,
)

RNG_SEED = 20847
FIVE = ([2, 3, 4, 2, 1], [1, 2, 3, 4, 1])  # p and q of the exact case


def rng():
    return np.random.default_rng(RNG_SEED)


def tensor(values):
    return torch.as_tensor(np.asarray(values, dtype=float))


def prob_ratio(loss, win, lose):
    """|∂L/∂π_w| : |∂L/∂π_l| by autograd in the probabilities themselves; the reference is 1/20."""
    win, lose = tensor(win).requires_grad_(), tensor(lose).requires_grad_()
    reference = torch.full_like(win, math.log(1 / 20)).detach()
    loss(PairLogps(win.log(), lose.log(), reference, reference)).sum().backward()
    return (win.grad.abs() / lose.grad.abs()).numpy()


def two_probabilities(cases):
    """Probabilities of two responses to one prompt, (cases,) each, of all sizes."""
    random = rng()
    shares = random.dirichlet(np.full(3, 0.3), cases)
    small = np.exp(random.uniform(-40, -1, (cases, 2)))
    both = np.concatenate([shares[:, :2], small])
    return both[(both > 1e-30).all(1) & (both.sum(1) <= 1) & (both.max(1) < 1 - 1e-9)].T


# --- the register ----------------------------------------------------------------------------------------------------


def test_each_proof_names_a_test_of_this_file_and_says_theorem_and_proof():
    tests = [proof.test for proof in PROOFS.values()]
    assert len(set(tests)) == len(tests)
    for name, proof in PROOFS.items():
        assert name == proof.name
        assert callable(globals().get(proof.test)), f"{name} names no test of this file: {proof.test}"
        assert len(proof.theorem) > 40
        assert len(proof.proof) > 100
        assert proof.theorem.endswith(".")
    assert SETTING.endswith(".")


# --- ratios ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dpo", "cdpo", "ipo", "bdpo", "nbdpo", "fixed-weight"])
def test_every_margin_loss_has_the_ratio_of_the_chain_rule(name):
    loss, (win, lose) = pair_loss(name), two_probabilities(200)
    reference = torch.full((len(win),), math.log(1 / 20), dtype=torch.float64)
    by_log = [
        side.abs().numpy() for side in slopes(loss, PairLogps(*map(tensor, np.log([win, lose])), *[reference] * 2))
    ]
    kept = (by_log[0] > 1e-280) & (by_log[1] > 1e-280)  # of IPO's and hinge's slopes, those that do not vanish
    assert kept.mean() > 0.9
    rho = by_log[0][kept] / by_log[1][kept]
    np.testing.assert_allclose(prob_ratio(loss, win[kept], lose[kept]), rho * (lose / win)[kept], rtol=1e-10)
    assert (np.abs(rho - 1) < 1e-10).all() == (name in ("dpo", "cdpo", "ipo", "fixed-weight"))


def test_in_a_step_the_likelier_side_moves_more():
    for shares in rng().dirichlet(np.full(4, 0.7), 200):
        logits = tensor(np.log(shares)).requires_grad_()
        logp = torch.log_softmax(logits, 0)
        reference = torch.full((2,), math.log(1 / 4), dtype=torch.float64)
        DPO()(PairLogps(logp[0], logp[1], *reference)).backward()
        moved = (torch.softmax(logits.detach() - 1e-6 * logits.grad, 0) - logp.exp()).detach().numpy()
        gained, lost = moved[0], -moved[1]
        if abs(shares[0] - shares[1]) > 1e-3 and shares[2:].sum() > 1e-3:
            assert (gained > lost) == (shares[0] > shares[1])


def test_the_logged_ratio_of_a_training_follows_by_algebra():
    world = gl.gaussian_world(prompts=3, responses=6, seed=1)
    for name, is_dpo in (("dpo", True), ("bdpo", False)):
        log = gl.fit([world], pair_loss(name), steps=8, pairs=20, record=4, gradients=True).gradients
        rho = np.zeros(len(log)) if is_dpo else np.log(log["log_lose"] / log["log_win"])
        np.testing.assert_allclose(log["log_prob_ratio"], log["log_lose"] - log["log_win"] + rho, atol=1e-10)
        assert np.ptp(log["log_lose"] - log["log_win"]) > 0.5


def test_the_correction_follows_the_logarithmic_mean():
    win, lose = two_probabilities(400)
    ratio = np.log(prob_ratio(BalancedDPO(), win, lose))
    mean = logarithmic_mean(-np.log(win), -np.log(lose))
    np.testing.assert_allclose(ratio, np.log(lose / win) * (1 - 1 / mean), atol=1e-9)
    far = np.abs(np.log(lose / win)) > 1e-3
    share = 1 - np.abs(ratio[far]) / np.abs(np.log(lose / win)[far])
    np.testing.assert_allclose(bdpo_share_corrected(np.log(win), np.log(lose))[far], share, atol=1e-9)
    assert (mean < 1).any()
    assert (mean > 10).any()
    # Equal sides where LM = 1: −π log π is the same at both, one on each side of 1/e.
    assert prob_ratio(BalancedDPO(), [0.25], [0.5]) == pytest.approx(1, abs=1e-12)
    assert bdpo_share_corrected(math.log(0.25), math.log(0.5)) == pytest.approx(1, abs=1e-12)
    assert bdpo_share_corrected(-100.0, -101.0) == pytest.approx(0.01, rel=0.01)


def test_two_responses_of_a_prompt_are_always_nearer_to_symmetry():
    win, lose = two_probabilities(2000)
    at_edge = np.linspace(1e-6, 1 - 1e-6, 999)  # the two responses are all there is
    win, lose = np.append(win, at_edge), np.append(lose, 1 - at_edge)
    far = np.abs(win - lose) > 1e-9
    ratio = np.abs(np.log(prob_ratio(BalancedDPO(), win[far], lose[far])))
    assert (ratio < np.abs(np.log(lose / win))[far]).all()
    assert (logarithmic_mean(-np.log(win), -np.log(lose)) > 0.5).all()
    assert bdpo_share_corrected(math.log(0.9), math.log(0.8)) < 0  # no two responses of a prompt


def test_a_weight_of_one_half_is_dpo_at_half_beta():
    random = rng()
    sides = [tensor(-random.exponential(3, 50)) for _ in range(4)]
    half, dpo = FixedWeightDPO(beta=1.4, win_weight=0.5), DPO(beta=0.7)
    assert torch.allclose(half(PairLogps(*sides)), dpo(PairLogps(*sides)), rtol=0, atol=rounding(16, 20.0))
    for mine, other in zip(slopes(half, PairLogps(*sides)), slopes(dpo, PairLogps(*sides)), strict=True):
        assert torch.allclose(mine, other, rtol=0, atol=rounding(16, 20.0))
    length = random.integers(1, 200, 50)
    assert (length / (length + length) == 0.5).all()


# --- inner products --------------------------------------------------------------------------------------------------


def test_inner_products_sum_to_zero_and_cosines_have_no_fixed_sign():
    generator = torch.Generator().manual_seed(RNG_SEED)
    inputs = torch.randn(7, 4, generator=generator, dtype=torch.float64)  # 7 responses
    hidden, out = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((4, 9), (9, 1)))

    def probabilities(hidden, out):
        return torch.softmax((torch.tanh(inputs @ hidden) @ out).squeeze(-1), 0)

    jacobian = torch.cat(
        [part.reshape(7, -1) for part in torch.autograd.functional.jacobian(probabilities, (hidden, out))], 1
    )
    products = (jacobian @ jacobian.T).numpy()
    assert abs(products.sum()) < rounding(400, np.abs(products).sum())
    assert mean_off_diagonal(products) == pytest.approx(-np.trace(products) / 42, rel=1e-12)
    assert mean_off_diagonal(products) < 0
    for n in range(3, 12):
        assert mean_off_diagonal(gradient_cosines(np.full(n, 1 / n))) == pytest.approx(-1 / (n - 1))
        peaked = np.full(n, 1e-9 / (n - 1))
        peaked[0] = 1 - 1e-9
        mean = mean_off_diagonal(gradient_cosines(peaked))
        assert mean == pytest.approx((n - 2) / (2 * n) - math.sqrt(2 / (n * (n - 1))), abs=1e-6)
        assert (mean > 0) == (n >= 6)


# --- the world -------------------------------------------------------------------------------------------------------


def unobserved_masses(loss, **training):
    """Unobserved mass minus the uniform reference's, along training with free logits on few pairs, (steps, runs)."""
    worlds = [gl.gaussian_world(4, 20, mask_rate=0.4, seed=seed) for seed in range(4)]
    history = gl.fit(worlds, loss, pairs=100, record=8, steps=40, seed=list(range(4)), **training).history
    above = history["unobserved_mass"] - history["unobserved_mass_reference"]
    return above[history["step"] > 0].to_numpy()


@pytest.mark.parametrize("name", ["dpo", "cdpo", "ipo"])
def test_gradient_descent_on_free_logits_never_raises_unobserved_mass(name):
    for learning_rate in (0.5, 5.0, 30.0):
        above = unobserved_masses(pair_loss(name), optimizer="gd", learning_rate=learning_rate)
        assert above.max() <= 1e-12
        assert above.min() < -1e-3


def test_adam_raises_unobserved_mass_and_so_does_sharing():
    assert unobserved_masses(DPO(), optimizer="adam", learning_rate=0.05).max() > 1e-4
    assert unobserved_masses(DPO(), optimizer="gd", learning_rate=5.0, policy="shared").max() > 1e-3


# --- distribution shift ----------------------------------------------------------------------------------------------


CELLS = 800


def bell(y, mode, left, right):
    """The logarithm of a smooth bump with another width on each side of its mode."""
    return -0.5 * ((y - mode) / np.where(y < mode, left, right)) ** 2


def shifted(cases, cells=CELLS):
    """Random unimodal log p, log q on cells of [0, 1], and the cells of their modes, μ_p < μ_q.

    Widths from 0.14: preferences that are much narrower than the distance have next to no slope at μ_p, and the minimum
    misses the interval by less than a cell.
    """
    random = rng()
    y = (np.arange(cells) + 0.5) / cells
    for _ in range(cases):
        at_p = int(random.integers(cells // 10, 7 * cells // 10))
        at_q = int(random.integers(at_p + cells // 20, 9 * cells // 10))
        log_p, log_q = (bell(y, y[at], *np.exp(random.uniform(-2, 1, 2))) for at in (at_p, at_q))
        yield log_p - np.logaddexp.reduce(log_p), log_q - np.logaddexp.reduce(log_q), at_p, at_q


def test_dpos_weight_increases_between_the_modes():
    for log_p, log_q, at_p, at_q in shifted(12):
        for beta in (0.2, 1.0, 5.0):
            w = dpo_weight(log_p, log_q, beta=beta)
            assert (np.diff(w[at_p : at_q + 1]) > 0).all()
            assert abs(w.sum()) < rounding(CELLS**2, CELLS) or beta != 1
    for log_p, log_q, at_p, at_q in shifted(40, cells=20):
        assert (np.diff(dpo_weight(log_p, log_q)[at_p : at_q + 1]) > 0).all()
    # In the continuum also past the modes themselves, by a little.
    near = np.linspace(0.3 - 1e-3, 0.3 + 1e-3, 5), np.linspace(0.6 - 1e-3, 0.6 + 1e-3, 5)
    for y in near:
        w = dpo_weight_limit(y, lambda t: bell(t, 0.3, 0.1, 0.2), lambda t: bell(t, 0.6, 0.3, 0.1), 0, 1)
        assert (np.diff(w) > 0).all()
    # Where the policy rises on the way to μ_q, nothing is promised.
    rising = np.exp(bell(np.linspace(0, 1, 50), 0.2, 0.1, 0.1)) + 3 * np.exp(
        bell(np.linspace(0, 1, 50), 0.5, 0.02, 0.02)
    )
    w = dpo_weight(np.log(rising / rising.sum()), np.log(np.full(50, 1 / 50)) + 0.0)
    assert (np.diff(w[10:25]) < 0).any()


def fractions_of(p, q):
    """DPO's weights and p as fractions, summed over pairs as the setting says."""
    n = len(p)
    w = [sum(Fraction(q[i], q[i] + q[j]) - Fraction(p[i], p[i] + p[j]) for j in range(n)) for i in range(n)]
    return w, [Fraction(x, sum(p)) for x in p]


def test_the_lowest_balanced_weight_lies_outside():
    cases = set()
    for log_p, log_q, at_p, at_q in shifted(40):
        w = dpo_weight(log_p, log_q)
        lowest = int(np.argmin(balanced_weight(log_p, log_q, weight=w)))
        assert not at_p <= lowest <= at_q
        cases.add(bool(w[at_p] < 0))
    assert cases == {True, False}  # both cases of the proof occurred
    w, p = fractions_of(*FIVE)
    product = [a * b for a, b in zip(w, p, strict=True)]
    assert sum(w) == 0
    assert product == [Fraction(*pair) for pair in ((-37, 360), (-131, 1680), (-37, 630), (197, 1260), (1, 72))]
    assert product.index(min(product)) == FIVE[0].index(max(FIVE[0])) - 2
    stated = "(−37/360, −131/1680, −37/630, 197/1260, 1/72)"
    assert stated in PROOFS["shift-balanced"].proof


def test_the_lowest_balanced_weight_may_be_at_the_mode_where_preference_is_flat_there():
    """The condition q′(μ_p) > 0: a preference that rises up to μ_q, but is flat at μ_p."""
    y = (np.arange(CELLS) + 0.5) / CELLS
    log_p = bell(y, y[300], 0.05, 0.05)
    log_q = np.where(y < y[600], 40 * (y - y[300]) ** 3, 40 * (y[600] - y[300]) ** 3 - 60 * (y - y[600]) ** 2)
    log_p, log_q = (values - np.logaddexp.reduce(values) for values in (log_p, log_q))
    assert log_q.argmax() == 600
    assert np.argmin(balanced_weight(log_p, log_q)) == 300


def test_a_weight_that_rises_with_preference_is_lowest_outside():
    for log_p, log_q, at_p, at_q in shifted(60):
        if log_p[0] > log_p[at_q]:
            continue
        p, w = np.exp(log_p), dpo_weight(log_p, log_q)
        bdpo = bdpo_weight(log_p, log_q)
        for weight in (
            w, w * p, balanced_weight(log_p, log_q, weight=w, baseline=True), p * log_ratio_weight(log_p, log_q), bdpo,
            in_logits(bdpo, log_p), bdpo * np.sqrt(p),
        ):  # fmt: skip
            assert not at_p <= np.argmin(weight) <= at_q
    # On a grid, with p symmetric about its mode.
    random = rng()
    for _ in range(50):
        right = -np.cumsum(random.exponential(1, 6))
        log_p = np.concatenate([right[::-1], [0.0], right])
        log_q = np.concatenate([np.cumsum(random.exponential(1, 11)), [0.0, -5.0]])
        weight = bdpo_weight(log_p - np.logaddexp.reduce(log_p), log_q - np.logaddexp.reduce(log_q))
        assert not 6 < np.argmin(weight) <= 10


def exact_bdpo_weights(p, q, digits=50):
    """Balanced-DPO's weights of integers p and q in decimal arithmetic, whose functions round correctly."""
    with localcontext() as context:
        context.prec = digits
        n, total = len(p), Decimal(sum(p))
        cost = [-(Decimal(x) / total).ln() for x in p]
        weights = []
        for i in range(n):
            terms = []
            for j in range(n):
                share = cost[j] / (cost[i] + cost[j])
                loses = 1 / (1 + (-Decimal(n).ln() * (2 * share - 1)).exp())
                terms.append(share * (Decimal(q[i]) / (q[i] + q[j]) - loses))
            weights.append(sum(terms))
        return weights


def test_balanced_dpos_lowest_weight_lies_outside():
    weights = exact_bdpo_weights(*FIVE)
    assert [f"{float(w):.3f}" for w in weights] == ["-0.297", "-0.046", "0.091", "0.445", "-0.121"]
    assert min(weights) == weights[0] < weights[2] - Decimal("0.3")
    assert "(−.297, −.046, .091, .445, −.121)" in PROOFS["shift-bdpo"].proof
    log_p, log_q = (np.log(np.array(one) / sum(one)) for one in FIVE)
    np.testing.assert_allclose(bdpo_weight(log_p, log_q), np.array(weights, float), atol=rounding(64))
    # The limit: half of DPO's weight at β/2, at a rate of 1/log n.
    y = np.linspace(0.02, 0.98, 25)
    p, q = (lambda t: bell(t, 0.4, 0.3, 0.2) + 0.8068), (lambda t: bell(t, 0.6, 0.2, 0.3))
    total = np.exp(p((np.arange(10**5) + 0.5) / 10**5)).mean()
    density = lambda t: p(t) - np.log(total)  # noqa: E731
    target = 0.5 * dpo_weight_limit(y, density, q, 0, 1, beta=0.6)
    errors = [
        np.abs(bdpo_weight_limit(y, density, q, 0, 1, beta=1.2, cells=n) - target).max() for n in (1e3, 1e6, 1e12)
    ]
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.15)
    assert errors[2] == pytest.approx(errors[1] / 2, rel=0.1)


# --- variance --------------------------------------------------------------------------------------------------------


def mean(values):
    return sum(values) / len(values)


def sides_of_the_theorem(p, q):
    """Var[w p] and Var[w] E[p²] as fractions."""
    w, p = fractions_of(p, q)
    product = [a * b for a, b in zip(w, p, strict=True)]
    assert sum(w) == 0
    return mean([x**2 for x in product]) - mean(product) ** 2, mean([x**2 for x in w]) * mean([x**2 for x in p])


def discopop(m, temperature):
    """DiscoPOP's loss of a margin, in 60 digits."""

    def sigmoid(x):
        return 1 / (1 + (-x).exp())

    return -(1 - sigmoid(m / temperature)) * sigmoid(m).ln() + sigmoid(m / temperature) * (-m).exp()


def test_discopop_starts_away_from_the_labels():
    with localcontext() as context:
        context.prec = 60
        least, step = (1 - Decimal(2).ln()) / 3, Decimal("1e-20")
        near = Decimal("1e-10")
        for temperature in [*map(Decimal, ("0.02", "0.05", "0.2", "1", "5")), least - near, least + near]:
            slope = (discopop(step, temperature) - discopop(-step, temperature)) / (2 * step)
            assert abs(slope - ((1 - Decimal(2).ln()) / (4 * temperature) - Decimal("0.75"))) < Decimal("1e-15")
            assert (slope > 0) == (temperature < least)
    if "discopop" not in gl.losses.PAIR_LOSSES:
        pytest.skip("no loss of that name")
    for beta, win, lose in ((0.1, -3.0, -5.0), (1.0, -200.0, -0.5)):
        at = [tensor([win]), tensor([lose])]
        up, down = slopes(pair_loss("discopop", beta=beta, temperature=0.05), PairLogps(*at, *at))
        assert float(up) == pytest.approx(0.7842640972 * beta, rel=1e-9)
        assert float(down) == pytest.approx(-0.7842640972 * beta, rel=1e-9)


def test_the_variance_grows_by_an_exact_counterexample():
    random = rng()
    for n in (3, 4, 20):
        for a in (2, 3, 8, 100, 10**6):
            left, right = sides_of_the_theorem([a] + [1] * (n - 1), [1] * n)
            assert left > right
    left, right = sides_of_the_theorem([8, 1, 1], [1, 1, 1])
    assert left / right == Fraction(289, 198)
    assert "289/198" in PROOFS["variance"].proof
    for _ in range(300):
        p, q = random.integers(1, 30, (2, int(random.integers(2, 9)))).tolist()
        if p != q:
            w, probs = fractions_of(p, q)
            left, right = sides_of_the_theorem(p, q)
            squares = [x**2 for x in w], [x**2 for x in probs]
            covariance = mean([a * b for a, b in zip(*squares, strict=True)]) - mean(squares[0]) * mean(squares[1])
            signal = mean([a * b for a, b in zip(w, probs, strict=True)]) ** 2
            assert left - right == covariance - signal
            if right:
                numbers = np.array(w, float), np.array(probs, float)
                assert variance_ratio(*numbers) == pytest.approx(float(left / right), rel=1e-9)
                assert covariance_gap(*numbers) == pytest.approx(float(covariance - signal), rel=1e-9, abs=1e-15)


def slope_by_logits(loss, logits, ref_logp, utility, weights):
    """Return the gradient by the logits (n,) of Σ_ij weights_ij σ(u_i − u_j) loss(i ≻ j), by autograd."""
    logits = logits.clone().requires_grad_()
    logp = torch.log_softmax(logits, -1)
    win, lose = torch.ones(len(logp), len(logp)).fill_diagonal_(0).nonzero().T
    values = loss(PairLogps(logp[win], logp[lose], ref_logp[win], ref_logp[lose]))
    labels = torch.sigmoid(utility[win] - utility[lose])
    return torch.autograd.grad((weights[win, lose] * labels * values).sum(), logits)[0]


def random_weights(random, n):
    drawn = tensor(random.lognormal(0, 3, (n, n)))
    return torch.triu(drawn, 1) + torch.triu(drawn, 1).T


def test_dpos_optimum_is_one_for_all_samplers():
    random = rng()
    for beta in (0.1, 1.0, 5.0):
        n = int(random.integers(2, 8))
        ref_logp = torch.log_softmax(tensor(random.normal(0, 2, n)), -1)
        utility, weights = tensor(random.normal(0, 2, n)), random_weights(random, n)
        optimum = ref_logp + utility / beta
        loss = DPO(beta)
        slope = slope_by_logits(loss, optimum, ref_logp, utility, weights)
        assert float(slope.abs().max()) < 1e-12 * beta * float(weights.sum())
        away = tensor(random.normal(0, 1, n))
        toward = slope_by_logits(loss, optimum + away, ref_logp, utility, weights) @ (away - away.mean())
        assert float(toward) > 0  # a step against the gradient goes back


def test_no_policy_is_bdpos_for_all_samplers():
    random = rng()
    for beta in (0.5, 1.0, 4.0):
        ref_logp, utility = tensor([-math.log(3)] * 3), tensor(random.normal(0, 1, 3))
        pairs = [torch.zeros(3, 3) for _ in range(3)]
        for weights, (i, j) in zip(pairs, ((0, 1), (0, 2), (1, 2)), strict=True):
            weights[i, j] = weights[j, i] = 1
        for _ in range(300):
            logits = tensor(random.normal(0, 3, 3))
            slopes_of_pairs = [
                slope_by_logits(BalancedDPO(beta), logits, ref_logp, utility, weights.double()) for weights in pairs
            ]
            assert max(float(slope.abs().max()) for slope in slopes_of_pairs) > 1e-6
    # By another route: margins of three policies' responses add up only where two of the three are equal.
    costs = tensor(random.exponential(2, (1000, 3)))
    margins = [torch.tanh(0.5 * (costs[:, j].log() - costs[:, i].log())) for i, j in ((0, 1), (1, 2), (0, 2))]
    gap = margins[0] + margins[1] - margins[2]
    torch.testing.assert_close(gap, margins[0] * margins[1] * margins[2], rtol=1e-9, atol=1e-12)


# --- densities -------------------------------------------------------------------------------------------------------


def in_coordinate(pairs, win_slope, lose_slope):
    """Return the pairs in a coordinate whose dz/dy differs between winner and loser."""
    at_win, at_lose = tensor(win_slope).log(), tensor(lose_slope).log()
    return PairLogps(
        pairs.win - at_win, pairs.lose - at_lose, pairs.ref_win - at_win, pairs.ref_lose - at_lose
    )  # fmt: skip


def relative_weight(win, lose, ref_win, ref_lose, cost):
    """λ_w = c(u_l)/(c(u_w) + c(u_l)) of densities."""
    at_win, at_lose = cost(win / ref_win), cost(lose / ref_lose)
    return at_lose / (at_win + at_lose)


def test_one_half_is_the_only_weight_of_two_densities():
    random = rng()
    win, lose, ref_win, ref_lose = np.exp(random.uniform(-2, 2, (4, 60)))
    win_slope, lose_slope = np.exp(random.uniform(-3, 3, (2, 60)))
    # A smooth rising function has any two positive slopes at two places: this one, of 0 and 1.
    for first, second in zip(win_slope[:5], lose_slope[:5], strict=True):
        derivative = lambda y, a=first, b=second: a ** (1 - y) * b**y  # noqa: E731
        assert derivative(0) == pytest.approx(first)
        assert derivative(1) == pytest.approx(second)
        assert (derivative(np.linspace(-3, 3, 50)) > 0).all()
    # Weights of two densities that are not constant: each changes with the coordinate.
    weights = {
        "bdpo": lambda a, b: np.log(b) / (np.log(a) + np.log(b)),
        "ratio": lambda a, b: a / (a + b),
        "difference": lambda a, b: 1 / (1 + np.exp(b - a)),
    }
    for name, weight in weights.items():
        np.testing.assert_allclose(weight(win, lose) + weight(lose, win), 1, rtol=0, atol=1e-9)
        moved = np.abs(weight(win / win_slope, lose / lose_slope) - weight(win, lose))
        assert (moved > 1e-3).mean() > 0.9, name
        scaled = np.abs(weight(win / 7, lose / 7) - weight(win, lose)).max()
        assert (scaled < 1e-12) == (name == "ratio")  # under units alone, functions of π_w/π_l are left
        to_one = weight(win / (win * (1 + 1e-9)), lose / (lose * (1 + 1e-9)))
        np.testing.assert_allclose(to_one, 0.5, rtol=0, atol=1e-6)
    pairs = PairLogps(*(tensor(np.log(one)) for one in (win, lose, ref_win, ref_lose)))
    moved = in_coordinate(pairs, win_slope, lose_slope)
    for loss in (FixedWeightDPO(1.2, 0.5), DPO(0.6), pair_loss("relative-bdpo", beta=1.2)):
        torch.testing.assert_close(loss(moved), loss(pairs), rtol=0, atol=rounding(40, 10))
    torch.testing.assert_close(FixedWeightDPO(1.2, 0.5)(pairs), DPO(0.6)(pairs), rtol=0, atol=rounding(10, 10))
    assert (BalancedDPO(1.2)(moved) - BalancedDPO(1.2)(pairs)).abs().min() > 1e-4
    # With the reference: odds chain, equal slopes in u for c = 1/u, and ½ at the reference.
    costs = {"1": np.ones_like, "1/u": lambda u: 1 / u, "log(1 + 1/u)": lambda u: np.log1p(1 / u)}
    u = np.exp(random.uniform(-3, 3, (3, 60)))
    for cost in costs.values():
        odds = lambda a, b, c=cost: relative_weight(a, b, 1, 1, c) / relative_weight(b, a, 1, 1, c)  # noqa: E731
        np.testing.assert_allclose(odds(u[0], u[1]) * odds(u[1], u[2]), odds(u[0], u[2]), rtol=1e-12)
        there = relative_weight(win, lose, ref_win, ref_lose, cost)
        moved_weight = relative_weight(
            win / win_slope, lose / lose_slope, ref_win / win_slope, ref_lose / lose_slope, cost
        )
        np.testing.assert_allclose(moved_weight, there, rtol=1e-12)
    found = slopes(pair_loss("relative-bdpo").margin, pairs)[0]
    np.testing.assert_allclose(found, relative_weight(win, lose, ref_win, ref_lose, costs["log(1 + 1/u)"]), rtol=1e-12)
    half = relative_weight(u[0], u[1], 1, 1, costs["1/u"])
    np.testing.assert_allclose(half / u[0], (1 - half) / u[1], rtol=1e-12)


def test_the_margin_of_relative_bdpo_lies_between_its_bounds():
    random = rng()
    loss = pair_loss("relative-bdpo", beta=1.3)
    with localcontext() as context:
        context.prec = 60
        for log_win, log_lose in random.uniform(-30, 30, (300, 2)):
            h_w, h_l = Decimal(float(log_win)), Decimal(float(log_lose))
            cost_w, cost_l = ((1 + (-h).exp()).ln() for h in (h_w, h_l))
            above, below = ((1 + h.exp()).ln() for h in (h_w, h_l))
            margin = (cost_l * h_w - cost_w * h_l) / (cost_w + cost_l)
            assert -below < margin < above
            reference = tensor([-3.0])
            pairs = PairLogps(reference + log_win, reference + log_lose, reference, reference)
            assert float(loss.margin(pairs)) == pytest.approx(1.3 * float(margin), abs=rounding(40, 50))
            if max(log_win, log_lose) <= 0:
                assert abs(margin) < Decimal(2).ln()


def test_theorems_on_densities_depend_on_the_coordinate():
    random = rng()
    for _ in range(50):
        n = int(random.integers(3, 30))
        w = dpo_weight(*np.log(random.dirichlet(np.ones(n), 2)))
        sides = {}
        for epsilon in (-1e-3, 0.0, 1e-3):
            g = 1 + epsilon * (w / np.abs(w).max()) ** 2
            sides[epsilon] = np.var(w * g) - np.var(w) * np.mean(g**2)
        assert sides[-1e-3] < 0 < sides[1e-3]
        assert abs(sides[0.0]) < rounding(10 * n, np.mean(w**2))
        g = random.uniform(0.5, 2, n)
        by_units = [np.var(w * g / c) / (np.var(w) * np.mean((g / c) ** 2)) for c in (1.0, 1e-3, 1e6)]
        assert by_units == pytest.approx([by_units[0]] * 3, rel=1e-9)
    # Modes that a coordinate puts around an extremum of w.
    y = np.linspace(-6, 6, 4001)
    log_p, log_q = bell(y, -1, 1, 1), bell(y, 1, 1, 1)
    w = dpo_weight(log_p - np.logaddexp.reduce(log_p), log_q - np.logaddexp.reduce(log_q))
    top = y[np.argmax(w)]
    assert not -1 <= top <= 1
    a, b = top - 0.5, top + 0.5
    low, high = (np.interp(b, y, one) - np.interp(a, y, one) for one in (log_q, log_p))
    assert low > high  # p/q falls
    ratio = -(low + high) / 2  # log d_a − log d_b, between the two
    depth = 30.0
    dips = lambda at, size: size * np.exp(-0.5 * ((y - at) / 0.02) ** 2)  # noqa: E731
    log_slope = -dips(a, depth - ratio / 2) - dips(b, depth + ratio / 2)
    modes = [y[np.argmax(one - log_slope)] for one in (log_p, log_q)]
    assert modes == pytest.approx([a, b], abs=0.01)
    assert modes[0] < top < modes[1]

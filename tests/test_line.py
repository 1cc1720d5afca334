"""Continuous responses: quadrature, policies, coordinates, and which losses see the unit."""

import math

import numpy as np
import pytest
import torch
from rounding import rounding
from scipy.integrate import quad

import gradlab as gl
from gradlab.lab.line import (
    POLICIES,
    REFERENCES,
    EnergyNetwork,
    GaussianMixture,
    GaussianPolicy,
    Interval,
    LineWorld,
    bump_world,
    cells,
    coordinate,
    fit_line,
    gaussian_error,
    hyperbolic,
    loss_slopes,
    quantiles,
    scaled,
)
from gradlab.losses import PairLogps, pair_loss

NORMAL, MIXTURE = REFERENCES["normal"], REFERENCES["mixture"]
SHORT = {"steps": 40, "pairs": 40, "record": 2}
Y = torch.linspace(-4, 4, 41, dtype=torch.float64)


def theta_of(name, seed=0):
    """Parameters of two runs, away from the start."""
    start = POLICIES[name].start(MIXTURE if name == "mixture" else NORMAL, [seed, seed + 1])
    return start + 0.3 * torch.as_tensor(np.random.default_rng(seed).standard_normal(start.shape))


# --- quadrature ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sd", [0.05, 0.08, 0.2, 1.0, 5.0])
def test_a_gaussians_total_is_as_exact_as_the_bound_says(sd):
    interval = Interval(-50 * sd, 50 * sd, 100 if sd < 0.1 else 250, even=None)
    length = float(np.diff(interval.edges)[0])
    # The panels within ten standard deviations hold all but 1e-22 of the density, and each errs by the bound at most.
    bound = gaussian_error(sd, length) * 20 * sd / length + rounding(len(interval.nodes), 4)
    total = float(interval.integral(GaussianMixture((0.3 * sd,), (sd,)).log_density(interval.nodes).exp()))
    assert abs(total - 1) <= bound
    assert gaussian_error(0.2, 1.0) < 1e-11 < gaussian_error(0.05, 1.0)


def test_the_error_is_there_where_the_bound_allows_it():
    narrow = GaussianMixture((0.21,), (0.02,))
    interval = Interval(-4, 4, 8, even=None)
    error = abs(float(interval.integral(narrow.log_density(interval.nodes).exp())) - 1)
    assert 1e-4 < error <= 8 * gaussian_error(0.02, 1.0)


def test_panels_grow_with_the_distance_beyond_the_even_part():
    length = np.diff(Interval().edges)
    assert length.min() < 0.21
    assert length[-1] / length[-2] == pytest.approx(length[-2] / length[-3], rel=1e-3)
    assert Interval().edges[[0, -1]] == pytest.approx([-1000, 1000])


# --- policies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "reference"), [("gaussian", NORMAL), ("mixture", MIXTURE), ("energy", MIXTURE)])
def test_a_policy_starts_at_the_reference_and_integrates_to_one(name, reference):
    policy, interval = POLICIES[name], Interval()
    start = policy.start(reference, [3, 4])
    logp = policy.log_density(start, interval.nodes, reference)
    near = interval.nodes.abs() < 8
    expected = reference.log_density(interval.nodes).expand(2, -1)
    torch.testing.assert_close(logp[:, near], expected[:, near], rtol=0, atol=rounding(200, 40))
    moved = policy.log_density(theta_of(name), interval.nodes, reference)
    torch.testing.assert_close(interval.integral(moved.exp()), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-9)


def gradients(name, theta, reference):
    """∂ log π(y)/∂θ of the first run by autograd, (n, k)."""
    theta = theta.clone().requires_grad_()
    logp = POLICIES[name].log_density(theta, Y, reference)[0]
    return torch.stack([torch.autograd.grad(one, theta, retain_graph=True)[0][0] for one in logp])


def test_a_gaussians_gradients_have_their_closed_form():
    theta = theta_of("gaussian")
    z = (Y - theta[0, 0]) / theta[0, 1].exp()
    expected = torch.stack([z / theta[0, 1].exp(), z**2 - 1], 1)
    torch.testing.assert_close(gradients("gaussian", theta, NORMAL), expected, rtol=1e-12, atol=1e-12)


def test_a_mixtures_gradients_have_their_closed_form():
    theta = theta_of("mixture")
    logits, means, log_sds = theta[0].chunk(3)
    shares, sds = logits.softmax(0), log_sds.exp()
    z = (Y[:, None] - means) / sds
    parts = shares * (-0.5 * z**2).exp() / sds
    of = parts / parts.sum(1, keepdim=True)  # each component's part in y
    expected = torch.cat([of - shares, of * z / sds, of * (z**2 - 1)], 1)
    torch.testing.assert_close(gradients("mixture", theta, MIXTURE), expected, rtol=1e-11, atol=1e-12)


def test_a_networks_gradients_are_those_of_its_energy_less_their_mean():
    theta = theta_of("energy")
    slopes, places, out = theta[0].chunk(3)

    def of_energy(y):
        units = torch.tanh(y[:, None] * slopes + places)
        inner = out * (1 - units**2)
        return torch.cat([inner * y[:, None], inner, units], 1)

    interval = Interval(-9, 9, 400, even=None)  # other nodes than the policy's
    density = POLICIES["energy"].log_density(theta, interval.nodes, NORMAL)[0].exp()
    mean = (density * interval.weights) @ of_energy(interval.nodes)
    torch.testing.assert_close(gradients("energy", theta, NORMAL), of_energy(Y) - mean, rtol=1e-8, atol=1e-9)


def test_utility_and_kl_of_a_gaussian_have_their_closed_form():
    world = LineWorld(1.2)
    fitted = fit_line(world, gl.DPO(), seed=1, **SHORT)
    mean, sd = float(fitted.theta[0, 0]), math.exp(float(fitted.theta[0, 1]))
    end, wide = fitted.ends.iloc[0], world.width**2 + sd**2
    utility = world.height * world.width / math.sqrt(wide) * math.exp(-((mean - 1.2) ** 2) / (2 * wide))
    assert end["utility"] == pytest.approx(utility, abs=1e-11)
    assert end["kl"] == pytest.approx((mean**2 + sd**2 - 1) / 2 - math.log(sd), abs=1e-11)
    assert fitted.history["step"].tolist()[0] == 0 == pytest.approx(fitted.history["kl"][0], abs=1e-12)


def test_the_ideal_policy_is_the_best_trade():
    world = bump_world(2, "mixture")
    ideal, on = world.ideal_logp(0.7), world.interval
    value = lambda logp: float(on.integral(logp.exp() * (world.utility(on.nodes) - 0.7 * (logp - world.ref_logp))))  # noqa: E731
    total = quad(lambda y: float((MIXTURE.log_density(t := torch.tensor(y)) + world.utility(t) / 0.7).exp()), -9, 9)[0]
    assert value(ideal) == pytest.approx(0.7 * math.log(total), abs=1e-8)
    fitted = fit_line(world, gl.DPO(0.7), "energy", seed=2, **SHORT)
    assert value(fitted.logp[0]) < value(ideal)


# --- coordinates -----------------------------------------------------------------------------------------------------

COORDINATES = [scaled(1e-3), scaled(1.0), scaled(1e6), hyperbolic(), quantiles(NORMAL), cells(50, -5, 5)]


@pytest.mark.parametrize("to", COORDINATES, ids=lambda to: to.name)
def test_a_coordinates_slope_is_its_derivative(to):
    y = Y.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(to.position(y).sum(), y)
    torch.testing.assert_close(derivative.log(), to.log_slope(Y), rtol=1e-9, atol=1e-9)


def test_a_cell_has_log_density_plus_log_width():
    at = torch.tensor([0.3, -1.0], dtype=torch.float64)
    pairs = cells(1e8, -5, 5).pairs(at, at, at, at, (at, at))
    torch.testing.assert_close(pairs.win, at + math.log(10 / 1e8), rtol=0, atol=rounding(8, 20))


def ends(loss, policy="gaussian", reference="normal", **more):
    """Densities at the end of training in every coordinate, (coordinates, nodes), from the same pairs."""
    world = bump_world(5, reference)
    chosen = [*COORDINATES[:-2], quantiles(world.reference), COORDINATES[-1]]
    return fit_line(world, loss, policy, chosen, seed=[5] * len(chosen), **SHORT, **more).logp.exp()


@pytest.mark.parametrize(
    ("policy", "reference"), [("gaussian", "normal"), ("mixture", "mixture"), ("energy", "normal")]
)
@pytest.mark.parametrize("name", ["dpo", "fixed-weight", "relative-bdpo"])
def test_losses_of_the_ratio_to_the_reference_train_the_same_policy_in_every_coordinate(name, policy, reference):
    policies = ends(pair_loss(name, beta=1.0), policy, reference)
    assert float((policies - policies[:1]).abs().max()) < 1e-10
    assert float((policies[0] - REFERENCES[reference].log_density(Interval().nodes).exp()).abs().max()) > 0.01


def test_balanced_dpo_trains_another_policy_in_every_coordinate():
    policies = ends(gl.BalancedDPO(), anyway=True)
    apart = Interval().integral((policies[:, None] - policies).abs()) / 2
    assert float((apart + torch.eye(len(apart))).min()) > 1e-3


@pytest.mark.parametrize("name", ["bdpo", "relative-bdpo", "dpo"])
def test_near_its_pole_balanced_dpo_turns_the_last_bit_into_another_policy(name):
    rates = (0.05, 0.05 * (1 + 2e-15))
    how = {"coordinates": scaled(0.1), "seed": 5, "anyway": True, "steps": 100, "pairs": 120}
    one, two = (fit_line(bump_world(5), pair_loss(name, beta=1.0), learning_rate=rate, **how).logp for rate in rates)
    apart = float((one.exp() - two.exp()).abs().max())
    assert apart > 1e-8 if name == "bdpo" else apart < 1e-12


def test_balanced_dpo_on_ever_finer_cells_tends_to_dpo_at_half_beta_as_one_over_log_n():
    drawn = np.random.default_rng(0).normal(size=(4, 30)) - 1
    win, lose, ref_win, ref_lose = torch.as_tensor(drawn)
    half = gl.DPO(0.5)(PairLogps(win, lose, ref_win, ref_lose))
    gaps = []
    for number in (1e4, 1e8, 1e16):
        binned = cells(number, -5, 5).pairs(win, lose, ref_win, ref_lose, (win, lose))
        gaps.append(float((gl.BalancedDPO(1.0)(binned) - half).abs().max()))
    assert gaps[1] == pytest.approx(gaps[0] / 2, rel=0.3)
    assert gaps[2] == pytest.approx(gaps[1] / 2, rel=0.15)


def test_weights_of_a_pair_are_those_of_the_loss():
    pairs = PairLogps(*torch.tensor([[0.4], [-0.2], [-0.9], [-1.1]], dtype=torch.float64))
    for loss, weight in ((gl.BalancedDPO(), -0.2 / 0.2), (gl.DPO(2.0), 0.5), (gl.FixedWeightDPO(1.0, 0.3), 0.3)):
        win, lose, found = loss_slopes(loss, pairs)
        assert float(found) == pytest.approx(weight)
        expected = gl.losses.slopes(loss, pairs)
        assert (float(win), float(lose)) == (pytest.approx(float(expected[0])), pytest.approx(float(expected[1])))
    assert float(loss_slopes(gl.IPO(0.1), pairs)[2]) == pytest.approx(0.5)


# --- training --------------------------------------------------------------------------------------------------------


def test_equal_seeds_give_equal_bits_and_a_run_depends_on_no_other():
    worlds = [bump_world(seed) for seed in (1, 2)]
    both = fit_line(worlds, gl.DPO(), "energy", seed=1, **SHORT)
    assert torch.equal(both.theta, fit_line(worlds, gl.DPO(), "energy", seed=1, **SHORT).theta)
    alone = fit_line(worlds[1], gl.DPO(), "energy", seed=2, **SHORT)
    torch.testing.assert_close(both.theta[1], alone.theta[0], rtol=0, atol=1e-9)
    assert len(alone.history) == len(both.history) / 2


def test_plain_gradient_descent_takes_the_step_of_the_closed_form():
    world = bump_world(3)
    fitted = fit_line(world, gl.DPO(), seed=3, **{**SHORT, "steps": 1}, optimizer="gd", learning_rate=0.5)
    win, lose = world.pairs(40, 3)
    # At the start every slope is −β/2 in log π_w and β/2 in log π_l.
    step = [0.5 * 0.5 * float((one(win) - one(lose)).mean()) for one in (lambda y: y, lambda y: y**2 - 1)]
    assert fitted.theta[0].tolist() == pytest.approx(step, abs=1e-14)


def test_a_run_whose_gradient_is_not_finite_stays_where_it_is_and_says_so():
    class Broken(gl.DPO):
        def margin(self, logps):
            return super().margin(logps) / torch.where(logps.win_logratio.abs() > 0.01, torch.zeros(()), 1.0)

    fitted = fit_line(bump_world(1), Broken(), seed=1, anyway=True, **SHORT)
    assert bool(fitted.ends["broken"][0])
    assert bool(fitted.theta.isfinite().all())
    with pytest.raises(ValueError, match=r"^loss must be defined on densities, .* no finite slope at log densities"):
        fit_line(bump_world(1), Broken(), seed=1, **SHORT)


# --- bad input -------------------------------------------------------------------------------------------------------


def test_balanced_dpo_is_refused_where_its_weights_leave_0_to_1():
    message = (
        r"^loss must be defined on densities, with λ_w in \[0, 1\]; bdpo in the coordinate 0\.1 y has λ_w = \S+ at "
        r"log densities \S+ and \S+, since a log density, unlike a log-probability, may be above 0: use relative-bdpo, "
        r"or fixed-weight \(λ = ½\), or train with anyway=True$"
    )
    with pytest.raises(ValueError, match=message):
        fit_line(bump_world(1), gl.BalancedDPO(), coordinates=scaled(0.1), seed=1, **SHORT)
    anyway = fit_line(bump_world(1), gl.BalancedDPO(), coordinates=scaled(0.1), seed=1, anyway=True, **SHORT)
    assert anyway.history["outside"][0] > 0.05
    assert (anyway.history[["outside", "turned"]].sum(axis=1) <= 1).all()
    fine = fit_line(bump_world(1), gl.BalancedDPO(), coordinates=scaled(1e6), seed=1, **SHORT)
    assert (fine.history["outside"] == 0).all()


class Twice(GaussianMixture):
    """A function that is no density."""

    def log_density(self, y):
        return super().log_density(y) + math.log(2)


def falling(y):
    return -y


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: LineWorld(0.5, reference=Twice()), r"^reference must integrate to one on \[-1000, 1000\], .* 2$"),
        (lambda: LineWorld(0.5, reference=GaussianMixture((1e4,))), r"^reference must integrate to one on .* of 0$"),
        (lambda: scaled(0.0), r"^unit must be finite and > 0, got 0\.0$"),
        (lambda: scaled(-3), r"^unit must be finite and > 0, got -3$"),
        (lambda: coordinate("−y", falling, torch.zeros_like, Interval()), r"^position of −y must rise strictly"),
        (lambda: coordinate("y²", torch.square, torch.zeros_like, Interval()), r"^position of y² must rise strictly"),
        (lambda: coordinate("3 y", lambda y: 3 * y, torch.zeros_like, Interval()), r"^log_slope of 3 y must be log dz"),
        (lambda: coordinate("e^y", torch.exp, lambda y: y, Interval()), r"^position of e\^y must be finite"),
        (lambda: cells(0, -5, 5), r"^number must be finite and lie in \[1, inf\), got 0$"),
        (lambda: cells(10, 5, -5), r"^high must be finite and lie in \(5, inf\), got -5$"),
        (lambda: GaussianMixture((0.0,), (0.0,)), r"^sds must be finite and > 0, got 0\.0$"),
        (lambda: GaussianMixture((0, 1), (1, 1), (0.5, 0.4)), r"^shares must sum to one, got \(0\.5, 0\.4\)$"),
        (lambda: GaussianMixture((0, 1), (1,), (1,)), r"^means, sds and shares must be equally many, .* got 2, 1, 1$"),
        (lambda: GaussianPolicy().start(MIXTURE, [0]), r"^reference must be a Gaussian where the policy starts as one"),
        (lambda: EnergyNetwork(0), r"^hidden must be a whole number ≥ 1, got 0$"),
        (lambda: EnergyNetwork(3, 8.0), r"^interval must be an Interval, such as Interval\(-8, 8\), got 8\.0$"),
        (lambda: LineWorld(0.5, interval=None), r"^interval must be an Interval, .*, got None$"),
        (lambda: LineWorld(0.5, reference="normal"), r"^reference must be a density, such as .*, got 'normal'$"),
        (lambda: quantiles(3), r"^reference must be a density, such as GaussianMixture\(.*\), got 3$"),
        (lambda: coordinate("z", 1, 2, Interval()), r"^position of z must be a function of responses, got 1$"),
        (lambda: coordinate("z", lambda y: 1.0, lambda y: y, Interval()), r"^position of z must be finite, one"),
        (lambda: coordinate("z", falling, falling, 3), r"^on must be an Interval, .*, got 3$"),
        (lambda: GaussianMixture(0.0), r"^means must be a tuple of numbers, got 0\.0$"),
        (lambda: GaussianMixture(b"x"), r"^means must be a tuple of numbers, got b'x'$"),
        (lambda: fit_line([], gl.DPO()), r"^worlds must be a LineWorld, .*, or a sequence .*\[\]$"),
        (lambda: fit_line([3], gl.DPO()), r"^worlds\[0\] must be a LineWorld, .*, got 3$"),
        (lambda: fit_line(bump_world(), gl.DPO(), coordinates=2.0), r"^coordinates must be a Coordinate, .*2\.0$"),
        (lambda: fit_line(bump_world(), gl.DPO(), 3), r"^policy must be one of gaussian, .*, or a policy on a line"),
        (lambda: fit_line(bump_world(), gl.DPO(), EnergyNetwork), r"^policy must be one of gaussian, .*, or"),
        (lambda: fit_line(bump_world(), gl.DPO), r"^loss must be a loss of pairs, .*, got <class"),
        (lambda: fit_line(bump_world(), gl.DPO(), seed=True), r"^seed must be a whole number ≥ 0, got True$"),
        (lambda: fit_line(bump_world(), gl.DPO(), seed="12"), r"^seed must be a whole number ≥ 0, got '12'$"),
        (lambda: fit_line(bump_world(), gl.DPO(), seed=[1.5]), r"^seed must be a whole number ≥ 0, got 1\.5$"),
        (
            lambda: fit_line(bump_world(), lambda pairs: (pairs.win - pairs.win.detach()).sqrt(), **SHORT),
            r"^loss must be defined on densities, .*; this function in the coordinate y has no finite",
        ),
        (lambda: Interval(3, 3), r"^high must be finite and lie in \(3, inf\), got 3$"),
        (lambda: fit_line(bump_world(), gl.DPO(), pairs=None), r"^pairs must be a whole number ≥ 1, got None$"),
        (lambda: fit_line(bump_world(), gl.DPO(), "spline"), r"^policy must be one of gaussian, mixture, energy; got"),
        (lambda: fit_line(bump_world(), "dpo"), r"^loss must be a loss of pairs, such as DPO\(beta=1\.0\), got 'dpo'$"),
        (lambda: fit_line([bump_world()] * 2, gl.DPO(), seed=[1, 2, 3]), r"^worlds, coordinates and seed must be one"),
        (
            lambda: fit_line([bump_world(), bump_world(0, "mixture")], gl.DPO(), "energy"),
            r"^worlds must share one reference and one interval in one fit_line$",
        ),
        (
            lambda: fit_line(bump_world(), gl.DPO(), learning_rate=20, **SHORT),
            r"^policy must integrate to one on \[-1000, 1000\], got a total of .*: it has left the interval",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(wrong, message):
    with pytest.raises(ValueError, match=message) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def test_numbers_of_any_kind_are_kept_as_pythons():
    given = LineWorld(
        np.float64(0.5), torch.tensor(2.0), np.int64(3), GaussianMixture([np.int64(0)], [torch.tensor(1.0)])
    )
    assert (type(given.centre), type(given.width), type(given.height)) == (float, float, float)
    assert given.reference == GaussianMixture()
    assert repr(fit_line(given, gl.DPO(), seed=np.int64(3), **SHORT).ends) == repr(
        fit_line(LineWorld(0.5, 2.0, 3.0), gl.DPO(), seed=3, **SHORT).ends
    )

"""Losses against their papers' formulas, in probabilities and at 60 digits: values, slopes, ratios, starts, doors."""

import math
import warnings
from dataclasses import fields, replace
from types import SimpleNamespace

import mpmath
import pytest
import torch
from mpmath import mp, mpf

from gradlab.losses import PAIR_LOSSES, PairLogps, pair_loss, slopes
from gradlab.losses.links import grown

DIGITS = 60
E, log = mpmath.exp, mpmath.log


def sigma(x):
    return 1 / (1 + E(-x))


def lost(m):
    """The loss −log σ(m) of a margin."""
    return log(1 + E(-m))


# Each entry takes the hyper-parameters and a pair, and returns its loss as a function of (log π_w, log π_l), and ρ.
# ``at`` is the pair as mpmath's numbers: w, v, rw, rl, W and L, the last two being lengths. Weights that a paper
# detaches are computed from ``at``, the rest from the arguments.
def simpo(h, at):
    def of(w, v):
        return lost(h["beta"] / at["W"] * w - h["beta"] / at["L"] * v - h["gamma"])

    return of, at["L"] / at["W"]


def trl_simpo(h, at):
    plain, ratio = simpo(h, at)
    pull = 1 - sigma(h["beta"] * (at["w"] / at["W"] - at["l"] / at["L"]) - h["gamma"])
    return lambda w, v: plain(w, v) - h["sft_weight"] * w / at["W"], ratio * (1 + h["sft_weight"] / (h["beta"] * pull))


def cpo(h, at, tokens=1):
    pull = 1 - sigma(h["beta"] * (at["w"] - at["l"]))
    share = h["sft_weight"] / tokens

    def of(w, v):
        return -log(E(w) ** h["beta"] / (E(w) ** h["beta"] + E(v) ** h["beta"])) - share * w

    return of, 1 + share / (h["beta"] * pull)


def orpo(h, at):
    def odds(logp, tokens):
        p = E(logp / tokens)
        return p / (1 - p)

    def of(w, v):
        return -w / at["W"] + h["odds_weight"] * log(1 + odds(v, at["L"]) / odds(w, at["W"]))

    p_w, p_l = E(at["w"] / at["W"]), E(at["l"] / at["L"])
    pull = h["odds_weight"] / (1 + odds(at["w"], at["W"]) / odds(at["l"], at["L"]))
    return of, at["L"] / at["W"] * (1 + pull / (1 - p_w)) / (pull / (1 - p_l))


def alphapo(h, at):
    a = h["reward_shape"]

    def reward(logp, tokens):
        return (1 - E(logp / tokens) ** -a) / a

    def of(w, v):
        return lost(h["beta"] * (reward(w, at["W"]) - reward(v, at["L"])) - h["gamma"])

    return of, at["L"] / at["W"] * (E(at["w"] / at["W"]) / E(at["l"] / at["L"])) ** -a


def slic(h, at):
    short = at["w"] - at["l"] < h["gamma"]

    def of(w, v):
        return (h["gamma"] - w + v if short else 0) - h["sft_weight"] * w

    return of, 1 + h["sft_weight"] if short else mpmath.inf


def link(of_u, slope_of_u):
    """The loss of a link φ(u), with u φ'(u), whose ratio is ρ."""

    def made(h, at):
        def of(w, v):
            return lost(h["beta"] * (of_u(E(w - at["rw"]), h) - of_u(E(v - at["rl"]), h)))

        return of, slope_of_u(E(at["w"] - at["rw"]), h) / slope_of_u(E(at["l"] - at["rl"]), h)

    return made


def chi_po(h, at):
    of, ratio = link(lambda u, _: u + log(u), lambda u, _: 1 + u)(h, at)
    edge = 2 * h["reward_bound"]
    u_w, u_l = E(at["w"] - at["rw"]), E(at["l"] - at["rl"])
    margin = h["beta"] * (u_w + log(u_w) - u_l - log(u_l))
    if abs(margin) < edge:
        return of, ratio
    return lambda w, v: lost(edge if margin > 0 else -edge) + 0 * w, mpmath.nan


def bounded(h, at):
    mix = h["mixture"]
    u_l = E(at["l"] - at["rl"])

    def of(w, v):
        mixed = log(mix * E(v) + (1 - mix) * E(at["rl"])) - at["rl"]
        return lost(h["beta"] * (w - at["rw"] - mixed))

    return of, 1 + (1 - mix) / mix / u_l


def h_dpo(h, at):
    a = h["entropy_weight"]
    return lambda w, v: lost(h["beta"] * (a * w - a * v - at["rw"] + at["rl"])), mpf(1)


def weighed(win, lose):
    """−log σ(β(λ_w h_w − λ_l h_l)) with weights that are computed from ``at`` and held fixed."""

    def made(h, at):
        a, b = win(h, at), lose(h, at)
        return lambda w, v: lost(h["beta"] * (a * (w - at["rw"]) - b * (v - at["rl"]))), a / b if b else mpmath.inf

    return made


def cost(logp, ref):
    return log(1 + E(ref) / E(logp))


def relative(h, at):
    c_w, c_l = cost(at["w"], at["rw"]), cost(at["l"], at["rl"])
    return weighed(lambda *_: c_l / (c_w + c_l), lambda *_: c_w / (c_w + c_l))(h, at)


def bpo(h, at):
    h_w, h_l, a = at["w"] - at["rw"], at["l"] - at["rl"], h["loser_weight"]
    ahead = h_w > -a * h_l
    return weighed(lambda *_: mpf(not ahead), lambda *_: a if ahead else mpf(0))(h, at)


def dpop(h, at):
    def of(w, v):
        h_w = w - at["rw"]
        return lost(h["beta"] * (h_w - (v - at["rl"]) - h["penalty"] * (max(0, -(at["w"] - at["rw"])) and -h_w)))

    return of, 1 + h["penalty"] if at["w"] < at["rw"] else mpf(1)


def wpo(h, at):
    weight = E(at["w"]) ** (1 / at["W"]) * E(at["l"]) ** (1 / at["L"])
    return lambda w, v: weight * lost(h["beta"] * (w - at["rw"] - v + at["rl"])), mpf(1)


def lsif(h, at):
    u_w, u_l = E(at["w"] - at["rw"]), E(at["l"] - at["rl"])
    return lambda w, v: -E(w - at["rw"]) + E(v - at["rl"]) ** 2 / 2, u_w / u_l**2


def ukl(h, at):
    return lambda w, v: E(v - at["rl"]) - w, 1 / E(at["l"] - at["rl"])


def ddro(h, at):
    u_l, edge = E(at["l"] - at["rl"]), 2 - mpf(1e-6)

    def of(w, v):
        u = E(v - at["rl"])
        wall = log(2 / (2 - u)) if u_l < edge else log(2e6) + (u - edge) * 10**6
        return log(2 / E(w - at["rw"])) + wall

    return of, (2 - u_l) / u_l if u_l < edge else 1 / (10**6 * u_l)


FORMULAS = {
    "simpo": simpo,
    "trl-simpo": trl_simpo,
    "cpo": cpo,
    "trl-cpo": lambda h, at: cpo(h, at, at["W"]),
    "orpo": orpo,
    "alphapo": alphapo,
    "slic": slic,
    "f-dpo": link(lambda u, h: (u ** (h["order"] - 1) - 1) / (h["order"] - 1), lambda u, h: u ** (h["order"] - 1)),
    "link-u": link(lambda u, _: u, lambda u, _: u),
    "forward-kl": link(lambda u, _: -1 / u, lambda u, _: 1 / u),
    "js": link(lambda u, _: log(2 * u / (1 + u)), lambda u, _: 1 / (1 + u)),
    "chi-po": chi_po,
    "bounded-dpo": bounded,
    "h-dpo": h_dpo,
    "relative-bdpo": relative,
    "length-dpo": weighed(lambda _, at: at["L"] / (at["W"] + at["L"]), lambda _, at: at["W"] / (at["W"] + at["L"])),
    "ada-dpo": weighed(lambda h, at: min(E(at["w"] - at["l"]), h["clip"]), lambda *_: mpf(1)),
    "dpo-shift": weighed(lambda *_: mpf(1), lambda h, _: h["loser_weight"]),
    "bpo": bpo,
    "dpop": dpop,
    "minor-dpo": weighed(lambda *_: mpf(1), lambda _, at: mpf(at["l"] >= at["rl"])),
    "wpo": wpo,
    "lsif": lsif,
    "ukl": ukl,
    "ddro": ddro,
}
every_formula = pytest.mark.parametrize("name", FORMULAS)
NAMES = ("w", "l", "rw", "rl", "W", "L")


def random_pairs(count=10, least=-8.0, seed=7):
    generator = torch.Generator().manual_seed(seed)
    sides = least * torch.rand(4, count, generator=generator, dtype=torch.float64) - 0.01
    return PairLogps(*sides, *torch.randint(1, 60, (2, count), generator=generator).double())


EDGES = torch.tensor(
    [
        (-1e-9, -3.0, -2.0, -2.0, 7, 3), (-3.0, -1e-9, -2.0, -2.0, 3, 7), (-1e-9, -1e-9, -1e-9, -2.0, 1, 1),
        (-1000.0, -990.0, -985.0, -1000.0, 400, 390), (-1000.0, -5.0, -990.0, -4.0, 5, 5),
        (-5.0, -1000.0, -4.0, -990.0, 2, 900),
        (-30.0, -29.0, -5.0, -1.0, 1, 2000), (-2.0, -45.0, -30.0, -10.0, 2000, 1), (-40.0, -1.0, -10.0, -30.0, 60, 50),
    ],
    dtype=torch.float64,
)  # fmt: skip


def exactly(name, loss, pairs):
    """Value, both slopes and ρ of each pair, by the formula."""
    hyper = {field.name: mpf(getattr(loss, field.name)) for field in fields(loss)}
    found = []
    with mp.workdps(DIGITS):
        for row in torch.stack([*vars(pairs).values()], 1).tolist():
            at = dict(zip(NAMES, map(mpf, row), strict=True))
            of, ratio = FORMULAS[name](hyper, at)
            win = mpmath.diff(lambda w, of=of, at=at: of(w, at["l"]), at["w"], h=mpf(10) ** -25)
            lose = mpmath.diff(lambda v, of=of, at=at: of(at["w"], v), at["l"], h=mpf(10) ** -25)
            found.append([float(part) for part in (of(at["w"], at["l"]), win, lose, ratio)])
    return torch.tensor(found, dtype=torch.float64).T


def computed(loss, pairs):
    return torch.stack([loss(pairs), *slopes(loss, pairs)])


@every_formula
@pytest.mark.parametrize("pairs", [random_pairs(), PairLogps(*EDGES.T)], ids=["random", "edges"])
def test_values_and_slopes_are_the_formulas(name, pairs):
    loss = PAIR_LOSSES[name]()
    *wanted, ratio = exactly(name, loss, pairs)
    found = computed(loss, pairs)
    # A log-ratio is rounded at 1e-13 of 1000 nats, and a power of it is off by as much, relatively.
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-9, atol=1e-12)
    seen = (found[1].abs() > 1e-200) & (found[2].abs() > 1e-200)
    torch.testing.assert_close((found[1] / found[2]).abs()[seen], ratio[seen], rtol=1e-8, atol=0)
    assert (found[1] <= 0).all()  # none of these losses pushes a side against its label
    assert (found[2] >= 0).all()
    assert not loss.winner_down
    assert not loss.loser_up


@every_formula
def test_other_hyper_parameters_are_the_formulas_too(name):
    loss = PAIR_LOSSES[name]()
    changed = {"order": 2.0, "reward_shape": -0.5, "mixture": 0.2, "clip": 0.7, "entropy_weight": 1.2, "penalty": 3.0}
    for field in fields(loss):
        value = changed.get(field.name, 0.8 * getattr(loss, field.name))
        other = replace(loss, **{field.name: value})
        *wanted, _ = exactly(name, other, random_pairs(4))
        torch.testing.assert_close(computed(other, random_pairs(4)), torch.stack(wanted), rtol=1e-9, atol=1e-12)


@every_formula
def test_single_precision_is_the_formula_rounded(name):
    low = PairLogps(*(side.float() for side in vars(random_pairs()).values()))
    exact = PairLogps(*(side.double() for side in vars(low).values()))
    found, wanted = computed(PAIR_LOSSES[name](), low).double(), exactly(name, PAIR_LOSSES[name](), exact)[:3]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


STARTS = {
    "f-dpo": math.log(2), "link-u": math.log(2), "forward-kl": math.log(2), "js": math.log(2), "chi-po": math.log(2),
    "bounded-dpo": math.log(2), "relative-bdpo": math.log(2), "length-dpo": math.log(2), "ada-dpo": math.log(2),
    "dpo-shift": math.log(2), "bpo": math.log(2), "dpop": math.log(2), "minor-dpo": math.log(2), "lsif": -0.5,
    "ddro": 2 * math.log(2),
}  # fmt: skip


@every_formula
def test_the_start_is_the_formulas_at_the_reference(name):
    loss, pairs = PAIR_LOSSES[name](), random_pairs()
    value = exactly(name, loss, replace(pairs, ref_win=pairs.win, ref_lose=pairs.lose))[0]
    assert loss.start_value == (pytest.approx(STARTS[name]) if name in STARTS else None)
    assert bool((value - value[0]).abs().max() < 1e-12) is (name in STARTS)
    if name in STARTS:
        assert value[0].item() == pytest.approx(STARTS[name], rel=1e-12)


@pytest.mark.parametrize("name", [name for name in FORMULAS if PAIR_LOSSES[name]().needs_lengths])
@pytest.mark.parametrize("side", ["win_len", "lose_len"])
def test_missing_lengths_are_named_in_one_line(name, side):
    with pytest.raises(ValueError, match=f"^{side} must be given, since {name} needs the lengths of .* got None$"):
        PAIR_LOSSES[name]()(replace(random_pairs(), **{side: None}))


@pytest.mark.parametrize("name", [name for name in FORMULAS if not PAIR_LOSSES[name]().needs_lengths])
def test_lengths_are_not_asked_for_in_vain(name):
    pairs = random_pairs()
    assert torch.equal(PAIR_LOSSES[name]()(replace(pairs, win_len=None, lose_len=None)), PAIR_LOSSES[name]()(pairs))


@pytest.mark.parametrize("name", [name for name in FORMULAS if not PAIR_LOSSES[name]().needs_reference])
def test_a_loss_without_a_reference_does_not_look_at_one(name):
    pairs = random_pairs()
    other = replace(pairs, ref_win=pairs.lose, ref_lose=pairs.win)
    assert torch.equal(PAIR_LOSSES[name]()(other), PAIR_LOSSES[name]()(pairs))


@pytest.mark.parametrize("name", [name for name in FORMULAS if PAIR_LOSSES[name]().needs_lengths])
def test_an_empty_response_counts_as_one_token(name):
    pairs = random_pairs(3)
    none, one = (replace(pairs, win_len=torch.full((3,), tokens)) for tokens in (0, 1))
    assert torch.equal(PAIR_LOSSES[name]()(none), PAIR_LOSSES[name]()(one))


BAD = {
    "beta": (0.0, "beta must be finite and > 0"),
    "gamma": (-0.1, "gamma must be finite and lie in [0, inf)"),
    "sft_weight": (-0.1, "sft_weight must be finite and lie in [0, inf)"),
    "odds_weight": (0.0, "odds_weight must be finite and > 0"),
    "reward_shape": (math.inf, "reward_shape must be finite and lie in [-10, 10]"),
    "order": (math.nan, "order must be finite and lie in [-10, 10]"),
    "reward_bound": (0, "reward_bound must be finite and > 0"),
    "mixture": (1.0, "mixture must be finite and lie in (0, 1)"),
    "entropy_weight": (0.0, "entropy_weight must be finite and > 0"),
    "clip": (0.0, "clip must be finite and > 0"),
    "loser_weight": (1.1, "loser_weight must be finite and lie in (0, 1]"),
    "penalty": (-1.0, "penalty must be finite and lie in [0, inf)"),
}


@every_formula
def test_bad_hyper_parameters_are_refused_by_name_and_value(name):
    for field in fields(PAIR_LOSSES[name]()):
        value, message = BAD[field.name]
        with pytest.raises(ValueError, match="^" + field.name) as error:
            pair_loss(name, **{field.name: value})
        assert str(error.value) == f"{message}, got {value!r}"


@pytest.mark.parametrize("name", FORMULAS)
def test_presets_of_libraries_are_hyper_parameters_of_the_loss(name):
    loss = PAIR_LOSSES[name]()
    for preset in (loss.published, *(shipped.hyper for shipped in loss.shipped)):
        assert pair_loss(name, **preset).name == name
    stated = {key: getattr(loss, key) for key in loss.published}
    assert stated == dict(loss.published)  # the defaults are the published numbers


# --- relations between losses ---


def test_losses_with_one_number_at_its_end_are_the_losses_that_they_extend():
    pairs = random_pairs(50)
    for loss, plain in (
        (pair_loss("trl-simpo", beta=2.0, gamma=0.5, sft_weight=0.0), pair_loss("simpo", beta=2.0, gamma=0.5)),
        (pair_loss("alphapo", reward_shape=0.0), pair_loss("simpo")),
        (pair_loss("f-dpo", order=1.0), pair_loss("dpo", beta=0.1)),
        (pair_loss("f-dpo", order=2.0), pair_loss("link-u")),
        (pair_loss("f-dpo", order=0.0), pair_loss("forward-kl")),
        (pair_loss("dpo-shift", loser_weight=1.0), pair_loss("dpo", beta=0.1)),
        (pair_loss("dpop", penalty=0.0), pair_loss("dpo", beta=0.3)),
        (pair_loss("h-dpo", entropy_weight=1.0), pair_loss("dpo", beta=0.1)),
        (pair_loss("bounded-dpo", mixture=1 - 1e-13), pair_loss("dpo", beta=0.1)),
    ):
        torch.testing.assert_close(computed(loss, pairs), computed(plain, pairs), rtol=1e-8, atol=1e-10)


def test_at_equal_lengths_the_summed_loss_times_its_factor_is_the_loss():
    pairs = replace(random_pairs(50), win_len=torch.full((50,), 13), lose_len=torch.full((50,), 13))
    for name in ("length-dpo", "trl-cpo"):
        summed, factor = PAIR_LOSSES[name]().summed(13)
        torch.testing.assert_close(
            computed(PAIR_LOSSES[name](), pairs), factor * computed(summed, pairs), rtol=1e-12, atol=0
        )


def test_the_margin_of_relative_bdpo_is_bounded_and_dies_away_where_both_sides_fall():
    loss = pair_loss("relative-bdpo", beta=0.7)
    ratios = torch.linspace(-700, 700, 141, dtype=torch.float64)
    win, lose = torch.meshgrid(ratios, ratios, indexing="ij")
    reference = torch.full_like(win, -1000.0)
    margin = loss.margin(PairLogps(win + reference, lose + reference, reference, reference))
    assert (margin <= 0.7 * torch.logaddexp(win, torch.zeros(())) + 1e-9).all()
    assert (margin >= -0.7 * torch.logaddexp(lose, torch.zeros(())) - 1e-9).all()
    falling = torch.tensor([-1.0, -10.0, -40.0], dtype=torch.float64)
    reference = torch.full_like(falling, -2.0)
    fell = loss.margin(PairLogps(reference + falling, reference + falling - 20, reference, reference))
    assert (fell > 0).all()
    assert (fell[1:] < 1e-4).all()


def test_relative_bdpo_does_not_depend_on_the_unit_of_a_response_and_bdpo_does():
    pairs, unit = random_pairs(50), torch.linspace(-3, 3, 50, dtype=torch.float64)
    moved = PairLogps(pairs.win - unit, pairs.lose + unit, pairs.ref_win - unit, pairs.ref_lose + unit)
    torch.testing.assert_close(*(pair_loss("relative-bdpo")(each) for each in (pairs, moved)), rtol=1e-10, atol=1e-12)
    assert (pair_loss("bdpo")(pairs) - pair_loss("bdpo")(moved)).abs().max() > 0.1


def test_relative_bdpo_is_balanced_in_u_for_large_u():
    high = torch.tensor([20.0, 35.0, 100.0, 600.0], dtype=torch.float64)
    reference = torch.full_like(high, -1000.0)
    pairs = PairLogps(reference + high, reference + high - 5, reference, reference)
    win, lose = slopes(pair_loss("relative-bdpo").margin, pairs)
    torch.testing.assert_close(win / lose, torch.full_like(win, -math.exp(5)), rtol=1e-6, atol=0)


def test_powers_go_on_along_their_tangent_where_they_would_overflow():
    at = torch.tensor([-800.0, 0.0, 59.0, 61.0, 5000.0], dtype=torch.float64, requires_grad=True)
    value = grown(at)
    (slope,) = torch.autograd.grad(value.sum(), at)
    top = math.exp(60)
    assert value.tolist() == pytest.approx([0, 1, math.exp(59), 2 * top, 4941 * top])
    assert slope.tolist() == pytest.approx([0, 1, math.exp(59), top, top])


@pytest.mark.parametrize("beta", [0.02, 0.1, 1.0, 30.0])
def test_chi_pos_weights_come_to_their_ends_at_the_clip(beta):
    loss = pair_loss("chi-po", beta=beta)
    log_u = torch.linspace(-12, 12, 1201, dtype=torch.float64)
    win, lose = torch.meshgrid(log_u, log_u, indexing="ij")
    reference = torch.full_like(win, -20.0)
    win_slope, lose_slope = slopes(loss.margin, PairLogps(win + reference, lose + reference, reference, reference))
    weight = (win_slope / (win_slope - lose_slope))[win_slope > 0]
    least, most = loss.weight_range
    assert least - 1e-12 <= weight.min() < least + 0.02
    assert most - 0.02 < weight.max() <= most + 1e-12


# --- through TRL's own code ---


@pytest.mark.slow
def test_cpo_simpo_and_orpo_are_those_of_the_installed_trl():
    pytest.importorskip("trl")
    with warnings.catch_warnings(action="ignore"):  # that it is experimental
        from trl.experimental.cpo import CPOTrainer
        from trl.experimental.orpo import ORPOTrainer

    pairs = random_pairs(100)
    means = pairs.win / pairs.win_len, pairs.lose / pairs.lose_len
    plain = {"beta": 0.1, "label_smoothing": 0.0, "simpo_gamma": 0.5, "accelerator": SimpleNamespace(device="cpu")}
    for name, sides, nll, settings in (
        ("trl-simpo", means, -means[0], {"loss_type": "simpo", "alpha": 0.0}),
        ("trl-cpo", (pairs.win, pairs.lose), -means[0], {"loss_type": "sigmoid", "alpha": 0.0}),
        ("alphapo", means, 0.0, {"loss_type": "simpo", "alpha": 0.25}),
    ):
        theirs = CPOTrainer.cpo_loss(SimpleNamespace(**plain, **settings), *sides)[0] + nll
        ours = pair_loss("alphapo", beta=0.1, gamma=0.5) if name == "alphapo" else PAIR_LOSSES[name]()
        torch.testing.assert_close(ours(pairs), theirs, rtol=1e-9, atol=1e-12)
    trainer = SimpleNamespace(beta=0.1, accelerator=plain["accelerator"])
    theirs = -means[0] - ORPOTrainer.odds_ratio_loss(trainer, *means)[0]
    torch.testing.assert_close(pair_loss("orpo")(pairs), theirs, rtol=1e-5, atol=1e-6)  # TRL computes it in float32

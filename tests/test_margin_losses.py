"""The losses of four families, against closed forms from their papers at 40 digits; and what their notes say."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from mpmath import atan, exp, log, mp, mpf, pi

from gradlab.losses import PAIR_LOSSES, PairLogps, log_prob_ratio, pair_loss, slopes
from gradlab.losses.registry import family_of

MINE = ("margin", "pointwise", "averaged", "anchored")  # the families whose losses stand in CLOSED


@pytest.fixture(autouse=True)
def digits():
    with mp.workdps(40):
        yield


def s(x):
    """The logistic function."""
    return 1 / (1 + exp(-x))


def softplus(x):
    """log(1 + e^x), which is −log σ(−x)."""
    return log(1 + exp(x)) if x < 0 else x + log(1 + exp(-x))


class Pair(NamedTuple):
    win: Any  # h_w
    lose: Any
    win_len: int
    lose_len: int


class Closed(NamedTuple):
    """A loss at its number set p, by hand: value, both slopes in log π, start, and where a side is pushed wrongly."""

    hyper: dict[str, float]
    value: Callable[[Any, Pair], Any]
    slopes: Callable[[Any, Pair], tuple[Any, Any]]
    start: Callable[[Any], Any] | None  # None: it differs from pair to pair
    wrong: Callable[[Any, Pair], tuple[bool, bool]] = lambda p, x: (False, False)  # winner down, loser up
    least: Callable[[Any], tuple[Any, Any]] | None = None  # h_w and h_l where the loss is least, if that is finite
    least_value: Callable[[Any], Any] | None = None
    ends: tuple[float, float] = (0.0, math.inf)  # infimum and supremum
    ratio: Callable[[Any, Pair], Any] = lambda p, x: 1  # ρ


def of_margin(hyper, value, slope, start, *, wrong=lambda p, m: False, least=None, least_value=0, ends=(0.0, math.inf)):
    """A loss of m = β(h_w − h_l): its value and its slope in m."""

    def margin(p, x):
        return p.beta * (x.win - x.lose)

    def sides(p, x):
        pull = p.beta * slope(p, margin(p, x))
        return pull, -pull

    return Closed(
        hyper,
        lambda p, x: value(p, margin(p, x)),
        sides,
        start,
        lambda p, x: (wrong(p, margin(p, x)),) * 2,
        least and (lambda p: (least(p) / p.beta, mpf(0))),
        lambda p: mpf(least_value),
        ends,
    )


class Numbers:
    """Hyper-parameters as numbers of 40 digits: the doubles that they are."""

    def __init__(self, hyper):
        for name, value in hyper.items():
            setattr(self, name, mpf(value))


def kept_rate(p):
    return (1 - p.label_smoothing) / p.label_smoothing


def discopop_slope(p, m):
    share = s(m / p.temperature)
    other = s(-m / p.temperature)
    return share * other / p.temperature * (exp(-m) - softplus(-m)) - other * s(-m) - share * exp(-m)


def straight_exp(p, m):
    return exp(-m) if m > -40 else exp(mpf(40)) * (1 - 40 - m)


def averaged(x):
    return x.win / x.win_len - x.lose / x.lose_len


def by_length(p, x, pull):
    return pull / x.win_len, -pull / x.lose_len


def odds(x):
    """σ′."""
    return s(x) * s(-x)


def length_margin(p, x):
    return p.beta * (x.win - x.lose) + p.length_penalty * (x.win_len - x.lose_len)


def cal_slopes(p, x):
    target, pull = 1 / (2 * p.beta), s(x.lose - x.win)
    return 2 * p.anchor_weight * (x.win - target) - pull, 2 * p.anchor_weight * (x.lose + target) + pull


def cal_least(p):
    """Both sides lie z beyond their targets, where the logistic term pulls as much as the squares hold."""
    low, high = mpf(0), 1 / (2 * p.anchor_weight)
    for _ in range(120):
        z = (low + high) / 2
        low, high = (z, high) if 2 * p.anchor_weight * z < s(-1 / p.beta - 2 * z) else (low, z)
    return 1 / (2 * p.beta) + z, -1 / (2 * p.beta) - z


def c2_slopes(p, x):
    pull, both = p.beta * s(p.beta * (x.lose - x.win)), 2 * p.anchor_weight * (x.win + x.lose)
    return both - pull, both + pull


CLOSED = {
    "dpo": of_margin({"beta": 0.3}, lambda p, m: softplus(-m), lambda p, m: -s(-m), lambda p: log(2)),
    "cdpo": of_margin(
        {"beta": 0.7, "label_smoothing": 0.2},
        lambda p, m: softplus(-m) + p.label_smoothing * m,
        lambda p, m: p.label_smoothing - s(-m),
        lambda p: log(2),
        wrong=lambda p, m: exp(m) > kept_rate(p),
        least=lambda p: log(kept_rate(p)),
        least_value=-(0.8 * math.log(0.8) + 0.2 * math.log(0.2)),
        ends=(-(0.8 * math.log(0.8) + 0.2 * math.log(0.2)), math.inf),
    ),
    "robust": of_margin(
        {"beta": 0.4, "label_smoothing": 0.3},
        lambda p, m: ((1 - p.label_smoothing) * softplus(-m) - p.label_smoothing * softplus(m))
        / (1 - 2 * p.label_smoothing),
        lambda p, m: -((1 - p.label_smoothing) * s(-m) + p.label_smoothing * s(m)) / (1 - 2 * p.label_smoothing),
        lambda p: log(2),
        ends=(-math.inf, math.inf),
    ),
    "exo": of_margin(
        {"beta": 0.5, "label_smoothing": 0.01},
        lambda p, m: (m - softplus(m)) * s(m) - softplus(m) * s(-m)
        - s(m) * log(1 - p.label_smoothing) - s(-m) * log(p.label_smoothing),
        lambda p, m: odds(m) * (m - log(kept_rate(p))),
        lambda p: -log(4 * p.label_smoothing * (1 - p.label_smoothing)) / 2,
        wrong=lambda p, m: m > log(kept_rate(p)),
        least=lambda p: log(kept_rate(p)),
        ends=(0.0, -math.log(0.01)),
    ),
    "ipo": of_margin(
        {"beta": 0.2},
        lambda p, m: ((m - mpf(1) / 2) / p.beta) ** 2,
        lambda p, m: 2 * (m - mpf(1) / 2) / p.beta**2,
        lambda p: 1 / (2 * p.beta) ** 2,
        wrong=lambda p, m: m > mpf(1) / 2,
        least=lambda p: mpf(1) / 2,
    ),
    "odpo": of_margin(
        {"beta": 0.3, "gamma": 1.7},
        lambda p, m: log(1 + exp(p.gamma - m)),
        lambda p, m: -1 / (1 + exp(m - p.gamma)),
        lambda p: log(1 + exp(p.gamma)),
    ),
    "r-dpo": Closed(
        {"beta": 0.3, "length_penalty": 0.03},
        lambda p, x: softplus(-length_margin(p, x)),
        lambda p, x: (-p.beta * s(-length_margin(p, x)), p.beta * s(-length_margin(p, x))),
        None,
    ),
    "hinge": of_margin(
        {"beta": 0.3}, lambda p, m: max(1 - m, 0), lambda p, m: -1 if m < 1 else 0, lambda p: 1, least=lambda p: 1
    ),
    "squared-hinge": of_margin(
        {"beta": 0.3},
        lambda p, m: (1 - m) ** 2 if m < 1 else 0,
        lambda p, m: 2 * (m - 1) if m < 1 else 0,
        lambda p: 1,
        least=lambda p: 1,
    ),
    "exp-dpo": of_margin(
        {"beta": 0.3}, straight_exp, lambda p, m: -exp(min(-m, mpf(40))), lambda p: 1,
    ),
    "savage": of_margin(
        {"beta": 0.3},
        lambda p, m: 1 / (1 + exp(m)) ** 2,
        lambda p, m: -2 * exp(m) / (1 + exp(m)) ** 3,
        lambda p: mpf(1) / 4,
        ends=(0.0, 1.0),
    ),
    "cauchy": of_margin(
        {"beta": 0.3},
        lambda p, m: -log(mpf(1) / 2 + atan(m) / pi),
        lambda p, m: -1 / (1 + m**2) / (pi / 2 + atan(m)),
        lambda p: log(2),
    ),
    "focal-po": of_margin(
        {"beta": 0.3, "focus": 0.4},
        lambda p, m: s(m) ** p.focus * softplus(-m),
        lambda p, m: -(s(m) ** p.focus) * s(-m),  # the first factor is held fixed
        lambda p: log(2) / 2**p.focus,
        ends=(0.0, 1 / (0.4 * math.e)),  # where log σ(m) = −1/γ
    ),
    "spo": of_margin(
        {"beta": 0.3},
        lambda p, m: -m / (1 + exp(-m)),
        lambda p, m: -s(m) - m * odds(m),
        lambda p: 0,
        wrong=lambda p, m: m < -mpf("1.27846454276107379510935873902"),  # where 1 + m σ(−m) = 0
        ends=(-math.inf, 0.27846454276107379),
    ),
    "discopop": of_margin(
        {"beta": 0.05, "temperature": 0.05},
        lambda p, m: s(-m / p.temperature) * softplus(-m) + s(m / p.temperature) * exp(-m),
        discopop_slope,
        lambda p: (log(2) + 1) / 2,
        wrong=lambda p, m: mpf("-0.118569892688264") < m < mpf("0.0720061137984159"),
    ),
    "nca": Closed(
        {"beta": 0.02},
        lambda p, x: softplus(-p.beta * x.win) + softplus(p.beta * x.win) / 2 + softplus(p.beta * x.lose) / 2,
        lambda p, x: (p.beta * (3 * s(p.beta * x.win) / 2 - 1), p.beta * s(p.beta * x.lose) / 2),
        lambda p: 2 * log(2),
        lambda p, x: (p.beta * x.win > log(2), False),
        ends=(math.log(3) - math.log(2) + math.log(3) / 2, math.inf),
        ratio=lambda p, x: abs(3 * s(p.beta * x.win) - 2) / s(p.beta * x.lose),
    ),
    "bco": Closed(
        {"beta": 0.02},
        lambda p, x: softplus(-p.beta * x.win) + softplus(p.beta * x.lose),
        lambda p, x: (-p.beta * s(-p.beta * x.win), p.beta * s(p.beta * x.lose)),
        lambda p: log(4),
        ratio=lambda p, x: (1 + exp(-p.beta * x.lose)) / (1 + exp(p.beta * x.win)),
    ),
    "apo-zero": Closed(
        {"beta": 0.1},
        lambda p, x: 1 - s(p.beta * x.win) + s(p.beta * x.lose),
        lambda p, x: (-p.beta * odds(p.beta * x.win), p.beta * odds(p.beta * x.lose)),
        lambda p: 1,
        ends=(0.0, 2.0),
        ratio=lambda p, x: ((exp(p.beta * x.lose / 2) + exp(-p.beta * x.lose / 2))
                            / (exp(p.beta * x.win / 2) + exp(-p.beta * x.win / 2))) ** 2,
    ),
    "apo-down": Closed(
        {"beta": 0.1},
        lambda p, x: s(p.beta * x.win) + 1 - s(p.beta * (x.win - x.lose)),
        lambda p, x: (p.beta * (odds(p.beta * x.win) - odds(p.beta * (x.win - x.lose))),
                      p.beta * odds(p.beta * (x.win - x.lose))),
        lambda p: 1,
        lambda p, x: (abs(x.win - x.lose) > abs(x.win), False),
        ends=(0.0, 2.0),
        ratio=lambda p, x: abs(odds(p.beta * x.win) / odds(p.beta * (x.win - x.lose)) - 1),
    ),
    "sppo": Closed(
        {"beta": 0.05},
        lambda p, x: (x.win - 1 / (2 * p.beta)) ** 2 + (x.lose + 1 / (2 * p.beta)) ** 2,
        lambda p, x: (2 * x.win - 1 / p.beta, 2 * x.lose + 1 / p.beta),
        lambda p: 1 / p.beta**2 / 2,
        lambda p, x: (x.win > 1 / (2 * p.beta), x.lose < -1 / (2 * p.beta)),
        least=lambda p: (1 / (2 * p.beta), -1 / (2 * p.beta)),
        least_value=lambda p: mpf(0),
        ratio=lambda p, x: abs((x.win - 1 / (2 * p.beta)) / (x.lose + 1 / (2 * p.beta))),
    ),
    "sigmoid-norm": Closed(
        {"beta": 5.0},
        lambda p, x: softplus(-p.beta * averaged(x)),
        lambda p, x: by_length(p, x, -p.beta * s(-p.beta * averaged(x))),
        lambda p: log(2),
        ratio=lambda p, x: mpf(x.lose_len) / x.win_len,
    ),
    "trl-ipo": Closed(
        {"beta": 0.1},
        lambda p, x: (averaged(x) - 1 / (2 * p.beta)) ** 2,
        lambda p, x: by_length(p, x, 2 * averaged(x) - 1 / p.beta),
        lambda p: 1 / (4 * p.beta**2),
        lambda p, x: (averaged(x) > 1 / (2 * p.beta),) * 2,
        ratio=lambda p, x: mpf(x.lose_len) / x.win_len,
    ),
    "cal-dpo": Closed(
        {"beta": 0.2, "anchor_weight": 0.3},
        lambda p, x: softplus(x.lose - x.win)
        + p.anchor_weight * ((x.win - 1 / (2 * p.beta)) ** 2 + (x.lose + 1 / (2 * p.beta)) ** 2),
        cal_slopes,
        lambda p: log(2) + p.anchor_weight / p.beta**2 / 2,
        lambda p, x: (cal_slopes(p, x)[0] > 0, cal_slopes(p, x)[1] < 0),
        least=cal_least,
        ratio=lambda p, x: abs(cal_slopes(p, x)[0] / cal_slopes(p, x)[1]),
    ),
    "c2-dpo": Closed(
        {"beta": 0.3, "anchor_weight": 0.01},
        lambda p, x: softplus(p.beta * (x.lose - x.win)) + p.anchor_weight * (x.win + x.lose) ** 2,
        c2_slopes,
        lambda p: log(2),
        lambda p, x: (c2_slopes(p, x)[0] > 0, c2_slopes(p, x)[1] < 0),
        ratio=lambda p, x: abs(c2_slopes(p, x)[0] / c2_slopes(p, x)[1]),
    ),
}  # fmt: skip
every_closed_form = pytest.mark.parametrize("name", CLOSED)


def test_every_loss_of_these_families_has_a_closed_form():
    assert {name for name, make in PAIR_LOSSES.items() if family_of(make()) in MINE} == set(CLOSED)


def random_pairs(count=40, seed=0, spread=30.0):
    generator = torch.Generator().manual_seed(seed)
    sides = [-spread * torch.rand(count, generator=generator, dtype=torch.float64) - 1e-3 for _ in range(4)]
    return PairLogps(*sides, *(torch.randint(1, 60, (count,), generator=generator) for _ in range(2)))


def edge_pairs(dtype):
    """Both log-probabilities near 0, at 0 and at −1000, with references alike: |h| from 0 to 1000."""
    sides = torch.tensor([*product([-1000.0, -37.5, -1e-6, -0.0], [-1000.0, -2.5, -0.0], repeat=2)], dtype=dtype).T
    lengths = torch.tensor([[3], [700]]).expand(2, sides.shape[1])
    return PairLogps(*sides, *lengths)


def exact(pairs):
    """The pairs as numbers of 40 digits."""
    columns = [column.expand(pairs.win.shape).tolist() for column in vars(pairs).values()]
    return [
        Pair(mpf(win) - mpf(ref_win), mpf(lose) - mpf(ref_lose), int(win_len), int(lose_len))
        for win, lose, ref_win, ref_lose, win_len, lose_len in zip(*columns, strict=True)
    ]


def parts(name, pairs):
    """Value and both slopes of the loss, and those of its closed form, three lists each."""
    closed = CLOSED[name]
    loss, p = pair_loss(name, **closed.hyper), Numbers(closed.hyper)
    found = [part.double().tolist() for part in (loss(pairs), *slopes(loss, pairs))]
    wanted = [[float(part) for part in (closed.value(p, x), *closed.slopes(p, x))] for x in exact(pairs)]
    return found, list(zip(*wanted, strict=True))


@every_closed_form
def test_value_and_slopes_are_those_of_the_paper(name):
    # Margins and their multiples reach some hundreds; each rounding of such a number is an error of an exponent.
    for found, wanted in zip(*parts(name, random_pairs()), strict=True):
        assert found == pytest.approx(wanted, rel=1e-11, abs=1e-13)


@every_closed_form
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_value_and_slopes_hold_at_the_edges(name, dtype):
    pairs = edge_pairs(dtype)
    rounded = torch.finfo(dtype).eps
    p = CLOSED[name].hyper
    # A log-ratio is rounded, times β/τ, then stands in an exponent: relative errors of as many roundings as its size.
    size = 2000 * max(1.0, p.get("beta", 1.0)) / min(1.0, p.get("temperature", 1.0))
    # Squares of numbers up to 1000 + 1/(2β) cancel near their targets.
    floor = 8 * rounded * (1.0 if name not in ("ipo", "sppo", "trl-ipo", "cal-dpo", "c2-dpo") else 4e6)
    for found, wanted in zip(*parts(name, pairs), strict=True):
        assert all(map(math.isfinite, found))
        assert found == pytest.approx(wanted, rel=4 * rounded * size, abs=floor)


@every_closed_form
def test_the_start_is_that_of_the_paper(name):
    closed = CLOSED[name]
    loss = pair_loss(name, **closed.hyper)
    if closed.start is None:
        assert loss.start_value is None
    else:
        assert loss.start_value == pytest.approx(float(closed.start(Numbers(closed.hyper))), rel=1e-14)
    assert loss.start_equation


@every_closed_form
def test_the_ratio_of_both_slopes_is_rho(name):
    closed, pairs = CLOSED[name], random_pairs(seed=1, spread=12.0)
    loss, p = pair_loss(name, **closed.hyper), Numbers(closed.hyper)
    found = log_prob_ratio(loss, pairs) - pairs.lose + pairs.win  # log ρ
    wanted = [float(log(closed.ratio(p, x))) if any(closed.slopes(p, x)) else math.nan for x in exact(pairs)]
    assert found.tolist() == pytest.approx(wanted, abs=1e-10, nan_ok=True)
    assert loss.rho == "1" or "1" not in {f"{float(closed.ratio(p, x)):.6g}" for x in exact(pairs)}


@every_closed_form
def test_sides_are_pushed_against_their_labels_exactly_where_the_closed_form_says(name):
    closed = CLOSED[name]
    loss, p = pair_loss(name, **closed.hyper), Numbers(closed.hyper)
    near, far = random_pairs(30, seed=2, spread=2.0 / closed.hyper["beta"]), random_pairs(30, seed=3, spread=900.0)
    seen = set()
    for pairs in (near, far):
        wanted = [closed.wrong(p, x) for x in exact(pairs)]
        for side, sign, wrong in zip(slopes(loss, pairs), (1, -1), zip(*wanted, strict=True), strict=True):
            # Where σ(z) is 1 to within a rounding, its slope σ(z)(1 − σ(z)) is 0 in doubles.
            assert all(slope * sign > 0 or abs(slope) < 1e-15 for slope, up in zip(side, wrong, strict=True) if up)
            assert all(slope * sign <= 0 or abs(slope) < 1e-15 for slope, up in zip(side, wrong, strict=True) if not up)
        seen |= set(wanted)
    assert loss.winner_down is any(down for down, _ in seen)
    assert loss.loser_up is any(up for _, up in seen)


@every_closed_form
def test_the_loss_is_least_where_it_says(name):
    closed = CLOSED[name]
    loss, p = pair_loss(name, **closed.hyper), Numbers(closed.hyper)
    if closed.least is None:
        assert not loss.optimum or name in ("nca", "trl-ipo")
        return
    assert loss.optimum
    win, lose = (torch.tensor(float(side), dtype=torch.float64) for side in closed.least(p))
    one = torch.tensor(-700.0, dtype=torch.float64)
    there = PairLogps(one, one, one - win, one - lose, torch.tensor(3), torch.tensor(7))
    assert [side.item() for side in slopes(loss, there)] == pytest.approx([0, 0], abs=1e-11)
    around = [replace(there, win=one + a, lose=one + b) for a, b in product((-0.1, 0.0, 0.1), repeat=2)]
    assert min(loss(pairs).item() for pairs in around) >= loss(there).item() - 1e-12
    if closed.least_value is not None:
        assert loss(there).item() == pytest.approx(float(closed.least_value(p)), abs=1e-12)


def test_the_winner_of_nca_rests_at_ln_2_and_averages_of_trl_ipo_at_their_target():
    one = torch.tensor(-700.0, dtype=torch.float64)
    win, _ = slopes(pair_loss("nca", beta=0.02), PairLogps(one, one, one - math.log(2) / 0.02, one - 5))
    assert win.item() == pytest.approx(0, abs=1e-15)
    lengths = torch.tensor(4), torch.tensor(10)
    there = PairLogps(one, one, one - 4 * 3.0, one + 10 * 2.0, *lengths)  # averages of 3 and −2: 5 apart
    assert pair_loss("trl-ipo", beta=0.1)(there).item() == pytest.approx(0, abs=1e-20)


@every_closed_form
def test_values_lie_between_the_bounds_of_the_closed_form(name):
    closed = CLOSED[name]
    loss = pair_loss(name, **closed.hyper)
    assert (loss.bounded_below, loss.bounded_above) == (closed.ends[0] > -math.inf, closed.ends[1] < math.inf)
    values = loss(random_pairs(2000, seed=4, spread=2000.0))
    values = torch.cat([values, loss(random_pairs(2000, seed=5, spread=20.0))])
    assert closed.ends[0] - 1e-12 <= values.min()
    assert values.max() <= closed.ends[1] + 1e-12


@pytest.mark.parametrize("name", [name for name, closed in CLOSED.items() if "label_smoothing" in closed.hyper])
@pytest.mark.parametrize("value", [-0.1, 0.5, math.nan, math.inf, True, "0.1", None])
def test_a_bad_label_smoothing_is_refused(name, value):
    low = r"\(" if name == "exo" else r"\["
    with pytest.raises(ValueError, match=rf"^label_smoothing must be finite and lie in {low}0, 0\.5\), got "):
        pair_loss(name, label_smoothing=value)


@every_closed_form
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, True, "1", None])
def test_a_bad_beta_is_refused(name, value):
    with pytest.raises(ValueError, match=r"^beta must be finite and > 0, got "):
        pair_loss(name, beta=value)


OTHERS = {
    ("odpo", "gamma"): -0.1, ("focal-po", "focus"): -0.1, ("discopop", "temperature"): 0.0,
    ("cal-dpo", "anchor_weight"): -1.0, ("c2-dpo", "anchor_weight"): -1.0, ("r-dpo", "length_penalty"): "long",
}  # fmt: skip


@pytest.mark.parametrize(("name", "key"), OTHERS)
def test_other_bad_numbers_are_refused(name, key):
    for value in (OTHERS[name, key], math.nan, math.inf, True, None):
        with pytest.raises(ValueError, match=rf"^{key} must be finite and lie in "):
            pair_loss(name, **{key: value})


def test_exo_needs_some_smoothing_and_discopop_a_temperature_of_at_most_one():
    with pytest.raises(ValueError, match=r"^label_smoothing must be finite and lie in \(0, 0\.5\), got 0"):
        pair_loss("exo", label_smoothing=0.0)
    with pytest.raises(ValueError, match=r"^temperature must be finite and lie in \(0, 1\], got 1\.5"):
        pair_loss("discopop", temperature=1.5)


@pytest.mark.parametrize("name", ["r-dpo", "sigmoid-norm", "trl-ipo"])
def test_a_loss_that_needs_lengths_says_so(name):
    loss = pair_loss(name)
    assert loss.needs_lengths
    with pytest.raises(ValueError, match=rf"^win_len must be given, since {name} needs the lengths"):
        loss(replace(random_pairs(3), win_len=None))


@pytest.mark.parametrize("length", [1, 7, 400])
@pytest.mark.parametrize("name", ["sigmoid-norm", "trl-ipo"])
def test_at_equal_lengths_an_averaged_loss_is_a_multiple_of_a_summed_one(name, length):
    pairs = random_pairs(50)
    pairs = replace(pairs, win_len=torch.tensor(length), lose_len=torch.tensor(length))
    loss = pair_loss(name, beta=0.3)
    summed, factor = loss.summed(length)
    torch.testing.assert_close(loss(pairs), factor * summed(pairs), rtol=1e-12, atol=1e-12)
    for side, of_summed in zip(slopes(loss, pairs), slopes(summed, pairs), strict=True):
        torch.testing.assert_close(side, factor * of_summed, rtol=1e-12, atol=1e-15)
    with pytest.raises(ValueError, match=r"^length must be finite and > 0"):
        loss.summed(0)


def test_a_response_without_tokens_counts_as_one_token():
    pairs = replace(random_pairs(4), win_len=torch.tensor(0), lose_len=torch.tensor(1))
    assert torch.equal(pair_loss("trl-ipo")(pairs), pair_loss("trl-ipo")(replace(pairs, win_len=torch.tensor(1))))


# --- what the notes say ---


def shipped_discopop(margin, temperature=0.05):
    """The loss as TRL, Liger and oxRL compute it."""
    share = torch.sigmoid(margin / temperature)
    return -F.logsigmoid(margin) * (1 - share) + torch.exp(-margin) * share


def at_margin(margin, beta):
    """Pairs with h_w = margin/β and h_l = 0, of 3 and 7 tokens."""
    none = torch.full_like(margin, -1.0)
    return PairLogps(none, none, none - margin / beta, none, torch.tensor(3), torch.tensor(7))


def test_discopops_source_is_nan_for_very_wrong_pairs_in_single_precision_and_ours_is_not():
    margin = torch.tensor([-1000.0, -90.0, -80.0])
    assert shipped_discopop(margin).isnan().tolist() == [True, True, False]
    value = pair_loss("discopop", beta=1.0)(at_margin(margin, 1.0))
    torch.testing.assert_close(value, -margin)
    torch.testing.assert_close(value[2:], shipped_discopop(margin)[2:])


def test_discopop_descends_away_from_the_labels_at_the_reference_as_published_but_not_at_half():
    reference = at_margin(torch.zeros(1, dtype=torch.float64), 1.0)
    win, lose = slopes(pair_loss("discopop", beta=1.0), reference)
    assert win.item() == pytest.approx(5 * (1 - math.log(2)) - 0.75, abs=1e-14)  # w′(e^−m + log σ)/τ − ¼ − ½ at m = 0
    assert lose.item() == -win.item()
    assert slopes(pair_loss("discopop", beta=1.0, temperature=0.5), reference)[0] < 0


@pytest.mark.parametrize(("temperature", "turns"), [(0.1097, True), (0.1098, False)])
def test_discopops_turning_temperature(temperature, turns):
    p = Numbers({"temperature": temperature})
    loss = pair_loss("discopop", temperature=temperature)
    assert any(discopop_slope(p, mpf(m) / 10000) > 0 for m in range(-620, -600)) is turns
    assert (loss.winner_down, loss.loser_up) == (turns, turns)


def test_robust_falls_without_end_but_not_without_smoothing():
    pairs = at_margin(torch.tensor([20.0, 1e6], dtype=torch.float64), 1.0)
    assert pair_loss("robust", beta=1.0)(pairs).tolist() == pytest.approx([-2.5, -1.25e5], rel=1e-8)
    assert pair_loss("robust", label_smoothing=0.0).bounded_below
    assert torch.equal(pair_loss("robust", beta=1.0, label_smoothing=0.0)(pairs), pair_loss("dpo", beta=1.0)(pairs))


def test_robusts_expectation_over_noisy_labels_is_dpo():
    pairs, loss = random_pairs(), pair_loss("robust", beta=0.3, label_smoothing=0.2)
    torch.testing.assert_close(0.8 * loss(pairs) + 0.2 * loss(pairs.swapped()), pair_loss("dpo", beta=0.3)(pairs))


def test_exo_turns_where_cdpo_does():
    margin = torch.tensor([math.log(9)], dtype=torch.float64)
    for name in ("exo", "cdpo"):
        loss = pair_loss(name, beta=1.0, label_smoothing=0.1)
        assert [slopes(loss, at_margin(margin + by, 1.0))[0].sign().item() for by in (-0.01, 0.01)] == [-1, 1]


def test_apo_down_begins_by_moving_losers_only():
    reference = at_margin(torch.zeros(3, dtype=torch.float64), 0.1)
    win, lose = slopes(pair_loss("apo-down"), reference)
    assert win.tolist() == [0.0] * 3
    assert (lose > 0).all()


def test_a_longer_winner_is_pushed_up_less_by_r_dpo_and_more_as_oxrl_ships_it():
    pairs = replace(at_margin(torch.zeros(1), 0.1), win_len=torch.tensor(90), lose_len=torch.tensor(30))
    plain, paper, oxrl = (slopes(pair_loss("r-dpo", length_penalty=by), pairs)[0].abs() for by in (0.0, 0.01, -0.01))
    assert paper < plain < oxrl
    _, shipped = pair_loss("r-dpo").shipped
    assert shipped.hyper["length_penalty"] == -0.01


def test_the_abstracts_spo_has_its_minimum_at_a_finite_margin():
    margin = torch.tensor([1.27846454276107], dtype=torch.float64, requires_grad=True)
    value = -margin * torch.sigmoid(-margin)
    (slope,) = torch.autograd.grad(value.sum(), margin)
    assert slope.item() == pytest.approx(0, abs=1e-12)
    assert value.item() == pytest.approx(-0.27846454276107, abs=1e-12)


def test_the_exponential_loss_goes_straight_on_before_it_overflows():
    loss = pair_loss("exp-dpo", beta=1.0)
    margin = torch.tensor([-39.0, -40.0, -41.0, -1e6])
    value, (slope, _) = loss(at_margin(margin, 1.0)), slopes(loss, at_margin(margin, 1.0))
    assert value.isfinite().all()
    torch.testing.assert_close(value[:3], torch.tensor([math.exp(39), math.exp(40), 2 * math.exp(40)]))
    torch.testing.assert_close(-slope, torch.tensor([math.exp(39), *[math.exp(40)] * 3]))


@pytest.mark.parametrize("name", ["cal-dpo", "c2-dpo"])
def test_without_its_anchor_an_anchored_loss_is_dpo(name):
    loss, pairs = pair_loss(name, anchor_weight=0.0), random_pairs()
    beta = 1.0 if name == "cal-dpo" else loss.beta
    torch.testing.assert_close(loss(pairs), pair_loss("dpo", beta=beta)(pairs))
    assert (loss.logistic, loss.constant_weight, loss.weight_range) == (True, True, (0.5, 0.5))
    assert (loss.winner_down, loss.loser_up) == (False, False)


@pytest.mark.parametrize(("name", "key"), [("focal-po", "focus"), ("odpo", "gamma"), ("r-dpo", "length_penalty")])
def test_some_losses_without_their_number_are_dpo(name, key):
    loss, pairs = pair_loss(name, beta=0.3, **{key: 0.0}), random_pairs()
    torch.testing.assert_close(loss(pairs), pair_loss("dpo", beta=0.3)(pairs))
    assert loss.logistic
    assert loss.start_value == pytest.approx(math.log(2))


# --- who ships them ---


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_published_and_shipped_numbers_are_numbers_of_the_loss(name):
    loss = pair_loss(name)
    for hyper in (loss.published, *(by.hyper for by in loss.shipped)):
        assert pair_loss(name, **hyper).name == name
    for by in loss.shipped:
        assert any(part[:1].isdigit() or len(part) == 7 for part in by.library.split())  # a version or a commit
        assert by.key


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_remarks_and_notes_are_whole_sentences(name):
    loss = pair_loss(name)
    for text in (*loss.notes, *(by.remark for by in loss.shipped if by.remark)):
        assert text == " ".join(text.split())
        assert text.endswith(".")

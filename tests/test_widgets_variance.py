"""The explorer of variance: its sides meet plain sums, its map the experiment's frame, its stories their numbers."""

import contextlib
import io
import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradlab.experiments.questions import variance
from gradlab.theory import covariance_gap, dpo_weight, variance_ratio
from gradlab.theory.families import gaussian_pair
from gradlab.widgets import VarianceExplorer
from gradlab.widgets.variance_explorer import DRAWS, FAMILIES

DATA = Path(__file__).parents[1] / "figures" / "data" / "variance.parquet"


@pytest.fixture(scope="module")
def shared():
    """One explorer for the module; tests bring it to the state that they need."""
    made = VarianceExplorer(n=40)
    yield made
    made.close()


@pytest.fixture
def explorer(shared):
    shared.reset()
    return shared


@pytest.mark.parametrize("family", list(FAMILIES))
def test_numbers_are_those_of_plain_sums(explorer, family):
    explorer.set(family=family, n=20, seed=3)
    p, q = list(explorer.result.p), list(explorer.result.q)
    w = [math.fsum(q[i] / (q[i] + q[j]) - p[i] / (p[i] + p[j]) for j in range(20)) for i in range(20)]

    def mean(values):
        return math.fsum(values) / 20

    assert mean(w) == pytest.approx(0, abs=1e-12)
    square_w, square_p = mean(a * a for a in w), mean(b * b for b in p)
    both, product = mean(a * a * b * b for a, b in zip(w, p, strict=True)), mean(map(math.prod, zip(w, p, strict=True)))
    shown = explorer.numbers
    assert shown["Var[w p]"] == pytest.approx(both - product**2, rel=1e-9)
    assert shown["Var[w] E[p²]"] == pytest.approx(square_w * square_p, rel=1e-9)
    assert shown["Cov(w², p²)"] == pytest.approx(both - square_w * square_p, rel=1e-8)
    assert shown["E[w p]²"] == pytest.approx(product**2, rel=1e-8, abs=1e-18)
    assert shown["ratio"] == pytest.approx(shown["Var[w p]"] / shown["Var[w] E[p²]"], rel=1e-12)
    noise = (both - product**2) / mean(abs(a) * b for a, b in zip(w, p, strict=True)) ** 2
    assert shown["noise of w·p / of w"] == pytest.approx(noise / (square_w / mean(map(abs, w)) ** 2), rel=1e-9)


def test_condition_decides_as_the_theorem_does(explorer):
    explorer.set(n=20)
    for sigma_q, distance, sigma_p in itertools.product((0.75, 8.0), (0.0, 4.0, 12.0), (0.375, 2.0, 11.0)):
        explorer.set(distance=distance, sigma_p=sigma_p, sigma_q=sigma_q)
        assert (explorer.numbers["theorems"] == "hold") == (explorer.numbers["condition"] == "true")


def test_map_and_draws_are_the_experiments(explorer):
    saved = pd.read_parquet(DATA)
    explorer.set(n=200)
    here = explorer.frame().query("not shown").round({"distance": 9, "sigma_p": 9})
    region = saved[saved["family"] == "region"].round({"distance": 9, "sigma_p": 9})
    both = here.merge(region, on=["distance", "sigma_p"])
    assert len(both) == 81  # 9 × 9 points lie on both grids
    np.testing.assert_allclose(both["log10_ratio"], both["log_ratio"] / np.log(10), atol=1e-9)

    explorer.set(family="Dirichlet", alpha_p=0.1, alpha_q=10.0)
    settings = {"responses": [200], "concentrations": [0.1, 10.0], "first_seed": 0, "draws": DRAWS}
    rows = variance.run_part("dirichlet", settings, permutations=1)
    rows = rows.query("alpha_p == 0.1 and alpha_q == 10").sort_values("seed")
    draws = explorer.frame().query("not shown")
    np.testing.assert_allclose(draws["log10_ratio"], rows["log_ratio"] / np.log(10), atol=1e-9)
    assert explorer._count.get_text() == f"hold for {(rows['log_ratio'] < 0).sum()} of {DRAWS} draws"


def test_map_is_kept_until_q_or_n_changes(explorer):
    first = explorer.result.around
    explorer.controls["distance"].value = 8.0
    explorer.controls["sigma_p"].value = 1.0
    assert explorer.result.around is first
    assert explorer.former.state.distance == 8.0
    assert explorer._ring.get_xdata() == [8.0]
    assert explorer._former.get_ydata() == [pytest.approx(np.log10(2.5))]
    explorer.controls["sigma_q"].value = 4.0
    assert explorer.result.around is not first
    assert not np.isnan(explorer.result.around.values).any()


def test_case_comes_at_once_and_its_map_finer_and_finer():
    explorer = VarianceExplorer(n=200)
    explorer._work = None
    state = type(explorer.result.state)(**{**explorer.state, "sigma_q": 4.0})
    strides = []
    for result in explorer.compute(state):
        assert result.ratio == pytest.approx(
            float(variance_ratio(dpo_weight(*gaussian_pair(200, 3.0, 2.5, 4.0)), result.p)), rel=1e-12
        )
        assert np.isfinite(result.around.known).all()
        strides.append(result.around.stride)
    assert strides == sorted(strides, reverse=True)
    assert set(strides) == {8, 4, 2, 1}
    explorer.close()


def test_border_parts_the_two_sides(explorer):
    points = np.transpose(explorer._border.get_data())
    points = points[np.isfinite(points).all(1)]
    assert len(points) > 25
    for across, up in points[::5]:
        log_p, log_q = gaussian_pair(40, across, 10**up, 3.0)
        ratio = np.log10(variance_ratio(dpo_weight(log_p, log_q), np.exp(log_p)))
        assert abs(ratio) < 0.02  # as near as straight pieces between the map's points come


def test_stories_say_what_is_true():
    explorer = VarianceExplorer()
    explorer.tell("Where it holds")
    assert explorer.numbers["theorems"] == "hold"
    assert explorer.numbers["ratio"] < 0.5
    assert explorer.numbers["noise of w·p / of w"] > 1
    result = explorer.result
    assert (result.w**2 * result.p).sum() < (result.w**2).mean()  # w² is small where p is large

    explorer.tell("A confident policy under a large shift")
    assert explorer.numbers["theorems"] == "do not hold"
    assert explorer.numbers["Cov(w², p²)"] > explorer.numbers["E[w p]²"] > 0
    result = explorer.result
    assert np.sort(result.p)[-10:].sum() > 0.94
    assert abs(result.y[np.abs(result.w).argmax()] + 5) < 1

    explorer.tell("A narrow policy, no shift")
    assert explorer.numbers["ratio"] > 4
    assert explorer.result.w.argmin() in np.argsort(explorer.result.p)[-2:]
    assert abs(explorer.result.y[explorer.result.w.argmin()]) < 0.2

    explorer.tell("Random policies")
    assert explorer._count.get_text() == "hold for 27 of 50 draws"
    explorer.set(n=200)
    assert explorer._count.get_text() == "hold for 10 of 50 draws"
    explorer.close()


def test_the_takeaway_and_the_notebook_say_what_the_report_shows():
    saved = pd.read_parquet(DATA)
    for _, rows in saved[~saved["family"].isin(["region", "indifferent"])].groupby("family"):
        assert (rows["log_noise"] > 0).mean() > 0.5  # mostly the noisier weight
    for n in (3, 4, 20):
        p = np.full(n, 0.1 / (n - 1))
        p[1] = 0.9
        assert variance_ratio(dpo_weight(np.log(p), np.log(np.full(n, 1 / n))), p) > 1


@pytest.mark.parametrize("state", [{"family": "one peak"}, *(story.state for story in VarianceExplorer.stories)])
def test_its_code_computes_the_same(explorer, state):
    explorer.set(**state)
    printed, names = io.StringIO(), {}
    with contextlib.redirect_stdout(printed):
        exec(explorer.as_python(), names)
    sides, ratio, gap = printed.getvalue().splitlines()
    numbers = explorer.numbers
    assert sides == f"Var[w p] {numbers['Var[w p]']} Var[w] E[p²] {numbers['Var[w] E[p²]']}"
    assert float(ratio.split()[1]) == numbers["ratio"]
    assert float(gap.split()[-1]) == pytest.approx(numbers["Cov(w², p²)"] - numbers["E[w p]²"], rel=1e-9)
    assert float(gap.split()[-1]) == covariance_gap(names["w"], names["p"])


def test_equal_policy_and_preference_are_one_clear_line(explorer):
    before = explorer.numbers
    explorer.set(distance=0.0, sigma_p=3.0)
    assert str(explorer.error) == ("p and q must differ for there to be a weight; they are equal at n=40, distance=0, "
                                   "sigma_p=3, sigma_q=3")  # fmt: skip
    explorer.reset()
    assert explorer.error is None
    assert explorer.numbers == before


def test_what_it_does_not_have_is_refused_in_one_line(explorer):
    with pytest.raises(ValueError, match="family must be one of gaussian, one peak, Dirichlet; got 'cauchy'"):
        explorer.set(family="cauchy")
    with pytest.raises(ValueError, match=r"n must be finite and lie in \[20, 200\], got 500"):
        VarianceExplorer(n=500)
    with pytest.raises(ValueError, match=r"rest must be finite and lie in \(0, 1\), got 1.5"):
        FAMILIES["one peak"](20, 1.0, 1.5, 3.0)
    for sigmas in ((0.0, 3.0), (3.0, -1.0)):
        with pytest.raises(ValueError, match=r"^sigma_[pq] must be finite and > 0, got"):
            gaussian_pair(20, 1.0, *sigmas)

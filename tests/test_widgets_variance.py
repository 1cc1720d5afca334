"""The explorer of variance: its sides meet plain sums, its map the experiment's frame, its stories their numbers."""

import contextlib
import io
import itertools
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from contourpy import contour_generator
from one_explorer import one_explorer

from gradlab.experiments.questions import variance
from gradlab.plotting.palette import NOT_TRUE, TRUE
from gradlab.theory import covariance_gap, dpo_weight, variance_ratio
from gradlab.theory.families import gaussian_pair
from gradlab.widgets import VarianceExplorer, variance_explorer
from gradlab.widgets.variance_explorer import DRAWS, FAMILIES, Around

DATA = Path(__file__).parents[1] / "figures" / "data" / "variance.parquet"


shared, explorer = one_explorer(VarianceExplorer, n=40)


def charts(explorer):
    return explorer.charts(explorer.result, explorer.pinned)


def around(explorer):
    """The chart of the cases around: the map, or the draws."""
    return charts(explorer)[1]


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
    assert shown["theorems left"] == pytest.approx(both - product**2, rel=1e-9)
    assert shown["theorems right"] == pytest.approx(square_w * square_p, rel=1e-9)
    assert shown["condition left"] == pytest.approx(both - square_w * square_p, rel=1e-8)
    assert shown["condition right"] == pytest.approx(product**2, rel=1e-8, abs=1e-18)
    assert shown["theorems left / right"] == pytest.approx(shown["theorems left"] / shown["theorems right"], rel=1e-12)
    noise = (both - product**2) / mean(abs(a) * b for a, b in zip(w, p, strict=True)) ** 2
    assert shown["noise left / right"] == pytest.approx(noise / (square_w / mean(map(abs, w)) ** 2), rel=1e-9)


def test_condition_decides_as_the_theorem_does(explorer):
    explorer.set(n=20)
    for sigma_q, distance, sigma_p in itertools.product((0.75, 8.0), (0.0, 4.0, 12.0), (0.375, 2.0, 11.0)):
        explorer.set(distance=distance, sigma_p=sigma_p, sigma_q=sigma_q)
        assert (explorer.numbers["theorems verdict"] == "hold") == (explorer.numbers["condition verdict"] == "true")


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
    assert around(explorer).title == f"Theorems 4–5 hold for {(rows['log_ratio'] < 0).sum()} of {DRAWS} draws"


def test_map_is_kept_until_q_or_n_changes(explorer):
    first = explorer.result.around
    explorer.controls["distance"].value = 8.0
    explorer.controls["sigma_p"].value = 1.0
    assert explorer.result.around is first
    assert around(explorer).ring == (8.0, 1.0)
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


def test_the_map_has_the_ratios_and_its_border_parts_the_two_sides(explorer):
    drawn = around(explorer)
    assert drawn.picks == ("distance", "sigma_p")
    assert [level.value for level in drawn.levels] == [0.0]
    np.testing.assert_allclose(drawn.values, -explorer.result.around.values)
    lines = contour_generator(drawn.columns, np.log10(drawn.rows), drawn.values).lines(0.0)
    points = np.concatenate(list(lines))  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert len(points) > 25
    for across, up in points[::5]:
        log_p, log_q = gaussian_pair(40, across, 10**up, 3.0)
        ratio = np.log10(variance_ratio(dpo_weight(log_p, log_q), np.exp(log_p)))
        assert abs(ratio) < 0.02  # as near as straight pieces between the map's points come


@pytest.mark.parametrize("family", ["gaussian", "one peak"])
def test_a_click_on_any_cell_of_the_map_is_a_case_that_the_controls_take(explorer, family):
    explorer.set(family=family)
    drawn = around(explorer)
    for across, up in itertools.product(drawn.columns[[0, 7, -1]], drawn.rows[[0, 7, -1]]):
        explorer.set(**dict(zip(drawn.picks, (float(across), float(up)), strict=True)))
        assert explorer.error is None
        assert around(explorer).ring == (across, up)
    row, column = (int(np.flatnonzero(places == at)[0]) for places, at in ((drawn.rows, up), (drawn.columns, across)))
    nudge = 1e-3  # the map's Gaussians are a bit wider, so that p never equals q
    assert -np.log10(explorer.numbers["theorems left / right"]) == pytest.approx(drawn.values[row, column], abs=nudge)


def test_a_coarse_map_is_interpolated_at_all_points_of_the_fine_one():
    coarse = Around("gaussian", {"n": 200, "sigma_q": 3.0})
    assert coarse.stride == 8
    whole = coarse.whole
    np.testing.assert_array_equal(whole[::8, ::8], coarse.known)
    np.testing.assert_allclose(whole[4, ::8], (coarse.known[0] + coarse.known[1]) / 2)
    np.testing.assert_allclose(whole[::8, 4], (coarse.known[:, 0] + coarse.known[:, 1]) / 2)


def test_the_draws_have_a_mark_each_on_their_side_and_a_click_chooses_one(explorer):
    explorer.set(family="Dirichlet", n=20, seed=7)
    drawn = around(explorer)
    marks = {curve.name: curve for curve in drawn.curves}
    assert len(marks["hold"].x) == 27
    assert len(marks["hold"].x) + len(marks["do not hold"].x) == DRAWS
    assert marks["hold"].x.min() > 0 >= marks["do not hold"].x.max()
    (x,), (seed,) = marks["this draw"].x, marks["this draw"].y
    assert (x, seed) == (pytest.approx(-np.log10(explorer.numbers["theorems left / right"])), 7)
    assert drawn.picks == ("", "seed")
    explorer.set(alpha_p=0.1, alpha_q=10.0)
    drawn = around(explorer)
    assert max(np.abs(curve.x).max(initial=0) for curve in drawn.curves) <= drawn.x.high  # none is left out


@pytest.mark.parametrize("values", [{}, {"distance": 11.37, "sigma_p": 0.4, "sigma_q": 8.0}, {"family": "one peak"}])
def test_handles_lie_on_their_curves_and_move_what_they_name(explorer, values):
    explorer.set(**values)
    shapes = charts(explorer)[0]
    drawn = {curve.color: curve for curve in shapes.curves if not curve.faint}
    moved = []
    for handle in shapes.handles:
        (move,) = handle.moves
        moved.append(move.control)
        assert (handle.x - move.origin) * move.factor == pytest.approx(explorer.state[move.control], abs=1e-12)
        curve = drawn[handle.color]
        assert handle.y == pytest.approx(np.interp(handle.x, curve.x, curve.y), abs=1e-12)
        assert shapes.x.low <= handle.x <= shapes.x.high
    widths = ["sigma_q"] if values.get("family") else ["sigma_p", "sigma_q"]
    assert sorted(moved) == ["distance", "distance", *widths]
    explorer.set(family="Dirichlet")
    assert not charts(explorer)[0].handles


def test_bars_are_both_sides_in_units_of_the_bound(explorer):
    for sigma_p, holds in ((2.5, True), (0.4, False)):
        explorer.set(sigma_p=sigma_p)
        drawn = charts(explorer)[3]
        (bars,) = drawn.bars
        numbers = explorer.numbers
        sides = [numbers[f"{name} {side}"] for name in ("theorems", "condition") for side in ("left", "right")]
        np.testing.assert_allclose(bars.values, np.array(sides) / numbers["theorems right"])
        assert drawn.groups == ["Var[w p]", "Var[w] E[p²]", "Cov(w², p²)", "E[w p]²"]
        assert (bars.values[::2] < bars.values[1::2]).tolist() == [holds, holds]
        assert bars.color == (TRUE if holds else NOT_TRUE)
        assert explorer.numbers["theorems verdict"] == ("hold" if holds else "do not hold")


def test_the_map_opens_with_a_guess(explorer):
    sent = explorer.front.shown["charts"][1]
    assert np.isnan(np.frombuffer(sent["values"]["f8"])).all()
    assert np.isfinite(around(explorer).values).all()  # figures are complete
    explorer.set(guess="shown")
    sent = explorer.front.shown["charts"][1]
    np.testing.assert_array_equal(np.frombuffer(sent["values"]["f8"]), around(explorer).values.ravel())


def test_the_outcome_counts_the_cases_around(explorer):
    frame = explorer.frame().query("not shown")
    count = (frame["log10_ratio"] < 0).sum()
    assert explorer.outcome(explorer.result) == ("most", f"They hold for {count} of 625 settings of the map.")
    explorer.set(family="Dirichlet", n=200)
    assert explorer.outcome(explorer.result) == ("few", "They hold for 10 of 50 draws.")
    everywhere = SimpleNamespace(values=np.full((DRAWS, 1), -0.1))
    assert explorer.outcome(replace(explorer.result, around=everywhere))[0] == "all"


def test_controls_that_the_family_lacks_are_hidden(explorer):
    for family, hidden in (("gaussian", {"rest", "alpha_p", "alpha_q", "seed"}), ("one peak", {"sigma_p", "alpha_p",
                           "alpha_q", "seed"}), ("Dirichlet", {"distance", "sigma_p", "sigma_q", "rest"})):  # fmt: skip
        explorer.set(family=family)
        assert set(explorer.front.hidden) == hidden


def test_the_first_answer_waits_for_one_part_of_a_new_map_and_for_none_of_a_known_one(monkeypatch):
    """The parts are most of what there is to compute: hundreds of cases of a map."""
    explorer, parts = VarianceExplorer(n=200), []
    log_ratios = variance_explorer._log_ratios
    monkeypatch.setattr(
        variance_explorer, "_log_ratios", lambda family, cases: parts.append(len(cases)) or log_ratios(family, cases)
    )
    state = dict(explorer.state)
    for changed, expected in (("sigma_q", 1), ("distance", 0)):
        parts.clear()
        state[changed] = 2.5
        next(explorer.compute(SimpleNamespace(**state)))
        assert len(parts) == expected, changed
        assert sum(parts) * 200**2 <= variance_explorer._WORK
    explorer.close()


def test_stories_say_what_is_true():
    explorer = VarianceExplorer()
    explorer.tell("Where it holds")
    assert explorer.numbers["theorems verdict"] == "hold"
    assert explorer.numbers["theorems left / right"] < 0.5
    assert explorer.numbers["noise left / right"] > 1
    result = explorer.result
    assert (result.w**2 * result.p).sum() < (result.w**2).mean()  # w² is small where p is large

    explorer.tell("A confident policy under a large shift")
    assert explorer.numbers["theorems verdict"] == "do not hold"
    assert explorer.numbers["condition left"] > explorer.numbers["condition right"] > 0
    result = explorer.result
    assert np.sort(result.p)[-10:].sum() > 0.94
    assert abs(result.y[np.abs(result.w).argmax()] + 5) < 1

    explorer.tell("A narrow policy, no shift")
    assert explorer.numbers["theorems left / right"] > 4
    assert explorer.result.w.argmin() in np.argsort(explorer.result.p)[-2:]
    assert abs(explorer.result.y[explorer.result.w.argmin()]) < 0.2

    explorer.tell("Random policies")
    assert around(explorer).title == "Theorems 4–5 hold for 27 of 50 draws"
    explorer.set(n=200)
    assert around(explorer).title == "Theorems 4–5 hold for 10 of 50 draws"
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
    assert sides == f"Var[w p] {numbers['theorems left']} Var[w] E[p²] {numbers['theorems right']}"
    assert float(ratio.split()[1]) == numbers["theorems left / right"]
    assert float(gap.split()[-1]) == pytest.approx(numbers["condition left"] - numbers["condition right"], rel=1e-9)
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
    with pytest.raises(ValueError, match=r"n must be a whole number ≥ 20 and ≤ 200, got 500"):
        VarianceExplorer(n=500)
    with pytest.raises(ValueError, match=r"rest must be finite and lie in \(0, 1\), got 1.5"):
        FAMILIES["one peak"](20, 1.0, 1.5, 3.0)
    for sigmas in ((0.0, 3.0), (3.0, -1.0)):
        with pytest.raises(ValueError, match=r"^sigma_[pq] must be finite and > 0, got"):
            gaussian_pair(20, 1.0, *sigmas)

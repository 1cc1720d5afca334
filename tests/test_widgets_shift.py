"""The explorer of distribution shift: its weights meet autograd, its verdicts the experiment's, its stories numbers."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from one_explorer import one_explorer

from gradlab.experiments.questions.shift_cases import scan
from gradlab.losses import DPO, BalancedDPO, PairLogps
from gradlab.theory import bdpo_weight_limit, dpo_weight_limit, gaussian_log_density
from gradlab.widgets import ShiftExplorer, shift_explorer

STATED = ("Theorem 3 w", "Theorem 3 w·p", "Theorem 3 bDPO")


shared, explorer = one_explorer(ShiftExplorer)


def verdicts(explorer):
    return [explorer.numbers[name] for name in STATED]


def pull(loss, logp, utility):
    """−∂/∂log p of the loss, summed over all ordered pairs with exact labels: what w is, by autograd."""
    logp = torch.tensor(logp, requires_grad=True)
    n = len(logp)
    win, lose = (index.ravel() for index in np.indices((n, n)))
    ref = torch.full((n * n,), -np.log(n), dtype=torch.float64)
    values = loss(PairLogps(logp[win], logp[lose], ref, ref))
    wins = torch.sigmoid(torch.tensor(utility[win] - utility[lose]))
    (wins * values).sum().backward()
    return -logp.grad.numpy()


@pytest.mark.parametrize("family", ["gaussian", "laplace", "student"])
def test_weights_are_the_losses_gradients(explorer, family):
    explorer.set(n=30, family=family, mu_p=-2.0, sigma_q=3.0)
    frame = explorer.frame()
    log_p, log_q = np.log(frame["policy"].to_numpy()), np.log(frame["preference"].to_numpy())
    np.testing.assert_allclose(frame["dpo"], pull(DPO(beta=1.0), log_p, log_q), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(frame["bdpo"], pull(BalancedDPO(beta=1.0), log_p, log_q), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(frame["balanced"], frame["dpo"] * frame["policy"], rtol=1e-13)


@pytest.mark.parametrize("family", ["gaussian", "laplace", "student"])
@pytest.mark.parametrize(("n", "support", "distance"), [(20, 20.0, 4.0), (50, 40.0, 6.0), (200, 20.0, 1.0)])
def test_places_are_the_experiments(explorer, family, n, support, distance):
    widths = [1.5, 3.0]
    rows = {(row["sigma_p"], row["sigma_q"], row["weight"]): row for row in
            scan(family, n, [support], [distance], widths)}  # fmt: skip
    for sigma_p in widths:
        for sigma_q in widths:
            explorer.set(family=family, n=n, support=support, mu_p=-distance / 2, mu_q=distance / 2, sigma_p=sigma_p,
                         sigma_q=sigma_q)  # fmt: skip
            for name, wanted, shown in zip(("dpo", "balanced", "bdpo"), ("outside", "inside", "inside"),
                                           verdicts(explorer), strict=True):  # fmt: skip
                row, place = rows[sigma_p, sigma_q, name], explorer.result.grid.places[name]
                assert min(place.slack, max(distance, row["cell"])) == pytest.approx(row[wanted], abs=1e-6)
                assert place.reach == pytest.approx(row["reach"], abs=1e-6)
                true = row[wanted] + row["cell"] >= -1e-9
                assert shown == (
                    "true" if true else f"misses by {-row[wanted]:.2f} in y, {-row[wanted] / row['cell']:.1f} cells"
                )


def test_distance_to_the_limit_is_that_to_half_of_dpo_at_half_beta(explorer):
    gaps = []
    for n in (20, 200, 800):
        explorer.set(n=n, mu_p=-3.0, mu_q=3.0, sigma_p=3.0, sigma_q=3.0)
        frame = explorer.frame()
        log_p, log_q = gaussian_log_density(-3.0, 3.0), gaussian_log_density(3.0, 3.0)
        half = dpo_weight_limit(frame["y"].to_numpy(), log_p, log_q, -10.0, 10.0, beta=0.5) / 2
        gaps.append(np.abs(frame["bdpo"] / n - half).max() / np.ptp(explorer.result.limit.values["bdpo"]))
        assert explorer.result.gap == pytest.approx(gaps[-1], abs=2e-3)
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] > 0.15  # the approach is slow, as the story says


def test_mirrored_cases_have_mirrored_weights(explorer):
    verdict, weight = verdicts(explorer), explorer.frame()["dpo"].to_numpy()
    explorer.set(mu_p=4.0, mu_q=-4.0)
    assert verdicts(explorer) == verdict
    np.testing.assert_allclose(explorer.frame()["dpo"].to_numpy(), weight[::-1], atol=1e-12)


def chart(explorer, title):
    """The chart whose title begins like this."""
    (found,) = [one for one in explorer.charts(explorer.result, explorer.pinned) if one.title.startswith(title)]
    return found


def curve(of, name):
    (found,) = [one for one in of.curves if one.name == name and not one.faint]
    return found


def test_triangles_are_filled_where_the_theorem_wants_them(explorer):
    explorer.set(n=200)
    drawn = chart(explorer, "balanced w·p")
    shown = {one.name: one for one in drawn.curves if not one.line}
    places = explorer.result.grid.places["balanced"].extrema
    assert sum(len(one.x) for one in shown.values()) == len(places) == 2
    assert (shown["min outside"].filled, shown["max inside"].filled) == (False, True)
    (minimum,), (maximum,) = shown["min outside"].x, shown["max inside"].x
    assert minimum < drawn.bands[0].low == -4.0 < maximum < drawn.bands[0].high == 4.0
    weight = curve(drawn, "balanced w·p")
    for one in shown.values():  # on the curve, within a cell
        assert one.y == pytest.approx(np.interp(one.x, weight.x, weight.y), abs=0.01)
    assert [label.text for label in drawn.labels] == [explorer.numbers["Theorem 3 w·p"]]


@pytest.mark.parametrize("values", [{}, {"mu_p": 3.3, "mu_q": -7.77, "sigma_q": 8.0}, {"n": 37, "support": 16.4}])
def test_handles_lie_on_their_curves_and_move_what_they_name(explorer, values):
    explorer.set(**values)
    shapes = chart(explorer, "policy and preference")
    handles = {move.control: (handle, move) for handle in shapes.handles for move in handle.moves}
    assert set(handles) == {"mu_p", "sigma_p", "mu_q", "sigma_q"}
    for control, (handle, move) in handles.items():
        assert control[:1] == {"μ": "m", "σ": "s"}[handle.name[0]]
        assert move.axis == "x"
        value = explorer.state[control]
        assert (handle.x - move.origin) * move.factor == pytest.approx(value, abs=1e-12)
        drawn = curve(shapes, {"p": "policy p", "q": "preference q"}[control[-1]])
        assert handle.y == pytest.approx(np.interp(handle.x, drawn.x, drawn.y), abs=1e-12)
        ends = explorer.controls[control]
        for end in (ends.low, ends.high):  # a drag reaches any value
            assert shapes.x.low <= move.origin + end / move.factor <= shapes.x.high


def test_the_pinned_setting_is_faint_in_every_chart_and_pointers_are_shared(explorer):
    first = explorer.result
    explorer.front.pinned = True
    explorer.controls["mu_p"].value = -1.5
    charts = explorer.charts(explorer.result, explorer.pinned)
    assert [one.link for one in charts] == ["y"] * 4
    for one, key in zip(charts[1:], ("dpo", "balanced", "bdpo"), strict=True):
        (faint,) = [each for each in one.curves if each.faint]
        np.testing.assert_allclose(faint.y * first.scale(key) * first.size(key), first.grid.values[key])
    assert sum(each.faint for each in charts[0].curves) == 2
    explorer.front.pinned = False


def test_the_outcome_is_what_the_continuous_limit_says(explorer):
    assert explorer.outcome(explorer.result) == (
        "dpo", "With infinitely many responses DPO's w stays as stated, balanced w·p misses by 0.17 in y."
    )  # fmt: skip
    explorer.set(sigma_p=0.75, sigma_q=0.75, mu_p=-8.0, mu_q=8.0)  # the smallest miss
    assert explorer.outcome(explorer.result)[0] == "dpo"
    explorer.set(family="laplace", sigma_p=1.5, sigma_q=1.5)
    assert explorer.outcome(explorer.result)[0] == "both"
    explorer.set(mu_p=8.0)
    assert explorer.outcome(explorer.result)[1].startswith("Where μ_p = μ_q")
    assert set(explorer.answers) > {"both", "dpo"}


@pytest.mark.parametrize("mu_p", [4 - 1e-6, 4 - 1e-9, 4 - 1e-12, np.nextafter(4, 0)])
def test_modes_that_nearly_coincide_do_not_turn_rounding_into_extrema(explorer, mu_p):
    explorer.set(mu_p=float(mu_p), sigma_p=3.0)
    assert explorer.error is None
    assert all(len(place.extrema) <= 4 for place in explorer.result.grid.places.values())
    explorer.set(sigma_p=1.5)
    assert explorer.error is None
    assert np.isfinite([one.y for one in chart(explorer, "DPO's w").curves if one.line and len(one.y) == 20]).all()


def test_a_move_computes_each_limit_once_and_a_finer_grid_none(explorer, monkeypatch):
    """The quadratures are most of what Python does at a move."""
    computed = []

    def counted(limit):
        return lambda *of: computed.append(limit.__name__) or limit(*of)

    for limit in (dpo_weight_limit, bdpo_weight_limit):
        monkeypatch.setattr(shift_explorer, limit.__name__, counted(limit))
    explorer.set(mu_p=-3.45, n=40)
    assert explorer.error is None  # which computes what was set
    assert sorted(computed) == ["bdpo_weight_limit", "dpo_weight_limit"]
    explorer.set(n=80)
    assert explorer.error is None
    assert len(computed) == 2


def test_coinciding_modes_have_no_interval(explorer):
    explorer.set(mu_p=4.0, sigma_p=3.0)
    assert verdicts(explorer) == ["says nothing, μ_p = μ_q"] * 3
    explorer.set(sigma_p=1.5)  # p = q: DPO has no weight at all
    assert explorer.error is None
    assert explorer.frame()["dpo"].abs().max() < 1e-12
    assert np.abs(curve(chart(explorer, "DPO's w"), "DPO's w").y).max() < 1e-6  # rounding is not blown up


def test_stories_say_what_is_true(explorer):
    explorer.tell("The textbook case")
    assert verdicts(explorer) == ["true"] * 3
    coarse = explorer.result.grid.places
    assert all(-1 < coarse[name].slack < 0 for name in ("balanced", "bdpo"))  # only since a cell is allowed

    explorer.tell("Refine the grid")
    fine, cell = explorer.result.grid.places, explorer.result.cell
    assert explorer.numbers[STATED[0]] == "true"
    assert all("misses" in explorer.numbers[name] for name in STATED[1:])
    lowest = [min(places["balanced"].extrema, key=lambda one: one.value).position for places in (coarse, fine)]
    assert lowest[0] == pytest.approx(lowest[1], abs=0.05)
    assert -fine["balanced"].slack > 3 * cell
    highest = [max(places["bdpo"].extrema, key=lambda one: one.value).position for places in (coarse, fine)]
    assert highest[1] > highest[0] > 4.0
    lowest = [min(places["bdpo"].extrema, key=lambda one: one.value).position for places in (coarse, fine)]
    assert lowest[1] < lowest[0] < -4.0

    explorer.tell("Balanced-DPO on a fine grid")
    assert explorer.numbers["distance to DPO(β/2) bDPO"] == "20% of its range"
    assert explorer.result.limit.places["bdpo"].slack < 0
    explorer.set(n=20)
    assert explorer.numbers["distance to DPO(β/2) bDPO"] == "31% of its range"

    explorer.tell("Never farther out than DPO's")
    reach = {name: place.reach for name, place in explorer.result.grid.places.items()}
    assert -explorer.result.grid.places["balanced"].slack > 2
    assert 0.4 < reach["balanced"] / reach["dpo"] < 0.55
    lowest = {name: place.extrema[0] for name, place in explorer.result.grid.places.items()}
    assert lowest["bdpo"].kind == "minimum"
    assert lowest["bdpo"].position < lowest["dpo"].position - 1


@pytest.mark.parametrize("state", [{}, *(story.state for story in ShiftExplorer.stories), {"family": "student"}])
def test_its_code_computes_the_same(explorer, state):
    explorer.set(**state)
    printed, names = io.StringIO(), {}
    with contextlib.redirect_stdout(printed):
        exec(explorer.as_python(), names)
    for line, (name, place), says in zip(printed.getvalue().splitlines(), explorer.result.grid.places.items(),
                                         verdicts(explorer), strict=True):  # fmt: skip
        assert line == f"{name} {says} reach {place.reach:.3g}"
        assert names["places"][name].reach == pytest.approx(place.reach, abs=1e-9)
    np.testing.assert_allclose(names["w"], explorer.frame()["dpo"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sigma_p", [0.75, 8.0])
def test_fine_grids_of_dpo_and_of_the_balanced_weight_meet_their_limit(explorer, sigma_p):
    explorer.set(n=400, sigma_p=sigma_p)
    for name in ("dpo", "balanced"):
        limit = explorer.result.limit
        shown = explorer.result.grid.values[name] / explorer.result.scale(name)
        expected = np.interp(explorer.result.grid.y, limit.y, limit.values[name])
        np.testing.assert_allclose(shown, expected, atol=0.01 * np.abs(expected).max())


def test_balanced_weights_never_reached_farther_than_dpos_in_the_reports_gaussian_cases():
    saved = pd.read_parquet(Path(__file__).parents[1] / "figures" / "data" / "shift.parquet")
    case = ["kind", "n", "support", "distance", "sigma_p", "sigma_q"]
    rows = saved[saved["kind"].isin(["scan", "limit"]) & (saved["family"] == "gaussian")]
    reach = rows.pivot(index=case, columns="weight", values="reach")
    assert len(reach) > 300
    assert (reach["balanced"] <= reach["dpo"] + 0.01).all()
    assert (reach["bdpo"] > reach["dpo"] + 0.01).any()


def test_a_kink_holds_the_minimum_where_the_takeaway_says(explorer):
    explorer.set(n=800, family="laplace")
    lowest = min(explorer.result.grid.places["balanced"].extrema, key=lambda one: one.value)
    assert lowest.position == pytest.approx(-4.0, abs=explorer.result.cell)
    assert explorer.numbers["Theorem 3 w·p"] == "true"


def test_what_it_does_not_have_is_refused_in_one_line(explorer):
    with pytest.raises(ValueError, match="family must be one of gaussian, laplace, student; got 'cauchy'"):
        explorer.set(family="cauchy")
    with pytest.raises(ValueError, match=r"sigma_p must be finite and lie in \[0.75, 8\], got 0"):
        ShiftExplorer(sigma_p=0.0)

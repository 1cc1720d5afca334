"""The frontier explorer: its points against trainings done directly, the ideal curve, and what its stories say."""

import numpy as np
import pytest
from own_losses import SquaredMargin

from gradlab.experiments.questions.frontier import ends_at_equal_kl
from gradlab.lab.fit import fit
from gradlab.lab.world import gaussian_world
from gradlab.losses import pair_loss
from gradlab.widgets import FrontierExplorer
from gradlab.widgets.frontier_explorer import BETAS


@pytest.fixture(scope="module")
def explorer():
    made = FrontierExplorer()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def afresh(explorer):
    explorer.reset()
    assert explorer.error is None


def at_kl(explorer, side, level, value="utility"):
    """A side's curve, as β falls, where it first passes a KL."""
    line = explorer.result.of(side)
    kl, up = line["kl"][::-1], line[value][::-1]
    rising = np.flatnonzero(np.diff(np.maximum.accumulate(kl), prepend=-1.0) > 0)
    assert kl[rising][0] <= level <= kl[rising][-1]
    return np.interp(level, kl[rising], up[rising])


def ideal_at_kl(explorer, level, value):
    ideal = explorer.result.ideal
    return np.interp(level, ideal["kl"][::-1], ideal[value][::-1])


def test_points_are_trainings_judged_by_the_librarys_metrics(explorer):
    explorer.set(beta_c=10**0.35, mask_rate=0.2, seed=3, count=3, loss_c="nbdpo")
    world = gaussian_world(mask_rate=0.2, seed=3)
    frame = explorer.frame().query("side != 'ideal'")
    assert [explorer.numbers[f"trained {side}"] for side in "ABC"] == [11, 11, 12]
    assert len(frame) == 11 + 11 + 12
    for side, name, beta in (("A", "dpo", 0.1), ("B", "bdpo", 1.0), ("C", "nbdpo", 10**0.35)):
        row = frame[(frame["side"] == side) & (frame["beta"] == beta)].iloc[0]
        end = fit(world, pair_loss(name, beta=beta), pairs=100, seed=3).history.iloc[-1]
        for metric in ("kl", "utility", "unobserved_mass"):
            assert row[metric] == pytest.approx(end[metric], abs=1e-12)
        assert row["loss"] == name
    assert explorer.numbers["E[u] C"] == pytest.approx(row["utility"], abs=1e-12)


def test_no_policy_lies_above_the_ideal_curve(explorer):
    for state in (
        {},
        {"mask_rate": 0.8, "pairs": 20, "count": 3, "loss_c": "fixed-weight"},
        {"utility": "independent"},
    ):
        explorer.set(**state)
        frame = explorer.frame()
        assert (frame["below_ideal"] > -1e-9).all()
    # And it is the ideal one: by hand for two responses, where E[u] and KL are functions of one probability.
    ideal = explorer.result.ideal
    world = gaussian_world(utility="independent", mask_rate=0.8)
    for index in (0, 60, 119):
        prob = np.exp(world.utility / ideal["beta"][index])
        prob /= prob.sum(1, keepdims=True)
        assert ideal["utility"][index] == pytest.approx((prob * world.utility).sum(1).mean(), abs=1e-9)
        assert ideal["kl"][index] == pytest.approx((prob * np.log(prob.clip(1e-300) * 20)).sum(1).mean(), abs=1e-9)


def test_below_ideal_is_the_distance_to_the_curve_at_that_kl(explorer):
    line = explorer.result.of("b")
    above = np.array([ideal_at_kl(explorer, kl, "utility") for kl in line["kl"]])
    np.testing.assert_allclose(explorer.result.below_ideal(line), above - line["utility"], atol=2e-3)


def test_the_kl_axes_are_wide_enough_for_any_policy_from_a_uniform_reference(explorer):
    frontier, distance = explorer.charts(explorer.result, None)
    for axis in (frontier.x, distance.y):
        assert axis.low == 0
        assert np.log(20) < axis.high
    explorer.set(reference="shifted", shift=15.0, scale=12.0)  # and for others
    frontier, distance = explorer.charts(explorer.result, None)
    assert max(curve.x.max() for curve in frontier.curves if curve.dash != "dotted") <= frontier.x.high
    assert max(curve.y.max() for curve in distance.curves) <= distance.y.high


def test_python_trains_when_it_is_asked_and_a_new_beta_costs_one_training_a_loss(explorer, monkeypatch):
    assert len(explorer.result.of("a")["beta"]) == len(BETAS)
    calls = []
    monkeypatch.setattr("gradlab.widgets.frontier_explorer.fit", lambda *a, **k: calls.append(a[1]) or fit(*a, **k))
    explorer.set(beta_a=10**0.12)
    explorer.set(beta_a=10**0.15, beta_b=10**0.17)
    assert calls == []
    assert explorer.result is explorer.result
    assert [(loss.name, loss.beta) for loss in calls] == [("dpo", 10**0.15), ("bdpo", 10**0.17)]
    explorer.set(value="unobserved_mass")
    assert explorer.result.value == "unobserved_mass"
    explorer.set(beta_b=10**0.2)  # one of the curves' own
    assert explorer.result.mark("b")["beta"] == [10**0.2]
    assert len(calls) == 2


def test_a_mark_is_dragged_along_the_curve_it_lies_on(explorer):
    explorer.set(beta_a=2.0)
    for value in ("utility", "unobserved_mass"):
        explorer.set(value=value)
        frontier, distance = explorer.charts(explorer.result, None)
        for slot, curve, handle, far in zip(
            "ab", frontier.curves[1:], frontier.handles, distance.handles, strict=False
        ):
            point = explorer.result.mark(slot)
            assert (handle.x, handle.y) == (point["kl"][0], point[value][0])
            assert (far.x, far.y) == (explorer.state[f"beta_{slot}"], point["kl"][0])
            track = handle.track
            assert track.control == f"beta_{slot}"
            assert (np.diff(track.values) > 0).all()
            assert track.values[[0, -1]].tolist() == [0.1, 10.0]
            assert {*curve.x} <= {*track.x}  # it goes through every dot
            assert {float(f"{beta:.3g}") for beta in BETAS} <= {*track.values.tolist()}
    stop = 31  # a place between two dots of B's: its training ends about there
    explorer.set(beta_b=float(track.values[stop]))
    assert explorer.result.mark("b")["kl"][0] == pytest.approx(track.x[stop], abs=0.02)
    assert explorer.charts(explorer.result, None)[0].handles[1].x == explorer.result.mark("b")["kl"][0]


def test_losses_have_their_other_numbers_and_may_be_ones_own(explorer):
    explorer.set(loss_b="cdpo", label_smoothing_b=0.3)
    end = fit(gaussian_world(), pair_loss("cdpo", label_smoothing=0.3), pairs=100).history.iloc[-1]
    assert explorer.numbers["E[u] B"] == pytest.approx(end["utility"], abs=1e-12)
    made = FrontierExplorer(losses=["dpo", SquaredMargin(), "ipo"], steps=50)
    assert [curve.name for curve in made.charts(made.result, None)[0].curves[1:4]] == ["A DPO", "B squared", "C IPO"]
    assert made.frame().groupby("side").size()[["A", "B", "C"]].tolist() == [11, 1, 11]
    assert [handle.name for handle in made.charts(made.result, None)[0].handles] == ["β of A", "β of C"]
    assert made.error is None
    made.close()


def test_pinned_curves_stay_faint_while_new_ones_grow(explorer):
    before = explorer.result.of("a")
    explorer.front.pinned = True
    explorer.controls["scale"].value = 3.0
    (ghost, _) = [one for one in explorer.charts(explorer.result, explorer.pinned)[0].curves if one.faint]
    np.testing.assert_array_equal(ghost.x, before["kl"][::-1])
    explorer.front.pinned = False
    assert not any(one.faint for chart in explorer.charts(explorer.result, explorer.pinned) for one in chart.curves)


def test_more_losses_and_the_same_loss_twice(explorer):
    explorer.set(loss_b="dpo")
    sides = explorer.frame().set_index("side")
    np.testing.assert_array_equal(sides.loc["A", "kl"], sides.loc["B", "kl"])
    explorer.set(count=6)
    assert set(explorer.frame()["side"]) == {*"ABCDEF", "ideal"}
    assert len({(one.color, one.dash) for one in explorer.charts(explorer.result, None)[1].curves}) == 6
    explorer.set(count=2)
    assert set(explorer.frame()["side"]) == {"A", "B", "ideal"}


def test_the_guess_is_judged_at_equal_kl(explorer):
    truth, sentence = explorer.outcome(explorer.result)
    a, b = (at_kl(explorer, side, explorer.numbers["KL B"]) for side in "ab")
    assert truth == "b"
    assert f"A's curve is at {a:.2f} nats of utility, and B's at {b:.2f}." in sentence
    explorer.set(loss_b="dpo", beta_b=3.0)
    assert explorer.outcome(explorer.result)[0] == "equal"
    explorer.tell("The theorem")
    assert explorer.outcome(explorer.result)[0] == "a"


def test_a_bad_value_is_one_line():
    for bad in ({"loss_a": None}, {"beta_a": 0.01}, {"value": "kl"}, {"count": 1}):
        with pytest.raises(ValueError, match=f"^{next(iter(bad))} must .*") as refused:
            FrontierExplorer(**bad)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("story", [None, *[story.title for story in FrontierExplorer.stories]])
def test_the_code_gives_the_numbers_shown(explorer, story, capsys):
    if story:
        explorer.tell(story)
    space = {}
    explorer.set(beta_b=3.0)
    exec(explorer.as_python(), space)
    assert "dpo" in capsys.readouterr().out
    shown = explorer.frame().query("side != 'ideal'")
    for metric in ("beta", "kl", "utility", "unobserved_mass"):
        np.testing.assert_allclose(space["curves"][metric], shown[metric], atol=1e-12)


def test_equal_beta_or_equal_kl(explorer):
    explorer.tell("Equal β or equal KL")
    numbers = explorer.numbers
    assert numbers["E[u] A"] > numbers["E[u] B"] + 0.1
    assert at_kl(explorer, "a", numbers["KL B"]) < numbers["E[u] B"] - 0.1
    explorer.set(beta_c=10**0.3)
    world = gaussian_world()
    half = fit(world, pair_loss("dpo", beta=10**0.3 / 2), pairs=100).history.iloc[-1]
    assert explorer.numbers["E[u] C"] == pytest.approx(half["utility"], abs=1e-9)


def test_the_theorem(explorer):
    explorer.tell("The theorem")
    a, b = explorer.result.of("a"), explorer.result.of("b")
    assert explorer.result.below_ideal(a).max() < 0.002
    assert explorer.result.below_ideal(b)[b["beta"] <= 1].min() > 0.03
    assert BETAS[b["kl"].argmax()] == 1.0
    turn = b["kl"].max()
    assert (np.diff(b["kl"][b["beta"] <= 1]) > 0).all()
    explorer.set(steps=2000)
    more = explorer.result.of("b")
    assert turn < more["kl"].max() < turn + 0.25
    assert more["kl"][0] < 1 < more["kl"].max()


def test_what_shared_parameters_buy(explorer):
    explorer.tell("What shared parameters buy")
    shared = [explorer.numbers[f"below ideal {side}"] for side in "AB"]
    assert shared == pytest.approx([0.1, 0.1], abs=0.02)
    explorer.set(policy="free")
    free = [explorer.numbers[f"below ideal {side}"] for side in "AB"]
    assert sorted(free) == pytest.approx([0.4, 0.5], abs=0.05)
    assert abs(shared[0] - shared[1]) < min(np.subtract(free, shared)) / 5


def test_less_is_not_nearer(explorer):
    explorer.tell("Less mass is not closer to the ideal")
    a, b = (at_kl(explorer, side, 1.0, "unobserved_mass") for side in ("a", "b"))
    assert b / a == pytest.approx(0.25, abs=0.05)
    assert ideal_at_kl(explorer, 1.0, "unobserved_mass") > a > b


def test_the_takeaway_on_other_seeds(explorer):
    """Free logits, 100 pairs: bDPO's curve is the higher one in the middle and ends early; not so with sharing."""
    for seed in range(4):
        explorer.set(seed=seed)
        assert all(at_kl(explorer, "b", kl) > at_kl(explorer, "a", kl) for kl in (0.5, 0.75, 1.0))
        a, b = explorer.result.of("a"), explorer.result.of("b")
        assert b["kl"].max() < a["kl"].max() - 1
        assert b["utility"].max() < a["utility"].max() - 0.2
    explorer.set(seed=0, policy="shared")
    assert all(abs(at_kl(explorer, "b", kl) - at_kl(explorer, "a", kl)) < 0.06 for kl in (0.5, 0.75, 1.0))


def test_it_agrees_with_the_experiment_at_equal_kl(explorer):
    shown = explorer.frame().query("side != 'ideal'")
    levels = ends_at_equal_kl(
        shown.assign(method=shown["loss"], mask=0.0, policy="free", seed=0, step=500, utility_share=shown["utility"],
                     win_rate=0.5)
    )  # fmt: skip
    assert set(levels["method"]) == {"dpo", "bdpo"}
    for row in levels.itertuples():
        side = {"dpo": "a", "bdpo": "b"}[row.method]
        assert row.utility_share == pytest.approx(at_kl(explorer, side, row.kl), abs=1e-12)

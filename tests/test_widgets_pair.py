"""The pair explorer: its numbers by other routes, what its stories claim, the code it gives, and what it refuses."""

import math

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from own_losses import dear_every_name
from rounding import rounding

from gradlab.losses import LogisticLoss, PairLogps, pair_loss
from gradlab.plotting.palette import SIDES
from gradlab.theory import bdpo_log_rho, in_logits, in_probabilities
from gradlab.widgets import PairExplorer
from gradlab.widgets import pair_effects as effects

STORIES = [story.title for story in PairExplorer.stories]


@pytest.fixture(scope="module")
def shared():
    made = PairExplorer()
    assert made.error is None
    yield made
    made.close()


@pytest.fixture
def explorer(shared):
    yield shared
    shared.reset()
    assert shared.error is None


def place(prob, axes):
    """Return the place of a probability on an axis, from 0 to 1."""
    return prob if axes == "π" else 1 - np.log(prob) / np.log(effects.LEAST)


def rows(explorer, side):
    return explorer.frame().query("side == @side").set_index("response")


@dear_every_name
@pytest.mark.parametrize("state", [
    {}, {"win": 1e-4, "lose": 0.6, "responses": 20}, {"win": 0.3, "responses": 3}, {"beta_a": 0.1, "lose": 1e-9},
    {"reference": "own values", "ref_win": 1e-3, "ref_lose": 0.5},
])  # fmt: skip
def test_gradients_are_those_of_the_loss_in_all_three_spaces(explorer, name, state):
    explorer.set(loss_a=name, **state)
    assert explorer.error is None
    shown, log_p = rows(explorer, "A"), explorer.result.log_p
    prob = torch.tensor(np.exp(log_p[:2]), requires_grad=True)
    loss = pair_loss(name, **({"beta": explorer.state["beta_a"]} if hasattr(pair_loss(name), "beta") else {}))
    tokens = torch.ones(2)
    value = loss(PairLogps(prob[0].log(), prob[1].log(), *torch.from_numpy(explorer.result.ref), *tokens))
    value.backward()
    assert prob.grad is not None
    np.testing.assert_allclose(shown["minus_grad_prob"][:2], -prob.grad, rtol=1e-9)
    np.testing.assert_allclose(shown["loss_value"], value.item(), rtol=1e-9)
    by_logp = np.pad((prob.grad * prob.detach()).numpy(), (0, len(log_p) - 2))
    np.testing.assert_allclose(shown["minus_grad_logit"], in_logits(-by_logp, log_p)[:3], rtol=1e-9, atol=1e-12)
    ratio = abs(prob.grad[0] / prob.grad[1]).item()
    if math.isnan(ratio) and isinstance(loss, LogisticLoss):
        return  # −log σ(m) is 0 in floating point, while m has its slopes still
    expected = "0/0" if math.isnan(ratio) else pytest.approx(ratio, rel=1e-9)  # of a hinge that is satisfied
    assert explorer.numbers["ratio A"] == expected  # ρ π_l/π_w, by another route


@pytest.mark.parametrize("beta", [0.01, 1.0, 100.0])
@pytest.mark.parametrize(("win", "lose"), [(0.5, 0.1), (1e-12, 0.9), (0.9, 1e-12), (1e-12, 1e-12)])
def test_ratios_are_the_papers(explorer, win, lose, beta):
    explorer.set(win=win, lose=lose, beta_a=beta, beta_b=beta)
    assert explorer.numbers["ratio A"] == pytest.approx(lose / win, rel=1e-9)
    of_bdpo = in_probabilities(bdpo_log_rho(np.log(win), np.log(lose)), np.log(win), np.log(lose))
    assert explorer.numbers["ratio B"] == pytest.approx(np.exp(of_bdpo), rel=1e-9)
    assert explorer.numbers["λ_w B"] == pytest.approx(np.log(lose) / (np.log(win) + np.log(lose)), rel=1e-9)


def test_margin_losses_share_dpos_ratio(explorer):
    for name in ("dpo", "cdpo", "ipo"):
        explorer.set(loss_a=name)
        assert explorer.numbers["ratio A"] == pytest.approx(0.2, rel=1e-9)


def test_the_step_is_a_step_on_logits(explorer):
    explorer.set(responses=7, win=0.2, lose=0.3, step=2.0)
    for side in "AB":
        shown, log_p = rows(explorer, side), explorer.result.log_p
        logit = shown["minus_grad_logit"].to_numpy()
        moved = np.exp(log_p + 2.0 * np.concatenate([logit[:2], np.repeat(logit[2], 5)]))
        moved /= moved.sum()
        np.testing.assert_allclose(shown["delta_logp"], np.log(moved[:3]) - log_p[:3], rtol=1e-9)
        np.testing.assert_allclose(shown["delta_prob"], moved[:3] - np.exp(log_p[:3]), rtol=1e-9)
    explorer.set(step=1e-3)
    shown = rows(explorer, "A")
    np.testing.assert_allclose(shown["delta_logp"], shown["delta_logp_first_order"], rtol=2e-3)
    win, lose = 0.2, 0.3  # identity: DPO's realised ratio in probability, to first order
    moves = shown["delta_logp_first_order"] * shown["prob"]
    assert -moves["winner"] / moves["loser"] == pytest.approx(win * (1 - win + lose) / (lose * (1 + win - lose)))


def test_the_loser_gives_way_where_it_is_computed_and_not_in_the_state(explorer):
    before = explorer.result.effects["a"].change
    explorer.win.value = 0.95
    assert explorer.error is None
    assert explorer.state["lose"] == 0.1
    assert np.exp(explorer.result.log_p[:2]) == pytest.approx([0.95, effects.ROOM - 0.95])
    explorer.win.value = 0.5  # a drag there and back changes nothing
    assert np.array_equal(explorer.result.effects["a"].change, before)
    explorer.set(reference="own values", ref_win=0.7, ref_lose=0.9)
    assert np.exp(explorer.result.ref) == pytest.approx([0.7, effects.ROOM - 0.7])
    explorer.set(reference="the policy", win=0.999, lose=0.999)
    assert np.array_equal(explorer.result.ref, explorer.result.log_p[:2])
    assert np.exp(explorer.result.log_p).sum() == pytest.approx(1)
    assert np.isfinite(explorer.result.effects["b"].change).all()


def test_impossible_values_are_answered_in_one_line(explorer):
    with pytest.raises(ValueError, match=r"win must be finite and lie in \[1e-12, 0.999\], got 1.5"):
        explorer.set(win=1.5)
    with pytest.raises(ValueError, match="loss_a must be one of dpo, cdpo"):
        explorer.set(loss_a="no-such-loss")
    with pytest.raises(ValueError, match="responses must be a whole number ≥ 3, got 2"):
        explorer.set(responses=2)


def test_the_guess_is_judged_by_the_step_of_a(explorer):
    assert explorer.outcome(explorer.result) == (
        "winner", "Δπ is 0.0493 for the winner, −0.02128 for the loser.",
    )  # fmt: skip
    explorer.tell("A rare winner")
    assert explorer.outcome(explorer.result)[0] == "loser"
    explorer.set(win=0.2, lose=0.2, step=0.01)
    assert explorer.outcome(explorer.result)[0] == "equal"


def test_charts_show_the_policy_the_step_and_every_loss(explorer):
    explorer.set(count=3, axes="log π", win=0.3)
    charts = explorer.charts(explorer.result, None)
    assert [chart.title for chart in charts] == [
        "A DPO", "B bDPO", "C nbDPO", "Gradient", "One real step on the logits",
    ]  # fmt: skip
    for chart, slot in zip(charts[:3], "ABC", strict=True):
        reference, policy = chart.handles
        assert (policy.x, policy.y) == pytest.approx((0.3, 0.1))
        assert (reference.x, reference.y) == pytest.approx((0.2, 0.2))
        moved = rows(explorer, slot)["delta_prob"]
        assert chart.trail[1] == pytest.approx((0.3 + moved["winner"], 0.1 + moved["loser"]))
        assert (chart.x.low, chart.x.kind) == (1e-12, "log")
    gradient, step = charts[3:]
    np.testing.assert_array_equal(gradient.bars[2].values, rows(explorer, "C")["minus_grad_prob"])
    np.testing.assert_array_equal(step.bars[1].values, rows(explorer, "B")["delta_prob"])


@pytest.mark.parametrize("axes", ["π", "log π"])
@pytest.mark.parametrize(("name", "across"), [("dpo", True), ("ipo", True), ("bdpo", True), ("nbdpo", False)])
def test_partial_derivatives_stand_across_the_bands_but_for_nbdpo(axes, name, across):
    loss, ref = pair_loss(name), np.log([0.2, 0.2])
    field = effects.field(loss, ref, axes, 5, stepping=False)
    places, arrows = place(field.places, axes), field.directions

    def value(place):
        win, lose = torch.from_numpy(effects.log_at(place, axes)).T
        return loss(PairLogps(win, lose, *torch.from_numpy(ref))).numpy()

    h = 1e-6
    slope = np.stack([value(places + h * unit) - value(places - h * unit) for unit in np.eye(2)], 1) / (2 * h)
    seen = np.hypot(*slope.T) > 1e-4
    cosine = -(slope * arrows).sum(1)[seen] / np.hypot(*slope[seen].T)
    assert (cosine > 1 - 1e-6).all() == across


@pytest.mark.parametrize("axes", ["π", "log π"])
def test_arrows_of_the_step_are_where_a_small_step_goes(axes):
    loss, ref = pair_loss("bdpo"), np.log([0.2, 0.2])
    field = effects.field(loss, ref, axes, 6, stepping=True)
    for index in range(0, len(field.places), 7):
        log_p = effects.policy(np.log(field.places[index]), 6)
        after = np.exp((log_p + effects.effect(loss, log_p, ref, 1e-4).change[[0, 1, 2, 2, 2, 2]])[:2])
        moved = place(after, axes) - place(field.places[index], axes)
        if np.hypot(*moved) > 1e-9:
            np.testing.assert_allclose(moved / np.hypot(*moved), field.directions[index], atol=1e-3)


def test_arrows_have_the_colour_of_the_ratio():
    field = effects.field(pair_loss("dpo"), np.log([0.2, 0.2]), "π", 5, stepping=False)
    powers = np.log10(field.places[:, 1] / field.places[:, 0])  # of DPO's ratio
    for power, color in zip(powers, field.colors, strict=True):
        assert color == to_hex(SIDES(np.clip((power + 1) / 2, 0, 1)))
    assert {SIDES(0.0), SIDES(1.0)} <= {SIDES(np.clip((power + 1) / 2, 0, 1)) for power in powers}


def test_does_dpo_drain_the_winner(explorer):
    explorer.tell("Does DPO drain the winner?")
    assert explorer.numbers["ratio A"] == pytest.approx(0.2)
    change = rows(explorer, "A")["delta_prob"]
    assert change["winner"] == pytest.approx(0.049, abs=5e-4)
    assert change["loser"] == pytest.approx(-0.021, abs=5e-4)
    assert 3 * change["each other"] == pytest.approx(-change["winner"] - change["loser"])
    assert rows(explorer, "A")["minus_grad_logit"]["each other"] == pytest.approx(0, abs=rounding(16))
    rng = np.random.default_rng(0)
    for _ in range(30):  # no step of DPO lowers its winner
        win, lose = rng.dirichlet([0.3, 0.3, 0.3])[:2].clip(1e-12, 0.499)
        n, step = int(rng.integers(3, 21)), float(10 ** rng.uniform(-3, 2))
        log_p = effects.policy(np.log([win, lose]), n)
        assert effects.effect(pair_loss("dpo"), log_p, np.log([0.1, 0.1]), step).change[0] >= 0


def test_a_rare_loser(explorer):
    explorer.tell("A rare loser")
    dpo, bdpo = rows(explorer, "A"), rows(explorer, "B")
    assert 1 / explorer.numbers["ratio A"] == pytest.approx(500_000)
    assert dpo["delta_logp"]["loser"] == pytest.approx(-0.78, abs=5e-3)
    assert bdpo["delta_logp"]["loser"] == pytest.approx(-0.12, abs=5e-3)
    assert explorer.numbers["λ_w B"] == pytest.approx(0.95, abs=5e-3)
    for shown, gain in ((dpo, 0.12), (bdpo, 0.08)):
        assert shown["delta_prob"]["winner"] == pytest.approx(gain, abs=5e-3)
        assert -3 * shown["delta_prob"]["each other"] == pytest.approx(shown["delta_prob"]["winner"], rel=1e-4)


def test_a_rare_winner(explorer):
    explorer.tell("A rare winner")
    assert explorer.numbers["ratio A"] == pytest.approx(70)
    assert explorer.numbers["λ_w B"] == pytest.approx(0.07, abs=5e-3)
    for side, taken, given, digits in (("A", 0.25, 0.04, 5e-3), ("B", 0.07, 0.002, 5e-4)):
        change = rows(explorer, side)["delta_prob"]
        assert change["loser"] == pytest.approx(-taken, abs=5e-3)
        assert change["winner"] == pytest.approx(given, abs=digits)
        assert 3 * change["each other"] > 0.8 * taken


def test_balanced_weights_at_work(explorer):
    explorer.tell("Balanced weights at work")
    dpo, bdpo = rows(explorer, "A"), rows(explorer, "B")
    pulls = bdpo["minus_grad_logp"]
    assert -pulls["winner"] / pulls["loser"] == pytest.approx(3.3, abs=0.05)
    assert explorer.numbers["ratio B"] == pytest.approx(0.66, abs=5e-3)
    assert dpo["delta_prob"]["winner"] == pytest.approx(0.046, abs=5e-4)
    assert bdpo["delta_prob"]["winner"] == pytest.approx(0.045, abs=5e-4)
    assert 0 > bdpo["delta_prob"]["loser"] > dpo["delta_prob"]["loser"]
    assert bdpo["delta_prob"]["each other"] < dpo["delta_prob"]["each other"] < 0
    assert bdpo["minus_grad_logit"]["each other"] < -0.02


def test_long_sequences_the_correction_fades(explorer):
    explorer.tell("Long sequences: the correction fades")
    assert 1 / explorer.numbers["ratio A"] == pytest.approx(1000)
    assert 1 / explorer.numbers["ratio B"] == pytest.approx(750)
    assert np.log(explorer.controls["lose"].value) == pytest.approx(-27.6, abs=0.05)
    rho = np.exp(bdpo_log_rho(-100.0, -100.0 - np.log(1000)))
    assert rho == pytest.approx(1.07, abs=5e-3)
    assert 1000 / rho == pytest.approx(935, abs=1)


@pytest.mark.parametrize("title", [None, *STORIES])
@pytest.mark.parametrize("change", [
    {}, {"responses": 3, "reference": "own values"}, {"reference": "own values", "loss_b": "nbdpo-symmetric"},
])  # fmt: skip
def test_copied_code_gives_the_numbers_shown(explorer, title, change, capsys):
    if title:
        explorer.tell(title)
    explorer.set(**change)
    names: dict = {}
    exec(explorer.as_python(), names)
    assert "λ_w" in capsys.readouterr().out
    columns = {
        "−∂L/∂π": "minus_grad_prob", "−∂L/∂log π": "minus_grad_logp", "−∂L/∂logit": "minus_grad_logit",
        "Δ log π": "delta_logp", "Δ log π, first order": "delta_logp_first_order", "Δπ": "delta_prob",
        "loss": "loss_value", "|∂L/∂π_w| / |∂L/∂π_l|": "prob_ratio", "λ_w": "win_weight",
    }  # fmt: skip
    for side in "AB":
        shown = rows(explorer, side)
        for key, column in columns.items():
            np.testing.assert_allclose(shown[column], names["results"][side][key], rtol=1e-9, atol=1e-15, err_msg=key)


def test_the_frame_is_of_what_is_shown_even_after_an_error(explorer, monkeypatch):
    explorer.set(responses=3)
    shown = explorer.frame()
    with monkeypatch.context() as patch:
        patch.setattr(explorer, "compute", lambda state: 1 / 0)
        explorer.set(responses=9)
        assert explorer.error is not None
        assert explorer.frame().equals(shown)

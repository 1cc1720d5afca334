"""Grid training shows what ``fit`` and the metrics give, and its stories are true."""

import numpy as np
import pytest
import torch

from gradlab.lab import metrics
from gradlab.lab.fit import fit
from gradlab.lab.policy import tabular_policy
from gradlab.lab.world import gaussian_world
from gradlab.losses import DPO, IPO, BalancedDPO, NaiveBalancedDPO, PairLogps, log_prob_ratio
from gradlab.plotting.chart_scales import spelt
from gradlab.plotting.charts import Map
from gradlab.widgets import GridExplorer


@pytest.fixture(scope="module")
def grid():
    made = GridExplorer()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def from_the_start(grid):
    grid.reset()


def ends(grid, side):
    return {name: values[0, -1] for name, values in grid.result.sides[side].curves.items()}


def test_the_numbers_are_those_of_fit(grid):
    grid.set(loss_b="nbdpo", clip_b=0.3, beta_b=0.7, mask_rate=0.2, policy="shared", pairs=100, seed=3, steps=150)
    world = gaussian_world(mask_rate=0.2, seed=3)
    losses = {"A": DPO(), "B": NaiveBalancedDPO(0.7, clip=0.3)}
    for side, loss in losses.items():
        trained = fit(world, loss, policy=tabular_policy("shared"), pairs=100, steps=150, seed=3)
        end = trained.history.iloc[-1]
        for title, name in (("E[u]", "utility"), ("KL", "kl"), ("unobserved", "unobserved_mass")):
            assert grid.numbers[f"{title} {side}"] == pytest.approx(end[name], rel=1e-12)
        assert grid.frame().query("side == @side").iloc[-1]["utility"] == pytest.approx(end["utility"], rel=1e-12)


def test_the_step_looked_at_is_the_one_drawn(grid):
    grid.set(when=0)
    assert grid.numbers["step"] == 0
    world = grid.result.world
    start = metrics.expected_utility(torch.tensor(world.ref_logp), torch.tensor(world.utility))
    assert grid.numbers["E[u] A"] == grid.numbers["E[u] B"] == pytest.approx(float(start), rel=1e-12)
    assert torch.equal(grid.result.logp("a"), grid.result.logp("b"))
    grid.set(when=100)
    assert grid.numbers["step"] == 500
    maps = {chart.title: chart for chart in grid.charts(grid.result, None) if isinstance(chart, Map)}
    np.testing.assert_allclose(maps["A DPO"].values.sum(1), 1, rtol=1e-12)
    np.testing.assert_array_equal(maps["B bDPO"].values, grid.result.logp("b").exp())
    np.testing.assert_array_equal(maps["World: utility u"].values, world.utility)


def test_losses_of_the_margin_have_the_papers_ratio_on_trained_policies_and_balanced_dpo_does_not(grid):
    grid.set(loss_a="ipo")
    world, prompt = grid.result.world, grid.result.prompt
    win, lose = np.nonzero(world.utility[prompt][:, None] > world.utility[prompt][None, :])
    assert len(win) == 190
    ref = torch.tensor(world.ref_logp[prompt])
    ratios = {}
    for side, loss in (("a", IPO()), ("b", BalancedDPO())):
        logp = grid.result.logp(side)[prompt].double()
        pairs = PairLogps(logp[win], logp[lose], ref[win], ref[lose])
        ratios[side] = (log_prob_ratio(loss, pairs).numpy(), (pairs.lose - pairs.win).numpy())
    up, across = ratios["a"]
    np.testing.assert_allclose(up, across, atol=1e-9)
    up, across = ratios["b"]
    assert np.abs(up - across).max() > 0.1
    assert np.all(np.abs(up) <= np.abs(across) + 1e-9)  # nearer to symmetry, never beyond


@pytest.mark.parametrize("title", ["start", *(story.title for story in GridExplorer.stories)])
def test_the_copied_python_computes_what_is_shown(grid, title):
    if title != "start":
        grid.tell(title)
    grid.set(when=80)
    space = {"print": lambda *_: None}
    exec(grid.as_python(), space)
    for side in "AB":
        row = space["trained"][side].history.iloc[space["index"]]
        assert row["step"] == grid.numbers["step"]
        assert row["utility"] == pytest.approx(grid.numbers[f"E[u] {side}"], rel=1e-12)


def test_the_stories_are_true(grid):
    grid.tell("When bDPO helps")
    dpo, bdpo = ends(grid, "a"), ends(grid, "b")
    assert bdpo["utility"] > dpo["utility"]
    assert bdpo["unobserved_mass"] < dpo["unobserved_mass"]

    grid.tell("When it hurts")
    for steps in (500, 2000):
        grid.set(steps=steps)
        assert ends(grid, "b")["utility"] < ends(grid, "a")["utility"] - 1

    grid.reset()
    assert ends(grid, "b")["utility"] > ends(grid, "a")["utility"]
    grid.tell("The effective-β confound")
    assert ends(grid, "a")["utility"] > ends(grid, "b")["utility"]

    grid.tell("Mass that nobody named")
    mass = {side: grid.result.sides[side].curves["unobserved_mass"][0] for side in ("a", "b")}
    assert mass["b"][-1] < mass["a"][-1] < mass["a"][0]


def test_only_the_numbers_that_a_loss_has_can_be_set(grid):
    def shown():
        return set(grid.controls) - set(grid.front.hidden)

    assert {"clip_a", "win_weight_a", "label_smoothing_a", "shift"}.isdisjoint(shown())
    grid.set(loss_a="cdpo", reference="shifted")
    assert {"label_smoothing_a", "shift"} <= shown()


def test_a_mask_of_pairs_hides_pairs(grid):
    grid.set(mask_kind="pairs")
    before = grid.numbers
    grid.set(mask_rate=0.8)
    assert grid.result.world.comparable().sum() == 20 * 2 * (190 - 152)
    assert grid.numbers != before


def test_a_start_of_other_losses_is_taken():
    grid = GridExplorer(loss_a="bdpo", beta_a=2.0, loss_b="ipo")
    assert grid.result.sides["a"].fit.settings["loss"] == repr(BalancedDPO(2.0))
    assert grid.result.sides["b"].fit.settings["loss"] == repr(IPO(1.0))
    grid.close()


def test_seeds_are_worlds_and_data_of_their_own_with_a_band(grid):
    grid.set(seeds=5, seed=7, pairs=20, mask_rate=0.2, steps=60)
    alone = fit(gaussian_world(mask_rate=0.2, seed=9), DPO(), pairs=20, steps=60, record=24, seed=9)
    assert torch.equal(grid.result.sides["a"].fit.policies[:, 2], alone.policies)
    reward = next(chart for chart in grid.charts(grid.result, None) if chart.title == "Reward")
    values = grid.result.sides["a"].curves["utility"]
    assert values.shape == (5, len(grid.result.steps))
    np.testing.assert_allclose(reward.curves[0].y, values.mean(0))
    np.testing.assert_allclose(reward.curves[0].low, np.quantile(values, 0.1, axis=0))
    np.testing.assert_allclose(reward.curves[0].high, np.quantile(values, 0.9, axis=0))
    assert (reward.y.low, reward.y.high) == (0, np.ceil(max(curve.high.max() for curve in reward.curves)))
    assert set(grid.frame()["seed"]) == {7, 8, 9, 10, 11}
    assert grid.numbers["E[u] A"] == pytest.approx(values[:, grid.result.index].mean(), rel=1e-12)
    first, second = (grid.result.sides[side].curves["utility"][:, -1].mean() for side in "ab")
    assert f"by {spelt(abs(first - second))} nats" in grid.outcome(grid.result)[1]
    grid.set(seeds=1)
    assert next(chart for chart in grid.charts(grid.result, None) if chart.title == "Reward").curves[0].low is None


def test_the_share_is_that_of_the_reachable_reward(grid):
    world, logp = grid.result.world, grid.result.logp("a")
    share = metrics.utility_share(logp, torch.tensor(world.utility), torch.tensor(world.ref_logp))
    assert grid.numbers["share A"] == pytest.approx(float(share), rel=1e-12)


def test_the_guess_is_judged_by_the_reward_at_the_end(grid):
    grid.set(when=0)
    truth, sentence = grid.outcome(grid.result)
    gap = ends(grid, "b")["utility"] - ends(grid, "a")["utility"]
    assert truth == "b"
    assert sentence == f"B bDPO ends highest, by {gap:.4g} nats."
    grid.set(loss_b="dpo")
    assert grid.outcome(grid.result) == ("equal", "The best two end within 0.02 nats of each other.")


def test_more_losses_are_compared_side_by_side(grid):
    grid.set(count=6, steps=50)
    assert grid.error is None
    titles = [chart.title for chart in grid.charts(grid.result, None) if isinstance(chart, Map)]
    assert titles == [
        "World: utility u", "A DPO", "B bDPO", "C nbDPO", "D constant λ = 0.5", "E IPO", "F cDPO",
    ]  # fmt: skip
    assert len({grid.numbers[f"E[u] {side}"] for side in "ABCDEF"}) >= 5

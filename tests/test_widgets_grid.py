"""Grid training shows what ``fit`` and the metrics give, and its stories are true."""

import numpy as np
import pytest
import torch

from gradlab.lab import metrics
from gradlab.lab.fit import fit
from gradlab.lab.policy import tabular_policy
from gradlab.lab.world import gaussian_world
from gradlab.losses import DPO, IPO, BalancedDPO, NaiveBalancedDPO
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
    return {name: values[-1] for name, values in grid.result.curves[side].items()}


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
    np.testing.assert_allclose(grid._images["difference"].get_array(), 0, atol=1e-15)
    grid.set(when=100)
    assert grid.numbers["step"] == 500
    np.testing.assert_allclose(grid._images["_a"].get_array().sum(1), 1, rtol=1e-12)


def test_losses_of_the_margin_lie_on_the_diagonal_of_the_scatter_and_balanced_dpo_does_not(grid):
    grid.set(loss_a="ipo")
    across, up = grid._dots["_a"].get_data()
    assert len(across) == 190
    np.testing.assert_allclose(up, across, atol=1e-9)
    across, up = grid._dots["_b"].get_data()
    assert np.abs(up - across).max() > 0.1
    assert np.all(np.abs(up) <= np.abs(across) + 1e-9)  # nearer to symmetry, never beyond


@pytest.mark.parametrize("title", ["start", *(story.title for story in GridExplorer.stories)])
def test_the_copied_python_computes_what_is_shown(grid, title):
    if title != "start":
        grid.tell(title)
    grid.set(when=80)
    space = {"print": lambda *_: None}
    exec(grid.as_python(), space)
    for side in "ab":
        row = space[side].history.iloc[space["index"]]
        assert row["step"] == grid.numbers["step"]
        assert row["utility"] == pytest.approx(grid.numbers[f"E[u] {side.upper()}"], rel=1e-12)


def test_the_stories_are_true(grid):
    grid.tell("When bDPO helps")
    dpo, bdpo = ends(grid, "_a"), ends(grid, "_b")
    assert bdpo["utility"] > dpo["utility"]
    assert bdpo["unobserved_mass"] < dpo["unobserved_mass"]

    grid.tell("When it hurts")
    for steps in (500, 2000):
        grid.set(steps=steps)
        assert ends(grid, "_b")["utility"] < ends(grid, "_a")["utility"] - 1

    grid.reset()
    assert ends(grid, "_b")["utility"] > ends(grid, "_a")["utility"]
    grid.tell("The effective-β confound")
    assert ends(grid, "_a")["utility"] > ends(grid, "_b")["utility"]

    grid.tell("Mass that nobody named")
    mass = {side: grid.result.curves[side]["unobserved_mass"] for side in ("_a", "_b")}
    assert mass["_b"][-1] < mass["_a"][-1] < mass["_a"][0]


def test_only_the_numbers_that_a_loss_has_can_be_set(grid):
    def shown():
        return {key for key, control in grid.controls.items() if control.layout.display != "none"}

    assert {"clip_a", "win_weight_a", "label_smoothing_a", "shift"}.isdisjoint(shown())
    grid.set(loss_a="cdpo", reference="shifted")
    assert {"label_smoothing_a", "shift"} <= shown()


def test_a_mask_of_pairs_hides_pairs():
    grid = GridExplorer(mask_kind="pairs")
    before = grid.png()
    grid.set(mask_rate=0.8)
    assert grid.result.world.comparable().sum() == 20 * 2 * (190 - 152)
    assert grid.png() != before


def test_a_start_of_other_losses_is_taken():
    grid = GridExplorer(loss_a="bdpo", beta_a=2.0, loss_b="ipo")
    assert grid.result.fits["_a"].settings["loss"] == repr(BalancedDPO(2.0))
    assert grid.result.fits["_b"].settings["loss"] == repr(IPO(1.0))

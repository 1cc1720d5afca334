"""The explorer of sampling: its sentences, its guess, and what it says of where a loss settles."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import gradlab as gl
from gradlab.widgets import SamplingExplorer
from gradlab.widgets.sampling_explorer import RECIPE, SAMPLERS, trained

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::gradlab.lab.engine.fusion.EagerNotice")]


@pytest.fixture(scope="module")
def explorer():
    made = SamplingExplorer()
    made.finish()
    yield made
    made.close()


def finished(explorer, **changes):
    explorer.reset()
    explorer.set(**changes)
    explorer.finish()
    assert explorer.error is None, explorer.error
    return explorer.result


def test_on_policy_pairs_are_less_imbalanced_and_more_of_it_is_corrected(explorer):
    result = finished(explorer)
    assert explorer.outcome(result)[0] == "falls"
    assert explorer.numbers["imbalance sampler"] < 0.9 * explorer.numbers["imbalance uniform"]
    assert explorer.numbers["corrected sampler"] > explorer.numbers["corrected uniform"]


@pytest.mark.parametrize("sampler", ["mix-r", "mix-p:beta={beta}"])
def test_samplers_of_unequal_pairs_raise_the_imbalance(explorer, sampler):
    assert explorer.outcome(finished(explorer, sampler=sampler))[0] == "rises"


def test_the_best_against_the_worst_is_less_unequal_than_a_uniform_pair(explorer):
    assert explorer.outcome(finished(explorer, sampler="best-worst:draws=4"))[0] == "falls"


def test_dpo_settles_at_one_policy_and_bdpo_does_not(explorer):
    assert finished(explorer, loss="dpo").apart < 1e-9
    assert 1e-4 < finished(explorer).apart < 1e-2
    assert "without full support" in finished(explorer, sampler=SAMPLERS["top 5"]).apart
    assert "prompts settle" in finished(explorer, scale=6.0).apart


def test_the_top_five_keep_dpo_from_its_optimum(explorer):
    result = finished(explorer, loss="dpo", sampler=SAMPLERS["top 5"])
    assert np.abs(result.sampled.policy - np.exp(result.ideal)).max() > 0.01
    assert np.abs(result.even.policy - np.exp(result.ideal)).max() < 0.01


@pytest.mark.parametrize("every", [1, 10, 100])
def test_the_pairs_that_are_shown_are_those_that_the_training_saw(every):
    """Between two looks the sampler has the policy of the last one, and not today's."""
    world, law, loss = gl.gaussian_world(prompts=4, sigma=3.0), gl.samplers.OnPolicy(), gl.BalancedDPO()
    steps, side = trained(world, loss, law, SimpleNamespace(data="exact", every=every, seed=0))
    place = int(np.searchsorted(steps, 150))
    looked = steps[place] // every * every
    recipe = RECIPE.but(pairs=None, sampler=law, sampler_every=every)
    then, now = (
        gl.fit(world, loss, recipe.but(steps=int(step))).policies[-1].double() for step in (looked, steps[place])
    )
    pairs = then.exp()[..., :, None] * then.exp()[..., None, :]
    pairs *= ~torch.eye(len(pairs[0]), dtype=bool)
    apart = (now[..., :, None] - now[..., None, :]).abs()
    seen = ((pairs * apart).sum((-2, -1)) / pairs.sum((-2, -1))).mean()
    assert side.imbalance[place] == pytest.approx(float(seen), rel=1e-4)


def test_uniform_sampling_is_itself_its_comparison(explorer):
    result = finished(explorer, sampler="uniform")
    assert result.ratio == 1
    assert explorer.outcome(result)[0] == "stays"


@pytest.mark.parametrize("story", SamplingExplorer.stories, ids=lambda story: story.title)
def test_the_code_of_every_story_gives_the_numbers(explorer, story):
    explorer.tell(story.title)
    scope = {}
    exec(explorer.as_python(), scope)
    last = scope["fitted"].history.iloc[-1]
    assert last["utility_share"] == pytest.approx(explorer.numbers["reward sampler"], abs=1e-6)


def test_before_a_guess_the_imbalance_is_not_seen(explorer):
    finished(explorer)
    shown = explorer.before_guess(explorer.charts(explorer.result, None))
    assert [chart.title for chart in shown] == ["the policy at the end", "reward"]
    assert gl.widgets.EXPLORERS["sampling"] is SamplingExplorer

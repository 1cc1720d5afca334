"""The explorer of scale: its numbers meet plain computations, and its stories, texts and guess say what is true."""

import math

import numpy as np
import pytest
import torch
from one_explorer import one_explorer

from gradlab.losses import DPO, BalancedDPO, balanced_weights
from gradlab.theory import explained_by_length
from gradlab.widgets import ScaleExplorer
from gradlab.widgets.scale_explorer import ENOUGH, FEW, PAIRS, SOME

shared, explorer = one_explorer(ScaleExplorer)


def test_weights_and_shares_are_those_of_the_world_s_pairs(explorer):
    result = explorer.result
    logps = result.world.pairs(result.world.reference)
    np.testing.assert_array_equal(result.weight, balanced_weights(logps.win, logps.lose)[0].numpy())
    assert len(result.weight) == PAIRS
    slope, offset = np.polyfit(result.share, result.weight, 1)
    left = result.weight - slope * result.share - offset
    assert result.explained == pytest.approx(1 - left.var() / result.weight.var(), abs=1e-12)


def test_the_guess_is_where_the_law_crosses_ninety_percent(explorer):
    for variation, truth in ((0.0, "many"), (0.04, "many"), (0.1, "some"), (0.5, "few")):
        explorer.set(variation=variation)
        assert explorer.outcome(explorer.result)[0] == truth
        needed = explorer.result.needed
        if math.isfinite(needed):
            assert explained_by_length(*explorer.result.surprisal, needed, variation) == pytest.approx(ENOUGH)
    assert f"fewer than {FEW}" in explorer.answers["few"]
    assert f"more than {SOME}" in explorer.answers["many"]


def test_the_answer_is_hidden_before_the_guess(explorer):
    charts = explorer.charts(explorer.result, None)
    hidden = explorer.before_guess(charts)
    assert charts[2].curves
    assert not hidden[2].curves
    assert hidden[0] is charts[0]


def test_stories_say_what_is_true(explorer):
    stories = iter(explorer.stories)
    explorer.tell(next(stories).title)  # one token
    assert explorer.numbers["from half"] > 1 / 3
    explorer.tell(next(stories).title)  # long and equal
    assert np.abs(explorer.result.weight - 0.5).max() < 0.02
    assert explorer.numbers["from half"] < 0.1
    explorer.tell(next(stories).title)  # long and unequal
    assert explorer.result.explained > 0.99
    assert explorer.numbers["from length"] < 0.1
    assert explorer.numbers["from half"] > 0.5
    explorer.tell(next(stories).title)  # many responses
    ten = explorer.result.spreads[0]
    assert explorer.numbers["crowd spread"] < ten / 2
    assert explorer.result.spreads[-1] == pytest.approx(explorer.numbers["crowd spread"])
    assert next(stories, None) is None


def test_responses_are_counted_in_whole_groups(explorer):
    for given, number in ((10.0, 10), (39.4, 39), (100.0, 80), (3200.0, 3200)):
        explorer.set(n=given)
        assert explorer.result.responses == number


def test_the_copied_code_prints_the_numbers_shown(explorer, capsys):
    explorer.set(length=16.0, variation=0.3, beta=0.5)
    exec(explorer.as_python(), {})
    printed = capsys.readouterr().out
    assert f"from half {explorer.result.distances['half']}" in printed
    assert f"from length {explorer.result.distances['length']}" in printed
    assert f"spread of λ {explorer.result.spread}"[:24] in printed


def test_losses_of_groups_are_those_of_the_single_responses():
    from gradlab.experiments.questions.scale_runs import OfGroups
    from gradlab.losses import PairLogps

    logps = PairLogps(*(torch.tensor([value], dtype=torch.float64) for value in (-1.0, -2.0, -1.5, -1.5)))
    assert torch.equal(OfGroups(DPO(), 4)(logps), DPO()(logps))  # a margin of ratios does not see the size of groups
    each = math.log(4)
    moved = PairLogps(*(getattr(logps, name) - each for name in ("win", "lose", "ref_win", "ref_lose")))
    assert torch.equal(OfGroups(BalancedDPO(), 4)(logps), BalancedDPO()(moved))

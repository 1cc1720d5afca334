"""Means over tokens go into no loss that takes means itself."""

import re

import pytest
import torch

from gradlab.llm.train.reductions import check_reduction, divides_by_length
from gradlab.losses import BATCH_LOSSES, DPO, PAIR_LOSSES, PairLogps, WeightedLosses, from_text
from gradlab.losses.formula import unregistered
from gradlab.losses.reference_free import SimPO
from tests.tiny_llm import tiny_settings

AVERAGING = {
    "simpo", "trl-simpo", "trl-cpo", "orpo", "alphapo", "trl-ipo", "sigmoid-norm", "alpha-dpo", "wpo",
}  # fmt: skip
SHIPPED = [name for name in (*PAIR_LOSSES, *BATCH_LOSSES) if from_text(name).__class__.__module__.startswith("gradlab")]


def by_length(loss, tokens):
    """dL/dL of the summed values, where both responses of each pair have so many tokens."""
    lengths = torch.full((3,), tokens, dtype=torch.float64, requires_grad=True)
    sides = [
        torch.tensor(side).double()
        for side in ([-9.0, -20, -31], [-11.0, -16, -40], [-8.0, -22, -30], [-12, -15.0, -39])
    ]
    total = loss(PairLogps(*sides, lengths, lengths)).sum()
    if not total.requires_grad:
        return 0.0
    (slope,) = torch.autograd.grad(total, lengths, allow_unused=True)
    return 0.0 if slope is None else float(slope.abs().max())


def test_the_losses_that_average_are_these():
    assert {name for name in SHIPPED if divides_by_length(from_text(name))} == AVERAGING


@pytest.mark.parametrize("name", SHIPPED)
def test_a_loss_averages_if_equal_lengths_move_it(name):
    # wpo's weight has no graph, so its derivative is left out; the test above has it.
    if name != "wpo":
        assert (by_length(from_text(name), 10.0) > 1e-6) == divides_by_length(from_text(name))


def test_losses_of_means_would_divide_twice():
    sums = PairLogps(
        *(torch.tensor([side]) for side in (-120.0, -260.0, -130.0, -240.0)), *map(torch.tensor, ([100], [200]))
    )
    assert SimPO(beta=1.0, gamma=0.0).margin(sums).item() == pytest.approx(0.1)
    means = PairLogps(
        sums.win / 100, sums.lose / 200, sums.ref_win / 100, sums.ref_lose / 200, sums.win_len, sums.lose_len
    )
    assert SimPO(beta=1.0, gamma=0.0).margin(means).item() == pytest.approx(-0.0055)


@pytest.mark.parametrize("name", sorted(AVERAGING))
def test_a_run_of_means_refuses_them_in_one_line(tmp_path, name):
    line = f"reduction must be sum with {name}, which divides log π by the length itself; got 'mean'"
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        tiny_settings(tmp_path, tmp_path / "out", reduction="mean", loss=("dpo", name))
    assert tiny_settings(tmp_path, tmp_path / "out", loss=(name,)).reduction == "sum"


def test_losses_that_compare_lengths_take_means(tmp_path):
    known = tiny_settings(tmp_path, tmp_path / "out", reduction="mean", loss=("bdpo", "length-dpo", "r-dpo", "kto"))
    assert known.reduction == "mean"


def test_a_part_that_averages_makes_the_whole_average():
    mixed = WeightedLosses(((DPO(0.1), 1.0), (SimPO(), 0.5)))
    with pytest.raises(ValueError, match=r"reduction must be sum with dpo\+0.5\*simpo"):
        check_reduction("reduction", "mean", mixed, mixed.name)
    check_reduction("reduction", "sum", mixed, mixed.name)
    check_reduction("reduction", "mean", WeightedLosses(((DPO(0.1), 1.0),)), "dpo")


def test_a_loss_of_ones_own_is_judged_by_its_numbers():
    assert divides_by_length(unregistered("own", "-logsigmoid(beta * (l_w / L_w - l_l / L_l))", beta=1.0))
    assert not divides_by_length(unregistered("own", "-logsigmoid(h_w - h_l + gamma * (L_w - L_l))", gamma=0.1))

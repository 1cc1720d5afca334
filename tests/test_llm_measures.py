"""A batch's row of the training log: hand-made numbers, extremes, and what is left out."""

import math
from dataclasses import replace

import pytest
import torch

from gradlab.doctor.log_columns import COLUMNS
from gradlab.llm.train.measures import batch_row
from gradlab.losses import DPO, IPO, PAIR_LOSSES, BalancedDPO, FixedWeightDPO, PairLogps, log_prob_ratio, slopes

WEIGHTS = {"win_weight", "win_weight_q10", "win_weight_q50", "win_weight_q90"}


def pairs(win, lose, ref_win, ref_lose, *lengths, dtype=torch.float64):
    sides = (torch.tensor(one, dtype=dtype) for one in (win, lose, ref_win, ref_lose))
    return PairLogps(*sides, *(torch.tensor(one) for one in lengths))


def at_beta(name, beta):
    loss = PAIR_LOSSES[name]()
    return replace(loss, beta=beta) if hasattr(loss, "beta") else loss


def drawn(number=50):
    draw = torch.Generator().manual_seed(0)
    sides = -1 - 30 * torch.rand(2, number, generator=draw, dtype=torch.float64)
    near = sides - 2 + 4 * torch.rand(2, number, generator=draw, dtype=torch.float64)
    return PairLogps(*sides, *near.clamp(max=0), *torch.randint(1, 30, (2, number), generator=draw))


def test_the_numbers_of_two_pairs_made_by_hand():
    row = batch_row(DPO(beta=0.5), pairs([-2.0, -5.0], [-3.0, -4.0], [-3.0, -4.0], [-3.0, -6.0]))
    weight = [1 / (1 + math.exp(one)) for one in (0.5, -1.5)]  # σ(−m), m = (0.5, −1.5)
    assert row == pytest.approx({
        "loss": (math.log1p(math.exp(-0.5)) + math.log1p(math.exp(1.5))) / 2, "reward_win": 0.0, "reward_lose": 0.5,
        "reward_margin": -0.5, "margin": -0.5, "accuracy": 0.5, "logp_win": -3.5, "logp_lose": -3.5,
        "win_weight": 0.5, "win_weight_q10": 0.5, "win_weight_q50": 0.5, "win_weight_q90": 0.5,
        "slope_win": -0.25 * sum(weight), "slope_lose": 0.25 * sum(weight), "log_prob_ratio": 0.0,
    })  # fmt: skip


def test_the_balanced_weight_is_the_losers_share_of_the_log_probabilities():
    logps = drawn()
    row = batch_row(BalancedDPO(beta=0.3), logps)
    weight = logps.lose / (logps.win + logps.lose)
    assert row["win_weight"] == pytest.approx(weight.mean().item())
    for quantile in (10, 50, 90):
        assert row[f"win_weight_q{quantile}"] == pytest.approx(weight.quantile(quantile / 100).item())
    tokens = logps.win_len / (logps.win_len + logps.lose_len)
    both = torch.stack([weight, tokens])
    assert row["win_weight_length_correlation"] == pytest.approx(torch.corrcoef(both)[0, 1].item(), rel=1e-5)
    ratio = (logps.lose / logps.win).log() + logps.lose - logps.win
    assert row["log_prob_ratio"] == pytest.approx(ratio.mean().item())


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_every_loss_has_its_columns_and_the_slopes_are_autograds(name):
    loss, logps = at_beta(name, 0.3), drawn()
    row = batch_row(loss, logps)
    assert set(row) <= set(COLUMNS)
    assert ("margin" in row) == hasattr(loss, "margin")
    assert row.keys() >= WEIGHTS | {"loss", "slope_win", "slope_lose"}
    win, lose = logps.win.clone().requires_grad_(), logps.lose.clone().requires_grad_()
    loss(replace(logps, win=win, lose=lose)).mean().backward()
    assert row["slope_win"] == pytest.approx(win.grad.sum().item())
    assert row["slope_lose"] == pytest.approx(lose.grad.sum().item())
    ratios = log_prob_ratio(loss, logps)
    finite = ratios[ratios.isfinite()]  # 0/0 of a hinge, and ±∞ where one side has no slope
    assert ("log_prob_ratio" in row) == (name != "bpo") == (len(finite) > 0)  # BPO pulls at one side of each pair
    if len(finite):
        assert row["log_prob_ratio"] == pytest.approx(finite.mean().item())
    torch.testing.assert_close(slopes(loss, logps)[0] / len(win), win.grad)


@pytest.mark.parametrize("name", PAIR_LOSSES)
@pytest.mark.parametrize("number", [1, 2])
def test_nothing_is_lost_at_log_probabilities_of_a_million(name, number):
    tokens = [300_000] * number
    logps = pairs([-1e6] * number, [-1.0] * number, [-1e6 + 3] * number, [-2.0] * number, tokens, tokens)
    row = batch_row(at_beta(name, 1.0), logps)
    assert all(math.isfinite(value) for value in row.values()), row
    if name in ("bpo", "ada-dpo"):  # the former pulls at the winner alone, of the latter's λ = π_w/π_l nothing is left
        assert "log_prob_ratio" not in row
    else:
        assert row["log_prob_ratio"] > 9e5
    assert row["reward_margin"] == pytest.approx(-4.0)
    assert "win_weight_length_correlation" not in row


def test_a_pair_with_one_slope_has_a_weight_and_no_ratio():
    logps = pairs([-1.0, -1.0], [-3.0, -2.0], [-1.0, -1.0], [-2.0, -3.0])  # h_l = −1, where MinorDPO has no slope; 1
    row = batch_row(PAIR_LOSSES["minor-dpo"](), logps)
    assert row["win_weight"] == 0.75
    assert row["log_prob_ratio"] == -1.0


def test_half_precision_any_shape_and_a_graph_are_taken(recwarn):
    rough = pairs([[-100.0, -7.0]], [[-90.0, -8.0]], [[-101.0, -7.0]], [[-90.0, -8.0]], [[4, 5]], [[9, 2]])
    sides = (rough.win, rough.lose, rough.ref_win, rough.ref_lose)
    half = PairLogps(*(one.bfloat16().requires_grad_() for one in sides), rough.win_len, rough.lose_len)
    assert batch_row(BalancedDPO(), half) == pytest.approx(batch_row(BalancedDPO(), rough), rel=5e-3)
    with torch.no_grad():
        assert batch_row(BalancedDPO(), rough)["slope_win"] != 0
    flat = PairLogps(*(one.flatten() for one in vars(rough).values()))
    assert batch_row(BalancedDPO(), flat) == batch_row(BalancedDPO(), rough)
    assert not recwarn


def test_a_shared_reference_is_spread_over_the_pairs():
    logps = drawn(4)
    one = PairLogps(logps.win, logps.lose, torch.tensor(-3.0), torch.tensor(-4.0))
    all_of_them = PairLogps(logps.win, logps.lose, torch.full((4,), -3.0), torch.full((4,), -4.0))
    assert batch_row(DPO(), one) == batch_row(DPO(), all_of_them)


def test_the_correlation_stays_out_where_weight_or_lengths_do_not_vary():
    logps = drawn(6)
    same = PairLogps(*list(vars(logps).values())[:4], torch.full((6,), 5), torch.full((6,), 7))
    assert "win_weight_length_correlation" in batch_row(BalancedDPO(), logps)
    assert "win_weight_length_correlation" not in batch_row(BalancedDPO(), same)
    assert "win_weight_length_correlation" not in batch_row(FixedWeightDPO(win_weight=0.3), logps)


def test_pairs_without_a_slope_have_no_weight():
    least = pairs([-1.0, -1.0], [-2.0, -2.0], [-1.5, -1.0], [-2.0, -2.0])  # the first is at the least of IPO's loss
    row = batch_row(IPO(beta=1.0), least)
    assert row["win_weight"] == 0.5
    assert row["log_prob_ratio"] == -1.0
    assert row["slope_win"] == -0.5
    row = batch_row(IPO(beta=1.0), pairs([-1.0], [-2.0], [-1.5], [-2.0]))
    assert row["loss"] == 0
    assert not (WEIGHTS | {"log_prob_ratio"}) & set(row)


def test_a_loss_without_beta_has_rewards_in_nats():
    class Own:
        def __call__(self, logps):
            return logps.lose_logratio - logps.win_logratio

    row = batch_row(Own(), pairs([-2.0], [-3.0], [-3.0], [-5.0]))
    assert (row["reward_win"], row["reward_lose"]) == (1.0, 2.0)
    assert "margin" not in row


def test_what_is_not_a_number_stays_visible():
    row = batch_row(DPO(), pairs([math.nan, -1.0], [-2.0, -2.0], [-1.0, -1.0], [-2.0, -2.0]))
    assert math.isnan(row["loss"])
    assert math.isnan(row["slope_win"])
    assert row["logp_lose"] == -2.0

"""The atlas measures what losses do, and what losses state of themselves is what is measured."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch

import gradlab as gl
from gradlab import atlas
from gradlab.atlas import endpoints as ends
from gradlab.atlas.endpoints import sides
from gradlab.lab.world import draw_pairs, exact_pairs
from gradlab.losses import BATCH_LOSSES, PAIR_LOSSES, ConservativeDPO

every_registered = pytest.mark.parametrize("name", PAIR_LOSSES)


@dataclass(frozen=True)
class Turning:
    """Least at h_w = 3, h_l = −2; it turns both sides, and no fact of it is stated."""

    name = "turning"
    equation = "(h_w − 3)² + (h_l + 2)²"
    source = "a test"
    antisymmetric = False

    def __call__(self, logps):
        return (logps.win_logratio - 3) ** 2 + (logps.lose_logratio + 2) ** 2


@every_registered
def test_what_a_loss_states_of_itself_is_what_is_measured(name):
    assert atlas.disagreements(PAIR_LOSSES[name]()) == []


@every_registered
def test_every_value_and_slope_of_the_atlas_is_a_number(name):
    seen = atlas.measured(PAIR_LOSSES[name]())
    grids = [atlas.by_probability(), atlas.by_logratio()]
    assert all(seen.loss(grid.pairs)[grid.possible].isfinite().all() for grid in grids)
    assert all(map(math.isfinite, seen.start_slopes))
    field = seen.field()
    assert np.isfinite(field.step_win).sum() == np.isfinite(field.win).sum() > 40


def test_dpo_as_measured_is_dpo_as_it_is_known():
    seen = atlas.measured(gl.DPO(beta=2.0))
    assert seen.start == pytest.approx(math.log(2))
    assert seen.start_slopes == pytest.approx((-1.0, 1.0))
    assert (seen.winner_down, seen.loser_up, seen.bounded, seen.optimum) == (False, False, "below", None)
    assert np.nanmax(np.abs(seen.log_ratio())) == 0
    assert all(np.nanmin(side) == np.nanmax(side) == at for side, at in zip(seen.moves(), (1, -1), strict=True))


def test_the_optimum_of_a_margin_is_a_line_and_that_of_two_targets_a_point():
    line = atlas.measured(ConservativeDPO(beta=0.5, label_smoothing=0.2)).optimum
    assert (line.win, line.lose, line.attained) == (None, None, True)
    assert line.margin == pytest.approx(math.log(4) / 0.5, rel=1e-6)
    point = atlas.measured(Turning()).optimum
    assert (point.win, point.lose, point.margin) == pytest.approx((3, -2, 5), rel=1e-6)
    assert point.attained


def test_a_loss_that_falls_for_ever_along_a_path_has_no_optimum():
    class Falling(Turning):
        def __call__(self, logps):
            win, lose = 0.1 * logps.win_logratio, 0.1 * logps.lose_logratio
            return torch.sigmoid(win) + 1 - torch.sigmoid(win - lose)  # least for lose ≪ win ≪ 0

    assert atlas.measured(Falling()).optimum is None


def test_signs_and_bounds_are_found_where_nothing_is_stated():
    seen = atlas.measured(Turning())
    assert (seen.winner_down, seen.loser_up, seen.bounded) == (True, True, "below")
    winner, loser = seen.moves()
    grid = atlas.by_logratio()
    assert (winner == -1).tolist() == (grid.pairs.win_logratio > 3).tolist()
    assert (loser == 1).tolist() == (grid.pairs.lose_logratio < -2).tolist()


@pytest.mark.parametrize(
    ("value", "bounded"),
    [(lambda m: -m, "neither"), (torch.sigmoid, "both"), (lambda m: -torch.nn.functional.softplus(m), "above"),
     (lambda m: torch.log1p(m.abs()), "below"), (lambda m: (m / 10).exp(), "below")],
)  # fmt: skip
def test_bounds_are_those_of_slow_and_fast_functions(value, bounded):
    class Made(Turning):
        def __call__(self, logps):
            return value(0.001 * (logps.win_logratio - logps.lose_logratio))

    assert atlas.measured(Made()).bounded == bounded


def test_a_statement_that_is_not_so_is_told():
    class Wrong(ConservativeDPO):
        winner_down = False
        start_value = 1.0
        optimum = ""
        bounded_above = True
        weight_range = (0.6, 0.7)

    told = " ".join(atlas.disagreements(Wrong()))
    for fact in ("winner_down of cdpo", "start_value", "optimum", "bounded_above", "weight_range"):
        assert fact in told
    assert "loser_up" not in told


def test_a_step_of_dpo_moves_mass_as_softmax_does():
    field = atlas.measured(gl.DPO()).field(8)
    row, column = 1, 3  # π_w = 3.5/8, π_l = 1.5/8
    win, lose = 3.5 / 8, 1.5 / 8
    slope = torch.sigmoid(torch.tensor(-math.log(win / lose))).item()
    logits = np.array([slope, -slope, 0])
    share = np.array([win, lose, 1 - win - lose])
    expected = share * (logits - share @ logits)
    assert (field.win[row, column], field.lose[row, column]) == (win, lose)
    assert (field.step_win[row, column], field.step_lose[row, column]) == pytest.approx(expected[:2].tolist())
    assert field.slope_win[row, column] == pytest.approx(slope / win)
    assert np.isnan(field.step_win[7, 7])


def test_the_table_has_one_row_per_registered_loss_and_the_columns_that_others_read():
    frame = atlas.table()
    assert frame["key"].tolist() == [*PAIR_LOSSES, *BATCH_LOSSES]
    assert list(frame) == [
        "key", "label", "family", "convention", "source", "equation", "numbers", "rho", "start", "win_slope",
        "lose_slope", "winner_down", "loser_up", "optimum", "bounded", "lengths", "reference", "shipped",
    ]  # fmt: skip
    assert set(frame["bounded"]) <= {"below", "above", "both", "neither"}
    assert frame["start"].dtype == float
    assert frame["winner_down"].dtype == bool


def test_trainings_as_published_become_columns():
    kinds = [(0.1, "published", "base"), (1.0, "grid", "base"), (0.1, "published", "noise")]
    rows = [(*kind, seed) for kind in kinds for seed in (0, 1)]
    trained = pd.DataFrame(rows, columns=["beta", "preset", "factor", "seed"]).assign(
        loss="dpo", expected_utility=lambda frame: 10 * frame["beta"] + frame["seed"] + (frame["factor"] != "base"),
        kl_to_reference=0.5, unobserved_mass=0.2, win_logp_change=1.0, lose_logp_change=-2.0,
        rest_logp_change=0.0, level=0.0,
    )  # fmt: skip
    frame = atlas.table(["dpo", "ipo"], trained).set_index("key")
    assert frame.loc["dpo", ["reward", "kl", "unobserved", "win", "lose"]].tolist() == [1.5, 0.5, 0.2, 1.0, -2.0]
    assert frame.loc["ipo", ["reward", "kl", "unobserved", "win", "lose"]].isna().all()


def test_a_name_stands_for_the_loss_as_published():
    every = atlas.table().set_index("key")
    for text, numbers in (("dpo", "beta 0.1"), ("simpo", "beta 2, gamma 1"), ("simpo:gamma=3", "beta 2, gamma 3")):
        named = atlas.table([text]).iloc[0]
        assert named["numbers"] == numbers
        assert bool(named["win_slope"] == every.loc[named["key"], "win_slope"]) is (":" not in text)
    given = atlas.table([gl.DPO(beta=1.0)]).iloc[0]
    assert (given["numbers"], given["win_slope"]) == ("beta 1", pytest.approx(-0.5))
    assert list(atlas.compare(["dpo"], seeds=1, betas=(), training=gl.Training(steps=1)).losses.values()) == [
        gl.DPO(0.1)
    ]


def test_trainings_are_those_of_the_published_numbers_alone():
    """Columns of trainings are empty for other numbers, also of a loss whose source sets none."""
    losses = ["dpo", gl.DPO(beta=1.0), "simpo", "simpo:beta=10", "cdpo", "cdpo:beta=3", Turning()]
    keys = ["dpo", "simpo", "cdpo", "turning"]
    trained = pd.DataFrame({"loss": keys}).assign(
        preset="published", factor="base", beta=0.1, level=0.1, seed=0, expected_utility=1.0, kl_to_reference=0.5,
        unobserved_mass=0.2, win_logp_change=1.0, lose_logp_change=-2.0, rest_logp_change=0.0,
    )  # fmt: skip
    frame = atlas.table(losses, trained)
    there = [True, False, True, False, True, False, True]
    for column in ("reward", "kl", "unobserved", "win", "lose"):
        assert frame[column].notna().tolist() == there


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: atlas.table(["dpo", "nothing"]), ValueError, "loss must be one of"),
        (lambda: atlas.table("dpo"), ValueError, "losses must be a list of losses or their names, got 'dpo'"),
        (lambda: atlas.table([3]), TypeError, "loss must be a loss, such as DPO(beta=1.0), got 3"),
        (
            lambda: atlas.measured(gl.DPO),
            TypeError,
            "loss must be a loss, such as DPO(beta=1.0), got <class 'gradlab.losses.margin.DPO'>",
        ),
        (
            lambda: atlas.table(["dpo"], pd.DataFrame({"loss": ["dpo"]})),
            ValueError,
            "trained must be a data frame with the columns loss, preset",
        ),
        (lambda: atlas.table(["dpo"], "/no/such.parquet"), OSError, "/no/such.json"),
    ],
)
def test_bad_input_gets_one_line(call, error, said):
    with pytest.raises(error) as caught:
        call()
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture(scope="module")
def compared():
    return atlas.compare(["dpo", gl.IPO(beta=0.5)], seeds=2, betas=(0.1, 1.0), training=gl.Training(steps=20, record=1))


def test_a_comparison_has_a_row_per_run_and_a_point_per_beta(compared):
    assert compared.trained.groupby(["loss", "preset"]).size().to_dict() == {
        ("dpo", "published"): 2, ("dpo", "grid"): 4, ("ipo", "published"): 2, ("ipo", "grid"): 4,
    }  # fmt: skip
    assert compared.table["key"].tolist() == ["dpo", "ipo"]
    alone = gl.fit(gl.gaussian_world(mask_rate=0.2, seed=1), gl.IPO(beta=0.5), steps=20, record=1, seed=1)
    rows = compared.trained.query("loss == 'ipo' and preset == 'published' and seed == 1")
    assert rows["expected_utility"].tolist() == [alone.history["utility"].iloc[-1]]
    frontier = atlas.frontier_chart(compared.trained, ["dpo"]).curves[0]
    assert len(frontier.x) == 2
    assert frontier.x[0] < frontier.x[1]  # the largest β first


def test_a_loss_without_a_beta_is_a_point_of_the_frontier():
    found = atlas.compare(["dpo", Turning()], seeds=2, betas=(0.1, 1.0), training=gl.Training(steps=2, record=1))
    curves = {curve.name: curve for curve in atlas.frontier_chart(found.trained, ["dpo", "turning"]).curves}
    assert [len(curves[name].x) for name in ("dpo", "turning")] == [2, 1]


def test_a_world_in_which_training_fails_leaves_the_others_as_they_are(monkeypatch):
    def fragile(worlds, loss, training, seed):
        if 2 in seed and loss.beta == 1.0:
            raise FloatingPointError("the policy is not finite")
        return gl.fit(worlds, loss, training, seed=seed)

    given = {"losses": [gl.DPO(1.0)], "seeds": 4, "betas": [0.1], "training": gl.Training(pairs=20, steps=6, record=2)}
    whole = atlas.compare(**given).trained
    monkeypatch.setattr(ends, "fit", fragile)
    found = atlas.compare(**given).trained
    failed = (found["preset"] == "published") & (found["seed"] == 2)
    assert found.loc[failed, list(ends.NUMBERS)].isna().all(axis=None)
    assert not found.loc[failed, "settled"].any()
    assert failed.sum() == 1
    pd.testing.assert_frame_equal(found[~failed], whole[~failed], check_dtype=False)


@pytest.mark.parametrize("pairs", [None, 5])
def test_winners_and_losers_are_those_of_the_training_s_labels(pairs):
    worlds = [gl.gaussian_world(prompts=3, responses=4, scale=1.0, seed=seed) for seed in (0, 1)]
    found = {}
    for labels in ("hard", "soft"):
        training = gl.Training(pairs=pairs, labels=labels, steps=5, record=1)
        fitted = gl.fit(worlds, gl.DPO(), training, seed=[0, 1])
        rows = ends.ended(ends.endpoints(fitted, worlds, training, [0, 1]))
        data = [
            exact_pairs(world, labels=labels) if pairs is None else draw_pairs(world, pairs, labels=labels, seed=seed)
            for seed, world in enumerate(worlds)
        ]
        expected = sides(fitted.policies.double(), torch.as_tensor(np.stack(data)))
        found[labels] = rows["win_logp_change"].to_numpy()
        for name, changes in expected.items():
            np.testing.assert_array_equal(rows[name], changes[-1])
    assert (found["hard"] > found["soft"]).all()


def test_a_policy_has_settled_where_it_no_longer_moves_after_the_record_nearest_to_half():
    world, training = [gl.gaussian_world(seed=0)], gl.Training(steps=300, record=3)
    for rate, settled in ((1e-7, True), (0.5, False)):
        rows = ends.trained_paths(gl.DPO(0.1), world, training.but(learning_rate=rate, optimizer="adam"), [0])
        assert rows["settled"].tolist() == [settled] * len(rows)


def test_a_comparison_is_a_table_and_a_picture(compared):
    assert len(compared.charts()) == 2 * 3 + 3
    text = compared._repr_html_()
    assert "<table" in text
    assert "data:image/png;base64," in text
    assert 'alt="Maps and trainings of dpo, ipo"' in text


def test_losses_of_one_key_are_told_apart_by_their_numbers():
    found = atlas.compare([gl.DPO(0.1), gl.DPO(1.0)], seeds=1, betas=(), training=gl.Training(steps=1))
    assert list(found.losses) == ["dpo: beta 0.1", "dpo: beta 1"]
    assert found.table["reward"].notna().all()


@pytest.mark.parametrize(
    ("given", "said"),
    [({"losses": []}, "losses must hold at least one loss"), ({"losses": ["dpo", gl.DPO(0.1)]}, "losses must differ"),
     ({"losses": ["dpo"], "seeds": 0}, "seeds must be"), ({"losses": ["dpo"], "betas": [0.0]}, "betas must be")],
)  # fmt: skip
def test_a_comparison_of_nothing_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        atlas.compare(**given)


def test_sides_add_up_to_what_a_pair_leaves():
    start = torch.full((1, 1, 1, 3), -math.log(3), dtype=torch.float64)
    end = torch.tensor([0.7, 0.1, 0.2], dtype=torch.float64).log().reshape(1, 1, 1, 3)
    pairs = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    pairs[0, 0, 0, 1] = 1.0
    changes = sides(torch.cat([start, end]), pairs)
    expected = {"win": math.log(2.1), "lose": math.log(0.3), "rest": math.log(0.6)}
    assert {key: changes[f"{key}_logp_change"][1].item() for key in expected} == pytest.approx(expected)


def test_colours_of_a_map_of_ratios_end_at_eight_times_and_those_of_directions_name_what_turns():
    ratio = atlas.ratio_map(atlas.measured(gl.BalancedDPO()))
    assert np.nanmax(np.abs(ratio.values)) <= 3.04
    turned = atlas.sign_map(atlas.measured(ConservativeDPO()))
    assert set(np.unique(turned.values)) <= {-1.0, 0.0, 1.0}
    assert (turned.struck == (turned.values < 0)).all()  # of a margin, both sides turn together
    field = atlas.step_field(atlas.measured(gl.DPO()))
    assert len(field.at_x) == len(field.colors) == len(field.up)

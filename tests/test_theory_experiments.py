"""The theory's verdicts, recomputed on small cases by another route, and turned over by other data."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, log_softmax, softmax

from gradlab.experiments import EXPERIMENTS, frames
from gradlab.experiments.contrasts import Contrast, Scan, judged

ratios, shift, variance = (EXPERIMENTS[name] for name in ("ratios", "shift", "variance"))


def run(experiment, **settings):
    parts = experiment.parts({**frames.declared(experiment, quick=True), **settings})
    return pd.concat([experiment.run_part(**part) for part in parts], ignore_index=True)


def row(table, words, claim=None):
    found = table[table["statement"].str.contains(words, regex=False)]
    found = found if claim is None else found[found["claim"] == claim]
    assert len(found) == 1, (words, list(table["statement"]))
    return found.iloc[0]


# --- scans and families ----------------------------------------------------------------------------------------------


def scan_of(slack, **kind):
    frame = pd.DataFrame({"slack": slack, "place": range(len(slack))})
    return judged(frame, [Scan("c", "words", "slack", ("place",), 0.1, **kind)]).iloc[0]


def test_a_scan_says_of_every_case_on_which_side_of_the_boundary_it_lies():
    found = scan_of([1.0, 0.1, -0.1, -0.2])
    assert (found["holds"], found["fails"], found["no_difference"]) == (1, 1, 2)
    assert found["effect"] == 0.25
    assert np.isnan(found["low"])  # nothing was drawn at random
    assert scan_of([1.0, 2.0])["verdict"] == "holds"
    assert scan_of([-1.0, -2.0])["verdict"] == "fails"
    assert scan_of([0.0, 0.0])["verdict"] == "no difference"
    assert scan_of([-1.0] * 3 + [1.0] * 4)["verdict"] == "holds when place ≥ 3"


def test_an_identity_is_one_only_if_no_case_is_off():
    assert scan_of([0.1, -0.1, 0.0], identity=True)["verdict"] == "identity"
    assert scan_of([0.1, -0.2, 0.0], identity=True)["verdict"] == "fails"


def test_a_scan_over_draws_has_an_interval_over_seeds():
    frame = pd.DataFrame({"slack": [1.0, 1.0, -1.0, 1.0, 1.0, 1.0], "seed": [0, 0, 1, 1, 2, 2]})
    found = judged(frame, [Scan("c", "words", "slack", ())]).iloc[0]
    assert found["effect"] == pytest.approx(5 / 6)
    assert found["low"] < 5 / 6 < found["high"] <= 1
    assert found["seeds"] == 3


def test_a_scan_refuses_gaps():
    with pytest.raises(ValueError, match="must have slack in every case"):
        scan_of([1.0, np.nan])
    with pytest.raises(ValueError, match="must have slack in every case, got 0"):
        scan_of([])


def sampled(claim, p_values, control=False):
    """A contrast with one cell a p-value, built from pairs whose t-test gives about that."""
    rng = np.random.default_rng(0)
    rows = []
    for cell, target in enumerate(p_values):
        noise = rng.normal(size=8)
        noise = (noise - noise.mean()) / noise.std(ddof=1)
        from scipy.stats import t

        shift = t.isf(target / 2, 7) / np.sqrt(8)
        rows += [{"method": "a", "cell": cell, "seed": seed, "x": shift + value} for seed, value in enumerate(noise)]
    return judged(pd.DataFrame(rows), [Contrast(claim, "words", "a", None, "x", ("cell",), 0.0, control=control)])


# --- ratios ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ratio_frame():
    return run(ratios, losses=["dpo", "cdpo", "ipo", "bdpo", "nbdpo"])


def test_the_field_shows_dpo_and_what_is_weighted_anew_and_the_map_only_the_latter(ratio_frame):
    drawn = ratios.figures(ratio_frame)
    assert [axis.get_title() for axis in drawn["gradient-field"].axes if axis.get_title()] == ["DPO", "bDPO", "nbDPO"]
    titles = [axis.get_title() for axis in drawn["ratio-correction"].axes if axis.get_title()]
    assert titles == ["bDPO", "nbDPO", "bDPO, whole sequences"]


def loss_by_hand(name, win, lose):
    """The loss of a pair as a function of its probabilities, reference 1/20, λ where it now is."""
    if name == "dpo":
        return lambda w, l: np.log1p(np.exp(-(np.log(w) - np.log(l))))  # noqa: E741
    share = np.log(lose) / (np.log(win) + np.log(lose))
    return lambda w, l: np.log1p(np.exp(-(share * np.log(20 * w) - (1 - share) * np.log(20 * l))))  # noqa: E741


@pytest.mark.parametrize("name", ["dpo", "bdpo"])
def test_the_ratios_and_pulls_are_those_of_finite_differences(ratio_frame, name):
    rows = ratio_frame.query(f"loss == '{name}' and kind == 'field'")
    for case in rows.itertuples():
        win, lose = np.exp(case.log_win), np.exp(case.log_lose)
        value, eps = loss_by_hand(name, win, lose), 1e-6
        slopes = ((value(win * (1 + eps), lose) - value(win * (1 - eps), lose)) / (2 * eps * win),
                  (value(win, lose * (1 + eps)) - value(win, lose * (1 - eps))) / (2 * eps * lose))  # fmt: skip
        assert (-case.pull_win, -case.pull_lose) == pytest.approx(slopes, rel=1e-5, abs=1e-9)
        assert case.log_prob_ratio == pytest.approx(np.log(abs(slopes[0] / slopes[1])), abs=1e-5)


@pytest.mark.parametrize("name", ["dpo", "bdpo"])
def test_the_steps_are_those_of_a_small_real_step(ratio_frame, name):
    for case in ratio_frame.query(f"loss == '{name}' and kind == 'field'").iloc[::7].itertuples():
        p = np.array([np.exp(case.log_win), np.exp(case.log_lose), 0.0])
        p[2] = 1 - p.sum()
        by_log = np.array([case.pull_win * p[0], case.pull_lose * p[1], 0.0])
        logits, rate = np.log(p), 1e-6
        gradient = by_log - p * by_log.sum()  # through the softmax
        moved = (softmax(logits + rate * gradient) - p) / rate
        assert (case.step_win, case.step_lose) == pytest.approx(moved[:2], abs=1e-4 * abs(moved).max() + 1e-9)


def test_the_ratio_is_an_identity_which_all_margin_losses_share_and_a_step_turns_over(ratio_frame):
    table = ratios.verdict(ratio_frame)
    assert row(table, "|∂L/∂π_w| : |∂L/∂π_l| = π_l : π_w")["verdict"] == "identity"
    assert row(table, "differs in this ratio from other margin losses")["verdict"] == "no difference"
    assert row(table, "differ in log π too")["verdict"] == "no difference"
    # (a − b)(1 − a − b) > 0: the winner gains more than the loser loses wherever it is the more probable one.
    assert row(table, "in a real step")["verdict"] == "fails"
    assert row(table, "in a real step")["holds"] == 0


def test_balance_is_restored_somewhere_and_not_at_the_scale_of_sequences(ratio_frame):
    table = ratios.verdict(ratio_frame)
    restored = row(table, "restores symmetry: sides")
    grid = ratio_frame.query("kind == 'grid' and loss == 'bdpo'")
    win, lose = grid["log_win"].to_numpy(), grid["log_lose"].to_numpy()
    far = np.abs(win - lose) > np.log(2)
    balanced = np.abs(lose - win + np.log(lose / win)) < np.log(1.25)
    assert restored["effect"] == pytest.approx(balanced[far].mean())
    assert row(table, "is nearer to symmetry")["verdict"] == "holds"
    assert row(table, "half of DPO's imbalance, whole sequences")["effect"] < 0.05
    assert row(table, "share of length")["verdict"] == "fails"


def test_other_gradients_would_turn_the_verdict_on_the_ratio_over(ratio_frame):
    other = ratio_frame.assign(log_prob_ratio=ratio_frame["log_prob_ratio"] + 1e-6)
    assert row(ratios.verdict(other), "|∂L/∂π_w| : |∂L/∂π_l| = π_l : π_w")["verdict"] == "fails"
    balanced = ratio_frame.assign(
        log_prob_ratio=np.where(ratio_frame["loss"] == "bdpo", 0.0, ratio_frame["log_prob_ratio"])
    )
    assert row(ratios.verdict(balanced), "restores symmetry: sides")["verdict"] == "holds"


# --- shift -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shift_frame():
    return run(shift)


def brute_force_weights(p, q):
    """Sums over pairs as loops, for DPO, the balanced weight and bDPO."""
    n = len(p)
    dpo, bdpo = np.zeros(n), np.zeros(n)
    for i in range(n):
        for j in range(n):
            wins = q[i] / (q[i] + q[j])
            dpo[i] += wins - p[i] / (p[i] + p[j])
            share = np.log(p[j]) / (np.log(p[i]) + np.log(p[j]))
            margin = share * np.log(n * p[i]) - (1 - share) * np.log(n * p[j])
            bdpo[i] += share * (wins - expit(margin))
    return {"dpo": dpo, "balanced": dpo * p, "bdpo": bdpo}


def turning_points(values):
    """Grid points that are above or below both neighbours."""
    middle, left, right = values[1:-1], values[:-2], values[2:]
    return 1 + np.flatnonzero(((middle > left) & (middle > right)) | ((middle < left) & (middle < right)))


@pytest.mark.slow
@pytest.mark.parametrize(("sigma_p", "sigma_q", "distance"), [(1.5, 1.5, 4.0), (3.0, 1.5, 12.0), (1.5, 3.0, 4.0)])
def test_extrema_lie_within_a_cell_of_those_of_the_weights_summed_by_hand(shift_frame, sigma_p, sigma_q, distance):
    y = np.arange(20) + 0.5
    low, high = 10 - distance / 2, 10 + distance / 2
    p, q = (softmax(-0.5 * ((y - at) / width) ** 2) for at, width in ((low, sigma_p), (high, sigma_q)))
    cases = shift_frame.query(
        f"kind == 'scan' and family == 'gaussian' and n == 20 and support == 20 and sigma_p == {sigma_p} "
        f"and sigma_q == {sigma_q} and distance == {distance}"
    ).set_index("weight")
    for name, weight in brute_force_weights(p, q).items():
        at = np.append(turning_points(weight), [weight.argmin(), weight.argmax()])
        signed = np.minimum(y[at] - low, high - y[at])
        assert cases.loc[name, "inside"] == pytest.approx(signed.min(), abs=1)
        assert cases.loc[name, "outside"] == pytest.approx((-signed).min(), abs=1)


def test_dpos_extrema_lie_outside_for_unimodal_policies_and_the_balanced_ones_do_not_all_lie_inside(shift_frame):
    table = shift.verdict(shift_frame)
    assert row(table, "DPO: the extrema of w lie outside [μ_p, μ_q] (Gaussians")["verdict"] == "holds"
    assert row(table, "w lie outside [μ_p, μ_q]: the continuous limit")["verdict"] == "holds"
    assert row(table, "w lie outside [μ_p, μ_q]: other unimodal")["verdict"] == "holds"
    stated = row(table, "balanced w·p: the extrema lie inside [μ_p, μ_q] (Gaussians")
    assert stated["verdict"] != "holds"
    assert row(table, "balanced w·p: the extrema lie inside [μ_p, μ_q]: the continuous limit")["verdict"] == "fails"


def test_the_minimum_of_the_balanced_weight_misses_as_the_closed_form_says(shift_frame):
    """(log q − log p) p of equal widths s at half distance h: its minimum lies (√(h² + 4s²) − h)/2 outside."""
    limit = shift_frame.query("kind == 'limit' and weight == 'balanced, log ratio' and sigma_p == sigma_q")
    assert len(limit) >= 4
    for case in limit.itertuples():
        half = case.distance / 2
        miss = (np.sqrt(half**2 + 4 * case.sigma_p**2) - half) / 2
        if half + case.distance / 2 + miss < 9:  # within the support
            assert case.inside == pytest.approx(
                min(-miss, -(case.sigma_p**2 / half - half if half < 0 else -np.inf)), abs=0.06
            )


def test_other_places_would_turn_the_verdicts_over(shift_frame):
    scans = shift_frame["kind"] == "scan"
    moved = shift_frame.assign(inside=np.where(scans, 1.0, shift_frame["inside"]), outside=np.where(scans, -3.0, 1.0))
    table = shift.verdict(moved)
    assert row(table, "DPO: the extrema of w lie outside [μ_p, μ_q] (Gaussians")["verdict"] == "fails"
    assert row(table, "balanced w·p: the extrema lie inside [μ_p, μ_q] (Gaussians")["verdict"] == "holds"
    assert row(table, "bDPO's own weights: the extrema lie inside [μ_p, μ_q] (Gaussians")["verdict"] == "holds"


# --- variance --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def variance_frame():
    return run(variance)


def test_the_two_sides_of_the_theorem_are_plain_moments(variance_frame):
    case = variance_frame.query(
        "family == 'gaussian' and n == 20 and distance == 2 and sigma_p == 1.5 and sigma_q == 6"
    ).iloc[0]
    y = np.arange(20) + 0.5 - 10
    p, q = (np.exp(log_softmax(-0.5 * ((y - at) / width) ** 2)) for at, width in ((-1, 1.5), (1, 6)))
    w = brute_force_weights(p, q)["dpo"]
    left = np.mean((w * p) ** 2) - np.mean(w * p) ** 2
    right = (np.mean(w**2) - np.mean(w) ** 2) * np.mean(p**2)
    assert np.exp(case["log_ratio"]) == pytest.approx(left / right)
    assert (case["gap"] < 0) == (left < right)
    signal = [np.var(weight) / np.mean(np.abs(weight)) ** 2 for weight in (w * p, w)]
    assert np.exp(case["log_noise"]) == pytest.approx(signal[0] / signal[1])


def test_the_theorem_holds_in_a_region_and_has_counterexamples(variance_frame):
    table = variance.verdict(variance_frame)
    stated = row(table, "every declared family")
    cases = variance_frame[variance_frame["family"] != "region"]
    assert stated["effect"] == pytest.approx((cases["log_ratio"] < 0).mean())
    assert stated["fails"] > 0
    assert stated["verdict"] != "holds"
    assert row(table, "it is true exactly where")["verdict"] == "identity"
    narrow = cases.query("family == 'gaussian' and sigma_p == 1.5 and sigma_q == 6 and distance == 0 and n == 20")
    assert len(narrow) == 1
    assert (narrow["log_ratio"] > 0).all()  # a policy much narrower than the preference


def test_other_moments_would_turn_the_verdict_on_the_variance_over(variance_frame):
    smaller = variance_frame.assign(log_ratio=-1.0, gap=-1.0)
    assert row(variance.verdict(smaller), "every declared family")["verdict"] == "holds"
    disagreeing = variance_frame.assign(log_ratio=1.0, gap=-1.0)
    assert row(variance.verdict(disagreeing), "it is true exactly where")["verdict"] == "fails"

"""The theory's answers, recomputed on small cases by another route, and turned over by other data."""

import itertools
import sys

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, log_softmax, softmax

from gradlab.experiments import EXPERIMENTS, frames
from gradlab.experiments.methods import train
from gradlab.experiments.report.claims import CLAIMS
from gradlab.experiments.report.proofs import PROOFS
from gradlab.lab.world import gaussian_world

LOSSES = ["dpo", "cdpo", "ipo", "bdpo", "nbdpo"]
ratios, shift, variance = (EXPERIMENTS[name] for name in ("ratios", "shift", "variance"))


def run(experiment, **settings):
    parts = experiment.parts({**frames.declared(experiment, quick=True), **settings})
    return pd.concat([experiment.run_part(**part) for part in parts], ignore_index=True)


def verdict(experiment, frame, **settings):
    return experiment.verdict(frame, {**frames.declared(experiment, quick=True), **settings})


def row(answers, words, claim=None):
    found = [answer for answer in answers if words in answer.statement.statement]
    found = [answer for answer in found if claim in (None, answer.statement.claim)]
    assert len(found) == 1, (words, [answer.statement.statement for answer in answers])
    return found[0]


def primary(answers, claim):
    found = [answer for answer in answers if answer.statement.claim == claim and answer.role == "primary"]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("experiment", [ratios, shift, variance], ids=lambda one: one.name)
def test_primaries_rest_on_proofs_that_exist_and_say_no_share(experiment):
    statements = [*sys.modules[experiment.module].STATEMENTS]
    for statement in statements:
        assert statement.role in ("primary", "context")
        assert not statement.proof or statement.proof in PROOFS
        if statement.role == "primary":
            assert statement.proof
            sentence = statement.fails if statement.refutes else statement.holds
            assert sentence
            assert "%" not in sentence
            assert "percent" not in sentence
            assert statement.claim in CLAIMS


def test_seeds_are_those_that_the_first_report_did_not_use():
    for experiment in (ratios, shift, variance):
        assert experiment.settings["first_seed"] == 1000
        assert experiment.quick["first_seed"] == 0
        assert any("first_seed" in str(part) for part in experiment.parts(experiment.settings))


# --- ratios ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ratio_frame():
    return run(ratios, losses=LOSSES)


def test_the_field_shows_dpo_and_what_is_weighted_anew(ratio_frame):
    drawn = ratios.figures(ratio_frame)
    assert [axis.get_title() for axis in drawn["gradient-field"].axes if axis.get_title()] == ["DPO", "bDPO", "nbDPO"]


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


def test_the_ratio_is_proved_and_a_step_turns_it_over(ratio_frame):
    answers = verdict(ratios, ratio_frame, losses=LOSSES)
    assert primary(answers, "ratio").word == "proved"
    assert row(answers, "cDPO and IPO have the same ratio").word == "proved"
    # (a − b)(1 − a − b) > 0: the winner gains more than the loser loses wherever it is the more probable one.
    step = row(answers, "in a small step")
    assert (step.word, step.number("for")) == ("proved", len(step.rows))


def test_the_correction_is_a_law_and_no_restored_symmetry(ratio_frame):
    answers = verdict(ratios, ratio_frame, losses=LOSSES)
    assert primary(answers, "ratio-corrected").word == "refuted"
    assert row(answers, "the law:").word == "proved"
    assert row(answers, "nearer to symmetry").word == "proved"
    sequences = row(answers, "the share corrected at the scale of whole sequences")
    assert 0.005 < sequences.low < sequences.effect < sequences.high < 0.03
    assert row(answers, "length explains").effect > 0.5


def test_the_share_along_a_training_is_that_of_its_pairs(ratio_frame):
    answers = verdict(ratios, ratio_frame, losses=LOSSES)
    world = gaussian_world(seed=1)
    for method in ("dpo", "bdpo"):
        judged_row = row(answers, f"end of {'bDPO' if method == 'bdpo' else 'DPO'} training")
        fitted = train(method, [world], ratios.quick["training"], seeds=[1])
        shares = []
        for log_p in fitted.logp[0].numpy():
            for one, other in itertools.combinations(log_p, 2):
                ratio_of_bdpo = other - one + np.log(other / one)
                shares.append(1 - abs(ratio_of_bdpo) / abs(other - one))
        rows = ratio_frame.query(f"kind == 'training' and method == '{method}' and policy == 'free' and seed == 1")
        assert rows["share"].iloc[0] == pytest.approx(1 / np.log(20))  # the uniform start
        assert rows["share"].iloc[-1] == pytest.approx(np.median(shares), rel=1e-6)
        assert judged_row.effect == pytest.approx(
            ratio_frame.query(f"kind == 'training' and method == '{method}' and step == 100")["share"].mean()
        )


def test_other_gradients_would_turn_the_answers_over(ratio_frame):
    other = ratio_frame.assign(log_prob_ratio=ratio_frame["log_prob_ratio"] + 1e-6)
    assert primary(verdict(ratios, other, losses=LOSSES), "ratio").word == "refuted"
    assert row(verdict(ratios, other, losses=LOSSES), "the law:").word == "refuted"
    balanced = ratio_frame.assign(
        log_prob_ratio=np.where(ratio_frame["loss"] == "bdpo", 0.0, ratio_frame["log_prob_ratio"])
    )
    assert primary(verdict(ratios, balanced, losses=LOSSES), "ratio-corrected").word == "undecided"


def test_a_frame_without_a_declared_loss_or_training_is_refused(ratio_frame):
    with pytest.raises(ValueError, match="frame must have the declared values of loss; cdpo is missing"):
        verdict(ratios, ratio_frame[ratio_frame["loss"] != "cdpo"], losses=LOSSES)
    with pytest.raises(ValueError, match="frame must have the declared values of policy; shared is missing"):
        verdict(ratios, ratio_frame[ratio_frame["policy"] != "shared"], losses=LOSSES)


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


def test_theorem_3_is_proved_for_dpo_and_refuted_for_balanced_weights(shift_frame):
    answers = verdict(shift, shift_frame)
    assert primary(answers, "shift-dpo").word == "proved"
    assert row(answers, "w lie outside [μ_p, μ_q]: the continuous limit").word == "proved"
    assert row(answers, "w lie outside [μ_p, μ_q]: other unimodal").word == "proved"
    balanced = primary(answers, "shift-balanced")
    assert (balanced.word, balanced.number("against")) == ("refuted", len(balanced.rows))  # always, says the theorem
    assert primary(answers, "shift-bdpo").word == "refuted"


def test_the_size_of_the_miss_and_the_weight_far_out_are_those_of_the_frame(shift_frame):
    answers = verdict(shift, shift_frame)
    limit = shift_frame.query("kind == 'limit'").set_index("weight")
    miss = limit.loc["balanced", "miss"] / limit.loc["balanced", "sigma_p"]
    sentence = row(answers, "the lowest value lies within one σ_p").sentence
    assert f"{miss.median():.2f} σ_p outside" in sentence
    assert f"from {miss.min():.2f} to {miss.max():.2f} σ_p" in sentence
    far = limit.groupby(level=0)["far"].median()
    sentence = row(answers, "farther than 2 σ_p outside").sentence
    assert f"{far['balanced']:.1%} of w·p" in sentence
    assert f"{far['dpo']:.0%} of DPO's" in sentence
    assert far["balanced"] < 0.1 < far["dpo"]


def test_the_share_far_out_is_summed_by_hand(shift_frame):
    case = {"n": 20, "support": 20.0, "distance": 4.0, "sigma_p": 1.5, "sigma_q": 3.0}
    y = np.arange(20) + 0.5
    p, q = (softmax(-0.5 * ((y - at) / width) ** 2) for at, width in ((8.0, 1.5), (12.0, 3.0)))
    found = shift_frame[(shift_frame[list(case)] == pd.Series(case)).all(axis=1) & (shift_frame["family"] == "gaussian")
                        & (shift_frame["kind"] == "scan")].set_index("weight")  # fmt: skip
    for name, weight in brute_force_weights(p, q).items():
        away = np.array([8.0 - at if at < 10 else at - 12.0 for at in y]) > 3.0
        assert found.loc[name, "far"] == pytest.approx(np.abs(weight[away]).sum() / np.abs(weight).sum())


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


def test_other_places_would_turn_the_answers_over(shift_frame):
    moved = shift_frame.assign(inside=1.0, outside=-3.0, miss=-1.0)
    answers = verdict(shift, moved)
    assert primary(answers, "shift-dpo").word == "refuted"
    assert primary(answers, "shift-balanced").word == "undecided"  # no case shows what the proof says
    assert primary(answers, "shift-bdpo").word == "undecided"


def test_a_frame_without_a_declared_kind_is_refused(shift_frame):
    with pytest.raises(ValueError, match="frame must have the declared values of kind; limit is missing"):
        verdict(shift, shift_frame[shift_frame["kind"] != "limit"])


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


def test_the_theorem_is_refuted_and_each_family_stands_by_itself(variance_frame):
    answers = verdict(variance, variance_frame)
    stated = primary(answers, "variance")
    assert (stated.word, stated.number("against")) == ("refuted", len(stated.rows))
    assert row(answers, "it is true exactly where").word == "proved"
    cases = variance_frame[variance_frame["family"] != "region"]
    narrow = cases.query("family == 'gaussian' and sigma_p == 1.5 and sigma_q == 6 and distance == 0 and n == 20")
    assert len(narrow) == 1
    assert (narrow["log_ratio"] > 0).all()  # a policy much narrower than the preference
    of_family = cases.groupby("family").size()
    for answer in answers:
        if answer.statement.statement != row(answers, "it is true exactly where").statement.statement:
            assert len(answer.rows) in set(of_family)
            assert "every declared family" not in answer.statement.statement


def test_other_moments_would_turn_the_answer_on_the_variance_over(variance_frame):
    smaller = variance_frame.assign(log_ratio=-1.0, gap=-1.0)
    assert primary(verdict(variance, smaller), "variance").word == "undecided"
    disagreeing = variance_frame.assign(log_ratio=1.0, gap=-1.0)
    assert row(verdict(variance, disagreeing), "it is true exactly where").word == "refuted"


def test_a_frame_without_a_declared_family_is_refused(variance_frame):
    with pytest.raises(ValueError, match="frame must have the declared values of family; trained is missing"):
        verdict(variance, variance_frame[variance_frame["family"] != "trained"])

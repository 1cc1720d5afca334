"""Win-rates with intervals: held against brute force, simulated truth and known variances."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from gradlab.stats.agreement import wilson_interval
from gradlab.streams import Purpose, stream
from gradlab.study.rates import components, win_rate


def _answers(draw, raters, prompts, each, by_rater, by_prompt, mean=0.0, tie=0.3):
    """Return answers of raters who see the difference of two systems with noise, as ``win_rate`` takes them."""
    load, seen = np.zeros(raters), []
    for prompt in range(prompts):
        chosen = np.lexsort((draw.random(raters), load))[:each]
        load[chosen] += 1
        seen += [(rater, prompt) for rater in chosen]
    rater, prompt = np.array(seen).T
    felt = mean + by_rater * draw.normal(size=raters)[rater] + by_prompt * draw.normal(size=prompts)[prompt]
    felt = felt + draw.logistic(size=len(felt))
    score = np.where(np.abs(felt) < tie, 0.5, (felt > 0).astype(float))
    return pd.DataFrame({"rater": rater, "prompt": prompt, "score": score})


def test_components_are_half_mean_squared_differences():
    draw = stream(0, Purpose.SIMULATED, 901)
    frame = _answers(draw, 5, 12, 3, 1.0, 1.0)
    rater, prompt, score = (frame[name].to_numpy() for name in ("rater", "prompt", "score"))
    halves = {"rater": [], "prompt": [], "neither": []}
    for one, other in combinations(range(len(score)), 2):
        kind = "rater" if rater[one] == rater[other] else "prompt" if prompt[one] == prompt[other] else "neither"
        halves[kind].append((score[one] - score[other]) ** 2 / 2)
    same_rater, same_prompt, neither = (np.mean(halves[kind]) for kind in ("rater", "prompt", "neither"))
    by_rater, by_prompt, rest = components(score, rater, prompt)
    # By definition: two answers of one rater differ by prompt and rest, two to one prompt by rater and rest.
    assert by_rater == pytest.approx(max(neither - same_rater, 0), abs=1e-12)
    assert by_prompt == pytest.approx(max(neither - same_prompt, 0), abs=1e-12)
    assert by_rater + by_prompt + rest == pytest.approx(neither, abs=1e-12)


def test_the_rate_is_a_mean_over_prompts_and_skips_are_no_answers():
    frame = pd.DataFrame({"rater": ["a", "b", "a", "c"], "prompt": [0, 0, 1, 1], "score": [1.0, 0.0, 1.0, np.nan]})
    rate = win_rate(frame)
    assert rate.rate == 0.75
    assert (rate.answers, rate.prompts, rate.raters) == (3, 2, 2)
    assert np.isnan(win_rate(frame.iloc[:0]).rate)


def test_equal_answers_have_wilsons_interval():
    frame = pd.DataFrame({"rater": [0, 1] * 20, "prompt": np.arange(20).repeat(2), "score": 1.0})
    assert (win_rate(frame).low, win_rate(frame).high) == wilson_interval(1.0, 20)


def test_raters_who_disagree_on_every_prompt_show_no_spread_and_no_certainty():
    frame = pd.DataFrame({"rater": [0, 1] * 5, "prompt": np.arange(5).repeat(2), "score": [1.0, 0.0] * 5})
    rate = win_rate(frame, "these")
    assert (rate.rate, rate.low, rate.high) == (0.5, *wilson_interval(0.5, 5))
    assert not rate.beyond_half.p_equivalent(0.05) < 0.05


@pytest.mark.parametrize(
    ("score", "prompts", "differs"), [(1.0, 3, False), (1.0, 4, True), (0.0, 4, True), (0.5, 9, False)]
)
def test_the_tests_of_equal_answers_say_what_their_interval_says(score, prompts, differs):
    rate = win_rate(pd.DataFrame({"rater": 0, "prompt": np.arange(prompts), "score": score}))
    assert (rate.beyond_half.p_differs() <= 0.05) == differs == (not rate.low <= 0.5 <= rate.high)
    assert rate.beyond_half.p_equivalent(0.05) > 0.05, "so few answers show no equivalence"


def test_many_ties_and_nothing_else_show_equivalence():
    rate = win_rate(pd.DataFrame({"rater": 0, "prompt": np.arange(400), "score": 0.5}))
    assert rate.beyond_half.p_equivalent(0.05) <= 0.05


def test_exchanging_the_systems_mirrors_the_interval():
    frame = _answers(stream(0, Purpose.SIMULATED, 902), 4, 30, 2, 0.5, 1.0, mean=0.4)
    rate, other = win_rate(frame), win_rate(frame.assign(score=1 - frame["score"]))
    assert rate.rate + other.rate == pytest.approx(1)
    assert rate.low + other.high == pytest.approx(1)
    assert rate.beyond_half.p_differs() == pytest.approx(other.beyond_half.p_differs())


def test_these_raters_have_the_narrower_interval():
    frame = _answers(stream(0, Purpose.SIMULATED, 903), 4, 60, 2, 1.5, 0.2)
    alike, these = win_rate(frame), win_rate(frame, "these")
    assert these.high - these.low < 0.7 * (alike.high - alike.low)


@pytest.mark.parametrize(
    ("raters", "prompts", "each", "by_rater", "by_prompt"),
    [(3, 40, 2, 0.0, 1.0), (3, 40, 3, 0.8, 0.5), (6, 60, 1, 0.3, 1.0), (12, 80, 2, 0.5, 0.0)],
)
@pytest.mark.slow
def test_the_interval_covers_the_truth(raters, prompts, each, by_rater, by_prompt):
    draw = stream(0, Purpose.SIMULATED, 904)
    truth = win_rate(_answers(draw, 2000, 20000, 1, by_rater, by_prompt, mean=0.5)).rate
    rates = [win_rate(_answers(draw, raters, prompts, each, by_rater, by_prompt, mean=0.5)) for _ in range(400)]
    covered = np.mean([rate.low <= truth <= rate.high for rate in rates])
    # 93% are promised; with 400 simulations three standard errors below that are 89%.
    assert covered >= 0.89

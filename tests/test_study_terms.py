"""Side, length and strengths of a study's answers: planted ones are found, and evalica agrees."""

import math

import evalica
import numpy as np
import pandas as pd
import pytest

from gradlab.streams import Purpose, stream
from gradlab.study.strengths import strengths, ties
from gradlab.study.terms import drift, equal_length, left_rate


def _answers(case, *, worth=0.0, side=0.0, length=0.0, longer=0.0, prompts=300, raters=6):
    """Return answers of raters with a planted leaning to the left and to longer responses; log odds."""
    draw = stream(0, Purpose.SIMULATED, case)
    prompt = np.arange(prompts).repeat(2)
    rater = draw.integers(raters, size=len(prompt))
    b_left = draw.random(len(prompt)) < 0.5
    more = longer + 0.5 * draw.normal(size=prompts)[prompt]
    felt = worth + side * np.where(b_left, 0.5, -0.5) + length * more + draw.logistic(size=len(prompt))
    return pd.DataFrame({
        "rater": rater, "prompt": prompt, "score": (felt > 0).astype(float), "b_left": b_left, "longer": more,
        "a": "dpo", "b": "bdpo",
    })  # fmt: skip


def test_a_leaning_to_the_left_is_found_and_does_not_move_the_rate():
    answers = _answers(910, side=1.5)
    left = left_rate(answers)
    assert left.low > 0.5
    assert abs(equal_length(answers).rate.rate - 0.5) < 0.06


def test_a_leaning_to_length_is_taken_out():
    answers = _answers(911, length=1.2, longer=0.7)
    found = equal_length(answers)
    assert found.low < 1.2 < found.high
    assert found.rate.low < 0.5 < found.rate.high
    assert answers["score"].mean() > 0.6
    assert found.doubling == pytest.approx(1 / (1 + math.exp(-found.slope * math.log(2))) - 0.5)


@pytest.mark.slow
def test_the_rate_at_equal_length_covers_its_truth():
    covered = []
    for case in range(300):
        found = equal_length(_answers(20_000 + case, worth=0.3, length=0.8, longer=0.5, prompts=80)).rate
        covered.append(found.low <= 1 / (1 + math.exp(-0.3)) <= found.high)
    assert np.mean(covered) >= 0.89  # 93% less three standard errors of 300 simulations


def test_what_cannot_be_told_is_not_a_number():
    answers = _answers(912)
    assert math.isnan(equal_length(answers.assign(longer=0.3)).slope)
    assert math.isnan(equal_length(answers.assign(score=1.0)).rate.rate)
    apart = answers.assign(score=(answers["longer"] > 0).astype(float))
    assert math.isnan(equal_length(apart).slope), "length alone decides, so that its slope has no bound"


def _tournament(case, strength, nu, number):
    """Return answers drawn by Davidson's law."""
    draw = stream(0, Purpose.SIMULATED, case)
    names = list(strength)
    rows = []
    for _ in range(number):
        a, b = (names[place] for place in draw.choice(len(names), 2, replace=False))
        up, down = math.exp((strength[b] - strength[a]) / 2), math.exp((strength[a] - strength[b]) / 2)
        drawn = draw.random() * (up + down + nu)
        rows.append({"a": a, "b": b, "score": 1.0 if drawn < up else 0.0 if drawn < up + down else 0.5})
    return pd.DataFrame(rows).assign(rater=draw.integers(8, size=number), prompt=np.arange(number) // 2)


def test_strengths_and_ties_are_those_of_the_law():
    truth = {"sft": -0.8, "dpo": 0.2, "bdpo": 0.6}
    frame, nu = strengths(_tournament(913, truth, 0.7, 6000), list(truth))
    assert list(frame["system"]) == ["bdpo", "dpo", "sft"]
    rows: list[dict] = frame.to_dict("records")
    for row in rows:
        assert row["low"] - 0.05 < truth[row["system"]] < row["high"] + 0.05
        assert row["strength"] == pytest.approx(truth[row["system"]], abs=0.12)
    assert nu == pytest.approx(0.7, abs=0.08)
    assert ties(nu) == pytest.approx(nu / (2 + nu))


def test_without_ties_evalica_has_the_same_strengths():
    answers = _tournament(914, {"sft": -0.5, "dpo": 0.0, "bdpo": 0.7}, 1e-12, 3000)
    frame, _ = strengths(answers, ["sft", "dpo", "bdpo"])
    winner = {1.0: evalica.Winner.Y, 0.0: evalica.Winner.X}
    scores = evalica.bradley_terry(
        answers["a"], answers["b"], answers["score"].map(winner), tolerance=1e-12, limit=10_000
    ).scores
    theirs = np.log(scores) - np.log(scores).mean()
    for row in frame.itertuples():
        assert row.strength == pytest.approx(theirs[row.system], abs=1e-3)  # ours has a weak pull to 0


def test_a_system_that_always_wins_has_no_certain_strength():
    answers = _tournament(916, {"sft": 0.0, "dpo": 0.0, "bdpo": 0.0}, 0.5, 120)
    wins = np.where(answers["b"] == "bdpo", 1.0, np.where(answers["a"] == "bdpo", 0.0, answers["score"]))
    best: dict = strengths(answers.assign(score=wins), ["sft", "dpo", "bdpo"])[0].to_dict("records")[0]
    assert best["system"] == "bdpo"
    assert best["high"] - best["low"] > 5, "the pull towards 0 alone would give 2.7"


def test_systems_that_no_answer_links_are_refused():
    answers = _tournament(915, {"sft": 0.0, "dpo": 0.0}, 0.5, 50)
    with pytest.raises(ValueError, match="none links bdpo with sft"):
        strengths(answers, ["sft", "dpo", "bdpo"])


def test_a_drift_along_the_lists_is_found_and_none_is_none():
    steady = _answers(930, worth=2.0, prompts=400).assign(place=np.tile(np.arange(100), 8))
    none = drift(steady)
    assert none.low < 0 < none.high
    draw = stream(0, Purpose.SIMULATED, 931)
    tired = steady["place"].to_numpy() / 100 > draw.random(len(steady))
    late = drift(steady.assign(score=np.where(tired, draw.integers(2, size=len(steady)), steady["score"])))
    assert late.high < 0
    assert late.low < late.end - late.start < late.high


def test_a_drift_is_the_line_of_least_squares():
    frame = _answers(932, worth=0.5, prompts=60).assign(place=np.tile(np.arange(30), 4))
    slope, start = np.polyfit(frame["place"] / 29, frame["score"], 1)
    frame = frame.assign(rater=np.arange(len(frame)) // 30)
    found = drift(frame)
    assert (found.start, found.end) == pytest.approx((start, start + slope))


def test_a_drift_needs_two_places():
    one = pd.DataFrame({"rater": list("abcd"), "prompt": list("wxyz"), "place": 0, "score": [1.0, 0.0, 1.0, 0.0]})
    assert math.isnan(drift(one).low)
    assert math.isnan(drift(one.iloc[:0]).low)

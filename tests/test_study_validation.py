"""The validation of the human study: truths by another route, promises judged by rule, small runs of the path."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradlab.llm.real.text_reward import PER_WORD, SCALE
from gradlab.store.artifacts import save_frame
from gradlab.study.raters import RaterModel
from gradlab.study.validation import turning as turnings
from gradlab.study.validation.judged import MET, MISSED, NOT_RUN, OPEN, at_least, at_most, promises, within
from gradlab.study.validation.page import answer, write_page
from gradlab.study.validation.plans import study_of_case
from gradlab.study.validation.runs import key_of, load, save, validate
from gradlab.study.validation.settings import CASES, FULL, TURNINGS, Case, Settings, Turning
from gradlab.study.validation.trials import STUDY, promised, trials
from gradlab.study.validation.truths import truths, truths_of, worth_of

SMALL = Case(name="small", effect=0.15, raters=4, items=20, simulations=10)


@pytest.fixture(scope="module")
def small():
    """Return forty simulated studies of a small case."""
    return trials(SMALL, 0, 40, 10, seed=1)


def test_truths_are_means_of_many_simulated_answers():
    model = RaterModel(position=0.8, length=0.9, tie=0.5)
    case = Case(name="truths", effect=0.1, model=model, longer=0.3)
    draw = np.random.default_rng(0)
    number = 200_000
    more = 0.3 + math.sqrt(2) * 0.4 * draw.normal(size=number)
    b_left = draw.random(number) < 0.5
    felt = worth_of(case) + model.length * more + np.where(b_left, 0.4, -0.4)
    felt = felt + math.hypot(model.raters, model.prompts) * draw.normal(size=number)
    score = model.scores(felt, draw)
    truth = truths(case)
    # The standard error of a mean of so many answers is 0.0011 at most.
    assert score.mean() == pytest.approx(truth["win-rate"], abs=0.005)
    assert np.where(b_left, score, 1 - score).mean() == pytest.approx(truth["left"], abs=0.005)
    assert truth["equal length"] == pytest.approx(0.6, abs=1e-9)


def test_raters_without_a_leaning_have_the_truth_of_all():
    case = dataclasses.replace(SMALL, model=RaterModel(raters=0.0))
    alone = truths_of(case, {"r01": 0.0, "r02": 0.0}, {"r01": 3, "r02": 9})
    assert alone == pytest.approx(truths(case))
    one = truths_of(case, {"r01": 2.0, "r02": 0.0}, {"r01": 3, "r02": 9})
    assert alone["win-rate"] < one["win-rate"]


def test_intervals_of_the_whole_path_cover(small):
    rows = small[small["kind"] != STUDY]
    for kind, of in rows.groupby("kind"):
        covered = ((of["low"] <= of["truth"]) & (of["truth"] <= of["high"])).mean()
        assert covered >= 0.84, kind  # of 95%, three standard errors of 40 simulations below


def test_power_is_that_of_the_whole_path(small):
    words = small.loc[small["kind"] == STUDY, "word"]
    measured = words.isin(["holds throughout", "holds on average"]).mean()
    expected = promised(SMALL, 400, seed=1)["power"].iloc[0]
    assert abs(measured - expected) < 0.25  # three standard errors of 40 and 400 simulations at a power of one half


def test_equal_seeds_give_equal_studies_however_they_are_cut(small):
    again = trials(SMALL, 10, 5, 10, seed=1)
    rows = small[small["number"].between(10, 14)].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, rows)
    other = trials(SMALL, 10, 5, 10, seed=2)
    assert not other["estimate"].equals(again["estimate"])


def test_a_planted_leaning_to_length_is_named_and_mended():
    case = Case(name="long", effect=-0.05, model=RaterModel(length=2.0), longer=0.6, biases=("length",), raters=6)
    found = trials(case, 0, 12, 6, seed=1)
    rates = found[found["kind"] != STUDY].groupby("kind")["estimate"].mean()
    assert (found.loc[found["kind"] == STUDY, "warned"] == "length").all()
    assert rates["win-rate"] > 0.55  # length turns the sign
    # The standard error of one study's rate is about 0.05, that of the mean of twelve 0.015.
    assert rates["equal length"] == pytest.approx(0.45, abs=0.05)


def test_a_study_is_frozen_by_way_of_its_files():
    study = study_of_case(CASES[15], seed=3)  # three systems
    assert len(study.plan.systems) == 3
    assert len(study.items) >= study.plan.items
    assert study_of_case(CASES[15], seed=3).hash == study.hash != study_of_case(CASES[15], seed=4).hash


def test_promises_are_judged_by_rule():
    assert at_least(95, 100, 0.93)[3] == MET
    assert at_least(91, 100, 0.93)[3] == OPEN
    assert at_least(70, 100, 0.93)[3] == MISSED
    assert at_most(3, 100, 0.05)[3] == MET
    assert at_most(7, 100, 0.05)[3] == OPEN
    assert at_most(30, 100, 0.05)[3] == MISSED
    assert within(0.02, 0.01, 0.03)[3] == MET
    assert within(0.04, 0.01, 0.03)[3] == OPEN
    assert within(-0.09, 0.01, 0.03)[3] == MISSED


def _samples(folder):
    """Write samples of known reward, in which b is better and shorter, as the committed ones have them."""
    draw = np.random.default_rng(1)
    rows = []
    for system, mean, words in (("dpo", 0.0, 30), ("bdpo", 0.5, 20)):
        for place in range(60):
            length = max(int(words * math.exp(0.3 * draw.normal())), 1)
            text = " ".join([{"dpo": "one", "bdpo": "two"}[system]] * length)
            reward = mean + 0.5 * draw.normal()
            rows.append({"system": system, "prompt": f"q{place}", "text": text, "words": length, "reward": reward})
    save_frame(pd.DataFrame(rows), folder / "study/tokens.parquet", {})


def test_where_the_sign_turns_is_predicted_and_measured(tmp_path):
    _samples(tmp_path)
    turning = Turning(name="made up", frame="study/tokens.parquet", unit="log word", raters=4)
    samples = turnings.samples_of(turning, tmp_path)
    assert samples is not None
    leaning = turnings.predicted(turning, samples)
    assert turnings.expected_rate(turning, samples, leaning) == pytest.approx(0.5, abs=1e-6)
    assert leaning == pytest.approx(turnings.formula(turning, samples), rel=0.1)  # to first order
    ends = turnings.leanings(turning, samples)[[0, -1]]
    frame = pd.concat([turnings.turning_trials(turning, tmp_path, float(end), 6, 6, seed=1) for end in ends])
    root, error = turnings.crossing(frame["leaning"].to_numpy(), frame["rate"].to_numpy())
    assert abs(root - leaning) < 4 * error


def test_a_crossing_is_that_of_a_line():
    leaning = np.repeat([0.0, 1.0, 2.0], 50)
    noise = 0.01 * np.random.default_rng(0).normal(size=150)
    root, error = turnings.crossing(leaning, 0.6 - 0.08 * leaning + noise)
    assert abs(root - 1.25) < 4 * error < 0.1


def test_the_whole_is_run_kept_judged_and_written(tmp_path):
    _samples(tmp_path)
    cases = (SMALL, dataclasses.replace(SMALL, name="other", right=("holds on average",), promised=False))
    settings = Settings(cases=cases, turnings=(
        Turning(name="made up, per word", frame="study/tokens.parquet", unit="word", raters=4, steps=2, simulations=10),
        Turning(name="missing, per word", frame="llm/real/known-METHOD-*.parquet", unit="word"),
    ), promises=40, seed=2)  # fmt: skip
    found = validate(tmp_path, tmp_path / "parts", settings, workers=1)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*.parquet")}
    again = validate(tmp_path, tmp_path / "parts", settings, workers=1)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # nothing is run a second time
    pd.testing.assert_frame_equal(found.intervals, again.intervals)
    words = {promise.what: promise.word for promise in promises(found, settings)}
    assert words["missing, per word: the leaning at which bDPO − DPO turns its sign"] == NOT_RUN
    assert len(save(found, tmp_path, settings)) == 3
    page = write_page(found, settings, tmp_path).read_text("utf-8")
    assert page.startswith("# The human study, validated")
    assert "promises are met" in page
    for name in ("coverage", "power", "turning"):
        assert (tmp_path / f"study/{name}.png").is_file()
        assert f"](study/{name}.png)" in page


def test_the_raters_of_openings_weigh_what_its_true_reward_weighs():
    of = [one for one in TURNINGS if one.name.startswith("openings")]
    assert {(one.scale, one.per_word) for one in of} == {(SCALE, PER_WORD)}


def test_runs_on_a_pretrained_model_are_taken_from_their_last_look(tmp_path):
    for method, said in (("dpo", "a fine day"), ("bdpo", "a day")):
        rows = [
            {"kind": kind, "index": 4.0, "step": step, "seed": 1000, "text": said, "sentiment": 0.5 + step / 1000}
            for kind in ("sample", "pair") for step in (50, 200)
        ]  # fmt: skip
        for name in (method, f"{method}-double"):  # the latter is another system
            save_frame(pd.DataFrame(rows), tmp_path / f"llm/real/known-{name}-1000.parquet", {})
    samples = turnings.samples_of(TURNINGS[2], tmp_path)
    assert samples is not None
    row = samples.frame.iloc[0]
    assert (len(samples.frame), row["prompt"]) == (1, "opening 4, seed 1000, sample 0")
    assert row["worth"] == pytest.approx(SCALE * PER_WORD)  # equal sentiments, a word less
    assert turnings.samples_of(TURNINGS[2], Path(tmp_path / "study")) is None


def test_the_committed_frames_are_those_of_the_settings_and_the_page_is_theirs():
    figures = Path(__file__).resolve().parent.parent / "figures"
    found, manifest = load(figures)
    assert manifest["key"] == key_of(FULL)
    kept = promises(found, FULL)
    assert answer(kept) in (figures / "STUDY.md").read_text("utf-8")
    assert {one.part for one in kept} == {"coverage", "power", "bias", "turn", "word"}


def test_names_of_cases_and_turnings_are_files():
    assert len({case.name for case in FULL.cases}) == len(FULL.cases)
    assert all(case.simulations % FULL.per_study == 0 for case in FULL.cases)

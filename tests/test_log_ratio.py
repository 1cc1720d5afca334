"""The claim on the logged ratio rests on parameter gradients: do they correlate with π_l/π_w, and at what slope?"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gradlab.experiments.questions import log_ratio
from gradlab.experiments.report import verdicts
from gradlab.experiments.report.claims import CLAIMS

QUICK = {**log_ratio.SETTINGS, **log_ratio.QUICK}


def logs(slope=0.5, noise=0.0, methods=("dpo", "bdpo"), pairs=200):
    """Invented logs, in which the log ratios of parameter gradients grow at a slope; ∂L/∂π follows, as it must."""
    rng = np.random.default_rng(0)
    frames = []
    for method in methods:
        for policy in QUICK["policies"]:
            for seed in range(6):
                x = rng.normal(0, 2, pairs)
                draw = lambda: slope * x + noise * rng.normal(size=pairs)  # noqa: B023, E731
                frames.append(pd.DataFrame({
                    "method": method, "mask": 0.2, "policy": policy, "seed": seed, "step": 1, "log_lose_win": x,
                    "win_weight": 0.5, "prob_ratio": x, "grad_norm": draw(), "side_norm": draw(), "realised": draw(),
                }))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def answers(frame):
    return log_ratio.verdict(frame, {**QUICK, "rows_per_step": 200})


@pytest.mark.parametrize(
    ("slope", "noise", "word", "sentence"),
    [
        (0.3, 0.0, "holds throughout", "correlates with log(π_l/π_w) at r = 1.00, with slope 0.30 where 1"),
        (1.0, 2.0, "holds throughout", "correlates with log(π_l/π_w) at r = 0.69"),
        (-0.5, 0.0, "reversed", "correlates with log(π_l/π_w) at r = −1.00, with slope −0.50 where 1"),
        (0.0, 0.0, "no practical difference", "does not correlate with log(π_l/π_w): r is within 0.10 of 0"),
    ],
)
def test_the_ratio_of_parameter_gradients_carries_the_word(slope, noise, word, sentence):
    """Finding 7: whatever the identity says, the word is that of the correlation."""
    rows = answers(logs(slope, noise))
    primaries = [row for row in rows if row.role == "primary"]
    assert [(row.word, row.statement.method) for row in primaries] == [(word, "grad_norm")]
    assert sentence in primaries[0].sentence
    rows = [replace(row, experiment="log-ratio") for row in rows]
    assert verdicts.settle(rows, {"log-ratio": "current"}, ["log-ratio"])["log-ratio"].word == word


def test_the_identity_judges_nothing():
    (identity,) = [row for row in answers(logs()) if row.population == "cases"]
    assert (identity.role, identity.word) == ("context", "proved")
    assert "by definition" in identity.sentence
    broken = logs().assign(prob_ratio=0.0)
    assert next(row for row in answers(broken) if row.population == "cases").word == "refuted"
    assert "by algebra" in CLAIMS["log-ratio"].ours


@pytest.mark.parametrize(
    ("slope", "word", "sentence"),
    [(1.05, "no practical difference", "slope of 1, within 0.20: it follows in proportion"),
     (0.3, "reversed", "slope 0.70 below 1"), (2.0, "holds throughout", "slope 1.00 above 1")],
)  # fmt: skip
def test_the_slope_is_told_beside(slope, word, sentence):
    row = next(row for row in answers(logs(slope)) if row.statement.value == "excess")
    assert (row.role, row.word) == ("context", word)
    assert sentence in row.sentence


def test_r_and_slope_are_those_of_numpy_run_by_run():
    frame = logs(0.7, 1.0)
    found = log_ratio.fits(frame)
    assert len(found) == 2 * 2 * 6 * len(log_ratio.RATIOS)
    one = frame.query("method == 'dpo' and policy == 'shared' and seed == 3")
    row = found.query("trained == 'dpo' and policy == 'shared' and seed == 3 and method == 'realised'").iloc[0]
    assert row["r"] == pytest.approx(np.corrcoef(one["log_lose_win"], one["realised"])[0, 1], abs=1e-12)
    assert row["excess"] == pytest.approx(np.polyfit(one["log_lose_win"], one["realised"], 1)[0] - 1, abs=1e-12)


def test_a_ratio_that_does_not_vary_does_not_correlate():
    found = log_ratio.fits(logs().assign(realised=2.0))
    assert (found.loc[found["method"] == "realised", "r"] == 0).all()


def test_a_frame_without_a_policy_is_refused():
    with pytest.raises(ValueError, match="the declared values of policy; shared is missing"):
        answers(logs().query("policy == 'free'"))


def test_rows_that_are_there_twice_lacking_or_infinite_are_refused():
    whole = logs()
    with pytest.raises(ValueError, match=r"^frame must have 200 rows per step of a run, got 400 at method bdpo, mask"):
        answers(pd.concat([whole, whole]))
    with pytest.raises(ValueError, match=r"^frame must have 200 rows per step of a run, got 199 at method dpo, mask"):
        answers(whole[1:])
    with pytest.raises(ValueError, match=r"^frame must have no infinity in log_lose_win, prob_ratio, grad_norm"):
        answers(whole.assign(realised=np.inf))


def test_seeds_begin_where_the_settings_say():
    part = {**log_ratio.parts(QUICK)[0], "training": QUICK["training"].but(steps=2), "first_seed": 7}
    assert set(log_ratio.run_part(**part)["seed"]) == {7, 8}
    assert log_ratio.SETTINGS["first_seed"] == 1000

"""The claim on overhead is judged on whole steps of language models, by equivalence within 5%."""

import re

import numpy as np
import pandas as pd
import pytest

from gradlab.experiments.contrasts import Contrast, Unit
from gradlab.experiments.questions import cost
from gradlab.experiments.report import methods_page, saved, verdicts
from gradlab.experiments.report.claims import CLAIMS
from gradlab.store.artifacts import save_frame


def steps(ratio=1.0, noise=0.004):
    """Invented times of the trainer: whole steps of two sizes, bDPO's ``ratio`` times as long as DPO's."""
    rng = np.random.default_rng(0)
    rows = [
        {"part": part, "size": size, "method": method, "round": turn,
         "seconds": times * np.exp(noise * rng.standard_normal()) * (100 if part == "trainers" else 1)}
        for part in ("steps", "trainers") for size in ("small", "large")
        for method, times in (("dpo", 1.0), ("bdpo", ratio), ("ipo", 9.0)) for turn in range(12)
    ]  # fmt: skip
    return pd.DataFrame([*rows, {"part": "log-probs", "size": "head", "method": "full log_softmax"}])


def timings(step=1.0, memory=1.0, other=1.0, noise=0.004):
    """Invented measurements at these ratios of bDPO to DPO: a whole step, its memory, and time of the rest."""
    rng = np.random.default_rng(0)
    times = pd.DataFrame([
        {"what": what, "device": device, "pair": pair, "method": method,
         "seconds": (ratio if method == "bdpo" else 1) * np.exp(noise * rng.standard_normal()),
         "peak_mb": 100 * (memory if method == "bdpo" else 1)}
        for what, ratio in ((cost.WHOLE_STEP, step), ("tabular step", other), (cost.LOSS_ONLY, other))
        for device in ("cpu", "cuda") for pair in range(12) for method in ("dpo", "bdpo")
    ])  # fmt: skip
    peaks = times[times["pair"] < 5].drop(columns="seconds")
    return pd.concat([times.drop(columns="peak_mb"), peaks], ignore_index=True)


@pytest.mark.parametrize(
    ("ratio", "noise", "word", "said"),
    [
        (
            1.01,
            0.004,
            "no practical difference",
            r"takes as much time with bDPO as with DPO, within 5% \(the difference is \d\.\d%\)",
        ),
        (
            1.0,
            0.02,
            "no practical difference",
            r"takes as much time with bDPO as with DPO, within 5% \(the difference is \d\.\d%\)",
        ),
        (1.2, 0.004, "reversed", r"takes (19|20)\.\d% more time with bDPO than with DPO"),
        (0.8, 0.004, "holds throughout", r"takes (19|20)\.\d% less time with bDPO than with DPO"),
        (1.04, 0.3, "undecided", "takes"),
    ],
)
def test_a_whole_step_is_judged_by_equivalence(ratio, noise, word, said):
    (answer,) = cost.trainer_overhead(steps(ratio, noise))
    assert (answer.word, answer.role, len(answer.rows)) == (word, "primary", 2)
    assert re.match(f"a whole training step of a language model {said}", answer.sentence)
    assert answer.effect == pytest.approx(-np.log(ratio), abs=0.5 * noise)


def test_the_report_shows_the_percentage_that_the_sentence_says():
    (answer,) = cost.trainer_overhead(steps(1.2))
    line = saved.line(answer)
    assert line.effect == pytest.approx(-20, abs=0.5)
    assert f"takes {-line.effect:.1f}% more time" in answer.sentence
    assert line.low < line.effect < line.high < 0
    assert line.margin == pytest.approx(5)


def test_an_interval_across_0_is_no_failure():
    """Finding 8: a difference that is null within the margin confirms the claim, and reads so."""
    (answer,) = cost.trainer_overhead(steps(1.0, 0.02))
    assert answer.low < 0 < answer.high
    assert "as much time" in answer.sentence


def test_the_lab_and_memory_cannot_turn_the_claim(tmp_path):
    save_frame(steps(), tmp_path / "benchmarks/llm.parquet", {})
    save_frame(timings(other=3.0, memory=2.0), tmp_path / "benchmarks/overhead.parquet", {})
    one = verdicts.judge_claims(tmp_path, ["overhead"])["overhead"]
    assert one.word == "no practical difference"
    assert [row.role for row in one.rows] == ["primary", "robustness", *["context"] * 5]
    assert [row.word for row in one.rows[1:3]] == ["no practical difference", "reversed"]
    assert "peak memory of a language-model step" in one.rows[2].statement.statement
    text = "\n".join(methods_page.page([one], tmp_path, quick=False))
    assert text.count("The frames were committed without settings.") == 2


def test_without_times_of_whole_steps_there_is_no_answer(tmp_path):
    save_frame(timings(), tmp_path / "benchmarks/overhead.parquet", {})
    one = verdicts.judge_claims(tmp_path, ["overhead"])["overhead"]
    assert one.word == "not run"
    assert "make bench" in one.why


def test_a_quick_measurement_is_none(tmp_path):
    save_frame(steps(), tmp_path / "benchmarks/llm.parquet", {"quick": True})
    assert verdicts.judge_claims(tmp_path, ["overhead"])["overhead"].word == "not run"


def test_measurements_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="peak_mb > 0 where they have any"):
        cost.overhead(timings(memory=0.0))


def test_the_claim_names_its_margin():
    assert "5%" in CLAIMS["overhead"].ours


def test_a_contrast_says_what_equivalence_means():
    frame = pd.DataFrame([
        {"method": method, "value": base + 1e-4 * seed * (method == "new"), "cell": 0, "seed": seed}
        for method, base in (("new", 1.001), ("old", 1.0)) for seed in range(4)
    ])  # fmt: skip
    asked = {"claim": "x", "statement": "s", "method": "new", "baseline": "old", "value": "value", "by": ("cell",),
             "margin": 0.01, "unit": Unit("s", 1, 3), "better": "{size} longer"}  # fmt: skip
    plain = Contrast(**asked).judged(frame)
    assert plain.word == "no practical difference"
    assert plain.sentence == "0.001 s longer, too little to matter"
    assert Contrast(**asked, same="as long, within {margin}").judged(frame).sentence == "as long, within 0.010 s"

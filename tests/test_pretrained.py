"""What runs on a pretrained model say of the claims: each rule on made-up frames, whole and in parts."""

import numpy as np
import pytest
from made_up_pretrained import frames, run
from remembered import remembered

from gradlab.experiments import MEASURED
from gradlab.experiments.questions import pretrained, pretrained_predictions
from gradlab.experiments.questions.pretrained_levels import LEVELS, at_equal_kl, both
from gradlab.experiments.questions.pretrained_runs import (
    CORE,
    FILES,
    NEEDED,
    PER_WORD,
    REFERENCE,
    Runs,
    looks_of,
)
from gradlab.experiments.report import verdicts
from gradlab.store.artifacts import save_frame

made = remembered(frames)


def answers(found, claim, words=""):
    rows = [row for row in pretrained.verdict(found) if row.statement.claim == claim]
    chosen = [row for row in rows if words in row.statement.statement]
    assert chosen
    return chosen


def test_numbers_of_a_look_are_those_of_their_definitions():
    frame = run("known", "dpo", 1000)
    last = looks_of(frame).iloc[-1]
    pairs = frame[(frame["kind"] == "pair") & (frame["step"] == 200)]
    samples = frame[(frame["kind"] == "sample") & (frame["step"] == 200)]
    h_win, h_lose = pairs["win"] - pairs["ref_win"], pairs["lose"] - pairs["ref_lose"]
    assert last["win_moved"] == pytest.approx(h_win.mean())
    together = np.log(np.exp(pairs["win"]) + np.exp(pairs["lose"]))
    before = np.log(np.exp(pairs["ref_win"]) + np.exp(pairs["ref_lose"]))
    assert last["elsewhere"] == pytest.approx((before - together).mean())
    right = h_win > h_lose
    shorter, longer = (pairs["win_len"] < pairs["lose_len"]), (pairs["win_len"] > pairs["lose_len"])
    assert last["controlled"] == pytest.approx((right[shorter].mean() + right[longer].mean()) / 2)
    assert last["reward"] == pytest.approx(samples["sentiment"].mean() - PER_WORD * samples["words"].mean())
    assert last["kl"] == pytest.approx((samples["logp"] - samples["ref_logp"]).mean())


def test_a_rule_by_length_alone_has_a_controlled_accuracy_of_one_half():
    frame = run("hh", "dpo", 1000)
    pair = frame["kind"] == "pair"
    frame.loc[pair, "win"] = frame["ref_win"] - frame["win_len"]
    frame.loc[pair, "lose"] = frame["ref_lose"] - frame["lose_len"]
    last = looks_of(frame).iloc[-1]
    assert last["controlled"] == 0.5
    assert last["accuracy"] == pytest.approx(last["shorter"], abs=0.02)  # ties are broken by rounding


def test_the_start_of_each_path_is_the_reference_at_no_distance():
    start = looks_of(run("hh", REFERENCE, 1000))
    assert list(start["step"]) == [0]
    assert start["kl"].item() == 0 == start["elsewhere"].item() == start["win_moved"].item()
    assert start["controlled"].item() == 0.5


def test_values_at_equal_kl_lie_on_the_paths_and_every_path_counts():
    looks = Runs(made()).looks
    known = looks[looks["task"] == "known"]
    levels = at_equal_kl(known, ["reward"])
    assert set(levels["kl"]) <= set(LEVELS)
    assert set(levels["method"]) == {"dpo", "bdpo", "length-dpo"}
    for method, rows in levels[levels["kl"] == 0.5].groupby(
        "method"
    ):  # reward = .2 − .24 + .3 √(KL/2), by construction
        assert rows["reward"].mean() == pytest.approx(-0.04 + 0.3 * np.sqrt(0.25), abs=0.02), method
    assert len(both(levels, "bdpo", "dpo"))


@pytest.mark.parametrize("claim", ["pretrained-gain", "pretrained-mass", "pretrained-length"])
def test_without_all_runs_nothing_is_said_but_how_many_there_are(claim):
    some = dict(list(made().items())[:10])
    rows = answers(some, claim)
    assert {row.word for row in rows} == {"not run"}
    assert all(row.note.endswith("runs.") and " of " in row.note for row in rows)
    primary = next(row for row in rows if row.role == "primary")
    there = sum(name in some for name in FILES if name.split("-1")[0] in ("known-reference", "known-bdpo", "known-dpo"))
    if claim == "pretrained-gain":
        assert primary.note == f"{there} of 9 runs."


def test_equal_methods_confirm_the_length_control_and_leave_no_gain():
    rows = answers(made(), "pretrained-length", "controlled") + answers(made(), "pretrained-length", "reward")
    assert {row.word for row in rows if row.role == "primary" and "reward" in row.statement.statement} == {
        "no practical difference"
    }
    (halved,) = [
        row for row in answers(made(), "pretrained-gain", "openings")
        if row.role == "explains away" and "DPO at β/2" in row.statement.label
    ]  # fmt: skip
    assert halved.word in ("no practical difference", "undecided")


def test_a_method_that_is_ahead_everywhere_gains_beyond_its_controls():
    changes = {name: {"bonus": 0.4, "noise": 1e-3} for name in ("bdpo", "bdpo-double")}
    rows = [row for row in answers(made(changes), "pretrained-gain") if row.role in ("primary", "explains away")]
    assert {row.word for row in rows if "openings" in row.statement.statement} <= {
        "holds throughout",
        "holds on average",
    }
    assert "reaches" in rows[0].sentence
    assert answers(made(changes), "pretrained-length", "openings")[0].word.startswith("holds")


def test_what_goes_elsewhere_is_told_with_its_sign():
    changes = {"dpo": {"elsewhere": 3.0}}
    rows = [row for row in answers(made(changes), "pretrained-mass") if row.role == "primary"]
    assert {row.word for row in rows} <= {"holds throughout", "holds on average"}
    assert "less to other responses than DPO" in rows[0].sentence


def test_runs_beyond_the_core_judge_ppo_ablation_and_spikes():
    without = answers(made(), "ppo")
    assert {row.word for row in without} == {"not run"}
    assert without[0].note == "6 of 9 runs."
    whole = made({"nbdpo-symmetric": {"spikes": 3}, "ppo": {"bonus": 0.3}}, beyond=True)
    assert {row.word for row in answers(whole, "ppo", "true reward")} <= {"holds throughout", "holds on average"}
    spiked = answers(whole, "symmetric-unstable")[0]
    assert "in 3 of 3 runs, and that of DPO in 0 of 3 runs" in spiked.sentence
    assert {row.word for row in answers(whole, "ablation")} - {"not run"}


def test_gradients_that_follow_the_imbalance_are_seen():
    rows = answers(made({"dpo": {"slope": 1.0}}), "log-ratio", "parameter gradient")
    assert {row.word for row in rows if row.statement.value == "r"} == {"holds throughout"}
    assert {row.word for row in rows if row.statement.value == "excess"} == {"no practical difference"}


def test_the_measurement_is_there_with_its_first_frame_and_whole_with_its_core(tmp_path):
    measurement = MEASURED["pretrained"]
    assert not measurement.is_in(tmp_path)
    found = made()
    name = NEEDED[0]
    save_frame(found[name], tmp_path / FILES[name], {})
    assert measurement.is_in(tmp_path)
    assert not measurement.is_whole(tmp_path)
    assert list(measurement.load(tmp_path)) == [name]
    assert measurement.places(tmp_path) == ["llm/real"]
    assert {row.word for row in measurement.verdict(measurement.load(tmp_path))} == {"not run"} or name.endswith(
        "reference-1000"
    )


def test_a_claim_that_is_run_in_part_says_how_many_runs_there_are(tmp_path):
    for name in NEEDED[:2]:
        save_frame(made()[name], tmp_path / FILES[name], {})
    one = verdicts.judge_claims(tmp_path, ["pretrained-gain"])["pretrained-gain"]
    assert (one.word, one.why) == ("not run", "1 of 9 runs are committed")
    assert verdicts.judge_claims(tmp_path / "none", ["pretrained-gain"])["pretrained-gain"].why.endswith(
        "none has been committed"
    )


def test_figures_are_drawn_from_the_core():
    drawn = pretrained.figures(made())
    assert set(drawn) == set(pretrained.CAPTIONS)
    labels = [text.get_text() for text in drawn["pretrained-frontier"].legends[0].get_texts()]
    assert len(labels) == len(CORE)


def test_predictions_are_marked_once_the_core_is_there():
    runs = Runs(made())
    marks = dict(zip(range(7), pretrained_predictions.marked(runs), strict=True))
    assert marks[0][1].word == "held"
    failing = Runs(made({"bdpo": {"bonus": 0.5}}))
    words = [outcome.word for _, outcome in pretrained_predictions.marked(failing)]
    assert words[2:4] == ["failed", "failed"], "bDPO is far from DPO at β/2 and from length-weighted DPO"
    said = pretrained_predictions.in_words(failing)
    assert f"{words.count('failed')} have failed" in said
    assert "bdpo − dpo-half: +0." in said
    part = {name: frame for name, frame in made().items() if name != "known-bdpo-1000"}
    assert pretrained_predictions.marked(Runs(part)) == []
    assert pretrained_predictions.in_words(Runs(part)) == ""

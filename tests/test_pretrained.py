"""What runs on a pretrained model say of the claims: each rule on made-up frames, whole and in parts."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_up_pretrained import LOOKS, frames, run
from remembered import remembered

from gradlab.experiments import MEASURED
from gradlab.experiments.questions import pretrained, pretrained_answer, pretrained_predictions, pretrained_sides
from gradlab.experiments.questions.pretrained_levels import (
    LEVELS,
    PARTNERS,
    at_equal_kl,
    below_first_look,
    both,
    ends_left_out,
    over_shared_kl,
)
from gradlab.experiments.questions.pretrained_runs import (
    CORE,
    FILES,
    PARTS,
    PER_WORD,
    REFERENCE,
    SEEDS,
    TASKS,
    Runs,
    looks_of,
    unit,
    units,
)
from gradlab.experiments.report import verdicts
from gradlab.experiments.report.confidence import confidence
from gradlab.experiments.report.sensitivity import words_by_margin
from gradlab.store.artifacts import save_frame

made = remembered(frames)


def answers(found, claim, words=""):
    runs = Runs(found)
    chosen = [
        one for one in pretrained.asked() if claim in (None, one.contrast.claim) and words in one.contrast.statement
    ]
    assert chosen
    return [one.answered(runs) for one in chosen]


def test_numbers_of_a_look_are_those_of_their_definitions():
    frame = run("known", "dpo", 1000)
    last = looks_of(frame).iloc[-1]
    pairs = frame[(frame["kind"] == "pair") & (frame["step"] == 200)]
    samples = frame[(frame["kind"] == "sample") & (frame["step"] == 200)]
    h_win, h_lose = pairs["win"] - pairs["ref_win"], pairs["lose"] - pairs["ref_lose"]
    assert last["win_moved"] == pytest.approx(h_win.mean())
    assert last["moved"] == pytest.approx((h_win.mean() + h_lose.mean()) / 2)
    together = np.log(np.exp(pairs["win"]) + np.exp(pairs["lose"]))
    before = np.log(np.exp(pairs["ref_win"]) + np.exp(pairs["ref_lose"]))
    assert last["elsewhere"] == pytest.approx((before - together).mean())
    right = h_win > h_lose
    shorter, longer = (pairs["win_len"] < pairs["lose_len"]), (pairs["win_len"] > pairs["lose_len"])
    assert last["controlled"] == pytest.approx((right[shorter].mean() + right[longer].mean()) / 2)
    assert last["reward"] == pytest.approx(samples["sentiment"].mean() - PER_WORD * samples["words"].mean())
    assert last["kl"] == pytest.approx((samples["logp"] - samples["ref_logp"]).mean())
    cut = (frame["kind"] == "sample") & (frame["index"] < 5)
    frame.loc[cut, ["finished", "sentiment"]] = False, -1.0
    assert looks_of(frame).iloc[-1]["reward_ended"] == pytest.approx(last["reward"])
    assert looks_of(frame).iloc[-1]["reward"] < last["reward"]


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


def path(method, seed, kl, reward):
    """A training that was looked at so far from the reference, with such rewards."""
    return pd.DataFrame({"task": "known", "method": method, "seed": seed, "step": LOOKS[: len(kl)], "kl": kl,
                         "reward": reward})  # fmt: skip


@pytest.mark.parametrize(("power", "mean"), [(0.5, 1.0), (1.0, 1.5)])
def test_over_shared_kl_both_are_averaged_from_the_later_first_look_to_the_nearer_end(power, mean):
    looks = []
    for seed in SEEDS:
        start = path(REFERENCE, seed, [0.0], [9.0]).assign(step=0)
        ours = path("bdpo", seed, [1.0, 9.0], [0.0, 4.0 if power == 0.5 else 8.0])  # at 4: 2 in √KL, 3 in KL
        theirs = path("dpo-half", seed, [0.25, 4.0, 3.0], [0.0, 0.0, -7.0])  # the way back is dropped
        looks += [start, ours, theirs, path("bdpo-double", seed, [1.0, 2.0], [5.0, 5.0]),
                  path("dpo", seed, [3.0, 4.0], [0.0, 0.0])]  # fmt: skip
    shared = over_shared_kl(pd.concat(looks), "reward", "bdpo", "dpo", power).set_index(["method", "seed"])["reward"]
    assert shared["bdpo"].to_numpy() == pytest.approx([mean] * 3)
    assert shared["dpo"].to_numpy() == pytest.approx([0.0] * 3)


def test_rewards_at_trained_policies_move_what_is_said_over_shared_kl():
    looks = Runs(made()).looks
    known = looks[looks["task"] == "known"]
    later = known["method"].isin(["bdpo", "bdpo-double"]) & (known["step"] > LOOKS[0])
    lower = known.assign(reward=known["reward"] - 0.3 * later)
    gaps = [
        over_shared_kl(frame, "reward", "bdpo", "length-dpo", 0.5).groupby("method")["reward"].mean()
        for frame in (known, lower)
    ]
    assert gaps[1]["bdpo"] < gaps[0]["bdpo"] - 0.1
    assert gaps[1]["length-dpo"] == gaps[0]["length-dpo"]


def test_values_between_the_reference_and_the_first_look_are_counted():
    looks = pd.concat([path("bdpo", 1000, [0.4, 1.2, 0.9], [0.0] * 3), path("dpo", 1000, [1.1, 3.0], [0.0] * 2)])
    assert below_first_look(looks, [0.25, 0.5, 1.0, 2.0]) == (1 + 3, 3 + 4)
    assert ends_left_out(looks) == (1, 2)


def test_a_seed_without_shared_kl_leaves_nothing_to_say():
    looks = [path(method, seed, [1.0, 2.0], [0.0, 0.0]) for method in ("bdpo", "bdpo-double") for seed in SEEDS]
    looks += [path(method, seed, [1.5, 4.0], [0.0, 0.0]) for method in ("dpo-half", "dpo") for seed in SEEDS[:-1]]
    looks += [path(method, SEEDS[-1], [3.0, 4.0], [0.0, 0.0]) for method in ("dpo-half", "dpo")]
    assert not len(over_shared_kl(pd.concat(looks), "reward", "bdpo", "dpo", 0.5))


@pytest.mark.parametrize("at", [at_equal_kl, lambda looks, values: over_shared_kl(looks, *values, "bdpo", "dpo", 0.5)])
def test_a_kl_that_is_no_number_is_refused(at):
    looks = Runs(made()).looks
    looks = looks[looks["task"] == "known"]
    looks = looks.assign(kl=looks["kl"].where((looks["method"] != "bdpo") | (looks["step"] != LOOKS[1])))
    with pytest.raises(ValueError, match=r"^frame must have finite kl, reward, got others at .*known, .*bdpo"):
        at(looks, ["reward"])


@pytest.mark.parametrize("claim", ["pretrained-gain", "pretrained-mass", "pretrained-length"])
def test_without_all_runs_nothing_is_said_but_how_many_there_are(claim):
    some = dict(list(made().items())[:10])
    rows = answers(some, claim)
    assert {row.word for row in rows if row.role != "context"} == {"not run"}  # some context needs DPO's runs alone
    assert all(row.note.endswith("runs.") and " of " in row.note for row in rows if row.role != "context")
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


def test_real_pairs_are_compared_where_both_were_looked_at_and_dpo_itself_with_one_half():
    rows = [row for row in answers(made(), "pretrained-length") if row.role == "primary"]
    assert ["over shared KL" in row.statement.statement for row in rows] == [False, True]
    assert rows[0].statement.value == "reward"
    for claim in ("pretrained-gain", "pretrained-length"):
        (above,) = answers(made(), claim, "above ½")
        assert above.word.startswith("holds"), "made-up DPO is right more often than length alone"
        assert answers(made({"dpo": {"aimless": True}}), claim, "above ½")[0].word != above.word


def test_an_answer_on_real_pairs_says_what_length_tells_and_where_nothing_was_learned():
    said = pretrained_answer.task_in_words(Runs(made()), "hh")
    dpo = Runs(made()).ends.query("task == 'hh' and method == 'dpo'")
    assert f"DPO {dpo['accuracy'].mean():.1%}, at equal weight of lengths {dpo['controlled'].mean():.1%}" in said
    assert f"to prefer the shorter one {dpo['shorter'].mean():.1%}." in said
    assert "is not shown" not in said
    aimless = pretrained_answer.task_in_words(Runs(made({"dpo": {"aimless": True}})), "hh")
    assert "That DPO itself is above ½ is not shown ([" in aimless
    assert "Right on" not in pretrained_answer.task_in_words(Runs(made()), "known")


def test_an_answer_names_a_control_with_which_no_kl_is_shared():
    far = made()
    for name in units("hh", PARTNERS["bdpo", "length-dpo"].values()):
        sample = far[name]["kind"] == "sample"
        logp = far[name]["logp"].where(~sample, far[name]["ref_logp"] + 50 + far[name]["step"] / 10)
        far = {**far, name: far[name].assign(logp=logp)}
    said = pretrained_answer.task_in_words(Runs(far), "hh")
    assert "nothing of length-weighted DPO, with which no KL is shared in every seed (95%" in said
    assert "nan" not in said


def test_of_a_model_that_ends_no_response_the_reward_of_ended_ones_is_not_told():
    found = made()
    for seed in SEEDS:
        name = f"known-bdpo-{seed}"
        found = {**found, name: found[name].assign(finished=found[name]["finished"].astype(float) * 0)}
    rows = {row.statement.value: row.word for row in answers(found, "pretrained-gain", "bDPO") if
            row.statement.role == "context" and row.statement.baseline == "dpo"}  # fmt: skip
    assert rows["reward_ended"] == "not run"
    assert rows["finished"].startswith(("reversed", "fails"))


def test_what_goes_elsewhere_is_told_with_its_sign():
    changes = {"dpo": {"elsewhere": 3.0}}
    rows = [row for row in answers(made(changes), "pretrained-mass") if row.role == "primary"]
    assert {row.word for row in rows} <= {"holds throughout", "holds on average"}
    assert "less from both responses together than DPO" in rows[0].sentence


def test_runs_beyond_the_core_judge_ppo_ablation_and_spikes():
    without = answers(made(), "ppo")
    assert {row.word for row in without} == {"not run"}
    assert without[0].note == "6 of 9 runs."
    whole = made({"nbdpo-symmetric": {"spikes": 3}, "ppo": {"bonus": 0.3}}, beyond=True)
    ahead = {row.word for row in answers(whole, "ppo", "the true reward reaches more")}
    assert ahead <= {"holds throughout", "holds on average"}
    spiked = answers(whole, "symmetric-unstable")[0]
    assert "in 3 of 3 runs, and that of DPO in 0 of 3 runs" in spiked.sentence
    assert {row.word for row in answers(whole, "ablation")} - {"not run"}


def test_ppo_on_dpos_own_pairs_decides_and_what_cut_responses_do_is_beside_it():
    rows = answers(made({"ppo-fitted": {"bonus": 0.3}}, beyond=True), "ppo")
    roles = {(row.statement.method, row.statement.value, row.role) for row in rows}
    assert {role for method, value, role in roles if (method, value) == ("ppo-fitted", "reward")} == {"robustness"}
    assert {role for method, value, role in roles if (method, value) != ("ppo-fitted", "reward")} == {"context"}
    assert {value for _, value, _ in roles} == {"reward", "finished", "reward_ended"}
    (shared,) = [row for row in rows if "over shared KL" in row.statement.statement and row.role == "robustness"]
    assert shared.word.startswith("holds")


def test_runs_that_share_no_kl_are_said_to_be_there_with_the_kl_that_they_have():
    whole = made(beyond=True)
    for name in units("known", ["ppo-fitted"]):
        sample = whole[name]["kind"] == "sample"
        logp = whole[name]["logp"].where(~sample, whole[name]["ref_logp"] + 50 + whole[name]["step"] / 10)
        whole = {**whole, name: whole[name].assign(logp=logp)}
    (shared,) = [row for row in answers(whole, "ppo", "over shared KL") if row.role == "robustness"]
    assert shared.word == "not run"
    assert shared.note.startswith("All runs are there, but too few seeds have the number for both; looks at KL, nats: ")
    assert "reward model 55 to 70, DPO 0." in shared.note


def test_gradients_that_follow_the_imbalance_are_seen():
    rows = answers(made({"dpo": {"slope": 1.0}}), "log-ratio", "parameter gradient")
    assert {row.word for row in rows if row.statement.value == "r"} == {"holds throughout"}
    assert {row.word for row in rows if row.statement.value == "excess"} == {"no practical difference"}


def test_both_sides_of_a_batch_are_compared_by_their_definitions():
    log = {"kind": "log", "task": "known", "seed": 1000, "size": "135M", "logp_win": -9.0, "logp_lose": -8.0}
    steps = pd.DataFrame([
        {"grad_norm_win": 1.0, "grad_norm_lose": np.e, "grad_cosine": -0.3, "delta_win": 0.1},  # R = .37 > .3: inside
        {"grad_norm_win": 1.0, "grad_norm_lose": np.e, "grad_cosine": -0.3, "delta_win": -0.1},  # inside, and fell
        {"grad_norm_win": 1.0, "grad_norm_lose": np.e, "grad_cosine": -0.4, "delta_win": -0.1},  # outside
        {"grad_norm_win": np.e**3, "grad_norm_lose": 1.0, "grad_cosine": -0.1, "delta_win": 0.1},  # 1/R = .05 < .1
        {"grad_norm_win": np.nan, "grad_norm_lose": np.nan, "grad_cosine": np.nan, "delta_win": -9.0},
    ]).assign(**log, delta_lose=-0.1, step=range(5))  # fmt: skip
    outside = steps.iloc[2:4].assign(seed=1001)
    found = pretrained_sides.side_steps(
        pd.concat([steps.assign(method="dpo"), outside.assign(method="dpo")]).reset_index()
    )
    assert found["larger"].tolist() == pytest.approx([0.0, -1.0])
    assert found["inside"].tolist() == [0.5, 0.0]
    assert found["kept"].tolist() == pytest.approx([0.5, np.nan], nan_ok=True)


def test_sides_and_the_band_are_context_of_four_claims_and_their_answer_says_them():
    pushed = {"harder": 0.5}
    rows = [row for row in answers(made({"dpo": pushed}), None) if row.statement.value in ("larger", "inside", "above")]
    assert {(row.statement.claim, row.role) for row in rows} == {
        (claim, "context") for claim in ("log-ratio", "ratio-corrected", "pretrained-mass", "band-keeps-winner")
    }
    words = {row.statement.claim: row.word for row in rows if "openings" in row.statement.statement}
    assert words["log-ratio"] == words["ratio-corrected"] == "holds throughout"  # bDPO's sides are even here
    assert words["pretrained-mass"] == words["band-keeps-winner"] == "holds throughout"
    said = pretrained_answer.task_in_words(Runs(made({"dpo": pushed})), "known")
    assert "The losers' parameter gradient in DPO's batches is 1.6" in said
    assert "100% of DPO's steps lie in the band" in said


def test_without_a_step_in_the_band_nothing_is_said_of_what_it_keeps():
    (row,) = (
        row
        for row in answers(made({"dpo": {"harder": 3.0}}), "band-keeps-winner")
        if "openings" in row.statement.statement
    )
    assert row.word == "not run"
    assert row.note.startswith("All runs are there, but too few seeds have the number")


def test_the_measurement_is_there_with_its_first_frame_and_whole_with_its_core(tmp_path):
    measurement = MEASURED["pretrained"]
    assert not measurement.is_in(tmp_path)
    found = made()
    name = PARTS[0][0]
    save_frame(found[name], tmp_path / FILES[name], {})
    assert measurement.is_in(tmp_path)
    assert not measurement.is_whole(tmp_path)
    assert list(measurement.load(tmp_path)) == [name]
    assert measurement.places(tmp_path) == ["llm/real"]
    assert {row.word for row in measurement.verdict(measurement.load(tmp_path))} == {"not run"}
    for name in PARTS[0]:
        save_frame(found[name], tmp_path / FILES[name], {}, overwrite=True)
    assert measurement.is_whole(tmp_path)  # a task by itself
    assert len(measurement.figures(measurement.load(tmp_path))["pretrained-frontier"].axes) == 1


def test_a_claim_that_is_run_in_part_says_how_many_runs_there_are(tmp_path):
    for name in PARTS[0][:2]:
        save_frame(made()[name], tmp_path / FILES[name], {})
    one = verdicts.judge_claims(tmp_path, ["pretrained-gain"])["pretrained-gain"]
    assert (one.word, one.why) == ("not run", "has 1 of 9 runs so far")
    assert one.sentence == "nobody has measured it here"
    for name in units("known", (REFERENCE, *CORE)):
        save_frame(made()[name], tmp_path / FILES[name], {})
    half = verdicts.judge_claims(tmp_path, ["pretrained-gain"])["pretrained-gain"]
    assert (half.word, half.why) == ("not run", "needs another part, with 0 of 9 runs so far")
    assert half.sentence.startswith("measured in part: on openings of known reward, pretrained model, bDPO")
    assert verdicts.judge_claims(tmp_path / "none", ["pretrained-gain"])["pretrained-gain"].why.endswith(
        "none has been committed"
    )


@pytest.mark.parametrize("claim", ["pretrained-gain", "pretrained-length"])
def test_a_part_that_is_not_run_yet_counts_in_holms_correction(tmp_path, claim):
    there = {name: frame for name, frame in made().items() if name.startswith("known")}
    for name, frame in there.items():
        save_frame(frame, tmp_path / FILES[name], {})
    alone = next(row for row in answers(there, claim) if row.role == "primary" and row.word != "not run").evidence
    settled = verdicts.judge_claims(tmp_path, [claim])[claim]
    joint = next(row for row in settled.rows if row.role == "primary" and row.word != "not run").evidence
    assert joint.p_differs == pytest.approx(min(2 * alone.p_differs, 1))
    assert joint.p_equivalent == pytest.approx(min(2 * alone.p_equivalent, 1))


def settled(found, folder, *names):
    """Claims as they are judged from frames in a folder."""
    for name, frame in found.items():
        save_frame(frame, folder / FILES[name], {})
    return verdicts.judge_claims(folder, names)


BEHIND = {"bdpo": {"bonus": -0.4}, "bdpo-double": {"bonus": -0.4}}
AHEAD = {"bdpo": {"bonus": 0.4}, "bdpo-double": {"bonus": 0.4}}


@pytest.mark.parametrize("changes", [AHEAD, BEHIND])
def test_a_difference_on_either_side_decides_against_that_there_is_none(tmp_path, changes):
    moved = {unit("hh", name, seed): run("hh", name, seed, **of) for name, of in changes.items() for seed in SEEDS}
    found = {**made(), **moved}
    one = settled(found, tmp_path, "pretrained-length")["pretrained-length"]
    assert one.word == "reversed"
    assert one.decisive is not None
    assert one.decisive.word == ("reversed" if changes is BEHIND else "holds throughout")
    assert ("less often" if changes is BEHIND else "more often") in one.sentence
    by_margin = words_by_margin(verdicts.primaries(one.rows, "stated"), no_difference=True)
    assert by_margin[0.5] == by_margin[1.0] == "reversed"
    beyond = [row for row in one.of("primary") if "real pairs" in row.statement.statement]
    least = min(abs(beyond[0].low), abs(beyond[0].high)) / beyond[0].statement.margin - 1
    assert confidence([replace(one, rows=tuple(beyond))])[0] == ("high" if least >= 0.5 else "medium")


def test_a_whole_core_without_a_difference_confirms_that_there_is_none(tmp_path):
    found = dict(made())
    for task, seed in itertools.product(TASKS, SEEDS):
        for end in ("", "-double"):
            same = found[f"{task}-length-dpo{end}-{seed}"]
            found[f"{task}-bdpo{end}-{seed}"] = same.assign(method=f"bdpo{end}")
    claims = settled(found, tmp_path, "pretrained-length", "pretrained-gain", "pretrained-mass")
    one = claims["pretrained-length"]
    assert one.word == "no practical difference"
    assert "are equal" in one.sentence
    assert one.why == "" == claims["pretrained-gain"].why
    control = [row for row in claims["pretrained-gain"].of("explains away") if "length-weighted" in row.sentence]
    assert {row.word for row in control} == {"no practical difference"}
    for row in (row for claim in claims.values() for row in claim.rows):
        assert row.needs == 0 or row.needs > row.replicates, row.sentence


def test_runs_that_share_no_kl_are_told_as_such(tmp_path):
    found = dict(made())
    far = found["hh-bdpo-1002"].copy()
    sampled = far["kind"] == "sample"
    far.loc[sampled, "ref_logp"] = far.loc[sampled, "logp"] - 70 - far.loc[sampled, "step"] / 100
    found["hh-bdpo-1002"] = found["hh-bdpo-double-1002"] = far
    found["hh-bdpo-double-1002"] = far.assign(method="bdpo-double")
    one = settled(found, tmp_path, "pretrained-length")["pretrained-length"]
    assert one.word == "not run"
    assert one.why.startswith("has a part of which nothing is told: all runs are there, but too few seeds have")
    assert "runs so far" not in one.why


def test_a_frame_of_another_run_or_of_a_part_of_one_is_refused():
    found, name = made(), "hh-bdpo-1001"
    frame = found[name]
    wrong = {
        "must end at step 200, as": frame[frame["step"] != 200],
        "must have the held-out pairs of": frame[(frame["kind"] != "pair") | (frame["index"] < 40)],
        "must have the rows of this run": frame.assign(seed=1002),
    }
    for line, other in wrong.items():
        with pytest.raises(ValueError, match=f"^{name} {line}"):
            pretrained.verdict({**found, name: other})
    shifted = frame.assign(ref_win=frame["ref_win"] + 1)
    with pytest.raises(ValueError, match=f"^{name} must have the held-out pairs of"):
        pretrained.verdict({**found, name: shifted})


def test_rows_at_equal_kl_say_which_looks_they_read():
    found = dict(made())
    for seed in SEEDS:
        frame = found[f"hh-bdpo-double-{seed}"].copy()
        end = (frame["kind"] == "sample") & (frame["step"] == 200)
        frame.loc[end, "ref_logp"] = frame.loc[end, "logp"] - 0.1
        found[f"hh-bdpo-double-{seed}"] = frame
    over, at = (answers(found, "pretrained-length", f"{words}bDPO is right")[0] for words in ("KL ", "at equal KL "))
    assert over.note == "the ends of 3 of 12 trainings are left out, as their KL was larger before"
    assert at.note.endswith("values of a training at a level lie on the line from the reference to its first look")
    (moved,) = answers(found, "pretrained-mass", "real pairs: bDPO takes less from both responses together than DPO (")
    assert moved.note.startswith("taken by bDPO ")


def test_figures_are_drawn_from_the_core():
    drawn = pretrained.figures(made())
    assert set(drawn) == set(pretrained.CAPTIONS)
    labels = [text.get_text() for text in drawn["pretrained-frontier"].legends[0].get_texts()]
    assert len(labels) == len(CORE)


def test_predictions_are_marked_once_the_core_is_there():
    runs = Runs(made())
    marks = [outcome.word for _, outcome in pretrained_predictions.marked(runs, "known")]
    assert marks[0] == "held"
    assert "held" in [outcome.word for _, outcome in pretrained_predictions.marked(runs, "hh")]
    failing = Runs(made({"bdpo": {"bonus": 0.5}, "dpo": {"harder": 3.0}}))
    words = [outcome.word for _, outcome in pretrained_predictions.marked(failing, "known")]
    assert words[2:4] == ["failed", "failed"], "bDPO is far from DPO at β/2 and from length-weighted DPO"
    real = [outcome.word for _, outcome in pretrained_predictions.marked(failing, "hh")]
    assert real[5:7] == ["failed", "failed"], "the losers' side is larger, and DPO is out of the band"
    said = pretrained_predictions.in_words(failing)
    assert f"{words.count('failed')} have failed" in said
    assert "bdpo − dpo-half: +0." in said
    part = {name: frame for name, frame in made().items() if name != "known-bdpo-1000"}
    assert pretrained_predictions.marked(Runs(part), "known") == []
    said = pretrained_predictions.in_words(Runs(part))
    assert "on known reward" not in said
    assert "predictions on real pairs" in said

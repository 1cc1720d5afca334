"""The doctor: each sign is found in a log that has it and not in one that nearly has it; no log makes it stumble.

A healthy log is made up here, and each test spoils one thing of it. TRL's logs are made from the names that TRL writes.
"""

import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import complaint
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlab import cli
from gradlab.doctor import (
    LN2,
    SIGNS,
    SPIKE_EVALUATIONS,
    SPIKE_FLOOR,
    SPIKE_MULTIPLE,
    examine_log,
    nothing_judged,
    report,
    sample_rules,
    side_rules,
    spikes,
    training_rules,
    validation_rules,
)
from gradlab.doctor.curves import Log
from gradlab.doctor.log_columns import COLUMNS, TRL_LOSSES, is_loss
from gradlab.doctor.loss_facts import LossFacts, loss_facts
from gradlab.doctor.rule import Rule
from gradlab.doctor.rules import RULES
from gradlab.doctor.side_rules import weight_range
from gradlab.doctor.training_log import append_step, read_log, start_log
from gradlab.losses import PAIR_LOSSES, PairLogps, differentiated, facts_of, family_of, pair_loss, slopes
from gradlab.losses.registry import YOURS, numbers_of

SAMPLES = sorted((Path(__file__).parent.parent / "gradlab/widgets/samples").glob("*dpo*.jsonl"))
STEPS, EVERY = 200, 10
OF_SAMPLES = {rule.sign for rule in sample_rules.RULES}  # of trainings that sample responses
TO_TRL = {
    "reward_win": "rewards/chosen", "reward_lose": "rewards/rejected", "reward_margin": "rewards/margins",
    "accuracy": "rewards/accuracies", "logp_win": "logps/chosen", "logp_lose": "logps/rejected",
}  # fmt: skip


def healthy(loss="bdpo", steps=STEPS, **hyper):
    """A run that learns: the loss falls, on held-out pairs too, and the winners gain."""
    step = np.arange(1, steps + 1)
    learnt = 1 - np.exp(-(step - 1) / 60)
    noise = np.random.default_rng(0).normal(size=(steps, 4)) * (step > 1)[:, None]
    log = pd.DataFrame({
        "step": step, "loss": LN2 - 0.25 * learnt + 0.01 * noise[:, 0], "accuracy": 0.5 + 0.25 * learnt,
        "reward_win": 0.2 * learnt + 0.01 * noise[:, 1], "reward_lose": -0.5 * learnt + 0.01 * noise[:, 2],
        "logp_win": -100 + 2 * learnt + 3 * noise[:, 1], "logp_lose": -100 - 5 * learnt + 3 * noise[:, 2],
        "win_weight": 0.5, "win_weight_q10": 0.3, "win_weight_q50": 0.5, "win_weight_q90": 0.7,
        "slope_win": -0.05, "slope_lose": 0.05, "log_prob_ratio": noise[:, 3], "grad_norm": 1.0,
        "learning_rate": 1e-5 * np.minimum(step, 20) / 20,
    })  # fmt: skip
    log["reward_margin"] = log["reward_win"] - log["reward_lose"]
    seen = (step - 1) % EVERY == 0
    log["validation_loss"] = np.where(seen, LN2 - 0.2 * learnt + 0.002 * noise[:, 3], np.nan)
    log["validation_accuracy"] = np.where(seen, np.where(step > 1, 0.55 + 0.15 * learnt, 0.0), np.nan)
    log["validation_reward_margin"] = np.where(seen, 0.5 * learnt, np.nan)
    held_out = {"validation_pairs": 10_000, "validation_prompts": 10_000, "validation_prompts_seen": 0}
    log.attrs = {"settings": {"loss": loss, "beta": 0.1, **held_out, **hyper}, "notes": []}
    return log


def found(log, baseline=None):
    """The severity of each sign that was seen."""
    return {one.sign: one.severity for one in examine_log(log, baseline) if one.judged}


def unjudged(log, baseline=None):
    return {one.sign: one.what for one in examine_log(log, baseline) if not one.judged and one.applies}


def the(log, sign, baseline=None):
    """The one finding of a sign."""
    (one,) = (finding for finding in examine_log(log, baseline) if finding.sign == sign and finding.judged)
    return one


def changed(log=None, **columns):
    log = healthy() if log is None else log
    attrs = log.attrs
    log = log.assign(**columns)
    log.attrs = attrs
    return log


def told(log, **settings):
    log.attrs["settings"] |= settings
    return log


def test_a_healthy_log_is_healthy_and_the_report_says_what_was_looked_for():
    findings = examine_log(healthy())
    assert {one.sign for one in findings} == OF_SAMPLES
    assert not any(one.judged or one.applies for one in findings)
    text = report(findings)
    assert text.endswith("\nhealthy")
    assert {title for title in SIGNS.values() if title not in text} == {SIGNS[sign] for sign in OF_SAMPLES}


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_a_healthy_log_is_healthy_for_every_loss(name):
    log = healthy(name, **{**numbers_of(pair_loss(name)), **({"clip": 0.3} if name.startswith("nbdpo") else {})})
    start = Log.of(log).start()
    if start is None:
        pytest.skip("its start differs from pair to pair, or is no scale to compare with")
    log = changed(log, **{side: log[side] * start[0] / LN2 for side in ("loss", "validation_loss")})
    if name.startswith("nbdpo"):
        log = changed(log, win_weight_q10=0.51, win_weight_q50=0.53, win_weight_q90=0.55)
    assert found(log) == {}


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_the_table_of_starting_values_and_of_weights_is_that_of_the_losses(name):
    given = numbers_of(pair_loss(name))
    hyper = {**given, **{key: value for key, value in {"beta": 0.3, "clip": 0.4}.items() if key in given}}
    loss = pair_loss(name, **hyper)
    log = Log.of(healthy(name, **hyper))
    win, lose = torch.tensor([[-5.0, -50.0, -3.1, -3.0], [-50.0, -5.0, -3.0, -3.0]], dtype=torch.float64)
    lengths = torch.tensor([3, 30, 7, 7]), torch.tensor([30, 3, 8, 7])
    start, value = log.start(), loss(PairLogps(win, lose, win, lose, *lengths))
    if start is None:
        assert (loss.start_value or 0) <= 0  # it differs from pair to pair, or is no scale to compare with
    else:
        assert value.tolist() == pytest.approx([start[0]] * 4)
    sides = slopes(differentiated(loss), PairLogps(win, lose, win - 1, lose - 1, *lengths))
    weight = (sides[0].abs() / (sides[0].abs() + sides[1].abs())).tolist()
    if log.facts.constant_weight:
        assert weight == pytest.approx([weight[0]] * 4)
    else:
        floor, ceiling, _ = weight_range(log)
        below = slopes(differentiated(loss), PairLogps(win, lose, win + 1, lose + 3, *lengths))
        weight += (below[0].abs() / (below[0].abs() + below[1].abs())).tolist()
        if family_of(loss) != YOURS:  # of a user's loss the range is not known, and λ_w may be constant after all
            assert max(weight) > min(weight) + 1e-3
        assert min(weight) >= floor - 1e-12
        assert max(weight) <= ceiling + 1e-12
        if "clip" in hyper:  # the first two pairs are far beyond the clip
            assert sorted(weight[:2]) == pytest.approx([floor, ceiling])


@dataclass(frozen=True)
class Bent:
    """A loss that the doctor has never heard of: it starts at 3, and λ_w lies between ¼ and ½."""

    name, equation, source, antisymmetric = "bent", "3 − h_w + 2h_l", "a test", False
    weight_range = (0.25, 0.5)

    def __call__(self, logps):
        return 3 - logps.win_logratio + 2 * logps.lose_logratio


def test_a_log_says_what_the_doctor_must_know_of_a_loss_that_it_has_never_heard_of(tmp_path):
    log, known = healthy("bent"), told(healthy("bent"), loss_facts=facts_of(Bent()))
    assert "weight-at-edge" not in found(changed(log, win_weight=0.26, win_weight_q10=0.25, win_weight_q50=0.25))
    assert "0.25 to 0.5" in the(changed(known, win_weight_q10=0.25, win_weight_q50=0.25), "weight-at-edge").what
    assert "which starts at 3, but logged like dpo" in the(known, "other-loss").what
    path = tmp_path / "log.jsonl"
    start_log(path, {"loss": "bent", "loss_facts": facts_of(Bent())})
    append_step(path, 1, loss=3.0)
    assert found(read_log(path)) == {}
    constant = told(healthy("bent"), loss_facts={**facts_of(Bent()), "constant_weight": True})
    assert unjudged(constant)["weight-at-edge"] == "λ_w is constant for the loss bent"


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_facts_in_the_header_and_facts_by_name_are_the_same(name):
    loss = pair_loss(name, **({"beta": 0.3} if hasattr(pair_loss(name), "beta") else {}))
    by_name = loss_facts({"loss": name, **vars(loss)})
    assert loss_facts({"loss": "mine", "loss_facts": json.loads(json.dumps(facts_of(loss)))}) == by_name
    assert not by_name.unknown


@pytest.mark.parametrize(
    "facts", [{}, {"start_value": "x", "weight_range": [1, 0]}, {"weight_range": 3, "logistic": 1}]
)
def test_facts_that_are_none_are_left_out(facts):
    assert loss_facts({"loss": "dpo", "loss_facts": facts}) == LossFacts()


def test_trls_hinge_is_not_taken_for_a_logistic_loss():
    log = changed(healthy("hinge"), loss=np.where(healthy()["step"] > 20, 0.0, 1.0))
    assert "not-finite" not in found(log)
    assert unjudged(log)["weight-at-edge"] == "λ_w is constant for the loss hinge"


# Spikes


def evaluations(number=20, noise=0.0, seed=0):
    steps = 50 * np.arange(1, number + 1)
    return steps, LN2 - 0.2 * (1 - np.exp(-np.arange(number) / 5)) + noise * np.random.default_rng(seed).normal(
        size=number
    )


def test_a_spike_is_found_with_its_step_and_size():
    steps, loss = evaluations()
    loss[12] += 0.8
    ((step, size),) = spikes(steps, loss)
    assert step == steps[12]
    assert type(step) is int
    assert size == pytest.approx(loss[12] - loss[11])
    order = np.random.default_rng(0).permutation(len(steps))
    assert spikes(steps[order], loss[order]) == [(step, size)]
    loss[5] = math.nan
    assert spikes(steps, loss) == [(step, size)]
    assert spikes(list(steps), list(loss)) == [(step, size)]


def test_a_rise_must_beat_the_floor_and_the_usual_change():
    steps = np.arange(10)
    for usual, size, is_one in (
        (0.0, SPIKE_FLOOR * 1.001, True), (0.0, SPIKE_FLOOR * 0.999, False),
        (0.05, 0.05 * SPIKE_MULTIPLE * 1.001, True), (0.05, 0.05 * SPIKE_MULTIPLE * 0.999, False),
    ):  # fmt: skip
        changes = np.full(9, -usual)
        changes[4] = size
        loss = 2 + np.concatenate([[0], np.cumsum(changes)])
        assert bool(spikes(steps, loss)) is is_one, (usual, size)


def test_a_fall_a_slope_and_a_short_log_are_no_spikes():
    steps, loss = evaluations()
    falls = loss.copy()
    falls[10:] -= 0.4
    assert spikes(steps, falls) == []
    assert spikes(steps, np.linspace(0.7, 40, len(steps))) == []
    assert spikes(steps, 0.7 + 0.001 * np.exp(np.arange(len(steps)))) == []  # grows ever faster, but by degrees
    few = SPIKE_EVALUATIONS - 1
    assert spikes(steps[:few], [0.7] * (few - 1) + [9.0]) == []
    assert spikes([], []) == []
    with pytest.raises(ValueError, match="steps and values must have one length, got 2 and 3"):
        spikes([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"^values must not hide entries under a mask"):
        spikes([1, 2], np.ma.array([1.0, 9.0], mask=[False, True]))


def test_steps_are_whole_numbers():
    steps, loss = evaluations()
    loss[12] += 0.8
    with pytest.raises(ValueError, match=r"^steps must be whole numbers, got 650\.5$"):
        spikes(np.where(steps == 650, 650.5, steps), loss)
    with pytest.raises(ValueError, match=r"^steps of log must be whole numbers, got 1\.5$"):
        examine_log(changed(step=healthy()["step"] + 0.5))
    with pytest.raises(ValueError, match=r"^steps of baseline must be whole numbers, got 1\.5$"):
        examine_log(healthy(), changed(step=healthy()["step"] + 0.5))
    gaps = np.where(np.arange(len(steps)) % 7 == 3, math.nan, steps)  # rows without a step are left out
    assert [step for step, _ in spikes(gaps, loss)] == [650]
    assert found(changed(step=healthy()["step"].where(healthy()["step"] != 50))) == {}


@pytest.mark.parametrize("number", [6, 8, 12, 24, 100])
def test_noise_alone_is_seldom_a_spike(number):
    # Far more noise than a fixed set of held-out pairs has, so that the floor does not decide.
    alarms = sum(bool(spikes(*evaluations(number, 0.15, seed))) for seed in range(500))
    assert alarms < 0.05 * 500


@pytest.mark.parametrize(("number", "often", "share"), [(8, 1, 0.9), (24, 1, 0.99), (24, 4, 0.99), (24, 8, 0.95)])
def test_spikes_are_found_also_where_they_are_many(number, often, share):
    hits = 0
    for seed in range(200):
        steps, loss = evaluations(number, 0.01, seed)
        where = np.random.default_rng(seed).choice(np.arange(2, number), often, replace=False)
        loss[where] += 0.5
        hits += {step for step, _ in spikes(steps, loss)} <= set(steps[where]) and bool(spikes(steps, loss))
    assert hits > share * 200


def test_a_spike_that_comes_back_is_a_warning_and_one_that_stays_a_problem():
    log = healthy()
    up = log["validation_loss"].to_numpy().copy()
    up[100] += 0.5
    one = the(changed(log, validation_loss=up), "validation-spike")
    assert one.severity == "warning"
    assert one.where == "step 101"
    assert "came back" in one.what
    up[110:] += 0.5
    one = the(changed(log, validation_loss=up), "validation-spike")
    assert one.severity == "problem"
    assert "has not come back" in one.what
    near = log["validation_loss"].to_numpy().copy()
    near[100] += 0.9 * SPIKE_FLOOR
    assert "validation-spike" not in found(changed(log, validation_loss=near))


# λ


@pytest.mark.parametrize(
    ("columns", "severity"),
    [
        ({"win_weight": 0.01, "win_weight_q10": 0.0, "win_weight_q50": 0.005, "win_weight_q90": 0.019}, "problem"),
        ({"win_weight": 0.99, "win_weight_q10": 0.981, "win_weight_q50": 1.0, "win_weight_q90": 1.0}, "problem"),
        ({"win_weight": 0.4, "win_weight_q10": 0.01, "win_weight_q50": 0.01, "win_weight_q90": 0.99}, "warning"),
        ({"win_weight": 0.1, "win_weight_q10": 0.03, "win_weight_q50": 0.05, "win_weight_q90": 0.2}, None),
        ({"win_weight": 0.5, "win_weight_q10": 0.01, "win_weight_q50": 0.5, "win_weight_q90": 0.99}, None),
        ({"win_weight": 0.3, "win_weight_q10": 0.01, "win_weight_q50": 0.01, "win_weight_q90": 0.7}, None),
        ({"win_weight": 0.985, "win_weight_q10": None, "win_weight_q50": None, "win_weight_q90": None}, "problem"),
        ({"win_weight": 0.97, "win_weight_q10": None, "win_weight_q50": None, "win_weight_q90": None}, None),
    ],
)
def test_lambda_at_an_end_of_its_range(columns, severity):
    assert found(changed(**columns)).get("weight-at-edge") == severity


def test_lambda_is_judged_by_its_end():
    early = np.where(np.arange(STEPS) < 150, 0.0, 0.5)
    assert "weight-at-edge" not in found(changed(win_weight=early, win_weight_q50=early, win_weight_q90=early))


@pytest.mark.parametrize(
    ("name", "quantiles", "is_one"),
    [
        ("nbdpo", (0.5, 0.5, 0.5652), True),  # clip 0.3: w from 1 to 1.3, and λ = w/(w + 1)
        ("nbdpo", (0.5, 0.53, 0.5652), False),
        ("nbdpo", (0.504, 0.53, 0.561), False),
        ("nbdpo-symmetric", (0.4348, 0.5652, 0.5652), True),
        ("nbdpo-symmetric", (0.4348, 0.5, 0.5652), False),
        ("nbdpo-symmetric", (0.45, 0.5, 0.55), False),
        ("bdpo", (0.4348, 0.5652, 0.5652), False),
    ],
)
def test_the_clip_sets_the_ends_of_lambda_for_the_naive_losses(name, quantiles, is_one):
    log = healthy(name, clip=0.3)
    log = changed(log, **dict(zip(("win_weight_q10", "win_weight_q50", "win_weight_q90"), quantiles, strict=True)))
    assert found(log).get("weight-at-edge") == ("warning" if is_one else None)
    if is_one:
        assert "clip 0.3" in the(log, "weight-at-edge").what
    if name != "bdpo":
        del log.attrs["settings"]["clip"]
        assert "no clip" in unjudged(log)["weight-at-edge"]


def test_a_constant_lambda_is_not_judged():
    log = changed(healthy("fixed-weight"), win_weight=1.0, win_weight_q10=1.0)
    assert "constant" in unjudged(log)["weight-at-edge"]
    assert "weight-at-edge" not in found(log)


# Stuck


def test_a_loss_that_stays_at_ln_2():
    rng = np.random.default_rng(0)
    tiny = 0.002 * rng.normal(size=STEPS)
    stuck = changed(loss=LN2 + tiny)
    assert found(stuck)["stuck"] == "problem"
    assert the(stuck, "stuck").where == "steps 135 to 200"
    assert "Rewards reach" in the(stuck, "stuck").what
    assert "stuck" not in found(changed(loss=LN2 - 0.01 + tiny))  # learns slowly
    assert "stuck" not in found(changed(loss=np.where(np.arange(STEPS) < 120, LN2, 0.6)))  # learns late
    ends = np.where(np.arange(STEPS) % 2, LN2 + 0.2, LN2 - 0.2)
    assert "stuck" not in found(changed(loss=ends))  # about ln 2 on average, but not there


def test_what_a_stuck_loss_says_of_its_cause():
    same = changed(loss=LN2, reward_win=0.0, reward_lose=0.0, learning_rate=0.0, grad_norm=0.0)
    what = the(same, "stuck").what
    assert "rewards are exactly 0" in what
    assert "learning rate is 0" in what
    assert "gradient is 0" in what
    rising = changed(loss=LN2, learning_rate=np.arange(STEPS) * 1e-9)
    assert the(rising, "stuck").severity == "warning"
    assert "warm-up" in the(rising, "stuck").what


def test_stuck_is_by_the_loss_s_own_start():
    assert found(changed(healthy("ipo"), loss=25.0, reward_win=0.0, reward_lose=0.0, reward_margin=0.0)).get("stuck")
    assert "stuck" not in found(changed(healthy("ipo"), loss=24.0))
    for name in ("ppo", "sft"):
        assert f"where the loss {name} starts" in unjudged(changed(healthy(name), loss=LN2))["stuck"]
    nameless = changed(loss=LN2)
    nameless.attrs = {}
    assert found(nameless)["stuck"] == "problem"


# The reference


def test_a_reference_far_from_the_start():
    def first(**values):
        return changed(**{name: [value, *healthy()[name][1:]] for name, value in values.items()})

    far = first(loss=1.6, reward_win=3.0, reward_lose=-4.0)
    assert found(far)["far-reference"] == "problem"
    assert "loss is 1.6, where equal models give ln 2" in the(far, "far-reference").what
    assert "reward_win is 3" in the(far, "far-reference").what
    both = first(reward_win=9.8, reward_lose=9.7)  # far, and alike on both sides: the margin does not show it
    assert found(both)["far-reference"] == "problem"
    assert found(first(reward_win=-0.2, reward_lose=-0.2))["far-reference"] == "warning"
    assert found(first(loss=0.76))["far-reference"] == "warning"
    near = first(loss=0.72, reward_win=-0.08, reward_lose=0.08)
    assert "far-reference" not in found(near)
    assert found(told(far, init="base"))["far-reference"] == "note"


def test_the_reference_of_ipo_is_judged_by_its_own_start():
    right = changed(healthy("ipo"), loss=np.linspace(25.0, 12.0, STEPS))
    assert "far-reference" not in found(right)
    assert "1/(4β²) = 25" in the(changed(right, loss=np.linspace(60.0, 12.0, STEPS)), "far-reference").what


def test_without_a_first_step_the_reference_is_not_judged():
    late = healthy()[healthy()["step"] >= 10]
    late.attrs = healthy().attrs
    assert "begins at step 10" in unjudged(late)["far-reference"]
    silent = healthy().drop(columns=[name for name in healthy() if "reward" in name])
    silent.attrs = {}
    assert "no rewards" in unjudged(silent)["far-reference"]


def test_a_loss_summed_over_micro_batches_is_named():
    log = changed(loss=16 * healthy()["loss"])
    one = the(log, "far-reference")
    assert one.severity == "note"
    assert "16 × ln 2" in one.what


# Another loss than the configured one


def test_a_start_other_than_the_reference_has_no_known_first_loss():
    """With ``--init base`` the policy begins elsewhere: ln 2 is then no start, though a loss may begin near it."""
    log = changed(healthy("dpo"), validation_loss=np.where(healthy()["validation_loss"].isna(), np.nan, 0.8))
    assert any("ln 2 where it starts" in finding.what for finding in examine_log(log))
    log.attrs["settings"] |= {"start": "model", "reference": "runs/reference/model"}
    assert not any("ln 2" in finding.what for finding in examine_log(log))


def test_a_loss_that_starts_as_another_is_named():
    """Configured hinge starts at 1, and the log at ln 2: DPO's. The reference is not to blame, as rewards are 0."""
    log = healthy("hinge")
    one = the(log, "other-loss")
    assert one.severity == "problem"
    assert one.what.startswith("Configured hinge, which starts at 1, but logged like dpo, cdpo")
    assert "far-reference" not in found(log)
    names = ["reward_win", "reward_lose", "reward_margin", "validation_reward_margin"]
    silent = changed(log, **dict.fromkeys(names, np.nan))
    assert found(silent)["other-loss"] == "warning"
    averaged = changed(healthy("ipo"), loss=np.linspace(1.0, 0.5, STEPS))
    assert "which starts at 1/(4β²) = 25, but logged like hinge" in the(averaged, "other-loss").what


def test_the_names_of_trls_losses_are_those_of_their_twins():
    assert "Configured trl's bco_pair, which starts at 2 ln 2" in the(healthy("TRL's bco_pair"), "other-loss").what
    assert "other-loss" not in found(changed(healthy("TRL's hinge"), loss=np.linspace(1.0, 0.5, STEPS)))
    assert loss_facts({"loss": "TRL's ipo", "beta": 0.1}).start_value == pytest.approx(25)
    assert set(TRL_LOSSES.values()) <= set(PAIR_LOSSES)


def test_a_far_reference_and_a_summed_loss_are_not_taken_for_another_loss():
    far = changed(healthy("hinge"), reward_win=[3.0, *healthy()["reward_win"][1:]])
    assert "other-loss" not in found(far)
    assert "far-reference" in found(far)
    assert "other-loss" not in found(changed(loss=2 * healthy()["loss"]))
    assert "other-loss" not in found(changed(loss=[0.9, *healthy()["loss"][1:]]))  # no loss starts there


def test_a_negative_loss_where_the_configured_one_has_none():
    falling = changed(loss=np.linspace(LN2, -1.0, STEPS))
    one = the(falling, "other-loss")
    assert one.severity == "problem"
    assert "The loss bdpo is never negative, but the logged one is in " in one.what
    assert "down to -1" in one.what
    unbounded = changed(healthy("robust", label_smoothing=0.1), loss=np.linspace(LN2, -1.0, STEPS))
    assert "other-loss" not in found(unbounded)
    rounded = changed(loss=np.linspace(LN2, -1e-4, STEPS))
    assert "other-loss" not in found(rounded)


def test_another_loss_is_not_judged_without_a_name_or_a_known_loss():
    nameless = healthy()
    del nameless.attrs["settings"]["loss"]
    assert unjudged(nameless)["other-loss"] == "the settings do not name the loss"
    assert "of the loss mystery is known" in unjudged(healthy("mystery"))["other-loss"]


# Both sides


def test_both_log_probabilities_falling():
    learnt = healthy()["reward_win"] / 0.2
    down = changed(reward_win=-1.5 * learnt, reward_lose=-3 * learnt)  # 15 and 30 nats at β 0.1
    one = the(down, "both-falling")
    assert one.severity == "warning"
    assert re.search(r"winners has fallen by 1[34]\.?\d* nats \(of \d+", one.what)
    assert "2410.08847" in one.what
    little = changed(reward_win=-0.3 * learnt, reward_lose=-1 * learnt)
    assert found(little)["both-falling"] == "note"
    assert "both-falling" not in found(changed(reward_win=-0.05 * learnt, reward_lose=-1 * learnt))  # half a nat
    worse = changed(reward_win=-1 * learnt, reward_lose=-0.5 * learnt)
    assert "the winners' as fast or faster" in the(worse, "both-falling").what


def test_both_sides_by_log_probabilities_alone_stand_out_from_the_batches():
    log = healthy().drop(columns=["reward_win", "reward_lose", "reward_margin"])
    log.attrs = {"settings": {}, "notes": []}
    noise = np.random.default_rng(1).normal(size=(2, STEPS))
    slope = np.linspace(0, 1, STEPS)
    down = changed(log, logp_win=-100 - 20 * slope + 3 * noise[0], logp_lose=-100 - 40 * slope + 3 * noise[1])
    assert found(down)["both-falling"] == "warning"
    near = changed(log, logp_win=-100 - 2 * slope + 30 * noise[0], logp_lose=-100 - 4 * slope + 30 * noise[1])
    assert "both-falling" not in found(near)


def averaged(log, **settings):
    """A log whose log π and rewards are means over the 100 tokens of its responses."""
    names = [name for name in ("reward_win", "reward_lose", "logp_win", "logp_lose") if name in log]
    found = log.assign(**{name: log[name] / 100 for name in names})
    found.attrs = {**log.attrs, "settings": {**log.attrs["settings"], "reduction": "mean", **settings}}
    return found


def test_means_over_tokens_are_judged_as_whole_responses_where_their_length_is_known():
    log = falling(ratio=0.6, cosine=-0.8)
    bare = log.drop(columns=["reward_win", "reward_lose", "reward_margin"])
    bare.attrs = log.attrs
    for whole in (log, bare):
        mean = averaged(whole, response_tokens=100.0)
        for sign in ("both-falling", "displacement"):
            assert found(mean).get(sign) == found(whole).get(sign)
            assert (sign in found(whole)) == (whole is log)
        unknown = averaged(whole)
        assert not {"both-falling", "displacement"} & set(found(unknown))
        assert "have no response_tokens, the mean length" in unjudged(unknown)["both-falling"]
        assert "have no response_tokens, the mean length" in unjudged(unknown)["displacement"]
    said = the(averaged(log, response_tokens=100.0), "both-falling").what
    assert "(means over tokens, times the 100 tokens of a response)" in said
    assert "times the" not in the(log, "both-falling").what


def test_without_beta_the_unit_is_said():
    learnt = healthy()["reward_win"] / 0.2
    log = changed(reward_win=-1.5 * learnt, reward_lose=-3 * learnt).drop(columns=["logp_win", "logp_lose"])
    log.attrs = {}
    assert "nats × β" in the(log, "both-falling").what


# Not finite


def written(path, rows, **settings):
    start_log(path, settings)
    for step, row in enumerate(rows, 1):
        append_step(path, step, **row)
    return read_log(path)


def test_a_number_that_is_not_finite_is_found_in_a_file(tmp_path):
    rows = [{"loss": 0.6, "grad_norm": 1.0, "log_prob_ratio": 0.0}] * 5
    log = written(tmp_path / "fine.jsonl", rows)
    assert "not-finite" not in found(log)
    log = written(tmp_path / "loss.jsonl", [*rows, {"loss": math.nan}])
    one = the(log, "not-finite")
    assert one.severity == "problem"
    assert "loss, first at line 7" in one.what
    assert "bfloat16" in one.try_this
    assert "log" not in found(log)  # it is said once
    log = written(tmp_path / "norm.jsonl", [*rows, {"grad_norm": math.inf}, {"log_prob_ratio": math.nan}])
    one = the(log, "not-finite")
    assert one.severity == "warning"
    assert "grad_norm, infinite in 1 of 6 rows, first at step 6" in one.what
    assert "log_prob_ratio" in one.what


@pytest.mark.parametrize("name", ["perplexity", "mean/x"])
def test_what_is_not_finite_in_an_unknown_column_is_noted_and_not_among_what_is_fine(tmp_path, name):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"step": 1, "loss": 0.69}}\n{{"step": 2, "loss": 0.69, "{name}": NaN}}\n')
    log = read_log(path)
    assert found(log) == {"not-finite": "note"}
    assert the(log, "not-finite").what == f"Not finite: {name}, first at line 2 of the file."
    assert (
        "not finite, or underflow" not in report(examine_log(log)).partition("not found")[2].partition("Not judged")[0]
    )
    assert the(healthy(), "log", log).what == f"baseline: {name} is not finite, first at line 2"


def test_a_baseline_that_is_not_finite_is_told(tmp_path):
    bad = written(tmp_path / "bad.jsonl", [{"loss": 0.69}, {"loss": math.nan}])
    assert "baseline: loss is not finite, first at line 3" in report(examine_log(healthy(), bad))


def test_gaps_are_not_nan():
    log = healthy()
    for name in ("loss", "grad_norm", "reward_win"):
        log[name] = log[name].where(np.arange(STEPS) % 7 == 0)
    assert "not-finite" not in found(log)


@pytest.mark.parametrize("name", ["grad_norm", "slope_win", "slope_lose", "grad_norm_lose"])
def test_gradients_of_exactly_zero(name):
    some = np.where(np.arange(STEPS) == 50, 0.0, 1e-30)
    assert "not-finite" not in found(changed(**{name: 1e-30}))
    assert found(changed(**{name: some}))["not-finite"] == "warning"
    assert the(changed(**{name: some}), "not-finite").where == "first at step 51"
    assert found(changed(**{name: np.where(np.arange(STEPS) > 100, 0.0, 1.0)}))["not-finite"] == "problem"


@pytest.mark.parametrize("loss", ["hinge", "slic", "apo-down"])
def test_a_loss_with_a_target_has_no_gradient_beyond_it(loss):
    """apo-down has none on the winner at the reference; hinge and SLiC have none once every pair is beyond."""
    log = changed(healthy(loss), loss=1.0)  # whatever its numbers
    one_side = {name: np.where(np.arange(STEPS) == 0, 0.0, 1.0) for name in ("grad_norm_win", "slope_win")}
    assert "not-finite" not in found(changed(log, **one_side))
    learnt = the(changed(log, grad_norm=np.where(np.arange(STEPS) > 100, 0.0, 1.0)), "not-finite")
    assert learnt.severity == "note"
    assert "nothing is left to learn" in learnt.what
    assert found(changed(log, grad_norm=0.0))["not-finite"] == "problem"


def test_a_loss_of_exactly_zero_may_hide_nan():
    zero = np.where(np.arange(STEPS) > 100, 0.0, healthy()["loss"])
    one = the(changed(loss=zero), "not-finite")
    assert one.severity == "problem"
    assert "logging_nan_inf_filter=False" in one.try_this
    assert "not-finite" not in found(changed(healthy("ppo"), loss=zero))


# Gain


def flat(**columns):
    """A log whose validation measures are these at every evaluation after the first."""
    log = healthy()
    there = log["validation_loss"].notna() & (log["step"] > 1)
    return changed(log, **{f"validation_{name}": log[f"validation_{name}"].mask(there, value)
                           for name, value in columns.items()})  # fmt: skip


def test_no_gain_over_chance():
    nothing = flat(loss=0.7, accuracy=0.5)
    assert found(nothing)["no-gain"] == "problem"
    assert "accuracy is 0.500" in the(nothing, "no-gain").what
    assert "loss is 0.7, not below 0.6831, a little under ln 2 where it starts" in the(nothing, "no-gain").what
    unsure = flat(loss=0.75)
    assert found(unsure)["no-gain"] == "warning"
    assert "too sure where wrong" in the(unsure, "no-gain").what
    hardly = the(flat(loss=0.688), "no-gain").what
    assert "loss is 0.688, not below 0.6831" in hardly
    assert "too sure where wrong" not in hardly
    assert found(flat(accuracy=0.51))["no-gain"] == "warning"
    assert "no-gain" not in found(flat(accuracy=0.53, loss=0.67))
    assert found(told(flat(accuracy=0.53), validation_pairs=100))["no-gain"] == "warning"  # 2 standard errors: 0.1
    assert found(flat(reward_margin=-0.1))["no-gain"] == "warning"


def test_no_gain_says_which_evaluations_it_means():
    log = healthy()
    early = log[(log["validation_loss"].isna()) | log["step"].isin([1, 41])]
    assert the(changed(early, validation_accuracy=early["validation_accuracy"].where(early["step"] != 41, 0.5)),
               "no-gain").where == "step 41"  # fmt: skip
    assert the(flat(accuracy=0.5), "no-gain").where.endswith("the mean of 3 evaluations")


def test_no_gain_over_the_shorter_answer():
    log = flat(accuracy=0.62)
    assert "no-gain" not in found(told(log, length_baseline=0.58))
    one = the(told(log, length_baseline=0.61), "no-gain")
    assert one.severity == "warning"
    assert "0.620" in one.what
    assert "0.610" in one.what
    assert "no-gain" not in found(told(log, length_baseline=None))


@pytest.mark.parametrize(
    ("accuracy", "shorter", "words"),
    [
        (0.68, 0.3, '"prefer the longer answer", 0.700'), (0.68, 0.7, '"prefer the shorter answer", 0.700'),
        (0.73, 0.3, ""), (0.73, 0.7, ""), (0.99, 0.0, '"prefer the longer answer", 1.000'),
        (0.99, 1.0, '"prefer the shorter answer", 1.000'), (0.99, True, ""), (0.99, 1.5, ""), (0.99, "0", ""),
    ],
)  # fmt: skip
def test_no_gain_over_the_better_of_both_lengths(accuracy, shorter, words):
    log = told(flat(accuracy=accuracy), length_baseline=shorter)
    assert ("no-gain" in found(log)) == bool(words)
    assert not words or words in the(log, "no-gain").what


def test_no_gain_over_a_baseline():
    better, same, base = flat(accuracy=0.68), flat(accuracy=0.651), flat(accuracy=0.65)
    same["validation_loss"] = base["validation_loss"]
    assert "no-gain" not in found(better, base)
    one = the(same, "no-gain", base)
    assert one.severity == "warning"
    assert "validation_accuracy 0.651, the baseline's 0.65" in one.what
    assert "validation_loss" in one.what
    assert "validation_loss" not in the(told(same, beta=0.2), "no-gain", base).what  # of another β: not compared
    surer = flat(accuracy=0.651, loss=0.5)
    assert found(surer, flat(accuracy=0.65, loss=0.6))["no-gain"] == "note"
    bare = base.drop(columns=["validation_accuracy"])
    assert "validation accuracy" in unjudged(told(same, beta=0.2), bare)["no-gain"]


def test_gain_is_not_judged_too_early():
    log = healthy(steps=25)
    assert "last validation is at step 21; 30" in unjudged(log)["no-gain"]


# Overfitting


def test_overfitting():
    log = healthy()
    step = log["step"].to_numpy()
    falls = LN2 - 0.5 * step / STEPS
    there = log["validation_loss"].notna()

    def seen(rise, train=falls):
        turned = 0.55 + np.where(step < 100, (100 - step) / 100 * 0.14, (step - 100) / 100 * rise)
        return changed(log, loss=train, validation_loss=np.where(there, turned, np.nan))

    one = the(seen(0.1), "overfitting")
    assert one.severity == "warning"
    assert one.where in ("since step 91", "since step 101")
    assert "checkpoint of about step" in one.try_this
    assert found(seen(0.3))["overfitting"] == "problem"  # above ln 2 again
    assert "overfitting" not in found(seen(0.015))
    assert "overfitting" not in found(seen(0.1, train=np.where(step < 80, falls, falls[80])))  # it learns no more


def test_noise_is_not_overfitting():
    alarms = 0
    for seed in range(50):
        log = healthy()
        noise = 0.03 * np.random.default_rng(seed).normal(size=STEPS)
        alarms += "overfitting" in found(changed(log, validation_loss=log["validation_loss"] + noise))
    assert alarms < 2


# Whole logs


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_samples_have_no_problem_but_both_sides_fall(path):
    assert len(SAMPLES) == 3
    log = read_log(path)
    assert found(log) == {"both-falling": "warning", "displacement": "note"}  # as the explorer's stories say
    late = log["reward_win"].tail(24).mean() / log.attrs["settings"]["beta"]
    assert f"fallen by {-late:.3g} nats" in the(log, "both-falling").what


def trl_state(path, log, first=10):
    """The log as TRL's trainer_state.json: every tenth row, evaluations in rows of their own."""
    history = []
    for _, row in log[log["step"] % 10 == 0].iterrows():
        if row["step"] < first:
            continue
        own = {TO_TRL.get(name, name): row[name] for name in ("loss", "grad_norm", "learning_rate", *TO_TRL)}
        seen = {f"eval_{name}": row[f"validation_{name}"] for name in ("loss",)}
        seen |= {f"eval_{TO_TRL[name]}": row[f"validation_{name}"] for name in ("accuracy", "reward_margin")}
        history += [{**own, "step": int(row["step"])}, {**seen, "step": int(row["step"])}]
    path.write_text(json.dumps({"log_history": history}))
    return read_log(path)


@pytest.fixture
def shifted():
    """The healthy log with its evaluations where TRL has them, after every tenth step."""
    log = healthy()
    names = [name for name in log if name.startswith("validation_")]
    return changed(log, **{name: log[name].shift(EVERY - 1) for name in names})


def test_trl_s_log_is_judged_by_what_it_has(tmp_path, shifted):
    log = trl_state(tmp_path / "trainer_state.json", shifted)
    assert found(log) == {}
    missing = unjudged(log)
    assert set(missing) == {"other-loss", "far-reference", "weight-at-edge", "seen-prompts"}
    assert "logging_first_step=True" in missing["far-reference"]
    assert "win_weight" in missing["weight-at-edge"]
    assert report(examine_log(log)).endswith(
        f"healthy, as far as it is judged: {len(SIGNS) - 4 - len(OF_SAMPLES)} of {len(SIGNS) - len(OF_SAMPLES)} signs"
    )


def test_trl_s_known_failures_are_found(tmp_path, shifted):
    """As in threads of TRL's users: rewards stuck at 0 (#1311), loss 0 that hides NaN (smol-course #61)."""
    same = changed(shifted, loss=0.6932, reward_win=0.0, reward_lose=0.0, reward_margin=0.0, accuracy=0.0,
                   grad_norm=0.0, validation_loss=0.6931, validation_accuracy=0.0)  # fmt: skip
    seen = found(trl_state(tmp_path / "stuck.json", same))
    assert {sign: seen[sign] for sign in ("stuck", "no-gain", "not-finite")} == dict.fromkeys(
        ("stuck", "no-gain", "not-finite"), "problem"
    )
    hidden = changed(shifted, loss=np.where(shifted["step"] > 10, 0.0, 0.69), grad_norm=math.nan, reward_win=math.nan)
    log = trl_state(tmp_path / "nan.json", hidden)
    assert found(log)["not-finite"] == "problem"
    whats = " ".join(one.what for one in examine_log(log) if one.sign == "not-finite")
    assert "reward_win, first at row 1" in whats
    assert "NaN was written as 0" in whats


def test_a_log_without_validation_says_what_it_cannot_judge():
    log = healthy()[[name for name in healthy() if not name.startswith("validation_")]]
    log.attrs = healthy().attrs
    assert found(log) == {}
    assert set(unjudged(log)) == {"validation-spike", "overfitting", "no-gain"}
    text = report(examine_log(log))
    assert "no validation_loss" in text
    assert "Looked for and not found" in text


def test_one_row_is_too_short_for_nearly_all():
    log = healthy().head(1)
    assert found(log) == {}
    judged = {"not-finite", "other-loss", "far-reference", "weight-at-edge", "seen-prompts", *OF_SAMPLES}
    assert set(unjudged(log)) == {*SIGNS} - judged
    empty = healthy().head(0)
    assert set(unjudged(empty)) == {*SIGNS} - {"seen-prompts", *OF_SAMPLES}


def test_empty_columns_count_as_missing_and_are_named():
    log = changed(win_weight=math.nan, win_weight_q10=math.nan, win_weight_q50=math.nan, win_weight_q90=math.nan)
    assert "no win_weight" in unjudged(log)["weight-at-edge"]
    assert "win_weight_q10" in the(log, "log").what


def test_notes_of_the_file_are_shown(tmp_path):
    path = tmp_path / "log.jsonl"
    written(path, [{"loss": 0.6}] * 3)
    path.write_bytes(path.read_bytes()[:-5])
    log = read_log(path)
    assert "was cut short" in report(examine_log(log))
    assert "baseline: line 4 was cut short" in report(examine_log(healthy(), log))


def test_the_worst_comes_first_and_the_report_has_all():
    log = changed(
        flat(loss=0.7, accuracy=0.5), loss=LN2, reward_win=-1.0, slope_win=0.0, win_weight_q50=0.0, win_weight_q90=1.0
    )
    findings = examine_log(log)
    order = [("problem", "warning", "note").index(one.severity) for one in findings if one.judged]
    assert order == sorted(order)
    text = report(findings)
    words = " ".join(text.split())
    for one in findings:
        assert not one.applies or " ".join(one.what.split()) in words
        assert one.try_this in words
    assert max(map(len, text.splitlines())) <= 100
    assert re.fullmatch(r"\d problems, \d warnings?", text.splitlines()[-1])


def test_a_frame_without_steps_is_refused():
    with pytest.raises(ValueError, match="log must have a column step, got loss"):
        examine_log(pd.DataFrame({"loss": [1.0]}))
    with pytest.raises(ValueError, match="baseline must have a column step, got none"):
        examine_log(healthy(), pd.DataFrame())


def test_order_and_index_of_the_rows_do_not_matter():
    log = changed(loss=LN2)
    mixed = log.sample(frac=1, random_state=0)
    mixed.attrs = log.attrs
    assert examine_log(mixed) == examine_log(log)


numbers = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, 0.5, LN2, 1.0, -1e308, 1e308, 5e-324, -0.0]),
    st.integers(-(2**53), 2**53),
)
whole = st.one_of(st.integers(-(2**53), 2**53), st.sampled_from([1e308, -1e308, math.nan, math.inf, -math.inf]))
names = st.sampled_from([*COLUMNS, *(f"validation_{name}" for name in COLUMNS), "epoch"])
told_settings = st.fixed_dictionaries(
    {},
    optional={
        "loss": st.sampled_from([*PAIR_LOSSES, "ppo", "sft", "mine", 3, None]),
        "init": st.sampled_from(["base", "reference"]),
        **{name: st.one_of(numbers, st.none(), st.text(max_size=2), st.booleans())
           for name in ("beta", "clip", "validation_pairs", "length_baseline")},
    },
)  # fmt: skip


@st.composite
def logs(draw):
    rows = draw(st.integers(0, 40))
    columns = {"step": st.one_of(st.just(list(range(1, rows + 1))), st.lists(whole, min_size=rows, max_size=rows))}
    for name in draw(st.lists(names, unique=True, max_size=8)):
        constant = numbers.map(lambda value: [value] * rows)
        columns.setdefault(name, st.one_of(constant, st.lists(numbers, min_size=rows, max_size=rows)))
    log = pd.DataFrame({name: draw(values) for name, values in columns.items()})
    log.attrs = {"settings": draw(told_settings), "notes": draw(st.lists(st.text(max_size=9), max_size=2))}
    return log


def test_every_rule_in_a_file_of_rules_is_listed_and_no_sign_is_taken_twice():
    files = (training_rules, sample_rules, validation_rules, side_rules)
    assert [rule for file in files for rule in vars(file).values() if isinstance(rule, Rule)] == list(RULES)
    assert len(SIGNS) == len(RULES)


@settings(deadline=None, max_examples=100)
@given(logs(), st.none() | logs())
def test_no_log_of_numbers_makes_it_stumble(log, baseline):
    findings = examine_log(log, baseline)
    text = report(findings)
    assert {one.sign for one in findings} <= {*SIGNS, "log"}
    assert all(one.what for one in findings if one.sign != "log")
    left_out = {one.sign for one in findings if not one.applies}
    assert all((title in text) == (sign not in left_out) for sign, title in SIGNS.items())


@settings(deadline=None, max_examples=100)
@given(st.lists(numbers, max_size=30))
def test_spikes_are_rises_beyond_the_floor(values):
    for _, size in spikes(range(len(values)), values):
        assert size >= SPIKE_FLOOR


# Nothing judged, or a part


@pytest.mark.parametrize("name", ["nll_loss", "train/nll_loss", "actor/pg_loss", "train_loss", "loss/train",
                                  "eval_loss", "Loss", "critic/vf-loss", "rewards_eval/margins"])  # fmt: skip
@pytest.mark.parametrize("value", ["NaN", "Infinity", '"-Infinity"'])
def test_a_loss_that_is_not_finite_is_a_problem_under_every_name(tmp_path, name, value):
    path = tmp_path / "log.jsonl"
    path.write_text(
        f'{{"step": 1, "grad_norm": 1, "{name}": 0.69}}\n{{"step": 2, "grad_norm": 1, "{name}": {value}}}\n'
    )
    one = the(read_log(path), "not-finite")
    assert one.severity == "problem"
    assert "line 2" in one.what or "first at step 2" in one.what
    if is_loss(name):  # in a frame too
        assert found(pd.DataFrame({"step": [1, 2], name: [0.5, math.inf]}))["not-finite"] == "problem"


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("curve.csv", "Wall time,Step,Value\n1.5,1,0.7\n2.5,2,nan\n", "Wall time, Value"),
        ("log.jsonl", '{"step": 1, "epoch": 0.1, "train_runtime": 7}\n', "epoch, train_runtime"),
        ("log.jsonl", '{"step": 1, "learning_rate": 0.1}\n', "learning_rate"),
        ("log.csv", "step\n1\n2\n", "no column"),
        ("log.csv", "step,loss\n1,\n2,\n", "loss"),
    ],
)
def test_a_log_of_which_nothing_can_be_judged_is_not_healthy(tmp_path, capsys, name, content, columns):
    (tmp_path / name).write_text(content)
    assert cli.main(["doctor", str(tmp_path / name)]) == 4
    out = capsys.readouterr().out
    words = " ".join(out.split())
    assert f"nothing could be judged: beside step, the log has {columns}; columns known are loss, reward_" in words
    assert out.endswith("nothing could be judged\n")
    assert "not found" not in out
    assert ("Not finite: Value, first at line 3 of the file." in out) == ("nan" in content)
    assert nothing_judged(examine_log(read_log(tmp_path / name)))


def test_the_logs_of_others_are_judged(tmp_path, capsys):
    """A stuck loss, NaN, and rewards far from 0 at the start are seen under the names of each."""
    steps = range(1, 61)
    authors = [{"loss/train": LN2, "rewards_train/chosen": 0.0, "rewards_train/rejected": 0.0, "grad_norm": 0.5,
                "counters/updates": step, "counters/examples": 64 * step} for step in steps]  # fmt: skip
    openrlhf = [{"train/loss": LN2, "train/chosen_reward": 3.0, "train/reject_reward": 1.0, "train/acc": 0.5,
                 "train/global_step": step} for step in steps]  # fmt: skip
    for name, rows in (("authors", authors), ("openrlhf", openrlhf)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert found(read_log(path))["stuck"] == "problem"
        assert ("far-reference" in found(read_log(path))) == (name == "openrlhf")
    curve = tmp_path / "run-.-tag-loss_train.csv"
    curve.write_text("Wall time,Step,Value\n" + "".join(f"1.5,{step},{LN2}\n" for step in steps))
    assert cli.main(["doctor", str(curve)]) == 3
    assert "1 problem; " in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("steps", [["a", "b"], [[1], [2]], [None, None], [math.nan, 1], [{}, 3], [True, 2]])
def test_steps_of_a_frame_that_are_no_numbers_are_left_out(steps):
    assert examine_log(pd.DataFrame({"step": steps, "loss": [0.5, 0.4]}))


# Sampled responses


def ppo(**columns):
    """A PPO that learns: the reward rises, the judge with it, KL comes to rest, texts end."""
    step = np.arange(STEPS)
    learnt = 1 - np.exp(-step / 40)
    noise = np.random.default_rng(1).normal(size=(STEPS, 6))
    sampled = {
        "reward": learnt + 0.05 * noise[:, 0], "judge": 0.5 * learnt + 0.05 * noise[:, 1],
        "kl": 4 * learnt + 0.3 * noise[:, 2] * (step > 0), "entropy": 2 - 0.6 * learnt + 0.05 * noise[:, 3],
        "finished": 0.9 + 0.02 * noise[:, 4], "response_length": 60 + 3 * noise[:, 5],
        "zero_variance": 0.1, "reward_deviation": 0.5,
    }  # fmt: skip
    loss = 0.05 * 4 * learnt - learnt + 0.05 * noise[:, 0]  # −(reward − β KL)
    held_out = [name for name in healthy() if name.startswith("validation_")]
    log = changed(**{**sampled, "loss": loss, **columns})
    log = log[["step", "loss", "grad_norm", "learning_rate", *held_out, *sampled]]
    facts = {"logistic": False, "start_value": None, "start_equation": "", "weight_range": [0.0, 1.0]}
    held_out_pairs = {"validation_pairs": 10_000, "validation_prompts": 10_000, "validation_prompts_seen": 0}
    log.attrs = {"settings": {"loss": "ppo", "loss_facts": facts, "beta": 0.05, **held_out_pairs}, "notes": []}
    return log


def wave(*heights, noise=0.05, seed=2):
    """A curve through these heights at equal distances, with noise."""
    curve = np.interp(np.linspace(0, len(heights) - 1, STEPS), range(len(heights)), heights)
    return curve + noise * np.random.default_rng(seed).normal(size=STEPS)


def test_a_healthy_ppo_is_healthy():
    assert found(ppo()) == {}
    assert not set(unjudged(ppo())) & OF_SAMPLES
    bare = ppo()[["step", "grad_norm"]]
    bare.attrs = {"settings": {"loss": "ppo"}}
    assert set(unjudged(bare)) >= OF_SAMPLES
    assert unjudged(bare)["kl"] == "the log has no kl"


@pytest.mark.parametrize("seed", range(20))
def test_noise_alone_is_no_sign(seed):
    """Curves that go nowhere, of many rows and of few."""
    noise = np.random.default_rng(seed).normal(size=(5, STEPS))
    log = ppo(
        reward=noise[0], judge=noise[1], kl=2 + noise[2], entropy=2 + 0.3 * noise[3], finished=0.5 + 0.1 * noise[4]
    )
    for rows in (STEPS, 30, 10):
        part = log.iloc[:rows]
        part.attrs = log.attrs
        assert not set(found(part)) & OF_SAMPLES, rows


def test_held_out_pairs_are_not_what_ppo_is_trained_on():
    """The log is of a loss that falls as the reward rises, while DPO's on held-out pairs rises: no overfitting."""
    seen = healthy()["validation_loss"].notna()
    turned = LN2 + np.where(np.arange(STEPS) < 60, -0.1, np.linspace(-0.1, 0.5, STEPS))
    rising = ppo(validation_loss=np.where(seen, turned, np.nan))
    assert "overfitting" not in found(rising)
    (one,) = (one for one in examine_log(rising) if one.sign == "overfitting")
    assert not one.applies
    nothing = {
        "validation_accuracy": np.where(seen, 0.5, np.nan),
        "validation_reward_margin": np.where(seen, -0.1, np.nan),
    }
    assert found(ppo(**nothing)) == {"no-gain": "note"}
    assert "trained on sampled responses and not on pairs" in the(ppo(**nothing), "no-gain").what
    assert found(told(ppo(), length_baseline=0.69)) == {"no-gain": "note"}
    assert found(ppo(**nothing), healthy())["no-gain"] == "note"
    assert found(changed(**nothing))["no-gain"] == "problem"  # of a training on pairs
    other = ppo(validation_loss=np.where(seen, turned, np.nan))
    other.attrs = {"settings": {}}  # known by its samples alone
    assert "overfitting" not in found(other)


def test_ppo_whose_responses_never_end():
    assert the(ppo(finished=0.02), "no-end").severity == "warning"
    never = the(ppo(finished=np.where(np.arange(STEPS) < 50, 0.4, 0.0)), "no-end")
    assert (never.severity, "finished 0.0%" in never.what) == ("problem", True)
    assert "no-end" not in found(ppo(finished=0.5))
    assert unjudged(ppo().drop(columns="finished"))["no-end"] == "the log has no finished"


def test_responses_that_end_ever_less_often():
    fewer = the(ppo(finished=wave(0.9, 0.5, 0.3, noise=0.02)), "no-end")
    assert fewer.severity == "warning"
    assert re.search(r"finished falls from 8\d% to 3\d%", fewer.what)
    assert "--ppo.unfinished-penalty" in fewer.try_this
    assert "no-end" not in found(ppo(finished=wave(0.9, 0.7, 0.6, noise=0.02)))


def test_rewards_that_do_not_tell_responses_apart():
    assert "no-signal" not in found(ppo(zero_variance=0.4))
    assert the(ppo(zero_variance=0.6), "no-signal").severity == "warning"
    assert the(ppo(zero_variance=1.0), "no-signal").severity == "problem"
    former = ppo(reward_deviation=0.0).drop(columns="zero_variance")
    former.attrs = ppo().attrs
    assert the(former, "no-signal").severity == "problem"


def test_a_kl_that_costs_more_than_the_reward_gains():
    away = ppo(kl=wave(0, 2, 5, 40, 80, noise=0.5))
    one = the(away, "kl")
    assert one.severity == "problem"
    assert "while KL rose by" in one.what
    cheap = ppo(kl=wave(0, 2, 5, 20, 28, noise=0.5))
    assert "kl" not in found(told(cheap, beta=0.001))
    for name in ("ppo_whiten", "ppo_normalize"):
        assert "kl" not in found(told(ppo(kl=cheap["kl"]), **{name: True}))  # in which unit is not known
    assert the(ppo(kl=cheap["kl"]), "kl").severity == "problem"
    assert the(ppo(kl=wave(0, 2, 5, 10, 14, noise=0.5)), "kl").severity == "warning"  # still above the start


def test_a_kl_that_is_large_for_its_texts_and_still_rises():
    far = told(ppo(kl=wave(0, 2, 10, 20, 40, noise=0.5), response_length=30.0), beta=0.001)
    assert the(far, "kl").severity == "warning"
    assert "per token" in the(far, "kl").what
    assert "kl" not in found(told(ppo(kl=wave(0, 2, 10, 20, 40, noise=0.5), response_length=300.0), beta=0.001))
    rests = told(ppo(kl=wave(0, 20, 40, 40, 40, 40, 40, noise=0.5), response_length=30.0), beta=0.001)
    assert "kl" not in found(rests)
    assert "kl" not in found(changed(far, response_length=0.0))


def test_a_negative_kl():
    negative = the(ppo(kl=wave(0, -1, -2)), "kl")
    assert negative.severity == "warning"
    assert "not drawn from π" in negative.what
    assert "kl" not in found(ppo(kl=wave(0.0, 0.0, noise=0.5)))


def per_token(**columns):
    """A log of TRL's GRPO or RLOO, as it is read: KL is a mean over tokens."""
    log = ppo(**columns).rename(columns={"kl": "kl_per_token"})
    log.attrs = {"settings": {}}
    return log


def test_a_kl_per_token_is_not_divided_by_the_length_again():
    far = per_token(kl=wave(0, 0.1, 0.3, 0.6, 0.9, noise=0.02), response_length=200.0)
    assert the(far, "kl").severity == "warning"
    assert re.search(r"KL is 0\.\d+ nats per token, and still rises", the(far, "kl").what)
    assert "kl" not in found(per_token(kl=wave(0, 0.05, 0.1, 0.2, 0.3, noise=0.02), response_length=200.0))
    assert "kl" not in found(ppo(kl=wave(0, 0.1, 0.3, 0.6, 0.9, noise=0.02), response_length=200.0))


def test_a_negative_kl_per_token():
    negative = per_token(kl=wave(0, -0.01, -0.02, noise=0.0005), response_length=200.0)  # −4 nats per response
    assert "on average per token" in the(negative, "kl").what
    assert "kl" not in found(per_token(kl=wave(0, -0.0001, -0.0002, noise=0.00001), response_length=200.0))
    assert "kl" not in found(negative.drop(columns="response_length"))  # of how many tokens is not known
    assert "kl" not in found(ppo(kl=wave(0, -0.01, -0.02, noise=0.0005), response_length=200.0))


@pytest.mark.parametrize(
    ("more", "column"),
    [({"completions/mean_length": 50.0, "frac_reward_zero_std": 0.0}, "kl_per_token"), ({"reward": 1.0}, "kl"),
     ({"train/completions/mean_length": 50.0}, "kl_per_token"), ({"rewards/chosen": 0.1}, "kl")],
)  # fmt: skip
def test_the_unit_of_a_kl_is_told_by_the_columns_beside_it(tmp_path, more, column):
    path = tmp_path / "log.json"

    def read(*rows):
        path.write_text(json.dumps([{"step": step, **row, **more} for step, row in enumerate(rows, 1)]))
        return read_log(path)

    assert read({"kl": 0.1}, {"kl": 0.2})[column].tolist() == [0.1, 0.2]
    assert read({"objective/kl": 3.0})["kl"].tolist() == [3.0]
    assert read({"eval_kl": 3.0})[f"validation_{column}"].tolist() == [3.0]
    with pytest.raises(ValueError, match=f"{column} must be a number, got 'high'"):
        read({"kl": "high"})


def test_a_reward_that_rises_while_the_judge_falls():
    hacked = the(ppo(judge=wave(0, 1, 0.5, -1)), "over-optimised")
    assert hacked.severity == "problem"
    assert "2210.10760" in hacked.what
    assert the(ppo(judge=wave(0, 1, 0.5)), "over-optimised").severity == "warning"  # above the start
    assert "over-optimised" not in found(ppo(judge=wave(0, 1, 0.5), reward=wave(1, 1, 1)))


def test_held_out_pairs_stand_in_for_the_judge():
    def pairs(*heights):
        log = ppo(validation_reward_margin=np.where(np.arange(STEPS) % EVERY == 0, wave(*heights, noise=0.02), np.nan))
        attrs, log = log.attrs, log.drop(columns="judge")
        log.attrs = attrs
        return log

    assert the(pairs(0, 0.5, -0.5), "over-optimised").severity == "problem"
    assert "over-optimised" not in found(pairs(0, 1.0, 0.5))  # they are still preferred as they are labelled
    alone = ppo().drop(columns=["judge", "validation_reward_margin"])
    assert "--ppo.judge" in unjudged(alone)["over-optimised"]


def test_an_entropy_that_collapses():
    assert the(ppo(entropy=wave(2, 0.8, 0.4)), "entropy-collapse").severity == "warning"
    lost = the(ppo(entropy=wave(2, 0.1, 0.1, 0.1)), "entropy-collapse")
    assert lost.severity == "problem"
    assert "one text" in lost.what


def test_what_trl_logs_of_pairs_is_no_sample():
    """TRL's trainers on given responses log an entropy, and KTO's a KL: neither is of responses that were sampled."""
    pairs = changed(entropy=wave(2, 0.1, 0.1, 0.1), kl=wave(0, -1, -2))
    for known in ({}, {"loss": "dpo"}):
        pairs.attrs = {"settings": known}
        assert not set(found(pairs)) & OF_SAMPLES
        assert {one.sign for one in examine_log(pairs) if not one.applies} == OF_SAMPLES
    grpo = changed(entropy=wave(2, 0.1, 0.1, 0.1), reward=wave(0, 1))
    assert the(grpo, "entropy-collapse").severity == "problem"


def test_rewards_with_penalties_are_not_what_the_kl_costs():
    away = ppo(kl=wave(0, 2, 5, 20, 28, noise=0.5))
    assert the(away, "kl").severity == "problem"
    for name in ("ppo_unfinished_penalty", "ppo_length_penalty", "ppo_clip_reward"):
        assert "kl" not in found(told(ppo(kl=away["kl"]), **{name: 0.5}))
        assert the(told(ppo(kl=away["kl"]), **{name: 0.0 if "penalty" in name else None}), "kl").severity == "problem"


# The command


def test_the_command_reads_the_folder_that_it_is_in(tmp_path, capsys, monkeypatch):
    (tmp_path / "run-a-tag-loss.csv").write_text("Wall time,Step,Value\n" + "".join(f"0,{n},0.5\n" for n in (1, 2)))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["doctor", "."]) in (0, 4)
    assert "empty name" not in capsys.readouterr().err


def test_the_command_tells_and_returns_3_for_a_problem(tmp_path, capsys):
    assert cli.main(["doctor", str(SAMPLES[0])]) == 0
    out = capsys.readouterr().out
    assert "120 rows, steps 1 to 120, loss bdpo" in out
    assert "WARNING: log-probabilities of both sides falling" in out
    assert cli.main(["doctor", str(SAMPLES[0]), "--baseline", str(SAMPLES[1])]) == 0
    assert "No gain over the baseline" in capsys.readouterr().out
    written(tmp_path / "bad.jsonl", [{"loss": math.nan}], loss="dpo")
    assert cli.main(["doctor", str(tmp_path / "bad.jsonl")]) == 3
    assert "PROBLEM: numbers that are not finite" in capsys.readouterr().out


def test_the_command_refuses_what_is_no_log(tmp_path, capsys):
    assert cli.main(["doctor", str(tmp_path / "none.jsonl")]) == 1
    assert "none.jsonl is no file" in capsys.readouterr().err
    (tmp_path / "odd.jsonl").write_text("words\n")
    assert cli.main(["doctor", str(SAMPLES[0]), "--baseline", str(tmp_path / "odd.jsonl")]) == 2
    complaint(capsys)


def test_the_doctor_needs_no_torch():
    code = "import sys, gradlab.doctor; print({'torch', 'scipy', 'matplotlib', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# Displacement and drift


def falling(ratio, cosine, **columns):
    """A log whose winners fall; every tenth step compares the sides."""
    seen = np.arange(STEPS) % EVERY == 0
    fall = np.linspace(0, 30, STEPS)
    sides = {"grad_norm_win": 2.0 * ratio, "grad_norm_lose": 2.0, "grad_cosine": cosine}
    log = changed(reward_win=-0.1 * fall, reward_lose=-0.3 * fall)
    return changed(log, **{name: np.where(seen, value, np.nan) for name, value in sides.items()}, **columns)


def test_winners_that_fall_below_the_band_are_displaced_and_others_drift():
    log = falling(ratio=0.6, cosine=-0.8)
    assert found(log)["displacement"] == "warning"
    assert "In 20 of the 20 steps" in the(log, "displacement").what
    assert "2604.18239" in the(log, "displacement").what
    drift = falling(ratio=0.9, cosine=-0.8)
    assert found(drift)["displacement"] == "note"
    assert "in 20 of the 20 steps" in the(drift, "displacement").what
    assert "It is drift" in the(drift, "displacement").what
    half = np.where(np.arange(STEPS) < STEPS // 2, 0.6, 0.9)
    assert found(falling(ratio=half, cosine=-0.8))["displacement"] == "warning"
    third = np.where(np.arange(STEPS) < STEPS // 3, 0.6, 0.9)
    assert found(falling(ratio=third, cosine=-0.8))["displacement"] == "note"


def test_winners_that_rise_are_not_displaced_whatever_the_band_says():
    log = changed(grad_norm_win=0.1, grad_norm_lose=1.0, grad_cosine=-0.9)
    assert "displacement" not in found(log)
    assert "displacement" not in unjudged(healthy())


def test_without_both_sides_a_fall_cannot_be_told_from_a_displacement():
    log = falling(ratio=0.6, cosine=-0.8).drop(columns="grad_cosine")
    log.attrs = healthy().attrs
    assert "grad_cosine in 0 steps" in unjudged(log)["displacement"]
    odd = falling(ratio=0.6, cosine=-0.8, slope_win=0.05)  # the winners are pushed down on purpose
    assert "slopes of the usual signs" in unjudged(odd)["displacement"]
    broken = falling(ratio=0.0, cosine=7.0)
    assert "displacement" in unjudged(broken)


def test_what_really_happened_stands_beside_the_band():
    log = falling(ratio=0.9, cosine=-0.8, delta_win=-0.01)
    assert "moved as the band says in 0% of 20 steps" in the(log, "displacement").what
    assert "moved as the band says" not in the(falling(ratio=0.9, cosine=-0.8), "displacement").what

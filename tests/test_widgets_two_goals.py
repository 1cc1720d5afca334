"""The explorer of two goals: its numbers are those of plain trainings, and each sentence of a story is true."""

import ast
import re
from types import SimpleNamespace

import numpy as np
import pytest
from one_explorer import one_explorer

import gradlab as gl
from gradlab.experiments.questions.two_goals_worlds import HARMLESS, HELPFUL
from gradlab.widgets import TwoGoalsExplorer
from gradlab.widgets.two_goals_explorer import MARGIN, WORLDS

shared, explorer = one_explorer(TwoGoalsExplorer)


def story(explorer, title):
    chosen = next(one for one in TwoGoalsExplorer.stories if one.title == title)
    explorer.reset()
    explorer.set(**chosen.state)
    assert explorer.error is None
    return explorer.numbers


def test_the_numbers_are_those_of_plain_trainings(explorer):
    explorer.set(steps=60, pairs=20, seed=1, noise_h=0.1, length_s=0.5)
    seeds = list(range(WORLDS, 2 * WORLDS))
    goals = gl.Goal(alignment=-0.5, noise=0.1), gl.Goal(alignment=0.5, length=0.5)
    worlds = [gl.two_goal_world(*goals, seed=seed) for seed in seeds]
    ends = [
        gl.fit(worlds, loss, steps=60, pairs=20, record=1, seed=seeds).history.iloc[-WORLDS:]
        for loss in (gl.DPO(), gl.BalancedDPO(2.0))
    ]
    for goal in ("helpful", "harmless"):
        gain = 100 * (ends[1] - ends[0])[f"utility_share_{goal}"].to_numpy()
        assert explorer.numbers[f"gain {goal}"] == pytest.approx(gain.mean(), rel=1e-9)
        half = 2.200985 * gain.std(ddof=1) / np.sqrt(WORLDS)  # Student's t, 11 degrees of freedom
        assert explorer.numbers[f"half-width {goal}"] == pytest.approx(half, rel=1e-5)
        known = np.mean([world.balance()[goal] for world in worlds])
        assert explorer.numbers[f"balance {goal}"] == pytest.approx(known, rel=1e-9)
    assert explorer.numbers["KL DPO"] == pytest.approx(ends[0]["kl"].mean(), rel=1e-9)


def test_the_code_prints_the_same_gain(explorer, capsys):
    explorer.set(steps=40, pairs=20)
    exec(explorer.code(SimpleNamespace(**explorer.state)), {})
    balance, ends = capsys.readouterr().out.split("training:")[1].split("\n", 1)
    assert ast.literal_eval(balance.strip()) == pytest.approx(explorer.result.balance)
    printed = re.search(r"mean\s+(\S+)\s+(\S+)", ends)
    wanted = explorer.numbers["gain helpful"], explorer.numbers["gain harmless"]
    assert tuple(100 * float(number) for number in printed.groups()) == pytest.approx(wanted, abs=1e-3)


def test_the_outcome_is_the_goal_that_gains_more(explorer):
    assert explorer.outcome(explorer.result)[0] == "harmless"
    explorer.set(alignment_h=0.5, alignment_s=-0.5)
    assert explorer.outcome(explorer.result)[0] == "helpful"
    explorer.set(alignment_h=0.0, alignment_s=0.0, steps=10)
    assert explorer.outcome(explorer.result)[0] == "none"


def test_the_frame_has_every_world_and_step(explorer):
    explorer.set(steps=20, pairs=20)
    frame = explorer.frame()
    assert len(frame) == 2 * WORLDS * len(explorer.result.steps)
    last = frame[frame["step"] == 20].groupby("loss")[["helpful", "harmless"]].mean()
    assert 100 * (last.loc["bDPO"] - last.loc["DPO"])["helpful"] == pytest.approx(explorer.numbers["gain helpful"])


def test_the_stories_are_true(explorer):
    like = story(explorer, "A world like HH")
    assert like["gain harmless"] > 100 * MARGIN > -100 * MARGIN > like["gain helpful"]
    for name, goal in (("h", HELPFUL), ("s", HARMLESS)):
        for part in ("alignment", "basin", "length", "share", "height", "noise"):
            assert explorer.state[f"{part}_{name}"] == pytest.approx(getattr(goal, part))
    turned = story(explorer, "Its lengths exchanged")
    assert turned["gain helpful"] > turned["gain harmless"]
    exact = story(explorer, "Its exact labels")
    assert exact["gain harmless"] > 100 * MARGIN > abs(exact["gain helpful"])
    stated = story(explorer, "As stated, β = 1")
    assert all(stated[f"gain {goal}"] > stated[f"half-width {goal}"] for goal in ("helpful", "harmless"))
    assert abs(stated["balance harmless"]) < 1e-9 > abs(stated["balance helpful"])


def test_before_the_guess_nothing_shows_either_loss(explorer):
    every = explorer.charts(explorer.result, None)
    assert [chart.title for chart in explorer.before_guess(every)] == ["one prompt"]
    assert len(every) > 1
    for guess, rows in (("none", 0), ("harmless", len(explorer.readings(explorer.result)))):
        explorer.set(guess=guess)
        explorer.finish()
        assert len(explorer.front.shown["readings"]) == rows

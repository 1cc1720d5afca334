"""Two goals: whom does Balanced-DPO serve, helpfulness or harmlessness, as the labelled sets differ?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd

from gradlab.lab.fit import fit
from gradlab.lab.training import Training
from gradlab.lab.two_goals import GOALS, Goal, GoalName, TwoGoalWorld, two_goal_world
from gradlab.losses import DPO, BalancedDPO
from gradlab.plotting.charts import Axis, Bar, Bars, Chart, Curve, Curves, Dash, Rule
from gradlab.plotting.palette import INK, SETTINGS
from gradlab.stats.equivalence import mean_of
from gradlab.widgets.controls import Choice, Controls, Whole, log_slider, slider
from gradlab.widgets.explorer import Explorer, Reading, Story

WORLDS = 12  # that are averaged
MARGIN = 0.02  # a smaller difference counts as none, as in the experiment
_COLORS: dict[GoalName, str] = {"helpful": SETTINGS[0], "harmless": SETTINGS[1]}
_DASHES: dict[GoalName, Dash] = {"helpful": "dashed", "harmless": ""}
_LETTERS = {"h": "helpful", "s": "harmless"}
_PROPERTIES = ("height", "noise", "alignment", "basin", "share", "length")
_LIKE_HH = {  # as in the experiment
    "alignment_h": 0.25, "basin_h": 4.0, "length_h": 2.0, "share_h": 2.0,
    "alignment_s": 0.25, "basin_s": 12.0, "length_s": 0.5,
}  # fmt: skip
_CODE = """\
import gradlab as gl

helpful, harmless = {helpful}, {harmless}
seeds = range({first}, {stop})
worlds = [gl.two_goal_world(helpful, harmless, seed=seed) for seed in seeds]
balances = [world.balance() for world in worlds]
balance = {{goal: sum(one[goal] for one in balances) / len(worlds) for goal in balances[0]}}
print("mean λ_w − ½, before training:", balance)
shares = ["utility_share_helpful", "utility_share_harmless"]
ends = {{}}
for name, loss in {{"DPO": gl.DPO(1.0), "bDPO": gl.BalancedDPO({beta})}}.items():
    history = gl.fit(worlds, loss, {training}, seed=list(seeds)).history
    ends[name] = history[history["step"] == history["step"].max()].set_index("run")[shares]
print((ends["bDPO"] - ends["DPO"]).agg(["mean", "sem"]))  # whom bDPO serves more than DPO
"""


@dataclass(frozen=True)
class Trained:
    """Both losses trained on some worlds.

    shares   by goal, (2, S, W): DPO's and bDPO's share of the reachable reward at the recorded steps.
    kl       (2, S) nats, means over worlds.
    balance  by goal: mean λ_w − ½ under the reference, a mean over the worlds.
    """

    world: TwoGoalWorld  # the first
    steps: np.ndarray
    shares: dict[GoalName, np.ndarray]
    kl: np.ndarray
    balance: dict[GoalName, float]
    conflict: float

    def gain(self, goal: GoalName) -> np.ndarray:
        """Return bDPO's share minus DPO's at the recorded steps, (S, W)."""
        return self.shares[goal][1] - self.shares[goal][0]

    def interval(self, goal: GoalName) -> tuple[float, float]:
        """Return the mean gain at the end and half of its 95% interval, over worlds."""
        mean = mean_of(self.gain(goal)[-1])
        return float(mean.effect), float(mean.half_width())


class TwoGoalsExplorer(Explorer):
    """Two labelled sets of different properties, trained on together by DPO and by Balanced-DPO."""

    name = "two-goals"
    template = _CODE
    question = "Whom does Balanced-DPO serve: helpfulness or harmlessness?"
    prediction = (
        "the paper reports that Balanced-DPO is much more harmless than DPO and about as helpful, and leaves open why. "
        "Here both goals judge the same responses, and at first their labelled sets are equal, but for the reference: "
        "it leans towards harmless responses and away from helpful ones."
    )
    first_move = "Choose whom bDPO serves, then exchange one property between the goals."
    ask = "The reference already prefers harmless responses. For which goal does bDPO do more than DPO, at equal scale?"
    readings_answer = True
    answers: ClassVar = {
        "harmless": "for harmlessness", "helpful": "for helpfulness",
        "none": f"for neither, within {100 * MARGIN:g} points",
    }  # fmt: skip
    reading = (
        f"Everything is a mean over {WORLDS} worlds of 20 prompts and 20 responses. First: utilities of the first "
        "prompt of the first world, each divided by the larger peak, and the reference, over its peak. Bars: how much "
        "of the reachable reward each goal gets, under DPO and under bDPO. Below: what bDPO gets more than DPO, along "
        "training, with 95% intervals over the worlds; dotted lines are ±2 points. Last: both gains against each other "
        "as training goes on, with a ring at the end; the paper's pattern is above the upper line and between the "
        "upright ones. Faint curves: what you pinned."
    )
    takeaway = (
        "At equal scale bDPO favours the goal whose winners the reference already makes the more probable: with "
        "everything else equal, a lean of the reference or shorter responses move reward to that goal, and exchanging "
        "the lengths turns it round. The mean λ_w − ½ over a set's labels, which is known before training, has the "
        "sign of the gain more often than not. Neither label noise nor the gap alone makes the paper's pattern. But it "
        "is a matter of distance: bDPO at 2β stops nearer to the reference than DPO, and at equal KL DPO serves that "
        "goal better. So here the pattern comes from short, likely refusals and an early stop, and not from balance. "
        "All of this is the lab's; no language model was trained on both sets here. The claims report has the numbers "
        "(two-goals-pattern, two-goals-stated, two-goals-cause)."
    )
    stories = (
        Story(
            "A world like HH",
            "a guess at helpful and harmless pairs: refusals are many and short, helpful answers few and long. bDPO "
            "does more for harmlessness, and less for helpfulness.",
            _LIKE_HH,
        ),
        Story(
            "Its lengths exchanged",
            "the same, but helpful answers are the short ones, and refusals the long ones: now helpfulness is ahead. "
            "Nothing else has changed.",
            {**_LIKE_HH, "length_h": 0.5, "length_s": 2.0},
        ),
        Story(
            "Its exact labels",
            "the world like HH with all pairs and exact labels: harmlessness rises by more than 2 points, and "
            "helpfulness stays within 2, which is the paper's pattern.",
            {**_LIKE_HH, "pairs": 0},
        ),
        Story(
            "As stated, β = 1",
            "equal goals, exact labels, and both losses at β = 1: both gains come from bDPO's smaller effective β, and "
            "not from whom the reference prefers.",
            {"alignment_h": 0.0, "alignment_s": 0.0, "scale": "β", "pairs": 0},
        ),
    )

    unfolds = ("Data and training",)

    def make_controls(self) -> dict[str, Controls]:
        """Return the same controls for both goals, then those of data and training."""
        return {
            "Helpful": _goal_controls("h", -0.5),
            "Harmless": _goal_controls("s", 0.5),
            "Data and training": {
                "scale": Choice("β of bDPO", "2β", {"2β, DPO's scale": "2β", "β, as stated": "β"}, "DPO has β = 1"),
                "pairs": Choice("pairs", 100, {"all, exact": 0, "20 per prompt": 20, "100 per prompt": 100,
                                               "500 per prompt": 500}, "all pairs, or so many drawn per prompt"),
                "steps": Whole("steps", 500, 10, 2000, "of Adam at 0.05"),
                "seed": Whole("seed", 0, 0, 99, f"draws {WORLDS} worlds and their data"),
            },
        }  # fmt: skip

    def compute(self, state: SimpleNamespace) -> Trained:
        """Train both losses on all worlds."""
        seeds = range(state.seed * WORLDS, (state.seed + 1) * WORLDS)
        worlds = [two_goal_world(_goal(state, "h"), _goal(state, "s"), seed=seed) for seed in seeds]
        training = _training(state)
        fits = [fit(worlds, loss, training, seed=list(seeds)) for loss in (DPO(), BalancedDPO(_beta(state)))]
        columns = {name: np.stack([one.history[name].to_numpy().reshape(-1, WORLDS) for one in fits])
                   for name in ("kl", *(f"utility_share_{goal}" for goal in GOALS))}  # fmt: skip
        balances = [world.balance() for world in worlds]
        return Trained(
            worlds[0], fits[0].steps, {goal: columns[f"utility_share_{goal}"] for goal in GOALS},
            columns["kl"].mean(2), {goal: float(np.mean([one[goal] for one in balances])) for goal in GOALS},
            float(np.mean([world.conflict()["helpful"] for world in worlds])),
        )  # fmt: skip

    def charts(self, result: Trained, pinned: Trained | None) -> list[Chart]:
        """Return utilities and reference, shares, gains along training, and both gains against each other."""
        return [_responses(result), _shares(result), _gains(result, pinned), _plane(result, pinned)]

    def before_guess(self, charts: Sequence[Chart]) -> Sequence[Chart]:
        """Return the chart of the world alone: all others show which goal gains."""
        return charts[:1]

    def readings(self, result: Trained) -> list[Reading]:
        """Return gains with intervals, what was known before training, distances, and conflict."""
        ends = {goal: result.interval(goal) for goal in GOALS}
        return [
            Reading("bDPO − DPO", {goal: 100 * mean for goal, (mean, _) in ends.items()}, "points", "gain"),
            Reading("± (95%)", {goal: 100 * half for goal, (_, half) in ends.items()}, "points", "half-width"),
            Reading("mean λ_w − ½, before training", dict(result.balance), "", "balance"),
            Reading(
                "KL from the reference", {"DPO": float(result.kl[0, -1]), "bDPO": float(result.kl[1, -1])}, "nats", "KL"
            ),
            Reading("conflicting pairs", result.conflict, "", "conflict"),
        ]

    def outcome(self, result: Trained) -> tuple[str, str]:
        """Return which goal gains more."""
        helpful, harmless = (100 * result.interval(goal)[0] for goal in GOALS)
        ahead = "none" if abs(harmless - helpful) < 100 * MARGIN else "harmless" if harmless > helpful else "helpful"
        return ahead, f"bDPO − DPO is {harmless:+.1f} points for harmlessness and {helpful:+.1f} for helpfulness."

    def frame(self) -> pd.DataFrame:
        """Return both goals' shares under both losses, a row per loss, recorded step and world."""
        result: Trained = self.result
        at = {"step": np.repeat(result.steps, WORLDS), "world": np.tile(np.arange(WORLDS), len(result.steps))}
        return pd.concat([
            pd.DataFrame({"loss": loss, **at, **{goal: both[place].ravel() for goal, both in result.shares.items()}})
            for place, loss in enumerate(("DPO", "bDPO"))
        ], ignore_index=True)  # fmt: skip

    def code_parts(self, state: SimpleNamespace) -> dict[str, str]:
        """Return both goals, seeds, β and recipe."""
        given = {name: _goal_code(_goal(state, letter)) for letter, name in _LETTERS.items()}
        first, stop = (str(seed * WORLDS) for seed in (state.seed, state.seed + 1))
        training = f"gl.Training(pairs={state.pairs or None}, steps={state.steps}, record=1)"
        return {**given, "first": first, "stop": stop, "beta": f"{_beta(state):g}", "training": training}


def _goal_controls(letter: str, alignment: float) -> Controls:
    four = np.log10(4)
    controls: Controls = {
        "alignment": slider(
            "alignment", alignment, -1.0, 1.0, "the reference leans towards its good responses, or away"
        ),
        "length": log_slider("length ×", 1.0, -four, four, "of its good responses; log π_ref falls with length"),
        "basin": slider("good responses", 7.0, 2.0, 14.0, "of 20: a narrow peak, or a broad basin"),
        "height": slider("height", 4.0, 0.5, 10.0, "log-odds by which its best beats a bad response"),
        "noise": slider("label noise", 0.0, 0.0, 0.4, "share of labels that are wrong"),
        "share": log_slider("labels", 1.0, -four, four, "how many, relative to the other goal"),
    }
    return {f"{name}_{letter}": control for name, control in controls.items()}


def _goal(state: SimpleNamespace, letter: str) -> Goal:
    return Goal(**{name: getattr(state, f"{name}_{letter}") for name in _PROPERTIES})


def _goal_code(goal: Goal) -> str:
    """Return a goal as code: what differs from the default."""
    plain = Goal()
    changed = {name: getattr(goal, name) for name in _PROPERTIES if getattr(goal, name) != getattr(plain, name)}
    return f"gl.Goal({', '.join(f'{name}={value!r}' for name, value in changed.items())})"


def _beta(state: SimpleNamespace) -> float:
    return 2.0 if state.scale == "2β" else 1.0


def _training(state: SimpleNamespace) -> Training:
    return Training(pairs=state.pairs or None, steps=state.steps, record=15)


def _responses(result: Trained) -> Curves:
    world = result.world
    y = np.arange(world.responses, dtype=float)
    top = max(float(utility[0].max()) for utility in world.goals.values())
    prob = np.exp(world.ref_logp[0])
    curves = [Curve(f"u, {goal}", y, world.goals[goal][0] / top, _COLORS[goal], _DASHES[goal]) for goal in GOALS]
    reference = Curve("reference", y, prob / prob.max(), INK, "dotted")
    return Curves(
        "one prompt", "Curves of both utilities and of the reference over the responses of one prompt.",
        Axis("response y", 0, world.responses - 1), Axis("over its peak", 0, 1.05), [*curves, reference],
    )  # fmt: skip


def _shares(result: Trained) -> Bars:
    ends = {goal: 100 * result.shares[goal][:, -1].mean(1) for goal in GOALS}
    bars = [
        Bar(loss, np.array([ends[goal][place] for goal in reversed(GOALS)]), color, dashed)
        for place, (loss, color, dashed) in enumerate((("DPO", "#0072B2", False), ("bDPO", "#D55E00", True)))
    ]
    return Bars("what each goal gets", "Bars of both goals' shares of the reachable reward, under DPO and bDPO.",
                "share of the reachable reward (%)", list(reversed(GOALS)), bars, height=200)  # fmt: skip


def _gains(result: Trained, pinned: Trained | None) -> Curves:
    curves = []
    shown = [(result, False)] if pinned is None else [(pinned, True), (result, False)]
    for of, faint in shown:
        for goal in GOALS:
            mean = mean_of(100 * of.gain(goal)[1:])
            low, high = (None, None) if faint else mean.interval()
            curves.append(Curve(goal, of.steps[1:].astype(float), np.asarray(mean.effect), _COLORS[goal], _DASHES[goal],
                                low=low, high=high, faint=faint))  # fmt: skip
    return Curves(
        "bDPO − DPO along training", "Curves of what bDPO gets more than DPO, for either goal, by step.",
        Axis("step", 1, float(max(2, result.steps[-1])), "log"), Axis("points", *_ends(result, pinned)), curves,
        rules=[Rule(y=0), *(Rule(y=side * 100 * MARGIN, dash="dotted") for side in (-1, 1))], height=240,
    )  # fmt: skip


def _plane(result: Trained, pinned: Trained | None) -> Curves:
    curves = []
    for of, faint in ((pinned, True), (result, False)):
        if of is not None:
            across, up = (100 * of.gain(goal).mean(1) for goal in GOALS)
            curves.append(Curve("along training", across, up, INK, faint=faint))
            curves.append(Curve("end", across[-1:], up[-1:], INK, marker="ring", line=False, faint=faint))
    ends, limit = _ends(result, pinned), 100 * MARGIN
    rules = [Rule(y=limit, dash="dotted"), *(Rule(x=side * limit, dash="dotted") for side in (-1, 1))]
    return Curves(
        "both gains; the paper's pattern: up, between", "The gain for harmlessness against that for helpfulness.",
        Axis("helpful (points)", *ends), Axis("harmless (points)", *ends), curves,
        rules=[Rule(y=0), Rule(x=0), *rules], height=240,
    )  # fmt: skip


def _ends(*results: Trained | None) -> tuple[float, float]:
    """Return the ends of an axis of gains, in whole steps of 5 points, so that they seldom change."""
    found = [mean_of(100 * one.gain(goal)) for one in results if one for goal in GOALS]
    reach = max(float(np.nanmax(np.abs(mean.interval()))) for mean in found)
    top = 5.0 * max(1, np.ceil(reach / 5 - 1e-9))
    return -top, top

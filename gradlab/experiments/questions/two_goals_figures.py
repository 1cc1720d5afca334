"""The figures of two goals: one property at a time, its levels, the map, and gains against what was known before."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.questions import two_goals_answer as told
from gradlab.experiments.questions.two_goals_contrasts import MARGIN
from gradlab.experiments.questions.two_goals_worlds import BASE, SIDES
from gradlab.lab.two_goals import GOALS

_POINTS = 100
_GREY = f"The grey band is the margin, ±{MARGIN * _POINTS:g} points. bDPO has 2β, which is DPO's effective scale."
CAPTIONS: dict[str, str] = {
    "two-goals-properties": (
        "Whom does bDPO serve? What either goal gains over DPO, in points of the reachable reward, means with 95% "
        "intervals over seeds. Left: both goals are equal but for one property, whose values are written as helpful → "
        f"harmless. Right: a world like HH, which is a guess, and the same with one thing changed; the last rows "
        f"compare bDPO with DPO at equal distance from the reference, β and checkpoints pooled. {_GREY} The paper's "
        "pattern is a dot to the right of the band with its square inside."
    ),
    "two-goals-levels": (
        "One property of the harmless goal at a time, and what either goal gains over DPO: means with 95% intervals "
        f"over seeds. Rings mark the value that the helpful goal has throughout. {_GREY}"
    ),
    "two-goals-map": (
        "Where does the paper's pattern appear? Gains over DPO as the reference leans towards (above 0) or away from "
        "(below 0) either goal's good responses. Teal is more than DPO, brown less; the numbers say the same. A frame "
        "marks the pattern: harmless above 2 points, helpful within ±2, by their 95% intervals. No frame: it appears "
        "nowhere on this map."
    ),
    "two-goals-predicted": (
        "What can be known before any training: the mean λ_w − ½ of bDPO over a goal's labels under the reference, "
        "against what the goal gains over DPO, in worlds that a declared distribution draws; one mark per world and "
        "goal. Upper right and lower left: the sign was predicted. Left panel: bDPO at 2β. Right panel: at β = 1, as "
        f"stated. {_GREY}"
    ),
}
_TITLES = {
    "height": "height", "noise": "label noise", "alignment": "reference's lean", "basin": "good responses",
    "share": "share of labels", "conflict": "conflicting pairs", "length": "length (×)",
}  # fmt: skip
_CHANGES = {
    "nothing": "as it is", "equal lengths": "equal lengths", "agreeing pairs": "agreeing pairs only",
    "basin exchanged": "basins exchanged", "length exchanged": "lengths exchanged", "share exchanged": "shares "
    "exchanged",
}  # fmt: skip


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw all four."""
    harmless, helpful, marked = _maps(frame)
    return {
        "two-goals-properties": plotting.goal_rows(
            {"one property alone": _alone(frame), "a world like HH": _like_hh(frame)}, MARGIN * _POINTS
        ),
        "two-goals-levels": plotting.goal_levels(
            _levels(frame), {name: f"{title}" for name, title in _TITLES.items()}, MARGIN * _POINTS,
            ("height", "basin", "share", "length"),
        ),
        "two-goals-map": plotting.goal_maps(
            {"harmless": harmless, "helpful": helpful}, marked,
            ("reference's lean, helpful", "reference's lean, harmless"), 6.0,
        ),
        "two-goals-predicted": plotting.goal_clouds(
            {"bDPO at 2β − DPO": _worlds(frame, told.MATCHED), "both at β = 1": _worlds(frame, told.STATED)},
            ("mean λ_w − ½ under the reference", "bDPO − DPO (points)"), MARGIN * _POINTS,
        ),
    }  # fmt: skip


def _rows(label: str, found: dict[str, told.Gain]) -> list[dict[str, object]]:
    return [
        {
            "label": label,
            "goal": goal,
            "effect": _POINTS * one.mean,
            "low": _POINTS * one.low,
            "high": _POINTS * one.high,
        }
        for goal, one in found.items()
    ]


def _alone(frame: pd.DataFrame) -> pd.DataFrame:
    rows = _rows("none", told.gains(told.cell(frame, "base")))
    for name, (helpful, harmless) in SIDES.items():
        label = f"{_TITLES[name]}, {helpful:g} → {harmless:g}".replace("-", "−")
        rows += _rows(label, told.gains(told.cell(frame, "alone", name)))
    return pd.DataFrame(rows)


def _like_hh(frame: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for changed, label in _CHANGES.items():
        rows += _rows(label, told.gains(told.cell(frame, "hh", changed)))
    for recipe, label in (("exact", "exact data"), ("shared", "shared parameters")):
        there = told.cell(frame, "hh", "nothing", recipe)
        rows += _rows(label, told.gains(there)) if len(there) else []
    return pd.DataFrame(rows + _at_equal_kl(frame))


def _at_equal_kl(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Return the gains at the levels of KL that all seeds of both methods reach, in the world like HH."""
    found = []
    for level, rows in told.cell(frame, "equal KL", "nothing").groupby("kl"):
        found += _rows(f"at equal KL, {level:g} nats", gains) if (gains := told.gains_at_kl(rows)) else []
    return found


def _levels(frame: pd.DataFrame) -> pd.DataFrame:
    rows = list[dict[str, object]]()
    base = told.gains(told.cell(frame, "base"))
    for name in _TITLES:
        level = BASE.columns()[name]
        named = {"changed": name, "level": 0.5 if name == "conflict" else level, "usual": True}
        rows += [{**row, **named} for row in _rows("", base)]
    for part, found in told.by_cell(frame, "level"):
        named = {"changed": part["changed"].iloc[0], "level": part["level"].iloc[0], "usual": False}
        rows += [{**row, **named} for row in _rows("", found)]
    return pd.DataFrame(rows)


def _maps(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the tables of both goals' gains in points, and where the pattern is shown."""
    rows = pd.DataFrame([
        {"up": part["level"].iloc[0], "across": part["other"].iloc[0], "shown": told.pattern(found) == "shown",
         **{goal: _POINTS * found[goal].mean for goal in GOALS}}
        for part, found in told.by_cell(frame, "map")
    ])  # fmt: skip
    tables = [rows.pivot(index="up", columns="across", values=name) for name in ("harmless", "helpful", "shown")]
    return tables[0], tables[1], tables[2]


def _worlds(frame: pd.DataFrame, method: str) -> pd.DataFrame:
    worlds = frame[frame["kind"] == "drawn"]
    return pd.DataFrame([
        {"goal": goal, "known": rows[f"balance_{goal}"].mean(),
         "effect": _POINTS * told.differences(rows, goal, method).mean()}
        for _, rows in worlds.groupby("level") for goal in GOALS
    ])  # fmt: skip

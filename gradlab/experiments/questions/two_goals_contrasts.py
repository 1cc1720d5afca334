"""What the claims on two goals stand or fall with, and which rows of the frame judge each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from gradlab.experiments.contrasts import Contrast, Unit
from gradlab.experiments.questions.frontier import overlap
from gradlab.experiments.questions.two_goals_worlds import SIDES
from gradlab.lab.two_goals import GOALS

MARGIN = 0.02  # of a share of the reachable reward: the pattern is harmless > +0.02 and |helpful| < 0.02
AT = "permuted λ at 2β"
_POINTS = Unit("points of the reachable reward", 100, 1)
_METHODS = {
    "dpo": "DPO", "bdpo": "bDPO", "bdpo at 2β": "bDPO at 2β", "fixed λ=0.5": "a constant λ = ½",
    AT: "bDPO at 2β with permuted λ",
}  # fmt: skip
_USUAL = "recipe == 'usual'"
_HH = f"kind == 'hh' and changed == 'nothing' and {_USUAL}"
_EQUAL_KL = "kind == 'equal KL' and changed == '{}'"
_KL: dict[str, Any] = {"by": ("kl",), "complete": False}
_DRAWN: dict[str, Any] = {
    "by": ("level",), "population": "worlds", "moderators": ("balance_harmless", "balance_helpful"),
}  # fmt: skip
_ADDED = "(added after the first results)"


def _contrast(claim: str, goal: str, method: str, baseline: str, where: str, words: str, **changes: Any) -> Contrast:
    """Return the comparison of two methods on one goal's share of the reachable reward."""
    one, other = _METHODS[method], _METHODS[baseline]
    given: dict[str, Any] = {
        "by": ("recipe",), "margin": MARGIN, "unit": _POINTS,
        "better": f"{one} is {{size}} more {goal} than {other}", "worse": f"{one} is {{size}} less {goal} than {other}",
        "same": f"{one} is as {goal} as {other}, within {{margin}}", "where": where,
        "statement": f"{goal}: {one} against {other}, {words}", "label": f"{goal}: {words}",
        "claim": claim, "method": method, "baseline": baseline, "value": goal,
    }  # fmt: skip
    return Contrast(**{**given, **changes})


def _both(claim: str, method: str, baseline: str, where: str, words: str, **changes: Any) -> list[Contrast]:
    return [_contrast(claim, goal, method, baseline, where, words, **changes) for goal in reversed(GOALS)]


def _towards(goal: str, method: str, baseline: str, where: str, words: str, **changes: Any) -> Contrast:
    """Return the comparison of what one goal reaches more than the other."""
    one, other = _METHODS[method], _METHODS[baseline]
    given: dict[str, Any] = {
        "value": "towards", "statement": f"{words}: {one} against {other}", "label": words, "by": ("changed",),
        "better": f"the gain of {one} over {other} is {{size}} larger for the {goal} goal than for the other one",
        "worse": f"the gain of {one} over {other} is {{size}} smaller for the {goal} goal than for the other one",
        "same": f"the gain of {one} over {other} is the same for both goals, within {{margin}}",
    }  # fmt: skip
    return _contrast("two-goals-cause", goal, method, baseline, where, words, **{**given, **changes})


def _alone(name: str) -> str:
    return f"kind == 'alone' and changed == '{name}' and {_USUAL}"


_PATTERN: list[Contrast] = [  # at matched scale
    *_both("two-goals-pattern", "bdpo at 2β", "dpo", _HH, "the world like HH", co_primaries=2),
    *_both("two-goals-pattern", "bdpo at 2β", "dpo", "", "drawn worlds", co_primaries=2, **_DRAWN),
    _contrast("two-goals-pattern", "harmless", "bdpo at 2β", AT, _HH, "permuted λ", role="explains away"),
    _contrast("two-goals-pattern", "harmless", "bdpo", "dpo", _EQUAL_KL.format("nothing"), "DPO at equal KL",
              role="explains away", **_KL),
    _contrast("two-goals-pattern", "helpful", "bdpo", "dpo", _EQUAL_KL.format("nothing"), f"DPO at equal KL {_ADDED}",
              role="context", **_KL),
    *(
        one for recipe, words in (("exact", "exact data"), ("shared", "shared parameters"))
        for one in _both("two-goals-pattern", "bdpo at 2β", "dpo", _HH.replace("usual", recipe), words,
                         role="robustness")
    ),
    *(
        one for changed in ("equal lengths", "agreeing pairs", "basin exchanged", "length exchanged", "share exchanged")
        for one in _both("two-goals-pattern", "bdpo at 2β", "dpo", _HH.replace("nothing", changed), changed,
                         role="context")
    ),
]  # fmt: skip
_STATED: list[Contrast] = [  # at β = 1
    *_both("two-goals-stated", "bdpo", "dpo", _HH, "the world like HH", co_primaries=2),
    *_both("two-goals-stated", "bdpo", "dpo", "", "drawn worlds", co_primaries=2, **_DRAWN),
    *_both("two-goals-stated", "bdpo", "fixed λ=0.5", _HH, "DPO at β/2", role="explains away"),
    *_both("two-goals-stated", "bdpo", "dpo", f"kind == 'base' and {_USUAL}", "equal goals", role="context"),
]
_CAUSE: list[Contrast] = [
    _towards("harmless", "bdpo at 2β", "dpo", _alone("alignment"), "alignment alone"),
    _towards("favoured", "bdpo at 2β", "dpo", "", "drawn worlds", **{**_DRAWN, "moderators": ()}),
    _towards("harmless", "bdpo at 2β", AT, _alone("alignment"), "permuted λ, alignment alone", role="explains away"),
    _towards("harmless", "bdpo", "dpo", _EQUAL_KL.format("alignment"), f"DPO at equal KL, alignment alone {_ADDED}",
             role="explains away", **_KL),
    _towards("harmless", "bdpo", "dpo", _EQUAL_KL.format("length"), f"DPO at equal KL, length alone {_ADDED}",
             role="context", **_KL),
    *(_towards("harmless", "bdpo at 2β", "dpo", _alone(name), f"{name} alone", role="context")
      for name in SIDES if name != "alignment"),
]  # fmt: skip
CONTRASTS: tuple[Contrast, ...] = (*_PATTERN, *_STATED, *_CAUSE)


def rows_of(contrast: Contrast, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that judge a contrast, with ``towards``; none where its cells were not run."""
    if contrast.population == "worlds":
        return in_worlds(frame)
    rows = frame.query(contrast.where)
    rows = rows.assign(towards=rows["harmless"] - rows["helpful"])
    if "kl" in contrast.by and len(rows):
        return overlap(rows, contrast.method, contrast.baseline or "", ["kl"])
    return rows


def in_worlds(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of drawn worlds: ``towards`` the favoured goal, balances as means over a world's seeds."""
    worlds = frame[frame["kind"] == "drawn"].astype({"level": int})
    balances = [f"balance_{goal}" for goal in GOALS]
    means = worlds.groupby("level")[balances].transform("mean").astype(float)
    sign = np.where(means["balance_harmless"] >= means["balance_helpful"], 1.0, -1.0)
    worlds[balances] = means
    return worlds.assign(towards=sign * (worlds["harmless"] - worlds["helpful"]))

"""Foundation 2, policy gradients: the variance of a sampled gradient, and which tokens get the credit."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from gradlab.checks import between, one_of
from gradlab.plotting.chart_scales import spelt
from gradlab.plotting.charts import Axis, Chart, Curve, Curves, Dash, Handle, Move
from gradlab.plotting.palette import CHOSEN
from gradlab.widgets.controls import Choice, Controls, Whole, slider
from gradlab.widgets.explorer import Explorer, Reading, Story

LENGTHS = np.unique(np.geomspace(1, 1000, 60).round()).astype(int)
_LEAST = 0.1  # of the axis: 0 samples, which means no noise at all, are drawn here
BASELINES = ("none", "mean")
SCHEMES: dict[str, tuple[str, str, Dash]] = {  # label, colour and dash
    "whole": ("credit for the whole", CHOSEN[0], ""),
    "own": ("credit for one's own token", CHOSEN[1], "dashed"),
}
_SHORT, _LONG = 100, 1000  # tokens, of the guess
_CODE = """\
from gradlab.widgets.credit_explorer import gradient_moments

moments = gradient_moments(right={right}, length={length}, baseline={baseline})
needed = {{scheme: float(variance / mean**2) for scheme, (mean, variance) in moments.items()}}
print(needed)
"""


def gradient_moments(right: float, length: np.ndarray | int, baseline: str) -> dict[str, tuple[Any, Any]]:
    """Return mean and variance of one sample's gradient for the first token's logit, by what is credited to it.

    A response is ``length`` tokens, each right with probability ``right`` independently; the reward is the number of
    right tokens. The sampled gradient is (a − p)(R − b), a = 1 where the first token is right. ``whole``: R is the
    reward of the whole response; ``own``: of the token alone. ``baseline``: b = 0 (``none``) or the mean of R
    (``mean``). Both are exact, in the shape of ``length``; the mean is always p(1 − p). Source: ours (an exercise).
    ValueError for a probability outside (0, 1), a length below 1 or another baseline.
    """
    p = between("right", right, 0, 1, open_low=True, open_high=True)
    one_of("baseline", baseline, BASELINES)
    if np.min(length) < 1:
        raise ValueError(f"length must be at least 1, got {np.min(length)}")
    others = np.asarray(length) - 1
    spread = others * p * (1 - p)  # of the other tokens' reward
    moments = {}
    for scheme, shift in (("whole", others * p), ("own", 0.0 * others)):
        b = p + shift if baseline == "mean" else 0.0 * others
        noise = spread if scheme == "whole" else 0.0 * others
        # Second moment, over a: E[(a − p)² ((a + shift − b)² + noise)].
        second = sum(share * (a - p) ** 2 * ((a + shift - b) ** 2 + noise) for a, share in ((1.0, p), (0.0, 1 - p)))
        mean = p * (1 - p) * np.ones_like(shift)
        moments[scheme] = (mean, second - mean**2)
    return moments


@dataclass(frozen=True)
class Credit:
    """The number of samples that a gradient needs to exceed its noise, over lengths and at the chosen length."""

    needed: dict[str, np.ndarray]
    here: dict[str, float]
    length: int
    growth: float  # times as many samples at 1,000 tokens as at 100, credit for the whole


class CreditExplorer(Explorer):
    """A response of T tokens, a reward at its end, and a gradient from samples."""

    name = "credit"
    in_page = True
    template = _CODE
    question = "How many samples does a policy gradient need before it knows which way to go?"
    prediction = (
        "a reward at the end of a response is credited to all its tokens. Try your guess without a baseline and with "
        "one."
    )
    first_move = "Drag a dot along its curve: it is the length T of the response."
    ask = "Credit for the whole reward: how many times as many samples do 1,000 tokens need as 100?"
    answers: ClassVar = {"same": "about as many", "ten": "about 10 times", "hundred": "about 100 times"}
    reading = (
        "Samples needed for a gradient as large as its standard error, over the length of the response, both axes "
        "logarithmic. Violet, solid: every token is credited with the whole reward. Ochre, dashed: only with its part. "
        "Dots mark the chosen length: drag one of them. No noise at all, 0 samples, is drawn at 0.1; faint lines are "
        "what you pinned."
    )
    takeaway = (
        "Without a baseline, the samples needed grow with the square of the length; with a baseline, in proportion to "
        "it; with credit only for the token's part, not at all. DPO draws no samples and so has none of this noise. "
        "The price is that its fixed data do not cover everything: that is the next foundation."
    )
    stories = (
        Story("A long response, no baseline", "500 tokens: the gradient drowns in the reward's mean.",
              {"length": 500, "baseline": "none"}),
        Story("The same with a baseline", "the mean of the reward is subtracted: the other tokens' luck is left.",
              {"length": 500, "baseline": "mean"}),
        Story("Nearly always right",
              "at 95% right answers rare mistakes carry the lesson: credit for the token alone needs 17 samples.",
              {"right": 0.95, "baseline": "mean"}),
    )  # fmt: skip

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls of the response and the estimator."""
        return {
            "The response": {
                "length": Whole("tokens T", 20, 1, 1000, "length of the response", "log"),
                "right": slider("P(right)", 0.5, 0.05, 0.95, "probability that a token is right"),
            },
            "The estimator": {"baseline": Choice("baseline", "none", BASELINES, "what is taken off the reward")},
        }

    def compute(self, state: SimpleNamespace) -> Credit:
        """Return the samples needed: variance over squared mean."""
        lengths = np.array([*LENGTHS, state.length, _SHORT, _LONG])
        moments = gradient_moments(state.right, lengths, state.baseline)
        needed = {scheme: variance / mean**2 for scheme, (mean, variance) in moments.items()}
        return Credit(
            {scheme: samples[:-3] for scheme, samples in needed.items()},
            {scheme: float(samples[-3]) for scheme, samples in needed.items()},
            state.length, float(needed["whole"][-1] / needed["whole"][-2]),
        )  # fmt: skip

    def charts(self, result: Credit, pinned: Credit | None) -> list[Chart]:
        """Return the samples needed over the length, for both ways to give credit."""
        curves, handles = [], []
        for scheme, (label, color, dash) in SCHEMES.items():
            if pinned:
                before = np.maximum(pinned.needed[scheme], _LEAST)
                curves.append(Curve(f"{label}, pinned", LENGTHS, before, color, dash, faint=True))
            curves.append(Curve(label, LENGTHS, np.maximum(result.needed[scheme], _LEAST), color, dash))
            up = max(result.here[scheme], _LEAST)
            handles.append(Handle(f"tokens T, {label}", result.length, up, color, [Move("length", "x")]))
        return [
            Curves(
                "samples until the gradient equals its standard error",
                "Samples needed over the length of the response, for two ways to give credit",
                Axis("tokens T", 1, 1000, "log"), Axis("samples needed", _LEAST / 2, 1e8, "log"), curves,
                handles=handles, height=280,
            )
        ]  # fmt: skip

    def readings(self, result: Credit) -> list[Reading]:
        """Return the samples needed at the chosen length."""
        return [Reading(f"samples, {label}", result.here[scheme]) for scheme, (label, *_) in SCHEMES.items()]

    def outcome(self, result: Credit) -> tuple[str, str]:
        """Return how the samples grow with the length, for these settings."""
        truth = "same" if result.growth < 10**0.5 else "ten" if result.growth < 10**1.5 else "hundred"
        return truth, f"With these settings 1,000 tokens need {spelt(result.growth)} times as many samples as 100."

    def frame(self) -> pd.DataFrame:
        """Return the samples needed over the length."""
        return pd.DataFrame({"tokens": LENGTHS, **{f"samples_{name}": it for name, it in self.result.needed.items()}})

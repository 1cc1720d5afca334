"""Foundation 2, policy gradients: the variance of a sampled gradient, and which tokens get the credit."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from gradlab.checks import between, one_of
from gradlab.plotting.palette import CHOSEN
from gradlab.widgets.controls import Controls, choice, slider, whole_slider
from gradlab.widgets.explorer import Explorer, Story
from gradlab.widgets.view import View, look

LENGTHS = np.unique(np.geomspace(1, 1000, 60).round()).astype(int)
_LEAST = 0.1  # of the axis: 0 samples, which means no noise at all, are drawn here
BASELINES = ("none", "mean")
SCHEMES: dict[str, dict[str, Any]] = {
    "whole": {"label": "credit for the whole", "color": CHOSEN[0], "linestyle": "-"},
    "own": {"label": "credit for one's own token", "color": CHOSEN[1], "linestyle": "--"},
}


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


class CreditExplorer(Explorer):
    """A response of T tokens, a reward at its end, and a gradient from samples."""

    name = "credit"
    question = "How many samples does a policy gradient need before it knows which way to go?"
    prediction = (
        "a reward at the end of a response is credited to all its tokens. If a response gets ten times as long, how "
        "many more samples are needed? And does a baseline help a long response or a short one?"
    )
    reading = (
        "Samples needed for a gradient as large as its standard error, over the length of the response, both axes "
        "logarithmic. Blue, solid: every token is credited with the whole reward. Orange, dashed: only with its part. "
        "Rings mark the chosen length; no noise at all, 0 samples, is drawn at 0.1; faint lines are the setting before."
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
                "length": whole_slider("tokens T", 20, 1, 1000, "length of the response"),
                "right": slider("P(right)", 0.5, 0.05, 0.95, 0.05, "probability that a token is right"),
            },
            "The estimator": {"baseline": choice("baseline", "none", BASELINES, "what is taken off the reward")},
        }

    def make_views(self) -> dict[str, View]:
        """Return the view of the samples needed over the length."""
        view = View(620, 340, "Samples needed over the length of the response, for two ways to give credit")
        with mpl.rc_context(look()):
            axis = view.figure.subplots()
            axis.set(xscale="log", yscale="log", xlim=(1, 1000), ylim=(_LEAST / 2, 1e8), xlabel="tokens T",
                     title="samples until the gradient equals its standard error")  # fmt: skip
            self._lines, self._before, self._rings = {}, {}, {}
            for scheme, shown in SCHEMES.items():
                faint = {**shown, "alpha": 0.3, "linewidth": 1, "label": None}
                self._before[scheme] = view.live(axis.plot([], [], **faint)[0])
                self._lines[scheme] = view.live(axis.plot([], [], **shown)[0])
                ring = {"color": shown["color"], "fillstyle": "none", "markersize": 8}
                self._rings[scheme] = view.live(axis.plot([], [], "o", **ring)[0])
            axis.legend(loc="upper left")
        return {"samples": view}

    def compute(self, state: SimpleNamespace) -> Credit:
        """Return the samples needed: variance over squared mean."""
        over = gradient_moments(state.right, LENGTHS, state.baseline)
        here = gradient_moments(state.right, state.length, state.baseline)
        return Credit(
            {scheme: variance / mean**2 for scheme, (mean, variance) in over.items()},
            {scheme: float(variance / mean**2) for scheme, (mean, variance) in here.items()},
            state.length,
        )

    def show(self, result: Credit, former: Credit | None) -> dict[str, Any]:
        """Show two lines and two rings."""
        for scheme in SCHEMES:
            self._lines[scheme].set_data(LENGTHS, np.maximum(result.needed[scheme], _LEAST))
            self._rings[scheme].set_data([result.length], [max(result.here[scheme], _LEAST)])
            self._before[scheme].set_data(*(([], []) if former is None else (LENGTHS, former.needed[scheme])))
        return {f"samples, {shown['label']}": result.here[scheme] for scheme, shown in SCHEMES.items()}

    def frame(self) -> pd.DataFrame:
        """Return the samples needed over the length."""
        return pd.DataFrame({"tokens": LENGTHS, **{f"samples_{name}": it for name, it in self.result.needed.items()}})

    def code(self, state: SimpleNamespace) -> str:
        """Return code for the exact moments at the chosen length."""
        return f"""from gradlab.widgets.credit_explorer import gradient_moments

moments = gradient_moments(right={state.right!r}, length={state.length!r}, baseline={state.baseline!r})
needed = {{scheme: float(variance / mean**2) for scheme, (mean, variance) in moments.items()}}
print(needed)
"""

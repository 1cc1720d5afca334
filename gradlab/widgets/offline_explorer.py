"""Foundation 3, offline learning: how much data from one policy say about another."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd

from gradlab.plotting.chart_scales import spelt
from gradlab.plotting.charts import Axis, Chart, Curve, Curves, Handle, Move, Rule
from gradlab.plotting.palette import CHOSEN, INK
from gradlab.theory.families import on_cells
from gradlab.widgets.controls import Controls, log_slider, slider
from gradlab.widgets.explorer import Explorer, Reading, Story

RESPONSES = np.arange(20)
PLACES = np.linspace(0, 19, 77)  # of the policy's centre
_ENDS = (1e-4, 1e6)  # of the axis of samples
_TOPS = (0.25, 0.5, 0.9)  # of the axis of probabilities
_CODE = """\
from gradlab.widgets.offline_explorer import bell, effective_share

data = bell({data_centre}, {data_width})
policy = bell({centre}, {width})
share = effective_share(policy, data)
print(share, {samples} * share)
"""


def bell(centre: float, width: float) -> np.ndarray:
    """Return log-probabilities of a Gaussian over 20 responses, (20,); centre, width > 0 in responses. Source: ours."""
    return on_cells("gaussian", RESPONSES, centre, width)


def effective_share(log_policy: np.ndarray, log_data: np.ndarray) -> float:
    """Return 1 / E_data[(π/data)²]: the share of samples left when data of one policy are re-weighted to another.

    log_policy, log_data  log-probabilities, (n,) each. 1 where they agree, else below.
    Source: Kish's effective sample size, in expectation.
    """
    return float(np.exp(-np.logaddexp.reduce(2 * log_policy - log_data)))


@dataclass(frozen=True)
class Coverage:
    """Two distributions, and the effective share of the samples as the policy moves."""

    data: tuple[float, float]  # centre and width, in responses
    policy: tuple[float, float]
    log_data: np.ndarray
    log_policy: np.ndarray
    shares: np.ndarray  # at ``PLACES``
    share: float
    samples: float

    @property
    def shift(self) -> float:
        """The distance between the two means, in responses."""
        return float(abs(np.exp(self.log_policy) @ RESPONSES - np.exp(self.log_data) @ RESPONSES))


class OfflineExplorer(Explorer):
    """Samples from a data distribution, and a policy somewhere else."""

    name = "offline"
    in_page = True
    template = _CODE
    question = "How far from its data may a policy go before the data say nothing about it?"
    prediction = (
        "10,000 samples come from a policy of width 2. A second policy of the same width is centred 6 responses, three "
        "widths, away."
    )
    first_move = "Drag the large marks on the bells: the one on top moves a bell, the one on its side makes it wider."
    ask = "10,000 samples lie three widths away from the policy. How many samples from the policy are they worth?"
    answers: ClassVar = {"two": "about 2", "hundred": "about 100", "thousand": "about 1,000"}
    reading = (
        "Left: the distribution that wrote the data (grey, diamonds) and the policy of the question (violet, dots). "
        "Drag the mark at the top of a bell to move it, the mark on its side to make it wider. Right: how many samples "
        "from the policy itself the data are worth, over its centre; drag the dot along it. The dotted line is a "
        "single sample. Faint: what you pinned."
    )
    takeaway = (
        "With equal widths s at distance d the share that is left is about exp(−d²/s²), away from the ends: 1 in 8,000 "
        "at three widths. Offline losses do not re-weight, so they show no such noise, but their data hold no more "
        "information: where the data say nothing, the form of the loss decides. There, too, DPO and Balanced-DPO "
        "differ."
    )
    stories = (
        Story("Three widths away", "about two of 10,000 samples are left.", {"centre": 13.0}),
        Story("Wide data", "data twice as wide: at the same distance nearly a thousand times as many are left.",
              {"centre": 13.0, "data_width": 4.0}),
        Story("A sharper policy", "a policy narrower than its data, at the same place: two thirds are left.",
              {"centre": 7.0, "width": 1.0}),
    )  # fmt: skip

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls of the data and the policy."""
        return {
            "The data": {
                "data_centre": slider("their centre", 7.0, 0, 19, "the centre of the policy that wrote the data"),
                "data_width": slider("their width", 2.0, 0.5, 6, "in responses"),
                "samples": log_slider("samples", 10000.0, 2, 6, "how many"),
            },
            "The policy": {
                "centre": slider("its centre", 9.0, 0, 19, "the centre of the policy of the question"),
                "width": slider("its width", 2.0, 0.5, 6, "in responses"),
            },
        }

    def compute(self, state: SimpleNamespace) -> Coverage:
        """Return the result by exact sums over the responses."""
        data, policy = bell(state.data_centre, state.data_width), bell(state.centre, state.width)
        shares = np.array([effective_share(bell(place, state.width), data) for place in PLACES])
        return Coverage(
            (state.data_centre, state.data_width), (state.centre, state.width), data, policy, shares,
            effective_share(policy, data), state.samples,
        )  # fmt: skip

    def charts(self, result: Coverage, pinned: Coverage | None) -> list[Chart]:
        """Return both distributions, and what the data are worth as the policy moves."""
        violet, ochre, _ = CHOSEN
        response = Axis("response", 0, 19)
        before, worth_before = [], []
        if pinned:
            before = [Curve("policy, pinned", RESPONSES, np.exp(pinned.log_policy), violet, faint=True)]
            worth_before = [Curve("worth, pinned", PLACES, pinned.samples * pinned.shares, violet, faint=True)]
        handles = [
            *_handles("data_", "the data's", *result.data, INK), *_handles("", "the policy's", *result.policy, violet),
        ]  # fmt: skip
        top = next(end for end in _TOPS if end >= max(handle.y for handle in handles))
        here = float(np.clip(result.samples * result.share, *_ENDS))
        return [
            Curves(
                "data and policy", "The probabilities of 20 responses under the data's distribution and the policy",
                response, Axis("probability", 0, top),
                [
                    *before, Curve("data", RESPONSES, np.exp(result.log_data), INK, marker="diamond"),
                    Curve("policy", RESPONSES, np.exp(result.log_policy), violet, marker="dot"),
                ],
                handles=handles,
            ),
            Curves(
                "what the data are worth",
                "What the data are worth over the centre of the policy",
                Axis("centre of the policy (response)", 0, 19), Axis("samples of its own", *_ENDS, "log"),
                [*worth_before, Curve("worth", PLACES, result.samples * result.shares, violet)],
                rules=[Rule(y=1.0, label="a single sample", dash="dotted")],
                handles=[Handle("the policy's centre", result.policy[0], here, ochre, [Move("centre", "x")])],
            ),
        ]  # fmt: skip

    def readings(self, result: Coverage) -> list[Reading]:
        """Return the shift, and what is left of the samples."""
        return [
            Reading("shift of the mean", result.shift, "responses"), Reading("share left", result.share),
            Reading("worth samples", result.samples * result.share),
        ]  # fmt: skip

    def outcome(self, result: Coverage) -> tuple[str, str]:
        """Return what 10,000 samples are worth at three widths, and what they are worth here."""
        told = 10_000 * effective_share(bell(13, 2), bell(7, 2))
        return "two", (
            f"10,000 samples around 7 are worth {spelt(told)} of a policy around 13, both of width 2; here "
            f"{spelt(result.samples)} are worth {spelt(result.samples * result.share)}."
        )  # fmt: skip

    def frame(self) -> pd.DataFrame:
        """Return the numbers of the right panel."""
        return pd.DataFrame({"policy_centre": PLACES, "share_left": self.result.shares,
                             "effective_samples": self.result.samples * self.result.shares})  # fmt: skip


def _handles(prefix: str, whose: str, centre: float, width: float, color: str) -> list[Handle]:
    """Return the marks on a bell that move its centre and its width; the second is where there is more room."""
    top = 1 / np.exp(-(((RESPONSES - centre) / width) ** 2) / 2).sum()
    side = 1 if centre <= 9.5 else -1
    shape = "diamond" if prefix else "dot"
    return [
        Handle(f"{whose} centre", centre, float(top), color, [Move(f"{prefix}centre", "x")], shape=shape),
        Handle(f"{whose} width", centre + side * width, float(top * np.exp(-0.5)), color,
               [Move(f"{prefix}width", "x", centre, side)], shape=shape),
    ]  # fmt: skip

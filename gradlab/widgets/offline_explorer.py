"""Foundation 3, offline learning: how much data from one policy say about another."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from gradlab.plotting.palette import CHOSEN
from gradlab.theory.families import on_cells
from gradlab.widgets.controls import Controls, log_slider, slider
from gradlab.widgets.explorer import Explorer, Story
from gradlab.widgets.view import View, look

RESPONSES = np.arange(20)
PLACES = np.linspace(0, 19, 77)  # of the policy's centre
_TOP = 1e6  # of the axis of samples


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

    log_data: np.ndarray
    log_policy: np.ndarray
    shares: np.ndarray
    share: float
    samples: float
    centre: float


class OfflineExplorer(Explorer):
    """Samples from a data distribution, and a policy somewhere else."""

    name = "offline"
    question = "How far from its data may a policy go before the data say nothing about it?"
    prediction = (
        "10,000 samples come from a policy of width 2. A second policy of the same width is centred 6 responses, three "
        "widths, away: how many samples from that policy itself are they worth? Guess before you move it."
    )
    reading = (
        "Left: the distribution that wrote the data (grey) and the policy of the question (violet). Right: how many "
        "samples from the policy itself the data are worth, over its centre; the ring is its present place, the "
        "dotted line a single sample. Faint: the setting before."
    )
    takeaway = (
        "With equal widths s at distance d the share that is left is about exp(−d²/s²), away from the ends: 1 in 8,000 "
        "at three widths. Offline losses do not re-weight, so they show no such noise, but their data hold no more "
        "information: where the data say nothing, the form of the loss decides. That is where DPO and Balanced-DPO "
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
                "data_centre": slider("their centre", 7.0, 0, 19, 0.25, "the centre of the policy that wrote the data"),
                "data_width": slider("their width", 2.0, 0.5, 6, 0.25, "in responses"),
                "samples": log_slider("samples", 10000.0, 2, 6, "how many"),
            },
            "The policy": {
                "centre": slider("its centre", 9.0, 0, 19, 0.25, "the centre of the policy of the question"),
                "width": slider("its width", 2.0, 0.5, 6, 0.25, "in responses"),
            },
        }

    def make_views(self) -> dict[str, View]:
        """Return the view of the distributions and of what the data are worth."""
        view = View(760, 320, "Data and policy over responses, and the effective samples as the policy moves")
        with mpl.rc_context(look()):
            left, right = view.figure.subplots(1, 2)
            left.set(xlim=(0, 19), ylim=(0, 0.8), xlabel="response", title="probability", xticks=(0, 5, 10, 15, 19))
            grey = {"color": "#777777", "marker": "s", "markersize": 3, "linewidth": 1}
            self._data = view.live(left.plot(RESPONSES, 0.0 * RESPONSES, label="data", **grey)[0])
            self._before = view.live(left.plot([], [], color=CHOSEN[0], alpha=0.3, linewidth=1)[0])
            chosen = {"color": CHOSEN[0], "marker": "o", "markersize": 3}
            self._policy = view.live(left.plot(RESPONSES, 0.0 * RESPONSES, label="policy", **chosen)[0])
            left.legend(loc="upper left")
            right.set(yscale="log", xlim=(0, 19), ylim=(1e-4, _TOP), xlabel="centre of the policy",
                      title="worth how many samples of its own", xticks=(0, 5, 10, 15, 19))  # fmt: skip
            right.axhline(1, color="#777777", linestyle=":", linewidth=1)
            self._worth_before = view.live(right.plot([], [], color=CHOSEN[0], alpha=0.3, linewidth=1)[0])
            self._worth = view.live(right.plot([], [], color=CHOSEN[0])[0])
            self._here = view.live(right.plot([], [], "o", color=CHOSEN[1], fillstyle="none", markersize=8)[0])
        return {"coverage": view}

    def compute(self, state: SimpleNamespace) -> Coverage:
        """Return the result by exact sums over the responses."""
        data, policy = bell(state.data_centre, state.data_width), bell(state.centre, state.width)
        shares = np.array([effective_share(bell(place, state.width), data) for place in PLACES])
        return Coverage(data, policy, shares, effective_share(policy, data), state.samples, state.centre)

    def show(self, result: Coverage, former: Coverage | None) -> dict[str, Any]:
        """Show both panels."""
        self._data.set_ydata(np.exp(result.log_data))
        self._policy.set_ydata(np.exp(result.log_policy))
        self._worth.set_data(PLACES, result.samples * result.shares)
        self._here.set_data([result.centre], [result.samples * result.share])
        self._before.set_data(*(([], []) if former is None else (RESPONSES, np.exp(former.log_policy))))
        self._worth_before.set_data(*(([], []) if former is None else (PLACES, former.samples * former.shares)))
        shift = float(abs(np.exp(result.log_policy) @ RESPONSES - np.exp(result.log_data) @ RESPONSES))
        return {"shift of the mean": shift, "share left": result.share, "worth samples": result.samples * result.share}

    def frame(self) -> pd.DataFrame:
        """Return the numbers of the right panel."""
        return pd.DataFrame({"policy_centre": PLACES, "share_left": self.result.shares,
                             "effective_samples": self.result.samples * self.result.shares})  # fmt: skip

    def code(self, state: SimpleNamespace) -> str:
        """Return code for the share left, and for what the data are worth."""
        return f"""from gradlab.widgets.offline_explorer import bell, effective_share

data = bell({state.data_centre!r}, {state.data_width!r})
policy = bell({state.centre!r}, {state.width!r})
share = effective_share(policy, data)
print(share, {state.samples!r} * share)
"""

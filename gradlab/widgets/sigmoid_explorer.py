"""Foundation 1, Bradley–Terry and the sigmoid: how hard a pair pulls, and where it stops."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from scipy.special import expit

from gradlab.plotting.palette import CHOSEN
from gradlab.widgets.controls import Controls, slider
from gradlab.widgets.explorer import Explorer, Story
from gradlab.widgets.view import View, look

MARGINS = np.linspace(-8, 8, 321)


def expected_loss(gap: float, margin: np.ndarray | float) -> np.ndarray:
    """Return −σ(Δu) log σ(m) − σ(−Δu) log σ(−m): a pair's logistic loss, expected over Bradley–Terry labels.

    gap, margin  Δu and m in nats; the result, in nats, has margin's shape. Source: ours, from DPO's loss.
    """
    return expit(gap) * np.logaddexp(0, -np.asarray(margin)) + expit(-gap) * np.logaddexp(0, margin)


@dataclass(frozen=True)
class Pull:
    """The expected loss over margins, and the pair's place on it."""

    gap: float
    margin: float
    loss: np.ndarray

    @property
    def wins(self) -> float:
        """The probability that the winner wins, P(w ≻ l) = σ(Δu)."""
        return float(expit(self.gap))

    @property
    def pull(self) -> float:
        """The expected pull on the margin, −dL/dm = σ(Δu) − σ(m); 0 at m = Δu."""
        return float(expit(self.gap) - expit(self.margin))


class SigmoidExplorer(Explorer):
    """A pair with utilities Δu apart, and a policy with margin m."""

    name = "sigmoid"
    question = "How much better must a response be to win nine times out of ten, and where does a pair stop pulling?"
    prediction = (
        "a pair that is always won (Δu → ∞) never stops pulling its margin up; a pair that is won with probability "
        "σ(Δu) stops at some margin. At which? Guess, then move m until the pull is zero."
    )
    reading = (
        "Left: the share of comparisons that the better response wins, by Bradley–Terry; the dot is the pair. Right: "
        "the loss −log σ(m), expected over the labels of such a pair; the dot is the policy's margin m = "
        "β(h_w − h_l), the triangle the lowest point. The faint curve is the setting before."
    )
    takeaway = (
        "The lowest point is at m = Δu: DPO makes the policy's margin a measurement of the gap in utility. Where "
        "labels are never contradicted, the measured gap is infinite, and the loser's probability falls for ever."
    )
    stories = (
        Story("Nine out of ten", "Δu = log 9 = 2.2 nats: the better response wins 90% of comparisons.", {"gap": 2.2}),
        Story("A pair at rest", "m = Δu: the pulls of the two labels cancel, and the loss is lowest.",
              {"gap": 2.0, "margin": 2.0}),
        Story("Never contradicted", "Δu = 8: labels are almost never contradicted, and the loss falls all the way.",
              {"gap": 8.0, "margin": 4.0}),
    )  # fmt: skip

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls of the pair and the policy."""
        return {
            "The pair": {"gap": slider("gap Δu", 1.0, -8, 8, 0.1, "utility of the winner minus the loser's, in nats")},
            "The policy": {"margin": slider("margin m", 0.0, -8, 8, 0.1, "β(h_w − h_l): 0 at the reference")},
        }

    def make_views(self) -> dict[str, View]:
        """Return the view of the sigmoid and of the expected loss."""
        view = View(760, 320, "The sigmoid with the pair on it, and the expected loss over the margin")
        with mpl.rc_context(look()):
            left, right = view.figure.subplots(1, 2)
            left.plot(MARGINS, expit(MARGINS), color=CHOSEN[0])
            left.set(xlabel="Δu (nats)", title="P(w ≻ l) = σ(Δu)", ylim=(-0.03, 1.03))
            self._pair = view.live(left.plot([0], [0], "o", color=CHOSEN[1])[0])
            right.set(xlim=(-8, 8), ylim=(0, 8), xlabel="margin m", title="expected loss (nats)")
            self._before = view.live(right.plot([], [], color=CHOSEN[0], alpha=0.3)[0])
            self._loss = view.live(right.plot([], [], color=CHOSEN[0])[0])
            self._least = view.live(right.plot([], [], "^", color="#444444", markersize=8)[0])
            self._here = view.live(right.plot([], [], "o", color=CHOSEN[1])[0])
        return {"sigmoid": view}

    def compute(self, state: SimpleNamespace) -> Pull:
        """Return the curve and the point."""
        return Pull(state.gap, state.margin, expected_loss(state.gap, MARGINS))

    def show(self, result: Pull, former: Pull | None) -> dict[str, Any]:
        """Show curve, point and lowest point."""
        here = float(expected_loss(result.gap, result.margin))
        self._pair.set_data([result.gap], [result.wins])
        self._loss.set_data(MARGINS, result.loss)
        self._least.set_data([result.gap], [float(expected_loss(result.gap, result.gap)) - 0.25])
        self._here.set_data([result.margin], [here])
        self._before.set_data(*(([], []) if former is None else (MARGINS, former.loss)))
        return {"P(w ≻ l)": result.wins, "loss": here, "pull on m": result.pull}

    def frame(self) -> pd.DataFrame:
        """Return the curve of the loss."""
        return pd.DataFrame({"margin": MARGINS, "expected_loss_nats": self.result.loss, "gap_nats": self.result.gap})

    def code(self, state: SimpleNamespace) -> str:
        """Return code for the point, through gradlab's DPO."""
        return f"""import gradlab as gl
import torch

gap, margin, zero = torch.tensor([{state.gap!r}, {state.margin!r}, 0.0], dtype=torch.float64)
wins = torch.sigmoid(gap)
won, lost = (gl.DPO()(gl.PairLogps(side * margin, zero, zero, zero)) for side in (1, -1))
loss, pull = (wins * won + (1 - wins) * lost).item(), (wins - torch.sigmoid(margin)).item()
print(wins.item(), loss, pull)
"""

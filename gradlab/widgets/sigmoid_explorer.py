"""Foundation 1, Bradley–Terry and the sigmoid: how hard a pair pulls, and where it stops."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.special import expit

from gradlab.plotting.chart_scales import spelt
from gradlab.plotting.charts import Axis, Chart, Curve, Curves, Handle, Move
from gradlab.plotting.palette import CHOSEN, INK
from gradlab.widgets.controls import Controls, slider
from gradlab.widgets.explorer import Explorer, Reading, Story

MARGINS = np.linspace(-8, 8, 321)
_BELOW = 0.25  # nats from the lowest point to the triangle under it
_CODE = """\
import gradlab as gl
import torch

gap, margin, zero = torch.tensor([{gap}, {margin}, 0.0], dtype=torch.float64)
wins = torch.sigmoid(gap)
won, lost = (gl.DPO()(gl.PairLogps(side * margin, zero, zero, zero)) for side in (1, -1))
loss, pull = (wins * won + (1 - wins) * lost).item(), (wins - torch.sigmoid(margin)).item()
print(wins.item(), loss, pull)
"""


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
    def here(self) -> float:
        """The expected loss at the policy's margin, in nats."""
        return float(expected_loss(self.gap, self.margin))

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
    in_page = True
    template = _CODE
    question = "How much better must a response be to win nine times out of ten, and where does a pair stop pulling?"
    prediction = (
        "a pair that is always won (Δu → ∞) never stops pulling its margin up; a pair that is won with probability "
        "σ(Δu) stops at some margin."
    )
    first_move = "Drag the dot on a curve: the left one moves the pair's gap Δu, the right one the policy's margin m."
    ask = "At which margin m does a pair that is won with probability σ(Δu) stop pulling?"
    answers: ClassVar = {"zero": "at m = 0", "gap": "at m = Δu", "end": "at no finite margin"}
    reading = (
        "Left: the share of comparisons that the better response wins, by Bradley–Terry; drag the dot to change the "
        "pair's Δu. Right: the loss −log σ(m), expected over the labels of such a pair; drag the dot to change the "
        "policy's margin m = β(h_w − h_l). The triangle is under the lowest point. The faint curve is what you "
        "pinned."
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
            "The pair": {"gap": slider("gap Δu", 1.0, -8, 8, "utility of the winner minus the loser's, in nats")},
            "The policy": {"margin": slider("margin m", 0.0, -8, 8, "β(h_w − h_l): 0 at the reference")},
        }

    def compute(self, state: SimpleNamespace) -> Pull:
        """Return the curve and the point."""
        return Pull(state.gap, state.margin, expected_loss(state.gap, MARGINS))

    def charts(self, result: Pull, pinned: Pull | None) -> list[Chart]:
        """Return the sigmoid with the pair on it, and the expected loss over the margin."""
        violet, ochre, _ = CHOSEN
        before = [Curve("pinned", MARGINS, pinned.loss, violet, faint=True)] if pinned else []
        lowest = float(expected_loss(result.gap, result.gap)) - _BELOW
        return [
            Curves(
                "share of comparisons won", "The sigmoid over the gap in utility, with the pair on it",
                Axis("gap Δu (nats)", -8, 8), Axis("P(w ≻ l) = σ(Δu)", 0, 1),
                [Curve("σ(Δu)", MARGINS, expit(MARGINS), violet)],
                handles=[Handle("gap Δu", result.gap, result.wins, ochre, [Move("gap", "x")])],
            ),
            Curves(
                "expected loss of the pair", "The expected loss over the policy's margin, with its lowest point",
                Axis("margin m", -8, 8), Axis("expected loss (nats)", -0.5, 8),
                [
                    *before, Curve("loss", MARGINS, result.loss, violet),
                    Curve("lowest point", np.array([result.gap]), np.array([lowest]), INK,
                          marker="triangle-up", line=False),
                ],
                handles=[Handle("margin m", result.margin, result.here, ochre, [Move("margin", "x")])],
            ),
        ]  # fmt: skip

    def readings(self, result: Pull) -> list[Reading]:
        """Return the share won, the loss and the pull at the policy's margin."""
        return [
            Reading("P(w ≻ l)", result.wins), Reading("loss", result.here, "nats"), Reading("pull on m", result.pull),
        ]  # fmt: skip

    def outcome(self, result: Pull) -> tuple[str, str]:
        """Return the margin at which the pull is zero."""
        return "gap", (
            f"The pull is σ(Δu) − σ(m): zero at m = Δu = {spelt(result.gap)}, and {spelt(result.pull)} at m = "
            f"{spelt(result.margin)}."
        )  # fmt: skip

    def frame(self) -> pd.DataFrame:
        """Return the curve of the loss."""
        return pd.DataFrame({"margin": MARGINS, "expected_loss_nats": self.result.loss, "gap_nats": self.result.gap})

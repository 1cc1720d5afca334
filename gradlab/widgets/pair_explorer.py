"""One pair: the effects of two losses on a winner and a loser, as gradients in three spaces and as a real step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch

from gradlab.losses import balanced_weights
from gradlab.widgets.controls import (
    Controls,
    choice,
    chosen_loss,
    hide_unused,
    log_slider,
    loss_code,
    loss_controls,
    whole_slider,
)
from gradlab.widgets.explorer import Explorer, Story
from gradlab.widgets.pair_effects import (
    DECADES,
    ROOM,
    SHOWN,
    Effect,
    Field,
    Surface,
    effect,
    field,
    policy,
    sides,
    surface,
)
from gradlab.widgets.pair_views import Bars, Maps
from gradlab.widgets.view import SIDES, View, look

_PAIRS = (("win", "lose"), ("ref_win", "ref_lose"))
_PARTIAL, _STEP = "partial derivatives", "step on logits"
_CODE = """\
import numpy as np
import pandas as pd
import torch

import gradlab as gl

n, step = {n!r}, {step!r}
win, lose = {win!r}, {lose!r}
log_p = np.log([win, lose] + [(1 - win - lose) / max(n - 2, 1)] * (n - 2))  # winner, loser, others
ref = {ref}  # of winner and loser
results = {{}}
for side, loss in {{"A": {a}, "B": {b}}}.items():
    logits = torch.tensor(log_p, requires_grad=True)
    logp = torch.log_softmax(logits, 0)
    pair = gl.PairLogps(logp[0], logp[1], *torch.from_numpy(ref))
    by_logp, by_logit = (-grad.numpy() for grad in torch.autograd.grad(loss(pair), (logp, logits)))
    change = gl.theory.realised_change(log_p, by_logp, step)
    results[side] = {{
        "loss": loss(pair).item(),
        "|∂L/∂π_w| / |∂L/∂π_l|": gl.log_prob_ratio(loss, pair).exp().item(),
        "λ_w of bDPO": gl.losses.balanced_weights(pair.win, pair.lose)[0].item(),
        "−∂L/∂π": (by_logp / np.exp(log_p))[:3],
        "−∂L/∂log π": by_logp[:3],
        "−∂L/∂logit": by_logit[:3],
        "Δ log π": change[:3],
        "Δ log π, first order": step * gl.theory.first_order_change(log_p, by_logp)[:3],
        "Δπ": (np.exp(log_p) * np.expm1(change))[:3],
    }}
print(pd.DataFrame(results).to_string())
"""


@dataclass(frozen=True)
class Pair:
    """A pair in its softmax, and the effects of both losses on it."""

    state: SimpleNamespace
    log_p: np.ndarray  # (n,) winner, loser, others
    ref: np.ndarray  # (2,) log π_ref of winner and loser
    win_weight: float  # λ_w of Balanced-DPO
    effects: dict[str, Effect]
    surfaces: dict[str, Surface]
    fields: dict[str, Field]


class PairExplorer(Explorer):
    """Two probabilities in a softmax, and two losses: surfaces, fields of arrows, gradients and the real step."""

    name = "pair"
    question = "What does a preference loss really do to one pair, and does the larger gradient mean the larger change?"
    prediction = (
        "the paper says that DPO's gradients on winner and loser have the ratio −π_l : π_w, so a probable winner is "
        "pulled less than its loser is pushed. Here π_w = 0.5 and π_l = 0.1. Before you move anything: in one real "
        "step on the logits, which of the two changes more, in π and not in log π? And which loss in the menu has "
        "another ratio?"
    )
    reading = (
        "Maps: the loss in bands from dark (low) to bright; above them its value here and its range on the map. The "
        "dot is the policy, + the reference, and the small diamond the policy after one step; on the dashed line π_w "
        "= π_l. Policies lie where π_w + π_l ≤ 1; with two responses, on that edge. Arrows are directions of descent "
        "in the coordinates of the axes. Partial derivatives are perpendicular to the bands, except for nbDPO: both "
        "balanced losses hold λ fixed, which is a common factor in bDPO's derivatives but not in nbDPO's. Bars say "
        "which way descent moves each response: A violet, B pale with a dashed edge; the last bar is any one of the "
        "others. Diamonds on the last panel are the step to first order; faint marks are the setting before you "
        "touched this control. In the line of numbers, ratio is |∂L/∂π_w| : |∂L/∂π_l|."
    )
    takeaway = (
        "The ratio of ∂L/∂π is ρ · π_l/π_w for every loss, by the chain rule, and ρ = 1 for every loss of the margin "
        "h_w − h_l alone: DPO shares it with cDPO and IPO. It does not say what moves, since probabilities share "
        "their logits: where there are others, a small step of DPO changes π more for the more probable of the two, "
        "and log π more for the less probable. Balanced-DPO has ρ = log π_l/log π_w. It gives the improbable side "
        "less weight, and comes closer to a ratio of 1 than DPO for any two responses to a prompt. How close is a law "
        "(claims report, ratio-corrected): the smaller both probabilities, the less is corrected, about one part in "
        "−log π. Its weights sum to one: compare it with DPO at half the β."
    )
    stories = (
        Story(
            "Does DPO drain the winner?",
            "the loser's derivative is five times the winner's (ratio 0.2). Yet the step raises π of the winner by "
            "0.049 and lowers π of the loser by 0.021. (In log π the loser moves more, 0.24 against 0.09: "
            "2.5 times as far, not 5.) The others pay the difference, though DPO has no "
            "gradient on their logits. On free logits no step of DPO on a pair lowers its winner.",
        ),
        Story(
            "A rare loser",
            "DPO's derivative for a loser at 10⁻⁶ is 500,000 times the winner's, but there is only 10⁻⁶ to lose. DPO "
            "lowers its log π by 0.78 nats, bDPO (λ_w = 0.95) by 0.12. Under both, the others pay for the winner's "
            "gain, 0.12 and 0.08.",
            {"lose": 1e-6, "reference": "the policy", "axes": "log π", "arrows": _STEP},
        ),
        Story(
            "A rare winner",
            "by the ratio, DPO favours a winner at 0.01 over a loser at 0.7 by 70 to 1. But DPO's step takes 0.25 from "
            "the loser and gives the winner 0.04: the others get the rest. bDPO (λ_w = 0.07) takes 0.07, and gives "
            "the winner 0.002.",
            {"win": 0.01, "lose": 0.7, "arrows": _STEP},
        ),
        Story(
            "Balanced weights at work",
            "A is now DPO at β = ½, since bDPO's weights sum to one. bDPO has ρ = 3.3, and the ratio is 0.66 instead "
            "of 0.2. In the step the winner gains about as much, 0.046 and 0.045. The loser falls less and the "
            "others fall more: bDPO has a gradient on their logits.",
            {"beta_a": 0.5},
        ),
        Story(
            "Long sequences: the correction fades",
            "the sliders end at 10⁻¹², log π = −27.6. At 10⁻⁹ and 10⁻¹² bDPO has ρ = 12/9, and DPO's imbalance of "
            "1000 to 1 becomes 750 to 1. Whole answers have log π near −100: there ρ is 1.07 for the same imbalance, "
            "which becomes 935 to 1.",
            {"win": 1e-9, "lose": 1e-12, "reference": "the policy", "axes": "log π", "beta_a": 0.5},
        ),
    )

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls of policy, reference, losses, step and map."""

        def probability(name: str, value: float) -> Any:
            return log_slider(name, value, -DECADES, math.log10(0.999), "the other probability gives way", step=0.02)

        return {
            "Policy": {
                "responses": whole_slider(
                    "responses n", 5, 2, 20, "winner, loser, and others that share the rest evenly"
                ),
                "win": probability("π_w", 0.5),
                "lose": probability("π_l", 0.1),
                "step": log_slider("step size", 1.0, -3, 2, "of one gradient step on the logits"),
            },
            "Losses": {**loss_controls("A", "_a", "dpo"), **loss_controls("B", "_b", "bdpo")},
            "Reference": {
                "reference": choice("reference", "uniform", ["uniform", "the policy", "own values"]),
                "ref_win": probability("π_ref of y_w", 0.2),
                "ref_lose": probability("π_ref of y_l", 0.2),
            },
            "Map": {
                "axes": choice("axes", "π", ["π", "log π"]),
                "arrows": choice("arrows", _PARTIAL, [_PARTIAL, _STEP]),
            },
        }

    def adapt(self, state: SimpleNamespace) -> None:
        """Hide what other controls settle; where π_w + π_l would reach one, the probability not in hand gives way."""
        for key in SIDES:
            hide_unused(self.controls, key)
        typed, others = state.reference == "own values", state.responses > 2
        for key, shown in {"lose": others, "ref_win": typed, "ref_lose": typed and others}.items():
            self.controls[key].layout.display = None if shown else "none"
        for pair in _PAIRS:
            values = {key: getattr(state, key) for key in pair}
            if self.result is None or sum(values.values()) <= ROOM:
                continue
            moved = [key for key in pair if values[key] != getattr(self.result.state, key)]
            if len(moved) < 2:  # else both were asked for, and compute says what is wrong
                stays, yields = pair[::-1] if moved == [pair[1]] else pair
                self.controls[yields].include(ROOM - values[stays])

    def compute(self, state: SimpleNamespace) -> Pair:
        """Return gradients and step of both losses; surfaces and arrows are computed only when they change."""
        n = state.responses
        pair = sides(_PAIRS[0], state.win, state.lose, n)
        log_p = policy(pair, n)
        ref = {"uniform": np.full(2, -math.log(n)), "the policy": pair}.get(state.reference)
        if ref is None:
            ref = sides(_PAIRS[1], state.ref_win, state.ref_lose, n)
        losses = {side: chosen_loss(vars(state), side) for side in SIDES}
        surfaces, fields = {}, {}
        for side, loss in losses.items():
            key = (loss, tuple(ref), state.axes)
            surfaces[side] = self.remember(f"surface{side}", key, lambda loss=loss: surface(loss, ref, state.axes))
            fields[side] = self.remember(f"field{side}", (*key, state.arrows, n), lambda loss=loss: field(
                loss, ref, state.axes, n, stepping=state.arrows == _STEP))  # fmt: skip
        win_weight, _ = balanced_weights(*torch.from_numpy(pair))
        effects = {side: effect(loss, log_p, ref, state.step) for side, loss in losses.items()}
        return Pair(state, log_p, ref, win_weight.item(), effects, surfaces, fields)

    def make_views(self) -> dict[str, View]:
        """Return the views of maps and bars."""
        with mpl.rc_context(look()):
            self._maps, self._bars = Maps(), Bars()
        return {"maps": self._maps.view, "bars": self._bars.view}

    def show(self, result: Pair, former: Pair | None) -> dict[str, Any]:
        """Show the policy on both maps, and the bars."""
        shown = {side: (result.effects[side], result.surfaces[side], result.fields[side]) for side in SIDES}
        self._maps.show(result.state.axes, result.log_p, result.ref, None if former is None else former.log_p, shown)
        self._bars.show(result.effects, None if former is None else former.effects)
        numbers: dict[str, Any] = {"π_l/π_w": float(np.exp(result.log_p[1] - result.log_p[0]))}
        named = {side[1].upper(): effect for side, effect in result.effects.items()}
        numbers |= {
            f"ratio {name}": "0/0" if math.isnan(effect.ratio) else effect.ratio for name, effect in named.items()
        }
        numbers["λ_w of bDPO"] = result.win_weight
        for index, who in enumerate("wl"):
            numbers |= {f"Δπ_{who} {name}": float(effect.change_in_prob[index]) for name, effect in named.items()}
        return numbers

    def frame(self) -> pd.DataFrame:
        """Return one row per loss and response: probability, −∂L/∂(π, log π, logit), and the step, Δ log π and Δπ."""
        count = min(len(self.result.log_p), 3)
        return pd.concat([
            pd.DataFrame({
                "side": side[1].upper(), "loss": effect.loss.name, "response": SHOWN[:count],
                "prob": np.exp(self.result.log_p[:count]), "minus_grad_prob": effect.by_prob[:count],
                "minus_grad_logp": effect.by_logp[:count], "minus_grad_logit": effect.by_logit[:count],
                "delta_logp": effect.change[:count], "delta_logp_first_order": effect.first_order[:count],
                "delta_prob": effect.change_in_prob[:count], "loss_value": effect.value, "prob_ratio": effect.ratio,
                "bdpo_win_weight": self.result.win_weight,
            })
            for side, effect in self.result.effects.items()
        ], ignore_index=True)  # fmt: skip

    def code(self, state: SimpleNamespace) -> str:
        """Return code for policy and reference, and for each loss's gradients and step."""
        two = state.responses == 2
        lose, ref_lose = (1 - state.win, 1 - state.ref_win) if two else (state.lose, state.ref_lose)
        ref = {
            "uniform": "np.full(2, -np.log(n))",
            "the policy": "log_p[:2]",
            "own values": f"np.log([{state.ref_win!r}, {ref_lose!r}])",
        }[state.reference]
        a, b = (loss_code(vars(state), side) for side in SIDES)
        return _CODE.format(n=state.responses, step=state.step, win=state.win, lose=lose, ref=ref, a=a, b=b)

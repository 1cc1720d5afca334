"""One pair: the effects of two to six losses on a winner and a loser, as gradients in three spaces and a real step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from gradlab.plotting.chart_scales import spelt
from gradlab.plotting.charts import Arrows, Axis, Bar, Bars, Chart, Handle, Move
from gradlab.plotting.palette import BALANCED_WEIGHT, TRUE
from gradlab.widgets.compared_losses import LOOKS, ComparingExplorer, title_of
from gradlab.widgets.controls import Choice, Controls, Whole, log_slider, probability
from gradlab.widgets.explorer import Reading, Story
from gradlab.widgets.pair_effects import LEAST, MOST, SHOWN, Effect, Field, effect, field, kept_apart, policy

_PARTIAL, _STEP = "partial derivatives", "step on logits"
_CLOSE = 0.02  # of the larger change: the two count as equal
_ROUNDING = 1e-12  # nats: a smaller change of log π is none
_CODE = """\
import numpy as np
import pandas as pd
import torch

import gradlab as gl
{imports}
n, step = {responses}, {step}
win, lose = {win}, {lose}
log_p = np.log([win, lose] + [(1 - win - lose) / (n - 2)] * (n - 2))  # winner, loser, others
ref = {ref}  # of winner and loser
token = torch.ones(())  # the length of each response
results = {{}}
for side, loss in {losses}.items():
    logits = torch.tensor(log_p, requires_grad=True)
    logp = torch.log_softmax(logits, 0)
    pair = gl.PairLogps(logp[0], logp[1], *torch.from_numpy(ref), token, token)
    by_logp, by_logit = (-grad.numpy() for grad in torch.autograd.grad(loss(pair), (logp, logits)))
    change = gl.theory.realised_change(log_p, by_logp, step)
    ratio = gl.log_prob_ratio(loss, pair)
    results[side] = {{
        "loss": loss(pair).item(),
        "|∂L/∂π_w| / |∂L/∂π_l|": ratio.exp().item(),
        "λ_w": (ratio + pair.win - pair.lose).sigmoid().item(),
        "−∂L/∂π": (by_logp / np.exp(log_p))[:3],
        "−∂L/∂log π": by_logp[:3],
        "−∂L/∂logit": by_logit[:3],
        "Δ log π": change[:3],
        "Δ log π, first order": step * gl.theory.first_order_change(log_p, by_logp)[:3],
        "Δπ": (np.exp(log_p) * np.expm1(change))[:3],
    }}
print(pd.DataFrame(results).to_string())
"""
_ROWS = (  # name, unit, key in ``numbers``, and the value of an effect
    ("ρ = |∂L/∂log π_w| : |∂L/∂log π_l|", "", "ρ", lambda one: one.rho),
    ("ratio |∂L/∂π_w| : |∂L/∂π_l|", "", "ratio", lambda one: one.ratio),
    ("λ_w, the winner's share of both slopes", "", "λ_w", lambda one: one.win_weight),
    ("−∂L/∂π of the winner", "", "−∂L/∂π_w", lambda one: one.by_prob[0]),
    ("−∂L/∂π of the loser", "", "−∂L/∂π_l", lambda one: one.by_prob[1]),
    ("Δπ of the winner in one step", "", "Δπ_w", lambda one: one.change_in_prob[0]),
    ("Δπ of the loser in one step", "", "Δπ_l", lambda one: one.change_in_prob[1]),
    ("Δ log π of the winner in one step", "nats", "Δ log π_w", lambda one: one.change[0]),
    ("Δ log π of the loser in one step", "nats", "Δ log π_l", lambda one: one.change[1]),
)


@dataclass(frozen=True)
class Pair:
    """A pair in its softmax, and the effects of the losses on it, by letter."""

    state: SimpleNamespace
    log_p: np.ndarray  # (n,) winner, loser, others
    ref: np.ndarray  # (2,) log π_ref of winner and loser
    effects: dict[str, Effect]
    fields: dict[str, Field]


class PairExplorer(ComparingExplorer):
    """Two probabilities in a softmax, and two to six losses: fields of arrows, gradients and the real step."""

    name = "pair"
    template = _CODE
    question = "What does a preference loss really do to one pair, and does the larger gradient mean the larger change?"
    prediction = (
        "the paper says that DPO's gradients on winner and loser have the ratio −π_l : π_w, so a probable winner is "
        "pulled less than its loser is pushed. Here π_w = 0.5 and π_l = 0.1. Before you move anything, say which of "
        "the two changes more in one real step: in π, not in log π. And which loss in the menu has another ratio?"
    )
    first_move = "Drag the round dot on a map: it is the policy, and its place says how probable winner and loser are."
    ask = "Predict: in one real step of A on the logits, whose π changes more?"
    answers = {"winner": "the winner's", "loser": "the loser's", "equal": "both alike"}  # noqa: RUF012
    reading = (
        "Maps: one per loss, over π of the winner and of the loser; grey has no policies, since π_w + π_l ≤ 1, and on "
        "the dashed line both are equal. Arrows are directions of descent: of the partial derivatives, or of a small "
        "step on the logits. Their colour is the ratio of the two gradients in probabilities, pale where the loser's "
        "is larger, dark where the winner's is. The dot is the policy, the diamond the reference; drag them, or focus "
        "them and use arrow keys. The line leads to the policy after one real step. Bars say which way descent moves "
        "each response, and the table has the numbers; each other is any of the responses that the pair does not name."
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

    unfolds = ("Reference",)

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls of losses, policy, map and reference."""

        def control(label: str, value: float, hint: str) -> Any:
            return probability(label, value, LEAST, MOST, hint)

        return {
            "Losses": self.loss_group(),
            "Policy": {
                "win": control("π_w", 0.5, "probability of the winner"),
                "lose": control("π_l", 0.1, "probability of the loser, at most what the winner leaves"),
                "responses": Whole("responses n", 5, 3, 20, "winner, loser, and others that share the rest evenly"),
                "step": log_slider("step size", 1.0, -3, 2, "of one gradient step on the logits"),
            },
            "Map": {
                "axes": Choice("axes", "π", ["π", "log π"]),
                "arrows": Choice("arrows", _PARTIAL, [_PARTIAL, _STEP]),
            },
            "Reference": {
                "reference": Choice("reference", "uniform", ["uniform", "the policy", "own values"]),
                "ref_win": control("π_ref of the winner", 0.2, "under the reference"),
                "ref_lose": control("π_ref of the loser", 0.2, "at most what the winner's leaves"),
            },
        }

    def adapt(self, state: SimpleNamespace) -> None:
        """Hide what other controls settle."""
        super().adapt(state)
        for key in ("ref_win", "ref_lose"):
            self.controls[key].hidden = state.reference != "own values"

    def compute(self, state: SimpleNamespace) -> Pair:
        """Return gradients, step and arrows of each loss; arrows are computed only when they change."""
        n = state.responses
        pair = np.log(kept_apart(state.win, state.lose))
        log_p = policy(pair, n)
        ref = {"uniform": np.full(2, -math.log(n)), "the policy": pair}.get(state.reference)
        if ref is None:
            ref = np.log(kept_apart(state.ref_win, state.ref_lose))
        effects, fields = {}, {}
        for slot in self.slots(state):
            loss = self.loss(state, slot)
            key = (loss, tuple(ref), state.axes, state.arrows, n)
            effects[slot] = effect(loss, log_p, ref, state.step)
            fields[slot] = self.remember(f"field_{slot}", key, lambda loss=loss: field(
                loss, ref, state.axes, n, stepping=state.arrows == _STEP))  # fmt: skip
        return Pair(state, log_p, ref, effects, fields)

    def charts(self, result: Pair, pinned: Pair | None) -> Sequence[Chart]:
        """Return a map of arrows per loss, and bars of the gradients and of the step."""
        return [
            *(_map(result, slot) for slot in result.effects),
            _bars(result, "Gradient", "−∂L/∂π", lambda one: one.by_prob),
            _bars(result, "One real step on the logits", "Δπ", lambda one: one.change_in_prob),
        ]

    def readings(self, result: Pair) -> Sequence[Reading]:
        """Return ratios, gradients and the step, per loss; "0/0" for a ratio of gradients that both vanish."""
        return [
            Reading(name, {slot.upper(): _number(of(one)) for slot, one in result.effects.items()}, unit, key)
            for name, unit, key, of in _ROWS
        ]

    def outcome(self, result: Pair) -> tuple[str, str]:
        """Return whose probability A's step changes more, and by how much both change."""
        one = result.effects["a"]
        win, lose = np.where(np.abs(one.change) > _ROUNDING, one.change_in_prob, 0.0)[:2].tolist()
        up, down = abs(win), abs(lose)
        truth = "equal" if abs(up - down) <= _CLOSE * max(up, down) else "winner" if up > down else "loser"
        return truth, f"Δπ is {spelt(win)} for the winner, {spelt(lose)} for the loser."

    def frame(self) -> pd.DataFrame:
        """Return one row per loss and response: probability, −∂L/∂(π, log π, logit), and the step, Δ log π and Δπ."""
        return pd.concat([
            pd.DataFrame({
                "side": slot.upper(), "loss": effect.loss.name, "response": SHOWN,
                "prob": np.exp(self.result.log_p[:3]), "minus_grad_prob": effect.by_prob,
                "minus_grad_logp": effect.by_logp, "minus_grad_logit": effect.by_logit,
                "delta_logp": effect.change, "delta_logp_first_order": effect.first_order,
                "delta_prob": effect.change_in_prob, "loss_value": effect.value, "prob_ratio": effect.ratio,
                "win_weight": effect.win_weight,
            })
            for slot, effect in self.result.effects.items()
        ], ignore_index=True)  # fmt: skip

    def code_parts(self, state: SimpleNamespace) -> dict[str, str]:
        """Return policy, reference and losses as they are computed."""
        win, lose = kept_apart(state.win, state.lose)
        ref = {
            "uniform": "np.full(2, -np.log(n))",
            "the policy": "log_p[:2]",
            "own values": f"np.log({list(kept_apart(state.ref_win, state.ref_lose))!r})",
        }[state.reference]
        imports, losses = self.losses_code(state)
        return {"win": repr(win), "lose": repr(lose), "ref": ref, "losses": losses, "imports": imports}


def _map(result: Pair, slot: str) -> Arrows:
    shown, one, state = result.fields[slot], result.effects[slot], result.state
    (win, lose), (ref_win, ref_lose) = (np.exp(pair[:2]).tolist() for pair in (result.log_p, result.ref))
    policy = Handle("policy", win, lose, TRUE, (Move("win", "x"), Move("lose", "y")))
    moves = (Move("ref_win", "x"), Move("ref_lose", "y"))
    reference = Handle("reference", ref_win, ref_lose, BALANCED_WEIGHT, moves, shape="diamond")
    after = win + float(one.change_in_prob[0]), lose + float(one.change_in_prob[1])
    return Arrows(
        title_of(slot, one.loss),
        "Directions of descent over the policies of one pair, coloured by the ratio of both gradients",
        _axis("π_w", state.axes), _axis("π_l", state.axes), shown.places[:, 0], shown.places[:, 1],
        shown.directions[:, 0], shown.directions[:, 1], shown.colors,
        [policy] if state.reference == "the policy" else [reference, policy], [(win, lose), after],
    )  # fmt: skip


def _axis(label: str, axes: str) -> Axis:
    return Axis(label, LEAST, 1.0, "log") if axes == "log π" else Axis(label, 0.0, 1.0)


def _bars(result: Pair, title: str, label: str, of: Any) -> Bars:
    bars = [
        Bar(title_of(slot, one.loss), of(one), LOOKS[slot][0], dashed=LOOKS[slot][1] != "")
        for slot, one in result.effects.items()
    ]
    return Bars(title, f"{title} of winner, loser and each other response, per loss", label, SHOWN, bars)


def _number(value: float) -> float | str:
    return "0/0" if math.isnan(value) else float(value)

"""Frontier: reward against distance from the reference as β moves, each point a real training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from gradlab.lab.fit import fit
from gradlab.lab.world import World
from gradlab.losses import PairLoss
from gradlab.plotting.charts import Axis, Chart, Curve, Curves, Handle, Move, Rule, Track
from gradlab.plotting.palette import INK
from gradlab.widgets import world_controls
from gradlab.widgets.compared_losses import LOOKS, SLOTS, ComparingExplorer, title_of
from gradlab.widgets.controls import Choice, Controls, with_numbers
from gradlab.widgets.explorer import Reading, Story

BETAS = tuple(float(beta) for beta in 10.0 ** (np.arange(-5, 6) / 5))  # of the curves: from 0.1 to 10, with 1
IDEAL_BETAS = np.geomspace(0.02, 2000, 160)  # of the dotted curve
VALUES = {"utility": "expected utility E[u] (nats)", "unobserved_mass": "mass on unobserved responses"}
_KEPT = 2000  # ends of training, five numbers each
_FARTHEST = 3.05  # KL from a uniform reference over 20 responses is at most log 20 = 3.0
_CLOSE = 0.03  # nats of utility within which two curves count as meeting
_STOPS = 9  # of a dragged mark, from one trained β to the next

Line = dict[str, np.ndarray]  # beta, kl, utility and unobserved_mass along one curve, by rising β
_NOTHING: Line = {key: np.empty(0) for key in ("beta", "kl", "utility", "unobserved_mass")}
_CODE = """\
from dataclasses import replace

import pandas as pd

import gradlab as gl
{imports}
world = {world}
training = {training}
betas = {betas}
rows = []
for side, chosen in {losses}.items():
    own = {{*betas, chosen.beta}} if hasattr(chosen, "beta") else {{1.0}}
    for beta in sorted(own):
        loss = replace(chosen, beta=beta) if hasattr(chosen, "beta") else chosen
        end = gl.fit(world, loss, training, seed={seed}).history.iloc[-1]
        found = end[["kl", "utility", "unobserved_mass"]]
        rows.append({{"side": side, "loss": loss.name, "beta": beta, **found}})
curves = pd.DataFrame(rows)
print(curves)
"""


@dataclass(frozen=True)
class Frontiers:
    """The curve of each loss as far as it is trained, and the ideal curve."""

    value: str  # the quantity on the vertical axis
    losses: dict[str, PairLoss]  # by letter
    curves: dict[str, Line]  # by letter: the ends of training at ``BETAS`` and at the loss's β
    ideal: Line
    ends: tuple[float, float]  # E[u] of the reference, and of the best response of each prompt

    def of(self, slot: str, beta: float | None = None) -> Line:
        """Return a loss's curve, or its point at one β; empty where nothing is trained."""
        line = self.curves.get(slot, _NOTHING)
        return line if beta is None else {key: values[line["beta"] == beta] for key, values in line.items()}

    def mark(self, slot: str) -> Line:
        """Return the point at the loss's own β."""
        return self.of(slot, beta_of(self.losses[slot]))

    def at_kl(self, slot: str, level: float) -> float:
        """Return the expected utility where a curve, as β falls, first passes a KL; NaN where it does not yet."""
        kl, utility = (self.of(slot)[key][::-1] for key in ("kl", "utility"))
        rising = np.flatnonzero(np.diff(np.maximum.accumulate(kl), prepend=-1.0) > 0)
        return float(np.interp(level, kl[rising], utility[rising], np.nan, np.nan)) if len(rising) else np.nan

    def below_ideal(self, line: Line) -> np.ndarray:
        """Return how much more expected utility is possible at the same KL, in nats, ≥ 0: 0 on the dotted curve.

        The dotted curve is concave, with slope β at the ideal policy of β: it is the lower envelope of its tangents.
        """
        beta, kl, utility = (self.ideal[key][:, None] for key in ("beta", "kl", "utility"))
        possible = (utility + beta * (line["kl"] - kl)).min(0)
        return np.minimum(possible, self.ends[1]) - line["utility"]


class FrontierExplorer(ComparingExplorer):
    """Two to six losses: the reward of each at a given KL, and the place of its β on its curve."""

    name = "frontier"
    template = _CODE
    question = "At equal distance from the reference, which loss buys more reward, and how much of “better” is β?"
    prediction = (
        "the paper compares Balanced-DPO with DPO at β = 1, and says that it reaches a higher reward. At one β the two "
        "stop at different distances from the reference; another β of DPO stops where Balanced-DPO does."
    )
    first_move = "Drag a large mark along its curve: it is the β at which both losses train."
    ask = "At the same KL, at the mark that is nearer to the reference: whose curve is higher, A's or B's?"
    answers: ClassVar = {"a": "A's", "b": "B's", "equal": "they meet"}
    reading = (
        "Expected utility: every dot is the end of a training at one β, from 10 (near the reference, lower left) to "
        "0.1; a curve that lies higher buys more reward for the same KL. Large marks are at the β that you choose: "
        "drag one along its curve, or in the second panel, which shows how far each loss goes at each β. Rings are at "
        "the paper's β = 1, where the marks begin. The dotted curve is the best possible trade, π_ref exp(u/β); no "
        "policy lies above it in expected utility. For mass on unobserved responses it is not a bound, only the ideal "
        "policy's mass. Faint: what you pinned. Curves grow as trainings end."
    )
    takeaway = (
        "At one β the losses stop at different distances, so their rewards differ there even where the curves are the "
        "same: a constant λ = ½ is DPO at β/2, another mark on DPO's curve. With all pairs, exact labels and "
        "free logits no loss beats DPO's optimum at equal KL; that is a theorem. With few pairs bDPO's curve lies "
        "above DPO's over a middle range of KL, ends early, and never reaches DPO's highest reward; with shared "
        "parameters the curves nearly meet. That is one world: the claims report compares both at equal KL over seeds, "
        "masks and kinds of policy, and with weights given to the wrong pairs, which balance nothing."
    )
    stories = (
        Story(
            "Equal β or equal KL",
            "at β = 1 DPO (A) has the higher mark, and at bDPO's KL (B) the lower curve: which loss is ahead depends "
            "on what is held equal. C has a constant λ = ½, which is DPO at β/2: its mark is elsewhere, its curve is "
            "A's. Drag A's mark to B's KL, and the marks change places.",
            {"count": 3, "loss_c": "fixed-weight"},
        ),
        Story(
            "The theorem",
            "all pairs with exact labels, nothing masked: DPO's dots lie on the dotted curve, and nothing can lie "
            "above it. bDPO's are below, and from β = 1 on a smaller β brings it back towards the reference: its "
            "margin is bounded by β|log π_ref|. More steps move this turn a little but do not remove it.",
            {"pairs": world_controls.EXACT},
        ),
        Story(
            "What shared parameters buy",
            "40% of the responses are never shown, and neighbours share parameters. At β = 1 both marks are about 0.1 "
            "nats below the dotted curve. Switch to free logits: 0.5 (DPO) and 0.4 (bDPO). Next to that, the losses "
            "differ little.",
            {"mask_rate": 0.4, "policy": "shared"},
        ),
        Story(
            "Less mass is not closer to the ideal",
            "mass on the 40% of responses that no pair shows, free logits. At a KL of 1 bDPO's curve is at about a "
            "quarter of DPO's, and the ideal policy has more than either: some unseen responses are good.",
            {"mask_rate": 0.4, "value": "unobserved_mass"},
        ),
    )

    unfolds = ("More of world and training",)
    ends: ClassVar = (BETAS[0], BETAS[-1])  # of β, which the second chart shows

    def __init__(self, losses: Any = None, **start: Any) -> None:
        """Build the explorer and show it; arguments and errors as in ``ComparingExplorer``."""
        self._ends: dict[Any, dict[str, float]] = {}  # ends of trainings, so that a new β costs one training
        super().__init__(losses, **start)

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls of losses, world, training, and what to show."""
        shape, recipe = world_controls.shape_controls(), world_controls.recipe_controls()
        losses = self.loss_group()
        for slot in SLOTS:
            losses[f"beta_{slot}"].hold(*self.ends)
        return {
            "Losses": losses,
            "World and data": {
                "pairs": world_controls.pairs_control(100), "policy": recipe["policy"],
                "mask_rate": shape["mask_rate"], "scale": shape["scale"],
            },
            "Look at": {"value": Choice("vertical", "utility", {text: key for key, text in VALUES.items()})},
            "More of world and training": {
                "sigma": shape["sigma"], **world_controls.kind_controls(), "steps": recipe["steps"],
                "seed": world_controls.seed_control(),
            },
        }  # fmt: skip

    def adapt(self, state: SimpleNamespace) -> None:
        """Hide numbers that the chosen losses and reference do not have."""
        super().adapt(state)
        world_controls.adapt_world(self.controls)

    def compute(self, state: SimpleNamespace) -> Frontiers:
        """Train each loss at the β of the curves and at its own, where that is not yet done."""
        if len(self._ends) > _KEPT:
            self._ends.clear()
        where = world_controls.arguments_of(state)
        world = self.remember("world", where, lambda: world_controls.world_of(state))
        ideal = self.remember("ideal", where, lambda: _ideal(world))
        setting = (*where.values(), state.policy, state.pairs, state.steps)
        losses = {slot: self.loss(state, slot) for slot in self.slots(state)}
        curves = {}
        for slot, chosen in losses.items():
            ends = {}
            for beta in betas_of(chosen):
                loss = with_beta(chosen, beta)
                key = (setting, *_key_of(loss))
                if key not in self._ends:
                    self._ends[key] = _end(world, loss, state)
                ends[beta] = self._ends[key]
            curves[slot] = _line(ends)
        return Frontiers(state.value, losses, curves, ideal, _ends_of(world))

    def charts(self, result: Frontiers, pinned: Frontiers | None) -> list[Chart]:
        """Return the frontier, and how far each β goes."""
        return [_frontier(result, pinned), _distance(result, pinned)]

    def readings(self, result: Frontiers) -> list[Reading]:
        """Return, at each loss's β, where its policy ends; and how many trainings the curves hold."""
        points = {slot.upper(): result.mark(slot) for slot in result.losses}
        title, unit = ("E[u]", "nats") if result.value == "utility" else ("unobserved", "")
        return [
            Reading("β", {slot.upper(): beta_of(loss) for slot, loss in result.losses.items()}),
            Reading("KL from the reference", _only(points, "kl"), "nats", "KL"),
            Reading(VALUES[result.value].removesuffix(" (nats)"), _only(points, result.value), unit, title),
            Reading("below the ideal at that KL",
                    {side: float(result.below_ideal(point)[0]) for side, point in points.items()}, "nats",
                    "below ideal"),
            Reading("trainings so far", {slot.upper(): len(line["beta"]) for slot, line in result.curves.items()}, "",
                    "trained"),
        ]  # fmt: skip

    def outcome(self, result: Frontiers) -> tuple[str, str]:
        """Return whose curve is higher at the KL of the nearer mark of A's and B's; nothing until both reach it."""
        level = min(float(result.mark(slot)["kl"][0]) for slot in "ab")
        a, b = (result.at_kl(slot, level) for slot in "ab")
        if not np.isfinite(a - b):
            return "", ""
        truth = "equal" if abs(a - b) < _CLOSE else "a" if a > b else "b"
        return truth, f"At a KL of {level:.2f} nats A's curve is at {a:.2f} nats of utility, and B's at {b:.2f}."

    def frame(self) -> pd.DataFrame:
        """Return every dot of the curves, and the ideal curve: one row per side and β."""
        result: Frontiers = self.result
        rows = [
            pd.DataFrame(result.of(slot)).assign(side=slot.upper(), loss=loss.name,
                                                 below_ideal=result.below_ideal(result.of(slot)))
            for slot, loss in result.losses.items()
        ]  # fmt: skip
        ideal = pd.DataFrame(result.ideal).assign(side="ideal", loss="", below_ideal=0.0)
        return pd.concat([*rows, ideal], ignore_index=True)

    def code_parts(self, state: SimpleNamespace) -> dict[str, str]:
        """Return world, recipe, losses and the β of the curves."""
        imports, losses = self.losses_code(state)
        world, training = world_controls.world_code(state), world_controls.recipe_code(state, record=1)
        return {"imports": imports, "losses": losses, "world": world, "training": training, "betas": repr(list(BETAS))}


def beta_of(loss: PairLoss) -> float:
    """Return a loss's β; 1 for a loss that has none."""
    return getattr(loss, "beta", 1.0)


def betas_of(loss: PairLoss) -> list[float]:
    """Return the β at which a loss is trained, rising: those of the curves and its own; [1] for a loss without β."""
    return sorted({*BETAS, beta_of(loss)}) if hasattr(loss, "beta") else [1.0]


def with_beta(loss: PairLoss, beta: float) -> PairLoss:
    """Return the loss at another β; the loss itself where it has none."""
    return with_numbers(loss, {"beta": beta} if hasattr(loss, "beta") else {})


def _key_of(loss: PairLoss) -> tuple[type, str]:
    """Return what tells losses apart, also those that cannot be hashed."""
    return type(loss), repr(loss)


def _frontier(result: Frontiers, pinned: Frontiers | None) -> Curves:
    ideal = _by_kl(Curve("ideal, π_ref exp(u/β)", result.ideal["kl"], result.ideal[result.value], INK, "dotted"))
    kl, value = (np.concatenate([result.of(slot, 1.0)[key] for slot in result.losses]) for key in ("kl", result.value))
    at_one = Curve("at the paper's β = 1", kl, value, INK, marker="ring", line=False)
    handles = [
        Handle(f"β of {slot.upper()}", float(point["kl"][0]), float(point[result.value][0]), LOOKS[slot][0],
               track=_track(f"beta_{slot}", result.of(slot), result.value))
        for slot, loss in result.losses.items() if hasattr(loss, "beta") and len((point := result.mark(slot))["kl"])
    ]  # fmt: skip
    return Curves(
        "what each loss buys", "Expected utility, or mass on unobserved responses, against KL from the reference: one "
        "curve per loss, marks at the chosen β and at 1, and the ideal curve",
        Axis("KL from the reference (nats)", 0, _farthest(result)), Axis(VALUES[result.value], *_limits(result)),
        [ideal, *map(_by_kl, _lines(result, pinned, "kl", result.value)), at_one], handles=handles, height=300,
    )  # fmt: skip


def _distance(result: Frontiers, pinned: Frontiers | None) -> Curves:
    handles = [
        Handle(f"β of {slot.upper()}, how far", beta_of(loss), float(point["kl"][0]), LOOKS[slot][0],
               [Move(f"beta_{slot}", "x")])
        for slot, loss in result.losses.items() if hasattr(loss, "beta") and len((point := result.mark(slot))["kl"])
    ]  # fmt: skip
    return Curves(
        "how far each β goes", "KL from the reference against β, one curve per loss, marks at the chosen β",
        Axis("β", BETAS[0], BETAS[-1], "log"), Axis("KL from the reference (nats)", 0, _farthest(result)),
        _lines(result, pinned, "beta", "kl"), rules=[Rule(x=1.0, label="the paper's β")], handles=handles, height=300,
    )  # fmt: skip


def _lines(result: Frontiers, pinned: Frontiers | None, across: str, up: str) -> list[Curve]:
    """Return the curves of all losses, by rising β, with the pinned ones faintly behind."""
    curves = []
    for slot, loss in result.losses.items():
        color, dash = LOOKS[slot]
        if pinned and slot in pinned.losses:
            before = pinned.of(slot)
            curves.append(Curve(f"{slot.upper()}, pinned", before[across], before[up], color, dash, faint=True))
        line = result.of(slot)
        curves.append(Curve(title_of(slot, loss), line[across], line[up], color, dash, marker="dot"))
    return curves


def _by_kl(curve: Curve) -> Curve:
    """Return a curve by falling β, so that its KL rises from left to right until it turns."""
    return replace(curve, x=curve.x[::-1], y=curve.y[::-1])


def _track(control: str, line: Line, value: str) -> Track:
    """Return the path of a mark: the drawn line, with stops between the trained β."""
    at = np.arange(len(line["beta"]))
    stops = np.linspace(0, max(len(at) - 1, 0), _STOPS * max(len(at) - 1, 0) + 1)
    betas = np.exp(np.interp(stops, at, np.log(line["beta"])))
    rounded = np.array([float(f"{beta:.3g}") for beta in betas])
    return Track(control, rounded, np.interp(stops, at, line["kl"]), np.interp(stops, at, line[value]))


def _farthest(result: Frontiers) -> float:
    """Return the end of an axis of KL, in whole steps."""
    highest = max(line["kl"].max() for line in result.curves.values())
    return _FARTHEST if highest <= _FARTHEST else float(np.ceil(highest))


def _limits(result: Frontiers) -> tuple[float, float]:
    """Return limits of the vertical axis in whole steps, so that they seldom change."""
    values = np.concatenate([line[result.value] for line in result.curves.values()])
    if result.value != "utility":
        return 0.0, world_controls.top_of(max(values.max(), result.ideal[result.value].max()))
    low, high = min(values.min(), result.ends[0]), result.ends[1]
    step = 10.0 ** np.floor(np.log10(max(high - low, 1e-9))) / 2
    return float(np.floor(low / step) * step), float(np.ceil(high / step) * step)


def _only(points: dict[str, Line], key: str) -> dict[str, float]:
    return {side: float(point[key][0]) for side, point in points.items()}


def _end(world: World, loss: PairLoss, state: SimpleNamespace) -> dict[str, float]:
    """Return the metrics at the end of one training."""
    trained = fit(world, loss, world_controls.recipe_of(state, record=1), seed=state.seed)
    return {key: float(values[0]) for key, values in world_controls.curves_of(world, trained.logp[None]).items()}


def _ideal(world: World) -> Line:
    logp = torch.as_tensor(np.stack([world.ideal_logp(beta) for beta in IDEAL_BETAS]))
    return {"beta": IDEAL_BETAS, **world_controls.curves_of(world, logp)}


def _line(ends: dict[float, dict[str, float]]) -> Line:
    """Return the curve through the ends of training, by β."""
    measured = {key: np.array([end[key] for end in ends.values()]) for key in _NOTHING if key != "beta"}
    return {"beta": np.array(list(ends)), **measured}


def _ends_of(world: World) -> tuple[float, float]:
    """Return E[u] of the reference, and of the best response of each prompt."""
    return float((np.exp(world.ref_logp) * world.utility).sum(1).mean()), float(world.utility.max(1).mean())

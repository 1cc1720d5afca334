"""Frontier: reward against distance from the reference as β moves, each point a real training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.lines import Line2D

from gradlab.lab.fit import fit
from gradlab.lab.world import World
from gradlab.losses import PAIR_LOSSES, pair_loss
from gradlab.widgets import world_controls
from gradlab.widgets.controls import Controls, choice, log_slider, whole_slider
from gradlab.widgets.explorer import Explorer, Story
from gradlab.widgets.view import SIDES as TWO
from gradlab.widgets.view import THIRD, View, look

SIDES = {
    side: {**shown, "marker": marker} for (side, shown), marker in zip({**TWO, **THIRD}.items(), "os^", strict=True)
}
BETAS = tuple(float(beta) for beta in 10.0 ** (np.arange(-5, 6) / 5))  # of the curves: from 0.1 to 10, with 1
IDEAL_BETAS = np.geomspace(0.02, 2000, 160)  # of the dotted curve
_VALUES = {"utility": "expected utility (nats)", "unobserved_mass": "mass on unobserved responses"}
_NO_LOSS = "none"
_KEPT = 2000  # ends of training, five numbers each
_FARTHEST = 3.05  # KL from a uniform reference over 20 responses is at most log 20 = 3.0

Line = dict[str, np.ndarray]  # beta, kl, utility and unobserved_mass along one curve, by rising β
_NOTHING: Line = {key: np.empty(0) for key in ("beta", "kl", "utility", "unobserved_mass")}


@dataclass(frozen=True)
class Frontiers:
    """The curve of each loss as far as it is trained, and the ideal curve."""

    beta: float  # the chosen β
    value: str  # the quantity on the vertical axis
    losses: dict[str, str]  # by side
    curves: dict[str, Line]  # by side: the ends of training at ``BETAS`` and at the chosen β
    ideal: Line
    ends: tuple[float, float]  # E[u] of the reference, and of the best response of each prompt

    def of(self, side: str, beta: float | None = None) -> Line:
        """Return a side's curve, or its point at one β; empty where nothing is trained."""
        line = self.curves.get(side, _NOTHING)
        return line if beta is None else {key: values[line["beta"] == beta] for key, values in line.items()}

    def below_ideal(self, line: Line) -> np.ndarray:
        """Return how much more expected utility is possible at the same KL, in nats, ≥ 0: 0 on the dotted curve.

        The dotted curve is concave, with slope β at the ideal policy of β: it is the lower envelope of its tangents.
        """
        beta, kl, utility = (self.ideal[key][:, None] for key in ("beta", "kl", "utility"))
        possible = (utility + beta * (line["kl"] - kl)).min(0)
        return np.minimum(possible, self.ends[1]) - line["utility"]


class FrontierExplorer(Explorer):
    """Up to three losses: the reward of each at a given KL, and the place of β = 1 on its curve."""

    name = "frontier"
    question = "At equal distance from the reference, which loss buys more reward, and how much of “better” is β?"
    prediction = (
        "the paper compares Balanced-DPO with DPO at β = 1, and says that it reaches a higher reward. Before you move "
        "anything: if DPO may use another β, so that both are at the same KL, whose curve will lie higher?"
    )
    reading = (
        "Expected utility: every dot is the end of a training at one β, from 10 (near the reference, lower left) to "
        "0.1; a curve that lies higher buys more reward for the same KL. Filled marks are at your β, rings at the "
        "paper's β = 1. The dotted curve is the best possible trade, π_ref exp(u/β); no policy lies above it in "
        "expected utility. For mass on unobserved responses it is not a bound, only the ideal policy's mass. The "
        "second panel shows how far each loss goes at each β. Faint: the setting before you touched this control. "
        "Curves grow as trainings end. Losses use their default numbers besides β: clip 0.5, label smoothing 0.1, "
        "constant λ = ½."
    )
    takeaway = (
        "At one β the losses stop at different distances, so their rewards differ there even where the curves are the "
        "same: a constant λ = ½ is DPO at β/2, another mark on DPO's curve. With all pairs and exact labels no "
        "loss beats DPO at equal KL; that is a theorem. With free logits and few pairs bDPO's curve lies above DPO's "
        "over a middle range of KL, ends early, and never reaches DPO's highest reward; with shared parameters "
        "the curves nearly meet. That is one world: the claims report compares both at equal KL over seeds, masks and "
        "kinds of policy, and with weights given to the wrong pairs, which balance nothing."
    )
    stories = (
        Story(
            "Equal β or equal KL",
            "at β = 1 DPO (A) has the higher mark, and at bDPO's KL (B) the lower curve: which loss is ahead depends "
            "on what is held equal. C has a constant λ = ½, which is DPO at β/2: its mark is elsewhere, its curve is "
            "A's.",
            {"loss_c": "fixed-weight"},
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

    def __init__(self, **start: Any) -> None:
        """Build the explorer and show it; ``start`` replaces start values of controls."""
        self._ends: dict[Any, dict[str, float]] = {}  # ends of trainings, so that a new β costs one training per loss
        super().__init__(**start)

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls of world, training, losses, and what to show."""
        losses = list(PAIR_LOSSES)
        return {
            "World and data": world_controls.world_controls(pairs=100),
            "Training": {
                "policy": world_controls.policy_control(),
                "steps": whole_slider("steps", 500, 50, 2000, "of Adam at 0.05", step=50),
            },
            "Losses": {
                "loss_a": choice("A", "dpo", losses, "from the registry of losses"),
                "loss_b": choice("B", "bdpo", [_NO_LOSS, *losses], "from the registry of losses"),
                "loss_c": choice("C", _NO_LOSS, [_NO_LOSS, *losses], "from the registry of losses"),
            },
            "Look at": {
                "beta": log_slider("β", 1.0, -1, 1, "of the filled marks; the paper's is 1"),
                "value": choice("vertical", "utility", {text: key for key, text in _VALUES.items()}),
            },
        }

    def adapt(self, state: SimpleNamespace) -> None:
        """Hide the shift where the reference has none."""
        world_controls.adapt_world(self.controls)

    def compute(self, state: SimpleNamespace) -> Iterator[Frontiers]:
        """Train at the chosen β first, then at the missing β of the curves, from the nearest outwards."""
        if len(self._ends) > _KEPT:
            self._ends.clear()
        where = world_controls.arguments_of(state)
        world = self.remember("world", where, lambda: world_controls.world_of(state))
        ideal = self.remember("ideal", where, lambda: _ideal(world))
        setting = (*where.values(), state.policy, state.pairs, state.steps)
        losses = _losses(state)
        shown = sorted({*BETAS, state.beta})
        outwards = sorted(shown, key=lambda beta: abs(np.log(beta / state.beta)))
        for beta in outwards:
            lacking = {name for name in losses.values() if (setting, name, beta) not in self._ends}
            if beta != state.beta and not lacking:
                continue
            for name in sorted(lacking):
                self._ends[setting, name, beta] = _end(world, name, beta, state)
            curves = {side: [self._ends.get((setting, name, b)) for b in shown] for side, name in losses.items()}
            lines = {side: _line([end for end in ends if end]) for side, ends in curves.items()}
            yield Frontiers(state.beta, state.value, losses, lines, ideal, _ends_of(world))

    def make_views(self) -> dict[str, View]:
        """Return the views of the frontier and of how far each β goes."""
        self._artists: dict[tuple[str, str, str], Line2D] = {}
        with mpl.rc_context(look()):
            return {"frontier": self._make_frontier(), "distance": self._make_distance()}

    def show(self, result: Frontiers, former: Frontiers | None) -> dict[str, Any]:
        """Set the curves, their marks, and the former curves."""
        self._set_limits(result)
        self._ideal.set_data(result.ideal["kl"], result.ideal[result.value])
        self._chosen.set_xdata([result.beta, result.beta])
        for side, name in self._names.items():
            name.set_text(f"{side[1].upper()}: {result.losses.get(side, 'none')}")
        betas = {"mark": result.beta, "ring": 1.0, "former mark": former.beta if former else None}
        for (view, side, kind), artist in self._artists.items():
            source = former if kind.startswith("former") else result
            line = source.of(side, betas.get(kind)) if source else _NOTHING
            across, up = ("kl", result.value) if view == "frontier" else ("beta", "kl")
            artist.set_data(line[across], line[up])
            artist.set_visible(len(line["beta"]) > 0)  # empty curves need not be drawn
        numbers: dict[str, Any] = {"β": result.beta}
        titles = {"KL": "kl", "E[u]" if result.value == "utility" else "unobserved": result.value}
        points = {side[1].upper(): result.of(side, result.beta) for side in result.losses}
        for title, key in titles.items():
            numbers |= {f"{title} {side}": float(point[key][0]) for side, point in points.items()}
        numbers |= {f"below ideal {side}": float(result.below_ideal(point)[0]) for side, point in points.items()}
        return {**numbers, "trained": sum(len(line["beta"]) for line in result.curves.values())}

    def frame(self) -> pd.DataFrame:
        """Return every dot of the curves, and the ideal curve: one row per side and β."""
        result: Frontiers = self.result
        rows = [
            pd.DataFrame(result.of(side)).assign(side=side[1].upper(), loss=loss,
                                                 below_ideal=result.below_ideal(result.of(side)))
            for side, loss in result.losses.items()
        ]  # fmt: skip
        ideal = pd.DataFrame(result.ideal).assign(side="ideal", loss="", below_ideal=0.0)
        return pd.concat([*rows, ideal], ignore_index=True)

    def code(self, state: SimpleNamespace) -> str:
        """Return code for all trainings of the curves."""
        return "\n".join([
            "import pandas as pd", "", "import gradlab as gl", "",
            f"world = {world_controls.world_code(state)}",
            f"training = {world_controls.recipe_code(state, record=1)}",
            f"betas = {sorted({*BETAS, state.beta})!r}", "rows = []",
            f"for name in {list(_losses(state).values())!r}:", "    for beta in betas:",
            "        loss = gl.pair_loss(name, beta=beta)",
            f"        end = gl.fit(world, loss, training, seed={state.seed!r}).history.iloc[-1]",
            '        rows.append({"loss": name, "beta": beta, **end[["kl", "utility", "unobserved_mass"]]})',
            "curves = pd.DataFrame(rows)", "print(curves)", "",
        ])  # fmt: skip

    def _make_frontier(self) -> View:
        view = View(620, 400, "Expected utility or mass on unobserved responses against KL from the reference: "
                              "one curve per loss, marks at the chosen β and at 1, and the ideal curve")  # fmt: skip
        self._axis = view.figure.subplots()
        self._axis.set(xlim=(-0.03, _FARTHEST), ylim=(0, 4), xlabel="KL from the reference (nats)", title=" ")
        self._axis.set_ylabel(" ")  # room for long numbers beside the axis
        self._ideal = view.live(self._axis.plot([], [], "k:", linewidth=1.4)[0])
        self._add_curves("frontier", view)
        self._names = {}
        for column, (side, shown) in enumerate(SIDES.items()):
            _sample(view, column / 3, 0.97, **shown)
            name = view.figure.text(column / 3 + 0.095, 0.97, "", va="center")
            self._names[side] = view.live(name, seldom=True)
        grey = {"color": "#666666", "linestyle": "", "markersize": 9}
        for column, (text, shown) in enumerate({
            "ideal, π_ref exp(u/β)": {"color": "k", "linestyle": ":"},
            "at your β": {**grey, "marker": "o"},
            "at the paper's β = 1": {**grey, "marker": "o", "fillstyle": "none", "markersize": 12},
        }.items()):  # fmt: skip
            _sample(view, column / 3, 0.915, **shown)
            view.figure.text(column / 3 + 0.095, 0.915, text, va="center")
        view.leave_room(above=0.12)
        return view

    def _make_distance(self) -> View:
        view = View(460, 400, "KL from the reference against β, one curve per loss, marks at the chosen β and at 1")
        axis = view.figure.subplots()
        axis.set_xscale("log")
        axis.set(xlim=(0.085, 11.8), ylim=(0, _FARTHEST), xlabel="β", ylabel="KL from the reference (nats)",
                 title="how far each β goes", xticks=(0.1, 1, 10), xticklabels=("0.1", "1", "10"))  # fmt: skip
        self._chosen = view.live(axis.axvline(1.0, color="#666666", linewidth=1))
        self._add_curves("distance", view)
        return view

    def _add_curves(self, name: str, view: View) -> None:
        """Add one curve per side with its marks, and the faint former curves, to the view's only axis."""
        for side, shown in SIDES.items():
            bare = {"color": shown["color"], "linestyle": "", "marker": shown["marker"], "clip_on": False}
            for kind, how in {
                "former": {**shown, "marker": "", "alpha": 0.3},
                "former mark": {**bare, "markersize": 9, "alpha": 0.3},
                "line": {**shown, "markersize": 3.5, "clip_on": False},
                "ring": {**bare, "markersize": 13, "fillstyle": "none"},
                "mark": {**bare, "markersize": 9},
            }.items():
                self._artists[name, side, kind] = view.live(view.figure.axes[0].plot([], [], **how)[0])

    def _set_limits(self, result: Frontiers) -> None:
        """Return limits of the vertical axis in whole steps, so that they seldom change."""
        values = np.concatenate([line[result.value] for line in result.curves.values()])
        if result.value == "utility":
            low, high = min(values.min(), result.ends[0]), result.ends[1]
            step = 10.0 ** np.floor(np.log10(max(high - low, 1e-9))) / 2
            limits = (float(np.floor(low / step) * step), float(np.ceil(high / step) * step))
        else:
            highest = max(values.max(), result.ideal[result.value].max())
            limits = (0.0, world_controls.top_of(highest))
        self.views["frontier"].limits(self._axis, "y", *limits)
        if self._axis.get_title() != _VALUES[result.value]:
            self._axis.title.set_text(_VALUES[result.value])
            self.views["frontier"].restyle()


def _end(world: World, name: str, beta: float, state: SimpleNamespace) -> dict[str, float]:
    """Return the metrics at the end of one training."""
    recipe = world_controls.recipe_of(state, record=1)
    trained = fit(world, pair_loss(name, beta=beta), recipe, seed=state.seed)
    return {key: float(values[0]) for key, values in _measured(world, trained.logp[None], np.array([beta])).items()}


def _ideal(world: World) -> Line:
    logp = torch.as_tensor(np.stack([world.ideal_logp(beta) for beta in IDEAL_BETAS]))
    return _measured(world, logp, IDEAL_BETAS)


def _measured(world: World, logp: torch.Tensor, betas: np.ndarray) -> Line:
    """Return the metrics that are drawn, of policies (B, X, Y)."""
    return {"beta": betas, **world_controls.curves_of(world, logp)}


def _losses(state: SimpleNamespace) -> dict[str, str]:
    """Return the chosen losses, by side."""
    return {side: name for side in SIDES if (name := getattr(state, f"loss{side}")) != _NO_LOSS}


def _line(ends: list[dict[str, float]]) -> Line:
    return {key: np.array([end[key] for end in ends]) for key in _NOTHING}


def _ends_of(world: World) -> tuple[float, float]:
    """Return E[u] of the reference, and of the best response of each prompt."""
    return float((np.exp(world.ref_logp) * world.utility).sum(1).mean()), float(world.utility.max(1).mean())


def _sample(view: View, left: float, height: float, **shown: Any) -> None:
    """Draw a piece of a line beside a text above the axes."""
    places = [left + 0.02, left + 0.05, left + 0.08]
    view.figure.add_artist(Line2D(places, [height] * 3, transform=view.figure.transFigure, markevery=[1], **shown))

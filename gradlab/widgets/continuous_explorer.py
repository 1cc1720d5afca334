"""Continuous responses: one data set in many units, what a loss sees of it, and the policy that it trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from gradlab.lab import line
from gradlab.lab.line import Coordinate, LineFit, LineWorld
from gradlab.losses import KnownLoss, PairLogps, PairLoss, pair_loss
from gradlab.plotting.charts import Axis, Band, Chart, Curve, Curves, Dash, Rule
from gradlab.plotting.looks import look_of
from gradlab.plotting.palette import FAINT, INK
from gradlab.widgets.controls import Choice, Controls, Whole, log_slider, slider
from gradlab.widgets.explorer import Explorer, Reading, Story

UNITS = (1e-3, 1e-1, 1.0, 10.0, 1e3, 1e6)  # of the last chart
LOSSES = {"bDPO": "bdpo", "DPO": "dpo", "constant λ = ½": "fixed-weight", "relative bDPO": "relative-bdpo"}
_KINDS = {"unit, c·y": "unit", "sinh y": "sinh", "the reference's CDF": "cdf", "cells": "cells"}
_ENDS = (-5.0, 5.0)  # of the interval that is cut into cells
_SHOWN = 4.0  # responses from minus this to this are drawn
_SAME = 1e-9  # mass by which policies may differ that are the same
_SHADES = ("#440154", "#46327E", "#365C8D", "#277F8E", "#1FA187", "#4AC16D", "#9A7400", "#C2418B")
_DASHES: tuple[Dash, ...] = ("", "dashed", "dotted", "dashdot")
_HEIGHT = 210
_TRAINING = ("loss", "beta", "policy", "centre", "pairs", "steps", "seed")  # controls of which other coordinates know
_CODE = """\
import gradlab as gl

world = gl.line.LineWorld({centre})
loss = gl.pair_loss({loss}, beta={beta})
seen = {coordinate}
recipe = dict(pairs={pairs}, steps={steps}, record=20, seed={seed}, anyway=True)
for coordinate in (gl.line.scaled(1.0), seen):
    fit = gl.line.fit_line(world, loss, {policy}, coordinate, **recipe)
    print(coordinate.name, fit.ends[["utility", "kl", "outside_so_far", "turned"]].to_dict("records"))
# Without anyway=True, a training whose weights leave [0, 1] is refused with the reason.
"""


@dataclass(frozen=True)
class OnALine:
    """A training in the chosen coordinate, and, when they are ready, in all others."""

    state: SimpleNamespace
    world: LineWorld
    loss: KnownLoss
    coordinate: Coordinate
    fit: LineFit
    pairs: tuple[torch.Tensor, torch.Tensor]
    start: PairLogps  # in the coordinate
    end: PairLogps
    home: LineFit
    others: dict[str, np.ndarray]  # densities in y by coordinate, at the interval's nodes

    @property
    def distance(self) -> float:
        """The mass by which the policy differs from that trained in y, from 0 to 1."""
        apart = (self.fit.logp[0].exp() - self.home.logp[0].exp()).abs()
        return float(self.world.interval.integral(apart)) / 2

    @property
    def last(self) -> pd.Series:
        """The measures at the end of training."""
        return self.fit.ends.iloc[0]

    def weights(self, pairs: PairLogps) -> np.ndarray:
        """Return λ_w of each pair."""
        return line.loss_slopes(self.loss, pairs)[2].numpy()


class ContinuousExplorer(Explorer):
    """Responses on a line: the unit, a loss, and the policy that it trains in this unit and in all others."""

    name = "continuous"
    template = _CODE
    question = "The same responses, measured in another unit: does a loss train the same policy?"
    prediction = (
        "a density has a unit, and a probability has none. Balanced-DPO's weights are made of log π; DPO's margin is "
        "made of log π − log π_ref, in which the unit cancels."
    )
    first_move = "Drag the unit c: the responses stay where they are, only the numbers that the loss sees change."
    ask = "Trained on the same pairs in other coordinates, does this loss end at the same policy?"
    readings_answer = True
    answers: ClassVar = {"same": "at the same policy", "other": "at another policy in each"}
    reading = (
        "First: the log densities that the loss sees, of the reference and of the trained policy; above the line at 0 "
        "no log-probability could lie. Second: the winner's weight λ_w of each pair, at the start (rings) and at the "
        "end (dots), by the winner's place; the band is [0, 1], and weights beyond the axis lie at its ends. Third: "
        "the margin of each pair against the true gap in utility. Last: the policy that the same pairs train in eight "
        "coordinates, all drawn over y. Dotted: π_ref e^(u/β). Faint: what you pinned. Distance is the mass by which "
        "the policy differs from the one trained in y."
    )
    takeaway = (
        "The only weight made of the two policy densities that sees no coordinate is λ = ½, which is DPO at β/2: two "
        "responses can be stretched by any two factors, so a formula that must not change can only be a constant, and "
        "labels that trade places make it ½. With the reference's densities there are others: any c > 0 with λ_w = "
        "c(u_l)/(c(u_w) + c(u_l)), u = π/π_ref. Relative bDPO takes c = log(1 + 1/u). In a large unit, or on many "
        "cells, all log π are far below 0, every λ is near ½, and bDPO comes near DPO at β/2, as 1/log c. Whether "
        "relative bDPO is worth anything at equal KL is judged in the claims report."
    )
    stories = (
        Story(
            "Weights outside [0, 1]",
            "in a tenth of the unit some log densities are above 0 and others below: log π_w + log π_l passes through "
            "0, and weights jump from one side of [0, 1] to the other. Without its option anyway, the library refuses.",
            {"unit": 0.1},
        ),
        Story(
            "Turned round",
            "in a thousandth of the unit nearly all log densities are above 0: weights lie within [0, 1] again, but "
            "now the less probable side has the larger one.",
            {"unit": 1e-3},
        ),
        Story(
            "A large unit is DPO at β/2",
            "at c = 1e6 weights are near ½, and the policy is near that of a constant λ = ½.",
            {"unit": 1e6},
        ),
        Story(
            "No unit at all",
            "in the coordinate in which the reference is uniform, log π is log π/π_ref. At the start it is 0 on both "
            "sides, and bDPO's weights are 0/0.",
            {"coordinate": "cdf"},
        ),
        Story(
            "Relative to the reference",
            "relative bDPO has the same weights in every coordinate, ½ at the start: all eight policies lie on one "
            "curve, as they do for DPO.",
            {"loss": "relative-bdpo", "unit": 0.1},
        ),
    )
    unfolds = ("Responses and training",)

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls of coordinate, loss, world and training."""
        return {
            "The coordinate": {
                "coordinate": Choice("coordinate", "unit", _KINDS, "how responses are written"),
                "unit": log_slider("unit c", 1.0, -3, 6, "responses are written as c·y"),
                "cells": Whole("cells n", 100, 20, 10**8, "equal cells on [−5, 5]", "log"),
            },
            "The loss": {
                "loss": Choice("loss", "bdpo", LOSSES, "trained on log densities"),
                "beta": log_slider("β", 1.0, -1, 1, "inverse temperature; the paper's is 1"),
            },
            "Responses and training": {
                "policy": Choice("policy", "gaussian", {"Gaussian": "gaussian", "network of energies": "energy"},
                                 "the family of densities"),
                "centre": slider("bump at", 1.0, -2.0, 2.0, "the place of the best response"),
                "pairs": Whole("pairs", 128, 16, 512, "drawn from the reference, one label each"),
                "steps": Whole("steps", 150, 10, 400, "of Adam at 0.02"),
                "seed": Whole("seed", 0, 0, 999, "of the pairs and their labels"),
            },
        }  # fmt: skip

    def adapt(self, state: SimpleNamespace) -> None:
        """Hide the unit where the coordinate has none."""
        self.controls["unit"].hidden = state.coordinate != "unit"
        self.controls["cells"].hidden = state.coordinate != "cells"

    def compute(self, state: SimpleNamespace) -> Iterator[OnALine]:
        """Yield the training in the chosen coordinate, then with those in all others."""
        world = line.LineWorld(state.centre)
        loss, chosen = pair_loss(state.loss, beta=state.beta), coordinate_of(state, world)
        key = tuple(getattr(state, name) for name in _TRAINING)
        fit = _trained(world, loss, state, [chosen])
        home = self.remember("home", key, lambda: _trained(world, loss, state, [line.scaled(1.0)]))
        pairs = world.pairs(state.pairs, state.seed)
        start, end = (_seen(world, fit, theta, chosen, pairs) for theta in (_start(world, fit, state), fit.theta))
        known = self._kept.get("others")
        ready = known[1] if known is not None and known[0] == key else {}
        result = OnALine(state, world, loss, chosen, fit, pairs, start, end, home, ready)
        yield result
        if not ready:
            others = self.remember("others", key, lambda: _others(world, loss, state))
            yield OnALine(state, world, loss, chosen, fit, pairs, start, end, home, others)

    def charts(self, result: OnALine, pinned: OnALine | None) -> list[Chart]:
        """Return log densities, weights, margins, and the policies of all coordinates."""
        return [_densities(result, pinned), _weights(result), _margins(result), _policies(result, pinned)]

    def before_guess(self, charts: Sequence[Chart]) -> Sequence[Chart]:
        """Return the charts without the policies of other coordinates."""
        return charts[:3]

    def readings(self, result: OnALine) -> list[Reading]:
        """Return how many weights leave [0, 1], where the policy ends, and how far that is from y's."""
        last, first = result.last, result.fit.history.iloc[0]
        return [
            Reading("λ_w outside [0, 1]", {"start": float(first["outside"]), "end": float(last["outside"])},
                    "share of pairs", "outside"),
            Reading("both log densities above 0", {"start": float(first["turned"]), "end": float(last["turned"])},
                    "share of pairs", "turned"),
            Reading("without anyway=True", "refused" if last["outside_so_far"] > 0 else "trained", "", "library"),
            Reading("E[u]", float(last["utility"]), "nats"),
            Reading("KL from the reference", float(last["kl"]), "nats", "KL"),
            Reading("distance from the policy trained in y", result.distance, "of its mass", "distance"),
        ]  # fmt: skip

    def outcome(self, result: OnALine) -> tuple[str, str]:
        """Return whether the loss trains one policy in all coordinates; nothing until all are trained."""
        if not result.others:
            return "", ""
        at = result.home.logp[0].exp().numpy()
        weights = result.world.interval.weights.numpy()
        apart = {name: float(np.abs(density - at) @ weights) / 2 for name, density in result.others.items()}
        name, most = max(apart.items(), key=lambda one: one[1])
        if most < _SAME:
            return "same", "All eight policies are the same, to the last digits of the numbers."
        return "other", f"In {name} the policy differs from that of y by {most:.2f} of its mass."

    def frame(self) -> pd.DataFrame:
        """Return the pairs in the coordinate, with weights and margins at start and end."""
        result = self.result
        win, lose = result.pairs
        margins = {name: _margin(result, side) for name, side in (("start", result.start), ("end", result.end))}
        return pd.DataFrame({
            "y_w": win.numpy(), "y_l": lose.numpy(), "log_p_w": result.end.win.numpy(), "log_p_l":
            result.end.lose.numpy(), "lambda_w_start": result.weights(result.start),
            "lambda_w_end": result.weights(result.end), "margin_start": margins["start"], "margin_end": margins["end"],
        })  # fmt: skip

    def code_parts(self, state: SimpleNamespace) -> dict[str, str]:
        """Return the coordinate as code."""
        return {"coordinate": {
            "unit": f"gl.line.scaled({state.unit!r})", "sinh": "gl.line.hyperbolic()",
            "cdf": "gl.line.quantiles(world.reference)", "cells": f"gl.line.cells({state.cells!r}, -5, 5)",
        }[state.coordinate]}  # fmt: skip


def coordinate_of(state: SimpleNamespace, world: LineWorld) -> Coordinate:
    """Return the coordinate that the controls are set to."""
    if state.coordinate == "sinh":
        return line.hyperbolic()
    if state.coordinate == "cdf":
        return line.quantiles(world.reference)
    return line.cells(state.cells, *_ENDS) if state.coordinate == "cells" else line.scaled(state.unit)


def _trained(world: LineWorld, loss: PairLoss, state: SimpleNamespace, chosen: list[Coordinate]) -> LineFit:
    return line.fit_line(
        world, loss, state.policy, chosen, seed=[state.seed] * len(chosen), anyway=True, pairs=state.pairs,
        steps=state.steps, record=20,
    )  # fmt: skip


def _others(world: LineWorld, loss: PairLoss, state: SimpleNamespace) -> dict[str, np.ndarray]:
    """Return the densities in y of the policies trained in eight coordinates, by name."""
    chosen = [*map(line.scaled, UNITS), line.hyperbolic(), line.quantiles(world.reference)]
    densities = _trained(world, loss, state, chosen).logp.exp().numpy()
    return {one.name: density for one, density in zip(chosen, densities, strict=True)}


def _start(world: LineWorld, fit: LineFit, state: SimpleNamespace) -> torch.Tensor:
    return fit.policy.start(world.reference, [state.seed])


def _seen(
    world: LineWorld, fit: LineFit, theta: torch.Tensor, chosen: Coordinate, pairs: tuple[torch.Tensor, torch.Tensor]
) -> PairLogps:
    """Return the pairs' log densities in the coordinate, under these parameters."""
    win, lose = (fit.policy.log_density(theta, y, world.reference)[0] for y in pairs)
    ref_win, ref_lose = map(world.reference.log_density, pairs)
    return chosen.pairs(win, lose, ref_win, ref_lose, pairs)


def _margin(result: OnALine, pairs: PairLogps) -> np.ndarray:
    return result.loss.margin(pairs).numpy()  # type: ignore[attr-defined]


def _near(result: OnALine) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes that are drawn, and which they are."""
    nodes = result.world.interval.nodes.numpy()
    near = np.abs(nodes) <= _SHOWN
    return nodes[near], near


def _across() -> Axis:
    return Axis("response y", -_SHOWN, _SHOWN)


def _densities(result: OnALine, pinned: OnALine | None) -> Curves:
    y, near = _near(result)

    def shifted(of: OnALine, logp: torch.Tensor) -> np.ndarray:
        return (logp - of.coordinate.log_slope(of.world.interval.nodes))[torch.as_tensor(near)].numpy()

    ref, policy = shifted(result, result.world.ref_logp), shifted(result, result.fit.logp[0])
    color = look_of(result.loss)["color"]
    curves = [Curve("pinned", y, shifted(pinned, pinned.fit.logp[0]), color, faint=True)] if pinned else []
    curves += [Curve("reference", y, ref, FAINT, "dashed"), Curve("trained policy", y, policy, color)]
    low, high = float(min(ref.min(), 0)), float(max(ref.max(), policy.max(), 0))
    return Curves(
        f"log densities in {result.coordinate.name}", "Log densities of reference and policy over the responses",
        _across(), Axis("log density", np.floor(low) - 1, np.ceil(high) + 1), curves,
        rules=[Rule(y=0, label="above: no log-probability")], link="y", height=_HEIGHT,
    )  # fmt: skip


def _weights(result: OnALine) -> Curves:
    win = result.pairs[0].numpy()
    low, high = -1.0, 2.0
    color = look_of(result.loss)["color"]
    start, end = (np.clip(result.weights(side), low, high) for side in (result.start, result.end))
    return Curves(
        "weight of the winner, λ_w", "The weight of each pair's winner at the start and at the end of training",
        _across(), Axis("λ_w", low - 0.1, high + 0.1),
        [Curve("start", win, start, INK, marker="ring", line=False),
         Curve("end", win, end, color, marker="dot", line=False)],
        rules=[Rule(y=0, label="0"), Rule(y=1, label="1"), Rule(y=0.5, dash="dotted")], link="y", height=_HEIGHT,
    )  # fmt: skip


def _margins(result: OnALine) -> Curves:
    gap = (result.world.utility(result.pairs[0]) - result.world.utility(result.pairs[1])).numpy()
    margin = np.clip(_margin(result, result.end), -20, 20)
    color = look_of(result.loss)["color"]
    return Curves(
        "margin of each pair", "The margin at the end of training against the gap in utility, with the line of equals",
        Axis("gap in utility, winner − loser (nats)", -4, 4), Axis("margin m (nats)", -20, 20, "symlog"),
        [Curve("pair", gap, margin, color, marker="dot", line=False)], rules=[Rule(y=0)], height=_HEIGHT,
    )  # fmt: skip


def _policies(result: OnALine, pinned: OnALine | None) -> Curves:
    y, near = _near(result)
    ideal = result.world.ideal_logp(result.state.beta).exp().numpy()[near]
    curves = [Curve("π_ref e^(u/β)", y, ideal, INK, "dotted")]
    if pinned:
        curves.append(Curve("pinned", y, pinned.fit.logp[0].exp().numpy()[near], FAINT, faint=True))
    curves += [
        Curve(name, y, density[near], _SHADES[place % len(_SHADES)], _DASHES[place % len(_DASHES)])
        for place, (name, density) in enumerate(result.others.items())
    ]
    own = result.fit.logp[0].exp().numpy()[near]
    curves.append(Curve(f"this one: {result.coordinate.name}", y, own, look_of(result.loss)["color"]))
    top = max(float(np.quantile(one.y, 0.999)) for one in curves)
    return Curves(
        "the policy that these pairs train, by coordinate", "Densities over y of the policies of eight coordinates",
        _across(), Axis("density over y", 0, max(np.ceil(4 * min(top, 4.0)) / 4, 0.5)), curves,
        bands=[Band(result.world.centre - result.world.width, result.world.centre + result.world.width, "the bump")],
        link="y", height=300,
    )  # fmt: skip

"""The atlas: what a loss does to a pair, as maps, beside what another one does, and what both buy when they train."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from gradlab.atlas import Measured, by_logratio, by_probability, measured, ratio_map, sign_map, step_field
from gradlab.losses import PAIR_LOSSES, PairLoss
from gradlab.plotting.charts import Arrows, Chart
from gradlab.widgets.compared_losses import title_of
from gradlab.widgets.controls import Choice, Controls
from gradlab.widgets.explorer import UNASKED, Reading, Story
from gradlab.widgets.frontier_explorer import VALUES, FrontierExplorer, Frontiers
from gradlab.widgets.losses_in_page import stated

CELLS = 41  # of the maps, along each side
_CODE = """\
import gradlab as gl
{imports}
losses = {losses}
seen = gl.atlas.compare(losses.values(), seeds=1)
print(seen.table.T.to_string())
for side, loss in losses.items():
    found = gl.atlas.measured(loss)
    print(side, loss.name, "lowers some winners:", found.winner_down, "raises some losers:", found.loser_up)
seen.figure().savefig("atlas.png")
"""


@dataclass(frozen=True)
class Atlas:
    """Losses as they are measured, and their frontiers."""

    seen: dict[str, Measured]  # by letter
    frontiers: Frontiers

    def lowered(self, slot: str) -> bool:
        """Return whether a loss pushes the winner down somewhere on its map of directions."""
        return _turned(self.seen[slot])[0] > 0


class AtlasExplorer(FrontierExplorer):
    """Two to six losses: maps of what each does to a pair, its row of the atlas, and their frontiers."""

    name = "atlas"
    template = _CODE
    question = "What does a preference loss do to the two responses of a pair, and what does that buy?"
    prediction = (
        "losses differ in how hard they pull at either response (ρ), and some push a winner down, or a loser up, for "
        "certain pairs. The maps show where; the frontier shows whether it matters for reward at equal KL."
    )
    first_move = "Choose a loss for A or B, by its family; each map is that loss's."
    ask = "Which of A and B pushes the winner down for some pair?"
    answers: ClassVar = {"a": "A alone", "b": "B alone", "both": "both", "neither": "neither"}
    reading = (
        "Three maps per loss. log ρ: how many times larger the winner's slope in log π is than the loser's, by both "
        "probabilities, for two of twenty responses (ring: π_ref = 1/20); dark green, the winner's is larger, pink, "
        "the loser's; beyond 8 times the colour ends. Directions: light where descent raises the winner, dark where it "
        "lowers it, grey where it stays, by both log-ratios to the reference (ring: π = π_ref), for responses of 100 "
        "tokens; struck through where it raises the loser. A step: where a step on logits leads, green where it moves "
        "the winner farther. Last, the frontier: the ends of trainings over β, in the world that you set. Where "
        "π_w + π_l > 1 there is no policy. The menus have the registered losses; one of your own, as a formula, needs "
        "Python: notebook 11, or `gradlab workbench`."
    )
    takeaway = (
        "A loss of the margin h_w − h_l has ρ = 1 everywhere: it cannot tell a probable winner from an improbable one, "
        "and nothing in it stops at the reference. Losses with a target, such as IPO, SPPO or a smoothed DPO, turn "
        "round beyond it. Losses that look at each side by itself, such as NCA or BCO, have a ρ that changes. Whether "
        "any of this buys reward is another question: at equal KL most frontiers nearly meet."
    )
    stories = (
        Story(
            "A target turns the winner round",
            "IPO (B) is least where h_w − h_l = 1/(2β). Beyond that line its map of directions is dark and struck "
            "through: winners go down and losers up. DPO's (A) is light everywhere, as its loss has no least value.",
            {"loss_b": "ipo"},
        ),
        Story(
            "Balanced weights, unbalanced slopes",
            "bDPO (B) weighs h_w and h_l by the other side's log π. Its ρ = log π_l/log π_w is far from 1 in the "
            "corners of the map, where DPO's (A) is 1.",
            {"loss_b": "bdpo"},
        ),
    )

    ends: ClassVar = (-math.inf, math.inf)

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls of losses, of what to show, and of world and training of the frontier."""
        groups = super().make_controls()
        world = {**groups["World and data"], **groups["More of world and training"]}
        return {
            "Losses": groups["Losses"],
            "Frontier": {"value": Choice("vertical", "utility", {text: key for key, text in VALUES.items()})},
            "More of world and training": world,
        }

    def compute(self, state: SimpleNamespace) -> Any:
        """Measure each loss, and train it over β where that is not yet done."""
        frontiers = super().compute(state)
        return Atlas({slot: measured(loss) for slot, loss in frontiers.losses.items()}, frontiers)

    def charts(self, result: Any, pinned: Any) -> list[Chart]:
        """Return three maps per loss and the frontier; before the guess without the maps of directions."""
        maps = maps_of(result.seen, revealed=self._revealed)
        return [*maps, super().charts(result.frontiers, pinned and pinned.frontiers)[0]]

    def readings(self, result: Any) -> list[Reading]:
        """Return the losses' rows of the atlas, what the maps show, and where the policies end."""
        known = {slot: self._as_registered(_loss(seen)) for slot, seen in result.seen.items()}
        rows = rows_of(result.seen, known, revealed=self._revealed)
        return [*rows, *super().readings(result.frontiers)[1:3]]

    def outcome(self, result: Any) -> tuple[str, str]:
        """Return which of A and B pushes the winner down somewhere on its map."""
        a, b = (result.lowered(slot) for slot in "ab")
        truth = ("both" if b else "a") if a else "b" if b else "neither"
        said = [
            f"{title_of(slot, _loss(result.seen[slot]))} "
            + ("lowers the winner for some pairs" if down else "never lowers the winner")
            for slot, down in (("a", a), ("b", b))
        ]
        return truth, f"On the map {', and '.join(said)}."

    def frame(self) -> pd.DataFrame:
        """Return the maps of ρ and of directions, one row per loss, map and cell."""
        result: Atlas = self.result
        parts = []
        for slot, seen in result.seen.items():
            for name, grid in (("ratio", by_probability(CELLS)), ("direction", by_logratio(CELLS))):
                winner, loser = seen.moves(grid)
                across, down = np.meshgrid(grid.win.numpy(), grid.lose.numpy())
                parts.append(pd.DataFrame({
                    "side": slot.upper(), "loss": _loss(seen).name, "map": name, "win": across.ravel(),
                    "lose": down.ravel(), "log_ratio": seen.log_ratio(grid).ravel(), "winner": winner.ravel(),
                    "loser": loser.ravel(),
                }))  # fmt: skip
        return pd.concat(parts, ignore_index=True)

    @property
    def _revealed(self) -> bool:
        return self.controls["guess"].value != UNASKED

    def _as_registered(self, loss: PairLoss) -> PairLoss:
        """Return the loss with its defaults, for which the page states facts."""
        return PAIR_LOSSES[loss.name]() if loss.name in PAIR_LOSSES else self.given_losses[loss.name]


def maps_of(seen: Mapping[str, Measured], *, revealed: bool) -> list[Chart]:
    """Return the maps of ρ, of directions (only if ``revealed``) and of a step of each loss, by letter."""
    drawn = (ratio_map, *((sign_map,) if revealed else ()), step_field)
    maps: list[Chart] = []
    for slot, one in seen.items():
        found = [draw(one) for draw in drawn]
        found = [replace(chart, handles=()) if isinstance(chart, Arrows) else chart for chart in found]  # none to drag
        titles = [f"{title_of(slot, _loss(one))}:{chart.title.rpartition(':')[2]}" for chart in found]
        maps += [replace(chart, title=title) for chart, title in zip(found, titles, strict=True)]
    return maps


def rows_of(seen: Mapping[str, Measured], known: Mapping[str, PairLoss], *, revealed: bool) -> list[Reading]:
    """Return the losses' rows of the atlas by letter; ``known``: the losses whose statements are shown."""
    sides = {slot.upper(): one for slot, one in seen.items()}
    said = {slot.upper(): stated(loss) for slot, loss in known.items()}
    starts = {side: one.start_slopes for side, one in sides.items()}
    turned = {side: _turned(one) for side, one in sides.items()} if revealed else {}
    directions = [
        Reading("share of the map on which descent lowers log π_w",
                {side: share[0] for side, share in turned.items()}, key="winner down"),
        Reading("share of the map on which descent raises log π_l",
                {side: share[1] for side, share in turned.items()}, key="loser up"),
    ]  # fmt: skip
    return [
        Reading("ρ", _texts(said, "rho")),
        Reading("loss at π = π_ref", _texts(said, "start"), key="start"),
        Reading("∂L/∂log π_w at π = π_ref", {side: start[0] for side, start in starts.items()}, key="win slope"),
        Reading("∂L/∂log π_l at π = π_ref", {side: start[1] for side, start in starts.items()}, key="lose slope"),
        *(directions if revealed else []),
        Reading("least at", _texts(said, "optimum")),
        Reading("bounded", _texts(said, "bounded")),
        Reading("log π of a response", _texts(said, "convention"), key="convention"),
    ]


def _loss(seen: Measured) -> PairLoss:
    return seen.loss  # type: ignore[return-value]


def _texts(said: dict[str, dict[str, str]], key: str) -> dict[str, str]:
    return {side: texts[key] or "–" for side, texts in said.items()}


def _turned(seen: Measured) -> tuple[float, float]:
    """Return the shares of the map of directions on which descent lowers the winner, and raises the loser."""
    winner, loser = seen.moves(by_logratio(CELLS))
    there = np.isfinite(winner)
    return float((winner[there] < 0).mean()), float((loser[there] > 0).mean())

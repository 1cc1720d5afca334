"""The workbench: a loss of one's own, typed as a formula, with its maps, its training and its verdict beside DPO's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from gradlab.atlas import Measured, Verdict, measured, verdict
from gradlab.atlas.against_dpo import EQUAL_KL
from gradlab.atlas.comparison import BETAS, MASK_RATE, TRAINING
from gradlab.atlas.endpoints import ended, endpoints, trained_paths
from gradlab.atlas.one_loss import SEEDS, world_of
from gradlab.lab.fit import fit
from gradlab.lab.world import World, gaussian_world
from gradlab.losses import DPO, KnownLoss, register_loss
from gradlab.losses.formula import free_names, unregistered
from gradlab.losses.registry import checked
from gradlab.plotting.charts import Axis, Chart, Curve, Curves
from gradlab.plotting.palette import LOSER, WINNER
from gradlab.widgets.atlas_explorer import maps_of, rows_of
from gradlab.widgets.compared_losses import LOOKS
from gradlab.widgets.controls import Controls, FreeNumber, Line
from gradlab.widgets.explorer import UNASKED, Explorer, Reading, Story

NUMBERS = 6
NAME = "mine"
_RECORDED = 13  # steps of the curves of a training
_KEPT = 4000  # ends of trainings on all worlds
_START = "-logsigmoid(beta * (h_w - weight * h_l))"
_TRACK = (-5.0, 5.0)
_CODE = """\
import gradlab as gl

loss = gl.formula_loss("mine", {formula}{numbers})
seen = gl.atlas.workbench(loss)
print(seen.row.to_string())
print(seen.verdict.table().to_string())
print(seen.verdict.sentence)
seen.comparison.figure().savefig("mine.png")
"""


@dataclass(frozen=True)
class Bench:
    """A loss of one's own as far as it has been looked at."""

    loss: KnownLoss
    baseline: DPO
    seen: dict[str, Measured]  # "a": the loss, "b": DPO at its β
    paths: dict[str, pd.DataFrame]  # by letter: means over worlds, by step
    trained: pd.DataFrame  # ends of trainings, as ``verdict`` takes them
    verdict: Verdict | None = None  # once all are trained

    def ends(self, slot: str) -> pd.Series:
        """Return the means over worlds at the end of the loss's training, or DPO's at the same β."""
        return self.paths[slot].iloc[-1]

    def curve(self, slot: str) -> pd.DataFrame:
        """Return the means over worlds of trainings over β, β falling."""
        name = self.loss.name if slot == "a" else self.baseline.name
        rows = self.trained[(self.trained["loss"] == name) & (self.trained["preset"] == "grid")]
        means = rows.groupby("beta", as_index=False)[["kl_to_reference", "expected_utility"]].mean()
        return means.sort_values("beta", ascending=False)


class WorkbenchExplorer(Explorer):
    """A formula, sliders of its numbers, and at once: maps, training, frontier beside DPO's, and verdict."""

    name = "workbench"
    template = _CODE
    question = "You have an idea for a preference loss: what does it do, and does it beat DPO where that counts?"
    prediction = (
        "most changes of DPO move where a training stops. At equal distance from the reference, and with β chosen for "
        "each, little of the difference may be left."
    )
    first_move = "Type a formula and press Enter; then drag its numbers."
    ask = "At equal KL, how does this loss fare against DPO?"
    answers: ClassVar = {"better": "better", "worse": "worse", "neither": "neither is shown"}
    reading = (
        "A is your loss, B is DPO at the same β. A formula is made of h_w and h_l (log π − log π_ref of winner and "
        "loser), l_w, l_l (log π), r_w, r_l (log π_ref), L_w, L_l (lengths in tokens), numbers that you name, + − * / "
        "**, and functions such as logsigmoid, exp, min, max, clamp, tanh, detach; descent lowers it. The first three "
        "charts are those of the atlas: log ρ, directions, a step. Then means over eight worlds with a fifth of the "
        "responses unobserved: reward while it trains; how log π of winners and losers moves (DPO's faint); and the "
        "frontier, one training per β where the formula has a number called beta, with a ring at your numbers. The "
        "verdict compares shares of the reachable reward, with 95% intervals over worlds, after Holm's correction."
    )
    takeaway = (
        "Reward at the end of a training says little: another β of DPO also ends elsewhere. A loss fares better only "
        "if it does so at equal KL and at each one's best β; a gain that DPO at half the β has too is a smaller β. "
        "This is one kind of world, with tabular policies: `gradlab train --loss mine.py:Mine` trains a language "
        "model by the same loss."
    )
    stories = (
        Story(
            "A weight on the loser",
            "half the weight on the loser: log ρ is 1 bit everywhere, the winner is pulled twice as hard. Move the "
            "weight to 1, and it is DPO.",
            {},
        ),
        Story(
            "Hold the winner up",
            "a penalty where the winner falls below the reference. Its winners fall less than DPO's; compare both "
            "frontiers before you call that better.",
            {"formula": "-logsigmoid(beta * (h_w - h_l)) - anchor * min(h_w, 0)", "number_2": 1.0},
        ),
        Story(
            "Each side by itself",
            "BCO: winner and loser have a term each. ρ is no longer the same everywhere, and each side stops by "
            "itself.",
            {"formula": "-logsigmoid(beta * h_w) - logsigmoid(-beta * h_l)", "number_2": 1.0},
        ),
        Story(
            "A target",
            "IPO: the squared distance from a target. Beyond it descent turns both sides round.",
            {"formula": "(h_w - h_l - 1 / (2 * beta))**2", "number_2": 1.0},
        ),
    )

    def __init__(self, formula: str | None = None, numbers: Mapping[str, float] | None = None, **start: Any) -> None:
        """Build the explorer and show it.

        formula  to begin with. numbers: its numbers by name; those left out are 1.
        start    start values of controls, also for ``reset()``: ``number_1`` is the formula's first number, and so on.
        """
        self._names: tuple[str, ...] = ()
        self._values: tuple[float, ...] = ()
        self._told = True  # whether numbers were set with the formula
        self._last: Bench | None = None
        self._rows: dict[Any, pd.DataFrame] = {}
        given = {} if formula is None else {"formula": formula, **_numbered(formula, numbers or {})}
        super().__init__(**{**given, **start})

    def make_controls(self) -> dict[str, Controls]:
        """Return the formula and the sliders of its numbers."""
        formula = Line(
            "formula of the loss", _START, "of h_w, h_l, l_w, l_l, r_w, r_l, L_w, L_l and your numbers", rows=4
        )
        formula.note = ""
        numbers = {f"number_{place}": FreeNumber(f"number {place}", 1.0, *_TRACK) for place in range(1, NUMBERS + 1)}
        numbers["number_2"].value = 0.5
        return {"Your loss": {"formula": formula, **numbers}}

    def adapt(self, state: SimpleNamespace) -> None:
        """Give the sliders the names of the formula's numbers, and say beside the formula why it is not used."""
        told, self._told = self._told, False
        formula = self.controls["formula"]
        try:
            names = free_names(state.formula)
            if len(names) > NUMBERS:
                raise ValueError(f"formula must have at most {NUMBERS} numbers of its own, got {', '.join(names)}")
        except ValueError as error:
            formula.note = str(error)
            return
        controls = [self.controls[f"number_{place}"] for place in range(1, NUMBERS + 1)]
        if names != self._names and not told and self._values == tuple(control.value for control in controls):
            former = dict(zip(self._names, self._values, strict=False))
            for control, name in zip(controls, names, strict=False):
                control.value = former.get(name, 1.0)
        for control, name in zip(controls, [*names, *[""] * NUMBERS], strict=False):
            control.hidden = not name
            control.title = name or control.title
            control.low, control.high = (0.01, 100.0) if name == "beta" else _TRACK
            control.scale = "log" if name == "beta" else "linear"
        self._names, self._values = names, tuple(control.value for control in controls)
        formula.note = self._reason()

    def _set(self, values: Mapping[str, Any]) -> None:
        self._told = self._told or any(key.startswith("number_") for key in values)
        super()._set(values)

    @property
    def loss(self) -> KnownLoss:
        """The loss that the formula states now, not registered; ValueError, in one line, where it states none."""
        numbers = {name: self.controls[f"number_{place}"].value for place, name in enumerate(self._names, 1)}
        return checked(unregistered(NAME, self.controls["formula"].value, **numbers))

    def register(self, name: str = NAME) -> KnownLoss:
        """Register the loss under a name, so that menus, sweeps and ``gl.pair_loss`` have it; return it."""
        loss: Any = self.loss
        return register_loss(
            unregistered(name, loss.expression, **{one.name: getattr(loss, one.name) for one in fields(loss)})
        )

    def compute(self, state: SimpleNamespace) -> Iterator[Bench]:
        """Look at the loss, train it, then train it and DPO over β, and judge; a formula at fault changes nothing."""
        try:
            loss = self.loss
        except ValueError as error:
            if self._last is None:
                raise ValueError(str(error)) from None
            yield self._last
            return
        if len(self._rows) > _KEPT:
            self._rows.clear()
        lengths = world_of(loss)
        worlds = self.remember("worlds", repr(lengths), lambda: [
            gaussian_world(mask_rate=MASK_RATE, seed=seed, **lengths) for seed in range(SEEDS)
        ])  # fmt: skip
        beta = float(getattr(loss, "beta", 1.0)) if "beta" in self._names else 1.0
        baseline = DPO(beta) if beta > 0 else DPO()
        paths = {"a": self._path(loss, worlds, lengths), "b": self._path(baseline, worlds, lengths)}
        first = [self._ended(loss, worlds, lengths, preset="published")]
        seen = {"a": measured(loss), "b": measured(baseline)}
        bench = Bench(loss, baseline, seen, paths, pd.concat(first, ignore_index=True))
        self._last = bench
        yield bench
        rows = first
        for one in sorted({*BETAS, baseline.beta, baseline.beta / 2}, reverse=True):
            trained = [self._ended(DPO(one), worlds, lengths)]
            if "beta" in self._names:
                trained.append(self._ended(replace(loss, beta=one), worlds, lengths))  # type: ignore[type-var]
            rows = [*rows, *trained]
            self._last = bench = replace(bench, trained=pd.concat(rows, ignore_index=True))
            yield bench
        self._last = replace(bench, verdict=verdict(bench.trained, loss.name, baseline.name))
        yield self._last

    def charts(self, result: Bench, pinned: Bench | None) -> list[Chart]:
        """Return the maps of the loss, its training, and the frontier; before the guess without what answers it."""
        shown = self._revealed
        maps = self.remember(
            "maps", (repr(result.loss), shown), lambda: maps_of({"a": result.seen["a"]}, revealed=shown)
        )
        trainings = [_reward(result, pinned), _moved(result)]
        return [*maps, *trainings, *([_frontier(result, pinned)] if shown else [])]

    def readings(self, result: Bench) -> list[Reading]:
        """Return both rows of the atlas, where both trainings end, and the verdict after the guess."""
        losses = {"a": result.loss, "b": result.baseline}
        ends = {slot.upper(): result.ends(slot) for slot in losses}
        rows = rows_of(result.seen, losses, revealed=self._revealed)
        rows += [
            Reading("E[u] at the end", _column(ends, "expected_utility"), "nats", "E[u]"),
            Reading("KL from the reference", _column(ends, "kl_to_reference"), "nats", "KL"),
            Reading("mass on unobserved responses", _column(ends, "unobserved_mass"), "", "unobserved"),
        ]
        if self._revealed and result.verdict is not None:
            for one in result.verdict.contrasts:
                title = f"A against DPO {one.name.removeprefix('against DPO ')}"
                rows.append(Reading(title, {"A": _judged(one)}, "points", one.name))
        return rows

    def outcome(self, result: Bench) -> tuple[str, str]:
        """Return how the loss fares at equal KL, with the verdict; nothing until all is trained."""
        if result.verdict is None:
            return "", ""
        word = result.verdict.word_of(EQUAL_KL)
        return word if word in ("better", "worse") else "neither", result.verdict.sentence

    def frame(self) -> pd.DataFrame:
        """Return the ends of all trainings: one row per loss, β and world."""
        return self.result.trained

    def code_parts(self, state: SimpleNamespace) -> dict[str, str]:
        """Return the formula's numbers as arguments."""
        numbers = [f"{name}={getattr(state, f'number_{place}')!r}" for place, name in enumerate(self._names, 1)]
        return {"numbers": "".join(f", {number}" for number in numbers)}

    @property
    def _revealed(self) -> bool:
        return self.controls["guess"].value != UNASKED

    def _reason(self) -> str:
        """Return why the formula is not used; "" where it is."""
        try:
            assert self.loss
        except ValueError as error:
            return str(error)
        return ""

    def _path(self, loss: Any, worlds: list[World], lengths: Mapping[str, float]) -> pd.DataFrame:
        """Return the means over worlds by step of one training; NaN where it stops being finite."""

        def train() -> pd.DataFrame:
            training = TRAINING.but(record=_RECORDED)
            seeds = list(range(len(worlds)))
            try:
                rows = endpoints(fit(worlds, loss, training, seed=seeds), worlds, training, seeds)
            except FloatingPointError as error:
                raise ValueError(f"{error} (with these numbers)") from None
            return rows.groupby("step", as_index=False).mean(numeric_only=True)

        return self._known(("path", repr(loss), repr(lengths)), train)

    def _ended(
        self, loss: Any, worlds: list[World], lengths: Mapping[str, float], preset: str = "grid"
    ) -> pd.DataFrame:
        """Return the ends of a loss's trainings, one row per world."""
        seeds = list(range(len(worlds)))
        rows = self._known(
            ("ends", repr(loss), repr(lengths)), lambda: ended(trained_paths(loss, worlds, TRAINING, seeds))
        )
        beta = float(getattr(loss, "beta", math.nan))
        return rows.assign(loss=loss.name, preset=preset, factor="base" if preset == "published" else "beta", beta=beta)

    def _known(self, key: Any, make: Any) -> pd.DataFrame:
        if key not in self._rows:
            self._rows[key] = make()
        return self._rows[key]


def _numbered(formula: str, numbers: Mapping[str, float]) -> dict[str, float]:
    """Return a formula's numbers by the names of their controls; ValueError for one that it does not have."""
    names = free_names(formula)
    for name in numbers:
        if name not in names:
            raise ValueError(f"numbers must be of the formula, {', '.join(names) or 'which has none'}; got {name!r}")
    return {f"number_{place}": numbers.get(name, 1.0) for place, name in enumerate(names[:NUMBERS], 1)}


def _column(ends: Mapping[str, pd.Series], name: str) -> dict[str, float]:
    return {side: float(rows[name]) for side, rows in ends.items()}


def _judged(contrast: Any) -> str:
    if contrast.word == "not run":
        return "not run"
    effect, low, high = (f"{100 * number:+.1f}".replace("-", "−") for number in contrast[1:4])
    return f"{contrast.word}: {effect} [{low}, {high}]"


def _reward(result: Bench, pinned: Bench | None) -> Curves:
    curves = []
    if pinned is not None:
        before = pinned.paths["a"]
        curves.append(Curve("pinned", *_points(before, "expected_utility"), *LOOKS["a"], faint=True))
    for slot, label in (("b", "B DPO, same β"), ("a", "A your loss")):
        curves.append(Curve(label, *_points(result.paths[slot], "expected_utility"), *LOOKS[slot]))
    return Curves(
        "reward while it trains", "Expected utility by step, of your loss and of DPO at the same β, means over worlds",
        Axis("step", 0, TRAINING.steps), _axis("E[u] (nats)", curves), curves, height=240,
    )  # fmt: skip


def _moved(result: Bench) -> Curves:
    curves = []
    for slot, faint in (("b", True), ("a", False)):
        for side, column, color in (("winners", "win_logp_change", WINNER), ("losers", "lose_logp_change", LOSER)):
            name = side if slot == "a" else f"{side}, DPO"
            curves.append(Curve(name, *_points(result.paths[slot], column), color, LOOKS[slot][1], faint=faint))
    return Curves(
        "what it moves", "Mean change of log π of winners and losers by step; faint: DPO at the same β",
        Axis("step", 0, TRAINING.steps), _axis("change of log π (nats)", curves), curves, height=240,
    )  # fmt: skip


def _frontier(result: Bench, pinned: Bench | None) -> Curves:
    curves = []
    if pinned is not None:
        before = pinned.curve("a")
        curves.append(Curve("pinned", *_trade(before), *LOOKS["a"], marker="dot", faint=True))
    for slot, label in (("b", "B DPO"), ("a", "A your loss")):
        color, dash = LOOKS[slot]
        curves.append(Curve(f"{label}, over β", *_trade(result.curve(slot)), color, dash, marker="dot"))
        point = pd.DataFrame([result.ends(slot)])
        curves.append(Curve(f"{label}, now", *_trade(point), color, marker="ring", line=False))
    shown = [curve for curve in curves if len(curve.x)]
    across = replace(_axis("KL from the reference (nats)", shown, "x"), low=0.0)
    return Curves(
        "what it buys", "Expected utility against KL from the reference, one training per β, of your loss and of DPO",
        across, _axis("E[u] (nats)", shown), shown, height=240,
    )  # fmt: skip


def _points(path: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    return path["step"].to_numpy(float), path[column].to_numpy(float)


def _trade(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return rows["kl_to_reference"].to_numpy(float), rows["expected_utility"].to_numpy(float)


def _axis(label: str, curves: list[Curve], side: str = "y") -> Axis:
    """Return an axis whose ends are halves of a power of ten, so that they seldom change."""
    values = np.concatenate([getattr(curve, side) for curve in curves])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-3))) / 2
    return Axis(label, math.floor(low / step) * step, max(math.ceil(high / step), math.floor(low / step) + 1) * step)

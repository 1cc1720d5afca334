"""The worlds of two goals that the experiment declares: one property at a time, worlds like HH, a map, drawn ones.

A *cell* is a pair of goals, helpful and harmless, with a recipe. All of it is ours.

- ``base``: both goals have the default properties.
- ``alone``: one property differs, by ``SIDES``; ``mirrored``: the same with the names exchanged, the swap control.
- ``level``: one property of the harmless goal takes a level of ``LEVELS``.
- ``hh``: many properties differ, as they might in Anthropic HH: the harmless goal has a broad basin (many ways to
  refuse), short good responses and half as many labels; the helpful goal a narrow peak and long good responses; the
  reference leans a little towards both. Beside it: equal lengths, agreeing pairs alone, and one property exchanged.
- ``map``: the reference's alignment with either goal.
- ``drawn``: every property of both goals is drawn, see ``drawn``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gradlab.checks import count
from gradlab.lab.two_goals import Goal, TwoGoalWorld, two_goal_world
from gradlab.streams import Purpose, stream

BASE = Goal()
# What differs where one property differs: (helpful, harmless).
SIDES: dict[str, tuple[float, float]] = {
    "height": (2.0, 6.0), "noise": (0.2, 0.0), "alignment": (-0.5, 0.5), "basin": (3.0, 12.0), "share": (0.5, 1.5),
    "conflict": (0.2, 0.8), "length": (2.0, 0.5),
}  # fmt: skip
# Of the harmless goal, beside the default.
LEVELS: dict[str, tuple[float, ...]] = {
    "height": (1.0, 2.0, 6.0, 8.0), "noise": (0.1, 0.2, 0.3, 0.4), "alignment": (-1.0, -0.5, 0.5, 1.0),
    "basin": (2.0, 4.0, 10.0, 14.0), "share": (0.25, 0.5, 2.0, 4.0), "conflict": (0.0, 0.25, 0.75, 1.0),
    "length": (0.25, 0.5, 2.0, 4.0),
}  # fmt: skip
HELPFUL = Goal(basin=4.0, length=2.0, alignment=0.25, share=2.0)  # as in HH, perhaps
HARMLESS = Goal(basin=12.0, length=0.5, alignment=0.25, share=1.0)
EXCHANGED = ("basin", "length", "share")  # what differs between these two
ALIGNMENTS = (-1.0, -0.5, 0.0, 0.5, 1.0)  # of the map
# Of drawn worlds: uniform, or log-uniform, on an interval.
UNIFORM = {"noise": (0.0, 0.3), "alignment": (-1.0, 1.0)}
LOG_UNIFORM = {"height": (1.0, 8.0), "basin": (2.0, 14.0), "share": (0.5, 2.0), "length": (0.4, 2.5)}
CONFLICTS = (0.0, 1.0)
WORDS = (
    "for either goal independently height log-uniform on [1, 8], basin on [2, 14], share on [½, 2]; noise uniform on "
    "[0, 0.3] and alignment on [−1, 1]; with probability ½ lengths multiplied by a log-uniform factor on [0.4, 2.5], "
    "else equal; with probability ½ a share of conflicting pairs uniform on [0, 1], else all pairs equally often"
)


@dataclass(frozen=True)
class Cell:
    """A pair of goals; see the module for the kinds. ``changed`` names what the kind changes, ``level`` how much."""

    kind: str
    changed: str
    helpful: Goal
    harmless: Goal
    level: float = float("nan")
    other: float = float("nan")  # of the map: the helpful goal's alignment

    def world(self, seed: int) -> TwoGoalWorld:
        """Return the world that a seed draws."""
        return two_goal_world(self.helpful, self.harmless, seed=seed)

    def columns(self) -> dict[str, Any]:
        """Return what names the cell in a frame."""
        return {"kind": self.kind, "changed": self.changed, "level": self.level, "other": self.other}


def cells(kind: str, *, levels: int | None = None) -> list[Cell]:
    """Return the declared cells of a kind, but for drawn ones; ``levels`` keeps only so many of each property's."""
    return list(_KINDS[kind](levels))


def _base(_: int | None) -> Iterator[Cell]:
    yield Cell("base", "", BASE, BASE)


def _alone(_: int | None) -> Iterator[Cell]:
    for name, (helpful, harmless) in SIDES.items():
        yield Cell("alone", name, BASE.but(**{name: helpful}), BASE.but(**{name: harmless}), harmless)


def _mirrored(_: int | None) -> Iterator[Cell]:
    for cell in _alone(None):
        yield Cell("mirrored", cell.changed, cell.harmless, cell.helpful, cell.level)


def _level(levels: int | None) -> Iterator[Cell]:
    for name, values in LEVELS.items():
        for value in values[-levels:] if levels else values:
            yield Cell("level", name, BASE, BASE.but(**{name: value}), value)


def _hh(_: int | None) -> Iterator[Cell]:
    yield Cell("hh", "nothing", HELPFUL, HARMLESS)
    yield Cell("hh", "equal lengths", HELPFUL.but(length=1.0), HARMLESS.but(length=1.0))
    yield Cell("hh", "agreeing pairs", HELPFUL.but(conflict=0.0), HARMLESS.but(conflict=0.0))
    for name in EXCHANGED:
        one, other = getattr(HELPFUL, name), getattr(HARMLESS, name)
        yield Cell("hh", f"{name} exchanged", HELPFUL.but(**{name: other}), HARMLESS.but(**{name: one}))


def _map(levels: int | None) -> Iterator[Cell]:
    values = ALIGNMENTS[:: 2 if levels else 1]
    for helpful in values:
        for harmless in values:
            goals = BASE.but(alignment=helpful), BASE.but(alignment=harmless)
            yield Cell("map", "alignment", *goals, harmless, helpful)


_KINDS = {"base": _base, "alone": _alone, "mirrored": _mirrored, "level": _level, "hh": _hh, "map": _map}
KINDS = tuple(_KINDS)


def drawn(number: int, first_seed: int) -> Cell:
    """Return a cell of the draw that ``first_seed`` names: the same one, however many are drawn; ``level`` numbers it.

    Its goals have the properties that ``WORDS`` tells.
    """
    rng = stream(first_seed, Purpose.DRAWN_GOALS, count("number", number))
    helpful, harmless = _drawn_goal(rng), _drawn_goal(rng)
    lengths, conflicts = rng.random(2) < 0.5
    if not lengths:
        helpful, harmless = helpful.but(length=1.0), harmless.but(length=1.0)
    if not conflicts:
        helpful, harmless = helpful.but(conflict=None), harmless.but(conflict=None)
    return Cell("drawn", "all", helpful, harmless, float(number))


def _drawn_goal(rng: Any) -> Goal:
    values = {name: float(rng.uniform(*ends)) for name, ends in UNIFORM.items()}
    values |= {name: float(ends[0] * (ends[1] / ends[0]) ** rng.random()) for name, ends in LOG_UNIFORM.items()}
    return Goal(**values, conflict=float(rng.uniform(*CONFLICTS)))

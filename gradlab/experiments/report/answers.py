"""A figure per claim that was measured: the primaries as stated and elsewhere, and the controls beside them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, Unit
from gradlab.experiments.report.verdicts import Settled, named
from gradlab.plotting import Comparison, Panel

CAPTION = (
    "The answer on the claim at a glance, one line per comparison. A black mark is the average over cells or worlds "
    "with its 95% interval; dots are the cells or worlds: filled where they are decided for the claim or against it, "
    "hollow circles within the margin, pale where undecided. Right of 0 speaks for the claim, and the grey band is "
    "the margin within which a difference does not matter. Beneath the claim stand the controls that could explain it "
    "away: one that lies in the band, or left of it, does as well as the method or better. Numbers at the right count "
    "cells or worlds for : none : against, and in brackets those that are undecided. Where the claim is that there is "
    "no difference, the band speaks for it: neither side does, and dots and numbers are named above and below."
)
_GROUPS = {"explains away": "is it the balancing?", "robustness": "does it stay?"}


def figure_of(one: Settled) -> str:
    """Return the name of a claim's figure."""
    return f"answer-{one.name}"


def has_answer(one: Settled) -> bool:
    """Return whether the claim has measured comparisons to draw."""
    return bool(_drawn(one.rows))


def answer(one: Settled) -> Figure:
    """Draw a claim's comparisons, a panel per quantity."""
    panels = []
    for key in dict.fromkeys(map(_quantity, _drawn(one.rows))):
        rows = [row for row in _drawn(one.rows) if _quantity(row) == key]
        statement = rows[0].statement
        assert isinstance(statement, Contrast)
        lines = [_line(row, statement.unit) for row in sorted(rows, key=_order)]
        panels.append(Panel(statement.unit.words, -statement.unit.number(-statement.margin), lines))
    return plotting.answers(panels, no_difference=one.claim.no_difference)


def facts(one: Settled) -> list[object]:
    """Return all that a claim's figure shows, as plain data, for a key."""
    rows = [
        [row.statement.statement, row.role, row.population, row.effect, row.low, row.high, *map(str, row.rows["state"]),
         *map(float, row.rows["effect"])]
        for row in _drawn(one.rows)
    ]  # fmt: skip
    return [one.claim.no_difference, *rows]


def _drawn(rows: Iterable[Judged]) -> list[Judged]:
    return [row for row in rows if isinstance(row.statement, Contrast) and row.role != "context" and len(row.rows)]


def _quantity(row: Judged) -> tuple[str, str, float]:
    statement = row.statement
    assert isinstance(statement, Contrast)
    return statement.value, statement.unit.words, statement.margin


def _order(row: Judged) -> tuple[int, int]:
    roles = ("primary", "explains away", "robustness")
    return roles.index(row.role), int(row.population == "worlds")


def _line(row: Judged, unit: Unit) -> Comparison:
    group = _GROUPS.get(row.role) or ("in drawn worlds" if row.population == "worlds" else "as stated")
    elsewhere = row.population == "worlds" and row.role != "primary"
    number = unit.number
    counts = " : ".join(f"{row.number(state):,}" for state in ("for", "none", "against"))
    undecided = row.number("undecided")
    label = named(row)
    return Comparison(
        label=f"{label} (worlds)" if elsewhere and "worlds" not in label else label, group=group,
        effect=number(row.effect),
        low=number(row.low), high=number(row.high), dots=np.array([number(effect) for effect in row.rows["effect"]]),
        states=np.asarray(row.rows["state"], dtype=str), counts=f"{counts} ({undecided:,})" if undecided else counts,
    )  # fmt: skip

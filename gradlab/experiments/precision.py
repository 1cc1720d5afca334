"""Precision by design: which cells get further seeds, and how many worlds are drawn. It sees widths, never signs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradlab.stats.equivalence import mean_of
from gradlab.stats.population import by_unit_and_seed, paired_differences
from gradlab.stats.precision import Design, seeds_to_add


@dataclass(frozen=True)
class Endpoint:
    """A primary endpoint with its design: the difference ``value`` of ``method`` − ``baseline`` in each cell of ``by``.

    baseline  None: the value of ``method`` itself.
    where     a pandas query that picks the rows.
    """

    value: str
    method: str
    baseline: str | None
    by: tuple[str, ...]
    design: Design
    where: str = ""

    def differences(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return paired differences: the columns ``by``, ``seed`` and ``difference``."""
        rows = frame.query(self.where) if self.where else frame
        return paired_differences(rows, self.value, self.method, self.baseline, self.by)

    def to_add(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return a row per cell: the columns ``by``, ``seeds`` (so far), ``half_width``, and ``more`` to be added."""
        table = by_unit_and_seed(self.differences(frame), self.by)
        values = table.to_numpy(float)
        seeds, half_width = (~np.isnan(values)).sum(1), mean_of(values).half_width()
        return table.index.to_frame(index=False).assign(
            seeds=seeds, half_width=half_width, more=seeds_to_add(half_width, seeds, self.design)
        )


def runs_to_add(
    frame: pd.DataFrame, endpoints: Iterable[Endpoint], by: tuple[str, ...], beside: Iterable[str] = ()
) -> pd.DataFrame:
    """Return the runs that all endpoints together ask for: a row per method and cell that gets seeds.

    by      the columns of a cell, the same for all endpoints. In a cell that gets seeds, every method of every endpoint
            gets them, so that all of them stay paired.
    beside  further methods that get the same seeds, such as controls.

    Columns: those of ``by``, ``method``, ``seeds`` (so far) and ``more`` ≥ 1.
    """
    endpoints = list(endpoints)
    asked = pd.concat([endpoint.to_add(frame)[[*by, "seeds", "more"]] for endpoint in endpoints])
    cells = asked.groupby(list(by), sort=False, as_index=False).max()
    compared = (name for endpoint in endpoints for name in (endpoint.method, endpoint.baseline) if name)
    methods = pd.DataFrame({"method": list(dict.fromkeys([*compared, *beside]))})
    return cells[cells["more"] > 0].merge(methods, how="cross")


def worlds_to_add(frame: pd.DataFrame, endpoints: Iterable[Endpoint]) -> range:
    """Return the numbers of the worlds to draw next; none where each endpoint is precise enough, or at its cap.

    frame  worlds by their number in the column that each endpoint's ``by`` names, from 0 on and without a gap.

    An endpoint's half-width is that of its average over the worlds of its ``where``; its design counts all worlds that
    were drawn, with ``first``, ``block`` and ``cap``.
    """
    wanted, drawn = 0, 0
    for endpoint in endpoints:
        (world,) = endpoint.by
        numbers = frame[world].unique()
        drawn = len(numbers)
        if set(numbers) != set(range(drawn)):
            raise ValueError(f"{world} must run from 0 on without a gap, got {drawn} worlds up to {max(numbers)}")
        means = endpoint.differences(frame).groupby(world)["difference"].mean().to_numpy()
        half_width = mean_of(means).half_width()
        wanted = max(wanted, int(seeds_to_add([half_width], [drawn], endpoint.design)[0]))
    return range(drawn, drawn + wanted)

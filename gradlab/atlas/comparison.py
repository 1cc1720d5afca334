"""Losses beside each other, trained on the spot: for notebooks."""

from __future__ import annotations

import base64
import functools
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab.atlas import pictures
from gradlab.atlas.endpoints import ended, trained_paths
from gradlab.atlas.measure import measured
from gradlab.atlas.rows import Loss, losses_of, table
from gradlab.atlas.trained import effects
from gradlab.checks import count, positive
from gradlab.lab.descent import steady
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world
from gradlab.plotting.chart_figure import drawn
from gradlab.plotting.charts import Chart
from gradlab.plotting.looks import style

BETAS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
TRAINING = Training(pairs=100, steps=300, record=3)
MASK_RATE = 0.2


@dataclass(frozen=True, eq=False)
class Comparison:
    """Losses beside each other: a table, charts, and the trainings behind them. Notebooks show table and figure.

    losses   by the name that rows and curves have: the key, with the numbers where one key occurs twice.
    trained  one row per run, as ``table`` reads it.
    """

    losses: dict[str, Loss]
    trained: pd.DataFrame

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """The rows of ``gradlab.atlas.table``, with the effects of these trainings."""
        rows = table(self.losses.values())
        rows["key"] = list(self.losses)
        means = effects(self.trained)
        names = {"expected_utility": "reward", "kl_to_reference": "kl", "unobserved_mass": "unobserved",
                 "win_logp_change": "win", "lose_logp_change": "lose"}  # fmt: skip
        return rows.join(means[list(names)].rename(columns=names), on="key")

    def charts(self) -> list[Chart]:
        """Return the charts: per loss the map of ρ, the map of directions and a step; then the trainings of all."""
        found: list[Chart] = []
        for name, loss in self.losses.items():
            seen = measured(loss)
            parts = (pictures.ratio_map(seen), pictures.sign_map(seen), pictures.step_field(seen))
            found += [replace(part, title=f"{name}:{part.title.rpartition(':')[2]}") for part in parts]
        names = list(self.losses)
        of_betas = [
            pictures.frontier_chart(self.trained, names, value) for value in ("expected_utility", "unobserved_mass")
        ]
        return [*found, *of_betas, pictures.effect_bars(effects(self.trained).loc[names])]

    def figure(self) -> Figure:
        """Return all charts as one figure, three in a row."""
        return drawn(self.charts())

    def _repr_html_(self) -> str:
        image = io.BytesIO()
        with mpl.rc_context(style()):
            self.figure().savefig(image, format="png", dpi=110)
        words = html.escape(f"Maps and trainings of {', '.join(self.losses)}")
        png = base64.b64encode(image.getvalue()).decode()
        shown = self.table[["key", "rho", "start", "winner_down", "loser_up", "optimum", "bounded",
                            "reward", "kl", "unobserved", "win", "lose"]]  # fmt: skip
        text = shown.to_html(index=False, float_format=lambda number: f"{number:.3g}", border=0)
        return f'{text}<img src="data:image/png;base64,{png}" alt="{words}" style="max-width: 100%">'


@steady("cpu")
def compare(
    losses: Iterable[Loss | str],
    *,
    seeds: int = 3,
    betas: Sequence[float] = BETAS,
    training: Training = TRAINING,
    **world: Any,
) -> Comparison:
    """Train losses in the lab on the spot, as they are and over β, and put them beside each other.

    losses    losses, or their names, see ``table``; at least one.
    seeds     worlds, numbered from 0: 20 prompts, 20 responses, a fifth of the responses unobserved.
    betas     the grid of a loss that has a field ``beta``; another loss is one point.
    training  how to train; the default is 300 steps of Adam on 100 labelled pairs per prompt.
    world     further arguments of ``gaussian_world``, such as ``length=10`` tokens, on average; without it responses
              have one token.

    ValueError or TypeError for something that is no loss, and for numbers out of range. A training whose policy stops
    being finite is NaN in the frame.
    """
    chosen = _named(losses_of(losses))
    if not chosen:
        raise ValueError("losses must hold at least one loss, got none")
    numbers = list(range(count("seeds", seeds, least=1, most=1000)))
    grid = [positive("betas", beta) for beta in betas]
    worlds = [gaussian_world(**{"mask_rate": MASK_RATE, **world}, seed=seed) for seed in numbers]
    found = []
    for name, loss in chosen.items():
        has_beta = any(field.name == "beta" for field in fields(loss))  # type: ignore[arg-type]
        runs = [("published", "base", loss)] + [("grid", "beta", replace(loss, beta=beta)) for beta in grid if has_beta]  # type: ignore[type-var]
        for preset, factor, trained in runs:
            beta = float(getattr(trained, "beta", np.nan))
            rows = ended(trained_paths(trained, worlds, training, numbers))
            found.append(rows.assign(loss=name, preset=preset, factor=factor, beta=beta, level=beta))
    return Comparison(chosen, pd.concat(found, ignore_index=True))


def _named(losses: list[Loss]) -> dict[str, Loss]:
    keys = [loss.name for loss in losses]
    named = {}
    for loss in losses:
        name = loss.name
        if keys.count(name) > 1:
            numbers = ", ".join(f"{field.name} {getattr(loss, field.name):g}" for field in fields(loss))  # type: ignore[arg-type]
            name = f"{name}: {numbers}"
        if name in named:
            raise ValueError(f"losses must differ, got {name} twice")
        named[name] = loss
    return named

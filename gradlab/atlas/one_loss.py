"""The workbench: everything that the atlas says of a loss, for a loss of one's own, trained on the spot."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

from gradlab.atlas.against_dpo import Verdict, verdict
from gradlab.atlas.comparison import BETAS, TRAINING, Comparison, compare
from gradlab.atlas.rows import Loss, losses_of
from gradlab.checks import count
from gradlab.lab.training import Training
from gradlab.losses import DPO, BatchLoss, PairLoss

SEEDS = 8
LENGTHS = {"length": 10.0, "length_spread": 0.5}  # tokens, of the worlds of a loss that reads lengths


@dataclass(frozen=True, eq=False)
class Workbench:
    """A loss seen with the eyes of the atlas: its row, its trainings beside DPO's, and its verdict.

    Notebooks show the table, the figure and the verdict.
    """

    loss: Loss
    comparison: Comparison
    verdict: Verdict

    @property
    def row(self) -> pd.Series:
        """The loss's row in the atlas, with the effects of these trainings."""
        return self.comparison.table.iloc[0]

    def frontier(self) -> pd.DataFrame:
        """Return reward and KL as β moves, means over seeds: one row per loss and β, β falling."""
        rows = self.comparison.trained.query("preset == 'grid'")
        values = ["expected_utility", "kl_to_reference", "unobserved_mass"]
        means = rows.groupby(["loss", "beta"], sort=False, as_index=False)[values].mean()
        return means.sort_values(["loss", "beta"], ascending=[True, False], ignore_index=True)

    def _repr_html_(self) -> str:
        return f"{self.comparison._repr_html_()}<p>{self.verdict.sentence}</p>"


def workbench(loss: PairLoss | str, *, seeds: int = SEEDS, training: Training = TRAINING) -> Workbench:
    """Return a loss's row in the atlas, its trainings beside DPO's, and its verdict.

    loss      any ``PairLoss``, or its name, which stands for the loss as published.
    seeds     worlds, numbered from 0, four or more: 20 prompts, 20 responses, a fifth of them unobserved. Where the
              loss reads lengths, responses have 10 tokens on average, with a spread of a half; else one each.
    training  how to train; the default is 300 steps of Adam on 100 labelled pairs per prompt.

    DPO is trained at the β of the loss, or at 1, at half of that, and over the β of ``compare``. ValueError, in one
    line, for what is no loss of pairs and for numbers out of range.
    """
    (chosen,) = losses_of([loss])
    if isinstance(chosen, BatchLoss):
        raise ValueError(f"loss must be a loss of pairs, got {chosen!r}, a loss of batches")
    count("seeds", seeds, least=4, most=1000)
    beta = float(getattr(chosen, "beta", 1.0)) if any(one.name == "beta" for one in fields(chosen)) else 1.0  # type: ignore[arg-type]
    against = [chosen] if chosen == DPO(beta) else [chosen, DPO(beta)]
    betas = sorted({*BETAS, beta, beta / 2})
    seen = compare(against, seeds=seeds, betas=betas, training=training, **world_of(chosen))
    names = list(seen.losses)
    return Workbench(chosen, seen, verdict(seen.trained, names[0], names[-1]))


def world_of(loss: Loss) -> dict[str, Any]:
    """Return what the worlds in which a loss is judged have beside the usual: lengths, if it reads them."""
    return dict(LENGTHS) if getattr(loss, "needs_lengths", False) else {}

"""The frame of trainings, one row per run, as the atlas reads it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from gradlab.arrays import check_columns

VALUES = (
    "expected_utility", "kl_to_reference", "unobserved_mass", "win_logp_change", "lose_logp_change", "rest_logp_change",
)  # fmt: skip
COLUMNS = ("loss", "preset", "beta", "factor", "level", "seed", *VALUES)
_CELL = {"reference": "uniform", "policy": "free"}  # of the trainings shown, where a frame has several
_FACTORS = {"published": "base", "grid": "beta"}  # of the trainings shown, by their preset


def trainings(trained: pd.DataFrame | Path | str) -> pd.DataFrame:
    """Return a frame of trainings, given as such or by its file; OSError or ValueError for another frame or file.

    Each row is one run: ``loss`` (key), ``preset`` ("published": with the numbers that the source sets; "grid": over
    β), ``beta``, ``factor`` ("base", "beta" or what is varied), ``level``, ``seed``, and at the end of training
    ``expected_utility``, ``kl_to_reference``, ``unobserved_mass``, and the mean changes of log π in nats since the
    start: ``win_logp_change``, ``lose_logp_change`` and ``rest_logp_change`` (all that is outside of a pair).
    """
    if not isinstance(trained, pd.DataFrame):
        from gradlab.store.artifacts import load_frame

        trained, _ = load_frame(Path(trained))
    check_columns("trained", trained, COLUMNS)
    return trained


def effects(trained: pd.DataFrame) -> pd.DataFrame:
    """Return the means over seeds of the trainings as published, one row per loss, which is the index."""
    return shown(trained, "published").groupby("loss", sort=False)[list(VALUES)].mean()


def frontier(trained: pd.DataFrame, loss: str) -> pd.DataFrame:
    """Return the means over seeds of a loss's trainings over the grid of β: one row per β, falling.

    A loss without β has one row, as published, whose β is NaN.
    """
    frame = trained[trained["loss"] == loss]
    chosen = shown(frame, "grid")
    if not len(chosen):
        chosen = shown(frame, "published")
        chosen = chosen[chosen["beta"].isna()]
    means = chosen.groupby("beta", as_index=False, dropna=False)[list(VALUES)].mean()
    return means.sort_values("beta", ascending=False, ignore_index=True)


def shown(trained: pd.DataFrame, preset: str) -> pd.DataFrame:
    """Return the trainings of a preset that are shown: with a uniform reference, free logits and no factor varied.

    preset  "published", or "grid": over β.

    A frame that lacks one of the columns ``reference``, ``policy`` and ``factor`` has nothing else in this respect.
    """
    for column, value in {"preset": preset, "factor": _FACTORS[preset], **_CELL}.items():
        if column in trained:
            trained = trained[trained[column] == value]
    return trained

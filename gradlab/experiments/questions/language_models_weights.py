"""How much of the imbalance of language models does bDPO correct, and how far does length explain its weights?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from gradlab.experiments.contrasts import Contrast, Judged, Unit, judged
from gradlab.experiments.questions import ratios
from gradlab.experiments.questions.language_models_runs import RUN, SHORT, TASKS, setting
from gradlab.theory import bdpo_share_corrected

POLICIES = {"bdpo": "bDPO's policy at the end", "reference": "the reference"}


def weighed(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return held-out pairs with ``imbalance`` |log(π_l/π_w)|, the ``share`` of it that bDPO corrects by the law,
    bDPO's ``weight`` λ_w of the winner, and the winner's ``length_share`` of tokens."""
    win, lose = (pairs[side].to_numpy(float) for side in ("win", "lose"))
    lengths = pairs["win_len"] / (pairs["win_len"] + pairs["lose_len"])
    return pairs.assign(
        imbalance=np.abs(lose - win), share=bdpo_share_corrected(win, lose), weight=lose / (win + lose),
        length_share=lengths,
    )  # fmt: skip


def length_explains(weights: pd.DataFrame) -> pd.DataFrame:
    """Return ``r2`` of λ_w on the winner's share of tokens, per run and policy."""

    def r2(run: pd.DataFrame) -> float:
        x, y = (run[name].to_numpy(float) for name in ("length_share", "weight"))
        return float(np.corrcoef(x, y)[0, 1] ** 2) if min(np.ptp(x), np.ptp(y)) > 0 else 0.0

    return _per_run(weights, "r2", r2)


def shares_along(logs: pd.DataFrame) -> pd.DataFrame:
    """Return the median ``share`` corrected along each training of bDPO, by the law at each batch's mean log π."""
    steps = logs[logs["method"] == "bdpo"].dropna(subset=["logp_win", "logp_lose"])
    steps = steps.assign(share=bdpo_share_corrected(steps["logp_win"].to_numpy(), steps["logp_lose"].to_numpy()))
    return _medians(steps)


def _medians(frame: pd.DataFrame) -> pd.DataFrame:
    return _per_run(frame, "share", lambda run: float(run["share"].median()))


def _per_run(frame: pd.DataFrame, name: str, measure: Callable[[pd.DataFrame], float]) -> pd.DataFrame:
    """Return a number per run and method in the column ``name``."""
    rows = [
        {**dict(zip([*RUN, "method"], key, strict=True)), name: measure(run)}
        for key, run in frame.groupby([*RUN, "method"], sort=False)
    ]
    return pd.DataFrame(rows)


def corrected(pairs: pd.DataFrame, logs: pd.DataFrame) -> list[Judged]:
    """Say how much of DPO's imbalance bDPO takes away in language models, and how far length explains λ_w."""
    weights = weighed(pairs[pairs["method"].isin(list(POLICIES))])
    shares, explained = _medians(weights[weights["imbalance"] > 0]), length_explains(weights)
    common = {"claim": "ratio-corrected", "baseline": None, "by": ("task", "size"), "margin": ratios.MARGIN,
              "role": "context"}  # fmt: skip

    def share(method: str, what: str, label: str) -> Contrast:
        return Contrast(
            statement=f"the share corrected {what}, {setting(pairs)}", method=method, value="share", label=label,
            unit=Unit("percent of DPO's imbalance", 100, 1), better=f"bDPO corrects {{size}} {what}, language models",
            worse=f"bDPO adds {{size}} {what}, language models", **common,
        )  # fmt: skip

    rows = _with_means(shares, "share", [
        share(method, f"in the median held-out pair under {words}", words) for method, words in POLICIES.items()
    ])  # fmt: skip
    what = "in the median step of bDPO's trainings, at a batch's mean log π"
    rows += _with_means(shares_along(logs), "share", [share("bdpo", what, "bDPO's trainings")])
    return rows + _with_means(explained, "r2", [
        Contrast(
            statement=f"how much of λ_w's variance length explains, held-out pairs under {words}, {setting(pairs)}",
            method=method, value="r2", label=f"length, {words}", unit=Unit("percent of λ_w's variance", 100, 1),
            better=f"the winner's share of tokens explains {{size}} in held-out pairs under {words}, language models",
            worse=f"the winner's share of tokens explains {{size}} in held-out pairs under {words}, language models",
            **common,
        )
        for method, words in POLICIES.items()
    ])  # fmt: skip


def _with_means(frame: pd.DataFrame, name: str, contrasts: list[Contrast]) -> list[Judged]:
    """Return the answers, with the number's mean by task as a note."""
    rows = list[Judged]()
    for contrast, row in zip(contrasts, judged(frame, contrasts, {"task": TASKS}), strict=True):
        means = frame[frame["method"] == contrast.method].groupby("task")[name].mean()
        said = ", ".join(f"{means[task]:.2g} ({words})" for task, words in SHORT.items())
        rows.append(replace(row, note=f"{'Mean R²' if name == 'r2' else 'Median share corrected'}: {said}."))
    return rows

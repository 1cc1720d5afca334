"""Does the logged gradient ratio follow π_l/π_w during training?

For derivatives with respect to the two probabilities it must (an identity). What moves a policy are parameter
gradients and realised steps: do they follow too? Claim: log-ratio.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, Scan, judged
from gradlab.experiments.experiment import Experiment
from gradlab.experiments.methods import train
from gradlab.lab.gradient_log import PAIRS_PER_RUN
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world

TRAINING = Training(optimizer="adam", learning_rate=0.05, steps=500, pairs=100, record=1, gradients=True)
SETTINGS: dict[str, Any] = {
    "methods": ["dpo", "bdpo"],
    "mask_rates": [0.0, 0.2],
    "policies": ["free", "shared"],
    "training": TRAINING,
    "seeds": 10,
    "rows_per_step": 16,  # pairs that are kept of the 64 sampled per step and run
}
QUICK: dict[str, Any] = {"seeds": 2, "training": TRAINING.but(steps=100), "mask_rates": [0.2]}

# A ratio follows π_l/π_w where its logarithm grows with log(π_l/π_w) at slope 1 within this tolerance.
TOLERANCE = 0.2
ROUNDING = 1e-9
RATIOS = {
    "prob_ratio": "∂L/∂π (identity)",
    "grad_norm": "parameter gradient of a pair's two sides",
    "side_norm": "parameter gradient of a prompt's two sides",
    "realised": "realised change of log π in a step",
}


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part per method, mask rate and policy."""
    shared = {key: settings[key] for key in ("training", "seeds", "rows_per_step")}
    return [
        {"method": method, "mask_rate": mask_rate, "policy": policy, **shared}
        for policy in settings["policies"]
        for mask_rate in settings["mask_rates"]
        for method in settings["methods"]
    ]


def run_part(
    method: str, mask_rate: float, policy: str, training: Training, seeds: int, rows_per_step: int
) -> pd.DataFrame:
    """Return the gradient log as logarithms of ratios winner : loser, beside log(π_l/π_w)."""
    worlds = [gaussian_world(mask_rate=mask_rate, seed=seed) for seed in range(seeds)]
    fitted = train(method, worlds, training.but(policy=policy), seeds=range(seeds))
    log = fitted.gradients
    assert log is not None  # it was asked for
    # Every few rows, not the first rows: the sample is sorted by prompt.
    place = log.groupby(["run", "step"]).cumcount()
    log = log[place % (PAIRS_PER_RUN // rows_per_step) == 0]

    def log_ratio(win: str, lose: str) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.log(np.abs(log[win].to_numpy())) - np.log(np.abs(log[lose].to_numpy()))
        return np.where(np.isfinite(ratio), ratio, np.nan)

    return pd.DataFrame({
        "method": method, "mask": mask_rate, "policy": policy, "seed": log["run"].to_numpy(),
        "step": log["step"].to_numpy(),
        "log_lose_win": (log["log_lose"] - log["log_win"]).to_numpy(), "win_weight": log["win_weight"].to_numpy(),
        "prob_ratio": log["log_prob_ratio"].to_numpy(), "grad_norm": log_ratio("grad_norm_win", "grad_norm_lose"),
        "side_norm": log_ratio("side_norm_win", "side_norm_lose"), "realised": log_ratio("delta_win", "delta_lose"),
    })  # fmt: skip


def slopes(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the least-squares slope of each log ratio on log(π_l/π_w), per run, steps pooled, in the column ``slope``.

    ``slack`` is TOLERANCE − |slope − 1|: positive where the ratio follows. The column ``method`` names the ratio.
    """
    rows = []
    for key, run in frame.groupby(["method", "mask", "policy", "seed"], sort=False):
        for name in RATIOS:
            pairs = run[["log_lose_win", name]].dropna().to_numpy()
            slope = np.polyfit(pairs[:, 0], pairs[:, 1], 1)[0]
            cell = dict(zip(["trained", "mask", "policy", "seed"], key, strict=True))
            rows.append({**cell, "method": name, "slope": slope, "slack": TOLERANCE - abs(slope - 1)})
    return pd.DataFrame(rows)


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Judge whether each ratio follows π_l/π_w during DPO training; for the derivative in π it is an identity."""
    exact = Scan(
        "log-ratio", "∂L/∂π: the ratio is π_l/π_w, in every logged pair of DPO training", "error", ("mask", "policy"),
        ROUNDING, "method == 'dpo'", identity=True,
    )  # fmt: skip
    found = slopes(frame)
    means = found[found["trained"] == "dpo"].groupby("method")["slope"].mean()
    contrasts = [
        Contrast(
            claim="log-ratio", method=name, baseline=None, value="slack", by=("mask", "policy"), margin=0.02,
            statement=f"{words} follows π_l/π_w in DPO training (slope 1 ± {TOLERANCE:g}); mean slope "
            f"{means[name]:.2f}, effect: {TOLERANCE:g} − |slope − 1|",
            where="trained == 'dpo'", role="robustness",
        )
        for name, words in RATIOS.items()
        if name != "prob_ratio"
    ]  # fmt: skip
    errors = frame.assign(error=frame["prob_ratio"] - frame["log_lose_win"])
    return [*judged(errors, [exact]), *judged(found, contrasts)]


CAPTIONS = {
    "log-ratio": (
        "Gradient log of DPO and bDPO training, pairs of all seeds and steps (mask 0.2, free logits). x axis: "
        "log(π_l/π_w); y axis: the logarithm of the ratio winner : loser of four quantities. On the dashed diagonal "
        "the ratio follows π_l/π_w, as the derivative of DPO with respect to the probabilities must; a flat cloud "
        "means that what moves the policy does not share that imbalance."
    )
}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw clouds of the four ratios, DPO above bDPO."""
    rows = frame[(frame["policy"] == "free") & (frame["mask"] == frame["mask"].max())]
    return {"log-ratio": plotting.clouds(rows, "log_lose_win", RATIOS, label=r"$\log(\pi_l/\pi_w)$")}


EXPERIMENT = Experiment(
    name="log-ratio",
    settings=SETTINGS,
    quick=QUICK,
    parts=parts,
    run_part=run_part,
    verdict=verdict,
    figures=figures,
    captions=CAPTIONS,
)

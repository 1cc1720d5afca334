"""Does the logged gradient ratio follow π_l/π_w during training?

For derivatives with respect to the two probabilities it does, by definition. What moves a policy are parameter
gradients and realised steps: do their ratios correlate with π_l/π_w, and do they grow in proportion? Claim: log-ratio.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, Role, Scan, Unit, judged
from gradlab.experiments.experiment import FIRST_SEED, Experiment
from gradlab.experiments.methods import seeds_from, train
from gradlab.experiments.precision import Endpoint, runs_to_add
from gradlab.lab.gradient_log import PAIRS_PER_RUN
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world
from gradlab.stats.population import named
from gradlab.stats.precision import Design

TRAINING = Training(optimizer="adam", learning_rate=0.05, steps=500, pairs=100, record=1, gradients=True)
SETTINGS: dict[str, Any] = {
    "methods": ["dpo", "bdpo"],
    "mask_rates": [0.0, 0.2],
    "policies": ["free", "shared"],
    "training": TRAINING,
    "first_seed": FIRST_SEED,
    # DPO, which is judged, has this many seeds, and gets blocks up to the cap where a cell is too wide.
    "seeds": 24,
    "block": 24,
    "cap": 240,
    "other_seeds": 6,
    "rows_per_step": 16,  # pairs that are kept of the 64 sampled per step and run
}
QUICK: dict[str, Any] = {
    "first_seed": 0, "seeds": 2, "block": 2, "cap": 4, "other_seeds": 2, "training": TRAINING.but(steps=100),
    "mask_rates": [0.2],
}  # fmt: skip

MARGIN = 0.1  # of a correlation: less counts as none
# A ratio follows π_l/π_w in proportion where its logarithm grows with log(π_l/π_w) at slope 1 within this tolerance.
TOLERANCE = 0.2
ROUNDING = 1e-9
RATIOS = {
    "prob_ratio": "∂L/∂π (identity)",
    "grad_norm": "parameter gradient of a pair's two sides",
    "side_norm": "parameter gradient of a prompt's two sides",
    "realised": "realised change of log π in a step",
}
_SUBJECTS = {
    "grad_norm": "the log ratio of a pair's two parameter gradients",
    "side_norm": "the log ratio of the gradients of all winning and all losing sides of a prompt",
    "realised": "the log ratio of a pair's two realised changes of log π",
}


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part per method, mask rate and policy."""
    return [
        _part(settings, method, mask_rate, policy, 0, settings["seeds" if method == "dpo" else "other_seeds"])
        for policy in settings["policies"]
        for mask_rate in settings["mask_rates"]
        for method in settings["methods"]
    ]


def more(frame: pd.DataFrame, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the next block of seeds of each cell in which the correlation is not yet precise enough."""
    design = Design(MARGIN, 1, settings["seeds"], settings["block"], settings["cap"])
    cell = ("mask", "policy")
    asked = runs_to_add(
        fits(frame[frame["method"] == "dpo"]), [Endpoint("r", "grad_norm", None, cell, design)], cell
    )  # fmt: skip
    return [
        _part(settings, "dpo", row["mask"], row["policy"], row["seeds"], row["more"])
        for row in asked.to_dict("records")
    ]


def _part(
    settings: dict[str, Any], method: str, mask_rate: float, policy: str, before: int, seeds: int
) -> dict[str, Any]:
    """Return a part with so many seeds, after those ``before``."""
    return {
        "method": method, "mask_rate": mask_rate, "policy": policy, "training": settings["training"],
        "first_seed": settings["first_seed"] + before, "seeds": seeds, "rows_per_step": settings["rows_per_step"],
    }  # fmt: skip


def run_part(
    method: str, mask_rate: float, policy: str, training: Training, first_seed: int, seeds: int, rows_per_step: int
) -> pd.DataFrame:
    """Return the gradient log as logarithms of ratios winner : loser, beside log(π_l/π_w)."""
    drawn = seeds_from(first_seed, seeds)
    worlds = [gaussian_world(mask_rate=mask_rate, seed=seed) for seed in drawn]
    fitted = train(method, worlds, training.but(policy=policy), seeds=drawn)
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
        "method": method, "mask": mask_rate, "policy": policy, "seed": first_seed + log["run"].to_numpy(),
        "step": log["step"].to_numpy(),
        "log_lose_win": (log["log_lose"] - log["log_win"]).to_numpy(), "win_weight": log["win_weight"].to_numpy(),
        "prob_ratio": log["log_prob_ratio"].to_numpy(), "grad_norm": log_ratio("grad_norm_win", "grad_norm_lose"),
        "side_norm": log_ratio("side_norm_win", "side_norm_lose"), "realised": log_ratio("delta_win", "delta_lose"),
    })  # fmt: skip


def fits(frame: pd.DataFrame) -> pd.DataFrame:
    """Return how each log ratio goes with log(π_l/π_w), per run, with all steps and pairs of the run pooled.

    Columns: trained (the loss), mask, policy, seed, method (the ratio), ``r`` (Pearson's correlation) and ``excess``
    (the least-squares slope minus 1). A ratio that does not vary has r = 0.
    """
    rows = []
    for key, run in frame.groupby(["method", "mask", "policy", "seed"], sort=False):
        for name in RATIOS:
            x, y = run[["log_lose_win", name]].dropna().to_numpy().T
            x, y = x - x.mean(), y - y.mean()
            sizes = np.sqrt((x**2).sum() * (y**2).sum())
            cell = dict(zip(["trained", "mask", "policy", "seed"], key, strict=True))
            correlation = (x * y).sum() / sizes if sizes else 0.0
            rows.append({**cell, "method": name, "r": correlation, "excess": (x * y).sum() / (x**2).sum() - 1})
    return pd.DataFrame(rows)


def _check_log(frame: pd.DataFrame, rows_per_step: int) -> None:
    """Raise ValueError where a step of a run has more or fewer rows, or a ratio is infinite."""
    numbers = ["log_lose_win", *RATIOS]
    step = ["method", "mask", "policy", "seed", "step"]
    rows = frame.assign(rows=frame.groupby(step)["step"].transform("size"))
    wrong = rows.loc[(rows["rows"] != rows_per_step).to_numpy()]
    if len(wrong):
        found = wrong.sort_values(step)
        raise ValueError(
            f"frame must have {rows_per_step} rows per step of a run, got {found['rows'].iloc[0]} at "
            f"{named(step, found)}"
        )
    wrong = frame.loc[frame[numbers].isin([np.inf, -np.inf]).any(axis=1)]
    if len(wrong):
        raise ValueError(f"frame must have no infinity in {', '.join(numbers)}, got one at {named(step, wrong)}")


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Judge whether the ratios correlate with π_l/π_w during DPO training, and whether they follow in proportion.

    Judged is one number per run and ratio, over all rows of the run: ``r``, Pearson's correlation of the ratio's
    logarithm (the column named by the method) with log_lose_win, and ``excess``, the least-squares slope minus 1.
    ``trained`` is the frame's method. ``error`` of the identity is prob_ratio − log_lose_win.
    """
    _check_log(frame, settings["rows_per_step"])
    found = fits(frame)
    means = 1 + found[found["trained"] == "dpo"].groupby("method")["excess"].mean()
    slopes = means.map("{:.2f}".format).str.replace("-", "−")
    shared: dict[str, Any] = {"claim": "log-ratio", "baseline": None, "by": ("mask", "policy"),
                              "where": "trained == 'dpo'"}  # fmt: skip

    def correlates(name: str, role: Role) -> Contrast:
        words = f"{_SUBJECTS[name]} {{}} log(π_l/π_w)"
        slope = f"with slope {slopes[name]} where 1 would follow it"
        return Contrast(
            statement=f"{RATIOS[name]}: its log ratio correlates with log(π_l/π_w) in DPO training",
            label=RATIOS[name], method=name, value="r", margin=MARGIN, unit=Unit("", 1, 2), role=role,
            better=f"{words.format('correlates with')} at r = {{size}}, {slope}",
            worse=f"{words.format('correlates with')} at r = −{{size}}, {slope}",
            same=f"{words.format('does not correlate with')}: r is within {{margin}} of 0", **shared,
        )  # fmt: skip

    def in_proportion(name: str) -> Contrast:
        words = f"{_SUBJECTS[name]}, over log(π_l/π_w), has a slope"
        return Contrast(
            statement=f"{RATIOS[name]}: its log ratio follows log(π_l/π_w) at slope 1 ± {TOLERANCE:g} in DPO training",
            label=f"slope of the {RATIOS[name]}", method=name, value="excess", margin=TOLERANCE, unit=Unit("", 1, 2),
            role="context", better=f"{words} {{size}} above 1", worse=f"{words} {{size}} below 1, where 1 is in "
            "proportion", same=f"{words} of 1, within {{margin}}: it follows in proportion", **shared,
        )  # fmt: skip

    exact = Scan(
        claim="log-ratio", statement="∂L/∂π: the ratio is π_l/π_w, in every logged pair of DPO training",
        label="derivative by π", value="error", by=("mask", "policy"), tolerance=ROUNDING, where="method == 'dpo'",
        identity=True, role="context", proof="log-ratio",
        holds="the ratio of the derivatives by π_w and π_l is π_l/π_w by definition, so it shows nothing",
        fails="the ratio of the derivatives by π_w and π_l is not π_l/π_w in every logged pair",
    )  # fmt: skip
    errors = frame.assign(error=frame["prob_ratio"] - frame["log_lose_win"])
    contrasts = [
        correlates("grad_norm", "primary"), correlates("side_norm", "robustness"),
        correlates("realised", "robustness"), *map(in_proportion, _SUBJECTS),
    ]  # fmt: skip
    levels = {"mask": settings["mask_rates"], "policy": settings["policies"]}
    return [*judged(found, contrasts, levels), *judged(errors, [exact])]


CAPTIONS = {
    "log-ratio": (
        "Gradient log of DPO and bDPO training, pairs of all seeds and steps (mask 0.2, free logits). x axis: "
        "log(π_l/π_w); y axis: the logarithm of the ratio winner : loser of four quantities. A slope is that of the "
        "drawn cloud; CLAIMS.md has the mean over runs, of shared parameters and mask 0 too. On the dashed diagonal "
        "the ratio follows π_l/π_w, as the derivative of DPO with respect to the probabilities must by definition. A "
        "cloud that rises more slowly correlates with π_l/π_w without being in proportion; a flat one means that what "
        "moves the policy does not share that imbalance."
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
    more=more,
)

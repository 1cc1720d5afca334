"""Do the two sides of a training of language models follow π_l/π_w, in gradients and in realised changes?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from gradlab.experiments.contrasts import Contrast, Judged, Unit, judged
from gradlab.experiments.questions import log_ratio
from gradlab.experiments.questions.language_models_runs import RUN, TASKS, setting

RATIOS = {
    "grad_norm": "parameter gradient of a batch's two sides",
    "delta": "realised change of log π of a batch in a step",
}
_SUBJECTS = {"grad_norm": "gradients of a batch's two sides", "delta": "realised changes of a batch's two sides"}


def side_ratios(logs: pd.DataFrame) -> pd.DataFrame:
    """Return the logged steps that have gradients of both sides, with ``log_lose_win`` and logarithms of ``RATIOS``.

    A ratio is winner : loser of a batch; it is NaN where a side is 0 or absent.
    """
    rows = logs.dropna(subset=["grad_norm_win", "grad_norm_lose"])
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            name: np.log(np.abs(rows[f"{name}_win"].to_numpy(float)))
            - np.log(np.abs(rows[f"{name}_lose"].to_numpy(float)))
            for name in RATIOS
        }
    found = {name: np.where(np.isfinite(values), values, np.nan) for name, values in found.items()}
    return rows[[*RUN, "method", "step"]].assign(log_lose_win=rows["logp_lose"] - rows["logp_win"], **found)


def fits(logs: pd.DataFrame) -> pd.DataFrame:
    """Return ``r`` and ``excess`` of each run of DPO and ratio, which ``method`` names, as in ``log_ratio.fits``."""
    rows = []
    ratios = side_ratios(logs[logs["method"] == "dpo"])
    for key, run in ratios.groupby(RUN, sort=False):
        for name in RATIOS:
            points = run[["log_lose_win", name]].dropna().to_numpy(float)
            run_name = " ".join(map(str, key))
            if len(points) < 3:
                raise ValueError(f"{name} needs three logged steps or more, {run_name} has {len(points)}")
            if np.ptp(points[:, 0]) == 0:
                raise ValueError(
                    f"log(π_l/π_w) must vary over a run's logged steps, {run_name} has {points[0, 0]:g} in all of its "
                    f"{len(points)}"
                )
            slope = float(np.polyfit(points[:, 0], points[:, 1], 1)[0])
            r = float(np.corrcoef(points.T)[0, 1]) if np.ptp(points[:, 1]) > 0 else 0.0
            rows.append({**dict(zip(RUN, key, strict=True)), "method": name, "excess": slope - 1, "r": r})
    return pd.DataFrame(rows)


def followed(logs: pd.DataFrame) -> list[Judged]:
    """Judge whether parameter gradients and realised changes follow π_l/π_w in DPO training."""
    found = fits(logs)
    rows = list[Judged]()
    slopes = 1 + found.groupby("method")["excess"].mean()
    for name, words in RATIOS.items():
        common = {"claim": "log-ratio", "method": name, "baseline": None, "by": ("task", "size")}
        subject = f"in language models the log ratio of the {_SUBJECTS[name]}"
        slope = f"{slopes[name]:.2f}".replace("-", "−")
        rows += judged(found, [
            Contrast(
                statement=f"{words}: its log ratio correlates with log(π_l/π_w) in DPO training, {setting(found)}",
                value="r", margin=log_ratio.MARGIN, role="robustness", label=f"{words}, language models",
                unit=Unit("", 1, 2), better=f"{subject} correlates with log(π_l/π_w) at r = {{size}}, slope {slope}",
                worse=f"{subject} correlates with log(π_l/π_w) at r = −{{size}}, slope {slope}",
                same=f"{subject} does not correlate with log(π_l/π_w): r is within {{margin}} of 0", **common,
            ),
            Contrast(
                statement=f"{words}: its log ratio follows log(π_l/π_w) at slope 1 ± {log_ratio.TOLERANCE:g} in DPO "
                f"training, {setting(found)}", value="excess", margin=log_ratio.TOLERANCE, role="context",
                label=f"slope of the {words}, language models", unit=Unit("", 1, 2),
                better=f"{subject}, over log(π_l/π_w), has a slope {{size}} above 1",
                worse=f"{subject}, over log(π_l/π_w), has a slope {{size}} below 1, where 1 is in proportion",
                same=f"{subject}, over log(π_l/π_w), has a slope of 1, within {{margin}}: it follows in proportion",
                **common,
            ),
        ], {"task": TASKS})  # fmt: skip
    return rows

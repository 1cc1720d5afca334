"""What is read from the frame of the experiment on sampling: settled points, and trainings at β = 1."""

from __future__ import annotations

import pandas as pd

WEIGHTS = ("wpo", "importance", "importance, plain", "importance, clipped")  # samplers that weigh pairs, and draw none


def settled_means(frame: pd.DataFrame) -> pd.DataFrame:
    """Return each cell's and seed's mean of ``kl_uniform`` over prompts, where every seed of the cell has one.

    DPO at β = ½ is there as "fixed λ=0.5", and DPO at β = 1 as itself.
    """
    points = frame[(frame["kind"] == "point") & (frame["sampler"] != "uniform")]
    points = points[~((points["sampler"] == "reference") & (points["reference"] == "uniform"))]
    keys = ["method", "sampler", "reference", "scale"]
    points = points.assign(method=points["method"].mask(points["beta"] == 0.5, "fixed λ=0.5"))
    means = points.groupby([*keys, "seed"], as_index=False)["kl_uniform"].mean()
    whole = means.groupby(keys)["kl_uniform"].transform(lambda values: values.notna().all())
    return means[whole].astype({"kl_uniform": float})


def at_beta_one(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the ends at β = 1 by method, with DPO at β = ½ and bDPO at β = 2 as the controls that they are."""
    ends = frame[frame["kind"] == "end"]
    controls = {("dpo", 0.5): "fixed λ=0.5", ("bdpo", 2.0): "bdpo at 2β"}
    named = [
        ends[(ends["method"] == loss) & (ends["beta"] == beta)].assign(method=name)
        for (loss, beta), name in controls.items()
    ]
    found = pd.concat([ends[ends["beta"] == 1], *named])
    return found.assign(weights=found["sampler"].isin(WEIGHTS).astype(int))


def less_imbalance(ends: pd.DataFrame) -> pd.DataFrame:
    """Return the ends of other samplers with how much more imbalance, and how much less correction, uniform has."""
    keys, values = ["method", "reference", "data", "moved", "seed"], ["imbalance", "imbalance_all", "corrected"]
    even = ends[(ends["sampler"] == "uniform") & (ends["frozen"] == 0)][[*keys, *values]]
    both = ends[ends["sampler"] != "uniform"].merge(even, on=keys, suffixes=("", "_uniform"), validate="many_to_one")
    both = both[~((both["sampler"] == "reference") & (both["reference"] == "uniform"))]
    return both.assign(**{f"less_{name}": both[f"{name}_uniform"] - both[name] for name in values})

"""The figures of the experiment on sampling."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.questions.sampling_frames import at_beta_one, settled_means
from gradlab.experiments.questions.sampling_runs import ARRIVED
from gradlab.plotting import SamplerPanel, Series

_NAMES = {
    "uniform": "uniform", "mixture": "mixture, α = ½", "reference": "from the reference", "tempered": "temperature 2",
    "on-policy": "on-policy", "top-k": "top 10", "rejection": "rejection (RSO)", "pilaf": "PILAF", "mix-r": "mix-R",
    "mix-p": "mix-P", "best-worst": "best/worst of 4",
}  # fmt: skip
_REFERENCES = {"uniform": "uniform reference", "shifted": "shifted reference"}
_METHODS = {
    "dpo": Series("DPO", "#000000", "o"),
    "bdpo": Series("bDPO", "#D55E00", "s"),
}
_EFFECTS = {
    "uniform": Series("uniform reference", "#332288", "o"),
    "shifted": Series("shifted reference", "#AA4499", "^", filled=False),
}
_SPEED = {
    "uniform": {"label": "uniform", "color": "#000000", "linestyle": "-", "marker": "o"},
    "on-policy": {"label": "on-policy", "color": "#0072B2", "linestyle": "--", "marker": "^"},
    "best-worst": {"label": "best/worst of 4", "color": "#999933", "linestyle": ":", "marker": "v"},
    "mix-p, closed-form step": {"label": "mix-P, not normalised", "color": "#CC6677", "linestyle": "-", "marker": "D"},
}

CAPTIONS: dict[str, str] = {
    "sampling-settled": (
        "Where bDPO settles with exact labels: KL from where it settles under uniform sampling, on a logarithmic axis; "
        "means over seeds of the prompts that settle under both, with 95% intervals. Columns: bDPO at β = 1 for R = 1, "
        "2 and 4. Hollow marks: bDPO at 2β. In the grey part KL is below 1e-3. To the right stands the share of cases "
        "of bDPO at β = 1, both references, that settle at all. DPO is not drawn: in every settled case it is within "
        "1e-9 of one policy."
    ),
    "sampling-imbalance": (
        "Left and middle: the mean of |log π_l/π_w| over the pairs that a step sees, averaged along training, with "
        "exact labels and with 100 fixed hard-labelled pairs per prompt. Right: the share of a pair's imbalance that "
        "bDPO's weights correct, 1 − |1 − 1/LM|; of DPO, what they would correct on its policy. DPO and bDPO side by "
        "side, β = 1, 95% intervals over seeds, mostly narrower than the marks. Samplers are in the order of DPO's "
        "imbalance with exact labels."
    ),
    "sampling-benefit": (
        "What bDPO gains under each sampler, in points of the reachable reward, with 95% intervals over seeds: bDPO − "
        "DPO at β = 1 with exact labels, then with 100 fixed pairs per prompt, which is judged; then, with these "
        "pairs, the controls that could explain it away. In the grey band are differences that do not matter. At "
        "equal KL: a mean over the levels from 0.25 to 2 nats that both reach."
    ),
    "sampling-convergence": (
        "KL from where the loss settles against steps of gradient descent with exact labels and free logits, both "
        "axes logarithmic (steps linear up to 1), each sampler at that of six learning rates which arrives first. "
        "Where the right digits double from step to step, convergence is quadratic. A line that rises again has a "
        "rate that is too large to stay. Dashed: KL = 1e-3, where a training counts as arrived."
    ),
}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw where bDPO settles, imbalance and share corrected, what bDPO gains, and convergence."""
    return {
        "sampling-settled": _settled(frame),
        "sampling-imbalance": _imbalance(frame),
        "sampling-benefit": _benefit(frame),
        "sampling-convergence": _convergence(frame),
    }


def _settled(frame: pd.DataFrame) -> Figure:
    means, points = settled_means(frame), frame[(frame["kind"] == "point") & (frame["method"] == "bdpo")]
    means = means[means["method"].isin(("bdpo", "bdpo at 2β"))].rename(columns={"kl_uniform": "value"})
    means = means.assign(series=means["method"].where(means["method"] != "bdpo", "bdpo") + " " + means["reference"])
    looks = {
        f"{method} {name}": Series(f"{label}, {name} reference", one.color, one.marker, filled=method == "bdpo")
        for method, label in (("bdpo", "bDPO"), ("bdpo at 2β", "bDPO at 2β")) for name, one in _EFFECTS.items()
    }  # fmt: skip
    shares = points.groupby(["scale", "sampler"])["settled"].mean()
    order = [name for name in _NAMES if name in set(points["sampler"]) and name != "uniform"]
    panels = [
        SamplerPanel(means[means["scale"] == scale], f"R = {scale:g}", "KL (nats)", log=True, margin=ARRIVED,
                     notes={name: f"{shares[scale, name]:.0%}" for name in order})
        for scale in sorted(points["scale"].unique())
    ]  # fmt: skip
    return plotting.by_sampler(panels, {name: _NAMES[name] for name in order}, looks, columns=3)


def _ends(frame: pd.DataFrame, data: str) -> pd.DataFrame:
    ends = at_beta_one(frame)
    judged = (ends["data"] == data) & (ends["frozen"] == 0) & (ends["moved"] == 0)
    return ends[judged & ends["reference"].isin(_REFERENCES) & ends["sampler"].isin(_NAMES)]


def _imbalance(frame: pd.DataFrame) -> Figure:
    fixed, exact = (_ends(frame, data) for data in ("100", "population"))
    order = exact[exact["method"] == "dpo"].groupby("sampler")["imbalance"].mean().sort_values().index
    label = "mean |log π_l/π_w| (nats)"
    panels = [
        SamplerPanel(_series(ends, value), title, label)
        for ends, value, title, label in (
            (exact, "imbalance", "imbalance, exact labels", label),
            (fixed, "imbalance", "imbalance, 100 fixed pairs", label),
            (exact, "corrected", "share corrected, exact labels", "1 − |1 − 1/LM|"),
        )
    ]
    looks = {
        f"{method} {name}": Series(f"{one.label}, {name} reference", one.color, one.marker, filled=name == "uniform")
        for method, one in _METHODS.items() for name in _REFERENCES
    }  # fmt: skip
    return plotting.by_sampler(panels, {name: _NAMES[str(name)] for name in order}, looks, columns=3)


def _series(ends: pd.DataFrame, value: str) -> pd.DataFrame:
    rows = ends[ends["method"].isin(_METHODS)]
    return rows.assign(value=rows[value], series=rows["method"] + " " + rows["reference"])


_DIFFERENCES = {
    "bDPO − DPO,\n100 pairs": ("bdpo", "dpo"),
    "bDPO −\nDPO at β/2": ("bdpo", "fixed λ=0.5"),
    "bDPO at 2β\n− DPO": ("bdpo at 2β", "dpo"),
    "bDPO −\npermuted λ": ("bdpo", "permuted λ"),
}


def _benefit(frame: pd.DataFrame) -> Figure:
    ends, exact, margin = _ends(frame, "100"), _ends(frame, "population"), 1.0
    keys = ["sampler", "reference", "seed"]
    first = "bDPO − DPO,\nexact labels"
    panels = [SamplerPanel(_difference(exact, keys, "bdpo", "dpo"), first, "points", margin=margin)]
    for title, (method, baseline) in _DIFFERENCES.items():
        panels.append(SamplerPanel(_difference(ends, keys, method, baseline), title, "points", margin=margin))
    levels = frame[frame["kind"] == "level"]
    at_kl = _difference(levels, [*keys, "level"], "bdpo", "dpo")
    at_kl = at_kl.groupby([*keys, "series"], as_index=False)[["value"]].mean()
    panels.append(SamplerPanel(at_kl, "bDPO − DPO,\nequal KL", "points", margin=margin))
    order = [name for name in _NAMES if name in set(ends["sampler"])]
    return plotting.by_sampler(panels, {name: _NAMES[name] for name in order}, _EFFECTS, columns=6)


def _difference(rows: pd.DataFrame, keys: list[str], method: str, baseline: str) -> pd.DataFrame:
    first, second = (rows[rows["method"] == name].set_index(keys)["utility_share"] for name in (method, baseline))
    values = pd.DataFrame({"value": 100 * (first - second)}).dropna().reset_index()
    return values.assign(series=values["reference"])


def _convergence(frame: pd.DataFrame) -> Figure:
    curves = frame[frame["kind"] == "curve"]
    panels = {}
    for method, title in (("dpo", "DPO"), ("bdpo", "bDPO")):
        rows = curves[curves["method"] == method]
        scale = rows["scale"].max()
        here = rows[(rows["scale"] == scale) & (rows["reference"] == "uniform")]
        panels[f"{title}, R = {scale:g}, uniform reference"] = {
            name: here[here["sampler"] == name] for name in _SPEED if name in set(here["sampler"])
        }
    return plotting.convergence(panels, _SPEED, ARRIVED)

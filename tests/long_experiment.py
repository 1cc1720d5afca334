"""A small long experiment, for tests: four parts of two rows, of which its sample picks two."""

import pandas as pd
from matplotlib.figure import Figure

from gradlab.experiments.contrasts import Contrast, Unit, judged
from gradlab.experiments.experiment import Experiment

CLAIM = "two-sides"


def parts(settings):
    return [{"number": number, "seeds": settings["seeds"]} for number in range(4)]


def sample(settings):
    return parts(settings)[::2]


def run_part(number, seeds):
    rows = [
        {"number": number, "seed": seed, "method": method, "value": 0.01 * seed + (method == "bdpo")}
        for seed in range(seeds)
        for method in ("dpo", "bdpo")
    ]
    return pd.DataFrame(rows).astype({"value": "float32"})


CONTRAST = Contrast(
    claim=CLAIM, statement="value, bDPO against DPO", method="bdpo", baseline="dpo", value="value", by=("number",),
    margin=0.1, unit=Unit("points", 1, 0), label="bDPO", better="bDPO has {size} more", worse="bDPO has {size} less",
)  # fmt: skip


def verdict(frame, settings):
    """Judge the value of both methods."""
    return judged(frame, [CONTRAST])


def figures(frame):
    figure = Figure()
    figure.subplots().plot(frame["value"])
    return {"two-sides": figure}


EXPERIMENT = Experiment(
    "long", {"seeds": 4}, {"seeds": 2}, parts, run_part, verdict, figures, {"two-sides": "Values."}, version=1,
    sample=sample,
)  # fmt: skip

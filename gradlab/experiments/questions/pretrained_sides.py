"""What the logs and weights of runs on a pretrained model say: both sides' gradients, λ_w, and spikes of the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from gradlab.experiments.contrasts import Contrast, Unit
from gradlab.experiments.questions import log_ratio, ratios
from gradlab.experiments.questions.atlas import KEPT, KEPT_MARGIN
from gradlab.experiments.questions.atlas_band import FELL
from gradlab.experiments.questions.language_models_sides import RATIOS, fits, side_ratios
from gradlab.experiments.questions.language_models_spikes import SPIKE_MARGIN, in_more_runs, spike_counts
from gradlab.experiments.questions.language_models_weights import length_explains, weighed
from gradlab.experiments.questions.pretrained_comparisons import NAMES, Asked
from gradlab.experiments.questions.pretrained_runs import REFERENCE, SHORT, TASKS, Runs, of_task
from gradlab.theory import side_moves

ADDED = (
    "Added when the runs on openings of known reward had been looked at, before any training on real pairs had been."
)
LARGER = log_ratio.TOLERANCE  # of log(‖g_l‖/‖g_w‖): a side that is larger by a fifth or less counts as equal
_OVER = "on {}, pretrained model, the losers' gradient over the winners' is in bDPO's batches"


def asked() -> list[Asked]:
    """Return all statements, in the order of their claims."""
    return [*_followed(), *_larger_side(), *_in_the_band(), *_weights(), *_spikes()]


def _followed() -> list[Asked]:
    """Return the statements of the claim *log-ratio*, on the logged steps of DPO's trainings."""
    rows = list[Asked]()
    for task, where in TASKS.items():

        def frame(runs: Runs, task: str = task) -> pd.DataFrame:
            logs = of_task(runs.logs, task)
            return fits(logs[logs["method"] == "dpo"])

        for name, words in RATIOS.items():
            subject = f"on {where}, pretrained model, the log ratio of the {words} {{}} log(π_l/π_w)"
            common: dict[str, Any] = {"claim": "log-ratio", "method": name, "baseline": None, "by": ("task",),
                                      "unit": Unit("", 1, 2)}  # fmt: skip
            rows += [
                Asked(contrast, task, ("dpo",), frame) for contrast in (
                    Contrast(
                        statement=f"pretrained model, {where}: the log ratio of the {words} correlates with "
                        "log(π_l/π_w) in DPO training", value="r", margin=log_ratio.MARGIN, role="robustness",
                        label=f"{words}, pretrained model, {where}",
                        better=f"{subject.format('correlates with')} at r = {{size}}",
                        worse=f"{subject.format('correlates with')} at r = −{{size}}",
                        same=f"{subject.format('does not correlate with')}: r is within {{margin}} of 0", **common,
                    ),
                    Contrast(
                        statement=f"pretrained model, {where}: the log ratio of the {words} follows log(π_l/π_w) at "
                        f"slope 1 ± {log_ratio.TOLERANCE:g}", value="excess", margin=log_ratio.TOLERANCE,
                        role="context", label=f"slope of the {words}, pretrained model, {where}",
                        better=f"{subject.format('over')} has a slope {{size}} above 1",
                        worse=f"{subject.format('over')} has a slope {{size}} below 1, where 1 is in proportion",
                        same=f"{subject.format('over')} has a slope of 1, within {{margin}}", **common,
                    ),
                )
            ]  # fmt: skip
    return rows


def side_steps(logs: pd.DataFrame) -> pd.DataFrame:
    """Return what the logged steps that compare both sides of a batch say, one row per task, method and seed.

    ``larger``  the mean of log(‖g_l‖/‖g_w‖), above 0 where the losers' parameter gradient is the larger one;
    ``inside``  the share of steps in which both sides lie in the band of ``gradlab.theory.band``, R > −C and 1/R > −C;
    ``kept``    of those, the share in which the mean log π of the step's own winners did not fall; NaN without any.
    """
    steps = side_ratios(logs.dropna(subset=["grad_cosine"])).assign(
        **{name: logs[name] for name in ("grad_norm_win", "grad_norm_lose", "grad_cosine", "delta_win")}
    )
    norms = (steps[name].to_numpy(float) for name in ("grad_norm_win", "grad_norm_lose", "grad_cosine"))
    inside = np.minimum(*side_moves(*norms)) > 0
    kept = np.where(inside, steps["delta_win"] >= -FELL, np.nan)
    steps = steps.assign(larger=-steps["grad_norm"], inside=inside.astype(float), kept=kept)
    return steps.groupby(["task", "method", "seed"], sort=False)[["larger", "inside", "kept"]].mean().reset_index()


def _steps_of(task: str, *methods: str) -> Callable[[Runs], pd.DataFrame]:
    def frame(runs: Runs) -> pd.DataFrame:
        logs = of_task(runs.logs, task)
        return side_steps(logs[logs["method"].isin(methods)])

    return frame


def _larger_side() -> list[Asked]:
    """Return the statements on which side has the larger gradient: under DPO, and whether bDPO changes that."""
    rows = list[Asked]()
    for task, where in TASKS.items():
        said = f"on {where}, pretrained model, the losers' parameter gradient in DPO's batches is"
        alone = Contrast(
            claim="log-ratio", method="dpo", baseline=None, value="larger", by=("task",), margin=LARGER,
            unit=Unit("in the logarithm", 1, 2), role="context",
            label=f"which side's gradient is larger, {SHORT[task]}",
            statement=f"pretrained model, {where}: in DPO's batches the losers' parameter gradient is larger than the "
            "winners'",
            better=f"{said} larger than the winners', by {{size}}",
            worse=f"{said} smaller than the winners', by {{size}}",
            same=f"{said} as large as the winners', within {{margin}} (the difference is {{size}})",
        )  # fmt: skip
        against = replace(
            alone, claim="ratio-corrected", method="bdpo", baseline="dpo", lower_is_better=True,
            label=f"both sides' gradients, {SHORT[task]}",
            statement=f"pretrained model, {where}: the losers' parameter gradient, over the winners', is smaller in "
            "bDPO's batches than in DPO's",
            better=f"{_OVER.format(where)} smaller, by {{size}}",
            worse=f"{_OVER.format(where)} larger, by {{size}}",
            same=f"{_OVER.format(where)} the same, within {{margin}} (the difference is {{size}})",
        )  # fmt: skip
        rows += [
            Asked(alone, task, ("dpo",), _steps_of(task, "dpo")),
            Asked(against, task, ("dpo", "bdpo"), _steps_of(task, "dpo", "bdpo")),
        ]
    return rows


def _in_the_band() -> list[Asked]:
    """Return the statements on the band: how many of DPO's steps lie in it, and whether their own winners rise."""
    rows = list[Asked]()
    for task, where in TASKS.items():
        said = f"on {where}, pretrained model, both sides of DPO's batches lie in the band"
        share = Contrast(
            claim="pretrained-mass", method="dpo", baseline=None, value="inside", by=("task",), margin=KEPT_MARGIN,
            unit=Unit("percent of the steps", 100, 0), role="context", label=f"steps in the band, {SHORT[task]}",
            statement=f"pretrained model, {where}: both sides of DPO's batches lie in the band",
            better=f"{said} in {{size}}", worse=f"{said} in {{size}}",
        )  # fmt: skip
        told = f"on {where}, pretrained model, the winners of DPO's batches in the band keep from falling in {{size}}"
        kept = replace(
            share, claim="band-keeps-winner", value="above", unit=Unit("points of the steps", 100, 1),
            label=f"pretrained model, {SHORT[task]}",
            statement=f"pretrained model, {where}: in the band winners of DPO's batches keep from falling in more than "
            f"{KEPT:.0%} of the steps",
            better=f"{told} more than the {KEPT:.0%} asked for", worse=f"{told} less than the {KEPT:.0%} asked for",
        )  # fmt: skip

        def above(runs: Runs, task: str = task) -> pd.DataFrame:
            found = _steps_of(task, "dpo")(runs).dropna(subset=["kept"])
            return found.assign(above=found["kept"] - KEPT).iloc[: len(found) if len(found) > 1 else 0]

        rows += [Asked(share, task, ("dpo",), _steps_of(task, "dpo")), Asked(kept, task, ("dpo",), above)]
    return rows


def _weights() -> list[Asked]:
    """Return the statements of the claim *ratio-corrected*: the share corrected, and what length explains."""
    rows = list[Asked]()
    for task, where in TASKS.items():
        for method, words in {REFERENCE: "the reference", "bdpo": "bDPO's policy at the end"}.items():
            common: dict[str, Any] = {"claim": "ratio-corrected", "method": method, "baseline": None, "by": ("task",),
                                      "margin": ratios.MARGIN, "role": "context"}  # fmt: skip
            said = f"in the median held-out pair of {where} under {words}, pretrained model"
            explained = f"explains {{size}} on {where} under {words}, pretrained model"
            rows += [
                Asked(Contrast(
                    statement=f"the share corrected {said}", value="share", label=f"{words}, pretrained model, {where}",
                    unit=Unit("percent of DPO's imbalance", 100, 1), better=f"bDPO corrects {{size}} {said}",
                    worse=f"bDPO adds {{size}} {said}", **common,
                ), task, (method,), corrected_shares(task)),
                Asked(Contrast(
                    statement=f"how much of λ_w's variance length explains on {where} under {words}, pretrained model",
                    value="r2", label=f"length, {words}, pretrained model, {where}",
                    unit=Unit("percent of λ_w's variance", 100, 1),
                    better=f"the winner's share of tokens {explained}",
                    worse=f"the winner's share of tokens {explained}", **common,
                ), task, (method,), _explained(task)),
            ]  # fmt: skip
    return rows


def corrected_shares(task: str) -> Callable[[Runs], pd.DataFrame]:
    """Return what gives the share of the imbalance that bDPO corrects in the median held-out pair, per run."""

    def frame(runs: Runs) -> pd.DataFrame:
        weights = weighed(of_task(runs.pairs, task))
        found = weights[weights["imbalance"] > 0].groupby(["task", "method", "seed"], sort=False)["share"]
        return found.median().reset_index()

    return frame


def _explained(task: str) -> Callable[[Runs], pd.DataFrame]:
    return lambda runs: length_explains(weighed(of_task(runs.pairs, task)))


def _spikes() -> list[Asked]:
    """Return the statements of the claim *symmetric-unstable*: sudden spikes of the validation loss on real pairs."""

    def frame(runs: Runs) -> pd.DataFrame:
        logs = of_task(runs.logs, "hh")
        return spike_counts(logs[logs["method"].isin(["nbdpo-symmetric", "nbdpo", "dpo"])])

    return [
        Asked(Contrast(
            claim="symmetric-unstable", method="nbdpo-symmetric", baseline=baseline, value="spiked", by=("size",),
            statement="the validation loss of symmetric naive bDPO has a sudden spike in more runs than that of "
            f"{NAMES[baseline]}, pretrained model on real pairs", margin=SPIKE_MARGIN, where="task == 'hh'",
            unit=Unit("percentage points", 100, 0), role="robustness", label=f"{NAMES[baseline]}, pretrained model",
            better="on real pairs, pretrained model, the validation loss of symmetric naive bDPO has a sudden spike "
            f"in {{ours}}, and that of {NAMES[baseline]} in {{theirs}}",
        ), "hh", ("nbdpo-symmetric", baseline), frame, in_more_runs)
        for baseline in ("dpo", "nbdpo")
    ]  # fmt: skip

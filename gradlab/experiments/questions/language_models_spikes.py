"""Does the validation loss of symmetric nbDPO spike in more runs of language models than that of others?"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import replace

import numpy as np
import pandas as pd

from gradlab.doctor import SPIKE_EVALUATIONS, spikes
from gradlab.experiments.contrasts import Contrast, Judged, Role, Unit
from gradlab.experiments.questions.language_models_runs import BASELINES, RUN, SHORT, TASKS, setting
from gradlab.stats.counts import Count, difference_of_shares, runs_to_decide
from gradlab.stats.words import Evidence

SPIKE_MARGIN = 0.1  # of runs
_OF_RUNS, _MORE_RUNS = Unit("percent of runs", 100, 0), Unit("percentage points", 100, 0)
_Effect = tuple[float, float, float]  # a share of runs, or a difference of shares, with its 95% interval
_Cells = dict[tuple[Hashable, ...], _Effect]
_FEW = "A few small runs can show spikes, but never refute them"


def unstable(logs: pd.DataFrame) -> list[Judged]:
    """Judge whether the validation loss of symmetric nbDPO spikes in more runs than that of others."""
    counts = spike_counts(logs)

    def more_than(baseline: str, task: str, *, role: Role) -> Contrast:
        name = BASELINES[baseline]
        return Contrast(
            claim="symmetric-unstable", method="nbdpo-symmetric", baseline=baseline, value="spiked", by=("size",),
            statement="the validation loss of symmetric naive bDPO has a sudden spike in more runs than that of "
            f"{name}, {setting(counts, task)}", margin=SPIKE_MARGIN, unit=_MORE_RUNS, role=role,
            where=f"task == '{task}'", label=f"{name}, {SHORT[task]}",
            better=f"on {TASKS[task]} the validation loss of symmetric naive bDPO has a sudden spike in {{ours}}, and "
            f"that of {name} in {{theirs}}",
        )  # fmt: skip

    contrasts = [
        more_than("dpo", "hh", role="primary"), more_than("nbdpo", "hh", role="robustness"),
        *(more_than(baseline, "tokens", role="robustness") for baseline in ("dpo", "nbdpo")),
    ]  # fmt: skip
    calm = Contrast(
        claim="symmetric-unstable", method="dpo", baseline=None, value="spiked", by=("task", "size"),
        statement=f"DPO's own validation loss spikes too, {setting(counts)}", margin=SPIKE_MARGIN, unit=_OF_RUNS,
        role="context", label="DPO's own spikes", better="DPO's own validation loss spikes in {size}",
        worse="DPO's own validation loss spikes in {size}",
    )  # fmt: skip
    return [*(in_more_runs(counts, contrast) for contrast in contrasts), _in_any_run(counts, calm)]


def spike_counts(logs: pd.DataFrame) -> pd.DataFrame:
    """Count the ``spikes`` of each run's validation loss, without PPO's; ``spiked`` is 1 where it has any, else 0."""
    rows = []
    for key, run in logs[logs["method"] != "ppo"].groupby([*RUN, "method"], sort=False):
        there = run["validation_loss"].notna().sum()
        if there < SPIKE_EVALUATIONS:
            raise ValueError(
                f"validation_loss must have {SPIKE_EVALUATIONS} values per run or more, {' '.join(map(str, key))} has "
                f"{there}"
            )
        found = len(spikes(run["step"], run["validation_loss"]))
        cell = dict(zip([*RUN, "method"], key, strict=True))
        rows.append({**cell, "spikes": float(found), "spiked": float(found > 0)})
    return pd.DataFrame(rows)


def in_more_runs(counts: pd.DataFrame, contrast: Contrast) -> Judged:
    """Return in how many more runs of the method than of the baseline there is a spike, by size and in all."""
    contrast.differences(counts)  # the door: both methods have the same runs
    rows = counts.query(contrast.where)
    ours, theirs = (rows[rows["method"] == name] for name in (contrast.method, contrast.baseline))

    def compared(size: str | None) -> _Effect:
        both = [_count(side if size is None else side[side["size"] == size]) for side in (ours, theirs)]
        return both[0].share - both[1].share, *difference_of_shares(*both)

    all_ours, all_theirs = _count(ours), _count(theirs)
    sizes = list(ours["size"].unique())
    more = runs_to_decide(all_ours, all_theirs, contrast.target)
    note = f"{_FEW}: {more:,} runs of each method would tell the difference to ± {contrast.unit.size(contrast.target)}"
    cells: _Cells = {(size,): compared(size) for size in sizes}
    said = contrast.better.format(ours=_hits(all_ours), theirs=_hits(all_theirs))
    answer = _of_counts(replace(contrast, better=said, worse=said), compared(None), cells, ours, note)
    return replace(answer, needs=math.ceil(more / len(sizes)) if answer.word == "undecided" else 0)


def _in_any_run(counts: pd.DataFrame, contrast: Contrast) -> Judged:
    """Return in how many runs of the method there is a spike."""
    ours = counts[counts["method"] == contrast.method]
    cells = {key: _share(_count(cell)) for key, cell in ours.groupby(list(contrast.by), sort=False)}
    return _of_counts(contrast, _share(_count(ours)), cells, ours, f"{_hits(_count(ours))} with a spike")


def _of_counts(
    contrast: Contrast, every: _Effect, cells: _Cells,
    runs: pd.DataFrame, note: str,
) -> Judged:  # fmt: skip
    """Return the answer from effects with their intervals; ``holds on average`` where the whole one lies above 0."""
    effect, low, high = every
    table = pd.DataFrame(
        list(cells.values()),
        columns=["effect", "low", "high"],
        index=pd.MultiIndex.from_tuples(cells, names=contrast.by),
    ).reset_index()
    at = contrast.margin
    decided = [table["low"] > at, table["high"] < -at, (table["low"] > -at) & (table["high"] < at)]
    seeds = runs.groupby(list(contrast.by), sort=False).size().to_numpy()
    table = table.assign(
        state=np.select(decided, ["for", "against", "none"], "undecided"), reversed=table["high"] < 0, seeds=seeds
    )
    answer = Judged(contrast, Evidence(), "undecided", table, int(seeds.min()), effect, low, high)
    return answer.ruled("holds on average" if low > 0 else "undecided", note)


def _count(runs: pd.DataFrame) -> Count:
    return Count(int(runs["spiked"].sum()), len(runs))


def _share(count: Count) -> _Effect:
    return count.share, *count.interval()


def _hits(count: Count) -> str:
    return f"{count.hits} of {count.runs} runs"

"""What do small language models, trained on real pairs and on a task of known reward, say about the paper's claims?

Judged from the frames of the laptop run (``make llm-demo``; ``gradlab.llm.demo.laptop_run`` has its settings). It
has two tasks: ``hh``, real pairs of HH-RLHF, and ``tokens``, synthetic pairs whose true reward is known. The rules were
committed before the run. A cell is a task and a size of model, unless something else is said; seeds are paired.
The pairs were held out one by one (``--hold-out pairs``), not by whole prompts: in the task of tokens nearly all
held-out pairs have a prompt that is trained on too, with other responses, of the real pairs hardly any.

- *symmetric-unstable*: the share of runs whose validation loss has a sudden spike, which ``gradlab.doctor.spikes``
  finds; symmetric nbDPO minus DPO, on real pairs, all sizes together. A run counts once, however many spikes it has.
  The 95% interval is that of ``gradlab.stats.counts``: exact limits of both shares, which have a width where nothing
  has happened. The claim *holds on average* where the interval lies above 0, and else is *undecided*: a few small runs
  can show spikes, but never refute them. The row says how many runs would tell the difference. Robustness: against
  asymmetric nbDPO, and both comparisons on the task of tokens. Context: DPO's spikes.
- *ablation*, robustness: win-rate of sampled responses against the reference's at the end of training, bDPO minus each
  other method. Context: the win-rate of each pair loss minus ½, that is, whether it beats the reference at all. Where a
  reward model judges, every row is *undecided* unless that model is better than chance and than length: the 95%
  interval of its accuracy on held-out pairs, a mean over all runs, must lie above ½ and above the score of the better
  of "prefer the shorter answer" and "prefer the longer answer" there (the interval is normal, for the held-out pairs of
  all seeds; sizes share them).
- *ppo*, robustness: win-rate of PPO minus DPO's on the task of tokens, where the true reward judges. On real pairs the
  judge is the reward model that PPO was trained on, so that row is context, and *undecided* whatever it shows.
- *log-ratio*, robustness: in each run of DPO, over its logged steps, the correlation r of a ratio's logarithm with
  log(π_l/π_w), the batch's mean. Context: the least-squares slope minus 1, which is 0 for a ratio that is π_l/π_w.
- *ratio-corrected*, context: by the law, bDPO corrects the share 1 − |1 − 1/LM| of a pair's imbalance, LM the
  logarithmic mean of −log π_w and −log π_l. The median share of a run's held-out pairs, under the policy that bDPO ends
  with and under the reference that it starts from; and along bDPO's trainings the law at each batch's mean
  log-probabilities, the median over steps. 1/LM is convex, so where LM ≥ 1 a batch's mean share is at least that. And
  R² of λ_w on the winner's share of tokens, one number per run; a share of tokens that is constant explains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.doctor import SPIKE_EVALUATIONS, spikes
from gradlab.experiments.contrasts import Contrast, Judged, Role, Unit, judged
from gradlab.experiments.experiment import Measurement
from gradlab.experiments.questions import log_ratio, ratios
from gradlab.stats.counts import Count, difference_of_shares, runs_to_decide
from gradlab.stats.words import Evidence
from gradlab.theory import bdpo_share_corrected

FILES = {name: f"llm/{name}.parquet" for name in ("evaluation", "logs", "pairs")}  # in the folder of the figures
COMMAND = "make llm-demo DATA=PAIRS KEEP=1"
TASKS = {"hh": "real pairs", "tokens": "the task of tokens"}
SHORT = {"hh": "real pairs", "tokens": "task of tokens"}  # in figures
REWARD_MODEL = "reward model"  # the judge whose accuracy is tested; the true reward needs no test
WIN_MARGIN = 0.02  # of win-rate
SPIKE_MARGIN = 0.1  # of runs
HALF = 0.5
BASELINES = {
    "nbdpo": "naive bDPO", "nbdpo-symmetric": "symmetric naive bDPO", "dpo": "DPO",
    "fixed-weight": "a constant λ = ½ (DPO at β/2)",
}  # fmt: skip
PAIR_LOSSES = {"bdpo": "bDPO", **BASELINES}
POLICIES = {"bdpo": "bDPO's policy at the end", "reference": "the reference"}
RATIOS = {
    "grad_norm": "parameter gradient of a batch's two sides",
    "delta": "realised change of log π of a batch in a step",
}
_SUBJECTS = {"grad_norm": "gradients of a batch's two sides", "delta": "realised changes of a batch's two sides"}
_WINS = Unit("points of win-rate", 100, 1)
_OF_RUNS, _MORE_RUNS = Unit("percent of runs", 100, 0), Unit("percentage points", 100, 0)
_RUN = ["task", "size", "seed"]
_NEEDED = {
    "evaluation": {*_RUN, "method", "judge", "win_rate", "pairs", "reward_accuracy", "shorter_accuracy"},
    "logs": {*_RUN, "method", "step", "validation_loss", "logp_win", "logp_lose",
             *(f"{name}_{side}" for name in RATIOS for side in ("win", "lose"))},
    "pairs": {*_RUN, "method", "win", "lose", "win_len", "lose_len"},
}  # fmt: skip
_Effect = tuple[float, float, float]  # a share of runs, or a difference of shares, with its 95% interval
_Cells = dict[tuple[Hashable, ...], _Effect]
_Z = 1.96  # of a 95% normal interval
_FEW = "A few small runs can show spikes, but never refute them"
_WEAK_JUDGE = "The reward model that judges is not above chance and length, so its win-rates decide nothing"
_TRAINED_ON = (
    "The reward model that judges is the one that PPO was trained on, so a higher win-rate shows only that PPO has "
    "followed it"
)


def verdict(frames: Mapping[str, pd.DataFrame]) -> list[Judged]:
    """Return all rows of all claims, from the frames ``evaluation``, ``logs`` and ``pairs`` of the laptop run.

    Raises ValueError where a frame lacks a column, or a run lacks values that a claim needs.
    """
    for name, needed in _NEEDED.items():
        if lacking := sorted(needed - set(frames[name])):
            raise ValueError(f"the frame {name} of the language models must have {', '.join(lacking)}")
    return [
        *unstable(frames["logs"]), *ablation(frames["evaluation"]), *ppo(frames["evaluation"]),
        *followed(frames["logs"]), *corrected(frames["pairs"], frames["logs"]),
    ]  # fmt: skip


# --- symmetric-unstable ---


def unstable(logs: pd.DataFrame) -> list[Judged]:
    """Judge whether the validation loss of symmetric nbDPO spikes in more runs than that of others."""
    counts = spike_counts(logs)

    def more_than(baseline: str, task: str, *, role: Role) -> Contrast:
        name = BASELINES[baseline]
        return Contrast(
            claim="symmetric-unstable", method="nbdpo-symmetric", baseline=baseline, value="spiked", by=("size",),
            statement="the validation loss of symmetric naive bDPO has a sudden spike in more runs than that of "
            f"{name}, {_setting(counts, task)}", margin=SPIKE_MARGIN, unit=_MORE_RUNS, role=role,
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
        statement=f"DPO's own validation loss spikes too, {_setting(counts)}", margin=SPIKE_MARGIN, unit=_OF_RUNS,
        role="context", label="DPO's own spikes", better="DPO's own validation loss spikes in {size}",
        worse="DPO's own validation loss spikes in {size}",
    )  # fmt: skip
    return [*(_in_more_runs(counts, contrast) for contrast in contrasts), _in_any_run(counts, calm)]


def spike_counts(logs: pd.DataFrame) -> pd.DataFrame:
    """Count the ``spikes`` of each run's validation loss, without PPO's; ``spiked`` is 1 where it has any, else 0."""
    rows = []
    for key, run in logs[logs["method"] != "ppo"].groupby([*_RUN, "method"], sort=False):
        there = run["validation_loss"].notna().sum()
        if there < SPIKE_EVALUATIONS:
            raise ValueError(
                f"validation_loss must have {SPIKE_EVALUATIONS} values per run or more, {' '.join(map(str, key))} has "
                f"{there}"
            )
        found = len(spikes(run["step"], run["validation_loss"]))
        cell = dict(zip([*_RUN, "method"], key, strict=True))
        rows.append({**cell, "spikes": float(found), "spiked": float(found > 0)})
    return pd.DataFrame(rows)


def _in_more_runs(counts: pd.DataFrame, contrast: Contrast) -> Judged:
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


# --- ablation ---


class Judge(NamedTuple):
    """The accuracy of the judge of win-rates: how often it prefers the preferred response of held-out pairs, ties ½."""

    name: str
    accuracy: float
    low: float
    high: float
    shorter: float
    pairs: int

    @property
    def counts(self) -> bool:
        """True if a verdict may rest on it: for the true reward, or above chance and above what length scores."""
        return self.name != REWARD_MODEL or self.low > max(0.5, self.shorter, 1 - self.shorter)

    def __str__(self) -> str:
        return (
            f"Judge: {self.name}, right on {self.accuracy:.1%} [{self.low:.1%}, {self.high:.1%}] of {self.pairs:,} "
            f"held-out pairs, “prefer the shorter answer” on {self.shorter:.1%}"
        )


def judge_of(evaluation: pd.DataFrame, task: str) -> Judge:
    """Return the judge of a task, over all its runs; sizes of a seed share its held-out pairs, which count once."""
    runs = evaluation[evaluation["task"] == task].drop_duplicates(_RUN)
    names = runs["judge"].unique()
    if len(names) != 1:
        raise ValueError(f"task {task} must have one judge, got {', '.join(map(str, names)) or 'none'}")
    of_seeds = runs.groupby("seed")[["reward_accuracy", "shorter_accuracy", "pairs"]].mean()
    pairs = of_seeds["pairs"].to_numpy()
    accuracy, shorter = (
        float(np.average(of_seeds[name], weights=pairs)) for name in ("reward_accuracy", "shorter_accuracy")
    )
    error = _Z * math.sqrt(accuracy * (1 - accuracy) / pairs.sum())
    return Judge(str(names[0]), accuracy, accuracy - error, accuracy + error, shorter, int(pairs.sum()))


def ablation(evaluation: pd.DataFrame) -> list[Judged]:
    """Judge whether bDPO wins more against the reference than each other method, and whether they beat it at all."""
    rows = list[Judged]()
    for task, where in TASKS.items():
        judge = judge_of(evaluation, task)
        common = {"claim": "ablation", "by": ("size",), "margin": WIN_MARGIN, "unit": _WINS,
                  "where": f"task == '{task}'"}  # fmt: skip
        against = [
            Contrast(
                method="bdpo", baseline=baseline, value="win_rate", role="robustness", label=f"{name}, {SHORT[task]}",
                statement=f"bDPO wins more often against the reference than {name}, {_setting(evaluation, task)}",
                better=f"on {where} bDPO wins against the reference more often than {name}, by {{size}}",
                worse=f"on {where} bDPO wins against the reference less often than {name}, by {{size}}", **common,
            )
            for baseline, name in BASELINES.items()
        ]  # fmt: skip
        at_all = [
            Contrast(
                method=method, baseline=None, value="above_half", role="context", label=f"{name}, {SHORT[task]}",
                statement=f"{name} beats the reference (win-rate above ½), {_setting(evaluation, task)}",
                better=f"on {where} {name} beats the reference, by {{size}} above ½",
                worse=f"on {where} {name} loses to the reference, by {{size}} below ½", **common,
            )
            for method, name in PAIR_LOSSES.items()
        ]  # fmt: skip
        frame = evaluation.assign(above_half=evaluation["win_rate"] - HALF)
        own = judged(frame, at_all, {"task": TASKS})
        rows += _with_judge(judged(frame, against), judge, "") + _with_judge(own, judge, _losing(own, task))
    return rows


def ppo(evaluation: pd.DataFrame) -> list[Judged]:
    """Judge whether PPO wins more against the reference than DPO; on real pairs its own reward model judges."""
    rows = list[Judged]()
    for task, where in TASKS.items():
        judge = judge_of(evaluation, task)
        known = judge.name != REWARD_MODEL
        contrast = Contrast(
            claim="ppo", method="ppo", baseline="dpo", value="win_rate", by=("size",), margin=WIN_MARGIN, unit=_WINS,
            statement=f"PPO wins more often against the reference than DPO, {_setting(evaluation, task)}",
            where=f"task == '{task}'", role="robustness" if known else "context", label=f"DPO, {SHORT[task]}",
            better=f"on {where} PPO wins against the reference more often than DPO, by {{size}}",
            worse=f"on {where} PPO wins against the reference less often than DPO, by {{size}}",
        )  # fmt: skip
        answer = contrast.judged(evaluation)
        rows.append(replace(answer, note=f"{judge}.") if known else answer.ruled("undecided", f"{_TRAINED_ON}."))
    return rows


def _with_judge(rows: list[Judged], judge: Judge, note: str) -> list[Judged]:
    """Return the answers with what their judge is worth; ``undecided`` where it is worth nothing."""
    note = f"{note}{judge}."
    if judge.counts:
        return [replace(row, note=note) for row in rows]
    return [row.ruled("undecided", f"{note} {_WEAK_JUDGE}.") for row in rows]


def _losing(rows: list[Judged], task: str) -> str:
    """Return in words how many of these win-rates lie below ½."""
    below, sure = (sum(end < 0 for end in ends) for ends in ([row.effect for row in rows], [row.high for row in rows]))
    which = f"All {below}" if below == len(rows) else f"{below} of {len(rows)}"
    return f"{which} pair losses lose to the reference on {TASKS[task]}, {sure} of them beyond chance. "


# --- log-ratio ---


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
    return rows[[*_RUN, "method", "step"]].assign(log_lose_win=rows["logp_lose"] - rows["logp_win"], **found)


def fits(logs: pd.DataFrame) -> pd.DataFrame:
    """Return ``r`` and ``excess`` of each run of DPO and ratio, which ``method`` names, as in ``log_ratio.fits``."""
    rows = []
    ratios = side_ratios(logs[logs["method"] == "dpo"])
    for key, run in ratios.groupby(_RUN, sort=False):
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
            rows.append({**dict(zip(_RUN, key, strict=True)), "method": name, "excess": slope - 1, "r": r})
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
                statement=f"{words}: its log ratio correlates with log(π_l/π_w) in DPO training, {_setting(found)}",
                value="r", margin=log_ratio.MARGIN, role="robustness", label=f"{words}, language models",
                unit=Unit("", 1, 2), better=f"{subject} correlates with log(π_l/π_w) at r = {{size}}, slope {slope}",
                worse=f"{subject} correlates with log(π_l/π_w) at r = −{{size}}, slope {slope}",
                same=f"{subject} does not correlate with log(π_l/π_w): r is within {{margin}} of 0", **common,
            ),
            Contrast(
                statement=f"{words}: its log ratio follows log(π_l/π_w) at slope 1 ± {log_ratio.TOLERANCE:g} in DPO "
                f"training, {_setting(found)}", value="excess", margin=log_ratio.TOLERANCE, role="context",
                label=f"slope of the {words}, language models", unit=Unit("", 1, 2),
                better=f"{subject}, over log(π_l/π_w), has a slope {{size}} above 1",
                worse=f"{subject}, over log(π_l/π_w), has a slope {{size}} below 1, where 1 is in proportion",
                same=f"{subject}, over log(π_l/π_w), has a slope of 1, within {{margin}}: it follows in proportion",
                **common,
            ),
        ], {"task": TASKS})  # fmt: skip
    return rows


# --- ratio-corrected ---


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
        {**dict(zip([*_RUN, "method"], key, strict=True)), name: measure(run)}
        for key, run in frame.groupby([*_RUN, "method"], sort=False)
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
            statement=f"the share corrected {what}, {_setting(pairs)}", method=method, value="share", label=label,
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
            statement=f"how much of λ_w's variance length explains, held-out pairs under {words}, {_setting(pairs)}",
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


# --- figures ---

CAPTIONS = {
    "llm-ablation": (
        "Language models at the end of training: how often their samples are preferred to the reference's, and how "
        "far they have moved from it (KL in nats per response, on an axis that is logarithmic beyond 1). Each method "
        "has filled marks for one size of model and hollow marks for the other; small dots are seeds, bars 95% t "
        "intervals over them (wide: there are few; those of KL are cut at 0, below which it cannot lie). Right of ½ a "
        "method beats the reference. A small reward "
        "model judges the real pairs: CLAIMS.md says how often it is right, and how often “prefer the shorter answer” "
        "is. The true reward judges the task of tokens. On real pairs PPO is judged by the reward model "
        "that it was trained on, so its win-rate there is no evidence. A method may win more because it moves farther. "
        "Pairs were held out one by one: nearly all prompts of the task of tokens are trained on too."
    ),
    "llm-log-ratio": (
        "Do the two sides of a language model's training follow π_l/π_w? One mark per logged step of DPO or bDPO, "
        "fainter for early steps, all sizes and seeds. x axis: log(π_l/π_w), the mean of the batch. y axis: the "
        "logarithm of the ratio winner : loser of the norms of both parameter gradients, and of the sizes of the "
        "changes of log π in that step. A ratio that follows lies on the dashed diagonal, at slope 1; a flat cloud "
        "means that it does not. Solid lines are least squares over all runs. The y axis may be stretched."
    ),
    "llm-validation": (
        "Validation loss of language models along training: one column per method, one row per task and size of model, "
        "one line per run; a seed has the same dashes in all panels. A ring marks a sudden spike, as gradlab.doctor "
        "defines it. The paper says that symmetric nbDPO spikes. All losses start at ln 2; each is a different "
        "function, so levels of different methods cannot be compared. Pairs were held out one by one: nearly all "
        "prompts of the task of tokens are trained on too."
    ),
    "llm-length": (
        "Balanced-DPO's weight of the winner, λ_w = log π_l/(log π_w + log π_l), against the winner's share of both "
        "responses' tokens, one mark per held-out pair, all seeds. On the dashed line λ_w is the loser's share of "
        "tokens and nothing else; R², a mean over runs, says how far the share of tokens explains λ_w. Pairs were held "
        "out one by one: nearly all prompts of the task of tokens are trained on too."
    ),
}


def figures(frames: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Draw win-rates, ratios of both sides, validation losses, and λ_w against length."""
    logs, evaluation = frames["logs"], frames["evaluation"]
    weights = weighed(frames["pairs"][frames["pairs"]["method"].isin(list(POLICIES))])
    ratios = side_ratios(logs)
    trained = evaluation[evaluation["method"] != "reference"]
    return {
        "llm-ablation": plotting.by_method(
            trained,
            {"win_rate": "win-rate against the reference", "kl": "KL from the reference (nats)"},
            tasks=SHORT, at={"win_rate": 0.5, "kl": 0.0}, far={"kl"},
        ),
        "llm-log-ratio": plotting.side_clouds(ratios[ratios["method"].isin(["dpo", "bdpo"])], RATIOS, tasks=SHORT),
        "llm-validation": plotting.validation_losses(_seen(logs), tasks=SHORT),
        "llm-length": plotting.weights_by_length(
            weights, tasks=SHORT, policies=POLICIES, explained=length_explains(weights)
        ),
    }  # fmt: skip


def _seen(logs: pd.DataFrame) -> pd.DataFrame:
    """Return the evaluations on held-out pairs, without PPO's, with a column ``spike``."""
    rows = logs[logs["validation_loss"].notna() & (logs["method"] != "ppo")]
    found = [
        run.assign(spike=run["step"].isin([step for step, _ in spikes(run["step"], run["validation_loss"])]))
        for _, run in rows.groupby([*_RUN, "method"], sort=False)
    ]
    return pd.concat(found)


# --- what they share ---


def _setting(frame: pd.DataFrame, task: str | None = None) -> str:
    """Return in words which models and pairs a statement is about."""
    sizes = " and ".join(dict.fromkeys(frame["size"]))
    return f"language models of {sizes} parameters{f' on {TASKS[task]}' if task else ''}"


MEASUREMENT = Measurement("language-models", FILES, COMMAND, verdict, figures, CAPTIONS)

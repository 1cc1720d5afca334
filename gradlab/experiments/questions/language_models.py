"""What do small language models, trained on real pairs and on a task of known reward, say about the paper's claims?

Judged from the frames of the laptop run (``make llm-demo``; ``gradlab.llm.demo.laptop_run`` has its settings). It
has two tasks: ``hh``, real pairs of HH-RLHF, and ``tokens``, synthetic pairs whose true reward is known. The rules were
committed before the run. A cell is a task and a size of model, unless something else is said; seeds are paired.
The pairs were held out one by one (``--hold-out pairs``), not by whole prompts: in the task of tokens 98% of the
held-out pairs have a prompt that is trained on too, with other responses, of the real pairs fewer than 1%.

- *symmetric-unstable*: the number of sudden spikes of a run's validation loss, which ``gradlab.doctor.spikes`` finds;
  symmetric nbDPO minus DPO, on real pairs. A few small runs can show such spikes but cannot refute them: a cell that
  says ``fails`` or ``no difference`` counts as ``inconclusive``. Controls: the number for symmetric nbDPO minus that
  for asymmetric nbDPO, both comparisons on the task of tokens, and whether DPO's runs are without spikes.
- *ablation*, controls: win-rate of sampled responses against the reference's at the end of training, bDPO minus each
  other method. Where a reward model judges, every cell is ``inconclusive`` unless that model is better than chance and
  than length: the 95% interval of its accuracy on held-out pairs, a mean over all runs, must lie above ½ and above the
  score of the better of "prefer the shorter answer" and "prefer the longer answer" there (the interval is normal, for
  the held-out pairs of all seeds; sizes share them).
- *log-ratio*, controls: a ratio follows π_l/π_w where its logarithm grows with log(π_l/π_w), the batch's mean, at slope
  1 within the experiment's tolerance; one least-squares slope per run of DPO, over its logged steps.
- *ratio-corrected*, controls: on held-out pairs, under the policy that bDPO ends with and under the reference that it
  starts from. A case is a pair, and its share corrected is 1 − |log of bDPO's ratio| / |log(π_l/π_w)|. Length explains
  λ_w by R² on the winner's share of tokens, one number per run; it explains nothing where that share is constant.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.doctor import SPIKE_EVALUATIONS, spikes
from gradlab.experiments.contrasts import Contrast, Judged, Role, Scan, judged
from gradlab.experiments.experiment import Measurement
from gradlab.experiments.questions.log_ratio import TOLERANCE
from gradlab.experiments.questions.ratios import HALF
from gradlab.stats.words import WORDS
from gradlab.theory import bdpo_log_rho, in_probabilities, share_corrected

FILES = {name: f"llm/{name}.parquet" for name in ("evaluation", "logs", "pairs")}  # in the folder of the figures
COMMAND = "make llm-demo DATA=PAIRS KEEP=1"
TASKS = {"hh": "real pairs", "tokens": "task of tokens"}
REWARD_MODEL = "reward model"  # the judge whose accuracy is tested; the true reward needs no test
WIN_MARGIN = 0.02  # of win-rate
SPIKE_MARGIN = 0.5  # fewer spikes per run count as no spikes
SLOPE_MARGIN = 0.02
LENGTH_MARGIN = 0.02  # of R²
BASELINES = {
    "nbdpo": "naive bDPO", "nbdpo-symmetric": "symmetric naive bDPO", "dpo": "DPO",
    "fixed-weight": "a constant λ = ½ (DPO at β/2)",
}  # fmt: skip
POLICIES = {"bdpo": "bDPO's policy at the end", "reference": "the reference"}
RATIOS = {
    "grad_norm": "parameter gradient of a batch's two sides",
    "delta": "realised change of log π of a batch in a step",
}
_RUN = ["task", "size", "seed"]
_NEEDED = {
    "evaluation": {*_RUN, "method", "judge", "win_rate", "pairs", "reward_accuracy", "shorter_accuracy"},
    "logs": {*_RUN, "method", "step", "validation_loss", "logp_win", "logp_lose",
             *(f"{name}_{side}" for name in RATIOS for side in ("win", "lose"))},
    "pairs": {*_RUN, "method", "win", "lose", "win_len", "lose_len"},
}  # fmt: skip
_Z = 1.96  # of a 95% normal interval


def verdict(frames: Mapping[str, pd.DataFrame]) -> list[Judged]:
    """Return all rows of all claims, from the frames ``evaluation``, ``logs`` and ``pairs`` of the laptop run.

    Raises ValueError where a frame lacks a column, or a run lacks values that a claim needs.
    """
    for name, needed in _NEEDED.items():
        if lacking := sorted(needed - set(frames[name])):
            raise ValueError(f"the frame {name} of the language models must have {', '.join(lacking)}")
    return [
        *unstable(frames["logs"]), *ablation(frames["evaluation"]), *followed(frames["logs"]),
        *corrected(frames["pairs"]),
    ]  # fmt: skip


# --- symmetric-unstable ---


def unstable(logs: pd.DataFrame) -> list[Judged]:
    """Judge whether the validation loss of symmetric nbDPO spikes more than that of others."""
    counts = spike_counts(logs)

    def more_than(baseline: str, task: str, *, role: Role) -> Contrast:
        ours, theirs = (_in_all(counts, task, method) for method in ("nbdpo-symmetric", baseline))
        return Contrast(
            "symmetric-unstable", "symmetric naive bDPO has more sudden spikes of the validation loss than "
            f"{BASELINES[baseline]}, {_setting(counts, task)}: {ours}, against {theirs}",
            "nbdpo-symmetric", baseline, "spikes", ("size",), SPIKE_MARGIN, f"task == '{task}'", role=role,
        )  # fmt: skip

    contrasts = [
        more_than("dpo", "hh", role="primary"), more_than("nbdpo", "hh", role="robustness"),
        *(more_than(baseline, "tokens", role="robustness") for baseline in ("dpo", "nbdpo")),
    ]  # fmt: skip
    calm = Contrast(
        "symmetric-unstable", f"DPO's own runs are without spikes (fewer than {SPIKE_MARGIN:g} a run), "
        f"{_setting(counts)}: {_in_all(counts, 'hh', 'dpo')} on real pairs, {_in_all(counts, 'tokens', 'dpo')} on the "
        "task of tokens", "dpo", None, "calm", ("task", "size"), SPIKE_MARGIN, role="context",
    )  # fmt: skip
    few = "a few small runs can show spikes, but never refute them"
    weak = ("reversed", "no practical difference", "mixed")
    return [*_undecided(judged(counts, contrasts), weak, few), *judged(counts, [calm])]


def spike_counts(logs: pd.DataFrame) -> pd.DataFrame:
    """Count the ``spikes`` of each run's validation loss, without PPO's; ``calm`` is SPIKE_MARGIN minus that number."""
    rows = []
    for key, run in logs[logs["method"] != "ppo"].groupby([*_RUN, "method"], sort=False):
        there = run["validation_loss"].notna().sum()
        if there < SPIKE_EVALUATIONS:
            raise ValueError(
                f"validation_loss must have {SPIKE_EVALUATIONS} values a run or more, {' '.join(map(str, key))} has "
                f"{there}"
            )
        found = len(spikes(run["step"], run["validation_loss"]))
        cell = dict(zip([*_RUN, "method"], key, strict=True))
        rows.append({**cell, "spikes": float(found), "calm": SPIKE_MARGIN - found})
    return pd.DataFrame(rows)


def _in_all(counts: pd.DataFrame, task: str, method: str) -> str:
    own = counts.loc[(counts["task"] == task) & (counts["method"] == method), "spikes"]
    return f"{own.sum():.0f} in {len(own)} runs"


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
        more = "" if self.counts else "; not above chance and length, so inconclusive whatever the win-rates"
        return (
            f"{self.name}, right on {self.accuracy:.1%} [{self.low:.1%}, {self.high:.1%}] of {self.pairs:,} held-out "
            f"pairs, “prefer the shorter answer” on {self.shorter:.1%}{more}"
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
    """Judge whether bDPO wins more against the reference than each other method, task by task."""
    rows = list[Judged]()
    for task in TASKS:
        judge = judge_of(evaluation, task)
        answers = judged(evaluation, [
            Contrast(
                "ablation", f"bDPO against {words}, win-rate against the reference, {_setting(evaluation, task)}; "
                f"judge: {judge}", "bdpo", baseline, "win_rate", ("size",), WIN_MARGIN, f"task == '{task}'",
                role="robustness",
            )
            for baseline, words in BASELINES.items()
        ])  # fmt: skip
        rows += answers if judge.counts else _undecided(answers, WORDS, "the judge is not above chance and length")
    return rows


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


def slopes(logs: pd.DataFrame) -> pd.DataFrame:
    """Return one slope per run of DPO and ratio: columns as in ``log_ratio.slopes``, with task and size."""
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
            cell = dict(zip(_RUN, key, strict=True))
            rows.append({**cell, "method": name, "slope": slope, "slack": TOLERANCE - abs(slope - 1)})
    return pd.DataFrame(rows)


def followed(logs: pd.DataFrame) -> list[Judged]:
    """Judge whether parameter gradients and realised changes follow π_l/π_w in DPO training."""
    found = slopes(logs)
    means = found.groupby("method")["slope"].mean()
    return judged(found, [
        Contrast(
            "log-ratio", f"{words} follows π_l/π_w in DPO training (slope 1 ± {TOLERANCE:g}), {_setting(found)}; mean "
            f"slope {means[name]:.2f}, effect: {TOLERANCE:g} − |slope − 1|", name, None, "slack", ("task", "size"),
            SLOPE_MARGIN, role="robustness",
        )
        for name, words in RATIOS.items()
    ])  # fmt: skip


# --- ratio-corrected ---


def weighed(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return held-out pairs with ``imbalance`` |log(π_l/π_w)|, ``share`` of it that bDPO corrects, ``half`` (that share
    minus HALF), bDPO's ``weight`` λ_w of the winner, and the winner's ``length_share`` of tokens."""
    win, lose = (pairs[side].to_numpy(float) for side in ("win", "lose"))
    share = share_corrected(in_probabilities(bdpo_log_rho(win, lose), win, lose), win, lose)
    lengths = pairs["win_len"] / (pairs["win_len"] + pairs["lose_len"])
    return pairs.assign(
        imbalance=np.abs(lose - win), share=share, half=share - HALF, weight=lose / (win + lose), length_share=lengths
    )


def length_explains(weights: pd.DataFrame) -> pd.DataFrame:
    """Return R² of λ_w on the winner's share of tokens, per run and policy; ``unexplained`` is HALF minus R²."""
    rows = []
    for key, run in weights.groupby([*_RUN, "method"], sort=False):
        x, y = (run[name].to_numpy(float) for name in ("length_share", "weight"))
        r2 = float(np.corrcoef(x, y)[0, 1] ** 2) if min(np.ptp(x), np.ptp(y)) > 0 else 0.0
        rows.append({**dict(zip([*_RUN, "method"], key, strict=True)), "r2": r2, "unexplained": HALF - r2})
    return pd.DataFrame(rows)


def corrected(pairs: pd.DataFrame) -> list[Judged]:
    """Judge how much of DPO's imbalance bDPO takes away on held-out pairs, and how far length explains λ_w."""
    weights = weighed(pairs[pairs["method"].isin(list(POLICIES))])
    explained = length_explains(weights)
    rows = list[Judged]()
    for method, words in POLICIES.items():
        case = f"held-out pairs of language models under {words}, {_setting(pairs)}"
        own = weights[(weights["method"] == method) & (weights["imbalance"] > 0)]
        scan = Scan(
            "ratio-corrected", f"bDPO takes away at least half of DPO's imbalance, {case}; median share corrected: "
            f"{own['share'].median():.1%}", "half", ("task", "size"), role="robustness",
        )  # fmt: skip
        r2 = explained[explained["method"] == method].groupby("task")["r2"].mean()
        length = Contrast(
            "ratio-corrected", f"λ_w is more than a share of length, which explains less than {HALF:.0%} of its "
            f"variance, {case}; mean R²: {', '.join(f'{r2[task]:.2f} ({words})' for task, words in TASKS.items())}",
            method, None, "unexplained", ("task", "size"), LENGTH_MARGIN, role="robustness",
        )  # fmt: skip
        rows += [*judged(own, [scan]), *judged(explained, [length])]
    return rows


# --- figures ---

CAPTIONS = {
    "llm-ablation": (
        "Language models at the end of training: how often their samples are preferred to the reference's, and how "
        "far they have moved from it (KL in nats per response, on an axis that is logarithmic beyond 1). Each method "
        "has filled marks for one size of model and hollow marks for the other; small dots are seeds, bars 95% t "
        "intervals over them (wide: there are few). Right of ½ a method beats the reference. A small reward "
        "model judges the real pairs: CLAIMS.md says how often it is right, and how often “prefer the shorter answer” "
        "is. The true reward judges the task of tokens. A method may win more because it moves farther. Pairs were "
        "held out one by one: nearly all prompts of the task of tokens are trained on too."
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
            tasks=TASKS, at={"win_rate": 0.5, "kl": 0.0}, far={"kl"},
        ),
        "llm-log-ratio": plotting.side_clouds(ratios[ratios["method"].isin(["dpo", "bdpo"])], RATIOS, tasks=TASKS),
        "llm-validation": plotting.validation_losses(_seen(logs), tasks=TASKS),
        "llm-length": plotting.weights_by_length(
            weights, tasks=TASKS, policies=POLICIES, explained=length_explains(weights)
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


def _undecided(rows: list[Judged], words: Collection[str], note: str) -> list[Judged]:
    """Return the answers with these words as ``undecided``, and why."""
    return [replace(row, word="undecided", note=note) if row.word in words else row for row in rows]


MEASUREMENT = Measurement("language-models", FILES, COMMAND, verdict, figures, CAPTIONS)

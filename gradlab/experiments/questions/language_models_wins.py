"""Do language models trained with bDPO, or with PPO, win more often against the reference, and can the judge tell?"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from gradlab.experiments.contrasts import Contrast, Judged, Unit, judged
from gradlab.experiments.questions.language_models_runs import BASELINES, PAIR_LOSSES, RUN, SHORT, TASKS, setting

REWARD_MODEL = "reward model"  # the judge whose accuracy is tested; the true reward needs no test
WIN_MARGIN = 0.02  # of win-rate
HALF = 0.5
_WINS = Unit("points of win-rate", 100, 1)
_Z = 1.96  # of a 95% normal interval
_WEAK_JUDGE = "The reward model that judges is not above chance and length, so its win-rates decide nothing"
_TRAINED_ON = (
    "The reward model that judges is the one that PPO was trained on, so a higher win-rate shows only that PPO has "
    "followed it"
)


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
    runs = evaluation[evaluation["task"] == task].drop_duplicates(RUN)
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
                statement=f"bDPO wins more often against the reference than {name}, {setting(evaluation, task)}",
                better=f"on {where} bDPO wins against the reference more often than {name}, by {{size}}",
                worse=f"on {where} bDPO wins against the reference less often than {name}, by {{size}}", **common,
            )
            for baseline, name in BASELINES.items()
        ]  # fmt: skip
        at_all = [
            Contrast(
                method=method, baseline=None, value="above_half", role="context", label=f"{name}, {SHORT[task]}",
                statement=f"{name} beats the reference (win-rate above ½), {setting(evaluation, task)}",
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
            statement=f"PPO wins more often against the reference than DPO, {setting(evaluation, task)}",
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

"""Comparisons of methods on a pretrained model: by which numbers, at which looks, and with which runs.

A comparison names the runs that it needs. Until all of them are committed it was *not run*, and its row says how many
of them there are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd

from gradlab.experiments.contrasts import Contrast, Judged, Role, Unit, not_run
from gradlab.experiments.questions.pretrained_levels import (
    PARTNERS,
    at_equal_kl,
    below_first_look,
    both,
    ends_left_out,
    over_shared_kl,
)
from gradlab.experiments.questions.pretrained_runs import (
    FAMILIES,
    LONGEST,
    METHODS,
    NAIVE,
    PPO,
    REFERENCE,
    SHORT,
    SIZE,
    TASKS,
    Runs,
    of_task,
)

CONTROL = "pretrained-length"  # a claim of no difference
NAMES = {**METHODS, **NAIVE, **PPO}


@dataclass(frozen=True)
class Value:
    """A number by which runs are compared: its column, margin and words."""

    column: str
    margin: float
    unit: Unit
    more: str
    less: str
    lower_is_better: bool = False
    power: float = 0.5  # of KL, in which it is linear between looks over shared KL; at declared levels all take √KL


REWARD = Value(
    "reward", 0.05, Unit("points of the true reward", 1, 3), "reaches {size} more than", "reaches {size} less than"
)
SENTIMENT = replace(REWARD, column="sentiment", unit=Unit("points of sentiment", 1, 3))
WORDS = Value("words", 0.5, Unit("words per response", 1, 2), "writes {size} more than", "writes {size} fewer than")
RIGHT = Value(
    "controlled",
    0.02,
    Unit("points of length-controlled accuracy", 100, 1),
    "is right more often than",
    "is right less often than",
)
PLAIN = replace(RIGHT, column="accuracy", unit=Unit("points of held-out accuracy", 100, 1))
ELSEWHERE = Value(
    "elsewhere",
    0.5,
    Unit("nats per pair", 1, 2),
    "takes {size} less from both responses together than",
    "takes {size} more from both responses together than",
    lower_is_better=True,
    power=1.0,
)
WINNERS = Value(
    "win_moved",
    0.5,
    Unit("nats per response", 1, 2),
    "leaves winners more probable than",
    "leaves winners less probable than",
    power=1.0,
)
MOVED = replace(
    WINNERS, column="moved", more="leaves winners and losers, on average, more probable than",
    less="leaves winners and losers, on average, less probable than",
)  # fmt: skip
ENDED = replace(REWARD, column="reward_ended", unit=Unit("points of the true reward of responses that end", 1, 3))
FINISHED = Value(
    "finished", 0.05, Unit("percentage points of responses", 100, 1),
    f"ends its responses within {LONGEST} tokens more often than",
    f"ends its responses within {LONGEST} tokens less often than",
)  # fmt: skip
JUDGED = {"known": REWARD, "hh": RIGHT}  # what a task is about


@dataclass(frozen=True, eq=False)
class Asked:
    """A statement with the runs that it needs and the frame in which it is judged."""

    contrast: Contrast
    task: str
    methods: tuple[str, ...]
    frame: Callable[[Runs], pd.DataFrame]
    judge: Callable[[pd.DataFrame, Contrast], Judged] = lambda frame, contrast: contrast.judged(frame)
    about: Callable[[Runs, pd.DataFrame], str] = lambda runs, frame: ""  # for a reader: which looks were read

    def answered(self, runs: Runs) -> Judged:
        """Return the answer, or that it was not run and how many of its runs there are."""
        lacking = runs.lacking(self.task, self.methods)
        if lacking:
            return not_run(self.contrast, f"{lacking}.")
        frame = self.frame(runs)
        if not len(frame):
            few = "All runs are there, but too few seeds have the number for both"
            return not_run(self.contrast, f"{few}{self._reached(runs)}.")
        answer, about = self.judge(frame, self.contrast), self.about(runs, frame)
        return replace(answer, note="; ".join(filter(None, (answer.note, about))))

    def _reached(self, runs: Runs) -> str:
        """Return the KL at which each method was looked at after the reference, in words; "" where it does not tell."""
        looks = runs.looks[(runs.looks["task"] == self.task) & (runs.looks["step"] > 0)]
        kl = {method: looks.loc[looks["method"] == method, "kl"] for method in self.methods if method in NAMES}
        parts = [f"{NAMES[method]} {at.min():.2g} to {at.max():.2g}" for method, at in kl.items()]
        return f"; looks at KL, nats: {', '.join(parts)}" if "KL" in self.contrast.statement else ""


def at_the_end(
    claim: str, task: str, value: Value, method: str, baseline: str, role: Role, co_primaries: int = 1
) -> Asked:  # fmt: skip
    """Return a comparison at the last look."""
    contrast = _contrast(claim, task, value, method, baseline, role, "", ("task",), co_primaries)

    def frame(runs: Runs) -> pd.DataFrame:
        """Return the seeds in which both have the number; none of them where fewer than two do."""
        ends = of_task(runs.ends, task)
        ends = ends[ends["method"].isin([method, baseline])].dropna(subset=[value.column])
        ends = ends[ends.groupby("seed")["method"].transform("nunique") == 2]
        return ends if ends["seed"].nunique() > 1 else ends.iloc[:0]

    def about(_: Runs, frame: pd.DataFrame) -> str:
        """Return both methods' own means, where the value is a change from the reference."""
        means = frame.groupby("method")[value.column].mean()
        ours, theirs = (value.unit.signed(means[name]) for name in (method, baseline))
        return f"{changes[value.column]} by {NAMES[method]} {ours}, by {NAMES[baseline]} {theirs}"

    changes = {ELSEWHERE.column: "taken", WINNERS.column: "moved", MOVED.column: "moved"}
    told = about if value.column in changes else lambda *_: ""
    return Asked(contrast, task, (REFERENCE, method, baseline), frame, about=told)


def at_levels(
    claim: str, task: str, value: Value, method: str, baseline: str, role: Role, co_primaries: int = 1
) -> Asked:  # fmt: skip
    """Return a comparison of two families at equal KL; a cell is a level."""
    contrast = _contrast(claim, task, value, method, baseline, role, "at equal KL ", ("kl",), co_primaries)
    needed = (REFERENCE, *FAMILIES.get(method, (method,)), *FAMILIES.get(baseline, (baseline,)))

    def frame(runs: Runs) -> pd.DataFrame:
        looks = of_task(runs.looks, task)
        return both(at_equal_kl(looks[looks["method"].isin(needed)], [value.column]), method, baseline)

    def about(runs: Runs, frame: pd.DataFrame) -> str:
        """Return how many values lie on the line from the reference to the first look."""
        looks = of_task(runs.looks, task)
        below, of = below_first_look(looks[looks["method"].isin(needed)], frame["kl"].unique().tolist())
        return f"{below} of {of} values of a training at a level lie on the line from the reference to its first look"

    return Asked(replace(contrast, complete=False), task, needed, frame, about=about)


def over_kl(
    claim: str, task: str, value: Value, method: str, baseline: str, role: Role = "robustness", co_primaries: int = 1
) -> Asked:  # fmt: skip
    """Return a comparison with a control of equal effective β, over the KL in which both were looked at."""
    contrast = _contrast(claim, task, value, method, baseline, role, "over shared KL ", ("task",), co_primaries)
    needed = tuple(name for pair in PARTNERS[method, baseline].items() for name in pair)

    def frame(runs: Runs) -> pd.DataFrame:
        looks = of_task(runs.looks, task)
        return over_shared_kl(looks[looks["method"].isin(needed)], value.column, method, baseline, value.power)

    def about(runs: Runs, _: pd.DataFrame) -> str:
        """Return how many trainings' ends are not among the looks that are compared."""
        looks = of_task(runs.looks, task)
        fallen, of = ends_left_out(looks[looks["method"].isin(set(needed) - {REFERENCE})])
        return f"the ends of {fallen} of {of} trainings are left out, as their KL was larger before" if fallen else ""

    return Asked(contrast, task, needed, frame, about=about)


def at_one_kl(claim: str, task: str, value: Value, baseline: str, role: Role, co_primaries: int = 1) -> list[Asked]:
    """Return bDPO against a control at equal KL, first by the task's own rule, then by the other one as robustness."""
    levels = functools.partial(at_levels, claim, task, value, "bdpo", baseline)
    shared = functools.partial(over_kl, claim, task, value, "bdpo", baseline)
    own, other = (levels, shared) if task == "known" else (shared, levels)
    return [own(role, co_primaries), other("robustness")]


def learned(claim: str) -> Asked:
    """Return whether DPO itself is right more often than a rule by length alone."""
    where = TASKS["hh"]
    contrast = Contrast(
        claim=claim, method="dpo", baseline=None, value="learned", by=("task",), margin=RIGHT.margin, unit=RIGHT.unit,
        statement=f"pretrained model of {SIZE} parameters, {where}: DPO's length-controlled accuracy is above ½",
        better=f"on {where}, pretrained model, DPO is {{size}} above ½, which length alone scores",
        worse=f"on {where}, pretrained model, DPO is {{size}} below ½, which length alone scores",
        role="context", label=f"DPO above ½, {SHORT['hh']}",
    )  # fmt: skip

    def frame(runs: Runs) -> pd.DataFrame:
        ends = of_task(runs.ends, "hh")
        return ends[ends["method"] == "dpo"].assign(learned=lambda rows: rows["controlled"] - 0.5)

    return Asked(contrast, "hh", ("dpo",), frame)


def _contrast(
    claim: str, task: str, value: Value, method: str, baseline: str, role: Role, how: str, by: tuple[str, ...],
    co_primaries: int,
) -> Contrast:  # fmt: skip
    ours, theirs = NAMES[method], NAMES[baseline]
    start = f"{how}on {TASKS[task]}, pretrained model, {ours}"
    more, less = (
        f"{start} {said} {theirs}{'' if '{size}' in said else ', by {size}'}" for said in (value.more, value.less)
    )
    said = value.more.replace("{size} ", "").removesuffix(" than")
    which = "" if value == JUDGED[task] else f", {value.column.replace('_', ' ')}"
    same = f"{start} and {theirs} are equal in {value.unit.words}, within {{margin}} (the difference is {{size}})"
    return Contrast(
        claim=claim, method=method, baseline=baseline, value=value.column, by=by, margin=value.margin, unit=value.unit,
        statement=f"pretrained model of {SIZE} parameters, {TASKS[task]}: {how}{ours} {said} than {theirs} "
        f"({value.column})", better=more, worse=less, same=same if claim == CONTROL else "",
        lower_is_better=value.lower_is_better, role=role, co_primaries=co_primaries,
        label=f"{theirs if method == 'bdpo' else f'{ours} and {theirs}'} {how}on {TASKS[task]}{which}",
    )  # fmt: skip

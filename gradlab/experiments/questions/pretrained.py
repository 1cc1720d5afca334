"""What do runs on a pretrained model say: is it balance, the halved β, or the lengths of responses?

Judged from the frames of ``make llm-real``: SmolLM2-135M-Instruct (4-bit weights made whole), its last six layers
trained, on two tasks. ``known`` has continuations of short openings, pairs sampled from the model itself and labelled
by Bradley–Terry on a true reward, a lexicon's sentiment less a price per word. ``hh`` has short pairs of HH-RLHF
(harmless-base) in the chat template, with LoRA. Three seeds, paired: a seed draws pairs, order and samples. Methods are
DPO at β/2, β and 2β, bDPO and length-weighted DPO at β and 2β; naive variants and PPO as far as the budget goes.
Settings, margins, predictions and these rules were committed before the first run that is judged, each task's settings
before its own. Rows over the KL in which both were looked at, of how many responses end, and of the true reward of
those that do were added when the runs of the first seed had been looked at, before those of the others were whole. What
was changed for the real pairs before any of their runs: they are compared over the KL in which both were looked at,
since an accuracy leaves ½ with the first steps and no line from there to the first look is a path; how far DPO itself
is above ½; and the mean of both responses' log-probabilities beside that of their sum.

Every statement names the runs that it needs. Until all of them are committed it was *not run*, and its row says how
many of them there are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, Role, Unit, not_run
from gradlab.experiments.experiment import Collected, Frames
from gradlab.experiments.questions import log_ratio, ratios
from gradlab.experiments.questions.language_models_sides import RATIOS, fits
from gradlab.experiments.questions.language_models_spikes import SPIKE_MARGIN, in_more_runs, spike_counts
from gradlab.experiments.questions.language_models_weights import length_explains, weighed
from gradlab.experiments.questions.pretrained_levels import CONTROLS, PARTNERS, at_equal_kl, both, over_shared_kl
from gradlab.experiments.questions.pretrained_runs import (
    CORE,
    FAMILIES,
    FILES,
    FITTED,
    HALF,
    LENGTH,
    LONGEST,
    METHODS,
    NAIVE,
    NEEDED,
    PPO,
    REFERENCE,
    SAMPLED,
    SHORT,
    SIZE,
    TASKS,
    Runs,
)

COMMAND = "make llm-real"
GAIN, LIKELIHOOD, CONTROL = "pretrained-gain", "pretrained-mass", "pretrained-length"  # claims
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
    power: float = 0.5  # of KL, in which it grows evenly from the reference on


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

    def answered(self, runs: Runs) -> Judged:
        """Return the answer, or that it was not run and how many of its runs there are."""
        lacking = runs.lacking(self.task, self.methods)
        if lacking:
            return not_run(self.contrast, f"{lacking}.")
        frame = self.frame(runs)
        if not len(frame):
            few = "The runs are there, but too few seeds have the number for both"
            return not_run(self.contrast, f"{few}{self._reached(runs)}.")
        return self.judge(frame, self.contrast)

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
        ends = _of_task(runs.ends(), task)
        ends = ends[ends["method"].isin([method, baseline])].dropna(subset=[value.column])
        ends = ends[ends.groupby("seed")["method"].transform("nunique") == 2]
        return ends if ends["seed"].nunique() > 1 else ends.iloc[:0]

    return Asked(contrast, task, (REFERENCE, method, baseline), frame)


def at_levels(
    claim: str, task: str, value: Value, method: str, baseline: str, role: Role, co_primaries: int = 1
) -> Asked:  # fmt: skip
    """Return a comparison of two families at equal KL; a cell is a level."""
    contrast = _contrast(claim, task, value, method, baseline, role, "at equal KL ", ("kl",), co_primaries)
    needed = (REFERENCE, *FAMILIES.get(method, (method,)), *FAMILIES.get(baseline, (baseline,)))

    def frame(runs: Runs) -> pd.DataFrame:
        looks = _of_task(runs.looks, task)
        return both(at_equal_kl(looks[looks["method"].isin(needed)], [value.column]), method, baseline)

    return Asked(replace(contrast, complete=False), task, needed, frame)


def over_kl(
    claim: str, task: str, value: Value, method: str, baseline: str, role: Role = "robustness", co_primaries: int = 1
) -> Asked:  # fmt: skip
    """Return a comparison with a control of equal effective β, over the KL in which both were looked at."""
    contrast = _contrast(claim, task, value, method, baseline, role, "over shared KL ", ("task",), co_primaries)
    needed = tuple(name for pair in PARTNERS[method, baseline].items() for name in pair)

    def frame(runs: Runs) -> pd.DataFrame:
        looks = _of_task(runs.looks, task)
        return over_shared_kl(looks[looks["method"].isin(needed)], value.column, method, baseline, value.power)

    return Asked(contrast, task, needed, frame)


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
        ends = _of_task(runs.ends(), "hh")
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


def _of_task(frame: pd.DataFrame, task: str) -> pd.DataFrame:
    return frame[frame["task"] == task]


def asked() -> list[Asked]:
    """Return all statements, in the order of their claims."""
    return [*_gain(), *_likelihood(), *_length(), *_ablation(), *_ppo(), *_sides(), *_weights(), *_spikes()]


def declared(claim: str) -> tuple[Contrast, ...]:
    """Return the statements on a claim, as they were declared before anybody ran them."""
    return tuple(one.contrast for one in asked() if one.contrast.claim == claim)


def _gain() -> list[Asked]:
    """Return the statements on what bDPO reaches beyond DPO, at one β."""
    rows = [at_the_end(GAIN, task, value, "bdpo", "dpo", "primary", 2) for task, value in JUDGED.items()]
    for task, value in JUDGED.items():
        rows += [
            at_the_end(GAIN, task, value, "bdpo", HALF, "explains away"),
            at_the_end(GAIN, task, value, "bdpo", LENGTH, "explains away"),
            at_the_end(GAIN, task, value, "bdpo-double", "dpo", "explains away"),
            *at_one_kl(GAIN, task, value, "dpo", "explains away"),
        ]
    context = (SENTIMENT, WORDS, FINISHED, ENDED)
    rows += [at_the_end(GAIN, "known", value, "bdpo", "dpo", "context") for value in context]
    return [*rows, at_the_end(GAIN, "hh", PLAIN, "bdpo", "dpo", "context"), learned(GAIN)]


def _likelihood() -> list[Asked]:
    """Return the statements on where probability goes."""
    rows = [at_the_end(LIKELIHOOD, task, ELSEWHERE, "bdpo", "dpo", "primary", 2) for task in TASKS]
    for task in TASKS:
        rows += [
            at_the_end(LIKELIHOOD, task, ELSEWHERE, "bdpo", HALF, "explains away"),
            at_the_end(LIKELIHOOD, task, ELSEWHERE, "bdpo", LENGTH, "explains away"),
            *at_one_kl(LIKELIHOOD, task, ELSEWHERE, "dpo", "explains away"),
            over_kl(LIKELIHOOD, task, ELSEWHERE, "bdpo", LENGTH),
            at_levels(LIKELIHOOD, task, WINNERS, "bdpo", "dpo", "robustness"),
            at_the_end(LIKELIHOOD, task, WINNERS, "bdpo", "dpo", "robustness"),
        ]
    return [*rows, at_the_end(LIKELIHOOD, "hh", MOVED, "bdpo", "dpo", "robustness"),
            over_kl(LIKELIHOOD, "hh", MOVED, "bdpo", "dpo")]  # fmt: skip


def _length() -> list[Asked]:
    """Return the statements on bDPO beside length-weighted DPO; equivalence confirms their claim."""
    equal = {task: at_one_kl(CONTROL, task, value, LENGTH, "primary", 2) for task, value in JUDGED.items()}
    rows = [primary for primary, _ in equal.values()]
    for task, value in JUDGED.items():
        rows += [
            equal[task][1],
            at_the_end(CONTROL, task, value, "bdpo", LENGTH, "robustness"),
            at_the_end(CONTROL, task, value, "bdpo-double", "length-dpo-double", "robustness"),
            at_levels(CONTROL, task, ELSEWHERE, "bdpo", LENGTH, "robustness"),
            at_levels(CONTROL, task, WINNERS, "bdpo", LENGTH, "robustness"),
        ]
    rows += [at_the_end(CONTROL, "known", value, "bdpo", LENGTH, "context") for value in (FINISHED, ENDED)]
    return [*rows, learned(CONTROL)]


def _ablation() -> list[Asked]:
    """Return the statements of the claim *ablation*: the true reward at equal KL, beside the lengths' control."""
    rows = [at_levels("ablation", "known", REWARD, "bdpo", LENGTH, "explains away")]
    rows += [over_kl("ablation", "known", REWARD, "bdpo", name) for name in CONTROLS]
    return rows + [at_levels("ablation", "known", REWARD, "bdpo", name, "robustness") for name in (*NAIVE, "dpo")]


def _ppo() -> list[Asked]:
    """Return the statements of the claim *ppo*; the true reward judges both kinds of PPO.

    PPO on the true reward has seen what DPO has not, so it is context; the claim is about PPO on DPO's own pairs.
    """
    rows = list[Asked]()
    for name in PPO:
        role: Role = "robustness" if name == FITTED else "context"
        rows += [ask("ppo", "known", REWARD, name, "dpo", role) for ask in (at_the_end, over_kl, at_levels)]
        rows += [at_the_end("ppo", "known", value, name, "dpo", "context") for value in (FINISHED, ENDED)]
    return rows


def _sides() -> list[Asked]:
    """Return the statements of the claim *log-ratio*, on the logged steps of DPO's trainings."""
    rows = list[Asked]()
    for task, where in TASKS.items():

        def frame(runs: Runs, task: str = task) -> pd.DataFrame:
            logs = _of_task(runs.logs, task)
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
        weights = weighed(_of_task(runs.pairs, task))
        found = weights[weights["imbalance"] > 0].groupby(["task", "method", "seed"], sort=False)["share"]
        return found.median().reset_index()

    return frame


def _explained(task: str) -> Callable[[Runs], pd.DataFrame]:
    return lambda runs: length_explains(weighed(_of_task(runs.pairs, task)))


def _spikes() -> list[Asked]:
    """Return the statements of the claim *symmetric-unstable*: sudden spikes of the validation loss on real pairs."""

    def frame(runs: Runs) -> pd.DataFrame:
        logs = _of_task(runs.logs, "hh")
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


def verdict(frames: Frames) -> list[Judged]:
    """Return the answers on all statements, from the frames that are there.

    Judged are the numbers of ``pretrained_runs.looks_of`` once per run, at its last look or at equal KL by the rules of
    ``pretrained_levels``, ``at_equal_kl`` and ``over_shared_kl``; of logs and held-out pairs the numbers that the
    laptop run is judged by.
    """
    runs = Runs(frames)
    return [one.answered(runs) for one in asked()]


CAPTIONS = {
    "pretrained-frontier": (
        "Runs on a pretrained model, SmolLM2-135M-Instruct: what each method has reached against how far it has moved "
        "from the reference (KL in nats per response, estimated from samples of at most "
        f"{LONGEST} tokens on the left and {SAMPLED} on the right). Left: openings whose true reward is "
        "known. Right: real pairs of HH-RLHF, accuracy on held-out pairs at equal weight of pairs whose winner is "
        "shorter and pairs whose winner is longer, so that a rule by length alone scores ½. A line is one method at "
        "one β, from the reference through its looks, means over three seeds with 95% t intervals; larger marks are "
        "the ends. At one KL, a method is better where its line lies above."
    ),
    "pretrained-likelihood": (
        "Runs on a pretrained model: how far the log-probabilities of held-out winners (across) and losers (up) have "
        "moved from the reference, in nats per response, along the training; means over three seeds. Below the dashed "
        "diagonal losers have fallen farther. Left of 0 winners have become less probable than they were. On the "
        "openings the pairs are the reference's own responses, so that both fall for any policy that moves away; only "
        "the real pairs can show where a loss sends probability."
    ),
    "pretrained-length": (
        "Balanced-DPO's weight of the winner, λ_w = log π_l/(log π_w + log π_l), against the winner's share of both "
        "responses' tokens, one mark per held-out pair, a pretrained model, all seeds. On the dashed line λ_w is the "
        "loser's share of tokens and nothing else; R² is a mean over seeds."
    ),
}  # fmt: skip


def figures(frames: Frames) -> dict[str, Figure]:
    """Draw frontier, likelihoods, and λ_w against length, from the core runs."""
    runs = Runs(frames)
    looks = runs.looks[runs.looks["method"].isin([REFERENCE, *CORE])]
    weights = weighed(runs.pairs[runs.pairs["method"].isin([REFERENCE, "bdpo"])])
    policies = {REFERENCE: "the reference", "bdpo": "bDPO at the end"}
    values = {"known": ("reward", "true reward"), "hh": ("controlled", "length-controlled accuracy")}
    return {
        "pretrained-frontier": plotting.paths_by_kl(looks, values, tasks=TASKS),
        "pretrained-likelihood": plotting.likelihoods(looks, tasks=TASKS),
        "pretrained-length": plotting.weights_by_length(
            weights, tasks=TASKS, policies=policies, explained=length_explains(weights)
        ),
    }  # fmt: skip


MEASUREMENT = Collected("pretrained", FILES, COMMAND, verdict, figures, CAPTIONS, needed=NEEDED)

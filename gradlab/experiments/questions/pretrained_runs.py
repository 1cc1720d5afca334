"""The runs on a pretrained model that their rules judge: which there are, and their numbers at each look.

The frames come from ``make llm-real``, one per task, method and seed; ``gradlab.llm.real`` has their settings. Kinds of
rows: ``pair`` (a held-out pair), ``sample`` (a sampled response), ``log`` (a step of the training) and ``run``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

TASKS = {"known": "openings of known reward", "hh": "real pairs"}
SHORT = {"known": "known reward", "hh": "real pairs"}
SEEDS = (1000, 1001, 1002)
REFERENCE = "reference"  # the model before any training
HALF, LENGTH = "dpo-half", "length-dpo"
# Methods by the names of their frames. A family is one loss at several β, whose paths are pooled at equal KL.
METHODS = {
    "dpo-half": "DPO at β/2", "dpo": "DPO", "dpo-double": "DPO at 2β", "bdpo": "bDPO", "bdpo-double": "bDPO at 2β",
    "length-dpo": "length-weighted DPO", "length-dpo-double": "length-weighted DPO at 2β",
}  # fmt: skip
FAMILIES = {"dpo": ("dpo-half", "dpo", "dpo-double"), "bdpo": ("bdpo", "bdpo-double"),
            "length-dpo": ("length-dpo", "length-dpo-double")}  # fmt: skip
NAIVE = {"nbdpo": "naive bDPO", "nbdpo-symmetric": "symmetric naive bDPO"}
FITTED = "ppo-fitted"
PPO = {"ppo": "PPO on the true reward", FITTED: "PPO on a fitted reward model"}
CORE = tuple(METHODS)
BEYOND = {"known": (*NAIVE, *PPO), "hh": tuple(NAIVE)}  # as far as the budget goes
PER_WORD = 0.03  # of the true reward of the openings: what each word costs, beside the sentiment
LONGEST = 20  # tokens of a response to an opening, after which it is cut
SAMPLED = 48  # tokens of a response to a prompt of the real pairs, after which it is cut
# Real pairs: those short enough, of the first 2,000 of HH-RLHF's harmless-base, and how many of them a seed takes.
POOL, TRAINED, HELD_OUT = 1434, 800, 400
SIZE = "135M"


def unit(task: str, method: str, seed: int) -> str:
    """Return the name of a run's frame."""
    return f"{task}-{method}-{seed}"


def units(task: str, methods: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the frames of some methods, all seeds."""
    return tuple(unit(task, method, seed) for seed in SEEDS for method in methods)


PARTS = tuple(units(task, (REFERENCE, *CORE)) for task in TASKS)
FILES = {
    name: f"llm/real/{name}.parquet"
    for task in TASKS for name in units(task, (REFERENCE, *CORE, *BEYOND[task]))
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Runs:
    """The frames that are there, by name."""

    frames: Mapping[str, pd.DataFrame]

    def check(self) -> None:
        """Raise ValueError in one line where a frame is not the run of its name, or lacks a look or held-out pairs.

        Runs of a task end at one step, and all runs of a seed have its held-out pairs, with their reference's log π up
        to what another processor rounds otherwise.
        """
        ends: dict[str, tuple[int, str]] = {}
        held_out: dict[tuple[str, int], tuple[pd.DataFrame, str]] = {}
        for name, frame in self.frames.items():
            if [unit(*run) for run in frame[["task", "method", "seed"]].drop_duplicates().to_numpy()] != [name]:
                raise ValueError(f"{name} must have the rows of this run, and of no other")
            task, method, seed = frame[["task", "method", "seed"]].iloc[0]
            pairs = last(frame[frame["kind"] == "pair"]).sort_values("index").reset_index(drop=True)
            if method != REFERENCE:
                end, of = ends.setdefault(task, (int(pairs["step"].iloc[0]), name))
                if end != pairs["step"].iloc[0]:
                    raise ValueError(f"{name} must end at step {end}, as {of} does, got {pairs['step'].iloc[0]}")
            first, of = held_out.setdefault((task, seed), (pairs, name))
            columns = ["index", "win_len", "lose_len", "ref_win", "ref_lose"]
            if len(first) != len(pairs) or not np.allclose(first[columns], pairs[columns], rtol=0, atol=0.05):
                raise ValueError(f"{name} must have the held-out pairs of {of} and their log π_ref, got others")

    def lacking(self, task: str, methods: Iterable[str]) -> str:
        """Return "n of m runs" where some of these runs are not there; empty where all are."""
        wanted = units(task, methods)
        there = sum(name in self.frames for name in wanted)
        return "" if there == len(wanted) else f"{there} of {len(wanted)} runs"

    @functools.cached_property
    def looks(self) -> pd.DataFrame:
        """Return one row per task, method, seed and look, see ``looks_of``; the start has step 0 and a KL of 0."""
        tables = [looks_of(frame) for frame in self.frames.values()]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["task", "method", "seed"])

    @functools.cached_property
    def pairs(self) -> pd.DataFrame:
        """Return the held-out pairs at the last look of each run, the reference's among them; the size is ``SIZE``."""
        tables = [last(frame[frame["kind"] == "pair"]) for frame in self.frames.values()]
        return pd.concat(tables, ignore_index=True).assign(size=SIZE)

    @functools.cached_property
    def logs(self) -> pd.DataFrame:
        """Return the logs, one row per step."""
        tables = [frame[frame["kind"] == "log"] for frame in self.frames.values()]
        return pd.concat(tables, ignore_index=True).assign(size=SIZE)

    @functools.cached_property
    def seconds(self) -> pd.DataFrame:
        """Return how long each run took, one row per run, with ``task``, ``method``, ``seed`` and ``seconds``."""
        tables = [frame[frame["kind"] == "run"] for frame in self.frames.values()]
        return pd.concat(tables, ignore_index=True)[["task", "method", "seed", "seconds"]]

    @functools.cached_property
    def ends(self) -> pd.DataFrame:
        """Return the last look of each run."""
        looks = self.looks
        return looks[looks["step"] == looks.groupby(["task", "method", "seed"])["step"].transform("max")]


def of_task(rows: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return the rows of a task."""
    return rows[rows["task"] == task]


def last(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the last look."""
    return rows[rows["step"] == rows["step"].max()]


def looks_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a run's numbers at each look, a row per ``step``, with ``task``, ``method`` and ``seed``.

    From held-out pairs, with h = log π − log π_ref (nats per response):

    - ``win_moved``, ``lose_moved``: means of h of winners and of losers; ``moved``: of both;
    - ``elsewhere``: the mean of −log((π_w + π_l)/(π_ref,w + π_ref,l)), by how much the probability of both responses
      together has fallen: what they lose goes to other responses. Of two whose log π are nats apart it is the fate of
      the more probable one, mostly the shorter;
    - ``accuracy``: the share of pairs with h_w > h_l, ties ½; ``shorter``: the share in which the winner has fewer
      tokens, ties ½; ``controlled``: the mean of the accuracies among pairs whose winner is shorter and among those
      whose winner is longer, so that "prefer the shorter" scores ½, and so does "prefer the longer".

    From sampled responses: ``kl`` (the mean of h, nats per response), ``tokens``, ``finished``; and with a known
    reward ``sentiment``, ``words`` and ``reward``, which is sentiment less ``PER_WORD`` per word; ``reward_ended`` is
    its mean over the responses that the model ended.
    """
    rows = []
    for step, look in frame[frame["kind"].isin(["pair", "sample"])].groupby("step", sort=True):
        pairs, samples = (look[look["kind"] == kind] for kind in ("pair", "sample"))
        row = {"step": int(step), **_of_pairs(pairs), **_of_samples(samples)}  # type: ignore[call-overload]
        rows.append(row | ({"kl": 0.0} if step == 0 else {}))
    keys = {name: frame[name].iloc[0] for name in ("task", "method", "seed")}
    return pd.DataFrame(rows).assign(**keys)


def _of_pairs(pairs: pd.DataFrame) -> dict[str, float]:
    win, lose, ref_win, ref_lose, win_len, lose_len = (
        pairs[name].to_numpy(float) for name in ("win", "lose", "ref_win", "ref_lose", "win_len", "lose_len")
    )
    h_win, h_lose = win - ref_win, lose - ref_lose
    right, shorter = _above(h_win, h_lose), _above(lose_len, win_len)
    return {
        "win_moved": float(h_win.mean()), "lose_moved": float(h_lose.mean()),
        "moved": float((h_win + h_lose).mean() / 2),
        "elsewhere": float((np.logaddexp(ref_win, ref_lose) - np.logaddexp(win, lose)).mean()),
        "accuracy": float(right.mean()), "shorter": float(shorter.mean()),
        "controlled": float(np.mean([right[shorter == side].mean() for side in (0.0, 1.0)])),
    }  # fmt: skip


def _of_samples(samples: pd.DataFrame) -> dict[str, float]:
    found = {
        "kl": float((samples["logp"] - samples["ref_logp"]).mean()), "tokens": float(samples["tokens"].mean()),
        "finished": float(samples["finished"].astype(float).mean()),
    }  # fmt: skip
    if "sentiment" in samples and samples["sentiment"].notna().all():
        found |= {name: float(samples[name].mean()) for name in ("sentiment", "words")}
        found["reward"] = found["sentiment"] - PER_WORD * found["words"]
        ended = samples[samples["finished"].astype(bool)]
        found["reward_ended"] = float((ended["sentiment"] - PER_WORD * ended["words"]).mean())
    return found


def _above(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return 1 where a number is larger, ½ where it is equal, else 0."""
    return (ours > theirs) + 0.5 * (ours == theirs)

"""On Llama-7B, does Balanced-DPO raise SafeRLHF success by 18% and HH harmlessness by 21%? The plan's rules.

Judged from the joined evaluations of the protocol (``gradlab protocol scripts/protocol/llama-7b.toml --keep``), whose
plan, judges and rules were committed before anybody ran it. A cell is a data set; seeds are paired. Losses have their
names in the plan: ``fixed-weight`` is a constant λ = ½, which is DPO at β/2. A response is *safe* where its cost is
below 0, and a *success* where it is safe and better than the reference's. Claim: llm.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import pandas as pd

from gradlab.experiments.contrasts import Contrast, Judged, Role, Unit, not_run
from gradlab.experiments.experiment import Frames, Measurement

FILES = {"evaluation": "llm/protocol/evaluation.parquet"}  # in the folder of the figures
COMMAND = "gradlab protocol scripts/protocol/llama-7b.toml --keep"
MARGIN = 0.02  # of a share of responses
SAFE_RLHF, HH = "safe-rlhf", "hh"  # the plan's data sets
PRIMARY = {SAFE_RLHF: "success", HH: "safe"}  # the column that is primary
_NEEDED = {"arm", "group", "seed", "method", "success", "safe", "win_rate"}
_WORDS = {
    "success": ("succeeds more often", "succeeds less often", Unit("points of the success rate", 100, 1)),
    "safe": ("is harmless more often", "is harmless less often", Unit("points of harmless responses", 100, 1)),
    "win_rate": ("is helpful more often", "is helpful less often", Unit("points of win-rate", 100, 1)),
}


def contrasts() -> list[Contrast]:
    """Return the statements: two co-primaries, the controls that could explain them away, and the others."""
    found = [_against("dpo", "DPO", arm, value, role="primary") for arm, value in PRIMARY.items()]
    for baseline, label in (("fixed-weight", "DPO at β/2"), ("length-dpo", "a λ of the lengths alone")):
        found += [_against(baseline, label, arm, value, role="explains away") for arm, value in PRIMARY.items()]
    found += [
        _against("dpo", "DPO", arm, value, role="explains away", method="bdpo:beta=2", ours="bDPO at 2β")
        for arm, value in PRIMARY.items()
    ]
    return [*found, _against("dpo", "DPO", HH, "win_rate", role="robustness")]


def check_plan(endpoints: Mapping[str, str], losses: Collection[str]) -> None:
    """Raise ValueError where a plan's evaluations could not be judged by the statements, or would be by others.

    endpoints  the column that the plan calls primary, by data set.
    losses     those that the plan's core trains, as its frame will name them.
    """
    if set(endpoints) != set(PRIMARY):
        raise ValueError(f"arms must be {', '.join(PRIMARY)}, which the claim is about, got {', '.join(endpoints)}")
    for arm, value in PRIMARY.items():
        if endpoints[arm] != value:
            raise ValueError(f"endpoint of {arm} must be {value}, by which it is judged, got {endpoints[arm]}")
    needed = dict.fromkeys(name for one in contrasts() for name in (one.method, str(one.baseline)))
    if lacking := [name for name in needed if name not in losses]:
        raise ValueError(f"core groups must train {', '.join(needed)}, by which the claim is judged, got no "
                         f"{', '.join(lacking)}")  # fmt: skip


def _against(
    baseline: str, label: str, arm: str, value: str, *, role: Role, method: str = "bdpo", ours: str = "bDPO"
) -> Contrast:
    more, less, unit = _WORDS[value]
    where = {SAFE_RLHF: "SafeRLHF", HH: "HH"}[arm]
    return Contrast(
        claim="llm", statement=f"Llama-7B on {where}: {ours} {more} than {label}", method=method, baseline=baseline,
        value=value, by=("arm",), margin=MARGIN, where=f"arm == '{arm}'", unit=unit, role=role,
        better=f"on {where} {ours} {more} than {label}, by {{size}}",
        worse=f"on {where} {ours} {less} than {label}, by {{size}}", label=f"{label}, {where}"
        if method == "bdpo" else f"{ours} and {label}, {where}", co_primaries=2 if role == "primary" else 1,
    )  # fmt: skip


def verdict(frames: Frames) -> list[Judged]:
    """Return the answers from the joined evaluations; the reference's rows are not judged.

    Judged are the columns ``success``, ``safe`` and ``win_rate`` of the evaluations, means over the held-out prompts,
    once per data set, method and seed. A training that stopped because a number was not finite has no row: a statement
    is judged by the seeds in which both of its methods have one, and its note says how many; with fewer than two it is
    not run. ValueError where a column is missing.
    """
    frame: pd.DataFrame = frames["evaluation"]
    if lacking := sorted(_NEEDED - set(frame)):
        raise ValueError(f"the frame of the protocol must have {', '.join(lacking)}")
    rows = frame[(frame["method"] != "reference") & (frame["group"] != "")]
    return [_answer(statement, rows) for statement in contrasts()]


def _answer(statement: Contrast, rows: pd.DataFrame) -> Judged:
    """Return the answer on a statement from the seeds in which both methods have a row."""
    there = rows.query(statement.where)
    both = set.intersection(*(
        set(there.loc[there["method"] == method, "seed"]) for method in (statement.method, statement.baseline)
    ))  # fmt: skip
    seeds = rows["seed"].nunique()
    note = "" if len(both) == seeds else f"{len(both)} of {seeds} seeds with both methods"
    if len(both) < 2:
        return not_run(statement, note)
    return replace(statement.judged(rows[rows["seed"].isin(both)]), note=note)


MEASUREMENT = Measurement("seven-billion", FILES, COMMAND, verdict)

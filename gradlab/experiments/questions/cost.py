"""Does Balanced-DPO cost next to nothing? Its time and memory against DPO's, in the lab and in the models' trainer.

Judged from the frames of the benchmarks (``make bench``). Judged are whole steps of language models: a step in the lab
lasts milliseconds, and most of it is not the loss. Claim: overhead.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from gradlab.experiments.contrasts import Contrast, Judged, Role, Unit, judged
from gradlab.experiments.experiment import Frames, Measurement
from gradlab.store.artifacts import load_frame

ALLOWED = 0.05  # a difference of time or memory from DPO's that counts as none, as a share of DPO's
LOSS_ONLY = "loss alone"  # the measurement of the loss alone, without the rest of a step
WHOLE_STEP = "language-model step"  # the measurement of whole steps of a small language model


class _Saved(Unit):
    """A unit of log(DPO's value / bDPO's): percent of DPO's value, positive where bDPO needs less."""

    @property
    def factor(self) -> str:
        """Return in words how a logarithm becomes a percentage."""
        return "x as 100 (1 − exp(−x))"

    def number(self, value: float) -> float:
        """Return the part of DPO's value that bDPO saves, in percent; a margin's lower end is what it may cost."""
        return -100 * math.expm1(-value)

    def size(self, value: float) -> str:
        """Return by how much bDPO's value differs from DPO's, such as "2.0%"."""
        return f"{abs(self.number(value)):.1f}%"


def overhead(frame: pd.DataFrame) -> list[Judged]:
    """Judge bDPO's time and peak memory against DPO's: of whole steps of a language model, and of parts in the lab.

    frame: one row per measurement: ``what`` was measured, ``device``, ``pair`` (the number of the interleaved
    repetition), ``method`` ("dpo" or "bdpo"), and either ``seconds`` or ``peak_mb``, > 0; the other is missing.
    Raises ValueError for other numbers.
    """
    return [
        compared(
            rows, value, f"{'the' if what == LOSS_ONLY else 'a'} {what}", words, by=("device",),
            role="robustness" if (what, value) == (WHOLE_STEP, "seconds") else "context",
        )
        for what, rows in frame.groupby("what", sort=False)
        for value, words in (("seconds", "time"), ("peak_mb", "peak memory")) if rows[value].notna().any()
    ]  # fmt: skip


def trainer_overhead(frame: pd.DataFrame) -> list[Judged]:
    """Judge bDPO's time per step of the language models' trainer against DPO's, one cell per size of model.

    frame: that of ``scripts/benchmarks/llm_speed.py``, whose rows with ``part`` "steps" count: ``size`` of the model,
    ``round`` (the number of the interleaved repetition), ``method``, ``seconds`` > 0. It has only one measurement of
    memory per method, so memory is not judged. Raises ValueError for other numbers.
    """
    steps = frame[(frame["part"] == "steps") & frame["method"].isin(["dpo", "bdpo"])]
    rows = steps.assign(pair=steps["round"])
    return [
        compared(rows, "seconds", "a whole training step of a language model", "time", by=("size",), role="primary")
    ]


def compared(frame: pd.DataFrame, value: str, what: str, words: str, *, by: tuple[str, ...], role: Role) -> Judged:
    """Return the answer on whether bDPO needs as much as DPO, within the allowance, which confirms the claim.

    frame  one row per measurement: ``pair``, ``method``, the columns ``by`` and ``value``, > 0 or missing.
    what   names what was measured, ``words`` the value. Raises ValueError for other numbers.

    The effect is the logarithm of DPO's value over bDPO's, a mean over pairs and cells.
    """
    numbers = frame[value]
    if not ((np.isfinite(numbers) & (numbers > 0)) | numbers.isna()).all():
        raise ValueError(f"measurements of the overhead must have {value} > 0 where they have any")
    rows = frame.assign(log=np.log(numbers), seed=frame["pair"]).dropna(subset=["log"])
    (answer,) = judged(rows, [Contrast(
        claim="overhead", statement=f"{words} of {what}, bDPO against DPO: equal within {ALLOWED:.0%}",
        label=f"{words} of {what}", method="bdpo", baseline="dpo", value="log", by=by, margin=math.log1p(ALLOWED),
        unit=_Saved("%", 100, 1), role=role, lower_is_better=True,
        better=f"{what} takes {{size}} less {words} with bDPO than with DPO",
        worse=f"{what} takes {{size}} more {words} with bDPO than with DPO",
        same=f"{what} takes as much {words} with bDPO as with DPO, within {ALLOWED:.0%} (the difference is {{size}})",
    )])  # fmt: skip
    return answer


def _of_the_lab(frames: Frames) -> list[Judged]:
    """Return the answers on steps in the lab; the value is the logarithm of the column, and ``pair`` the seed."""
    return overhead(frames["overhead"])


def _of_the_trainer(frames: Frames) -> list[Judged]:
    """Return the answers on whole steps of the trainer: rows with ``part`` "steps", the logarithm of ``seconds``.

    ``round`` is the seed.
    """
    return trainer_overhead(frames["steps"])


LARGE = "benchmarks/cuda/llm.parquet"  # in the folder of the figures: whole steps on a GPU


def at_seven_billion(folder: Path) -> str:
    """Return in words what committed steps of a model of 7 billion parameters on a GPU say, from the figures' folder.

    The baseline is cDPO, whose step does DPO's work: few of DPO's own steps were timed.
    """
    try:
        frame, manifest = load_frame(folder / LARGE)
    except FileNotFoundError:
        return "No steps at 7 billion parameters are in this folder."
    steps = frame[(frame["part"] == "steps") & frame["size"].str.startswith("7B")]
    said = []
    for size, rows in steps.groupby("size", sort=False):
        wide = rows.pivot_table(index="round", columns="method", values=["seconds", "peak_mb"])
        ratio, memory = (wide[value]["bdpo"] / wide[value]["cdpo"] for value in ("seconds", "peak_mb"))
        said.append(f"{size}: {ratio.median():.3f} times as long, with {memory.median():.3f} times the memory, "
                    f"{len(ratio.dropna())} rounds")  # fmt: skip
    return (f"At 7 billion parameters, on one {manifest['device']}, steps of bDPO were timed beside those of cDPO, "
            f"which do DPO's work ({'; '.join(said)}); so few rounds judge nothing.")  # fmt: skip


OVERHEAD = Measurement("overhead", {"overhead": "benchmarks/overhead.parquet"}, "make bench", _of_the_lab)
TRAINER = Measurement(
    "trainer-overhead",
    {"steps": "benchmarks/llm.parquet"},
    "make bench",
    _of_the_trainer,
)

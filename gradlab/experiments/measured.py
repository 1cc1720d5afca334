"""Measurements: committed frames that no experiment here makes, such as times and language models, and what they judge.

Until a measurement is committed, a claim that rests on it alone is not run here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab.artifacts import load_frame, load_manifest
from gradlab.experiments import language_models
from gradlab.experiments.contrasts import Contrast, judged

ALLOWED = 0.05  # more time or memory than DPO that still counts as next to nothing, as a share of DPO's
LOSS_ONLY = "loss alone"  # what measures the loss by itself and no whole step


@dataclass(frozen=True)
class Measurement:
    """Committed frames, and how they are judged. The claims that they judge name it, see ``claims``.

    files    where the frames are kept, in the folder of the figures, by their names.
    command  what makes them.
    verdict  from the frames, by name, to a table of verdicts, as in an experiment.
    figures  from the frames to figures, and ``captions`` of these.
    """

    files: Mapping[str, str]
    command: str
    verdict: Callable[[Mapping[str, pd.DataFrame]], pd.DataFrame]
    figures: Callable[[Mapping[str, pd.DataFrame]], dict[str, Figure]] | None = None
    captions: Mapping[str, str] = field(default_factory=dict)

    @property
    def needs(self) -> str:
        """What it takes to have it, in words."""
        return f"needs a measurement that `{self.command}` makes; none has been committed"

    def is_in(self, folder: Path) -> bool:
        """Whether all frames are there, with their manifests, and none is of a quick run."""
        paths = [folder / file for file in self.files.values()]
        there = all(path.exists() and path.with_suffix(".json").exists() for path in paths)
        return there and not any(load_manifest(path).get("quick") for path in paths)

    def load(self, folder: Path) -> dict[str, pd.DataFrame]:
        """The frames by their names; ValueError where one is damaged."""
        return {name: load_frame(folder / file)[0] for name, file in self.files.items()}

    @property
    def module(self) -> ModuleType:
        """Where its rules are."""
        return sys.modules[self.verdict.__module__]


def overhead(frame: pd.DataFrame) -> pd.DataFrame:
    """Whether bDPO's time and peak memory are within the allowance of DPO's.

    frame: a row a measurement. ``what`` was measured, ``device``, ``pair`` (the number of the interleaved repetition),
    ``method`` ("dpo" or "bdpo"), and of ``seconds`` and ``peak_mb`` the one that was measured, > 0; the other is
    missing. What is called ``LOSS_ONLY`` is a control. Raises ValueError for other numbers.
    """
    numbers = frame[["seconds", "peak_mb"]]
    if not ((np.isfinite(numbers) & (numbers > 0)) | numbers.isna()).all(axis=None):
        raise ValueError("measurements of the overhead must have seconds and peak_mb > 0 where they have any")
    allowance = np.where(frame["method"] == "dpo", np.log1p(ALLOWED), 0.0)
    logs = {f"log_{name}": np.log(frame[name]) + allowance for name in numbers}
    rows = frame.assign(**logs, seed=frame["pair"])
    table = pd.concat([
        judged(rows.dropna(subset=[value]), [Contrast(
            claim="overhead", statement=f"bDPO's {words} of {part} is within {ALLOWED:.0%} of DPO's", method="bdpo",
            baseline="dpo", value=value, by=("what", "device"), margin=0.0, where=f"what {sign} '{LOSS_ONLY}'",
            lower_is_better=True, control=control,
        )])
        for part, sign, control in (("a step", "!=", False), ("the loss alone", "==", True))
        for words, value in (("time", "log_seconds"), ("peak memory", "log_peak_mb"))
        if not control or (frame["what"] == LOSS_ONLY).any()
    ], ignore_index=True)  # fmt: skip
    more = np.expm1(np.log1p(ALLOWED) - table["effect"])
    words = [f"{one} (measured: {share:+.1%}; effect: log {1 + ALLOWED:g} − log bDPO/DPO)"
             for one, share in zip(table["statement"], more, strict=True)]  # fmt: skip
    return table.assign(statement=words)


def _overhead(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return overhead(frames["overhead"])


# Another measurement of a claim is an entry of its own here, and named last by the claim.
MEASURED: dict[str, Measurement] = {
    "overhead": Measurement({"overhead": "benchmarks/overhead.parquet"}, "make bench", _overhead),
    "language-models": Measurement(
        language_models.FILES,
        language_models.COMMAND,
        language_models.verdict,
        language_models.figures,
        language_models.CAPTIONS,
    ),
}

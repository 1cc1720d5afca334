"""The budget of the experiments on a pretrained model: hours of one core, from measured seconds of whole runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradlab.store.markdown import markdown_table

CORES = 2
HOURS = 12.0  # the most that all runs of the core may take on ``CORES`` cores


@dataclass(frozen=True)
class Kind:
    """Runs that take equally long.

    name     in words, for the table.
    runs     how many are declared.
    seconds  of one of them, measured on one core that does nothing else.
    core     whether it is run whatever time is left.
    """

    name: str
    runs: int
    seconds: float
    core: bool = True

    @property
    def hours(self) -> float:
        """Return the hours of all runs on one core."""
        return self.runs * self.seconds / 3600


def hours_of_core(kinds: Sequence[Kind]) -> float:
    """Return the hours that all runs of the core take on ``CORES`` cores, one run per core."""
    return sum(kind.hours for kind in kinds if kind.core) / CORES


def table(kinds: Sequence[Kind]) -> list[str]:
    """Return the budget as a Markdown table; ValueError where the core takes more than ``HOURS``."""
    if hours_of_core(kinds) > HOURS:
        raise ValueError(f"kinds must take at most {HOURS:g} hours on {CORES} cores, got {hours_of_core(kinds):.1f}")
    rows = [
        [
            kind.name,
            str(kind.runs),
            f"{kind.seconds / 60:.1f}",
            f"{kind.hours:.1f}",
            "yes" if kind.core else "if time is left",
        ]
        for kind in kinds
    ]
    head = ["runs", "number", "minutes per run, one core", "hours in all, one core", "core"]
    total = [
        f"**core, on {CORES} cores**",
        str(sum(kind.runs for kind in kinds if kind.core)),
        "",
        f"{hours_of_core(kinds):.1f}",
        "",
    ]
    return markdown_table(head, [*rows, total], ["---", "---:", "---:", "---:", "---"])

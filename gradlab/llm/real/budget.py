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


# Seconds of the pilots: seeds below 1000, two processes at a time on two cores that others used too, so upper bounds.
# Those of hh are 3.0 s per step of its pilot, 78 s of a look at a sixth of the pairs and a quarter of the samples, and
# 0.55 s per pair for hidden states, in seconds of the processor, for the declared numbers of each.
# PPO is an estimate: twice the responses of a pair loss are scored per step, after they have been sampled. On a fitted
# reward model all layers read its 3,456 responses and 3,200 sampled ones as well, each with its prompt.
KINDS: tuple[Kind, ...] = (
    Kind("known: pairs of a seed, sampled and labelled", 3, 733.0),
    Kind("known: hidden states and the reference's log-probabilities of a seed", 3, 840.0),
    Kind("known: looks at the reference", 3, 120.0),
    Kind("known: 7 pair losses, 200 steps with 3 looks", 21, 888.0),
    Kind("known: 2 naive pair losses", 6, 888.0, core=False),
    Kind("known: PPO on the true reward (estimated)", 3, 3000.0, core=False),
    Kind("known: PPO on a fitted reward model (estimated)", 3, 4500.0, core=False),
    Kind("hh: hidden states and the reference's log-probabilities of a seed", 3, 600.0),
    Kind("hh: looks at the reference", 3, 300.0),
    Kind("hh: 7 pair losses, 200 steps with 3 looks", 21, 1400.0),
    Kind("hh: 2 naive pair losses", 6, 1400.0, core=False),
)


def page() -> str:
    """Return the page that is committed beside the frames, before the first run that is judged."""
    return "\n".join([
        "# The budget of the experiments on a pretrained model", "",
        f"Written before the first run that is judged. At most {HOURS:g} hours on {CORES} cores in all for the core; "
        "a slice (`make llm-real MODEL=FOLDER MINUTES=60`) begins no run after its end, and a run that is stopped goes "
        "on from its last checkpoint. Methods are cut if time is short, not steps. PPO on a fitted reward model was "
        "added later, before its first run.", "",
        *table(KINDS), "",
    ])  # fmt: skip

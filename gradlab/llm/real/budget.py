"""The budget of the experiments on a pretrained model: hours of one core, from measured seconds of whole runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradlab.llm.real.known_task import KnownTask
from gradlab.llm.real.pairs_task import PairsTask
from gradlab.llm.real.task import REFERENCE, RealTask
from gradlab.llm.train.run_settings import PPO
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


def hours_of_core(runs: Sequence[Kind]) -> float:
    """Return the hours that all runs of the core take on ``CORES`` cores, one run per core."""
    return sum(kind.hours for kind in runs if kind.core) / CORES


def table(runs: Sequence[Kind]) -> list[str]:
    """Return the budget as a Markdown table; ValueError where the core takes more than ``HOURS``."""
    if hours_of_core(runs) > HOURS:
        raise ValueError(f"runs must take at most {HOURS:g} hours on {CORES} cores, got {hours_of_core(runs):.1f}")
    rows = [
        [
            kind.name,
            str(kind.runs),
            f"{kind.seconds / 60:.1f}",
            f"{kind.hours:.1f}",
            "yes" if kind.core else "if time is left",
        ]
        for kind in runs
    ]
    head = ["runs", "number", "minutes per run, one core", "hours in all, one core", "core"]
    total = [
        f"**core, on {CORES} cores**",
        str(sum(kind.runs for kind in runs if kind.core)),
        "",
        f"{hours_of_core(runs):.1f}",
        "",
    ]
    return markdown_table(head, [*rows, total], ["---", "---:", "---:", "---:", "---"])


def kinds() -> tuple[Kind, ...]:
    """Return all runs that the tasks declare, and what each seed needs before them, with the seconds of the pilots."""
    known, hh = KnownTask(), PairsTask()
    beyond = list(known.settings["beyond"])
    # Pilots: seeds below 1000, two processes at a time on two cores that others used too, so upper bounds. Those of hh
    # are 0.54 s per pair for hidden states, and 200 steps of 2.8 s with six validations of 75 s and three looks of 300
    # s, from a pilot that was timed on cores with twice as much work, and with 600 held-out pairs.
    # PPO is an estimate: twice the responses of a pair loss are scored per step, after they have been sampled. On a
    # fitted reward model all layers read its 3,456 responses and 3,200 sampled ones as well, each with its prompt.
    return (
        _kind(known, "pairs of a seed, sampled and labelled", 733.0),
        _kind(known, "hidden states and the reference's log-probabilities of a seed", 840.0),
        _kind(known, "looks at the reference", 120.0),
        *_pair_losses(known, 888.0),
        _kind(known, "PPO on the true reward (estimated)", 3000.0, beyond.count("ppo"), core=False),
        _kind(known, "PPO on a fitted reward model (estimated)", 4500.0, beyond.count("ppo-fitted"), core=False),
        _kind(hh, "hidden states and the reference's log-probabilities of a seed", 650.0),
        _kind(hh, "looks at the reference", 300.0),
        *_pair_losses(hh, 1910.0),
    )


def _kind(task: RealTask, name: str, seconds: float, per_seed: int = 1, *, core: bool = True) -> Kind:
    """Return the runs of a task of which each seed has ``per_seed``."""
    return Kind(f"{task.name}: {name}", len(task.settings["seeds"]) * per_seed, seconds, core)


def _pair_losses(task: RealTask, seconds: float) -> tuple[Kind, Kind]:
    """Return a task's trainings by pair losses: those of the core, and the naive ones, which are beyond it."""
    settings = task.settings
    core = [name for name in settings["methods"] if name != REFERENCE]
    naive = [name for name, loss in settings["beyond"].items() if loss != PPO]
    size = f"{settings['steps']} steps with {len(settings['looks'])} looks"
    return (
        _kind(task, f"{len(core)} pair losses, {size}", seconds, len(core)),
        _kind(task, f"{len(naive)} naive pair losses", seconds, len(naive), core=False),
    )


def page() -> str:
    """Return the page that is committed beside the frames, before the first run that is judged."""
    return "\n".join([
        "# The budget of the experiments on a pretrained model, SmolLM2-135M-Instruct (4-bit weights made whole)", "",
        f"Written before the first run that is judged. At most {HOURS:g} hours on {CORES} cores in all for the core; "
        "a slice (`make llm-real MODEL=FOLDER DATA=PAIRS MINUTES=60`) stops its trainings with a checkpoint, from "
        "which the next one goes on. Methods are cut if time is short, not steps. PPO on a fitted reward model was "
        "added later, before its first run; the numbers of hh were raised before any run of it, since its pairs became "
        "longer and more of them are held out. A second data size is not declared: the core alone needs these hours.",
        "", *table(kinds()), "",
        "**Since:** the 21 trainings of known took 13 to 51 minutes each, 31 on average and 10.8 hours of one core in "
        "all, where 5.2 were planned: other work ran on the same two cores. The last seed's, with the least of it, "
        "took 19 on average. The 21 trainings of hh took 16.0 hours of one core where 11.1 were planned, 29 to 92 "
        "minutes each, again beside other work (one was begun on another machine, whose time was not recorded: its "
        "frame says 2 minutes). With the looks at both references these are 28.0 hours of one core and 14.0 on 2 "
        "cores, at least 2 beyond the limit: nothing was cut, since no method of the core can be spared. So no time "
        "was left for the naive losses and PPO, of which nothing has been run. Frames have the seconds of each run, "
        "and [OPEN-QUESTIONS.md](../../OPEN-QUESTIONS.md) their range.", "",
    ])  # fmt: skip

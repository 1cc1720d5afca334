"""Train tabular policies with one preference loss, one run per seed, and print the results.

Every seed draws a world (its utilities, its mask, its data). The table shows the first, some middle and the last
recorded step, as mean ± standard deviation over seeds.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from gradlab import checks
from gradlab.cli.options import OPTIONAL, check_save, option_of, parsed, save
from gradlab.console import say

if typing.TYPE_CHECKING:
    import pandas as pd

# The fields of ``Training`` that are options: all except the gradient log, which no table shows.
TRAINING = (
    "policy", "optimizer", "learning_rate", "steps", "pairs", "batch", "labels", "sampler", "sampler_every",
    "reference_every", "record", "device", "dtype", "engine",
)  # fmt: skip
_MOST_SEEDS = 10_000_000
_MOST_NAMED = 6  # losses that the help of a hyper-parameter names
SHOWN = {  # columns of a training's history, with their names in the table
    "utility": "utility",
    "utility_share": "utility share",
    "kl": "KL to reference",
    "entropy": "entropy",
    "unobserved_mass": "unobserved mass",
    "win_rate": "win-rate",
    "loss": "loss",
    "held_out_loss": "held-out loss",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitCommand:
    """The options of ``gradlab fit``."""

    loss: str = "dpo"
    """The loss to train with; `gradlab losses` lists them all, with their hyper-parameters. A loss of your own:
    FILE.py:CLASS or MODULE:CLASS. Numbers may follow: `nbdpo:beta=2,clip=0.3`."""
    seeds: int = 5
    """How many runs: worlds and data are drawn with seeds 0, 1, …, N − 1."""
    prompts: int = 20
    """Prompts in each world."""
    responses: int = 20
    """Responses to each prompt."""
    utility: str = "gaussian"
    """`gaussian`, `gaussian-random`, `log-gaussian` or `independent`: how good each response truly is."""
    sigma: float = 3.0
    """Width of the utility's peak, in responses."""
    scale: float = 4.0
    """Height of the utility's peak: log-odds by which the best response beats a bad one."""
    mask_rate: float = 0.0
    """Share of responses or pairs hidden from the data, at least 0 and below 1."""
    mask_kind: str = "responses"
    """The part that the mask hides: `responses`, or single `pairs` of them."""
    reference: str = "uniform"
    """`uniform`, `random` or `shifted`: the policy that training starts from and is kept close to."""
    shift: float = 6.0
    """Distance of the `shifted` reference from the best response, in responses."""
    save: Annotated[Path | None, OPTIONAL] = None
    """Also write the whole history to this file (Parquet; its name ends in .parquet), with a manifest beside it."""
    overwrite: bool = False
    """Let --save replace a file that holds another result."""

    def run(self) -> int:
        """Train, print the table, save."""
        from gradlab.lab.fit import fit
        from gradlab.lab.training import Training
        from gradlab.lab.world import gaussian_world
        from gradlab.losses import from_text, hyper_parameters

        checks.count("seeds", self.seeds, least=1, most=_MOST_SEEDS)
        check_save(self.save)
        hyper = {
            name: getattr(self, name)
            for name in hyper_parameters(batches=True)
            if getattr(self, name, None) is not None
        }
        loss = with_options(from_text(self.loss), hyper)
        names = ("utility", "sigma", "scale", "mask_rate", "mask_kind", "reference", "shift")
        world: dict[str, Any] = {name: getattr(self, name) for name in ("prompts", "responses", *names)}
        seeds = list(range(self.seeds))
        worlds = [gaussian_world(**world, seed=seed) for seed in seeds]
        training = Training(**{name: getattr(self, name) for name in TRAINING})
        trained = fit(worlds, loss, training, seed=seeds, progress=sys.stderr.isatty())
        policy, optimizer, rate = training.policy_name, training.optimizer, training.learning_rate
        pairs = "" if training.plain else f", pairs {training.law}"
        say(f"{loss!r}, {policy} policy, {optimizer} at {rate:g}{pairs}: ", end="")
        say(f"{self.seeds} runs, mean ± standard deviation" if self.seeds > 1 else "1 run", end="\n\n")
        say(history_table(trained.history))
        if self.save is not None:
            history = trained.history.rename(columns={"run": "seed"})  # run r has seed r
            manifest = {"command": "gradlab fit", "world": world, "training": trained.settings, "seeds": seeds}
            save(history, self.save, manifest, overwrite=self.overwrite)
        return 0


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    register_own(arguments)
    return parsed(with_every_option(), "fit", __doc__, arguments).run()


def register_own(arguments: Sequence[str], option: str = "--loss") -> None:
    """Register the losses of the user's own files that the arguments name, so that their numbers are options."""
    from gradlab.losses import from_text, is_own

    words = [word.removeprefix(f"{option}=") for word in arguments if word.startswith(f"{option}=")]
    words += [word for before, word in itertools.pairwise(arguments) if before == option]
    for word in words:
        if is_own(word):
            from_text(word)


def with_options(loss: Any, hyper: Mapping[str, Any]) -> Any:
    """Return the loss with the hyper-parameters that options set; ValueError for one that it lacks."""
    known = [field.name for field in dataclasses.fields(loss)]
    for name in hyper:
        checks.one_of(f"hyper-parameter of {loss.name}", name, known)
    return dataclasses.replace(loss, **hyper)


def with_every_option() -> type[FitCommand]:
    """Return ``FitCommand`` with an option for each field of the recipe, and for each hyper-parameter of a loss."""
    from gradlab.lab.training import Training
    from gradlab.losses import hyper_parameters

    options = [option_of(Training, name) for name in TRAINING]
    taken = {*TRAINING, *(field.name for field in dataclasses.fields(FitCommand))}
    for name, (kind, losses, _) in hyper_parameters(taken, batches=True).items():
        text = f"Hyper-parameter of {_owners(losses)}."
        annotation = Annotated[kind | None, tyro.conf.arg(help=text, help_behavior_hint="")]
        options.append((name, annotation, dataclasses.field(default=None, kw_only=True)))
    return dataclasses.make_dataclass("FitCommand", options, bases=(FitCommand,), frozen=True)


def _owners(losses: dict[str, Any]) -> str:
    """Return the losses that have a hyper-parameter, with their defaults; of many losses, their number and a range."""
    if len(losses) > _MOST_NAMED:
        low, high = min(losses, key=losses.__getitem__), max(losses, key=losses.__getitem__)
        ends = f"from {losses[low]:g} ({low}) to {losses[high]:g} ({high})"
        return f"{len(losses)} losses. Left out: each one's own, {ends}; `gradlab losses KEY` prints it"
    if len(set(losses.values())) == 1:
        return f"{', '.join(losses)}. Left out: {next(iter(losses.values())):g}"
    return f"{', '.join(losses)}. Left out: {', '.join(f'{losses[name]:g}' for name in losses)}"


def history_table(history: pd.DataFrame, columns: int = 4) -> str:
    """Return the history of some runs as text: one line per metric, one column per step, ``columns`` steps at most."""
    import numpy as np

    steps = np.sort(history["step"].unique())
    steps = steps[np.unique(np.linspace(0, len(steps) - 1, columns).round().astype(int))]
    by_step = history.groupby("step")
    lines = [f"{'step':<15}" + "".join(f"{step:>16}" for step in steps)]
    for name, title in SHOWN.items():
        means, deviations = (numbers.loc[steps].tolist() for numbers in (by_step[name].mean(), by_step[name].std()))
        lines.append(f"{title:<15}" + "".join(f"{_cell(*pair):>16}" for pair in zip(means, deviations, strict=True)))
    return "\n".join(lines)


def _cell(mean: float, deviation: float) -> str:
    digits = ".3f" if abs(mean) < 1000 else ".3g"
    return f"{mean:{digits}}" + (f" ± {deviation:.3f}" if deviation == deviation else "")  # one seed has no deviation

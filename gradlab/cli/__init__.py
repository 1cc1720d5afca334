"""The command line ``gradlab``: a thin face over functions of other modules."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import subprocess
import sys
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from gradlab import __version__, checks
from gradlab.console import complain, one_line, stop_on_sigterm

# Only light modules are imported up here: torch takes seconds, and `gradlab --help` should not.
if typing.TYPE_CHECKING:
    import pandas as pd

_OPTIONAL = tyro.conf.arg(help_behavior_hint="")  # what leaving it out means is said in the help text
DESCRIPTION = "See, test and settle what a preference loss really does to a policy."
SHOWN = {  # columns of a training's history, and what the table calls them
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
    """Train tabular policies with one preference loss, one run a seed, and print what became of them.

    Every seed draws a world of its own (its utilities, its mask, its data). The table shows the first, some middle
    and the last recorded step, as mean ± standard deviation over seeds.
    """

    loss: str = "dpo"
    """The loss to train with; `gradlab losses` lists them all, with their hyper-parameters."""
    seeds: int = 5
    """How many runs: worlds and data are drawn with seeds 0, 1, …, N − 1."""
    steps: int = 500
    """Optimiser steps of each run."""
    learning_rate: float = 0.05
    """Step size of the optimiser."""
    optimizer: str = "adam"
    """`adam`, or `gd` for plain gradient descent."""
    policy: str = "free"
    """`free`: one logit for each prompt and response; `shared`: neighbouring responses share parameters."""
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
    """Share hidden from the data, at least 0 and below 1."""
    mask_kind: str = "responses"
    """What the mask hides: `responses`, or single `pairs` of them."""
    reference: str = "uniform"
    """`uniform`, `random` or `shifted`: the policy that training starts from and is kept close to."""
    shift: float = 6.0
    """Distance of the `shifted` reference from the best response, in responses."""
    pairs: Annotated[int | None, _OPTIONAL] = None
    """Size of a finite data set, in pairs a prompt. Left out: the exact expectation over all pairs."""
    batch: Annotated[int | None, _OPTIONAL] = None
    """Pairs a prompt in a mini-batch, drawn afresh for every step. Left out: full batch."""
    labels: Annotated[str | None, _OPTIONAL] = None
    """`soft`: probabilities of preference; `hard`: one winner. Left out: soft for exact data, hard for finite."""
    save: Annotated[Path | None, _OPTIONAL] = None
    """Also write the whole history to this file (Parquet; its name ends in .parquet), with a manifest beside it."""
    overwrite: bool = False
    """Let --save replace a file that holds another result."""

    def run(self) -> int:
        """Train, print the table, save."""
        from gradlab.lab.fit import fit
        from gradlab.lab.policy import tabular_policy
        from gradlab.lab.world import gaussian_world
        from gradlab.losses import hyper_parameters, pair_loss
        from gradlab.store.artifacts import save_frame

        checks.count("seeds", self.seeds, least=1)
        _check_save(self.save)
        hyper = {name: getattr(self, name) for name in hyper_parameters() if getattr(self, name, None) is not None}
        loss = pair_loss(self.loss, **hyper)
        names = ("utility", "sigma", "scale", "mask_rate", "mask_kind", "reference", "shift")
        world: dict[str, Any] = {name: getattr(self, name) for name in ("prompts", "responses", *names)}
        seeds = list(range(self.seeds))
        worlds = [gaussian_world(**world, seed=seed) for seed in seeds]
        trained = fit(
            worlds,
            loss,
            policy=tabular_policy(self.policy),
            optimizer=typing.cast(Any, self.optimizer),
            learning_rate=self.learning_rate,
            steps=self.steps,
            pairs=self.pairs,
            batch=self.batch,
            labels=typing.cast(Any, self.labels),
            seed=seeds,
            progress=sys.stderr.isatty(),
        )
        print(f"{loss!r}, {self.policy} policy, {self.optimizer} at {self.learning_rate:g}: ", end="")
        print(f"{self.seeds} runs, mean ± standard deviation" if self.seeds > 1 else "1 run", end="\n\n")
        print(history_table(trained.history))
        if self.save is not None:
            history = trained.history.rename(columns={"run": "seed"})  # run r has seed r
            manifest = {"command": "gradlab fit", "world": world, "training": trained.settings, "seeds": seeds}
            print(f"\nsaved: {save_frame(history, self.save, manifest, overwrite=self.overwrite)}")
        return 0


@dataclasses.dataclass(frozen=True)
class SweepCommand:
    """Train every run that a TOML file asks for, in parallel, streamed to disk; stopped, it goes on where it was.

    A key of the file is an argument of gaussian_world, of a loss or of fit, with a value or a list of values; README.md
    shows one.
    """

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE.toml")]
    """The runs."""
    folder: Annotated[Path | None, _OPTIONAL] = None
    """Where the results go, in runs.parquet. Left out: beside the file, under its name without .toml."""
    status: bool = False
    """Only say how far it is; also while it runs elsewhere."""
    workers: Annotated[int | None, _OPTIONAL] = None
    """Processes; left out: one a core. The results do not depend on it."""
    scheduler: Annotated[str | None, _OPTIONAL] = None
    """Address of a dask scheduler, such as tcp://localhost:8786: its workers do the work."""
    fresh: bool = False
    """Begin anew, and throw away what the folder holds of this sweep or another."""

    def run(self) -> int:
        """Train, or tell the state."""
        from gradlab.sweeps.settings_frame import read_settings
        from gradlab.sweeps.sweep import run_sweep, sweep_status

        if self.file.suffix != ".toml":
            raise ValueError(f"file must end in .toml, got {str(self.file)!r}")
        folder = self.folder or self.file.with_suffix("")
        if not self.status:
            settings = read_settings(self.file)
            with self._backend():
                print(f"saved: {run_sweep(settings, folder, workers=self.workers, fresh=self.fresh)}")
        print(sweep_status(folder))
        return 0

    @contextlib.contextmanager
    def _backend(self) -> Iterator[None]:
        """Joblib's own, or dask's."""
        from joblib import effective_n_jobs, parallel_config

        if self.scheduler is None:
            yield
            return
        _need("dask", "distributed")
        with parallel_config(backend="dask", scheduler_host=self.scheduler):
            if effective_n_jobs(-1) < 2:
                raise ValueError(f"scheduler must have two worker threads or more, {self.scheduler!r} has less")
            yield


@dataclasses.dataclass(frozen=True)
class FiguresCommand:
    """Run the paper's experiments and draw their figures, with a gallery page.

    Results are kept: what is already there and still true is not computed again. Can be stopped and resumed.
    """

    names: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[NAME …]", help_behavior_hint="")
    ] = ()
    """Experiments to run; left out: all of them."""
    quick: bool = False
    """A look in under a minute: fewer seeds, marked so on every figure, in a folder of its own."""
    fresh: bool = False
    """Compute everything again."""
    folder: Path = Path("figures")
    """Where figures and data go."""

    def run(self) -> int:
        """Hand over to the experiments."""
        from gradlab.experiments import make_figures

        make_figures(list(self.names), folder=self.folder, quick=self.quick, fresh=self.fresh)
        return 0


@dataclasses.dataclass(frozen=True)
class ClaimsCommand:
    """Print the verdict on each claim of the paper, judged anew from the frames; or explain one claim.

    Exit status: 0 where every verdict is the one in the committed report (claims.csv), 3 where one is not.
    """

    name: Annotated[
        tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[NAME]", help_behavior_hint="")
    ] = None  # fmt: skip
    """A claim to explain: how it is judged, every row, its figure and data; left out: a table of all."""
    folder: Path = Path("figures")
    """The folder of the figures, with the frames in data/."""

    def run(self) -> int:
        """Judge, print, and compare with the committed report."""
        from gradlab.experiments import EXPERIMENTS
        from gradlab.experiments.report import verdicts, wording

        if not (self.folder / "data").is_dir():
            raise ValueError(f"folder must be one that `gradlab figures` has filled, got {str(self.folder)!r}")
        names = [self.name] if self.name is not None else list(verdicts.CLAIMS)
        quick = self.folder.resolve().name == "quick"
        settled = verdicts.judge_claims(self.folder, EXPERIMENTS, names, quick=quick, stale_too=True)
        if self.name is None:
            print(wording.table(settled.values()))
        else:
            print(wording.explained(settled[self.name], self.folder, quick=quick))
        report = verdicts.former(self.folder, committed=True)
        for note in wording.notes(settled.values(), report, quick=quick):
            print(f"gradlab: {note}", file=sys.stderr)
        changed = verdicts.changes(report, settled) if report is not None else []
        for line in changed:
            print(f"changed against the committed report: {line}")
        return 3 if changed else 0


@dataclasses.dataclass(frozen=True)
class DoctorCommand:
    """Look through the log of a preference training for known signatures of failure; say where, and what to try.

    It reads gradlab's logs and TRL's: trainer_state.json, or rows with a step as CSV, JSON or JSON lines. Exit status:
    0 where no problem was found (warnings and notes aside), 3 where one was.
    """

    log: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="LOG")]
    """The log."""
    baseline: Annotated[Path | None, tyro.conf.arg(metavar="LOG", help_behavior_hint="")] = None
    """The log of a run to compare with; left out: chance."""

    def run(self) -> int:
        """Read, examine, print."""
        from gradlab.doctor import examine, report
        from gradlab.doctor.training_log import read_log

        log = read_log(self.log)
        findings = examine(log, None if self.baseline is None else read_log(self.baseline))
        first, last = (log["step"].iloc[one] for one in (0, -1))
        loss = log.attrs["settings"].get("loss")
        print(f"{self.log}: {len(log)} rows, steps {first} to {last}{f', loss {loss}' if loss else ''}\n")
        print(report(findings))
        return 3 if any(finding.severity == "problem" for finding in findings) else 0


@dataclasses.dataclass(frozen=True)
class InspectCommand:
    """Say before any training how imbalanced a run will be: log π, λ and lengths of its pairs under its first model.

    Nothing is trained. It prints what became of the data, log π_l/π_w, λ and every loss's gradient ratio at the start,
    what length alone can tell of the preferences, and what that means for a run.
    """

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """The model that training starts from: a folder with weights in safetensors or a LoRA adapter, or a hub's name."""
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PAIRS")]
    """Preference pairs: a .jsonl, .jsonl.gz or .parquet file, or a hub's name."""
    choice: Annotated[typing.Literal["helpfulness", "safety"] | None, _OPTIONAL] = None
    """Which preference of PKU-SafeRLHF counts; needed there, and there only."""
    split: str = "train"
    """Split of a data set from a hub."""
    template: typing.Literal["plain", "chat", "beaver"] = "plain"
    """How prompt and response become one text: as they are, by the tokenizer's chat template, or safe-rlhf's."""
    max_length: int = 512
    """Tokens of prompt and response together; what is longer is cut, and counted."""
    max_prompt: Annotated[int | None, _OPTIONAL] = None
    """Tokens that a prompt keeps where the whole is too long; left out: half of max_length."""
    pairs: int = 500
    """How many pairs are scored, drawn from all that can be used; 0: all."""
    seed: int = 0
    """Draws them."""
    precision: typing.Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bfloat16 on a GPU, float32 on a CPU."""
    batch: int = 8
    """Pairs scored at a time; the numbers depend on it by rounding only."""
    clip: float = 0.3
    """Of the naive variants; 0.3 is that of the paper's recipe."""
    save: Annotated[Path | None, _OPTIONAL] = None
    """Also write a row a pair to this file (Parquet; its name ends in .parquet), with a manifest beside it."""
    overwrite: bool = False
    """Let --save replace a file that holds another result."""

    def run(self) -> int:
        """Score, print, save."""
        _check_save(self.save)
        _need("llm", "transformers")
        from gradlab.cli.train_command import quiet
        from gradlab.llm.look.inspection import inspect_data
        from gradlab.store.artifacts import save_frame

        quiet()
        own = {name: value for name, value in vars(self).items() if name not in ("save", "overwrite")}
        seen = inspect_data(**own, title="log π" if sys.stderr.isatty() else "")
        print(seen)
        if self.save is not None:
            manifest = {"command": "gradlab inspect", **seen.settings}
            print(f"\nsaved: {save_frame(seen.frame, self.save, manifest, overwrite=self.overwrite)}")
        return 0


@dataclasses.dataclass(frozen=True)
class LossesCommand:
    """List the registered losses: name, equation, source and hyper-parameters."""

    def run(self) -> int:
        """Print the registry."""
        print(losses_table())
        return 0


@dataclasses.dataclass(frozen=True)
class LabCommand:
    """Open the notebooks in JupyterLab, live: one drags a slider, and policies are trained anew.

    In a checkout they are opened where they are. Elsewhere they are copied into a folder first, never over what you
    have changed there.
    """

    folder: Annotated[
        tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[FOLDER]", help_behavior_hint="")
    ] = None  # fmt: skip
    """Where to copy the notebooks to; left out: `gradlab-notebooks`, or no copy where a checkout is opened."""
    copy_only: bool = False
    """Copy, and do not open JupyterLab."""

    def run(self) -> int:
        """Copy, start JupyterLab, and wait for it."""
        from gradlab.store.shipped import copy_notebooks

        if not self.copy_only:
            _need("lab", "jupyterlab", "anywidget")
        folder = self.folder or (Path("gradlab-notebooks") if self.copy_only or not _is_checkout() else None)
        if folder is not None:
            for name in copy_notebooks(folder):
                print(f"gradlab: kept {folder / name}, which you have changed; there is a newer one", file=sys.stderr)
            print(f"notebooks: {folder}")
        if self.copy_only:
            return 0
        start = (folder or Path("notebooks")).resolve() / "00-start.ipynb"
        return subprocess.run([sys.executable, "-m", "jupyterlab", str(start)], check=False).returncode


def _check_save(file: Path | None) -> None:
    """Refuse what --save cannot write; better now than after the work."""
    if file is not None and file.suffix != ".parquet":
        raise ValueError(f"save must name a file that ends in .parquet, got {str(file)!r}")


def _need(extra: str, *modules: str) -> None:
    """Say how to get modules that only an extra of gradlab brings, where one of them is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f'{module} is not installed; get it with: pip install "gradlab[{extra}]"')


def _is_checkout() -> bool:
    """Whether the current folder is gradlab's own."""
    return Path("notebooks/00-start.ipynb").is_file() and Path("gradlab/__init__.py").is_file()


def history_table(history: pd.DataFrame, columns: int = 4) -> str:
    """The history of some runs as text: a line for each metric, a column for each of some recorded steps."""
    import numpy as np

    steps = np.sort(history["step"].unique())
    steps = steps[np.unique(np.linspace(0, len(steps) - 1, columns).round().astype(int))]
    by_step = history.groupby("step")
    lines = [f"{'step':<15}" + "".join(f"{step:>16}" for step in steps)]
    for name, title in SHOWN.items():
        means, deviations = (numbers.loc[steps].tolist() for numbers in (by_step[name].mean(), by_step[name].std()))
        lines.append(f"{title:<15}" + "".join(f"{_cell(*pair):>16}" for pair in zip(means, deviations, strict=True)))
    return "\n".join(lines)


def losses_table() -> str:
    """The registry as text: a paragraph for each loss, then what the symbols mean."""
    from gradlab.losses import PAIR_LOSSES, hyper_parameters

    width = max(map(len, PAIR_LOSSES)) + 2
    menu = hyper_parameters()
    lines = []
    for name, make in PAIR_LOSSES.items():
        loss = make()
        hyper = ", ".join(f"{key} = {defaults[name]:g}" for key, (_, defaults) in menu.items() if name in defaults)
        kind = "antisymmetric" if loss.antisymmetric else "not antisymmetric"
        lines += [f"{name:<{width}}{loss.equation}", f"{'':<{width}}{hyper}; {kind}", f"{'':<{width}}{loss.source}", ""]
    lines += [
        "h_w = log π(y_w)/π_ref(y_w) of the preferred response y_w, h_l the same of the dispreferred one.",
        "antisymmetric: the loss is −log σ of something that changes sign when the two responses trade places.",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 2 for bad input, 1 for other failures, 130 for Ctrl-C.

    ``gradlab claims`` also returns 3, where a verdict has changed; ``gradlab doctor`` where it has found a problem.
    """
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    stop_on_sigterm()
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks Greek letters shows ? in their place
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    if arguments == ["--version"]:
        print(f"gradlab {__version__}")
        return 0
    try:
        commands = {
            "fit": _fit_command() if arguments[0] == "fit" else FitCommand,
            "sweep": SweepCommand,
            "figures": FiguresCommand,
            "claims": ClaimsCommand,
            "doctor": DoctorCommand,
            "inspect": InspectCommand,
            "losses": LossesCommand,
            "lab": LabCommand,
        }
        command = tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="gradlab",
            description=DESCRIPTION,
            args=arguments,
            config=(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
        )
        return command.run()
    except KeyboardInterrupt:
        return complain("gradlab", "stopped; no file was left half-written", 130)
    except ValueError as error:
        return complain("gradlab", error, 2)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except FileExistsError as error:
        remedy = " (--overwrite)" if arguments[0] in ("fit", "inspect") else ""
        return complain("gradlab", f"{one_line(error)}{remedy}", 1)
    except MemoryError as error:
        return complain("gradlab", f"not enough memory for these sizes: {error}".removesuffix(": "), 1)
    except (OSError, FloatingPointError, ImportError) as error:
        return complain("gradlab", error, 1)


def _fit_command() -> type[FitCommand]:
    """``FitCommand`` with an option for every hyper-parameter that some registered loss has."""
    from gradlab.losses import hyper_parameters

    options = []
    for name, (kind, owners) in hyper_parameters().items():
        text = f"Hyper-parameter of {', '.join(owners)}. Left out: {_defaults(owners)}."
        annotation = Annotated[kind | None, tyro.conf.arg(help=text, help_behavior_hint="")]
        options.append((name, annotation, dataclasses.field(default=None, kw_only=True)))
    made = dataclasses.make_dataclass("FitCommand", options, bases=(FitCommand,), frozen=True)
    made.__doc__ = FitCommand.__doc__
    return made


def _defaults(owners: dict[str, Any]) -> str:
    if len(set(owners.values())) == 1:
        return f"{next(iter(owners.values())):g}"
    return ", ".join(f"{default:g} for {owner}" for owner, default in owners.items())


def _cell(mean: float, deviation: float) -> str:
    digits = ".3f" if abs(mean) < 1000 else ".3g"
    return f"{mean:{digits}}" + (f" ± {deviation:.3f}" if deviation == deviation else "")  # one seed has no deviation


if __name__ == "__main__":
    sys.exit(main())

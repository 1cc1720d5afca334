"""``gradlab study plan``: ask for a plan or check one, say what it means, and freeze it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from gradlab.cli.options import need, quiet_transformers
from gradlab.cli.study_power import PLAN, design_in_words
from gradlab.console import say, wrapped

if TYPE_CHECKING:
    from gradlab.study import Plan, Study

_STUDY = tyro.conf.arg(metavar="STUDY.json", help_behavior_hint="")
_INT = tyro.conf.arg(metavar="INT", help_behavior_hint="(left out: all)")
_LENGTH = tyro.conf.arg(metavar="INT", help_behavior_hint="(left out: as gradlab evaluate)")
SECONDS = 30  # that a rater takes per answer, a guess


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanCommand:
    """Ask for a plan where its file is missing, check it where it is there, and freeze it with --freeze.

    A frozen study holds plan, texts and a secret that draws the sides: give its file to no rater. Its hash stands in
    every answer. Systems that are model folders of gradlab train are sampled first, one response per prompt; the
    samples are kept beside the study.
    """

    plan: Annotated[tyro.conf.Positional[Path], PLAN]
    """The plan's TOML file."""
    freeze: Annotated[Path | None, _STUDY] = None
    """Freeze the plan into this file."""
    json: bool = False
    """Print JSON in place of sentences."""
    prompts: Annotated[int | None, _INT] = None
    """How many held-out prompts model folders answer, where the plan names no file of prompts."""
    length: Annotated[int | None, _LENGTH] = None
    """The most tokens in a sampled response."""
    temperature: float = 1.0
    """Temperature of sampling."""
    seed: int = 0
    """Seed of sampling."""
    batch: int = 16
    """Responses that are sampled at a time."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models compute."""

    def run(self) -> int:
        """Ask or check, freeze, print."""
        from gradlab.study import Plan
        from gradlab.study.texts import json_page

        if not self.plan.exists():
            return self._ask()
        plan = Plan.read(self.plan)
        study, notes = self._frozen(plan) if self.freeze else (None, _checked(plan, self.plan.parent))
        if self.json:
            say(json_page(facts(plan, study)))
            return 0
        say("\n".join(summary(plan)))
        for note in notes:
            say("\n".join(["", *wrapped(note, 100)]))
        say(f"\n{self._next(study)}")
        return 0

    def _ask(self) -> int:
        """Ask for the plan on a terminal, and write it; FileNotFoundError elsewhere."""
        if self.freeze or self.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise FileNotFoundError(
                f"plan must be a file that can be read, got {self.plan}: no such file; on a terminal, gradlab study "
                f"plan {self.plan} asks for it"
            )
        from gradlab.cli.study_questions import asked

        plan = asked(input)
        plan.write(self.plan)
        say("\n".join(["", *summary(plan), "", f"saved: {self.plan}", self._next(None)]))
        return 0

    def _frozen(self, plan: Plan) -> tuple[Study, list[str]]:
        """Return the frozen study, written to its file; model folders are sampled before."""
        from gradlab.study import freeze
        from gradlab.study.frozen import salt_for

        assert self.freeze is not None
        folder = self.plan.parent
        sources, notes = self._sampled(plan, folder, self.freeze)
        study = freeze(plan, folder, sources, salt_for(self.freeze))
        study.write(self.freeze)
        return study, [*notes, f"frozen: {self.freeze}, SHA-256 {study.hash}"]

    def _sampled(self, plan: Plan, folder: Path, study: Path) -> tuple[dict[str, Path | str], list[str]]:
        """Return the files of samples of the systems that are model folders, and what to say about them."""
        if not any((folder / source).is_dir() for source in plan.systems.values()):
            return {}, []
        need("llm", "transformers", "safetensors", "tokenizers")
        from gradlab.llm.judge.study_samples import Sampling, sample_systems

        how = Sampling(self.temperature, self.seed, self.length, self.batch, self.device, self.prompts)
        with quiet_transformers():
            kept = sample_systems(plan, folder, study, how)
        notes = []
        for system, samples in kept.items():
            how_drawn = f"sampled at temperature {self.temperature:g}, seed {self.seed}"
            said = "was there" if samples.was_there else how_drawn
            empty = f"; {samples.empty} empty responses are left out" if samples.empty else ""
            notes.append(f"{system}: {samples.file}, {said}{empty}")
        return {system: samples.file for system, samples in kept.items()}, notes

    def _next(self, study: Study | None) -> str:
        if study is None:
            return (
                f"next: gradlab study power {self.plan}, then gradlab study plan {self.plan} --freeze "
                f"{self.plan.with_suffix('.study.json')}"
            )
        return f"next: gradlab study assign {self.freeze} --out FOLDER"


def facts(plan: Plan, study: Study | None) -> dict[str, Any]:
    """Return a plan and what follows from it, as JSON has it."""
    from gradlab.study.plan import as_page
    from gradlab.study.planned_power import answers_asked, tasks_per_rater

    return {
        "plan": as_page(plan), "items": plan.items, "tasks_per_rater": tasks_per_rater(plan),
        "answers": answers_asked(plan), "hours": hours(plan), "study": study.hash if study else None,
    }  # fmt: skip


def hours(plan: Plan) -> float:
    """Return the hours of all raters together, at ``SECONDS`` per answer."""
    from gradlab.study.planned_power import answers_asked

    return answers_asked(plan) * SECONDS / 3600


def summary(plan: Plan) -> list[str]:
    """Return what a plan means, in lines: who rates what, how long it takes, and by which rule the verdict is said."""
    from gradlab.study.methods import WORDS
    from gradlab.study.planned_power import tasks_per_rater

    primary, design, stop = plan.primary, plan.design, plan.stop
    names = {"a": primary.a, "b": primary.b}
    above, below = f"{0.5 + primary.margin:.1%}", f"{0.5 - primary.margin:.1%}"
    goals = ", ".join(goal.name for goal in plan.goals)
    each = tasks_per_rater(plan)
    lines = [
        plan.title,
        *_row("systems", f"{', '.join(plan.systems)}; pairs compared: {len(plan.compared)}; goals: {goals}"),
        *_row("question", f"is {primary.b} preferred to {primary.a}, by {primary.goal}? margin {primary.margin:.1%}"),
        *_row("design", design_in_words(plan)),
        *_row("a rater", f"{each} comparisons: {design.items_per_rater} items, "
              f"{round(design.repeats * design.items_per_rater)} repeats, {design.attention} attention checks"),
        *_row("time", f"{hours(plan):.1f} hours in all, {hours(plan) / len(plan.raters):.1f} per rater, at {SECONDS} s "
              "per answer"),
        *_row("ends", "when every item is answered" if stop.rule == "fixed" else
              f"at a half-width of {stop.half_width:.1%} with {stop.least_items} items answered, or when every item is "
              "answered"),
        *_row("judges", ", ".join(plan.judges) or "none that are models"),
        "", "The verdict, from the 95% interval of the win-rate (ties one half), the first whose rule is met:",
    ]  # fmt: skip
    rules = {
        "mixed": f"a tenth of the strata beyond {above}, and a tenth below {below}",
        "no practical difference": f"two one-sided tests at 5% show it between {below} and {above}",
        "holds throughout": f"the interval lies beyond {above} in 95% of two strata or more, and none is reversed",
        "holds on average": "the interval lies above 50%",
        "reversed": "the interval lies below 50%",
        "undecided": "anything else",
    }
    for word, rule in rules.items():
        lines += wrapped(f"{rule}: {WORDS[word].format(**names)}.", 100, f"  {word:<25}")
    return lines


def _row(name: str, text: str) -> list[str]:
    return wrapped(text, 100, f"  {name:<10}")


def _checked(plan: Plan, folder: Path) -> list[str]:
    """Return notes on the plan's files; ValueError for samples that the plan cannot use, if all of them are there."""
    from gradlab.study import freeze

    sources = [*plan.systems.items(), *([("prompts", plan.prompts)] if plan.prompts else [])]
    missing = [f"{name} ({folder / source})" for name, source in sources if not (folder / source).exists()]
    models = [name for name, source in plan.systems.items() if (folder / source).is_dir()]
    if missing:
        return [f"not there yet: {', '.join(missing)}"]
    if models:
        return [f"--freeze samples {', '.join(models)} first, one response per prompt"]
    study = freeze(plan, folder)
    prompts = {item.prompt for item in study.items}
    return [f"The samples can be used: {len(study.shown)} items of {len(prompts)} prompts."]

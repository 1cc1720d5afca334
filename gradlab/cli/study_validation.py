"""``gradlab study demo`` and ``validate``: a complete example, and the check that a study recovers a known truth."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from gradlab.console import say


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoCommand:
    """Write a complete example of a study, with simulated raters: plan, pages, answers, report."""

    out: Path = Path("runs/study-demo")
    """The folder of the example; a former one there is replaced where nothing in it was changed."""

    def run(self) -> int:
        """Write it, and print where to look."""
        import gradlab.widgets
        from gradlab.study import demo
        from gradlab.study.methods import verdict_in_words
        from gradlab.study.report_page import report

        samples = Path(gradlab.widgets.__file__).parent / "samples/samples.jsonl"
        made = demo.make_demo(samples, self.out)
        results = report(made.study, sorted(made.answers.glob("*.jsonl"))).results
        say(f"No person rated anything: {len(demo.RATERS)} simulated raters answered.\n{verdict_in_words(results)}\n")
        for file, about in (
            (made.plan, "the plan, as a person writes it"), (made.study, "the frozen study, whose hash answers carry"),
            (made.pages / f"{demo.RATERS[0]}.html", "a rater's page: open it in a browser and rate"),
            (made.answers, "the answers, a file per rater"), (made.report, "the report: open it in a browser"),
        ):  # fmt: skip
            say(f"{file}\n    {about}")
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidateCommand:
    """Simulate studies of a known truth from plan to verdict, and write figures/STUDY.md.

    It takes about ten minutes on two cores. Finished parts are kept, and an interrupted run goes on where it was.
    """

    folder: Path = Path("figures")
    """The folder of the figures: study in it has the samples, and gets frames and pictures."""
    out: Path = Path("runs/study")
    """The folder of the parts."""
    workers: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(left out: one per core)")] = None
    """Processes, of one thread each; the number changes no bit."""
    quick: bool = False
    """A look in a minute or two: a twentieth of the simulations, marked so, in FOLDER/quick."""

    def run(self) -> int:
        """Simulate what is missing, judge, draw, print the answer."""
        from gradlab.study.validation.judged import promises
        from gradlab.study.validation.page import answer, write_page
        from gradlab.study.validation.runs import save, validate
        from gradlab.study.validation.settings import FULL, QUICK

        settings = QUICK if self.quick else FULL
        found = validate(self.folder, self.out / ("quick" if self.quick else "full"), settings, self.workers)
        target = self.folder / "quick" if self.quick else self.folder
        save(found, target, settings)
        page = write_page(found, settings, target, quick=self.quick)
        say(f"{answer(promises(found, settings)).replace('**', '')}\n\nsaved: {page}")
        return 0

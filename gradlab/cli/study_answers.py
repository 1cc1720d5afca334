"""``gradlab study assign`` and ``report``: pages for raters, and the report on their answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gradlab.cli.options import OPTIONAL
from gradlab.console import say, wrapped

if TYPE_CHECKING:
    from gradlab.study import Answers

STUDY = tyro.conf.arg(metavar="STUDY.json", help_behavior_hint="(required)")
_ANSWERS = tyro.conf.arg(metavar="ANSWERS [ANSWERS ...]", help_behavior_hint="(required)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AssignCommand:
    """Write a page for each rater, which needs no Python and no network, and a table of all tasks.

    A page is blind. The table, tasks.csv, names the systems: it is for the researcher, and not for raters.
    """

    study: Annotated[tyro.conf.Positional[Path], STUDY]
    """The frozen study."""
    out: Path
    """The folder of the pages."""

    def run(self) -> int:
        """Assign, write, print what comes next."""
        from gradlab.store.csv_text import csv_text
        from gradlab.store.files import write_once
        from gradlab.study import assign, read_study
        from gradlab.study.assignment import as_frame
        from gradlab.study.rater_page import rating_page

        study = read_study(self.study)
        lists = assign(study)
        files = {self.out / f"{rater}.html": rating_page(study, rater) for rater in study.plan.raters}
        files[self.out / "tasks.csv"] = csv_text(as_frame(lists))
        write_once(files)
        for rater in study.plan.raters:
            say(f"{self.out / rater}.html: {len(lists[rater])} comparisons")
        say(f"for the researcher alone, as it names the systems: {self.out / 'tasks.csv'}")
        say("\n".join(["", *wrapped(
            "next: send each rater one page and nothing else; each sends back the file of answers that the page saves. "
            f"Then: gradlab study report {self.study} ANSWERS --out FOLDER", 100,
        )]))  # fmt: skip
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportCommand:
    """Analyse the answers as planned: the verdict, what to read beside it, and a page with everything.

    With --interim, say only whether the study may stop: widths and counts, and nothing about which system is ahead.
    """

    study: Annotated[tyro.conf.Positional[Path], STUDY]
    """The frozen study."""
    answers: Annotated[tyro.conf.Positional[tuple[Path, ...]], _ANSWERS]
    """Files of answers, or folders in which all files *.jsonl are answers."""
    out: Annotated[Path | None, OPTIONAL] = None
    """Also write the page, its tables as CSV and the paragraph on methods into this folder."""
    interim: bool = False
    """Only say whether the plan's stop rule is met."""
    json: bool = False
    """Print JSON in place of sentences."""

    def run(self) -> int:
        """Read, judge, print, write."""
        from gradlab.study import read_answers, read_study, report
        from gradlab.study.methods import cautions, verdict_in_words

        if self.interim and self.out is not None:
            raise ValueError(f"out must be left out with --interim, as a report says the rate, got {str(self.out)!r}")
        study = read_study(self.study)
        answers = read_answers(study, _files(self.answers))
        if self.interim:
            return self._look(answers)
        made = report(study, answers)
        page = None if self.out is None else made.write(self.out)
        if self.json:
            say(made.json().rstrip("\n"))
            return 0
        lines = wrapped(verdict_in_words(made.results), 100)
        for text in (*cautions(made.results), *answers.notes):
            lines += wrapped(text, 100, "- ")
        say("\n".join(lines))
        say(f"\nsaved: {page}" if page else "\nnothing is written; --out FOLDER writes the page, tables and methods")
        return 0

    def _look(self, answers: Answers) -> int:
        from gradlab.study.stopping import interim, interim_in_words
        from gradlab.study.texts import json_page

        look = interim(answers)
        say(json_page(vars(look)) if self.json else "\n".join(wrapped(interim_in_words(look), 100)))
        return 0


def _files(paths: Iterable[Path]) -> list[Path]:
    """Return the files of answers, those in folders by name; ValueError for a folder without any."""
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not found:
            raise ValueError(f"answers must be files, or folders with files *.jsonl, got {str(path)!r} without any")
        files += found
    return files

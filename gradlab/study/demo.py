"""A complete example of a study: committed samples, a frozen plan, pages, answers of simulated raters, and a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gradlab.store.files import write_whole
from gradlab.store.listed_folder import write_listed_folder
from gradlab.study.answers import read_answers
from gradlab.study.frozen import Study, freeze
from gradlab.study.plan import Design, Goal, Plan, Primary
from gradlab.study.rater_page import rating_page
from gradlab.study.raters import RaterModel, simulated
from gradlab.study.rating_file import file_of
from gradlab.study.report_page import report
from gradlab.study.texts import json_lines

A, B = "wordy", "terse"  # the systems of the committed samples
RATERS = ("ash", "birch", "cedar", "elm", "fir", "hazel")
MODEL = RaterModel(length=0.8, position=0.4)  # these raters lean to long responses and to the left: the report says so
WORTH = {A: 0.0, B: 1.0}  # log odds; the shorter responses are the better ones, and length hides it
SEED = 7


@dataclass(frozen=True)
class Demo:
    """The files of the example: ``plan``, ``samples``, ``study``, folders ``pages`` and ``answers``, and ``report``."""

    plan: Path
    samples: Path
    study: Path
    pages: Path
    answers: Path
    report: Path


def plan() -> Plan:
    """Return the plan of the example."""
    return Plan(
        title="Which answer would you rather get?", systems={A: "samples.jsonl", B: "samples.jsonl"},
        goals=(
            Goal(name="helpful", question="Which answer helps more with what was asked?"),
            Goal(name="clear", question="Which answer is easier to understand?"),
        ),
        primary=Primary(a=A, b=B, goal="helpful", margin=0.1), raters=RATERS,
        design=Design(items_per_rater=12, raters_per_item=6, repeats=0.25), seed=SEED,
    )  # fmt: skip


def make_demo(samples: Path | str, out: Path | str) -> Demo:
    """Write the whole example into a folder of its own, whole or not at all; return its files.

    samples  the file of samples that come with the rating explorer.

    The answers are those of simulated raters, by ``MODEL`` and ``WORTH``: no person has rated anything. FileExistsError
    where the folder holds anything but a former example as it was written, such as a study or answers of people.
    """
    target = Path(out)
    write_listed_folder(target, "example", lambda part: _fill(Path(samples), part))
    return _files(target)


def _files(folder: Path) -> Demo:
    return Demo(
        folder / "plan.toml", folder / "samples.jsonl", folder / "study.json", folder / "pages", folder / "answers",
        folder / "report/report.html",
    )  # fmt: skip


def _fill(samples: Path, folder: Path) -> None:
    files = _files(folder)
    write_whole({files.samples: samples.read_bytes()})
    plan().write(files.plan)
    study = freeze(Plan.read(files.plan), folder)
    study.write(files.study)
    lines = simulated(study, WORTH, MODEL, SEED)
    content: dict[Path, str] = {}
    for rater in study.plan.raters:
        content[files.pages / f"{rater}.html"] = rating_page(study, rater)
        content[files.answers / file_of(rater)] = json_lines(line for line in lines if line["rater"] == rater)
    write_whole(content)
    _report(study, files)


def _report(study: Study, files: Demo) -> None:
    answers = read_answers(study, sorted(files.answers.glob("*.jsonl")))
    report(study, answers).write(files.report.parent)

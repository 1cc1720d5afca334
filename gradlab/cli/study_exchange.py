"""``gradlab study judge``, ``export`` and ``import``: answers of models, and of other tools for rating."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from gradlab.cli.options import OPTIONAL
from gradlab.cli.study_answers import STUDY
from gradlab.console import say, wrapped
from gradlab.given_once import named_texts

_EXPORT = tyro.conf.arg(metavar="EXPORT", help_behavior_hint="(required)")
_JUDGE = tyro.conf.arg(metavar="NAME=SPEC", help_behavior_hint="(required)")
_ALL = tyro.conf.arg(metavar="RATER", help_behavior_hint="(left out: all)")
_NAMES = tyro.conf.arg(metavar="ANNOTATOR=RATER", help_behavior_hint="")
Form = Literal["label-studio", "argilla"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeCommand:
    """Let a judge that is a model answer its tasks, each item in both orders."""

    study: Annotated[tyro.conf.Positional[Path], STUDY]
    """The frozen study."""
    judge: Annotated[str, _JUDGE]
    """One of the plan's judges, and how it judges: a reward as gradlab evaluate takes it (a sequence classifier,
    MODULE:FUNCTION or FILE.py:FUNCTION), or pairwise:FILE.py:FUNCTION, which sees both responses."""
    out: Path
    """The file of its answers, which must not exist yet."""
    tie: float = 0.0
    """The largest difference of rewards that counts as a tie."""
    goal: Annotated[str | None, OPTIONAL] = None
    """The goal that it judges; left out: the primary one."""

    def run(self) -> int:
        """Judge, write."""
        from gradlab.study import read_study

        name, equals, spec = self.judge.partition("=")
        if not equals or not spec:
            raise ValueError(f"judge must be NAME=SPEC, got {self.judge!r}")
        study = read_study(self.study)
        _check_free(self.out)
        from gradlab.llm.judge.study_judges import judged

        lines = judged(study, name, spec, tie=self.tie, goal=self.goal)
        _write(self.out, lines)
        say(f"saved: {self.out}, {len(lines)} answers")
        say(f"next: gradlab study report {self.study} {self.out} ANSWERS --out FOLDER")
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportCommand:
    """Write the raters' tasks for another tool, Label Studio or Argilla; nothing in them names a system."""

    study: Annotated[tyro.conf.Positional[Path], STUDY]
    """The frozen study."""
    form: Form
    """The tool."""
    out: Path
    """The folder of the files, one per rater and one that sets the tool up; none that is there with other content."""
    rater: Annotated[str | None, _ALL] = None
    """One rater only."""

    def run(self) -> int:
        """Write, list the files."""
        from gradlab.study import read_study
        from gradlab.study.exchange import export

        for file in export(read_study(self.study), self.form, self.out, self.rater):
            say(f"saved: {file}")
        said = "sides differ between raters, so each rater needs a project or data set of their own"
        say("\n".join(["", *wrapped(f"{said}; next: gradlab study import {self.study} EXPORT --form {self.form} "
                                    "--out ANSWERS.jsonl", 100)]))  # fmt: skip
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportCommand:
    """Turn another tool's export into a file of answers, each checked against the study."""

    study: Annotated[tyro.conf.Positional[Path], STUDY]
    """The frozen study."""
    exported: Annotated[tyro.conf.Positional[Path], _EXPORT]
    """The tool's export, which is only read."""
    form: Form
    """The tool."""
    out: Path
    """The file of answers, which must not exist yet."""
    annotators: Annotated[tuple[str, ...], _NAMES] = ()
    """The tool's names of raters whom it does not call by their pseudonyms, as in 7=rater-1."""

    def run(self) -> int:
        """Read, write, say what is missing."""
        from gradlab.study import read_study
        from gradlab.study.exchange import imported

        study = read_study(self.study)
        _check_free(self.out)
        annotators = named_texts("annotators", "ANNOTATOR=RATER", self.annotators, last=True)
        found = imported(study, self.form, self.exported, annotators)
        _write(self.out, found.lines)
        say(f"saved: {self.out}, {len(found.lines)} answers")
        for note in found.notes:
            say("\n".join(wrapped(note, 100, "- ")))
        return 0


def _check_free(file: Path) -> None:
    if file.exists():
        raise FileExistsError(f"out must name a file that is not there yet, got {str(file)!r}")


def _write(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    from gradlab.store.files import write_whole
    from gradlab.study.texts import json_lines

    write_whole({file: json_lines(lines)})

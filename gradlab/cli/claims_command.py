"""Print the word on each claim, of the paper and of others, judged again from the frames; or explain one claim.

Exit status: 0 where every word is the one in the committed report (claims.csv), or in that of --against, 3 where a word
has changed.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from gradlab.checks import resolved
from gradlab.cli.options import parsed
from gradlab.console import say


@dataclasses.dataclass(frozen=True)
class ClaimsCommand:
    """The options of ``gradlab claims``."""

    name: Annotated[
        tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[NAME]", help_behavior_hint="")
    ] = None  # fmt: skip
    """A claim to explain: its answer in parts, every row, its figure and data; left out: a table of all claims."""
    folder: Path = Path("figures")
    """The folder of the figures, with the frames in data/."""
    against: Annotated[
        str | None, tyro.conf.arg(metavar="REV", help_behavior_hint="default: the last commit")
    ] = None  # fmt: skip
    """A revision of git with whose report to compare: which words have changed, and which effects lie beyond both
    intervals, the former and the present. Only words change the exit status."""

    def run(self) -> int:
        """Judge, print, and compare with the report that is asked for."""
        from gradlab.experiments.report import saved, terminal, verdicts

        if not (self.folder / "data").is_dir():
            raise ValueError(f"folder must be one that `gradlab figures` has filled, got {str(self.folder)!r}")
        report = None
        if self.against is not None:
            report = saved.former(self.folder, revision=self.against)
        names = [self.name] if self.name is not None else list(verdicts.EVERY)
        quick = resolved("folder", self.folder).name == "quick"
        settled = verdicts.judge_claims(self.folder, names, quick=quick, stale_too=True)
        if self.name is None:
            say(terminal.table(settled.values()))
        else:
            say(terminal.explained(settled[self.name], self.folder, quick=quick))
        if self.against is None:
            report = saved.former(self.folder, committed=True)
        for note in terminal.notes(settled.values(), report, quick=quick):
            say(f"gradlab: {note}", file=sys.stderr)
        if report is None:
            return 0
        former = "the committed report" if self.against is None else self.against
        changed = saved.changes(report, settled)
        for line in changed:
            say(f"changed against {former}: {line}")
        for line in saved.moved(report, settled.values()):
            say(f"moved against {former}: {line}")
        return 3 if changed else 0


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    return parsed(ClaimsCommand, "claims", __doc__, arguments).run()

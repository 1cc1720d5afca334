"""Print the verdict on each claim of the paper, judged again from the frames; or explain one claim.

Exit status: 0 where every verdict is the one in the committed report (claims.csv), 3 where a verdict has changed.
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
    """A claim to explain: how it is judged, every row, its figure and data; left out: a table of all claims."""
    folder: Path = Path("figures")
    """The folder of the figures, with the frames in data/."""

    def run(self) -> int:
        """Judge, print, and compare with the committed report."""
        from gradlab.experiments.report import terminal, verdicts

        if not (self.folder / "data").is_dir():
            raise ValueError(f"folder must be one that `gradlab figures` has filled, got {str(self.folder)!r}")
        names = [self.name] if self.name is not None else list(verdicts.CLAIMS)
        quick = resolved("folder", self.folder).name == "quick"
        settled = verdicts.judge_claims(self.folder, names, quick=quick, stale_too=True)
        if self.name is None:
            say(terminal.table(settled.values()))
        else:
            say(terminal.explained(settled[self.name], self.folder, quick=quick))
        report = verdicts.former(self.folder, committed=True)
        for note in terminal.notes(settled.values(), report, quick=quick):
            say(f"gradlab: {note}", file=sys.stderr)
        changed = verdicts.changes(report, settled) if report is not None else []
        for line in changed:
            say(f"changed against the committed report: {line}")
        return 3 if changed else 0


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    return parsed(ClaimsCommand, "claims", __doc__, arguments).run()

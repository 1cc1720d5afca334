"""Run a human preference study: from a plan that is frozen before the first answer to a verdict.

In order: `plan` asks for a plan or checks one, and freezes it; `power` says how likely it finds an effect; `assign`
writes a page for each rater; `report` analyses the answers as planned. Each says what comes next. `judge` has models
answer, `export` and `import` exchange with other tools, `demo` and `validate` need no plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from gradlab.cli.options import parsed
from gradlab.cli.study_answers import AssignCommand, ReportCommand
from gradlab.cli.study_exchange import ExportCommand, ImportCommand, JudgeCommand
from gradlab.cli.study_plan import PlanCommand
from gradlab.cli.study_power import PowerCommand
from gradlab.cli.study_validation import DemoCommand, ValidateCommand

_Named = tyro.conf.subcommand
COMMANDS: Any = (
    Annotated[PlanCommand, _Named("plan")]
    | Annotated[PowerCommand, _Named("power")]
    | Annotated[AssignCommand, _Named("assign")]
    | Annotated[ReportCommand, _Named("report")]
    | Annotated[JudgeCommand, _Named("judge")]
    | Annotated[ExportCommand, _Named("export")]
    | Annotated[ImportCommand, _Named("import")]
    | Annotated[DemoCommand, _Named("demo")]
    | Annotated[ValidateCommand, _Named("validate")]
)


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    return parsed(COMMANDS, "study", __doc__, arguments).run()

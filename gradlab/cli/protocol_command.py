"""Run a frozen plan of many trainings of language models, from the first command to the verdict.

What is done is skipped, so the same command goes on after anything that stops it. A folder belongs to one plan: any
other is refused there. `scripts/protocol/llama-7b.toml` is the paper's own experiment, `smollm2-135m.toml` has the same
steps at the size of a laptop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gradlab.cli.guard import guarded
from gradlab.cli.options import need, parsed
from gradlab.console import say
from gradlab.given_once import named_texts

if TYPE_CHECKING:
    import pandas as pd

    from gradlab.llm.protocol.plan import Plan
    from gradlab.llm.protocol.steps import Step

_PLAN = tyro.conf.arg(metavar="PLAN", help_behavior_hint="(required)")
_PAIRS = tyro.conf.arg(metavar="ARM=PAIRS [ARM=PAIRS ...]", help_behavior_hint="(left out: the plan's)")
_JUDGE = tyro.conf.arg(metavar="SPEC", help_behavior_hint="(left out: the plan's)")
_MODEL = tyro.conf.arg(metavar="MODEL", help_behavior_hint="(left out: the plan's)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProtocolCommand:
    """The options of ``gradlab protocol``."""

    plan: Annotated[tyro.conf.Positional[Path], _PLAN]
    """The plan's TOML file."""
    out: Path | None = None
    """The folder for everything; left out: runs/NAME, by the plan's name."""
    model: Annotated[str | None, _MODEL] = None
    """Another place of the plan's model, such as a copy on this machine."""
    data: Annotated[tuple[str, ...], _PAIRS] = ()
    """Other places of the plan's pairs, such as copies on this machine."""
    reward: Annotated[str | None, _JUDGE] = None
    """Another place of the judge of helpfulness, such as a copy on this machine."""
    cost: Annotated[str | None, _JUDGE] = None
    """Another place of the judge of harm."""
    dry_run: bool = False
    """Print the commands and what they cost, and run nothing."""
    keep: bool = False
    """Write the joined evaluations to FOLDER/llm/protocol, where the claims report looks for them."""
    folder: Path = Path("figures")
    """The folder of the figures, for --keep."""

    def run(self) -> int:
        """Print or run the commands; join and judge the evaluations once the core is done, and again at the end."""
        need("llm", "transformers")
        from gradlab.experiments.questions import seven_billion
        from gradlab.llm.protocol import frozen, page, plan, steps

        chosen = plan.read_plan(self.plan)
        seven_billion.check_plan({arm.name: arm.endpoint for arm in chosen.arms}, chosen.core)
        data = named_texts("data", "ARM=PAIRS", self.data)
        here = chosen.moved(model=self.model, data=data, reward=self.reward, cost=self.cost)
        out = self.out or Path("runs") / chosen.name
        todo = steps.steps(here, out)
        if self.dry_run:
            say("\n".join(map(str, todo)))
            say(f"\n{page.page(chosen, bound=seven_billion.MARGIN)}")
            return 0
        found = frozen.freeze(here, out, todo)
        steps.run(chosen, todo, core=True)
        if not all(step.done for step in todo):
            say("the core is done, and is judged; the rest goes on")
            self._settle(chosen, out, todo, found)
        steps.run(chosen, todo, core=False)
        self._settle(chosen, out, todo, found)
        return 0

    def _settle(self, chosen: Plan, out: Path, todo: Sequence[Step], found: Mapping[str, str | None]) -> None:
        """Join the evaluations that are there, write them where that was asked for, and judge them."""
        from gradlab.experiments.questions import seven_billion
        from gradlab.llm.protocol import steps
        from gradlab.store.artifacts import save_frame

        frame, stops = steps.joined(chosen, out), steps.stops(todo)
        if self.keep:
            manifest = {"plan": chosen.name, "decided": dict(found), "stopped": stops,
                        "command": seven_billion.COMMAND, "quick": not chosen.counts}  # fmt: skip
            file = save_frame(frame, self.folder / seven_billion.FILES["evaluation"], manifest, overwrite=True)
            say(f"saved: {file}")
        say("\n".join([*stops, *_answers(frame)]))


def _answers(frame: pd.DataFrame) -> list[str]:
    """Return the answers on a joined frame in words, corrected over each other as ``gradlab claims`` does it."""
    from gradlab.experiments.questions import seven_billion
    from gradlab.experiments.report import wording
    from gradlab.experiments.report.verdicts import settle

    name = seven_billion.MEASUREMENT.name
    rows = [dataclasses.replace(row, experiment=name) for row in seven_billion.verdict({"evaluation": frame})]
    lines = []
    for claim, settled in settle(rows, {name: "current"}, {row.statement.claim: 0 for row in rows}).items():
        for row in settled.rows:
            more = "; ".join(filter(None, (row.note, wording.needs(row).removesuffix("."))))
            lines.append(f"{row.word}: {row.sentence}{more and f' ({more})'}")
        because = settled.because and f"; because of balancing: {settled.because}"
        lines.append(f"the claim {claim}: {settled.word}{because}")
    return lines


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    stopped = "stopped; the same command goes on from the command that was running"
    return guarded(parsed(ProtocolCommand, "protocol", __doc__, arguments).run, stopped=stopped)

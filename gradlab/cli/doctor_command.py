"""Look through the log of a preference training for known signatures of failure; say where, and what to try.

It reads gradlab's logs and TRL's: trainer_state.json, or rows with a step as CSV, JSON or JSON lines, also under the
names of the DPO authors, OpenRLHF, LLaMA-Factory and verl; and of TensorBoard a curve that it exports, or a folder of
such curves or of event files. Exit status: 0 where no problem was found (there may be warnings and notes), 3 where a
problem was found, 4 where nothing could be judged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from gradlab.cli.options import OPTIONAL, parsed
from gradlab.console import say

_AFTER_A_STOP = (
    "the step's numbers stand beside the log; a lower learning rate, clipped gradients or another precision, in "
    "another folder."
)


@dataclasses.dataclass(frozen=True)
class DoctorCommand:
    """The options of ``gradlab doctor``."""

    log: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="LOG")]
    """The log."""
    baseline: Annotated[Path | None, tyro.conf.arg(metavar="LOG", help_behavior_hint="")] = None
    """The log of a run to compare with; left out: chance."""
    loss: Annotated[str | None, OPTIONAL] = None
    """The loss that trained, where the log does not say: as in `gradlab losses`, with numbers as `dpo:beta=0.1`, or
    FILE.py:CLASS. Left out: the log's."""

    def run(self) -> int:
        """Read, examine, print."""
        from gradlab.doctor import examine_log, nothing_judged, report
        from gradlab.doctor.findings import Finding
        from gradlab.doctor.training_log import SAMPLES, read_log
        from gradlab.llm.model.finished import stopped_at

        log = read_log(self.log)
        if self.loss is not None:
            log.attrs["settings"] |= _stated(self.loss)
        findings = examine_log(log, None if self.baseline is None else read_log(self.baseline))
        step = stopped_at(self.log.parent)
        if step is not None:  # the step itself is not in the log
            stopped = f"The training stopped in step {step}, because a number was not finite."
            findings.insert(0, Finding("not-finite", "problem", stopped, f"step {step}", _AFTER_A_STOP))
        first, last = (log["step"].iloc[place] for place in (0, -1))
        loss = log.attrs["settings"].get("loss")
        say(f"{self.log}: {len(log)} rows, steps {first} to {last}{f', loss {loss}' if loss else ''}\n")
        say(report(findings))
        samples = self.log.parent / SAMPLES
        if samples.is_file():
            say(f"\nSamples of this training: {samples}")
        if nothing_judged(findings):
            return 4
        return 3 if any(finding.severity == "problem" for finding in findings) else 0


def _stated(text: str) -> dict[str, Any]:
    """Return what the header of a log says about a loss."""
    from gradlab.losses import facts_of, from_text

    loss: Any = from_text(text)
    return {**dataclasses.asdict(loss), "loss": loss.name, "loss_facts": facts_of(loss)}


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    return parsed(DoctorCommand, "doctor", __doc__, arguments).run()

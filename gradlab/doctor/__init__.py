"""The doctor: looks through a preference-training log, ours or TRL's, for the known signatures of failure.

``curves`` holds a log in numbers, ``loss_facts`` the facts about its loss, ``findings`` the doctor's findings. A rule
judges one sign, by the ``thresholds``: there are ``training_rules`` on how the training goes, ``sample_rules`` on the
responses that PPO samples, ``validation_rules`` on held-out pairs, and ``side_rules`` on the two responses of a pair;
``rules`` lists them all.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from gradlab.doctor.curves import LN2, Log
from gradlab.doctor.findings import SEVERITIES, Finding, Inapplicable, Unjudged
from gradlab.doctor.log_columns import COLUMNS
from gradlab.doctor.report import nothing_judged, report
from gradlab.doctor.rules import RULES, SIGNS
from gradlab.doctor.thresholds import SPIKE_EVALUATIONS, SPIKE_FLOOR, SPIKE_MULTIPLE
from gradlab.doctor.training_log import not_finite_notes
from gradlab.doctor.validation_rules import spikes


def examine_log(log: pd.DataFrame, baseline: pd.DataFrame | None = None) -> list[Finding]:
    """Return what a training log shows of the known signs of failure, the worst first; ``SIGNS`` lists the signs.

    log       a frame from ``training_log.read_log``: ``step`` and any of ``COLUMNS``. A finding says which signs are
              not judged for lack of columns. ``attrs`` may hold settings: loss, beta, clip, validation_pairs,
              length_baseline (the accuracy of "prefer the shorter answer"), init ("base": the run does not start at
              its reference), and of PPO its options that change the reward, such as ppo_whiten (reward − β KL is then
              not what it maximises).
    baseline  the log of a run to compare with; left out: chance.

    A NaN in a frame is taken for an absent value, except where ``attrs`` have it in read_log's ``not_finite``. Rows
    without a finite step are left out. ValueError for a frame without ``step``, and for steps that are not whole
    numbers. Thresholds: ``gradlab.doctor.thresholds``, all ours.
    """
    with np.errstate(all="ignore"):  # numbers may be huge
        read = Log.of(log)
        other = Log.of(baseline, "baseline") if baseline is not None else None
        findings = _about_the_file(read)
        findings += _about_the_file(other, "baseline: ") if other is not None else []
        for rule in RULES:
            try:
                for seen in rule.judge(read, other):  # one by one, to keep earlier findings of a rule that gives up
                    findings.append(Finding(rule.sign, *seen))
            except Unjudged as reason:
                applies = not isinstance(reason, Inapplicable)
                findings.append(Finding(rule.sign, "note", str(reason), judged=False, applies=applies))
    if nothing_judged(findings):
        findings.append(Finding("log", "note", _nothing(read)))
    signs = [*SIGNS, "log"]
    return sorted(
        findings,
        key=lambda finding: (not finding.judged, SEVERITIES.index(finding.severity), signs.index(finding.sign)),
    )


def _about_the_file(log: Log, which: str = "") -> list[Finding]:
    """Return the reader's notes on a file, and a note on columns that have no number, as findings."""
    # A rule judges what is not finite in the log itself.
    notes = [note for note in log.notes if which or note not in not_finite_notes(log.not_finite)]
    empty = [name for name, values in log.columns.items() if not len(values) or np.isnan(values).all()]
    if empty:
        notes.append(f"without any number: {', '.join(empty)}")
    return [Finding("log", "note", f"{which}{note}") for note in notes]


def _nothing(log: Log) -> str:
    """Return why nothing could be judged: the columns of the log, and those that gradlab knows."""
    there = [*log.columns, *log.unknown]
    return (
        f"nothing could be judged: beside step, the log has {', '.join(there) or 'no column'}; columns known are "
        f"{', '.join(name for name in COLUMNS if name != 'step')}, and their names at TRL, the DPO authors, OpenRLHF, "
        "LLaMA-Factory, verl and TensorBoard"
    )


__all__ = [
    "LN2",
    "SIGNS",
    "SPIKE_EVALUATIONS",
    "SPIKE_FLOOR",
    "SPIKE_MULTIPLE",
    "Finding",
    "examine_log",
    "nothing_judged",
    "report",
    "spikes",
]

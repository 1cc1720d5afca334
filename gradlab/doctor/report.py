"""The doctor's report: findings as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from gradlab.console import wrapped
from gradlab.doctor.findings import SEVERITIES, Finding
from gradlab.doctor.rules import SIGNS


def report(findings: Sequence[Finding], width: int = 100) -> str:
    """Return the findings as text for a terminal: each with what to try, then signs not found, then not judged."""
    lines = []
    seen = [finding for finding in findings if finding.judged]
    unjudged = [finding for finding in findings if not finding.judged and finding.applies]
    for finding in seen:
        title = SIGNS.get(finding.sign, "about the file")
        lines.append(f"{finding.severity.upper()}: {title}" + (f" ({finding.where})" if finding.where else ""))
        lines += wrapped(finding.what, width, "  ")
        lines += wrapped(f"Try: {finding.try_this}", width, "  ") if finding.try_this else []
        lines.append("")
    fine = [title for sign, title in SIGNS.items() if sign not in {finding.sign for finding in findings}]
    if fine:
        lines += ["Looked for and not found:", *(f"  - {title}" for title in fine), ""]
    if unjudged:
        lines.append("Not judged:")
        for finding in unjudged:
            lines += wrapped(f"{SIGNS[finding.sign]}: {finding.what}", width, "  - ")
        lines.append("")
    return "\n".join([*lines, _summary(findings)])


def nothing_judged(findings: Sequence[Finding]) -> bool:
    """Return whether no sign could be judged, so that the log is neither healthy nor ill; notes may be there."""
    unjudged = {finding.sign for finding in findings if not finding.judged}
    return unjudged >= {*SIGNS} and all(finding.severity == "note" for finding in findings)


def _summary(findings: Sequence[Finding]) -> str:
    if nothing_judged(findings):
        return "nothing could be judged"
    kinds = [finding.severity for finding in findings if finding.judged]
    counts = [f"{kinds.count(kind)} {kind}{'s' * (kinds.count(kind) > 1)}" for kind in SEVERITIES if kind in kinds]
    signs = {finding.sign for finding in findings if not finding.judged and finding.applies}
    every = len(SIGNS) - sum(not finding.applies for finding in findings)
    partly = f", as far as it is judged: {every - len(signs)} of {every} signs" if signs else ""
    if not {"problem", "warning"} & set(kinds):
        return ", ".join([f"healthy{partly}", *counts])
    return ", ".join(counts) + (f"; {len(signs)} of {every} signs are not judged" if signs else "")

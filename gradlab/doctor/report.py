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
    unjudged = [finding for finding in findings if not finding.judged]
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
    return "\n".join([*lines, _summary(seen, not unjudged)])


def _summary(seen: Sequence[Finding], every: bool) -> str:
    kinds = [finding.severity for finding in seen]
    counts = [f"{kinds.count(kind)} {kind}{'s' * (kinds.count(kind) > 1)}" for kind in SEVERITIES if kind in kinds]
    healthy = not {"problem", "warning"} & set(kinds)
    return ", ".join(["healthy" if every else "healthy, as far as it is judged"] * healthy + counts)

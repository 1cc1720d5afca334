"""The doctor's report: findings as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from gradlab.console import wrapped
from gradlab.doctor.findings import SEVERITIES, Finding
from gradlab.doctor.rules import SIGNS


def report(findings: Sequence[Finding], width: int = 100) -> str:
    """The findings as text for a terminal: each with what to try, then what is not judged, then what is fine."""
    lines = []
    seen, unjudged = [one for one in findings if one.judged], [one for one in findings if not one.judged]
    for one in seen:
        title = SIGNS.get(one.sign, "about the file")
        lines.append(f"{one.severity.upper()}: {title}" + (f" ({one.where})" if one.where else ""))
        lines += wrapped(one.what, width, "  ")
        lines += wrapped(f"Try: {one.try_this}", width, "  ") if one.try_this else []
        lines.append("")
    fine = [title for sign, title in SIGNS.items() if sign not in {one.sign for one in findings}]
    if fine:
        lines += ["Looked for and not found:", *(f"  - {title}" for title in fine), ""]
    if unjudged:
        lines.append("Not judged:")
        for one in unjudged:
            lines += wrapped(f"{SIGNS[one.sign]}: {one.what}", width, "  - ")
        lines.append("")
    return "\n".join([*lines, _summary(seen, not unjudged)])


def _summary(seen: Sequence[Finding], every: bool) -> str:
    kinds = [one.severity for one in seen]
    counts = [f"{kinds.count(kind)} {kind}{'s' * (kinds.count(kind) > 1)}" for kind in SEVERITIES if kind in kinds]
    healthy = not {"problem", "warning"} & set(kinds)
    return ", ".join(["healthy" if every else "healthy, as far as it is judged"] * healthy + counts)

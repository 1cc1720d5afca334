"""What the doctor says: findings, why a sign cannot be judged, and the report of them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gradlab.console import wrapped

Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")  # the worst first

# What is looked for, and what the report calls it; "log" is about the file itself.
SIGNS: dict[str, str] = {
    "not-finite": "numbers that are not finite, or underflow to 0",
    "far-reference": "a reference far from the start",
    "stuck": "a loss stuck where it starts (ln 2)",
    "validation-spike": "sudden spikes of the validation loss",
    "overfitting": "overfitting",
    "no-gain": "no gain over chance or the baseline",
    "both-falling": "log-probabilities of both sides falling",
    "weight-at-edge": "λ_w at its floor or ceiling",
}


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor saw, or could not judge."""

    sign: str
    """What it is a sign of: a key of ``SIGNS``, or ``log`` for what is to be said about the file."""
    severity: Severity
    """``problem``: the run is broken; ``warning``: look at it; ``note``: good to know."""
    what: str
    """What was seen, with numbers; or why it cannot be judged."""
    where: str = ""
    """The step, or the range of steps; empty where it is the whole log."""
    try_this: str = ""
    """What to do about it."""
    judged: bool = True
    """False: this log does not hold what the sign is judged by."""


class Seen(NamedTuple):
    """What a rule has seen of its sign: a ``Finding`` without the sign."""

    severity: Severity
    what: str
    where: str
    try_this: str


class Unjudged(Exception):
    """Why a rule cannot be applied to this log."""


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

"""What the doctor says: findings, and why a sign cannot be judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")  # the worst first


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor saw, or could not judge."""

    sign: str
    """What it is a sign of: a rule's, or ``log`` for what is to be said about the file."""
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

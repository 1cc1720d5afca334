"""The doctor's findings, and the reason why a sign cannot be judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")  # the worst first


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor saw, or could not judge."""

    sign: str
    """The rule's sign, or ``log`` for a finding about the file."""
    severity: Severity
    """``problem``: the run is broken; ``warning``: look at it; ``note``: good to know."""
    what: str
    """The observation, with numbers; or why the sign cannot be judged."""
    where: str = ""
    """The step, or the range of steps; empty where it is the whole log."""
    try_this: str = ""
    """What to do about it."""
    judged: bool = True
    """False: this log lacks the columns or settings that the sign is judged by."""
    applies: bool = True
    """False: the sign is of another kind of training; the report leaves it out."""


class Seen(NamedTuple):
    """A rule's observation: a ``Finding`` without the sign."""

    severity: Severity
    what: str
    where: str
    try_this: str


class Unjudged(Exception):
    """An exception: a rule cannot be applied to this log; its message says why."""


class Inapplicable(Unjudged):
    """An exception: a rule is about another kind of training."""

"""A rule of the doctor: its sign, its title in the report, and the function that judges a log by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from gradlab.doctor.curves import Log
from gradlab.doctor.findings import Seen

Judge = Callable[[Log, Log | None], Iterator[Seen]]  # takes a log and the baseline's log


class Rule(NamedTuple):
    """One rule; a new one goes into ``RULES`` at the end of its file."""

    sign: str
    title: str
    judge: Judge


def rule(sign: str, title: str) -> Callable[[Judge], Rule]:
    """Make a function a rule; ``sign`` is the sign of its findings, ``title`` the sign's name in the report."""
    return lambda judge: Rule(sign, title, judge)

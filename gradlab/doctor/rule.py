"""A rule of the doctor: what it is a sign of, what the report calls it, and what judges a log by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from gradlab.doctor.curves import Log
from gradlab.doctor.findings import Seen

Judge = Callable[[Log, Log | None], Iterator[Seen]]  # of a log and the baseline's


class Rule(NamedTuple):
    """One rule; a new one goes into the list of ``gradlab.doctor.rules``."""

    sign: str
    title: str
    judge: Judge


def rule(sign: str, title: str) -> Callable[[Judge], Rule]:
    """Make a function a rule: ``sign`` is the finding's, ``title`` what the report calls it."""
    return lambda judge: Rule(sign, title, judge)

"""How sure an answer is, by a rule that sees its words and intervals alone."""

from __future__ import annotations

from collections.abc import Sequence

from gradlab.experiments.contrasts import Contrast, Judged
from gradlab.experiments.report.verdicts import EQUAL, NOT_JUDGED, NOT_RUN, Settled, primaries

LEVELS = ("none", "low", "medium", "high", "certain")


def confidence(settled: Sequence[Settled], gap: str = "") -> tuple[str, str]:
    """Return how sure an answer is that rests on these claims, and why in words.

    gap  what lies between the worlds of the claims and what was asked; empty where nothing does.

    - ``none``: a claim was not run, or not judged.
    - ``low``: a primary is undecided, or such a claim is.
    - ``medium``: a primary is mixed, or its interval ends less than half a margin from the line at which its word would
      change. That line is 0; for *no practical difference*, and where a claim of no difference is *reversed*, it is the
      margin.
    - ``high``: the interval of every primary keeps half a margin, or more, from that line.
    - ``certain``: every primary is proved or refuted.

    Primaries are those of the claims as stated; the least sure one counts. So two that are decided against each other
    are as sure as either: this was decided after the first results, before which their claim, *mixed*, was medium at
    most. Where there is a gap, ``certain`` and ``high`` become ``medium``, and ``medium`` becomes
    ``low``.
    """
    found = [one for claim in settled for one in _of_claim(claim)]
    if not found:
        return "none", "nothing here was measured for it"
    level, because = min(found, key=lambda one: LEVELS.index(one[0]))
    if not gap or level in ("none", "low"):
        return level, because
    return ("low" if level == "medium" else "medium"), f"{because}; less sure by a step, since {gap}"


def _of_claim(one: Settled) -> list[tuple[str, str]]:
    """Return how sure each primary of a claim is, and why."""
    if one.word in (NOT_RUN, NOT_JUDGED):
        return [("none", f"{one.name} is {one.word}")]
    family = primaries(one.rows, "stated") or one.of("primary")
    return [_of_row(row, one.name, no_difference=one.claim.no_difference) for row in family]


def _of_row(row: Judged, claim: str, *, no_difference: bool) -> tuple[str, str]:
    said = f"{claim}{f' ({row.statement.label})' if row.statement.label else ''} has the word *{row.word}*"
    if row.word in ("proved", "refuted"):
        return "certain", said
    slack = _slack(row)
    if no_difference and slack is not None and row.word != EQUAL:
        slack -= 1  # from the margin, and not from 0
    if row.word in ("undecided", NOT_RUN) or (no_difference and slack is not None and slack < 0):
        return "low", said
    if slack is None:
        return "medium", said
    said += f", and its interval ends {slack:.1f} margins from the line at which the word would change"
    return ("high" if slack >= 0.5 else "medium"), said


def _slack(row: Judged) -> float | None:
    """Return how many margins the interval's end lies from the line at which the word would change; None without one.

    A row that is mixed changes with its cells, and a scan with its cases.
    """
    if not isinstance(row.statement, Contrast) or row.word == "mixed":
        return None
    nearest = min(abs(row.low), abs(row.high)) / row.statement.margin
    farthest = max(abs(row.low), abs(row.high)) / row.statement.margin
    return 1 - farthest if row.word == EQUAL else nearest

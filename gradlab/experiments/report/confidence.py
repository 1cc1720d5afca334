"""How sure an answer is, by a rule that sees its words and intervals alone."""

from __future__ import annotations

from collections.abc import Sequence

from gradlab.experiments.contrasts import Contrast, Judged
from gradlab.experiments.report.verdicts import NOT_JUDGED, NOT_RUN, Settled

LEVELS = ("none", "low", "medium", "high", "certain")


def confidence(settled: Sequence[Settled], gap: str = "") -> tuple[str, str]:
    """Return how sure an answer is that rests on these claims, and why in words.

    gap  what lies between the worlds of the claims and what was asked; empty where nothing does.

    - ``none``: a claim was not run, or not judged.
    - ``low``: a claim is undecided.
    - ``medium``: a claim is mixed, or its interval ends less than half a margin from the line at which its word would
      change. That line is 0, for *no practical difference* the margin.
    - ``high``: every claim's interval keeps half a margin, or more, from that line.
    - ``certain``: every claim is proved or refuted.

    The least sure claim counts; of its primaries as stated the weakest. Where there is a gap, ``certain`` and ``high``
    become ``medium``, and ``medium`` becomes ``low``.
    """
    if not settled:
        return "none", "nothing here was measured for it"
    level, because = min((_of_claim(one) for one in settled), key=lambda found: LEVELS.index(found[0]))
    if not gap or level in ("none", "low"):
        return level, because
    return ("low" if level == "medium" else "medium"), f"{because}; less sure by a step, since {gap}"


def _of_claim(one: Settled) -> tuple[str, str]:
    if one.word in (NOT_RUN, NOT_JUDGED):
        return "none", f"{one.name} is {one.word}"
    row = one.decisive
    said = f"{one.name} has the word *{one.word}*"
    if one.word in ("proved", "refuted"):
        return "certain", said
    if one.word == "undecided" or row is None:
        return "low", said
    slack = _slack(row)
    if slack is None:
        return "medium", said
    said += f", and its interval ends {slack:.1f} margins from the line at which the word would change"
    return ("high" if slack >= 0.5 and one.word != "mixed" else "medium"), said


def _slack(row: Judged) -> float | None:
    """Return how many margins the interval's end lies from the line at which the word would change; None without one.

    A row that is mixed changes with its cells, and a scan with its cases.
    """
    if not isinstance(row.statement, Contrast) or row.word == "mixed":
        return None
    nearest = min(abs(row.low), abs(row.high)) / row.statement.margin
    farthest = max(abs(row.low), abs(row.high)) / row.statement.margin
    return 1 - farthest if row.word == "no practical difference" else nearest

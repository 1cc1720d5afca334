"""How the word on a claim depends on the margins: the answers judged again with other margins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gradlab.experiments.contrasts import Contrast, Judged
from gradlab.experiments.report.verdicts import Settled, primaries, word_together
from gradlab.stats.equivalence import mean_of_interval
from gradlab.stats.population import states_of
from gradlab.stats.words import Evidence, corrected

MULTIPLES = {0.5: "half the margin", 1.0: "the margin", 2.0: "twice the margin"}


def words_by_margin(family: Sequence[Judged], *, no_difference: bool = False) -> dict[float, str]:
    """Return the word on co-primaries together with each multiple of their margins, ``MULTIPLES``.

    no_difference  of a claim that there is none.

    Effects, intervals and reversed units do not depend on the margin, so the answers are all that is needed. A word
    that a proof, or a rule of the question, has set stays.
    """
    found = {}
    for multiple in MULTIPLES:
        evidence = corrected([_evidence(row, multiple) for row in family])
        rows = [row.corrected(one) for row, one in zip(family, evidence, strict=True)]
        found[multiple] = word_together(rows, no_difference=no_difference, multiple=multiple)
    return found


def sentences(one: Settled) -> list[str]:
    """Return with which margins the word stays, as a sentence per population; none where nothing was measured."""
    families = {"As stated": primaries(one.rows, "stated"), "In worlds": primaries(one.rows, "worlds")}
    return [
        f"{place} {_said(words_by_margin(rows, no_difference=one.claim.no_difference))}"
        for place, rows in families.items() if any(map(_measured, rows))
    ]  # fmt: skip


def _said(words: dict[float, str]) -> str:
    if len(set(words.values())) == 1:
        return f"the word is *{words[1.0]}*, and stays so with half the margin and with twice the margin."
    others = [
        f"with {said} it {'stays' if words[multiple] == words[1.0] else f'would be *{words[multiple]}*'}"
        for multiple, said in MULTIPLES.items() if multiple != 1
    ]  # fmt: skip
    return f"the word is *{words[1.0]}*; {', '.join(others)}."


def _measured(row: Judged) -> bool:
    return isinstance(row.statement, Contrast) and row.evidence.units > 0


def _evidence(row: Judged, multiple: float) -> Evidence:
    statement = row.statement
    if not _measured(row) or not isinstance(statement, Contrast):
        return row.evidence
    margin = multiple * statement.margin
    seeds = row.rows["seeds"].to_numpy(float)
    effect, low, high = (row.rows[name].to_numpy(float) for name in ("effect", "low", "high"))
    states = states_of(mean_of_interval(effect, low, high, seeds - 1), margin)
    freedom = (row.replicates if row.population == "worlds" else seeds.min()) - 1
    average = mean_of_interval(row.effect, row.low, row.high, freedom)
    return replace(
        row.evidence, above=int((states == "for").sum()), below=int((states == "against").sum()),
        p_differs=float(average.p_differs()), p_equivalent=float(average.p_equivalent(margin)),
    )  # fmt: skip

"""The parts of the claims report: the paper's claims, those on its open questions, and those of other papers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gradlab.experiments.report.claims import CLAIMS, Claim
from gradlab.experiments.report.open_claims import OPEN
from gradlab.experiments.report.other_claims import OTHERS


@dataclass(frozen=True, eq=False)
class Section:
    """A part of the claims report, with a table of its own.

    title     its name; empty for the paper's own claims, whose table comes first.
    about     says in a sentence or two what its claims are.
    claims    its claims, by name.
    controls  the question that the last column of its table answers.
    whose     introduces the source of one of its claims.
    states    names what states a claim.
    """

    title: str
    about: str
    claims: Mapping[str, Claim]
    controls: str
    whose: str
    states: str


THE_PAPER = Section("", "", CLAIMS, "is it the balancing", "", "summary")
OPEN_QUESTIONS = Section(
    "Open questions and next checks",
    "questions that the paper leaves open and checks that its summary proposes, answered by experiments of ours:"
    " [OPEN-QUESTIONS.md](OPEN-QUESTIONS.md) puts the answers together.",
    OPEN, "does it withstand its controls", "Who asks", "source",
)  # fmt: skip
OTHER_PAPERS = Section(
    "Claims of other papers", "judged on the atlas of losses: they are not of Ma et al.", OTHERS,
    "does it withstand its controls", "Claim of another paper", "source",
)  # fmt: skip
SECTIONS = (THE_PAPER, OPEN_QUESTIONS, OTHER_PAPERS)
EVERY: dict[str, Claim] = {name: claim for section in SECTIONS for name, claim in section.claims.items()}


def section_of(claim: str) -> Section:
    """Return the part of the report to which a claim belongs. StopIteration for an unknown claim."""
    return next(section for section in SECTIONS if claim in section.claims)


def by_section(names: Iterable[str]) -> list[tuple[Section, list[str]]]:
    """Return the parts of the report that have some of these claims, each with those, in the order of the names."""
    chosen = list(names)
    of_each = ((section, [name for name in chosen if name in section.claims]) for section in SECTIONS)
    return [(section, found) for section, found in of_each if found]

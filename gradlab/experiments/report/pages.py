"""The claims report: CLAIMS.md, claims.csv, METHODS.md, OPEN-QUESTIONS.md, the map PAPER.md, and README's findings.

No result is typed in by hand: words and numbers come from frames, rules from the docstrings of the code that applies
them, statements from ``claims``, proofs from ``proofs``, places in the paper from ``paper_map``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from gradlab.experiments.contrasts import Judged, Scan
from gradlab.experiments.gallery import QUICK_MARK
from gradlab.experiments.report import answers, links, methods_page, open_page, saved, verdicts, wording
from gradlab.experiments.report.paper_map import PAPER, Place
from gradlab.experiments.report.proofs import PROOFS
from gradlab.experiments.report.saved import line, lines
from gradlab.experiments.report.sections import THE_PAPER, Section, by_section, section_of
from gradlab.experiments.report.verdicts import Settled, primaries
from gradlab.store.artifacts import between_markers
from gradlab.store.files import write_whole
from gradlab.store.markdown import markdown_table

ANSWER, FINDINGS = "answer", "findings"  # the names of README's markers


def write(settled: Mapping[str, Settled], folder: Path, *, quick: bool) -> None:
    """Write the whole report into the folder of the figures."""
    every = list(settled.values())
    pages = [_claims_page(every, folder, quick), methods_page.page(every, folder, quick)]
    texts = ["\n".join(said).rstrip() + "\n" for said in pages]
    write_whole({
        folder / "CLAIMS.md": texts[0], folder / "METHODS.md": texts[1],
        folder / "PAPER.md": paper_page({one.name: wording.in_brief(lines(one)) for one in every}, folder, quick=quick),
        folder / open_page.PAGE: open_page.page(settled, folder, quick=quick),
        folder / saved.REPORT: saved.as_csv(every),
    })  # fmt: skip


def write_findings(readme: Path, settled: Mapping[str, Settled], folder: str = "figures") -> None:
    """Put the answer in three sentences, and a line per claim, between README's markers."""
    told = [wording.summary(lines(one)) for name, one in settled.items() if name in THE_PAPER.claims]
    table = markdown_table(
        ["claim", "in one sentence", "word", wording.TALLY, "is it the balancing"],
        ([f"[{name}]({folder}/CLAIMS.md#{name})", sentence, f"**{word}**", counts, because]
         for name, sentence, word, counts, _, because in told),
    )  # fmt: skip
    page = between_markers(readme.read_text(encoding="utf-8"), FINDINGS, "\n".join(table))
    answer = " ".join(wording.three_sentences(settled["grid-reward"]))
    write_whole({readme: between_markers(page, ANSWER, answer)})


def paper_page(answers_to: Mapping[str, str], folder: Path, *, quick: bool) -> str:
    """Return the paper's map as a page.

    answers_to  the answer on each claim in brief, by name.
    """
    lines = [
        "# The paper, place by place", "", *([QUICK_MARK, ""] if quick else []),
        "Find a place of the paper ([arXiv 2502.20847](https://arxiv.org/abs/2502.20847)) by its number or its subject:"
        " its row leads to our code, figures, a command and the answer: the word as stated, then elsewhere,"
        " that is, in worlds drawn at random, then whether it is the balancing. We worked from a summary of the paper:"
        " *stated* is what the summary says, *ours* what it leaves open and we chose, *absent* what has no result here."
        f" {links.WRITTEN}",
    ]  # fmt: skip
    head = ["place", "what it says", "standing", "here", "answer"]
    for part, places in PAPER.items():
        rows = (
            [f"**{place.name}**", place.says, f"*{place.standing}*", _here(place, folder, quick),
             "<br>".join(_answers(place, answers_to)) or "—"]
            for place in places
        )  # fmt: skip
        lines += ["", f"## {part}", "", *markdown_table(head, rows)]
    return "\n".join(lines) + "\n"


def _answers(place: Place, answers_to: Mapping[str, str]) -> list[str]:
    """Return links to the answers on a place: in words, and on each claim in brief."""
    return [*([f"[in words]({place.page})"] if place.page else []),
            *(f"[{claim}](CLAIMS.md#{claim}): {answers_to[claim]}" for claim in place.claims)]  # fmt: skip


def _here(place: Place, folder: Path, quick: bool) -> str:
    """Return links to the functions and the figures of a place, and its command."""
    paths = (path.rpartition(".") for path in place.functions)
    code = [links.code(wording.file_of(module), quick, f"`{name}`") for module, _, name in paths]
    drawn = [links.picture(name, folder) for name in place.figures]
    return "<br>".join(filter(None, [", ".join(code), ", ".join(drawn), place.command and f"`{place.command}`"])) or "—"


def _claims_page(settled: list[Settled], folder: Path, quick: bool) -> list[str]:
    told = {one.name: one for one in settled}
    said = [
        "# Claims", "", *([QUICK_MARK, ""] if quick else []),
        "Each claim of the paper, judged from frames by rules that were committed before the frames:"
        " [METHODS.md](METHODS.md) has the rules, the proofs, and how to compute a word by hand. We worked from a"
        f" summary of the paper: what it says is *stated*, the rest is ours. {links.WRITTEN} `gradlab claims` judges"
        " again and says whether a word has changed; [claims.csv](claims.csv) holds all rows.",
        "",
        f"In short: {wording.tally_of_words(one.word for one in settled if one.name in THE_PAPER.claims)}.",
        "",
        "A sentence says what is true, on average where not everywhere; a difference within a margin that was declared"
        f" beforehand counts as none. *{wording.TALLY}* says in how many cells, worlds or cases the statement is true,"
        " in how many there is no difference, and in how many the opposite is true; of a claim that there is no"
        " difference, *none* counts those that confirm it. A cell is a declared setting; a"
        " world is drawn at random from a declared distribution of settings; a case is a point of a grid, which"
        " illustrates a proof. *Is it the balancing* compares Balanced-DPO with controls that could explain its effect"
        " away: they balance nothing, or are its naive variants at an equal distance from the reference."
        " One number may have several words, as each answers another question: the word of the claim, corrected over"
        " all that it rests on; the word of the worlds; the word of a prediction, with the limit that was declared."
        " [METHODS.md](METHODS.md#the-rules-a-word) has the words.",
    ]  # fmt: skip
    for section, names in by_section(told):
        said += ["", *([f"**{section.title}**: {section.about}", ""] if section.title else []),
                 *_table([told[name] for name in names], section)]  # fmt: skip
    for one in settled:
        said += ["", *_section(one, folder, quick)]
    return said


def _table(settled: Iterable[Settled], section: Section) -> list[str]:
    head = (*wording.HEAD[:-1], section.controls)
    return markdown_table(list(head), map(_bold_word, (wording.summary(lines(one)) for one in settled)))


def _bold_word(cells: list[str]) -> list[str]:
    name, sentence, word, *rest = cells
    return [f"[{name}](#{name})", sentence, f"**{word}**", *rest]


def _section(one: Settled, folder: Path, quick: bool) -> list[str]:
    """Return the section of one claim: its answer in parts, its figure, every row, and where to find everything."""
    claim, told, section = one.claim, lines(one), section_of(one.name)
    head, worlds = told[0], primaries(one.rows, "worlds")
    numbers = "; ".join(filter(None, [wording.effect(head).replace("—", ""), wording.basis(head)]))
    said = [f"## {one.name}", "", claim.claimed, "", f"**{head.sentence}.** Word: **{one.word}**."]
    if section.whose:
        said[2] += f" {section.whose}: {claim.source}."
    said[-1] += f" The claim {one.why}." if one.word == verdicts.NOT_RUN else ""
    if one.rows:
        said += ["", f"{numbers}. {wording.TALLY}: {wording.counts(head)}. Decided by: {_decider(one)}."]
        said += _paragraphs(filter(None, map(wording.wide_cells, one.rows)), "Less precise than designed")
        said += _paragraphs(filter(None, map(wording.needs, one.rows)), "What would decide")
    proved = [
        PROOFS[row.statement.proof] for row in one.rows if isinstance(row.statement, Scan) and row.statement.proof
    ]
    for proof in dict.fromkeys(proved):
        place = f"METHODS.md#{methods_page.anchor(proof.name)}"
        said += ["", f"**Proof.** {proof.theorem} [Proof]({place}), checked on random cases by `{proof.test}`."]
    said += [
        "", f"- Stated: {claim.stated}", f"- Ours: {claim.ours}",
        f"- Rule: {claim.rule} See [METHODS.md](METHODS.md#{one.name}).",
        *([f"- Expected beforehand: {claim.predicted}"] if claim.predicted else []),
        f"- What would change the word: {claim.changes}",
    ]  # fmt: skip
    names = (answers.figure_of(one), *claim.figures)
    drawn = [name for name in names if one.rows and (folder / f"{name}.png").exists()]
    if drawn:
        more = ", ".join(f"[{name}]({name}.png)" for name in drawn[1:])
        said += ["", f"![{drawn[0]}]({drawn[0]}.png)", "",
                 f"How to read it: [README.md](README.md).{f' Also: {more}.' if more else ''}"]  # fmt: skip
    if len(one.of("primary")) > 1 or not worlds:
        said += _rows("What the claim stands on", one.of("primary"))
    for row in worlds:
        about = f": {verdicts.named(row)}" if len(worlds) > 1 else ""
        said += _paragraphs(wording.new_worlds(row), f"Elsewhere{about}")
        unit = f" ({line(row).unit})" if line(row).unit else ""
        if table := wording.moderators(row):
            columns = ["factor", "where it is", f"average, 95% interval{unit}", "worlds"]
            said += ["", f"**On what it depends{about}.** Each row has a 95% interval, not corrected for the number of"
                     " rows.", "", *markdown_table(columns, table)]  # fmt: skip
    for role, title in (
        ("explains away", f"{section.controls[0].upper()}{section.controls[1:]}?"),
        ("robustness", "Robustness"),
        ("context", "Context"),
    ):
        said += _rows(title, one.of(role), wording.because(head) if role == "explains away" else "")
    return [*said, "", *_places(one, folder, quick)]


def _decider(one: Settled) -> str:
    """Return the statement of the row that carries the word."""
    return one.decisive.statement.statement if one.decisive else ""


def _paragraphs(texts: Iterable[str], title: str) -> list[str]:
    """Return sentences as a paragraph with a bold title, or nothing where there are none."""
    said = " ".join(filter(None, texts))
    return ["", f"**{title}.** {said}"] if said else []


def _rows(title: str, rows: list[Judged], word: str = "") -> list[str]:
    """Return the rows of a role as a table with a title."""
    if not rows:
        return []
    table = markdown_table(list(wording.ROW), (wording.row(line(row)) for row in rows))
    return ["", f"**{title}**{f' {word[0].upper()}{word[1:]}.' if word else ''}", "", *table]


def _places(one: Settled, folder: Path, quick: bool) -> list[str]:
    """Return where data, code and commands of a claim are."""
    frames = [links.frame(name) for name in wording.data_files(one.claim, folder)]
    code = [links.code(path, quick) for path in wording.code_files(one.claim)]
    again = "; ".join(f"`{command}`" for command in wording.commands(one.claim, quick=quick))
    return [f"- Data: {'; '.join(frames) or 'none'}.", f"- Code: {', '.join(code) or 'none'}.",
            f"- Regenerate: {again or 'nothing does yet'}."]  # fmt: skip

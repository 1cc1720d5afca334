"""The report in words, without any layout; pages, terminal and explorer share these words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradlab.experiments import EXPERIMENTS, MEASURED
from gradlab.experiments.contrasts import Contrast, Judged
from gradlab.experiments.frames import frame_path
from gradlab.experiments.report.claims import Claim
from gradlab.experiments.report.saved import Line, as_sentence
from gradlab.experiments.report.verdicts import NOT_JUDGED, NOT_RUN, Settled, named
from gradlab.stats.equivalence import ALPHA
from gradlab.stats.moderators import variance_explained
from gradlab.stats.precision import replicates_for
from gradlab.stats.words import WORDS, weakest_word

TALLY = "for : none : against"
HEAD = ("claim", "in one sentence", "word", TALLY, "does it hold elsewhere", "is it the balancing")
ROW = ("what is compared", "in one sentence", "word", "average, 95% interval", TALLY)
ROLE = {"primary": "what the claim stands on", "explains away": "could explain it away",
        "robustness": "robustness", "context": "context"}  # fmt: skip
FACTORS = {
    "dose": "dose (max − min of u, over β)", "utility_kind": "kind of utility", "utility": "kind of utility",
    "scale": "height R", "sigma": "width σ", "mask": "mask rate", "pairs": "pairs per prompt",
    "reference": "reference", "policy": "policy",
}  # fmt: skip
_UNITS = {"stated": "cells", "worlds": "worlds", "cases": "cases"}
_REPLICATES = {**_UNITS, "stated": "seeds"}
_BECAUSE = {
    "proved": "yes, against {}", "refuted": "no, {} refutes it",
    "holds throughout": "yes: ahead of every control", "holds on average": "yes, on average: ahead of every control",
    "no practical difference": "no: {} does as well", "reversed": "no: {} does better",
    "mixed": "in part: not always ahead of {}", "undecided": "open: not decided against {}", NOT_RUN: "not run",
}  # fmt: skip
_NOTHING = "there is no gain to explain"
_NO_GAIN = ("refuted", "reversed", "no practical difference")


def counts(line: Line) -> str:
    """Return how many units are for, none and against, such as "4 : 0 : 2 cells", and how many are undecided."""
    if not line.units:
        return "—"
    said = f"{' : '.join(f'{line.states[state]:,}' for state in ('for', 'none', 'against'))} {_UNITS[line.population]}"
    undecided = line.states["undecided"]
    return f"{said}, {undecided:,} undecided" if undecided else said


def effect(line: Line) -> str:
    """Return the average with its 95% interval and unit; a dash for cases, which have no average."""
    value, equal = _average(line)
    return value if math.isnan(line.effect) else f"{value} {line.unit}".rstrip() + equal


def interval(line: Line) -> str:
    """Return the average with its 95% interval, without its unit; a dash for cases."""
    return "".join(_average(line))


def _average(line: Line) -> tuple[str, str]:
    """Return the average with its interval; and what stands, after the unit, for an interval without a width."""
    if math.isnan(line.effect):
        return "—", ""
    value = _signed(line.effect, line.digits)
    if line.low == line.high:
        return value, f", equal in all {line.replicates:,} {_REPLICATES[line.population]}"
    ends = "" if math.isnan(line.low) else f" [{_signed(line.low, line.digits)}, {_signed(line.high, line.digits)}]"
    return f"{value}{ends}", ""


def elsewhere(lines: Sequence[Line]) -> str:
    """Return whether a claim holds in the worlds that are drawn, in words; lines as ``saved.lines`` gives them."""
    head, *rows = lines
    rows = [row for row in rows if row.row == "primary" and row.population == "worlds"]
    if not rows or (head.population != "worlds" and not head.transported):
        return "—"
    weakest = weakest_word(row.word for row in rows)
    row = min((row for row in rows if row.word == weakest), key=lambda row: row.effect / row.margin)
    return f"{head.transported or head.word}; {counts(row)}"


def because(head: Line) -> str:
    """Return whether it is the balancing, in words; a dash where nothing was declared that could explain it away."""
    if not head.because:
        return "—"
    if head.word in _NO_GAIN:
        return _NOTHING
    return _BECAUSE[head.because].format(head.control)


def tally(lines: Sequence[Line]) -> str:
    """Return a claim's counts; those of each primary by its label where the claim is mixed, and none of them is."""
    head, *rows = lines
    family = [one for one in rows if one.row == "primary" and one.population == head.population]
    if head.word != "mixed" or any(one.word == "mixed" for one in family):
        return counts(head)
    return "; ".join(f"{one.label}: {counts(one)}" for one in family)


def summary(lines: Sequence[Line]) -> list[str]:
    """Return a claim's row of the table of claims, whose columns are ``HEAD``; the first is its bare name."""
    head = lines[0]
    return [head.claim, head.sentence, head.word, tally(lines), elsewhere(lines), because(head)]


def in_brief(lines: Sequence[Line]) -> str:
    """Return a claim's words: as stated, in drawn worlds, and whether it is the balancing, where each was asked."""
    head = lines[0]
    parts = [head.word, head.transported and f"elsewhere {head.transported}"]
    parts.append(because(head) if head.because else "")
    return "; ".join(filter(None, parts))


def row(line: Line) -> list[str]:
    """Return a statement's row of a table whose columns are ``ROW``."""
    compared = line.label if line.row == "explains away" and line.label else line.statement
    if line.population == "worlds" and "drawn worlds" not in compared:
        compared = f"{compared}, in drawn worlds"
    said = f"{line.sentence} ({line.note})" if line.note else line.sentence
    return [compared, said, line.word, interval(line), counts(line)]


def basis(line: Line) -> str:
    """Return what a row rests on: its seeds or worlds, the margin, and what would decide."""
    if line.population == "cases":
        return f"{line.units:,} declared cases" if line.units else ""
    what = "worlds" if line.population == "worlds" else "seeds"
    said = [f"over {line.replicates:,} {what}"] if line.replicates else []
    if line.population == "stated" and said:
        said[0] += f" (at least {line.seeds:,} in each of {line.units:,} cells)" if line.seeds else ""
    said.append(f"differences within ±{line.margin:.{line.digits}f} {line.unit}".rstrip() + " count as none")
    if line.needs:
        said.append(f"about {line.needs:,} {what} would decide")
    return "; ".join(said)


# --- details, from the answers themselves ---


def new_worlds(answer: Judged) -> list[str]:
    """Return the estimate for the worlds that are drawn as sentences; none of an answer on anything else."""
    transport, statement = answer.transport, answer.statement
    if transport is None or not isinstance(statement, Contrast):
        return []
    unit, average, number = statement.unit, transport.average, len(answer.rows)
    ends = f"{unit.signed(transport.expected[0])} and {unit.signed(transport.expected[1])}"
    shares = [f"{answer.number(state):,} worlds {where} ({_share(share)})" for share, state, where in (
        (transport.above, "for", "for the claim"), (transport.below, "against", "against it"))]  # fmt: skip
    said = [
        f"{as_sentence(_without_place(answer.sentence))}: **{answer.word}**.",
        f"Average over {number:,} drawn worlds: {_contrast(statement, average.effect, average.low, average.high)}.",
        f"True effects differ between worlds by a standard deviation of {unit.size(transport.between)}; a new world "
        f"will show between {ends} (95%).",
        f"Shown to lie beyond the margin of {unit.size(statement.margin)}: {' and '.join(shares)}, "
        "with 95% intervals of these shares.",
        f"Reversed worlds (below 0 at a false discovery rate of {ALPHA:.0%}; lowest first): "
        f"{'; '.join(reversed_units(answer)) or 'none'}.",
    ]  # fmt: skip
    return [*filter(None, [*said, wide_average(answer)]), condition(answer)]


def wide_average(answer: Judged) -> str:
    """Return that the average over worlds is less precise than its design asks for, in words; empty where it is not."""
    statement, half = answer.statement, (answer.high - answer.low) / 2
    if not isinstance(statement, Contrast) or answer.role != "primary" or not half > statement.target:
        return ""
    size, worlds = statement.unit.size, replicates_for(half, answer.replicates, statement.target)
    return (f"The average is known to ± {size(half)}. The design asks for ± {size(statement.target)}, which would take "
            f"about {worlds:,} worlds; the draw stopped at its cap before.")  # fmt: skip


def condition(answer: Judged) -> str:
    """Return the condition under which worlds lie beyond the margin, or that there is none, in words."""
    search, statement = answer.search, answer.statement
    if search is None or not isinstance(statement, Contrast):
        return ""
    if not search.searched:
        return "Where it holds: too few worlds are reversed, or beyond the margin, to search a condition."
    tried = f"{search.searched:,} conditions were tried on one half of the worlds"
    if search.condition is None:
        return f"Where it holds: {tried}; none keeps the worlds beyond the margin and leaves out the reversed ones."
    said = f"{tried}; “{search.condition.words}” was chosen"
    if math.isnan(search.effect):
        return f"Where it holds: {said}, but too few worlds of the other half meet it."
    found = _contrast(statement, search.effect, search.low, search.high)
    state = "confirms it" if search.confirmed else "does not confirm it"
    number = len(search.undecided)
    undecided = f"; {number:,} worlds were undecided and did not influence the choice" if number else ""
    return f"Where it holds: {said}, and the other half {state}: {found} in {search.worlds:,} worlds{undecided}."


def moderators(answer: Judged) -> list[list[str]]:
    """Return the effect by dose and by value as rows: factor, value, average with interval without unit, worlds.

    The first row of a factor says how much of the variance between worlds' means the factor explains.
    """
    statement, rows = answer.statement, list[list[str]]()
    if not isinstance(statement, Contrast):
        return rows
    for name, table in answer.moderators.items():
        title = f"{FACTORS.get(name, name)}: explains {_explained(answer, table):.0%} of the variance between worlds"
        for place, value in enumerate(table.to_dict("records")):
            found = _contrast(statement, value["effect"], value["low"], value["high"]).removesuffix(
                statement.unit.words
            )
            rows.append([title if place == 0 else "", _value(value), found.strip(), f"{value['worlds']:,}"])
    return rows


def strongest(answer: Judged) -> str:
    """Return which factor explains most of the variance between worlds, and the effects at its ends, in words."""
    statement = answer.statement
    if not answer.moderators or not isinstance(statement, Contrast):
        return ""
    name, table = max(answer.moderators.items(), key=lambda item: _explained(answer, item[1]))
    ordered = table if "dose" in table else table.sort_values("effect", ascending=False)
    ends = (ordered.iloc[place].to_dict() for place in (0, -1))
    said = (f"{statement.unit.signed(end['effect'])} where it is {_value(end)}" for end in ends)
    return f"{FACTORS.get(name, name)}: {' and '.join(said)}"


def wide_cells(answer: Judged) -> str:
    """Return which cells of a primary are wider than their design asks for, and why; empty where none is."""
    statement = answer.statement
    if not answer.wide or answer.role != "primary" or not isinstance(statement, Contrast):
        return ""
    rows = answer.rows
    half = (rows["high"] - rows["low"]) / 2
    wide = rows[half > statement.target]
    said, measured = "; ".join(_named_units(answer, wide)), answer.experiment in MEASURED
    capped = answer.experiment in EXPERIMENTS and EXPERIMENTS[answer.experiment].more is not None
    declared = "hit the cap of seeds with" if capped else "have, with the declared number of seeds,"
    why = "were measured once, and have" if measured else declared
    return (f"{named(answer)}: {len(wide):,} of {len(rows):,} cells {why} half-widths above "
            f"{statement.unit.size(statement.target)}: {said}.")  # fmt: skip


def needs(answer: Judged) -> str:
    """Return what would decide an undecided row; empty for any other."""
    if not answer.needs:
        return ""
    what = "worlds" if answer.population == "worlds" else "seeds"
    return f"{named(answer)}: undecided with {answer.replicates:,} {what}; about {answer.needs:,} would decide."


def _explained(answer: Judged, table: pd.DataFrame) -> float:
    """Return the share of the variance between worlds that a factor explains, at least 0."""
    return max(float(np.nan_to_num(variance_explained(answer.rows["effect"], table))), 0.0)


def reversed_units(row: Judged, most: int = 12) -> list[str]:
    """Return the reversed cells or worlds in words, the lowest first: "world 7 (dose 3.2, mask 0.4, policy free)".

    most  how many are named; a last entry says how many more there are.
    """
    if not isinstance(row.statement, Contrast) or "reversed" not in row.rows:
        return []
    return _named_units(row, row.rows[row.rows["reversed"].astype(bool)].sort_values("effect"), most)


# --- the answer to the reader's first question ---

_HELPS = {
    "proved": "Yes, by proof", "refuted": "No, a proof refutes it", "mixed": "It depends",
    "no practical difference": "It makes no practical difference", "holds throughout": "Yes, throughout",
    "holds on average": "On average, yes", "reversed": "No, it does worse", "undecided": "That is not decided",
    NOT_RUN: "Nobody has run it", NOT_JUDGED: "It is not judged",
}  # fmt: skip
_NEAREST = "as far as the controls can tell: against the nearest of them,"
_BALANCING = {
    "proved": "Yes:", "refuted": "No:", "holds throughout": f"Yes, {_NEAREST}",
    "holds on average": f"On average yes, {_NEAREST}", "mixed": "Only in part:",
    "no practical difference": "No, what balances nothing does as well:",
    "reversed": "No, what balances nothing does better:", "undecided": "That is not decided:",
}  # fmt: skip


def three_sentences(reward: Settled) -> list[str]:
    """Return whether Balanced-DPO helps, on what that depends, and whether it is the balancing: three sentences.

    reward  the settled claim on reward.
    """
    stated, worlds, control = reward.decisive, reward.in_worlds, reward.explains
    said = f"on the paper's grid, {stated.said(interval=True)}" if stated and not reward.why else reward.why
    first = f"**Does Balanced-DPO help?** {_HELPS[reward.word]}: {said}."
    second = "**Does it elsewhere, and on what does that depend?** Nobody has run it in other worlds."
    if worlds is not None:
        depends = strongest(worlds)
        second = (f"**Does it elsewhere, and on what does that depend?** {_HELPS[worlds.word]}: in "
                  f"{len(worlds.rows):,} worlds that were drawn at random, {_without_place(worlds.said(interval=True))}"
                  f"{f'; it depends most on the {depends}' if depends else ''}.")  # fmt: skip
    third = "**Is it the balancing?** Nobody has run a control."
    if control is not None:
        said = "There is no gain to explain;" if reward.word in _NO_GAIN else _BALANCING[reward.because]
        where = f"in {len(control.rows):,} drawn worlds, " if control.population == "worlds" else ""
        third = f"**Is it the balancing?** {said} {where}{_without_place(control.said(interval=True))}."
    return [first, second, third]


# --- where to find everything ---


def commands(claim: Claim, *, quick: bool = False) -> list[str]:
    """Return the commands that make the frames of a claim again, those of missing measurements too, and the report."""
    figures = f"gradlab figures {' '.join(claim.experiments)}{' --quick' if quick else ''} --fresh"
    measured = dict.fromkeys(MEASURED[name].command for name in claim.measurements)
    return [*([figures] if claim.experiments else []), *measured]


def data_files(claim: Claim, folder: Path) -> list[str]:
    """Return the frames that judge a claim and are there, as paths in the folder of the figures."""
    ours = [frame_file(name) for name in claim.experiments]
    measured = [file for name in claim.measurements if MEASURED[name].is_in(folder)
                for file in MEASURED[name].places(folder)]  # fmt: skip
    return [file for file in (*ours, *measured) if (folder / file).exists()]


def frame_file(experiment: str) -> str:
    """Return the path of an experiment's frame in the folder of the figures."""
    return frame_path(EXPERIMENTS[experiment], Path("data")).as_posix()


def code_files(claim: Claim) -> list[str]:
    """Return the files whose ``verdict`` holds a claim's statements, as paths in the repository."""
    modules = [EXPERIMENTS[name].module for name in claim.experiments]
    modules += [MEASURED[name].module for name in claim.measurements]
    return list(map(file_of, dict.fromkeys(modules)))


def file_of(module: str) -> str:
    """Return the file of a module of gradlab, as a path in the repository."""
    return f"{module.replace('.', '/')}.py"


def tally_of_words(words: Iterable[str]) -> str:
    """Return how many claims have each word, such as "3 proved, 2 refuted"."""
    said = list(words)
    numbers = {word: said.count(word) for word in (*WORDS, NOT_JUDGED)}
    return ", ".join(f"{number} {word}" for word, number in numbers.items() if number)


# --- numbers ---


def _without_place(sentence: str) -> str:
    """Return a sentence on drawn worlds without saying so, where it stands beside that."""
    return sentence.removeprefix("in drawn worlds, ")


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def _contrast(statement: Contrast, middle: float, low: float, high: float) -> str:
    """Return an average in units of a contrast, with its interval where it has one."""
    unit = statement.unit
    ends = "" if math.isnan(low) else f" [{unit.signed(low)}, {unit.signed(high)}]"
    return f"{unit.signed(middle)}{ends} {unit.words}".rstrip()


def _share(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.0%} to {ends[1]:.0%}"


def _value(row: dict[Any, Any]) -> str:
    """Return the dose or value of a moderator's row in words."""
    if "dose" not in row:
        value = row["value"]
        return f"{value:g}" if isinstance(value, float) else str(value)
    low, high = row["dose_low"], row["dose_high"]
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _named_units(row: Judged, units: pd.DataFrame, most: int = 12) -> list[str]:
    """Return cells or worlds of a contrast in words, and how many more there are than ``most``."""
    statement, named = row.statement, list[str]()
    factors = statement.moderators if isinstance(statement, Contrast) else ()
    for _, unit in units.head(most).iterrows():
        key = ", ".join(_setting(name, unit[name]) for name in statement.by) or "all together"
        settings = ", ".join(_setting(name, unit[name]) for name in factors)
        named.append(f"{key} ({settings})" if settings else key)
    return [*named, f"{len(units) - most:,} more"] if len(units) > most else named


def _setting(column: str, value: object) -> str:
    """Return a setting in words, such as "dose 3.2"."""
    shown = f"{value:.3g}" if isinstance(value, float) else str(value)
    return f"{column.removesuffix('_kind')} {shown}"

"""A settled claim in words, without any layout; pages, terminal and explorer share these words."""

from __future__ import annotations

import math
from pathlib import Path

from gradlab.experiments import EXPERIMENTS, MEASURED
from gradlab.experiments.contrasts import SHARE_OF_CASES
from gradlab.experiments.frames import frame_path
from gradlab.experiments.report.verdicts import Row, Settled, holds

TALLY = "holds / fails / no difference / inconclusive"
ROW = ("row", "statement", "verdict", "effect", "95% interval", "seeds or cases", TALLY)  # the columns of ``rows``


def effect(row: Row) -> str:
    """Return the effect: a signed difference, or for a scan the share of cases that hold."""
    return f"{_share(row.effect)} of cases" if _is_scan(row) else f"{round(row.effect, 3) + 0.0:+.3f}"


def interval(row: Row) -> str:
    """Return the 95% interval; "exact" for a scan of declared cases, in which nothing is sampled."""
    if math.isnan(row.low):
        return "exact" if _is_scan(row) else "one seed"
    low, high = ((_share(end) if _is_scan(row) else f"{round(end, 3) + 0.0:+.3f}") for end in (row.low, row.high))
    return f"[{low}, {high}]"


def effect_and_interval(row: Row | None) -> str:
    """Return effect and interval; a dash without a row."""
    if row is None:
        return "—"
    return f"{effect(row)} {interval(row)}" if not math.isnan(row.low) else f"{effect(row)}, {interval(row)}"


def evidence(row: Row | None) -> str:
    """Return how much evidence the row has: seeds and cells, or cases."""
    if row is None:
        return "—"
    cells = _many(row.cells, "case" if _is_scan(row) else "cell")
    return cells if _is_scan(row) and math.isnan(row.low) else f"{_many(row.seeds, 'seed')}, {cells}"


def tally(row: Row) -> str:
    """Return the number of cells with each outcome, in the order of ``TALLY``."""
    return f"{row.holds} / {row.fails} / {row.no_difference} / {row.inconclusive}"


def in_words(row: Row) -> str:
    """Return the number of cells with each outcome in words, without outcomes that no cell has."""
    said = {"hold": row.holds, "fail": row.fails, "show no difference": row.no_difference,
            "cannot tell": row.inconclusive}  # fmt: skip
    return ", ".join(f"{number:,} {words}" for words, number in said.items() if number)


def judgement(one: Settled) -> dict[str, str]:
    """Return, by heading, the verdict, and the evidence where a row decides it."""
    said = {"verdict": f"{one.verdict}{because(one)}"}
    if one.decisive:
        said |= {"effect": finding(one.decisive), "decided by": one.decisive.statement}
    return said


def because(one: Settled) -> str:
    """Return why the claim has no verdict, to follow the verdict's place; empty where it has a verdict."""
    return f": {one.why}" if one.why else ""


def finding(row: Row) -> str:
    """Return effect, interval, evidence, and the number of cells with each outcome."""
    return f"{effect_and_interval(row)}; {evidence(row)}: {in_words(row)}"


def terms(one: Settled) -> dict[str, str]:
    """Return the stated part of the claim, our part, the rule, and what would change the verdict."""
    return {name: getattr(one.claim, name) for name in ("stated", "ours", "rule", "changes")}


def rows(one: Settled) -> list[list[str]]:
    """Return every row with the columns ``ROW``: as stated, then controls that do not hold, then those that do."""
    kinds = [("as stated", row) for row in one.rows if not row.control]
    kinds += [(f"control that {'holds' if holds(row) else 'does not hold'}", row) for row in one.controls]
    return [
        [kind, row.statement, row.verdict, effect(row), interval(row), evidence(row), tally(row)] for kind, row in kinds
    ]


def beside(one: Settled, mark: str = "") -> str:
    """Return the control beside a claim, its statement between two marks; or why the claim has no verdict."""
    row = one.beside
    return f"{mark}{row.statement}{mark}: {row.verdict}, {effect(row)}" if row else one.why or "—"


def of_controls(one: Settled) -> str:
    """Return how many of a claim's controls hold."""
    return f"{sum(map(holds, one.controls))} of {_many(len(one.controls), 'control')} hold"


def commands(one: Settled, *, quick: bool = False) -> list[str]:
    """Return the commands that make the frames of a claim again, those of missing measurements too, and the report."""
    figures = f"gradlab figures {' '.join(one.frames)}{' --quick' if quick else ''} --fresh"
    measured = dict.fromkeys(MEASURED[name].command for name in one.claim.measurements)
    return [*([figures] if one.frames else []), *measured]


def data_files(one: Settled) -> list[str]:
    """Return the frames that judge a claim and are not missing, as paths in the folder of the figures."""
    ours = [frame_file(name) for name, state in one.frames.items() if state != "missing"]
    return [*ours, *(file for name in one.measured for file in MEASURED[name].files.values())]


def frame_file(experiment: str) -> str:
    """Return the path of an experiment's frame in the folder of the figures."""
    return frame_path(EXPERIMENTS[experiment], Path("data")).as_posix()


def code_files(one: Settled) -> list[str]:
    """Return the files whose ``verdict`` holds a claim's contrasts, as paths in the repository."""
    modules = [EXPERIMENTS[name].module for name in one.frames]
    modules += [MEASURED[name].module for name in one.claim.measurements]
    return list(map(file_of, dict.fromkeys(modules)))


def file_of(module: str) -> str:
    """Return the file of a module of gradlab, as a path in the repository."""
    return f"{module.replace('.', '/')}.py"


def _share(value: float) -> str:
    """Return a share in percent, which is 0% or 100% only where the share is exactly 0 or 1."""
    if 0 < value < 0.0005 or 0.9995 <= value < 1:
        return "under 0.1%" if value < 0.5 else "over 99.9%"
    return f"{value:.0%}" if value in (0, 1) else f"{value:.1%}"


def _is_scan(row: Row) -> bool:
    return row.value == SHARE_OF_CASES


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

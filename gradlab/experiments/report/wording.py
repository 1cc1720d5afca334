"""A settled claim in words, without any layout; pages, terminal and explorer share these words."""

from __future__ import annotations

import math
from pathlib import Path

from gradlab.experiments import EXPERIMENTS, MEASURED
from gradlab.experiments.contrasts import Contrast, Judged
from gradlab.experiments.frames import frame_path
from gradlab.experiments.report.verdicts import Settled

TALLY = "for : none : against"
_UNITS = {"stated": "cell", "worlds": "world", "cases": "case"}
_BECAUSE = {
    "holds throughout": "yes, against every control", "holds on average": "yes, on average, against every control",
    "no practical difference": "no, {} does as well", "reversed": "no, {} does better",
    "mixed": "in part, not against {}",
    "undecided": "open, against {}", "not run": "not run",
}  # fmt: skip


def counts(row: Judged) -> str:
    """Return how many units are for, none and against, such as "4 : 0 : 2 cells", and how many are undecided."""
    numbers = [row.number(state) for state in ("for", "none", "against")]
    said = f"{' : '.join(f'{number:,}' for number in numbers)} {_UNITS[row.population]}s"
    undecided = row.number("undecided")
    return f"{said}, {undecided:,} undecided" if undecided else said


def effect(row: Judged) -> str:
    """Return the average effect with its 95% interval and unit; a dash for a scan."""
    statement = row.statement
    if not isinstance(statement, Contrast) or math.isnan(row.effect):
        return "—"
    if math.isnan(row.low):
        return f"{statement.unit.signed(row.effect)} {statement.unit.words}".rstrip()
    ends = f"[{statement.unit.signed(row.low)}, {statement.unit.signed(row.high)}]"
    return f"{statement.unit.signed(row.effect)} {ends} {statement.unit.words}".rstrip()


def because(one: Settled) -> str:
    """Return whether it is the balancing, in words; empty where nothing was declared that could explain it away."""
    row = one.explains
    return _BECAUSE[one.because].format(row.statement.label or row.statement.statement) if row else ""


def needs(row: Judged) -> str:
    """Return what would decide an undecided row; empty for any other."""
    if not row.needs:
        return ""
    what = "worlds" if row.population == "worlds" else "seeds"
    return f"about {row.needs:,} {what} would decide; it has {row.replicates:,}"


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
    """Return the files whose ``verdict`` holds a claim's statements, as paths in the repository."""
    modules = [EXPERIMENTS[name].module for name in one.frames]
    modules += [MEASURED[name].module for name in one.claim.measurements]
    return list(map(file_of, dict.fromkeys(modules)))


def file_of(module: str) -> str:
    """Return the file of a module of gradlab, as a path in the repository."""
    return f"{module.replace('.', '/')}.py"


def reversed_units(row: Judged, most: int = 12) -> list[str]:
    """Return the reversed cells or worlds in words, the strongest first: "world 7 (dose 3.2, mask 0.4, policy free)".

    most  how many are named; a last entry says how many more there are.
    """
    statement = row.statement
    if not isinstance(statement, Contrast) or "reversed" not in row.rows:
        return []
    turned = row.rows[row.rows["reversed"].astype(bool)].sort_values("effect")
    named = []
    for _, unit in turned.head(most).iterrows():
        key = ", ".join(_setting(name, unit[name]) for name in statement.by) or "all together"
        settings = ", ".join(_setting(name, unit[name]) for name in statement.moderators)
        named.append(f"{key} ({settings})" if settings else key)
    return [*named, f"{len(turned) - most} more"] if len(turned) > most else named


def _setting(column: str, value: object) -> str:
    """Return a setting in words, such as "dose 3.2"."""
    shown = f"{value:.3g}" if isinstance(value, float) else str(value)
    return f"{column.removesuffix('_kind')} {shown}"

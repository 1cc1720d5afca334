"""Print the atlas of losses: value and slopes at the reference, who is pushed where, optimum, bounds, who ships it.

Everything is measured by the loss's values and slopes; nothing is trained. Without LOSS: one line for every registered
loss, with the numbers that its source sets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gradlab.cli.options import OPTIONAL, check_save, parsed, save
from gradlab.console import say, wrapped

if TYPE_CHECKING:
    import pandas as pd

_LOSSES = tyro.conf.arg(metavar="[LOSS …]", help_behavior_hint="")


@dataclasses.dataclass(frozen=True)
class AtlasCommand:
    """The options of ``gradlab atlas``."""

    losses: Annotated[tyro.conf.Positional[tuple[str, ...]], _LOSSES] = ()
    """Losses to show in full: names of registered ones, as published or as in simpo:beta=2,gamma=0.5; FILE.py:CLASS."""
    trained: Annotated[Path | None, OPTIONAL] = None
    """Also show what trainings as published did: figures/data/atlas.parquet, which `make atlas` writes."""
    json: bool = False
    """Print the rows as JSON, one object per loss."""
    save: Annotated[Path | None, OPTIONAL] = None
    """Also write the rows to this file (Parquet; its name ends in .parquet), with a manifest beside it."""
    overwrite: bool = False
    """Let --save replace a file that holds another result."""

    def run(self) -> int:
        """Measure, print, save."""
        check_save(self.save)
        from gradlab.atlas.rows import table

        rows = table(self.losses or None, self.trained)
        if self.json:
            say(rows.to_json(orient="records", indent=1, force_ascii=False, double_precision=15))
        else:
            say(as_paragraphs(rows) if self.losses else as_lines(rows))
        if self.save is not None:
            manifest = {"command": "gradlab atlas", "losses": list(self.losses)}
            save(rows, self.save, manifest, overwrite=self.overwrite)
        return 0


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    return parsed(AtlasCommand, "atlas", __doc__, arguments).run()


def as_lines(rows: pd.DataFrame) -> str:
    """Return the rows as text, one line per loss, family by family."""
    width = max(map(len, rows["key"])) + 2
    lines = [f"{'':<{width}}{'value':>9}{'slope_w':>10}{'slope_l':>10}  turns           bounded  needs"]
    for family, part in rows.groupby("family", sort=False):
        lines += ["", str(family)]
        lines += [f"{row['key']:<{width}}{_facts(row)}".rstrip() for _, row in part.iterrows()]
    return "\n".join([
        *lines, "",
        "value, slope_w, slope_l: the loss and its slopes in log π_w and log π_l at π = π_ref,",
        "for responses of 100 tokens with one nat each.",
        "turns: on some pairs winners are pushed down, or losers up.",
        "`gradlab atlas LOSS` says more.",
    ])  # fmt: skip


def _facts(row: Any) -> str:
    turns = [name for name, column in (("winner", "winner_down"), ("loser", "loser_up")) if row[column]]
    needs = [name for name in ("lengths", "reference") if row[name]]
    return (
        f"{_number(row['start']):>9}{_number(row['win_slope']):>10}{_number(row['lose_slope']):>10}  "
        f"{', '.join(turns) or '—':<16}{row['bounded']:<9}{', '.join(needs) or '—'}"
    )


def as_paragraphs(rows: pd.DataFrame) -> str:
    """Return the rows as text, a paragraph per loss."""
    names = {
        "equation": "loss", "numbers": "numbers", "source": "source", "family": "family", "convention": "convention",
        "rho": "ρ", "start": "at π = π_ref", "win_slope": "slope of log π_w", "lose_slope": "slope of log π_l",
        "winner_down": "lowers some winners", "loser_up": "raises some losers", "optimum": "least at",
        "bounded": "bounded",
        "lengths": "needs lengths", "reference": "needs a reference", "shipped": "shipped", "reward": "trained: E[u]",
        "kl": "trained: KL", "unobserved": "unobserved mass", "win": "change of log π_w", "lose": "change of log π_l",
    }  # fmt: skip
    paragraphs = []
    for _, row in rows.iterrows():
        lines = [f"{row['key']} ({row['label']})"]
        for column in (name for name in names if name in rows):
            lines += wrapped(_shown(row[column]), 100, f"  {names[column]:<21}")
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _number(value) if isinstance(value, float) else str(value) or "—"


def _number(value: float) -> str:
    return "differs" if value != value else f"{value + 0.0:.4g}".replace("-", "−")

"""Check which preference loss some code computes, with which hyper-parameters and conventions, and how far off.

TARGET is module:function or file.py:function, called with log-probabilities by name (win, lose, ref_win, ref_lose,
win_len, lose_len, or as in policy_chosen_logps); trl:LOSS_TYPE, a loss of the installed TRL, such as
trl:ipo,beta=0.1; or a .csv file with somebody's numbers. Options of a target follow it: file.py:loss,beta=0.1. The
code of a target is run. Exit status: 0 where a loss fits, 3 where none does, or where it is not the expected one.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from gradlab.cli.options import OPTIONAL, parsed
from gradlab.console import say, wrapped

if TYPE_CHECKING:
    import pandas as pd

_TARGET = tyro.conf.arg(metavar="[TARGET]", help_behavior_hint="")


@dataclasses.dataclass(frozen=True)
class ConformanceCommand:
    """The options of ``gradlab conformance``."""

    target: Annotated[tyro.conf.Positional[str | None], _TARGET] = None
    """The target to check: module:function, file.py:function, trl:LOSS_TYPE or a .csv file."""
    expect: Annotated[str | None, tyro.conf.arg(metavar="LOSS", help_behavior_hint="")] = None
    """The loss that it should be, such as dpo:beta=0.1; the report says how it differs from that."""
    dtype: Annotated[Literal["float64", "float32"] | None, OPTIONAL] = None
    """Type in which the target computes; left out: float64, and float32 for TRL and for tables."""
    json: bool = False
    """Print JSON in place of a table."""
    save: Annotated[Path | None, OPTIONAL] = None
    """Also write the table to this file (its name ends in .csv)."""
    vectors: Annotated[Path | None, tyro.conf.arg(metavar="OUT.csv", help_behavior_hint="")] = None
    """Write the pairs to this file, with empty columns loss, win_slope and lose_slope to be filled in."""
    disagreements: bool = False
    """List where libraries differ from papers: seen by running them, or cited."""
    overwrite: bool = False
    """Let --save and --vectors replace a file."""

    def run(self) -> int:
        """Ask the target, print and save what fits."""
        for name in ("save", "vectors"):
            file = getattr(self, name)
            if file is not None and file.suffix != ".csv":
                raise ValueError(f"{name} must name a file that ends in .csv, got {str(file)!r}")
            if file is not None and file.exists() and not self.overwrite:
                raise FileExistsError(f"{name} must name a file that is not there yet, got {str(file)!r} (--overwrite)")
        if self.disagreements:
            from gradlab.conformance import disagreements

            frame = disagreements()
            say(frame.to_json(orient="records", force_ascii=False, indent=1) if self.json else listed(frame))
            return 0
        if self.target is None and self.vectors is None:
            raise ValueError("target must be given: module:function, file.py:function, trl:LOSS_TYPE or a .csv file")
        if self.vectors is not None:
            from gradlab.conformance import write_table

            say(f"saved: {write_table(self.vectors, overwrite=self.overwrite)}")
        if self.target is None:
            return 0
        from gradlab.conformance import check

        frame = check(self.target, self.expect, dtype=self.dtype)
        say(as_json(frame) if self.json else as_text(frame))
        if self.save is not None:
            from gradlab.store.csv_text import csv_text
            from gradlab.store.files import write_whole

            write_whole({self.save: csv_text(frame)})
        return 0 if frame["fits"].iloc[0] else 3


def listed(frame: pd.DataFrame) -> str:
    """Return disagreements as text: those of a loss under its name."""
    lines = []
    for name, rows in frame.groupby("loss", sort=False):
        lines += [str(name)]
        for row in rows.itertuples():
            where = f" ({row.library}, {row.key}; {row.how})" if row.library else ""
            lines += wrapped(f"{row.disagreement}{where}", 100, "  ")
    return "\n".join(lines)


def as_json(frame: pd.DataFrame) -> str:
    """Return what ``check`` found as JSON: its attrs, and ``losses`` with one object per row."""
    return json.dumps({**frame.attrs, "losses": json.loads(frame.to_json(orient="records", double_precision=15))},
                      ensure_ascii=False, indent=1)  # fmt: skip


def as_text(frame: pd.DataFrame) -> str:
    """Return what ``check`` found as text: its summary, one paragraph per loss, and notes."""
    attrs = frame.attrs
    lines = [f"{attrs['target']}, {attrs['pairs']} pairs in {attrs['dtype']}", ""]
    lines += [*wrapped(attrs["summary"], 100), ""]
    for row in frame.to_dict("records"):
        said = row["departs"] or f"off by {row['units']:.2g} units of rounding"
        most = f", most at: {row['worst']}" if row["worst"] else ""
        lines += [f"{row['loss']}({row['hyper']})", *wrapped(said, 100, "  ")]
        if not math.isnan(row["value_error"]):
            lines += [f"  largest difference: value {row['value_error']:.3g}, slopes {row['slope_error']:.3g}{most}"]
        lines += wrapped("; ".join(filter(None, (row["convention"], row["known_as"]))), 100, "  ")
    return "\n".join([*lines, *(line for note in attrs["notes"] for line in ("", *wrapped(note, 100)))])


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    return parsed(ConformanceCommand, "conformance", __doc__, arguments).run()

"""Tables of numbers: the questions as a CSV file to be filled in, and the answers of somebody's trainer."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from gradlab.checks import in_words, input_file, one_of, utf8
from gradlab.conformance.numbers import Numbers, Questions
from gradlab.conformance.targets import Target
from gradlab.conformance.vectors import INPUTS, read_vectors
from gradlab.losses import PairLogps
from gradlab.store.csv_text import csv_text
from gradlab.store.files import write_whole

NEEDED = ("win", "lose", "loss")
OPTIONAL = ("pair", "ref_win", "ref_lose", "win_len", "lose_len", "win_slope", "lose_slope")
LEAST = 4  # rows: fewer tell no loss from another


def write_table(path: Path | str, *, overwrite: bool = False) -> Path:
    """Write the vectors' pairs as CSV, with the columns loss, win_slope and lose_slope left empty; return the path.

    One row per pair: pair (its name), win, lose, ref_win, ref_lose (log-probabilities of whole responses, nats),
    win_len, lose_len (tokens). FileExistsError for a file that is there, unless ``overwrite``.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{in_words(path)} is there already; name another file")
    frame = pd.DataFrame(read_vectors()["pairs"])
    write_whole({path: csv_text(frame.assign(loss="", win_slope="", lose_slope=""))})
    return path


def read_table(path: Path | str, dtype: str) -> Target:
    """Return the answers in a CSV file: win, lose and loss, the other columns of ``write_table`` where there are some.

    Rows without a loss are left out. A number may be off by half a unit of its last digit. Pairs need not be those of
    the vectors. ValueError or OSError, in one line with file and row, for anything else.
    """
    path = input_file("target", path)
    content = path.read_bytes()
    utf8(in_words(path), content)
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{in_words(path)} is no CSV: {error}") from None
    columns = [name for name in (rows[0] if rows else {}) if name]
    for name in NEEDED:
        if name not in columns:
            raise ValueError(
                f"{in_words(path)} must have the columns {', '.join(NEEDED)}, got {', '.join(columns) or 'none'}"
            )
    for name in columns:
        one_of(f"column of {in_words(path)}", name, (*NEEDED, *OPTIONAL))
    filled = [(place, row) for place, row in enumerate(rows, 2) if (row["loss"] or "").strip()]
    if len(filled) < LEAST:
        raise ValueError(f"{in_words(path)} must have a loss in at least {LEAST} rows, got {len(filled)}")
    given = [name for name in (*INPUTS, "loss", "win_slope", "lose_slope") if name in columns]
    numbers = {name: [_number(path, place, name, row[name]) for place, row in filled] for name in given}
    for first, second in (("ref_win", "ref_lose"), ("win_len", "lose_len")):
        if (first in numbers) != (second in numbers):
            raise ValueError(f"{in_words(path)} must have both of {first} and {second}, or neither")
    sides = {
        name: torch.tensor([value for value, _ in numbers[name]], dtype=torch.float64)
        for name in INPUTS
        if name in numbers
    }
    for name in ("ref_win", "ref_lose"):
        sides.setdefault(name, torch.zeros_like(sides["win"]))
    answers = [numbers.get(name, [(float("nan"), 0.0)] * len(filled)) for name in ("loss", "win_slope", "lose_slope")]
    got, slack = (np.array([[cell[part] for cell in column] for column in answers]) for part in (0, 1))
    names = tuple((row.get("pair") or "").strip() or f"row {place}" for place, row in filled)
    notes = [] if "ref_win" in numbers else ["The table has no reference: losses without one are found."]
    return Target(str(path), Questions(PairLogps(**sides), names), Numbers(*got), dtype, slack, notes)


def _number(path: Path, row: int, name: str, text: str | None) -> tuple[float, float]:
    """Return a cell's number, and half a unit of its last digit; NaN for an empty slope, ∞ for the text "nan"."""
    text = (text or "").strip()
    if not text and name in ("win_slope", "lose_slope"):
        return float("nan"), 0.0
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{in_words(path)}, row {row}: {name} must be a number, got {text!r}") from None
    if name in INPUTS and not np.isfinite(value):
        raise ValueError(f"{in_words(path)}, row {row}: {name} must be finite, got {text}")
    if name in INPUTS and name.endswith("_len") and value <= 0:
        raise ValueError(f"{in_words(path)}, row {row}: {name} must be > 0, got {text}")
    mantissa, _, exponent = text.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    power = int(exponent) if exponent.lstrip("+-").isdigit() else 0
    if not np.isfinite(value):
        return (float("inf") if np.isnan(value) else value), 0.0
    return value, 0.5 * 10.0 ** min(power - decimals, 300)

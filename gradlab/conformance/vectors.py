"""The vectors: pairs, and what each registered loss and both slopes are there, in ``vectors-1.json``.

Version 1 of the file is one object with

  pairs        columns of equal length: pair (a name), win, lose, ref_win, ref_lose (nats), win_len, lose_len (tokens)
  batches      lists of places of pairs, counted from 0: the batches of ``batch_cases``
  cases        per loss and set of hyper-parameters: loss, hyper, presets (the names of that set), and value, win_slope,
               lose_slope with one number per pair: the loss, ∂L/∂log π_w and ∂L/∂log π_l
  batch_cases  the same for losses of batches; ``batches`` has an object per batch, in which slopes are those of the
               sum of the batch's values

All inputs are exact in float32. Numbers are exact up to one rounding to float64; null where a number is beyond float64,
and for slopes at a kink. ``scripts/conformance_vectors.py`` writes the file.
"""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import torch

from gradlab.losses import PairLogps, slopes
from gradlab.losses.registry import numbers_of

FORMAT = 1
FILE = Path(__file__).with_name(f"vectors-{FORMAT}.json")
INPUTS = ("win", "lose", "ref_win", "ref_lose", "win_len", "lose_len")
NUMBERS = ("value", "win_slope", "lose_slope")
ABOUT = (
    "Losses and slopes of preference pairs, exact up to one rounding to float64. win, lose, ref_win, ref_lose: log-"
    "probabilities of whole responses in nats; win_len, lose_len: tokens. win_slope, lose_slope: derivatives of a "
    "pair's loss in win and lose. null: beyond float64, or at a kink. See gradlab.conformance.vectors."
)


@functools.cache
def read_vectors() -> dict[str, Any]:
    """Return the content of the file, as the module's docstring describes it; not to be changed."""
    return json.loads(FILE.read_text("utf-8"))


def pair_names() -> list[str]:
    """Return the names of the vectors' pairs."""
    return list(read_vectors()["pairs"]["pair"])


def vector_pairs(dtype: torch.dtype = torch.float64) -> PairLogps:
    """Return the vectors' pairs, (pairs,) each, with lengths; all numbers are exact in float32 and float64."""
    columns = read_vectors()["pairs"]
    return PairLogps(*(torch.tensor(columns[name], dtype=dtype) for name in INPUTS))


def vectors_of(loss: Any) -> dict[str, Any]:
    """Return the content of a file as ``vectors-1.json`` for one loss of pairs: its value and slopes at every pair.

    Numbers are as this machine computes them in float64, null where they are not finite.
    """
    pairs = vector_pairs()
    parts = (loss(pairs), *slopes(loss, pairs))
    numbers = {name: [_finite(number) for number in part.tolist()] for name, part in zip(NUMBERS, parts, strict=True)}
    case = {"loss": loss.name, "hyper": numbers_of(loss), "equation": loss.equation, "presets": [], **numbers}
    return {"gradlab_conformance": FORMAT, "about": ABOUT, "pairs": read_vectors()["pairs"], "cases": [case]}


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None

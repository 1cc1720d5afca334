"""Worlds and paint as texts, so that a state, a link and a file carry them; the page writes and reads the same texts.

A world is JSON with ``utility``, and ``observed``, ``ref_logp``, ``hidden_pairs`` and ``lengths`` where they differ
from every pair in the data, a uniform reference and one token per response. Paint is a size and a mark per cell, such
as "3x4:5AB6A": a letter per mark, after the length of its run. ``own_world.ts`` and ``paint.ts`` in
``gradlab/web/src`` are the page's side.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradlab.lab.world import World

MOST_PAIRS = 1_000_000  # prompts × responses² that a page trains on
MOST_PROMPTS = 1000  # rows of a map
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-"  # one per mark, the first of none
_PARTS = ("utility", "observed", "ref_logp", "hidden_pairs", "lengths")


@dataclass(frozen=True)
class Paint:
    """Marks on a world's cells, each (X, Y).

    flips   True where seen and hidden change places.
    levels  1: the world's highest utility, −1: its lowest, 0: unchanged.
    steps   nats by which log π_ref moves before its prompt is normalised.
    """

    flips: np.ndarray
    levels: np.ndarray
    steps: np.ndarray

    def on(self, world: World) -> World:
        """Return the world with the paint on it; ValueError in one line where a prompt keeps no pair."""
        best, worst = world.utility.max(), world.utility.min()
        utility = np.select([self.levels > 0, self.levels < 0], [best, worst], world.utility)
        ref_logp = _log_softmax(world.ref_logp + self.steps) if self.steps.any() else world.ref_logp
        return replace(world, utility=utility, observed=world.observed ^ self.flips, ref_logp=ref_logp)

    def code(self) -> list[str]:
        """Return lines of Python that put the paint on ``world``."""
        flips, levels, steps = self.flips.any(), self.levels.any(), self.steps.any()
        lines = []
        if flips:
            lines.append(f"flips = {_cells(self.flips)}  # seen and hidden change places")
            lines += ["observed = world.observed.copy()", "observed[tuple(zip(*flips))] ^= True"]
        if levels:
            lines.append("utility = world.utility.copy()")
            for level, name in ((1, "max"), (-1, "min")):
                if (self.levels == level).any():
                    cells = _cells(self.levels == level)
                    lines.append(f"utility[tuple(zip(*{cells}))] = world.utility.{name}()")
        if steps:
            lines.append("logits = world.ref_logp.copy()")
            for step in np.unique(self.steps[self.steps != 0]).tolist():
                lines.append(f"logits[tuple(zip(*{_cells(self.steps == step)}))] += {step}")
            lines += ["logits -= logits.max(1, keepdims=True)",
                      "ref_logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))"]  # fmt: skip
        painted = (("utility", levels), ("observed", flips), ("ref_logp", steps))
        parts = [name if there else f"world.{name}" for name, there in painted]
        return [*lines, f"world = gl.World({', '.join(parts)}, world.hidden_pairs, world.lengths)"]


def world_text(world: World) -> str:
    """Return a world as text; its numbers are exact. ValueError where it is too large for a page."""
    check_size(world.prompts, world.responses)
    parts: dict[str, Any] = {"utility": world.utility.tolist()}
    if not world.observed.all():
        parts["observed"] = world.observed.astype(int).tolist()
    if not np.array_equal(world.ref_logp, _uniform(*world.utility.shape)):
        parts["ref_logp"] = world.ref_logp.tolist()
    if world.hidden_pairs is not None:
        parts["hidden_pairs"] = world.hidden_pairs.astype(int).tolist()
    if world.lengths is not None:
        parts["lengths"] = world.lengths.tolist()
    return json.dumps(parts, separators=(",", ":"))


def read_world(text: str) -> World:
    """Return the world of a text; ValueError in one line where it is none."""
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a world must be JSON: {error}") from None
    if not isinstance(parts, dict) or not parts.keys() <= {*_PARTS} or "utility" not in parts:
        raise ValueError(f"a world must be JSON with utility and no other parts than {', '.join(_PARTS)}")
    arrays = {name: _array(name, value) for name, value in parts.items() if value is not None}
    utility = arrays["utility"]
    if utility.ndim != 2:
        raise ValueError(f"utility must be a list of rows, got {utility.ndim} dimensions")
    check_size(*utility.shape)
    for name in ("observed", "hidden_pairs"):
        if name in arrays:
            if not np.isin(arrays[name], (0, 1)).all():
                raise ValueError(f"{name} must be 0 or 1, or false or true")
            arrays[name] = arrays[name].astype(bool)
    rest = {"observed": np.ones(utility.shape, bool), "ref_logp": _uniform(*utility.shape)}
    return World(**{**rest, **arrays})


def world_lines(world: World) -> list[str]:
    """Return lines of Python that make a world, with exact numbers."""
    lines = [f"utility = np.array({world.utility.tolist()})"]
    seen = "np.ones(utility.shape, bool)" if world.observed.all() else f"np.array({world.observed.tolist()})"
    lines += [f"observed = {seen}", f"ref_logp = np.array({world.ref_logp.tolist()})"]
    parts = ["utility", "observed", "ref_logp"]
    if world.hidden_pairs is not None:
        shape, slots = (*world.utility.shape, world.responses), np.flatnonzero(world.hidden_pairs).tolist()
        lines += [f"hidden_pairs = np.zeros({shape}, bool)", f"hidden_pairs.flat[{slots}] = True"]
        parts.append("hidden_pairs")
    if world.lengths is not None:
        lines.append(f"lengths = np.array({world.lengths.tolist()})")
        parts.append("lengths=lengths")
    return [*lines, f"world = gl.World({', '.join(parts)})"]


def read_paint(text: str) -> Paint:
    """Return the paint of a text; ValueError in one line where it is none."""
    found = re.fullmatch(r"([0-9]{1,4})x([0-9]{1,4}):((?:[0-9]{0,6}[A-Za-z_-])+)", text)
    if found is None:
        raise ValueError(f"painted must be a size and marks of paint, such as 2x3:5AB, or nothing, got {text[:40]!r}")
    shape = int(found[1]), int(found[2])
    check_size(*shape)
    runs = [(int(length or 1), letter) for length, letter in re.findall(r"([0-9]*)([A-Za-z_-])", found[3])]
    size = sum(length for length, _ in runs)
    if size != shape[0] * shape[1]:
        raise ValueError(f"painted must have {shape[0] * shape[1]} marks for {shape[0]} prompts and {shape[1]} "
                         f"responses, got {size}")  # fmt: skip
    marks = np.repeat([_LETTERS.index(letter) for _, letter in runs], [length for length, _ in runs]).reshape(shape)
    moved = marks // 6
    steps = np.where(moved % 2, (moved + 1) // 2, -(moved // 2))
    return Paint(marks % 2 == 1, np.array([0, 1, -1])[marks // 2 % 3], steps)


def paint_text(paint: Paint) -> str:
    """Return paint as text; "" where there is none."""
    moved = np.where(paint.steps > 0, 2 * paint.steps - 1, -2 * paint.steps)
    marks = (paint.flips + 2 * (paint.levels % 3) + 6 * moved).astype(int)
    if not marks.any():
        return ""
    letters = "".join(_LETTERS[mark] for mark in marks.flat)
    runs = re.sub(r"(.)\1*", lambda run: f"{len(run[0])}{run[1]}" if len(run[0]) > 1 else run[0], letters)
    return f"{marks.shape[0]}x{marks.shape[1]}:{runs}"


def fits(text: str, world: World) -> bool:
    """Return True if there is paint, and of this world's size; the page leaves other paint off."""
    return text.startswith(f"{world.prompts}x{world.responses}:")


def check_size(prompts: int, responses: int) -> None:
    """Raise ValueError for a world that is too large for a page."""
    if prompts > MOST_PROMPTS:
        raise ValueError(f"prompts must be at most {MOST_PROMPTS} in an explorer, got {prompts}; gl.fit takes more")
    if prompts * responses**2 > MOST_PAIRS:
        raise ValueError(f"prompts × responses² must be at most {MOST_PAIRS:,} in an explorer, got {prompts} × "
                         f"{responses}²; gl.fit takes more")  # fmt: skip


def _array(name: str, value: Any) -> np.ndarray:
    try:
        array = np.array(value)
    except ValueError:  # rows of several lengths
        array = np.array(None)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be a list of rows of numbers, of one length")
    return array.astype(float)


def _uniform(prompts: int, responses: int) -> np.ndarray:
    return _log_softmax(np.zeros((prompts, responses)))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _cells(where: np.ndarray) -> str:
    return repr([tuple(cell) for cell in np.argwhere(where).tolist()])

"""A loss and its two slopes at given pairs, and the unit in which rounding moves them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradlab.losses import PairLogps

KINK_STEP, KINK_JUMP = 1e-6, 1e-3  # slopes that differ by such a share this far to either side have a kink between
_SIDES = ("win", "lose", "ref_win", "ref_lose")
Function = Callable[[PairLogps], Tensor]


class Numbers(NamedTuple):
    """The loss, ∂L/∂log π_w and ∂L/∂log π_l of each pair, (pairs,) each.

    Of a target, NaN where it does not state a number, and ±∞ where it states one that is not finite, also for NaN.
    """

    value: np.ndarray
    win_slope: np.ndarray
    lose_slope: np.ndarray

    def table(self) -> np.ndarray:
        """Return the three as one array, (3, pairs)."""
        return np.stack(self)


@dataclass(frozen=True, eq=False)
class Questions:
    """The pairs at which a loss is asked for its numbers, and their names.

    pairs    in float64, (pairs,); of batches: (pairs of a batch, batches).
    names    one per pair, in the order of ``pairs.win.flatten()``.
    batches  whether the pairs of a column are one batch: the value is then the batch's mean, the same for each of its
             pairs, and slopes are those of the sum.
    """

    pairs: PairLogps
    names: tuple[str, ...]
    batches: bool = False

    def numbers(self, loss: Function) -> Numbers:
        """Return the numbers of a loss, which takes a PairLogps and returns one value per pair; slopes by autograd."""
        value, slopes, _ = self._differentiated(loss, self.pairs, again=False)
        return Numbers(*(_array(part) for part in (value, *slopes)))

    def units(self, loss: Function) -> np.ndarray:
        """Return the unit of rounding of each number, (3, pairs), to be multiplied by the type's ε.

        The unit of a number f is |f| + Σ |x ∂f/∂x| over the four log-probabilities x: what one rounding of the result
        and one of each input do. The upper quartile of |f| over the pairs is added, since much smaller numbers are
        differences of such. Infinite for slopes at a kink, where no number is right.
        """
        value, slopes, sides = self._differentiated(loss, self.pairs, again=True)
        units = []
        for number in (value, *slopes):
            unit = number.detach().abs()
            for side, moved in zip(sides, _grad(number, sides), strict=True):
                unit = unit + (side * moved).detach().abs()
            units.append(_array(unit) + _upper(np.abs(_array(number))))
        table = np.stack(units)
        table[1:, self._kinks(loss)] = np.inf
        return table

    def _differentiated(
        self, loss: Function, pairs: PairLogps, *, again: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return value, both slopes and the four log-probabilities; ``again``: for slopes of slopes."""
        sides = [getattr(pairs, name).detach().clone() for name in _SIDES]
        sides = [side.requires_grad_(again or place < 2) for place, side in enumerate(sides)]
        with torch.enable_grad():
            value = loss(replace(pairs, **dict(zip(_SIDES, sides, strict=True))))
            slopes = list(_grad(value, sides[:2], again=again))
        if self.batches:
            value = value.mean(0)
        return value.expand(pairs.win.shape), slopes, sides

    def _kinks(self, loss: Function) -> np.ndarray:
        """Return for each pair whether the slopes jump within a small step of either side."""
        here = self.numbers(loss).table()[1:]
        bound = KINK_JUMP * (np.abs(here) + np.array([[median(np.abs(row))] for row in here]))
        jumps = np.zeros(here.shape[1], bool)
        for side in ("win", "lose"):
            for step in (KINK_STEP, -KINK_STEP):
                moved = replace(self.pairs, **{side: getattr(self.pairs, side) + step})
                slopes = self._differentiated(loss, moved, again=False)[1]
                with np.errstate(invalid="ignore"):
                    jumps |= (np.abs(np.stack([_array(slope) for slope in slopes]) - here) > bound).any(axis=0)
        return jumps


def median(values: np.ndarray) -> float:
    """Return the median of the finite values; 0 where there is none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else 0.0


def _upper(sizes: np.ndarray) -> float:
    finite = sizes[np.isfinite(sizes)]
    return float(np.quantile(finite, 0.75)) if len(finite) else 0.0


def _grad(value: Tensor, sides: list[Tensor], *, again: bool = False) -> tuple[Tensor, ...]:
    if not value.requires_grad:
        return tuple(torch.zeros_like(side) for side in sides)
    return torch.autograd.grad(
        value.sum(), sides, allow_unused=True, materialize_grads=True, create_graph=again, retain_graph=True
    )


def _array(values: Tensor) -> np.ndarray:
    return values.detach().double().flatten().numpy()

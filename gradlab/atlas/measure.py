"""What a loss does to a pair, measured by its values and slopes alone: the same eyes for every loss."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradlab.atlas import pairs
from gradlab.checks import shown
from gradlab.lab.descent import steady
from gradlab.losses import BatchLoss, PairLogps, PairLoss, differentiated, slopes
from gradlab.losses.registry import measured_start

_Value = Callable[[PairLogps], Tensor]
_NEAR = 5e3  # nats: how far an optimum is sought; log π_ref lies 20 times as far below 0
_TIE = 1e-9  # values that differ by less, relative to 1 + |value|, count as equal


@dataclass(frozen=True)
class Optimum:
    """Where a loss is least, at finite log-probabilities; None for a coordinate in which it has no least value.

    win, lose  h_w and h_l, in nats.
    margin     h_w − h_l, in nats.
    value      the loss there, or its infimum over the other coordinate.
    attained   whether the loss has this value at finite log-probabilities.
    """

    win: float | None
    lose: float | None
    margin: float | None
    value: float
    attained: bool


@dataclass(frozen=True, eq=False)
class Field:
    """A step of descent over (π_w, π_l), each array (R, C); NaN where no policy can be.

    win, lose  the probabilities. slope_win, slope_lose: −∂L/∂π_w and −∂L/∂π_l.
    step_win, step_lose  changes of π_w and π_l by a small step on the three logits of winner, loser and the rest.
    """

    win: np.ndarray
    lose: np.ndarray
    slope_win: np.ndarray
    slope_lose: np.ndarray
    step_win: np.ndarray
    step_lose: np.ndarray


@dataclass(frozen=True, eq=False)
class Measured:
    """A loss as it is measured; each number is computed when it is first read.

    A loss of a batch is measured in batches of one pair.
    """

    loss: PairLoss | BatchLoss

    @functools.cached_property
    @steady("cpu")
    def start(self) -> float | None:
        """The loss at π = π_ref; None where it differs from pair to pair."""
        return measured_start(self._value)  # type: ignore[arg-type]

    @functools.cached_property
    @steady("cpu")
    def start_slopes(self) -> tuple[float, float]:
        """∂L/∂log π_w and ∂L/∂log π_l at π = π_ref, for two responses of 100 tokens with one nat per token."""
        win, lose = slopes(self._value, pairs.at_reference())
        return float(win), float(lose)

    @functools.cached_property
    @steady("cpu")
    def signs(self) -> tuple[bool, bool]:
        """Whether descent lowers log π_w for some pair, and whether it raises log π_l for some pair."""
        found = [_moves(self._value, part) for part in pairs.everywhere()]
        down = any(bool((winner < 0).any()) for winner, _ in found)
        return down, any(bool((loser > 0).any()) for _, loser in found)

    @property
    def winner_down(self) -> bool:
        """Whether descent lowers log π_w for some pair."""
        return self.signs[0]

    @property
    def loser_up(self) -> bool:
        """Whether descent raises log π_l for some pair."""
        return self.signs[1]

    @functools.cached_property
    @steady("cpu")
    def bounds(self) -> tuple[bool, bool]:
        """Whether the loss has a lower, and an upper bound: its extremes at |h| up to 10⁴, 10⁵ and 10⁶ nats settle."""
        values = [torch.cat([self._value(part) for part in pairs.extreme(10.0**power)]) for power in (4, 5, 6)]
        low = [float(value.min()) for value in values]
        high = [float(value.max()) for value in values]
        return _settles([-end for end in low]), _settles(high)

    @property
    def bounded(self) -> str:
        """Say on which side the loss is bounded: "below", "above", "both" or "neither"."""
        return bounded_in_words(*self.bounds)

    @functools.cached_property
    @steady("cpu")
    def optimum(self) -> Optimum | None:
        """Where the loss is least, found by search; None where it is least nowhere at finite log-probabilities."""
        return _optimum(self._value)

    @functools.cached_property
    @steady("cpu")
    def weight_range(self) -> tuple[float, float]:
        """The least and the largest λ_w = |∂_w|/(|∂_w| + |∂_l|) among the pairs that are searched; NaN without any."""
        ends = [_weights(self._slopes(part)) for part in pairs.everywhere()]
        every = torch.cat(ends)
        return (float(every.min()), float(every.max())) if len(every) else (math.nan, math.nan)

    @steady("cpu")
    def log_ratio(self, grid: pairs.Grid | None = None) -> np.ndarray:
        """Return log ρ = log|∂L/∂log π_w| − log|∂L/∂log π_l| on a grid, (R, C); default: the lab's over (π_w, π_l).

        ±∞ where one side has no slope; NaN where neither has one, and where there is no policy.
        """
        grid = grid or pairs.by_probability()
        win, lose = self._slopes(grid.pairs)
        return torch.where(grid.possible, win.abs().log() - lose.abs().log(), math.nan).numpy()

    @steady("cpu")
    def moves(self, grid: pairs.Grid | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return where descent pushes log π_w and log π_l on a grid, each (R, C): 1 up, −1 down, 0 nowhere.

        NaN where there is no policy. The default grid is over (h_w, h_l), each within 99 nats, for 100 tokens each.
        """
        grid = grid or pairs.by_logratio()
        win, lose = (torch.where(grid.possible, side.double(), math.nan) for side in _moves(self._value, grid.pairs))
        return win.numpy(), lose.numpy()

    @steady("cpu")
    def field(self, cells: int = 10) -> Field:
        """Return a step of descent over (π_w, π_l), at the middles of ``cells`` × ``cells`` squares."""
        grid = pairs.by_probability(cells, log=False)
        win, lose = grid.pairs.win.exp(), grid.pairs.lose.exp()
        down = [-side for side in slopes(self._value, grid.pairs)]
        steps = _step(win, lose, *down)
        found = (win, lose, down[0] / win, down[1] / lose, *steps)
        return Field(*(torch.where(grid.possible, part, math.nan).numpy() for part in found))

    def _value(self, logps: PairLogps) -> Tensor:
        return _alone(self.loss, logps) if isinstance(self.loss, BatchLoss) else self.loss(logps)

    def _slopes(self, logps: PairLogps) -> tuple[Tensor, Tensor]:
        """Return the slopes that λ_w and ρ are made of, in which common factors may be left out."""
        return slopes(self._value if isinstance(self.loss, BatchLoss) else differentiated(self.loss), logps)


def measured(loss: PairLoss | BatchLoss) -> Measured:
    """Return the loss as it is measured; TypeError for something that is no loss."""
    if not callable(loss) or isinstance(loss, type) or not hasattr(loss, "name"):
        raise TypeError(f"loss must be a loss, such as DPO(beta=1.0), got {shown(loss)}")
    return Measured(loss)


def bounded_in_words(below: bool, above: bool) -> str:
    """Say on which side a loss is bounded: "below", "above", "both" or "neither"."""
    return {(True, True): "both", (True, False): "below", (False, True): "above"}.get((below, above), "neither")


def _alone(loss: BatchLoss, logps: PairLogps) -> Tensor:
    """Return the values of pairs of which each is a batch by itself."""
    sides = (None if side is None else side.flatten()[None] for side in vars(logps).values())
    return loss(PairLogps(*sides)).reshape(logps.win.shape)  # type: ignore[arg-type]


def _moves(value: _Value, logps: PairLogps) -> tuple[Tensor, Tensor]:
    """Return the signs of −∂L/∂log π_w and −∂L/∂log π_l: 0 where there is no slope, or one below what float64 holds."""
    win, lose = slopes(value, logps)
    return -win.sign(), -lose.sign()


def _weights(sides: tuple[Tensor, Tensor]) -> Tensor:
    win, lose = (side.abs() for side in sides)
    share = win / (win + lose)
    return share[share.isfinite()]


def _settles(ends: list[float]) -> bool:
    """Return whether three ends, each ten times as far out, come to rest: the last rise is below half of the former.

    A rise by the logarithm of the distance repeats itself; one that dies away is at most a third of the former. An end
    beyond 10³⁰ counts as no bound: some losses hold their powers there, lest they overflow.
    """
    if not all(abs(end) < 1e30 for end in ends):
        return False
    first, last = ends[1] - ends[0], ends[2] - ends[1]
    return last <= max(0.5 * first, _TIE * (1 + abs(ends[2])))


def _step(win: Tensor, lose: Tensor, win_down: Tensor, lose_down: Tensor) -> tuple[Tensor, Tensor]:
    """Return the changes of π_w and π_l by a step on logits along −∂L/∂z; ``*_down``: −∂L/∂log π of either side."""
    rest = 1 - win - lose
    total = win_down + lose_down
    moved = [win_down - win * total, lose_down - lose * total, -rest * total]  # −∂L/∂z
    mean = win * moved[0] + lose * moved[1] + rest * moved[2]
    return win * (moved[0] - mean), lose * (moved[1] - mean)


def _optimum(value: _Value) -> Optimum | None:
    """Return the optimum of a function of pairs, by its least values along h_w, h_l and h_w − h_l.

    A coordinate has an optimum where the least value over the other coordinate is higher at both ends than between
    them, and also higher at a distance of 1 + |place| on both sides of it. The other coordinate goes ten times as far:
    else it might be held back where the first one is far out, and feign a rise.
    """
    found: dict[str, float | None] = dict.fromkeys(("win", "lose", "margin"))
    best = math.inf
    for name in found:
        places, others = pairs.spread(161, _NEAR), pairs.spread(201, 10 * _NEAR)
        fixed, other = torch.meshgrid(places, others, indexing="ij")
        table = _at(value, name, fixed, other)
        profile = table.amin(1)
        least = float(profile.min())
        if not math.isfinite(least) or float(min(profile[0], profile[-1])) <= least + _TIE * (1 + abs(least)):
            continue
        row, column = divmod(int(table.argmin()), len(others))
        place, least = _refined(
            value, name, (float(places[row]), float(others[column])), (_gap(places, row), _gap(others, column))
        )
        beside = [_refined(value, name, (at, float(others[column])), (0.0, _NEAR / 2))[1]
                  for at in (place - 1 - abs(place), place + 1 + abs(place))]  # fmt: skip
        if min(beside) > least + _TIE * (1 + abs(least)):
            found[name], best = place, least
    if best == math.inf:
        return None
    return Optimum(**found, value=best, attained=_attained(value, found, best))


def _at(value: _Value, name: str, fixed: Tensor, other: Tensor) -> Tensor:
    """Return the values where the named coordinate is ``fixed``; ``other`` is h_l, or h_w where h_l is fixed."""
    win = fixed if name == "win" else other if name == "lose" else fixed + other
    lose = fixed if name == "lose" else other
    reference, length = torch.full_like(win, -20 * _NEAR), torch.full_like(win, pairs.TOKENS)
    with torch.no_grad():
        return value(PairLogps(win + reference, lose + reference, reference, reference, length, length))


def _refined(value: _Value, name: str, centre: tuple[float, float], width: tuple[float, float]) -> tuple[float, float]:
    """Return a coordinate's optimum and the value there, by ever finer grids around (coordinate, the other one)."""
    steps = torch.linspace(-1, 1, 13, dtype=torch.float64)
    least = math.inf
    for _ in range(40):
        axes = [
            (middle + half * steps).clamp(-end, end)
            for middle, half, end in zip(centre, width, (_NEAR, 10 * _NEAR), strict=True)
        ]
        first, second = torch.meshgrid(*axes, indexing="ij")
        local = _at(value, name, first, second)
        row, column = divmod(int(local.argmin()), 13)
        centre, least = (float(first[row, column]), float(second[row, column])), float(local[row, column])
        width = (width[0] / 2, width[1] / 2)
    return centre[0], least


def _gap(places: Tensor, at: int) -> float:
    return float(places[min(at + 1, len(places) - 1)] - places[max(at - 1, 0)]) / 2


def _attained(value: _Value, found: dict[str, float | None], best: float) -> bool:
    """Return whether the loss comes to its least value at finite log-probabilities: on a line, or at a point."""
    if found["win"] is not None and found["lose"] is not None:
        return True
    name = next(name for name, place in found.items() if place is not None)
    fixed = torch.tensor([found[name]], dtype=torch.float64)
    return float(_at(value, name, fixed, torch.zeros_like(fixed))) <= best + _TIE * (1 + abs(best))

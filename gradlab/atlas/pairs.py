"""The pairs on which every loss is measured: grids of two responses, around a reference that does not move.

Two scales. In the lab a response is one token of twenty equally probable ones. In a language model a response is taken
to have 100 tokens, of one nat each under the reference. All tensors are float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.losses import PairLogps

LAB_REFERENCE = 0.05  # π_ref of either response in the lab's grids: one of twenty
TOKENS, NATS = 100.0, 100.0  # length of a response of a language model, and −log π_ref of it
REACH = 99.0  # the largest |h| of the language model's grid, in nats: log π stays below 0
FARTHEST = 1e6  # −log π_ref and |h| of the pairs at which bounds show
FAR = 1e4  # −log π_ref of the pairs that are searched for rare signs


@dataclass(frozen=True, eq=False)
class Grid:
    """Pairs at all combinations of two coordinates: ``win`` (C,) along columns, ``lose`` (R,) along rows.

    pairs     a ``PairLogps`` of shape (R, C).
    possible  (R, C) whether the two responses can have these probabilities: π_w + π_l ≤ 1.
    """

    win: Tensor
    lose: Tensor
    pairs: PairLogps
    possible: Tensor


def by_probability(cells: int = 41, least: float = 1e-4, *, log: bool = True) -> Grid:
    """Return the lab's grid over (π_w, π_l), from ``least`` to 1, evenly in log π, or else in π; one token each."""
    edges = torch.linspace(math.log(least), 0, cells + 1, dtype=torch.float64)
    if not log:
        edges = torch.linspace(0, 1, cells + 1, dtype=torch.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    probability = middle.exp() if log else middle
    return _grid(probability, probability.log(), math.log(LAB_REFERENCE), 1.0)


def by_logratio(cells: int = 61, reach: float = REACH, nats: float = NATS, tokens: float = TOKENS) -> Grid:
    """Return the grid over (h_w, h_l), each from −reach to reach and the denser the nearer to 0, see ``spread``.

    nats    −log π_ref of both responses, above ``reach``.
    tokens  length of both responses.
    """
    return _grid(spread(cells, reach), spread(cells, reach) - nats, -nats, tokens)


def _grid(shown: Tensor, logp: Tensor, reference: float, tokens: float) -> Grid:
    lose, win = torch.meshgrid(logp, logp, indexing="ij")
    fixed, length = torch.full_like(win, reference), torch.full_like(win, tokens)
    return Grid(shown, shown, PairLogps(win, lose, fixed, fixed, length, length), win.exp() + lose.exp() <= 1)


def spread(cells: int, reach: float) -> Tensor:
    """Return numbers (cells,) from −reach to reach that are even in sign(v)·log(1 + |v|); 0 is among an odd number."""
    even = math.log1p(reach) * torch.linspace(-1, 1, cells, dtype=torch.float64)
    return even.sign() * even.abs().expm1()


def at_reference(nats: float = NATS, tokens: float = TOKENS) -> PairLogps:
    """Return one pair at π = π_ref, of shape (1,): two responses of a language model."""
    logp, length = torch.full((1,), -nats, dtype=torch.float64), torch.full((1,), tokens, dtype=torch.float64)
    return PairLogps(logp, logp, logp, logp, length, length)


def everywhere() -> list[PairLogps]:
    """Return the pairs that are searched for rare signs: both scales, far away, and references and lengths that differ.

    Each is flat, and all of its pairs are possible.
    """
    even = [by_probability(), by_logratio(), by_logratio(reach=0.999 * FAR, nats=FAR)]
    odd = [_uneven(*sides) for sides in ((100.0, 40.0, 100.0, 40.0), (40.0, 100.0, 40.0, 100.0), (12.0, 3.0, 4.0, 2.0))]
    return [_flat(grid) for grid in (*even, *odd)]


def extreme(nats: float) -> list[PairLogps]:
    """Return the pairs at whose values a bound shows: |h| up to ``nats``, with one token each, and with 100.

    The values of h are ±``nats``, less a rounding, and those among fixed ones that lie between, so that larger sets
    hold the smaller ones. Last come losers, and winners, that have become probable beside a probable other side.
    """
    every, end = spread(121, FARTHEST), torch.tensor([nats * (1 - 1e-9)], dtype=torch.float64)
    shown = torch.cat([-end, every[every.abs() < end], end])
    even = [_flat(_grid(shown, shown - nats, -nats, tokens)) for tokens in (1.0, 100.0)]
    near, far = torch.tensor([-1.0], dtype=torch.float64), torch.tensor([-nats], dtype=torch.float64)
    return [*even, PairLogps(near, near, near, far, -near, -near), PairLogps(near, near, far, near, -near, -near)]


def _uneven(win_nats: float, lose_nats: float, win_len: float, lose_len: float) -> Grid:
    """Return a grid over (h_w, h_l) whose responses differ in reference and length."""
    win, lose = spread(41, 0.999 * win_nats), spread(41, 0.999 * lose_nats)
    down, across = torch.meshgrid(lose, win, indexing="ij")
    full = (torch.full_like(across, number) for number in (-win_nats, -lose_nats, win_len, lose_len))
    pairs = PairLogps(across - win_nats, down - lose_nats, *full)
    return Grid(win, lose, pairs, pairs.win.exp() + pairs.lose.exp() <= 1)


def _flat(grid: Grid) -> PairLogps:
    return PairLogps(*(side[grid.possible] for side in vars(grid.pairs).values()))

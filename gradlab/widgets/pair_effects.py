"""The effects of a loss on one pair in a softmax: gradients in three spaces, the real step, and maps of both."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from gradlab.losses import LogisticLoss, PairLogps, PairLoss, log_prob_ratio, slopes
from gradlab.theory import first_order_change, realised_change

DECADES = 12  # of the logarithmic axes
ROOM = 1 - 1e-4  # the largest π_w + π_l where there are other responses
CELLS, ARROWS = 80, 10  # along each axis of a map
SHOWN = ("winner", "loser", "each other")  # responses whose gradients are kept; with n = 2, the last is NaN


@dataclass(frozen=True)
class Effect:
    """The effect of one loss at one policy. Arrays are (3,): winner, loser, one of the others."""

    loss: PairLoss
    value: float  # L
    ratio: float  # |∂L/∂π_w| / |∂L/∂π_l|, NaN where both vanish
    by_prob: np.ndarray  # −∂L/∂π
    by_logp: np.ndarray  # −∂L/∂log π
    by_logit: np.ndarray  # −∂L/∂z
    change: np.ndarray  # Δ log π of one step on the logits, in nats
    first_order: np.ndarray  # the same to first order
    change_in_prob: np.ndarray  # Δπ of that step
    after: np.ndarray  # (2,) log π of winner and loser after it


@dataclass(frozen=True)
class Surface:
    """The loss over a map, and its span over the policies; the formula has values beyond them too."""

    values: np.ndarray  # (CELLS, CELLS)
    span: tuple[float, float]


@dataclass(frozen=True)
class Field:
    """Arrows on a map: (ARROWS², 2) places, and directions of length one, NaN where there is none."""

    places: np.ndarray
    directions: np.ndarray


def sides(names: tuple[str, str], win: float, lose: float, n: int) -> np.ndarray:
    """Return logarithms of two probabilities, (2,); with n = 2 responses, the second is one minus the first."""
    if n > 2 and not win + lose <= ROOM * (1 + 1e-12):
        raise ValueError(f"{' + '.join(names)} must be at most {ROOM:g}, since others hold the rest; "
                         f"got {win:g} + {lose:g}")  # fmt: skip
    return np.log([win, lose if n > 2 else 1 - win])


def policy(pair: np.ndarray, n: int) -> np.ndarray:
    """Return log π of n responses, (..., n), from winner's and loser's, (..., 2); the others share the rest evenly."""
    if n == 2:
        return pair
    others = np.log1p(-np.exp(pair).sum(-1, keepdims=True)) - math.log(n - 2)
    return np.concatenate([pair, np.repeat(others, n - 2, -1)], -1)


def effect(loss: PairLoss, log_p: np.ndarray, ref: np.ndarray, step: float) -> Effect:
    """Compute a loss's effect on a pair: gradients by autograd, the step by theory.

    log_p (n,), winner and loser first; ref (2,) their log π_ref; step > 0, of gradient descent on the logits.
    """
    logits = torch.tensor(log_p, requires_grad=True)
    with torch.enable_grad():
        logp = torch.log_softmax(logits, 0)
        pair = PairLogps(logp[0], logp[1], *torch.from_numpy(ref))
        value = loss(pair)
        by_logp, by_logit = (0.0 - grad.numpy() for grad in torch.autograd.grad(value, (logp, logits)))
    change = realised_change(log_p, by_logp, step)
    return Effect(
        loss, value.item(), log_prob_ratio(loss, pair).exp().item(), _three(by_logp / np.exp(log_p)), _three(by_logp),
        _three(by_logit), _three(change), _three(step * first_order_change(log_p, by_logp)),
        _three(np.exp(log_p) * np.expm1(change)), (log_p + change)[:2],
    )  # fmt: skip


def surface(loss: PairLoss, ref: np.ndarray, axes: str) -> Surface:
    """Return the loss over (π_w, π_l) or their logarithms; ref (2,) as above, axes "π" or "log π"."""
    win, lose = np.meshgrid(*[log_at(_middles(CELLS), axes)] * 2)
    values = loss(PairLogps(torch.from_numpy(win), torch.from_numpy(lose), *torch.from_numpy(ref))).numpy()
    within = values[np.exp(win) + np.exp(lose) < 1]
    return Surface(values, (float(within.min()), float(within.max())))


def field(loss: PairLoss, ref: np.ndarray, axes: str, n: int, stepping: bool) -> Field:
    """Return the directions of descent, in the coordinates of the axes.

    stepping  True: the change of both in a small step on the logits of n responses. False: the partial derivatives.
    """
    line = log_at(_middles(ARROWS), axes)
    if n == 2:  # all policies lie on the edge
        edge = np.stack([line, np.log1p(-np.exp(line))], 1)
        at = np.concatenate([edge, edge[:, ::-1]])
    else:
        at = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
        at = at[np.exp(at).sum(1) < ROOM]
    move = _pull(loss, at, ref)
    if stepping:
        weight = np.pad(move, ((0, 0), (0, n - 2)))
        move = first_order_change(policy(at, n), weight)[:, :2]
    if axes == "π":
        move = move * np.exp(at) if stepping else move / np.exp(at)
    length = np.hypot(*move.T)[:, None]
    unit = np.divide(move, length, out=np.full_like(move, np.nan), where=length > 0)
    unused = ((0, ARROWS**2 - len(at)), (0, 0))
    return Field(np.pad(place(at, axes), unused), np.pad(unit, unused, constant_values=np.nan))


def log_at(place: np.ndarray, axes: str) -> np.ndarray:
    """Return log π at a place, from 0 to 1, of an axis."""
    return np.log(place) if axes == "π" else (place - 1) * DECADES * math.log(10)


def place(log_p: np.ndarray, axes: str) -> np.ndarray:
    """Return the place of log π on an axis; values below the least are at 0."""
    return np.exp(log_p) if axes == "π" else np.maximum(1 + log_p / (DECADES * math.log(10)), 0)


def _pull(loss: PairLoss, at: np.ndarray, ref: np.ndarray) -> np.ndarray:
    """Return −∂L/∂log π of winner and loser, (K, 2), up to a factor: for a logistic loss σ(−m), which may underflow."""
    pairs = PairLogps(*torch.tensor(at.T), *torch.from_numpy(ref))
    if isinstance(loss, LogisticLoss):  # L falls as m grows
        return torch.stack(slopes(loss.margin, pairs), 1).numpy()
    return -torch.stack(slopes(loss, pairs), 1).numpy()


def _middles(cells: int) -> np.ndarray:
    return (np.arange(cells) + 0.5) / cells


def _three(values: np.ndarray) -> np.ndarray:
    return np.append(values, np.nan)[:3]

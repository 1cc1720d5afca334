"""The effects of a loss on one pair in a softmax: gradients in three spaces, the real step, and fields of arrows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.colors import to_hex

from gradlab.losses import LogisticLoss, PairLogps, PairLoss, log_prob_ratio, slopes
from gradlab.plotting.palette import SIDES
from gradlab.theory import first_order_change, realised_change

LEAST, MOST = 1e-12, 0.999  # ends of probabilities
ROOM = 1 - 1e-4  # the largest π_w + π_l, since others hold the rest
ARROWS = 12  # along each axis of a map
SHOWN = ("winner", "loser", "each other")  # responses whose gradients are kept
_NO_RATIO = "#7A7A7A"
_TOKEN = torch.ones((), dtype=torch.float64)  # the length of each response


@dataclass(frozen=True)
class Effect:
    """The effect of one loss at one policy. Arrays are (3,): winner, loser, one of the others."""

    loss: PairLoss
    value: float  # L
    rho: float  # |∂L/∂log π_w| / |∂L/∂log π_l|, NaN where both vanish
    ratio: float  # |∂L/∂π_w| / |∂L/∂π_l|, NaN where both vanish
    win_weight: float  # λ_w, the winner's share of both slopes in log π, NaN where both vanish
    by_prob: np.ndarray  # −∂L/∂π
    by_logp: np.ndarray  # −∂L/∂log π
    by_logit: np.ndarray  # −∂L/∂z
    change: np.ndarray  # Δ log π of one step on the logits, in nats
    first_order: np.ndarray  # the same to first order
    change_in_prob: np.ndarray  # Δπ of that step


@dataclass(frozen=True)
class Field:
    """Arrows over policies: probabilities (K, 2), directions (K, 2) in shares of the axes, and a colour for each."""

    places: np.ndarray
    directions: np.ndarray
    colors: list[str]


def kept_apart(win: float, lose: float) -> tuple[float, float]:
    """Return two probabilities that leave room for the others: the loser's gives way."""
    return win, min(lose, ROOM - win)


def policy(pair: np.ndarray, n: int) -> np.ndarray:
    """Return log π of n > 2 responses, (..., n), from winner's and loser's, (..., 2); others share the rest evenly."""
    others = np.log1p(-np.exp(pair).sum(-1, keepdims=True)) - math.log(n - 2)
    return np.concatenate([pair, np.repeat(others, n - 2, -1)], -1)


def effect(loss: PairLoss, log_p: np.ndarray, ref: np.ndarray, step: float) -> Effect:
    """Compute a loss's effect on a pair: gradients by autograd, the step by theory.

    log_p (n,), winner and loser first; ref (2,) their log π_ref; step > 0, of gradient descent on the logits.
    """
    logits = torch.tensor(log_p, requires_grad=True)
    with torch.enable_grad():
        logp = torch.log_softmax(logits, 0)
        pair = PairLogps(logp[0], logp[1], *torch.from_numpy(ref), win_len=_TOKEN, lose_len=_TOKEN)
        value = loss(pair)
        by_logp, by_logit = (0.0 - grad.numpy() for grad in torch.autograd.grad(value, (logp, logits)))
    log_ratio = log_prob_ratio(loss, pair).detach()
    log_rho = log_ratio + (pair.win - pair.lose).detach()
    change = realised_change(log_p, by_logp, step)
    return Effect(
        loss, value.item(), log_rho.exp().item(), log_ratio.exp().item(), log_rho.sigmoid().item(),
        (by_logp / np.exp(log_p))[:3], by_logp[:3], by_logit[:3], change[:3],
        (step * first_order_change(log_p, by_logp))[:3], (np.exp(log_p) * np.expm1(change))[:3],
    )  # fmt: skip


def field(loss: PairLoss, ref: np.ndarray, axes: str, n: int, stepping: bool) -> Field:
    """Return the directions of descent, in the coordinates of the axes, "π" or "log π".

    stepping  True: the change of both in a small step on the logits of n responses. False: the partial derivatives.
    A colour is that of the ratio of both gradients in probabilities, from 10 : 1 for the loser to 10 : 1 for the other.
    """
    line = log_at((np.arange(ARROWS) + 0.5) / ARROWS, axes)
    at = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    at = at[np.exp(at).sum(1) < ROOM]
    pull = _pull(loss, at, ref)
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes = np.log(np.abs(pull))
        powers = (sizes[:, 0] - sizes[:, 1] + at[:, 1] - at[:, 0]) / math.log(10)
    move = pull
    if stepping:
        move = first_order_change(policy(at, n), np.pad(pull, ((0, 0), (0, n - 2))))[:, :2]
    if axes == "π":
        move = move * np.exp(at) if stepping else move / np.exp(at)
    length = np.hypot(*move.T)[:, None]
    unit = np.divide(move, length, out=np.zeros_like(move), where=length > 0)
    return Field(np.exp(at), unit, [_color(power) for power in powers])


def log_at(place: np.ndarray, axes: str) -> np.ndarray:
    """Return log π at a place, from 0 to 1, of an axis."""
    return np.log(place) if axes == "π" else (1 - place) * math.log(LEAST)


def _pull(loss: PairLoss, at: np.ndarray, ref: np.ndarray) -> np.ndarray:
    """Return −∂L/∂log π of winner and loser, (K, 2), up to a factor: for a logistic loss σ(−m), which may underflow."""
    pairs = PairLogps(*torch.tensor(at.T), *torch.from_numpy(ref), win_len=_TOKEN, lose_len=_TOKEN)
    if isinstance(loss, LogisticLoss):  # L falls as m grows
        return torch.stack(slopes(loss.margin, pairs), 1).numpy()
    return -torch.stack(slopes(loss, pairs), 1).numpy()


def _color(power: float) -> str:
    """Return the colour of a ratio's logarithm to base ten."""
    return _NO_RATIO if math.isnan(power) else to_hex(SIDES(min(max((power + 1) / 2, 0.0), 1.0)))

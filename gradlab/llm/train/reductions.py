"""The reduction of a response's log-probabilities, and the losses that it would divide by the length twice."""

from __future__ import annotations

import torch

from gradlab.losses import BatchLoss, PairLogps, PairLoss

# Made-up pairs, in nats: winners and losers ahead, policies above and below the reference, so that no clip of a loss
# hides all of them.
_WIN, _LOSE = (-12.0, -30.0, -5.0, -41.0), (-15.0, -22.0, -9.0, -38.0)
_REF_WIN, _REF_LOSE = (-14.0, -28.0, -6.0, -36.0), (-13.0, -25.0, -7.0, -44.0)


def divides_by_length(loss: PairLoss | BatchLoss) -> bool:
    """Return whether a loss averages log π over tokens by itself, in all of its terms or in one of them.

    Such a loss changes where both responses of a pair get longer by one factor. One that compares the two lengths, as
    by L_w − L_l or L_w/L_l, does not change where they are equal.
    """
    win, lose, ref_win, ref_lose = (
        torch.tensor(side, dtype=torch.float64) for side in (_WIN, _LOSE, _REF_WIN, _REF_LOSE)
    )
    values = [
        loss(PairLogps(win, lose, ref_win, ref_lose, lengths, lengths))
        for lengths in (torch.full_like(win, tokens) for tokens in (8.0, 64.0))
    ]
    return not torch.allclose(*values, rtol=1e-9, atol=0.0, equal_nan=True)


def check_reduction(name: str, reduction: str, loss: PairLoss | BatchLoss, title: str) -> None:
    """Raise ValueError where means over tokens would go into a loss that takes means itself.

    name   of the argument that says the reduction; ``title`` is the loss as the user wrote it.
    """
    if reduction == "mean" and divides_by_length(loss):
        raise ValueError(f"{name} must be sum with {title}, which divides log π by the length itself; got 'mean'")

"""The mean pair loss of many runs, laid out for speed: responses first, (run, prompt) columns last and contiguous."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gradlab.losses import LogisticLoss, PairLogps, PairLoss

# Columns come in multiples of COLUMNS: every column then takes the same vectorised path through torch's kernels,
# whatever stands beside it, so a batch gives the same bits as each run gives alone. Matrix products need more.
COLUMNS = 32
MATMUL_COLUMNS = 64


class PairObjective:
    """The mean pair loss of a block of runs, item first: log π has shape (Y, C), columns are run · X + prompt.

    Only responses that occur in some pair take part. For an antisymmetric loss, one order of each pair stands for both.
    weights (R, X, Y, Y) are the shares of the ordered pairs.
    """

    def __init__(
        self, loss: PairLoss, weights: np.ndarray, ref_logp: np.ndarray, device: str, dtype: torch.dtype
    ) -> None:
        self.loss, self.device, self.dtype = loss, device, dtype
        self.antisymmetric = is_antisymmetric(loss)
        columns = weights.reshape(-1, *weights.shape[2:])
        seen = (columns.sum(1) + columns.sum(2)) > 0
        size = int(seen.sum(1).max())
        # Paired responses come first, in order; a column with fewer of them is filled up with unpaired responses.
        everything = size == seen.shape[1]
        order = np.argsort(~seen & (not everything), axis=1, kind="stable")[:, :size]
        rows = _pad(torch.as_tensor(order.T.copy(), device=device))
        rows[:, len(order) :] = torch.arange(size, device=device)[:, None]  # empty columns need distinct rows, too
        self.rows = None if everything else rows
        slots = torch.triu_indices(size, size, 1) if self.antisymmetric else _ordered_slots(size)
        self.win, self.lose = slots[0].to(device), slots[1].to(device)
        self._columns = np.arange(len(order))[:, None]
        self._pair = (order[:, slots[0].numpy()], order[:, slots[1].numpy()])
        ref = self._paired(to_columns(ref_logp, device, dtype))
        self.ref_win, self.ref_lose = ref[self.win], ref[self.lose]
        self.reweight(weights)

    def reweight(self, weights: np.ndarray) -> None:
        """Use other weights (R, X, Y, Y) on the same pairs, such as a mini-batch's."""
        columns = weights.reshape(-1, *weights.shape[2:])
        win, lose = self._pair
        self.win_weight = self._slots(columns[self._columns, win, lose])
        if self.antisymmetric:
            self.lose_weight = self._slots(columns[self._columns, lose, win])
            self.total_weight = self.win_weight + self.lose_weight

    @torch.enable_grad()
    def gradient(self, logp: Tensor) -> Tensor:
        """Return ∂L/∂log π, shape (Y, C), as if the log-probabilities were independent of each other."""
        inner = self._paired(logp)
        win, lose = (inner.index_select(0, side).requires_grad_() for side in (self.win, self.lose))
        logps = PairLogps(win, lose, self.ref_win, self.ref_lose)
        weights = (self.total_weight, self.lose_weight) if self.antisymmetric else (self.win_weight,)
        value, outer = value_and_slope(self.loss, logps, *weights)
        win_grad, lose_grad = torch.autograd.grad(value, (win, lose), outer)
        total = torch.zeros_like(inner).index_add_(0, self.win, win_grad).index_add_(0, self.lose, lose_grad)
        return total if self.rows is None else torch.zeros_like(logp).scatter_(0, self.rows, total)

    def value(self, logp: Tensor) -> Tensor:
        """Return the loss of each column, shape (C,)."""
        inner = self._paired(logp)
        logps = PairLogps(inner[self.win], inner[self.lose], self.ref_win, self.ref_lose)
        total = self.loss(logps) * self.win_weight
        if self.antisymmetric:
            total = total + self.loss(logps.swapped()) * self.lose_weight
        # Added up in order, so that slots of weight zero change no bit; a batch has them where its runs' pairs differ.
        return torch.zeros_like(total[:1]).index_add_(0, torch.zeros_like(self.win), total)[0]

    def _paired(self, logp: Tensor) -> Tensor:
        """Return the responses that occur in some pair alone, (size, C)."""
        return logp if self.rows is None else logp.gather(0, self.rows)

    def _slots(self, weights: np.ndarray) -> Tensor:
        return _pad(torch.as_tensor(weights.T, dtype=self.dtype, device=self.device))


def value_and_slope(
    loss: PairLoss, logps: PairLogps, weight: Tensor, swapped_weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return what to differentiate for each pair, and what to multiply its gradient by; both of the pairs' shape.

    weight          of the pair; for an antisymmetric loss, the sum over its two orders.
    swapped_weight  of the pair's swapped order, for an antisymmetric loss alone.
    """
    if not isinstance(loss, LogisticLoss):
        return loss(logps), weight
    margin = loss.margin(logps)
    slope = loss.slope(margin.detach()).mul_(weight)
    # slope(−m) = −1 − slope(m): the pair's two orders share one sigmoid.
    return margin, slope if swapped_weight is None else slope.add_(swapped_weight)


def to_columns(values: np.ndarray | Tensor, device: str, dtype: torch.dtype) -> Tensor:
    """Turn (R, X, Y) into (Y, C): runs and prompts become columns, filled up with zeros to a multiple of COLUMNS."""
    values = torch.as_tensor(values)
    return _pad(values.to(device, dtype).reshape(-1, values.shape[-1]).T)


def from_columns(columns: Tensor, runs: int, prompts: int) -> Tensor:
    """Turn (..., Y, C) into (..., R, X, Y): drop the filling and split columns into runs and prompts."""
    live = columns[..., : runs * prompts]
    return live.unflatten(-1, (runs, prompts)).movedim(-3, -1)


def mix(matrix: Tensor, columns: Tensor) -> Tensor:
    """Return ``matrix @ columns``, in which each column's bits do not depend on the other columns."""
    return (matrix @ _pad(columns, MATMUL_COLUMNS))[:, : columns.shape[1]].contiguous()


def pair_slots(loss: PairLoss, weights: np.ndarray) -> int:
    """Return the number of rows of a ``PairObjective`` of this loss and these weights (R, X, Y, Y)."""
    size = int(((weights.sum(-1) + weights.sum(-2)) > 0).sum(-1).max())
    return size * (size - 1) // (2 if is_antisymmetric(loss) else 1)


def is_antisymmetric(loss: PairLoss) -> bool:
    """Say whether one order of each pair stands for both; ValueError for a loss that promises it and cannot keep it."""
    if loss.antisymmetric and not isinstance(loss, LogisticLoss):
        raise ValueError(f"antisymmetric must be False of {loss!r}: only a LogisticLoss can keep that promise")
    return loss.antisymmetric


def _pad(columns: Tensor, multiple: int = COLUMNS) -> Tensor:
    return torch.nn.functional.pad(columns, (0, -columns.shape[-1] % multiple)).contiguous()


def _ordered_slots(size: int) -> Tensor:
    return (~torch.eye(size, dtype=torch.bool)).nonzero().T

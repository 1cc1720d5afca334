"""The mean pair loss of many runs, laid out for speed: responses first, (run, prompt) columns last and contiguous."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gradlab.losses import BatchLoss, DealtLoss, LogisticLoss, PairLogps, PairLoss, reads_lengths

# Columns come in multiples of COLUMNS: every column then takes the same vectorised path through torch's kernels,
# whatever stands beside it, so a batch gives the same bits as each run gives alone. Matrix products need more.
COLUMNS = 32
MATMUL_COLUMNS = 64


@dataclass(frozen=True, eq=False)
class Deal:
    """The dealing of a ``DealtLoss`` among the pairs of each run: the loss, and one seed per run."""

    loss: DealtLoss
    seeds: Sequence[int]

    @classmethod
    def of(cls, loss: PairLoss, seeds: Sequence[int]) -> Deal | None:
        """Return the dealing among runs of these seeds; None for a loss that deals nothing."""
        return cls(loss, seeds) if isinstance(loss, DealtLoss) else None

    def places(self, sizes: np.ndarray, slots: np.ndarray, prompts: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where each slot's number comes from in its run, slot · X + prompt, and its sign; both (R, slots, X).

        sizes  (R,) how many responses of a run occur in pairs; slots (2, slots) are numbers of paired responses, winner
               and loser. A run's own pairs do not depend on the other runs; slots beyond them keep their number.
        """
        source = np.tile(np.arange(slots.shape[1] * prompts).reshape(1, -1, prompts), (len(sizes), 1, 1))
        sign = np.ones(source.shape)
        for run, (seed, size) in enumerate(zip(self.seeds, sizes, strict=True)):
            inside = np.flatnonzero((slots < size).all(0))
            given, signs = self._drawn(len(inside) * prompts, seed)
            source[run, inside] = (inside[given // prompts] * prompts + given % prompts).reshape(-1, prompts)
            sign[run, inside] = signs.reshape(-1, prompts)
        return source, sign

    def _drawn(self, pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the loss's own answer, checked."""
        given, signs = (part.detach().cpu().numpy() for part in self.loss.deal(pairs, seed))
        if given.shape != (pairs,) or given.dtype.kind != "i" or not ((given >= 0) & (given < pairs)).all():
            raise ValueError(f"deal of {self.loss!r} must return {pairs} whole numbers below {pairs}, one per pair")
        if signs.shape != (pairs,) or not (np.abs(signs) == 1).all():
            raise ValueError(f"deal of {self.loss!r} must return {pairs} signs of 1 or −1, one per pair")
        return given, signs


class PairObjective:
    """The mean pair loss of a block of runs, item first: log π has shape (Y, C), columns are run · X + prompt.

    Only responses that occur in some pair take part. For an antisymmetric loss, one order of each pair stands for both.
    A ``BatchLoss`` takes all pairs of a run for one batch; each run is one by itself, so that it has the bits of a run
    that is alone.
    weights (R, X, Y, Y) are the shares of the ordered pairs; ``deal`` is that of a ``DealtLoss``. lengths (R, X, Y) are
    those of the responses, in tokens; None: 1 each.
    """

    def __init__(
        self,
        loss: PairLoss,
        weights: np.ndarray,
        ref_logp: np.ndarray,
        device: str,
        dtype: torch.dtype,
        deal: Deal | None = None,
        lengths: np.ndarray | None = None,
    ) -> None:
        self.loss, self.device, self.dtype = loss, device, dtype
        self.antisymmetric = is_antisymmetric(loss)
        order, sizes = paired_first(weights)
        size = int(sizes.max())
        order = order[:, :size]
        everything = bool((sizes == weights.shape[2]).all())
        rows = _pad(torch.as_tensor(order.T.copy(), device=device))
        rows[:, len(order) :] = torch.arange(size, device=device)[:, None]  # empty columns need distinct rows, too
        self.rows = None if everything else rows
        slots = torch.triu_indices(size, size, 1) if self.antisymmetric else _ordered_slots(size)
        self.win, self.lose = slots[0].to(device), slots[1].to(device)
        self._prompts, responses = weights.shape[1], weights.shape[2]
        win, lose = (order[:, side.numpy()] for side in slots)
        self._pair = tuple(torch.from_numpy(at).to(device) for at in (win * responses + lose, lose * responses + win))
        self.rereference(to_columns(ref_logp, device, dtype))
        self.lengths: tuple[Tensor, ...] = ()
        if reads_lengths(loss):
            length = self._paired(
                to_columns(np.ones_like(ref_logp) if lengths is None else lengths, device, dtype, 1.0)
            )
            self.lengths = length[self.win], length[self.lose]
        self._dealt = None if deal is None else self._dealing(deal, sizes, slots.numpy(), weights.shape[1])
        self.reweight(weights)

    def rereference(self, ref_logp: Tensor) -> None:
        """Use another reference, (Y, C)."""
        ref = self._paired(ref_logp)
        self.ref_win, self.ref_lose = ref[self.win], ref[self.lose]

    def reweight(self, weights: np.ndarray | Tensor) -> None:
        """Use other weights (R, X, Y, Y) on the same pairs, such as a mini-batch's."""
        columns = torch.as_tensor(weights, device=self.device).flatten(0, 1).flatten(1)
        self.win_weight, swapped = (_pad(columns.gather(1, at).T.to(self.dtype)) for at in self._pair)
        if self.antisymmetric:
            self.lose_weight = swapped
            self.total_weight = self.win_weight + self.lose_weight
        if isinstance(self.loss, BatchLoss):
            runs = self.win_weight[:, : len(columns)].unflatten(1, (-1, self._prompts)).unbind(1)
            first = [run * self._prompts for run in range(len(runs))]
            at = [[*own.nonzero(as_tuple=True)] for own in runs]
            self._batches = [
                (slot * self.win_weight.shape[1] + start + prompt, own[slot, prompt] / own.sum())
                for own, start, (slot, prompt) in zip(runs, first, at, strict=True)
            ]

    @torch.enable_grad()
    def gradient(self, logp: Tensor) -> Tensor:
        """Return ∂L/∂log π, shape (Y, C), as if the log-probabilities were independent of each other."""
        inner = self._paired(logp)
        win, lose = (inner.index_select(0, side).requires_grad_() for side in (self.win, self.lose))
        logps = PairLogps(win, lose, self.ref_win, self.ref_lose, *self.lengths)
        weights = (self.total_weight, self.lose_weight) if self.antisymmetric else (self.win_weight,)
        if isinstance(self.loss, BatchLoss):
            value, outer = self._in_batches(self.loss, logps), self.win_weight
        else:
            value, outer = value_and_slope(self.loss, logps, *weights, dealt=self.dealt(logps))
        win_grad, lose_grad = torch.autograd.grad(value, (win, lose), outer)
        total = torch.zeros_like(inner).index_add_(0, self.win, win_grad).index_add_(0, self.lose, lose_grad)
        return total if self.rows is None else torch.zeros_like(logp).scatter_(0, self.rows, total)

    def value(self, logp: Tensor) -> Tensor:
        """Return the loss of each column, shape (C,)."""
        inner = self._paired(logp)
        logps = PairLogps(inner[self.win], inner[self.lose], self.ref_win, self.ref_lose, *self.lengths)
        if self.antisymmetric and isinstance(self.loss, LogisticLoss):  # one margin serves both orders
            margin = _margin(self.loss, logps, self.dealt(logps))
            total = -(F.logsigmoid(margin) * self.win_weight + F.logsigmoid(-margin) * self.lose_weight)
        elif isinstance(self.loss, BatchLoss):
            total = self._in_batches(self.loss, logps) * self.win_weight
        else:
            dealt = self.dealt(logps)
            loss = self.loss(logps) if dealt is None else self.loss(logps, dealt)  # type: ignore[call-arg]
            total = loss * self.win_weight
        # Added up in order, so that slots of weight zero change no bit; a batch has them where its runs' pairs differ.
        return torch.zeros_like(total[:1]).index_add_(0, torch.zeros_like(self.win), total)[0]

    def _in_batches(self, loss: BatchLoss, logps: PairLogps) -> Tensor:
        """Return the value of each pair in its run's batch, (slots, C); 0 where there is no pair."""
        given = {name: side.flatten() for name, side in vars(logps).items() if side is not None}
        values = [
            loss(PairLogps(**{name: side[places] for name, side in given.items()}), share)
            for places, share in self._batches
        ]
        places = torch.cat([places for places, _ in self._batches])
        return torch.zeros_like(given["win"]).index_put((places,), torch.cat(values)).view_as(logps.win)

    def dealt(self, logps: PairLogps) -> Tensor | None:
        """Return the number that each pair gets from another of its run; None for a loss that deals nothing."""
        if self._dealt is None:
            return None
        loss, source, sign = self._dealt
        return loss.number(logps).detach().flatten().index_select(0, source).view_as(sign) * sign

    def _dealing(
        self, deal: Deal, sizes: np.ndarray, slots: np.ndarray, prompts: int
    ) -> tuple[DealtLoss, Tensor, Tensor]:
        """Return the loss, for each slot of each column the flat place of its number, and the signs."""
        source, sign = deal.places(sizes, slots, prompts)
        slot, prompt = np.divmod(source, prompts)
        columns = self.ref_win.shape[1]
        places = np.arange(slots.shape[1] * columns).reshape(-1, columns)  # columns that fill up keep their number
        moved = slot * columns + np.arange(len(sizes))[:, None, None] * prompts + prompt
        places[:, : len(sizes) * prompts] = moved.transpose(1, 0, 2).reshape(len(places), -1)
        signs = sign.transpose(1, 0, 2).reshape(len(places), -1)
        one_sign = F.pad(torch.from_numpy(signs), (0, columns - signs.shape[1]), value=1.0)
        return deal.loss, torch.from_numpy(places.ravel()).to(self.device), one_sign.to(self.device, self.dtype)

    def _paired(self, logp: Tensor) -> Tensor:
        """Return the responses that occur in some pair alone, (size, C)."""
        return logp if self.rows is None else logp.gather(0, self.rows)


def value_and_slope(
    loss: PairLoss,
    logps: PairLogps,
    weight: Tensor,
    swapped_weight: Tensor | None = None,
    dealt: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return what to differentiate for each pair, and what to multiply its gradient by; both of the pairs' shape.

    weight          of the pair; for an antisymmetric loss, the sum over its two orders.
    swapped_weight  of the pair's swapped order, for an antisymmetric loss alone.
    dealt           what the pair gets from another, for a ``DealtLoss`` alone.
    """
    if not isinstance(loss, LogisticLoss):
        return loss(logps), weight
    margin = _margin(loss, logps, dealt)
    slope = loss.slope(margin.detach()).mul_(weight)
    # slope(−m) = −1 − slope(m): the pair's two orders share one sigmoid.
    return margin, slope if swapped_weight is None else slope.add_(swapped_weight)


def _margin(loss: LogisticLoss, logps: PairLogps, dealt: Tensor | None) -> Tensor:
    return loss.margin(logps, dealt) if isinstance(loss, DealtLoss) else loss.margin(logps)


def paired_first(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each column's order of responses, (C, Y), and how many of them a run's pairs need, (R,).

    Paired responses come first, in order; a column with fewer of them than its run needs is filled up with others. A
    run that needs all of them keeps their order. weights (R, X, Y, Y).
    """
    seen = (weights.sum(-1) + weights.sum(-2)) > 0
    sizes = seen.sum(-1).max(-1)
    last = ~seen & (sizes < seen.shape[-1])[:, None, None]
    return np.argsort(last.reshape(-1, seen.shape[-1]), axis=1, kind="stable"), sizes


def to_columns(values: np.ndarray | Tensor, device: str, dtype: torch.dtype, filling: float = 0.0) -> Tensor:
    """Turn (R, X, Y) into (Y, C): runs and prompts become columns, filled up to a multiple of COLUMNS."""
    values = torch.as_tensor(values)
    return _pad(values.to(device, dtype).reshape(-1, values.shape[-1]).T, filling=filling)


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


def _pad(columns: Tensor, multiple: int = COLUMNS, filling: float = 0.0) -> Tensor:
    return F.pad(columns, (0, -columns.shape[-1] % multiple), value=filling).contiguous()


def _ordered_slots(size: int) -> Tensor:
    return (~torch.eye(size, dtype=torch.bool)).nonzero().T

"""The columns of a training log for a batch of pairs, from their log-probabilities alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from gradlab.losses import BatchLoss, LogisticLoss, PairLogps, PairLoss, slopes

QUANTILES = (0.1, 0.5, 0.9)  # of λ_w


def in_batches(loss: BatchLoss, parts: Sequence[np.ndarray]) -> Callable[[PairLogps], Tensor]:
    """Return the loss as a function of the pairs of several batches; parts are the places of each batch's pairs."""
    parts = [part for part in parts if len(part)]
    back = torch.as_tensor(np.argsort(np.concatenate(parts)))

    def values(logps: PairLogps) -> Tensor:
        sides = [side for side in vars(logps).values() if side is not None]
        return torch.cat([loss(PairLogps(*(side[part] for side in sides))) for part in parts])[back]

    return values


def beta_of_rewards(loss: PairLoss | BatchLoss) -> float:
    """Return the β of a loss's implicit rewards β h in the log: its own, or 1 for a loss without ``beta``."""
    return getattr(loss, "beta", 1.0)


def batch_row(
    loss: PairLoss | BatchLoss, logps: PairLogps, values_of: Callable[[PairLogps], Tensor] | None = None
) -> dict[str, float]:
    """Return the columns of a training log that follow from log-probabilities alone, as means over pairs.

    Their names are among ``gradlab.doctor.log_columns.COLUMNS``.

    loss       the rewards' β is that of ``beta_of_rewards``.
    logps      in any shape, precision and place; the computation is in float64 on the CPU, so that nothing of a pair is
               lost at log π = −10⁶.
    values_of  the loss as a function of flat pairs, where it is one of batches, see ``in_batches``.

    Only a ``LogisticLoss`` has ``margin``. λ_w is the winner's share in the slopes of the margin, or of the loss where
    there is no margin. A pair whose slopes are both 0 has no λ_w, and the columns of λ_w leave it out; so does
    ``log_prob_ratio`` with a pair that lacks either slope. Columns are missing where no pair is left.
    ``win_weight_length_correlation`` needs lengths, and is missing where λ_w or the lengths do not vary.
    """
    logps = _flat(logps)
    win, lose = logps.win, logps.lose
    values_of = values_of or loss
    values, outside = values_of(logps), slopes(values_of, logps)
    margin, inside = None, outside
    if isinstance(loss, LogisticLoss):
        margin, inside = loss.margin(logps), slopes(loss.margin, logps)
    steep, both_steep = (inside[0] != 0) | (inside[1] != 0), (inside[0] != 0) & (inside[1] != 0)
    weight = (inside[0].abs() / (inside[0].abs() + inside[1].abs()))[steep]
    beta = beta_of_rewards(loss)
    reward_win, reward_lose = beta * logps.win_logratio, beta * logps.lose_logratio
    columns = {
        "loss": values, "reward_win": reward_win, "reward_lose": reward_lose, "reward_margin": reward_win - reward_lose,
        "margin": margin, "accuracy": (reward_win > reward_lose).double(), "logp_win": win, "logp_lose": lose,
        "win_weight": weight, "slope_win": outside[0], "slope_lose": outside[1],
        "log_prob_ratio": (inside[0].abs().log() - inside[1].abs().log() + (lose - win))[both_steep],
    }  # fmt: skip
    row = {name: float(value.mean()) for name, value in columns.items() if value is not None and len(value)}
    if len(weight):
        row |= {f"win_weight_q{100 * q:.0f}": float(weight.quantile(q)) for q in QUANTILES}
    if logps.win_len is not None and logps.lose_len is not None and len(weight) > 1:
        tokens = (logps.win_len / (logps.win_len + logps.lose_len))[steep]
        if weight.std() > 1e-6 and tokens.std() > 1e-6:
            row["win_weight_length_correlation"] = float(torch.corrcoef(torch.stack([weight, tokens]))[0, 1])
    return row


def _flat(logps: PairLogps) -> PairLogps:
    """Return the pairs along a single axis, detached."""
    lengths = [] if logps.win_len is None or logps.lose_len is None else [logps.win_len, logps.lose_len]
    fields = torch.broadcast_tensors(logps.win, logps.lose, logps.ref_win, logps.ref_lose, *lengths)
    return PairLogps(*(field.detach().cpu().double().flatten() for field in fields))

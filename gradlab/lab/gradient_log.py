"""The gradient log: how strongly both sides of single pairs move the policy, at a few steps of a training."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradlab.lab.runs import Runs
from gradlab.losses import PairLogps, PairLoss, differentiated, log_prob_ratio, slopes
from gradlab.streams import Purpose, stream

PAIRS_PER_RUN = 64  # a sample, drawn from the training pairs of each run


def gradient_log(
    loss: PairLoss,
    before: Tensor,
    after: Tensor,
    steps: np.ndarray,
    weights: np.ndarray,
    runs: Runs,
    features: Tensor,
) -> pd.DataFrame:
    """Return a tidy frame with one row per logged step, run and sampled pair.

    before, after  (S, R, X, Y) log π at the logged steps, and after one more step of training.
    weights        (R, X, Y, Y) shares of the ordered pairs; the sample is drawn from them, once per run.
    runs           the worlds, whose references, lengths and seeds are used.
    features       (Y, K) Φ of the policy, so that ∇_θ log π_y = Φ_y − E_π[Φ].

    Columns, in nats and natural logarithms: ``log_win``, ``log_lose`` (log π of both sides); ``log_prob_ratio``
    (of ∂L/∂π, see losses); ``win_weight`` (share of the winner in |∂m/∂log π_w| + |∂m/∂log π_l|: λ_w of
    Balanced-DPO, ½ of DPO); ``grad_norm_win``, ``grad_norm_lose`` (‖∂L/∂log π · ∇_θ log π‖ of this pair) and
    ``grad_cosine``, the cosine of these two gradients (see ``gradlab.theory.side_moves``; NaN where one is 0);
    ``side_norm_win``, ``side_norm_lose`` (the same norm for the winning and the losing side of all pairs of the
    prompt); ``delta_win``, ``delta_lose`` (realised change of log π in the next step of training).
    """
    before, after = before.double().cpu(), after.double().cpu()
    features = features.double()
    frames = []
    for run, seed in enumerate(runs.seeds):
        prompt, win, lose = _sample(weights[run], seed)
        pair_weights = torch.as_tensor(weights[run])
        ref, length = torch.as_tensor(runs.ref_logp[run]), torch.as_tensor(runs.lengths[run])
        at = (prompt, win), (prompt, lose)
        for index, step in enumerate(steps):
            logp, later = before[index, run], after[index, run]
            logps = PairLogps(*(values[side] for values in (logp, ref, length) for side in at))
            win_slope, lose_slope = slopes(loss, logps)
            score = _scores(logp, features)
            norm = score.norm(dim=-1)
            side_win, side_lose = _side_norms(loss, logp, ref, length, pair_weights, features)
            inside = slopes(differentiated(loss), logps)
            columns = {
                "prompt": prompt, "win": win, "lose": lose,
                "log_win": logps.win, "log_lose": logps.lose,
                "log_prob_ratio": log_prob_ratio(loss, logps),
                "win_weight": inside[0].abs() / (inside[0].abs() + inside[1].abs()),
                "grad_norm_win": win_slope.abs() * norm[prompt, win],
                "grad_norm_lose": lose_slope.abs() * norm[prompt, lose],
                "grad_cosine": win_slope.sign() * lose_slope.sign() * _cosine(score[prompt, win], score[prompt, lose]),
                "side_norm_win": side_win[prompt], "side_norm_lose": side_lose[prompt],
                "delta_win": later[prompt, win] - logps.win, "delta_lose": later[prompt, lose] - logps.lose,
            }  # fmt: skip
            frames.append(pd.DataFrame({"run": run, "step": int(step), **{k: v.numpy() for k, v in columns.items()}}))
    return pd.concat(frames, ignore_index=True)


def _sample(weights: np.ndarray, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return prompt, winner and loser of the sampled pairs, each (PAIRS_PER_RUN,)."""
    flat = weights.ravel() / weights.sum()
    drawn = stream(seed, Purpose.GRADIENT_LOG).choice(len(flat), size=PAIRS_PER_RUN, p=flat)
    prompt, win, lose = np.unravel_index(np.sort(drawn), weights.shape)
    return torch.as_tensor(prompt), torch.as_tensor(win), torch.as_tensor(lose)


def _scores(logp: Tensor, features: Tensor) -> Tensor:
    """Return ∇_θ log π_y of every response, (X, Y, K)."""
    mean = logp.exp() @ features
    return features - mean[:, None, :]


def _cosine(win: Tensor, lose: Tensor) -> Tensor:
    """Return the cosine of two gradients (N, K), (N,); NaN where one is 0."""
    return ((win * lose).sum(-1) / (win.norm(dim=-1) * lose.norm(dim=-1))).clamp(-1, 1)


def _side_norms(
    loss: PairLoss, logp: Tensor, ref_logp: Tensor, length: Tensor, weights: Tensor, features: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the parameter-gradient norms of the winning and the losing side of each prompt's full data, (X,) each."""
    shape = weights.shape
    sides = (side for values in (logp, ref_logp, length) for side in (values[:, :, None], values[:, None, :]))
    win_slope, lose_slope = slopes(loss, PairLogps(*(side.expand(shape) for side in sides)))
    mean = logp.exp() @ features
    norms = []
    for slope, axis in ((win_slope, 2), (lose_slope, 1)):
        by_response = torch.where(weights > 0, slope * weights, 0).sum(axis)
        norms.append((by_response @ features - by_response.sum(1, keepdim=True) * mean).norm(dim=-1))
    return norms[0], norms[1]

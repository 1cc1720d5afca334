"""Weights w(y) = −∂L/∂log π(y), up to a scale: they say which responses a loss raises or lowers.

Setting of the paper's Theorem 3: all n² ordered pairs of responses equally often (uniform sampling), both label terms,
exact Bradley–Terry labels of a preference q ∝ exp(u). All functions take and give arrays (..., n), responses last;
leading axes broadcast. They need memory for (..., n, n).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gradlab.checks import positive
from gradlab.theory.inputs import Array, finite, log_distribution, same_responses, sigmoid


def dpo_weight(log_p: ArrayLike, log_q: ArrayLike, log_ref: ArrayLike | None = None, beta: float = 1.0) -> Array:
    """Return DPO's w_i = Σ_j [q_i/(q_i + q_j) − σ(β(h_i − h_j))], h = log p − log π_ref; they sum to zero over i.

    −∂L/∂log p_i = (2β/n²) w_i.

    log_ref: log π_ref; None: uniform, for which the second term is p_i/(p_i + p_j) at β = 1. Source: the paper's
    Theorem 3 (uniform reference, β = 1); any reference and β: ours.
    """
    log_p, log_q, log_ref = _shift(log_p, log_q, log_ref)
    return (_beats(log_q) - _beats(positive("beta", beta) * (log_p - log_ref))).sum(-1)


def bdpo_weight(log_p: ArrayLike, log_q: ArrayLike, log_ref: ArrayLike | None = None, beta: float = 1.0) -> Array:
    """Return Balanced-DPO's w_i = Σ_j λ_ij [q_i/(q_i + q_j) − σ(m_ij)], λ_ij = log p_j/(log p_i + log p_j).

    −∂L/∂log p_i = (2β/n²) w_i, as for ``dpo_weight``. m_ij = β(λ_ij h_i − λ_ji h_j) is Balanced-DPO's margin. The w_i
    do not sum to zero: see ``in_logits``. As the grid is refined, every λ tends to ½, and Balanced-DPO to DPO at β/2:
    see ``bdpo_weight_limit``. Source: ours, from the paper's loss.
    """
    log_p, log_q, log_ref = _shift(log_p, log_q, log_ref)
    # Shifted by the smallest normal number, which changes only 0/0: two certain responses weigh ½ each.
    cost = np.maximum(-log_p, 0) + np.finfo(float).tiny
    weight = cost[..., None, :] / (cost[..., :, None] + cost[..., None, :])
    # λ_ij log p_i = λ_ji log p_j, so p stays in the margin only through the weights.
    pull = -weight * log_ref[..., :, None]
    margin = positive("beta", beta) * (pull - pull.swapaxes(-1, -2))
    return (weight * (_beats(log_q) - sigmoid(margin))).sum(-1)


def log_ratio_weight(log_p: ArrayLike, log_q: ArrayLike) -> Array:
    """Return w_i = log q_i − log p_i, the advantage of a KL-regularised policy gradient at β = 1. Source: ours."""
    log_p, log_q, _ = _shift(log_p, log_q, None)
    return log_q - log_p


def balanced_weight(
    log_p: ArrayLike, log_q: ArrayLike, *, weight: ArrayLike | None = None, baseline: bool = False
) -> Array:
    """Return w_i p_i, the balanced ("PPO-like") weight; with ``baseline``, (w_i − E_p[w]) p_i.

    weight    w (..., n); None: DPO's w. A policy gradient weighs log p_i by its advantage times p_i.
    baseline  subtract the mean advantage under p. In logits this changes nothing: both are p_i(w_i − E_p[w]).

    Source: the paper's Theorem 3; baseline and logit form: ours.
    """
    log_p, log_q, _ = _shift(log_p, log_q, None)
    w = dpo_weight(log_p, log_q) if weight is None else finite("weight", weight)
    same_responses(log_p=log_p, weight=w)
    p = np.exp(log_p)
    if baseline:
        w = w - (p * w).sum(-1, keepdims=True)
    return w * p


def in_logits(weight: ArrayLike, log_p: ArrayLike) -> Array:
    """Return the weights on softmax logits: w_i − p_i Σ_j w_j. Weights that sum to zero stay as they are."""
    weight, log_p = finite("weight", weight), log_distribution("log_p", log_p)
    same_responses(log_p=log_p, weight=weight)
    return weight - np.exp(log_p) * weight.sum(-1, keepdims=True)


def _beats(score: Array) -> Array:
    """Return σ(score_i − score_j), (..., n, n)."""
    return sigmoid(score[..., :, None] - score[..., None, :])


def _shift(log_p: ArrayLike, log_q: ArrayLike, log_ref: ArrayLike | None) -> tuple[Array, Array, Array]:
    p, q = log_distribution("log_p", log_p), log_distribution("log_q", log_q)
    ref = np.full(p.shape[-1:], -np.log(p.shape[-1])) if log_ref is None else log_distribution("log_ref", log_ref)
    same_responses(log_p=p, log_q=q, log_ref=ref)
    return p, q, ref
